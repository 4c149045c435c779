"""The commands of this package as processes of another one: their command lines, and what is wrong with these."""

from darts_tf.cli import configuration
from darts_tf.runs.configurations import SearchConfig, TrainConfig

OWN = ("output", "overwrite", "resume", "json")  # flags that whoever starts a command gives it
CONFIGURATIONS = {"search": SearchConfig, "train": TrainConfig}


def arguments(values):
    """Flags as on a command line.

    Args:
        values: {flag: value}; None for flags that are written without one.
    """
    texts = {name: ",".join(map(str, v)) if isinstance(v, list | tuple) else v for name, v in values.items()}
    return [f"--{name}" if value is None else f"--{name}={value}" for name, value in texts.items()]


def check(command, values, taken=()):
    """Looks at the flags of a command as the command itself would.

    Args:
        command: "search" or "train".
        values: as of `arguments`.
        taken: names of flags that may not be among them, besides `OWN` and, of a training, where its network is from.

    Raises:
        ValueError: a flag is taken, does not exist, or cannot have its value.
    """
    taken = {*OWN, *taken, *(("arch", "init_from", "evaluate") if command == "train" else ())}
    others = {name: value for name, value in values.items() if name not in ("verbose", "json", "nojson")}
    config = configuration.parse(CONFIGURATIONS[command], arguments(others))
    verbose = values.get("verbose", 1)
    if str(verbose) not in ("0", "1", "2"):
        raise ValueError(f"--verbose={verbose}: expected 0, 1 or 2.")
    messages = {name.removeprefix("no") for name in set(values) - set(others)}
    for name in sorted(taken & {*config.given, *messages}):
        raise ValueError(f"--{name}: each of them gets its own; expected other flags.")
    if command == "train":
        config = config.replace(arch="DARTS_V2")
    config.check()
    if "train_portion" in config.given and command == "train" and not config.train_portion < 1:
        raise ValueError(f"--train_portion={config.train_portion}: expected less than 1, the rest validates.")
