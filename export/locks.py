"""Keeps processes that write to the same folder out of each other's way."""

import contextlib
import os

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None


@contextlib.contextmanager
def locked(folder, wait=True):
    """Holds a folder until the end of the block, or that of the process.

    Args:
        folder: path of a folder that is there.
        wait: whether to wait for another process that holds it.

    Yields:
        Whether it is held: False if another process holds it and `wait` is False, or where there are no such locks.
    """
    if fcntl is None:
        yield False
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        held = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            held = False
        yield held
    finally:
        os.close(handle)
