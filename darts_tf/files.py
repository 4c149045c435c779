"""Files that appear whole or not at all."""

import contextlib
import os
import pathlib


@contextlib.contextmanager
def replacing(path):
    """Gives a place beside a file to write to; what is there at the end becomes the file, if all went well."""
    path = pathlib.Path(path)
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield beside
        _to_disk(beside)
        beside.replace(path)
        _to_disk(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def _to_disk(path):
    """Waits until a file, or what a folder lists, would survive a loss of power."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write(path, content):
    """Writes text or bytes."""
    with replacing(path) as beside:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)


def load_model(path):
    """Reads an image classifier, a Keras model from (batch, height, width, depth) to (batch, classes).

    Raises:
        ValueError: the file cannot be read, needs layers that Keras does not know here, or holds something else.
    """
    import keras

    if not pathlib.Path(path).is_file():
        raise ValueError("no such file.")
    try:
        model = keras.models.load_model(path, compile=False)
    except Exception as error:  # of every kind: zip, JSON, layers that are not registered
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(f"not a .keras file of layers that Keras knows: {reason}") from None
    given, result = model.input_shape, model.output_shape
    if any(isinstance(shape, list | dict) for shape in (given, result)) or (len(given), len(result)) != (4, 2):
        raise ValueError(f"it maps {given} to {result}: expected images (n, height, width, depth) to classes.")
    return model


def save_model(model, path):
    """Saves a classifier that ends in logits as a `.keras` file, ready for `evaluate` when it is loaded."""
    import keras

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss=loss, metrics=["accuracy"], jit_compile=False)
    with replacing(path) as beside:
        model.save(beside)
