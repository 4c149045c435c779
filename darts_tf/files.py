"""Files that appear whole or not at all."""

import os
import pathlib


def write(path, content):
    """Writes a whole file or nothing: text or bytes, first beside the place and then moved there."""
    path = pathlib.Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
