"""The commands of this package as processes of another one: their command lines, and what is wrong with these."""

import functools
import subprocess
import sys

OWN = ("output", "overwrite", "resume", "json")  # flags that whoever starts a command gives it
# Reads a command's flags and looks at them, and nothing else.
CHECK = """
import importlib, sys
from darts_tf import commands
command, taken = importlib.import_module(sys.argv[1]), sys.argv[2].split(",")
try:
    rest = commands.read([sys.argv[1], *sys.argv[3:]])[1:]
    given = [name for name in taken if name in commands.FLAGS and commands.FLAGS[name].present]
    if given:
        raise commands.UsageError(f"--{given[0]}: each of them gets its own; expected other flags.")
    if rest:
        raise commands.UsageError(f"{rest[0]}: expected flags.")
    for flag in sys.argv[3:]:
        if flag in commands.HELP:
            raise commands.UsageError(f"{flag}: expected other flags.")
    if sys.argv[1].endswith("train"):
        commands.FLAGS.arch = "DARTS_V2"
    command.check_flags()
except commands.UsageError as error:
    sys.exit(" ".join(str(error).split()))
"""


def arguments(values):
    """Flags as on a command line.

    Args:
        values: {flag: value}; None for flags that are written without one.
    """
    texts = {name: ",".join(map(str, v)) if isinstance(v, list | tuple) else v for name, v in values.items()}
    return [f"--{name}" if value is None else f"--{name}={value}" for name, value in texts.items()]


def check(command, values, taken=()):
    """Lets a command's own parser look at flags.

    Args:
        command: "search" or "train".
        values: as of `arguments`.
        taken: names of flags that may not be among them, besides `OWN` and, of a training, where its network is from.

    Raises:
        ValueError: a flag is taken, does not exist, or cannot have its value.
    """
    taken = (*OWN, *taken, *(("arch", "init_from", "evaluate") if command == "train" else ()))
    wrong = _complaint(command, tuple(arguments(values)), taken)
    if wrong:
        raise ValueError(wrong)
    if command == "train" and not 0 < float(values.get("train_portion", 0.8)) < 1:
        raise ValueError(f"--train_portion={values['train_portion']}: expected less than 1, the rest validates.")


@functools.cache
def _complaint(command, flags, taken):
    line = [sys.executable, "-c", CHECK, f"darts_tf.{command}", ",".join(taken), *flags]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    return (done.stderr.strip().splitlines() or ["?"])[-1] if done.returncode else None
