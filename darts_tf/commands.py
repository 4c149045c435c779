"""What all commands share: how they read flags and how they say that something is wrong with them."""

import errno
import sys

from absl import app, flags

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class UsageError(Exception):
    """The user asked for something that cannot be; the message is one line."""


def run(main, arguments=()):
    """Runs a command's `main(argv)`; a user's mistake becomes one line on stderr and exit code 2.

    Args:
        main: function of argv, the program's name and then its arguments without the flags.
        arguments: what these are called; as many are expected, or more if the last one is "...".
    """

    def parse(argv):
        try:
            return flags.FLAGS(argv)
        except flags.Error as error:
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
            if error.errno not in NO_SPACE:
                raise
            what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
            print(
                f"\nerror: {what}. What was written before is whole; with space, the same command goes on.",
                file=sys.stderr,
            )
            sys.exit(1)

    app.run(guarded, flags_parser=parse)


def _exit(error):
    message = " ".join(str(error).split())
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
