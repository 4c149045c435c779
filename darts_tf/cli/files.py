"""Files that appear whole or not at all."""

import contextlib
import json
import os
import pathlib
import zipfile

from darts_tf.cli.messages import NO_SPACE, UsageError

UNPACKED = 1 << 30  # bytes that an archive may unpack to, however small it is
ENCODED = "encoded"  # the layer of a model of a table whose output is the vector that its network takes


@contextlib.contextmanager
def replacing(path):
    """Yields the path of a temporary file, which replaces a file at the end of the block, unless that raises.

    The file's folder is made if it does not exist.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield beside
        _to_disk(beside)
        beside.replace(path)
        _to_disk(path.parent)
    finally:
        with contextlib.suppress(OSError):  # it has become the file, or the folder is gone
            beside.unlink()


def _to_disk(path):
    """Waits until a file, or what a folder lists, would survive a loss of power."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def writing_to(output, expected="a place to write to"):
    """Turns errors of the file system into UsageError, but for a full disk.

    Args:
        output: what --output says, a path.
        expected: the end of the message.
    """
    try:
        yield
    except UsageError:
        raise
    except OSError as error:
        if error.errno in NO_SPACE:
            raise
        where = f"{error.filename}: " if error.filename and str(error.filename) != str(output) else ""
        reason = f"{where}{error.strerror or error}"
        raise UsageError(f"--output={output}: {reason}; expected {expected}.") from None
    except ValueError as error:  # a name that no file can have
        raise UsageError(f"--output={str(output)!a}: {error}; expected {expected}.") from None


def write(path, content):
    """Writes bytes, or text as UTF-8; characters that it lacks (names of files have such) become escape sequences."""
    with replacing(path) as beside:
        beside.write_bytes(content.encode(errors="backslashreplace") if isinstance(content, str) else content)


def kind_of_model(path):
    """What the model in a `.keras` file is of: "text", one step of a language model, "table" or "images".

    The first has the outputs "logits" and "state", the second a layer `ENCODED`. This takes no TensorFlow. What cannot
    be read counts as the last; `read_model` says what is wrong with it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))["config"]
        outputs = config["output_layers"]
        if isinstance(outputs, dict) and set(outputs) == {"logits", "state"}:
            return "text"
        columns = isinstance(config["input_layers"], dict)
        return "table" if columns and any(layer["name"] == ENCODED for layer in config["layers"]) else "images"
    except Exception:  # of every kind: the file may be anything
        return "images"


def read_model(path):
    """Reads a Keras model of any form.

    Raises:
        ValueError: the file cannot be read, needs layers that Keras does not know here, or holds no model.
    """
    import keras

    archive = check_unpacked(path)
    try:
        if not archive and pathlib.Path(path).suffix == ".keras":
            raise ValueError("it is no zip archive, or a part of one.")
        model = keras.models.load_model(path, compile=False)
    except Exception as error:  # of every kind: zip, JSON, layers that are not registered
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(f"not a .keras file of layers that Keras knows: {reason[:300]}") from None
    if not isinstance(model, keras.Model):
        raise ValueError(f"it holds a {type(model).__name__}: expected a model, from images to classes.")
    return model


def as_classifier(model):
    """A Keras model that is an image classifier, with one tensor as its input and one as its output.

    Raises:
        ValueError: it has another form.
    """
    import keras

    expected = "expected images (n, height, width, depth) to classes"
    try:
        inputs, outputs = model.inputs, model.outputs
    except (AttributeError, ValueError):
        inputs = None
    if not inputs or not outputs:
        raise ValueError(f"it is a {type(model).__name__} that does not know its inputs: {expected}.")
    given, result = (
        tensors[0].shape if len(tensors) == 1 else [tensor.shape for tensor in tensors] for tensors in (inputs, outputs)
    )
    if (len(inputs), len(outputs)) != (1, 1) or (len(given), len(result)) != (4, 2):
        raise ValueError(f"it maps {given} to {result}: {expected}.")
    if not isinstance(model, keras.Sequential) and not (model.input is inputs[0] and model.output is outputs[0]):
        model = keras.Model(inputs[0], outputs[0])  # which were in a dict or a list
    return model


def check_unpacked(path):
    """Looks at an archive before anything is read from it.

    Returns:
        Whether the file is a zip archive.

    Raises:
        ValueError: there is no such file, or it is an archive that unpacks to very much more than its size.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not zipfile.is_zipfile(file):
                return False
            with zipfile.ZipFile(file) as archive:
                unpacked = sum(entry.file_size for entry in archive.infolist())
    except FileNotFoundError:
        raise ValueError("no such file.") from None
    except OSError as error:
        raise ValueError(f"{error.strerror or error}.") from None
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"a damaged archive: {error}") from None
    if unpacked > max(UNPACKED, 20 * size):
        raise ValueError(f"it unpacks from {size / 1e6:.1f} MB to {unpacked / 1e9:.1f} GB: expected weights.")
    return True


def save_model(model, path, loss=None, metrics=("accuracy",)):
    """Saves a model as a `.keras` file, ready for `evaluate` when it is loaded.

    Args:
        loss, metrics: as of `compile`; by default those of a classifier that ends in logits.
    """
    import keras

    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss=loss, metrics=list(metrics), jit_compile=False)
    with replacing(path) as beside:
        model.save(beside)


def save_weights(model, path):
    """As `model.save_weights` to a `.weights.h5` file, whole. HDF5 itself crashes where a disk is full."""
    from darts_tf.private.keras import weights_file

    write(path, weights_file(model))
