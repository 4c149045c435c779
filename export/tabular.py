"""A Keras model of the rows of a table that is to be exported: from columns to classes, or to a number."""

import dataclasses
import json
import keyword
import pathlib

import keras
import numpy as np
import tensorflow as tf

from darts_tf.data.columns import ENCODED, Column
from darts_tf.private.tensorflow import without_variables
from export import models
from export.models import ModelError

SIGNATURE = "serving_examples"
MISSING = {"float32": np.float32(np.nan), "string": b"", "int64": None}  # what stands for a value that is not there
EXPECTED = (
    "expected columns (n,) or (n, 1) of numbers or strings to a score for each class, (n, classes), or a number (n, 1)"
)


@dataclasses.dataclass
class TableModel(models.Exported):
    """A model of the rows of a table.

    model: Keras model from a dict of columns, (batch,) or (batch, 1), to one score per class or to one number.
    labels: the names of the classes; of a number what it is, in a list.
    softmax: whether its scores are probabilities, not logits.
    columns: list of `darts_tf.data.columns.Column`, what the vector consists of that the layer `encoded` gives; None if
        that is not known.
    """

    model: keras.Model
    labels: list
    softmax: bool = False
    columns: list | None = None

    asset = "labels.txt"

    @property
    def names(self):
        return self.labels

    @property
    def is_number(self):
        """Whether it gives a number, not classes."""
        return self.model.outputs[0].shape[-1] == 1

    @property
    def dtypes(self):
        """{column: "float32", "int64" or "string"}, what is asked of a server."""
        return {tensor.name: _dtype(tensor.dtype) for tensor in self.model.inputs}

    @property
    def width(self):
        """Of the vector that the layer `encoded` gives; None if there is no such layer."""
        found = [layer for layer in self.model.layers if layer.name == ENCODED]
        return found[0].output.shape[-1] if found else None

    @property
    def arguments(self):
        """{column: what the argument of a function is called that stands for it in a SavedModel}."""
        return _arguments(self.dtypes)

    def rows(self, columns):
        """Columns (n,), a dict, as the Keras model takes them."""
        return {
            tensor.name: tf.reshape(tf.cast(columns[tensor.name], tensor.dtype), [-1] + [1] * (len(tensor.shape) - 1))
            for tensor in self.model.inputs
        }

    def encode(self, columns):
        """The vectors (n, width) of columns, a dict of arrays (n,)."""
        part = keras.Model(self.model.inputs, self.model.get_layer(ENCODED).output)
        rows = self.rows(columns)
        return part([rows[tensor.name] for tensor in self.model.inputs], training=False).numpy()

    def scores(self, columns):
        """What it says of columns, a dict of arrays (n,): probabilities (n, classes), or numbers (n, 1), by Keras."""
        return self._results(self.model(self.rows(columns), training=False))[0].numpy()

    def _results(self, y):
        """Probabilities and logits of the model's output, or the number and nothing, in a list."""
        y = tf.cast(y, tf.float32)
        if self.is_number:
            return [y]
        if self.softmax:
            return [y, tf.math.log(tf.maximum(y, np.finfo(np.float32).tiny))]
        return [tf.nn.softmax(y), y]

    @property
    def on_device(self):
        return keras.Model(self.model.get_layer(ENCODED).output, self.model.outputs[0])

    def converted(self, model):
        def run(encoded):
            return self._results(model(encoded, training=False))[:1]

        spec = tf.TensorSpec([None, self.width], tf.float32, ENCODED)
        return without_variables(tf.function(run, autograph=False).get_concrete_function(spec))

    def served(self, top_k=5):
        """`models.Served`, of signatures of any batch size.

        serving_default: the columns by name, (batch,) float32 or strings, of which NaN and "" are missing values, and
            those that a request lacks are missing, too; to `probabilities` and `logits`, (batch, classes) float32, and
            `class`, (batch,) strings, the likeliest; or to `prediction`, (batch,) float32.
        serving_examples: `inputs` (batch,) strings, serialized `tf.Example`s, in which columns may be missing; what TF
            Serving's classify asks, to `classes` (batch, top_k) strings and `scores` (batch, top_k) float32, the
            likeliest first; or its regress, to `outputs` (batch,) float32.

        Args:
            top_k: number of classes that serving_examples returns.
        """
        module, dtypes = tf.Module(), self.dtypes
        module.model = self.model  # which has tables of strings
        module.weights = [variable.value for variable in self.model.variables]
        names = tf.constant(self.labels)
        top_k = min(top_k, len(self.labels))

        def results(columns):
            return self._results(module.model(self.rows(columns), training=False))

        arguments = self.arguments

        def serving_default(**given):
            columns = {name: given[argument] for name, argument in arguments.items()}
            if self.is_number:
                return {"prediction": results(columns)[0][:, 0]}
            probabilities, logits = results(columns)
            likeliest = tf.gather(names, tf.argmax(probabilities, -1))
            return {"probabilities": probabilities, "logits": logits, "class": likeliest}

        features = {name: tf.io.FixedLenFeature([], dtype, MISSING[dtype]) for name, dtype in dtypes.items()}

        def serving_examples(inputs):
            found = results(tf.io.parse_example(inputs, features))[0]
            if self.is_number:
                return {"outputs": found[:, 0]}
            best = tf.math.top_k(found, top_k)
            return {"classes": tf.gather(names, best.indices), "scores": best.values}

        columns = {arguments[name]: tf.TensorSpec([None], dtype, arguments[name]) for name, dtype in dtypes.items()}
        default = tf.function(serving_default, autograph=False).get_concrete_function(**columns)
        examples = tf.function(serving_examples, [tf.TensorSpec([None], tf.string, "inputs")], autograph=False)
        missing = {name: np.array([MISSING[dtype]]) for name, dtype in dtypes.items() if MISSING[dtype] is not None}
        whole = {name: np.zeros(1, np.int64) for name in dtypes if name not in missing}
        return models.Served(
            module,
            {"serving_default": default, SIGNATURE: examples},
            {"serving_default": missing | whole, SIGNATURE: {"inputs": np.array([example(whole)])}},
            {SIGNATURE: "regress" if self.is_number else "classify"},
            {"serving_default": missing},
            {"serving_default": {argument: name for name, argument in arguments.items() if argument != name}},
        )


