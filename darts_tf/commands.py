"""What all commands share: how they read flags and how they say that something is wrong with them."""

import sys

from absl import app, flags


class UsageError(Exception):
    """The user asked for something that cannot be; the message is one line."""


def run(main):
    """Runs a command's `main(argv)`; a user's mistake becomes one line on stderr and exit code 2."""

    def parse(argv):
        try:
            return flags.FLAGS(argv)
        except flags.Error as error:
            _exit(error)

    def guarded(argv):
        try:
            if len(argv) > 1:
                raise UsageError(f"{argv[1]}: expected flags only, see --help.")
            return main(argv)
        except UsageError as error:
            _exit(error)

    app.run(guarded, flags_parser=parse)


def _exit(error):
    message = " ".join(str(error).split())
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
