"""What all commands share: their help, how they read flags, what they print, how they say that something is wrong."""

import contextlib
import errno
import io
import json
import math
import os
import shutil
import sys
import textwrap
import time

from absl import app, flags
from tqdm import tqdm

FLAGS = flags.FLAGS
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
HELP = ("--help", "-help", "--helpshort", "-h", "-?")
_topics = {}


@contextlib.contextmanager
def topic(name):
    """The flags that are defined inside stand below this name in the help."""
    before = set(FLAGS)
    yield
    _topics.update({flag: name for flag in FLAGS if flag not in before})


with topic("Messages"):
    flags.DEFINE_integer(
        "verbose",
        1,
        "What stderr gets, as in Keras: 0 nothing but warnings and errors; 1 a bar for the epoch, on a terminal; 2 a "
        "line per epoch.",
        lower_bound=0,
        upper_bound=2,
    )
    flags.DEFINE_boolean("json", False, "Print the results, all that goes to stdout, as one line of JSON.")


class UsageError(Exception):
    """The user asked for something that cannot be; the message is one line."""


def run(main, arguments=()):
    """Runs a command's `main(argv)`; a user's mistake becomes one line on stderr and exit code 2.

    Args:
        main: function of argv, the program's name and then its arguments without the flags.
        arguments: what these are called; as many are expected, or more if the last one is "...".
    """

    def parse(argv):
        if any(argument in HELP for argument in argv[1:]):
            _print(usage())
            sys.exit(0)
        try:
            return read(argv)
        except UsageError as error:
            _exit(error)

    def guarded(argv):
        try:
            open_end = list(arguments[-1:]) == ["..."]
            extra = argv[1 + len(arguments) :]
            if extra and not open_end:
                raise UsageError(f"{extra[0]}: expected {' '.join(arguments) or 'no argument'} and flags, see --help.")
            if len(argv) <= len(arguments) - open_end:
                raise UsageError(f"expected {' '.join(arguments)}, see --help.")
            return main(argv)
        except UsageError as error:
            _exit(error)
        except KeyboardInterrupt:
            sys.exit(130)
        except OSError as error:
            reason = error.strerror or str(error)
            what = f"{error.filename}: {reason}" if error.filename else reason
            then = "with space" if error.errno in NO_SPACE else "once that is mended"
            print(
                f"\nerror: {what}. What was written before is whole; {then}, the same command goes on.", file=sys.stderr
            )
            sys.exit(1)

    _open_streams()
    app.run(guarded, flags_parser=parse)


def read(argv):
    """Reads a command line's flags; returns the other arguments. Raises UsageError."""
    try:
        rest = FLAGS(argv)
    except (flags.Error, ValueError, OSError) as error:  # for --noflag=value, too, and --flagfile
        raise UsageError(str(error)) from None
    for name, value in FLAGS.flag_values_dict().items():
        if isinstance(value, float) and not math.isfinite(value):  # no number is below a bound or above
            raise UsageError(f"flag --{name}={value}: expected a finite number.")
    return rest


def _exit(error):
    message = " ".join(str(error).split())
    message = message if len(message) < 2000 else f"{message[:1000]} ... {message[-900:]}"
    print(f"error: {''.join(c if c.isprintable() else ascii(c)[1:-1] for c in message)}", file=sys.stderr)
    sys.exit(2)


class Lasting:
    """A text stream that goes on when what it leads to is gone or full."""

    def __init__(self, stream):
        self._stream = stream

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, text):
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self):
        with contextlib.suppress(OSError):
            self._stream.flush()


def _open_streams():
    """Opens standard streams that are closed, since files would take their places; no message ends a command."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "w" if number else "r"))
    for stream in filter(lambda stream: isinstance(stream, io.TextIOWrapper), (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="backslashreplace")  # of letters that the terminal does not have
    sys.stderr = Lasting(sys.stderr)


def say(text):
    """Prints what a user may want to know while the command is at work; not with --verbose=0."""
    if FLAGS.verbose:
        print(text, file=sys.stderr, flush=True)


def progress(parts, total, what):
    """Tells how far a loop over parts of something is, if it takes more than two seconds; not with --verbose=0.

    Args:
        parts: iterable of what has a length.
        total: the sum of the lengths.
        what: is done, such as "Reading images".

    Yields:
        The parts.
    """
    began = said = time.monotonic()
    bar = tqdm(
        desc=what,
        total=total,
        delay=2,
        bar_format="{desc} {bar:20} {n_fmt}/{total_fmt}  {remaining} left",
        dynamic_ncols=True,
        leave=False,
        file=sys.stderr,
        disable=FLAGS.verbose != 1 or not sys.stderr.isatty(),
    )
    done = 0
    with bar:
        for part in parts:
            yield part
            done += len(part)
            bar.update(len(part))
            now = time.monotonic()
            if bar.disable and now - said > (2 if said == began else 30):
                say(f"{what}: {done:,} of {total:,}")
                said = now


def warn(text):
    """Prints what a user must know."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


def result(text, **values):
    """Prints what the command was run for: a text for people or, with --json, the values, which JSON can hold."""
    _print(json.dumps(values, default=str) if FLAGS.json else text)


def _print(text):
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may hold anything
    try:
        print(text, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno in NO_SPACE:  # or else nobody is there any more, as of `| head`
            raise


def usage():
    """The help of the command that runs: what its module says of it, then its own flags by topic."""
    main = sys.modules["__main__"]
    shown = {id(flag) for flag in FLAGS.get_key_flags_for_module(main)}
    shown |= {id(flag) for flag in FLAGS.get_key_flags_for_module(sys.modules[__name__])}
    groups = {}
    for module in reversed(FLAGS.flags_by_module_dict().values()):  # the command's own come first
        for flag in module:
            if id(flag) in shown:
                groups.setdefault(_topics.get(flag.name, "Flags"), []).append(flag)
    width = min(shutil.get_terminal_size().columns, 110)
    lines = [main.__doc__.strip()]
    for name, members in groups.items():
        lines.append(f"\n{name}:")
        for flag in members:
            described = textwrap.wrap(_described(flag), max(width - 30, 30), break_on_hyphens=False)
            first = f"  {_form(flag)}"
            lines.append(f"{first:<29} {described[0]}" if len(first) < 30 else first)
            lines += [" " * 30 + line for line in described[len(first) < 30 :]]
    lines.append("\n--helpfull lists the flags of the libraries, too.")
    return "\n".join(lines)


def _form(flag):
    """How a flag is written."""
    if flag.boolean:
        return f"--[no]{flag.name}"
    values = getattr(flag.parser, "enum_values", None)
    kinds = {"int": "N", "float": "X", "comma separated list of strings": "A,B,..."}
    return f"--{flag.name}={'|'.join(values) if values else kinds.get(flag.flag_type(), 'TEXT')}"


def _described(flag):
    """What a flag's help says, with its default."""
    text = " ".join(flag.help.split())
    if hasattr(flag.parser, "enum_values"):  # absl puts the values in front
        text = text.partition(">: ")[2]
    if flag.default is None or "Default:" in text:
        return text
    default = {True: "yes", False: "no"}.get(flag.default, flag.default) if flag.boolean else flag.default
    return f"{text} Default: {default}."
