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
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write(path, content):
    """Writes text or bytes."""
    with replacing(path) as beside:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)


def save_model(model, path):
    """Saves a classifier that ends in logits as a `.keras` file, ready for `evaluate` when it is loaded."""
    import keras

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss=loss, metrics=["accuracy"], jit_compile=False)
    with replacing(path) as beside:
        model.save(beside)
