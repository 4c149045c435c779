"""How every command begins and ends: flags become a configuration, a user's mistake one line and an exit code; help."""

import contextlib
import dataclasses
import io
import os
import shutil
import sys
import textwrap

from absl import app, flags

from darts_tf.cli import configuration
from darts_tf.cli.configuration import option
from darts_tf.cli.messages import NO_SPACE, RunError, UsageError, show, spoken

FLAGS = flags.FLAGS
HELP = ("--help", "-help", "--helpshort", "-h", "-?")


def run(main, config, arguments=()):
    """Runs a command; a user's mistake becomes one line on stderr and exit code 2.

    Args:
        main: function of the configuration, and of as many texts as there are arguments.
        config: class of the configuration, see `darts_tf.cli.configuration`; its fields become flags.
        arguments: names of the positional arguments, for messages. As many are expected; if the last name is "...", one
            or more are, and if the only name ends in "...]", any number, which `main` gets as a list.
    """
    configuration.define(config)
    configuration.define(Messages)

    def parse(argv):
        if any(argument in HELP for argument in argv[1:]):
            show(usage(config))
            sys.exit(0)
        try:
            return FLAGS(argv)
        except (flags.Error, ValueError, OSError) as error:  # for --noflag=value, too, and --flagfile
            _exit(error)

    def guarded(argv):
        try:
            open_end = bool(arguments) and arguments[-1].endswith(("...", "...]"))
            given, extra = argv[1:], argv[1 + len(arguments) :]
            if extra and not open_end:
                raise UsageError(f"{extra[0]}: expected {' '.join(arguments) or 'no argument'} and flags, see --help.")
            if len(argv) <= len(arguments) - open_end:
                raise UsageError(f"expected {' '.join(arguments)}, see --help.")
            asked = configuration.from_flags(Messages)
            with spoken(asked.verbose, asked.json):
                return main(configuration.from_flags(config), *([given] if open_end else given))
        except UsageError as error:
            _exit(error)
        except RunError as error:
            print(f"\nerror: {error}", file=sys.stderr)
            sys.exit(1)
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Messages(configuration.Configuration):
    """What every command is asked for; what each one does is `spoken` so."""

    verbose: int = option(
        1,
        "What stderr gets, as in Keras: 0 nothing but warnings and errors; 1 a bar for the epoch, on a terminal; 2 a "
        "line per epoch.",
        topic="Messages",
        least=0,
        most=2,
    )
    json: bool = option(False, "Print the results, all that goes to stdout, as one line of JSON.", topic="Messages")


def _exit(error):
    message = configuration.said(error)
    message = message if len(message) < 2000 else f"{message[:1000]} ... {message[-900:]}"
    print(f"error: {''.join(c if c.isprintable() else ascii(c)[1:-1] for c in message)}", file=sys.stderr)
    sys.exit(2)


class Lasting:
    """A text stream to which writing never fails, even if the terminal is gone or the disk is full."""

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
    """Opens standard streams that are closed, whose numbers files would take; writing to stderr never fails."""
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


def usage(config):
    """The help of the command that runs: what its module says of it, then its flags by topic."""
    width = min(shutil.get_terminal_size().columns, 110)
    lines = [sys.modules["__main__"].__doc__.strip()]
    for topic, fields in (configuration.topics(config) | configuration.topics(Messages)).items():
        lines.append(f"\n{topic}:")
        for field in fields:
            described = textwrap.wrap(_described(field), max(width - 30, 30), break_on_hyphens=False)
            first = f"  {_form(field)}"
            lines.append(f"{first:<29} {described[0]}" if len(first) < 30 else first)
            lines += [" " * 30 + line for line in described[len(first) < 30 :]]
    lines.append("\n--helpfull lists the flags of the libraries, too.")
    return "\n".join(lines)


def _form(field):
    """How a flag is written."""
    kind, values, repeated = configuration.kind(field), field.metadata["values"], field.metadata["repeated"]
    if kind is bool:
        return f"--[no]{field.name}"
    kinds = {int: "N", float: "X", str: "TEXT", list: "TEXT" if repeated else "A,B,..."}
    return f"--{field.name}={'|'.join(values) if values else kinds[kind]}"


def _described(field):
    """What a flag's help says, with its default."""
    text = " ".join(field.metadata["text"].split())
    if field.default is None or "Default:" in text:
        return text
    default = {True: "yes", False: "no"}[field.default] if configuration.kind(field) is bool else field.default
    return f"{text} Default: {default}."
