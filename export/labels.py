"""The names of the classes, or of the tokens, one per line in UTF-8 files: those of a user, those in an exported model.

A label may hold anything but a line break. It is not empty, since that is the class of an image that cannot be decoded.
A token may be a space, too.
"""

import codecs
import json
import pathlib

LARGEST = 1 << 26  # bytes of a file of labels


class LabelError(ValueError):
    """A label that a file of labels cannot hold; the message says which one."""


def read(path, tokens=False):
    """Reads a file of labels, one per line; the lines may end as on Windows and begin with a byte order mark.

    Args:
        path: of the file.
        tokens: whether they are tokens.

    Raises:
        LabelError: names the line that is blank or not UTF-8.
        OSError: the file cannot be read.
    """
    with pathlib.Path(path).open("rb") as file:
        content = file.read(LARGEST + 1).removeprefix(codecs.BOM_UTF8)
    if len(content) > LARGEST:
        raise LabelError(f"it is larger than {LARGEST >> 20} MiB")
    lines = content.split(b"\n")
    if not lines[-1]:
        del lines[-1]
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(line.removesuffix(b"\r").decode())
        except UnicodeDecodeError:
            raise LabelError(f"line {number} is not UTF-8") from None
        check(found[-1], f"line {number}", tokens)
    return found


def check(label, where, token=False):
    """Raises LabelError if a label, or token, from `where` cannot be written to a file and read again."""
    if not (label if token else label.strip()):
        raise LabelError(f"{where} is {'empty' if token else 'blank'}")
    for character, name in (("\n", "line break"), ("\0", "zero byte")):
        if character in label:
            raise LabelError(f"{where} holds a {name}")
    try:
        label.encode()
    except UnicodeEncodeError:
        raise LabelError(f"{where} is not UTF-8") from None


def to_bytes(labels):
    """The content of a file of labels."""
    return "".join(f"{label}\n" for label in labels).encode()


def from_bytes(content):
    """The inverse of `to_bytes`."""
    return content.decode().split("\n")[:-1]


def beside(model, names="class_names"):
    """What the config.json that a training run leaves beside its model says of the data.

    Args:
        model: path of the `.keras` file.
        names: what the data's description calls the labels, "class_names", or the tokens, "vocabulary".

    Returns:
        A dict with `names`, a list of strings, and, if they are there, the strings "dataset", "data_dir", "recipe" and
        "tokens"; {} if there is no such file or another tool wrote it.
    """
    try:
        config = json.loads(pathlib.Path(model).with_name("config.json").read_text(encoding="utf-8"))
        data = config["data"]
        found = data[names]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    if not isinstance(found, list) or not found or not all(isinstance(name, str) for name in found):
        return {}
    said = {key: config.get(key) for key in ("dataset", "data_dir", "recipe")} | {"tokens": data.get("tokens")}
    return {names: found} | {key: value for key, value in said.items() if isinstance(value, str)}
