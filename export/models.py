"""What the models that can be exported have in common: how they are read, and what the formats ask of them."""

import dataclasses
import math
import pathlib
import re
import tempfile

import keras
import tensorflow as tf

from darts_tf.cli import files
from export import labels

LOW = ("float16", "bfloat16", "mixed_float16", "mixed_bfloat16")
LARGEST = 2_000_000_000  # bytes of weights, which a SavedModel has among its ops: no message of protobuf is larger


class ModelError(ValueError):
    """The file is no model that can be exported; the message says what is wrong and what would be accepted."""


@dataclasses.dataclass(frozen=True)
class Served:
    """What a server gets of a model.

    Attributes:
        module: `tf.Module`, which holds what the signatures need.
        signatures: {name: `tf.function` with an input signature}.
        requests: {name: {input: array}}, a small request for each signature.
        methods: {name: "classify" or "regress"}, of those that answer these calls of TF Serving, too.
        defaults: {name: {input: array (1,)}}, what the server takes for inputs that a request lacks.
        inputs: {name: {argument of the function: input}}, of those that are called otherwise.
    """

    module: tf.Module
    signatures: dict
    requests: dict
    methods: dict = dataclasses.field(default_factory=dict)
    defaults: dict = dataclasses.field(default_factory=dict)
    inputs: dict = dataclasses.field(default_factory=dict)


class Exported:
    """A model as `savedmodel` and `tflite` want it; a subclass is a dataclass of at least `model`.

    Attributes:
        model: Keras model.
        asset: name of the file of `names` in what is written.
    """

    asset = None

    @property
    def names(self):
        """What the model's outputs are called, a list of texts."""
        raise NotImplementedError

    @property
    def on_device(self):
        """The part of the model that a device computes."""
        return self.model

    def served(self, **options):
        """`Served`.

        Args:
            options: what a subclass lets a user choose.
        """
        raise NotImplementedError

    def converted(self, model):
        """What a device gets, as a `tf.ConcreteFunction` without variables.

        If it returns a dict, the names of its inputs and outputs are a signature of the TFLite file.

        Args:
            model: compute this one, of the same inputs and outputs as `on_device`.
        """
        raise NotImplementedError


def read(path):
    """Reads a Keras model.

    Raises:
        ModelError: the file cannot be read, or needs layers that Keras does not have.
    """
    try:
        return files.read_model(path)
    except ValueError as error:
        raise ModelError(error) from None


def check_size(model):
    """Raises ModelError if a model's weights are more than a SavedModel can have as constants."""
    size = sum(4 * math.prod(weight.shape) for weight in model.weights)
    if size > LARGEST:
        raise ModelError(f"its weights take {size / 1e9:.1f} GB in float32: expected at most {LARGEST / 1e9:.0f} GB.")


def computed(call, what):
    """What a function of a model returns, arrays of floats.

    Args:
        call: the function.
        what: its inputs, for the message.

    Raises:
        ModelError: it cannot be computed, or gives numbers that are not finite.
    """
    try:
        found = call()
    except Exception as error:  # of every kind: whatever its layers raise
        raise ModelError(f"it cannot be computed here: {_reason(error)}") from None
    if not all(bool(tf.reduce_all(tf.math.is_finite(array))) for array in tf.nest.flatten(found)):
        raise ModelError(f"it gives NaN or infinite scores for random {what}.")
    return found


def _reason(error):
    """The line that says most of an error of TensorFlow, which tells at length where it happened."""
    lines = [line.strip() for line in str(getattr(error, "message", error)).splitlines()]
    said = [line for line in lines if line and not re.match(r"Graph execution|Detected at|File |Stack trace|<", line)]
    return next(iter(said), type(error).__name__)[:300]


def in_float32(model):
    """The same model without mixed precision, which is for training; that of the layers within its layers, too."""
    config = keras.saving.serialize_keras_object(model)
    plain = _float32(config)
    if plain == config:
        return model
    with tempfile.TemporaryDirectory() as folder:  # what layers save is more than their weights
        weights = pathlib.Path(folder) / "model.weights.h5"
        model.save_weights(weights)
        model = keras.saving.deserialize_keras_object(plain)
        model.load_weights(weights)
    return model


def _float32(config):
    """A configuration of Keras with float32 for every lower precision in it."""
    if isinstance(config, list | tuple):
        return type(config)(map(_float32, config))
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy" and config["config"]["name"] in LOW:
        return config | {"config": config["config"] | {"name": "float32"}}
    return {
        key: "float32" if key == "dtype" and isinstance(value, str) and value in LOW else _float32(value)
        for key, value in config.items()
    }


def class_names(path, given, count):
    """The names of a model's classes.

    Args:
        path: of its `.keras` file.
        given: list of texts; None takes those of the config.json that a training run leaves beside the file, or else
            the numbers of the classes.
        count: how many there are.

    Raises:
        ModelError: there are more or fewer of them, or one cannot be written to a file of labels.
    """
    where = ""
    if given is None:
        given, where = labels.beside(path).get("class_names"), " in the config.json beside it"
    if given is None:
        given, where = [str(number) for number in range(count)], ""
    if len(given) != count:
        raise ModelError(f"it has {count} classes and there are {len(given)} labels{where}: expected as many.")
    try:
        for number, label in enumerate(given):
            labels.check(label, f"the label of class {number}{where}")
    except labels.LabelError as error:
        raise ModelError(f"{error}: expected --labels, one per line.") from None
    return list(given)