def _dtype(dtype):
    return "string" if dtype == "string" else "int64" if dtype.startswith(("int", "uint")) else "float32"


def _arguments(names):
    """{column: what an argument of a `tf.function` can be called for it}: TensorFlow takes no 名, class or self."""
    found = {}
    for place, name in enumerate(names):
        plain = name.isascii() and name.isidentifier() and not keyword.iskeyword(name) and name != "self"
        found[name] = name if plain else f"argument{place}"
        while not plain and found[name] in names:
            found[name] += "_"
    return found


def example(columns):
    """A serialized `tf.Example` of a row.

    Args:
        columns: {name: array (1,)} of float32, int64 or strings; a column that is not there is missing.
    """
    features = {}
    for name, value in columns.items():
        feature = features[name] = tf.train.Feature()
        if value.dtype.kind == "f":
            feature.float_list.value.extend(value.tolist())
        elif value.dtype.kind == "i":
            feature.int64_list.value.extend(value.tolist())
        else:
            feature.bytes_list.value.extend(tf.compat.as_bytes(text) for text in value.tolist())
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def ask(version, columns):
    """The likeliest class and its probability, or the number and None, that a SavedModel gives a row.

    Args:
        version: folder of the SavedModel.
        columns: as of `example`.
    """
    model = tf.saved_model.load(str(version))
    answer = model.signatures[SIGNATURE](inputs=tf.constant([example(columns)]))
    if "outputs" in answer:
        return float(answer["outputs"][0]), None
    return answer["classes"][0, 0].numpy().decode(), float(answer["scores"][0, 0])


def is_one(model):
    """Whether a Keras model is meant as one of a table: its inputs are columns."""
    try:
        shapes = [tensor.shape for tensor in model.inputs]
        return all(len(shape) == 1 or (len(shape) == 2 and shape[1] == 1) for shape in shapes)
    except (AttributeError, TypeError, ValueError):  # a model that does not know its inputs
        return False


def load(path, names=None, model=None):
    """Reads a model of a table.

    Args:
        path: a `.keras` file.
        names: of the classes; None takes those of the config.json that a training run leaves beside the model, or else
            the numbers of the classes.
        model: what `models.read` has made of the file, if it has been read.

    Returns:
        `TableModel`.

    Raises:
        ModelError: the file cannot be read, needs layers that Keras does not have, or is no such model.
    """
    model = model or models.read(path)
    given = {tensor.name: tensor.shape for tensor in model.inputs}
    outputs = [tensor.shape for tensor in model.outputs]
    well = all(len(shape) == 1 or (len(shape) == 2 and shape[1] == 1) for shape in given.values())
    if not well or len(outputs) != 1 or len(outputs[0]) != 2 or not outputs[0][1]:
        raise ModelError(f"it maps {given} to {outputs}: {EXPECTED}.")
    models.check_size(model)
    if not isinstance(model.input, dict):
        model = keras.Model({tensor.name: tensor for tensor in model.inputs}, model.outputs[0])
    count, known = outputs[0][1], beside(path)
    names = [known.get("label", "number")] if count == 1 else models.class_names(path, names, count)
    columns = known.get("columns")
    if columns and {column.name for column in columns} != set(given):
        columns = None
    made = TableModel(models.in_float32(model), list(names), False, columns)
    random = random_rows(made)
    scores = models.computed(lambda: np.asarray(made.model(made.rows(random), training=False), np.float64), "rows")
    if count > 1:
        made.softmax = bool((scores >= 0).all() and np.allclose(scores.sum(1), 1, atol=1e-2))
    return made


def random_rows(model, count=64):
    """Columns of random numbers, and of no strings, {name: array (count,)}."""
    random = np.random.default_rng(0)
    return {
        name: np.full(count, b"", object) if dtype == "string" else random.normal(size=count).astype(dtype)
        for name, dtype in model.dtypes.items()
    }


def beside(path):
    """What the config.json that a training run leaves beside its model says.

    Args:
        path: of the `.keras` file.

    Returns:
        A dict with "columns", a list of `Column`, "label", "description", as of a `darts_tf.data.tables.Table`, and
        "config", all of it; {} if there is no such file or another tool wrote it.
    """
    try:
        config = json.loads(pathlib.Path(path).with_name("config.json").read_text(encoding="utf-8"))
        data = config["data"]
        columns = [Column.from_config(name, values) for name, values in data["columns"].items()]
        return {"columns": columns, "label": str(data["label"]), "description": data, "config": config}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
