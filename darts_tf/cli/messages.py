"""What is said to the user, and how it is said that something is wrong."""

import contextlib
import contextvars
import errno
import json
import os
import sys
import time

from tqdm import tqdm

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_verbose = contextvars.ContextVar("verbose", default=1)
_json = contextvars.ContextVar("json", default=False)


class UsageError(ValueError):
    """The user asked for something that cannot be; the message is one line."""


class RunError(RuntimeError):
    """A run cannot go on; the message is one line that says why and what helps. Commands end with exit code 1."""


@contextlib.contextmanager
def spoken(verbose=1, as_json=False):
    """Sets how much is printed inside the block.

    Args:
        verbose: as in Keras: 0 nothing but warnings and errors; 1 a bar for the epoch, on a terminal; 2 a line per
            epoch.
        as_json: whether results are printed as one line of JSON.
    """
    before = _verbose.set(verbose), _json.set(as_json)
    try:
        yield
    finally:
        for variable, token in zip((_verbose, _json), before, strict=True):
            variable.reset(token)


def verbosity():
    """The `verbose` that `spoken` has set."""
    return _verbose.get()


def say(text):
    """Prints what a user may want to know while work goes on; not with verbose=0."""
    if verbosity():
        print(text, file=sys.stderr, flush=True)


def progress(parts, total, what):
    """Tells how far a loop over parts of something is, if it takes more than two seconds; not with verbose=0.

    Args:
        parts: iterable of what has a length.
        total: the sum of the lengths.
        what: what is done, such as "Reading images".

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
        disable=verbosity() != 1 or not sys.stderr.isatty(),
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


def each(things, what):
    """As `progress`, of a list or the like of things that count as one each."""
    return (thing for (thing,) in progress(([thing] for thing in things), len(things), what))


def warn(text):
    """Prints what a user must know."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


def result(text, /, **values):
    """Prints what the command was run for: a text for people or, with --json, the values, which JSON can hold."""
    show(json.dumps(values, default=str) if _json.get() else text)


def show(text):
    """Prints a text to stdout. If its reader is gone that has no effect; if the disk is full it raises OSError."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may hold anything
    try:
        print(text, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno in NO_SPACE:  # or else nobody is there any more, as of `| head`
            raise
