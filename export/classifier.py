"""The Keras model that is to be exported, and what its numbers mean."""

import dataclasses
import math
import pathlib
import re
import tempfile

import keras
import numpy as np
import tensorflow as tf

from darts_tf.cli.files import load_model
from darts_tf.private.tensorflow import without_variables
from export.labels import LabelError, beside, check

LOW = ("float16", "bfloat16", "mixed_float16", "mixed_bfloat16")
LARGEST = 2_000_000_000  # bytes of weights, which a SavedModel has among its ops: no message of protobuf is larger


class ModelError(ValueError):
    """The file is no image classifier; the message says what is wrong and what would be accepted."""


@dataclasses.dataclass
class Classifier:
    """An image classifier.

    model: Keras model from pixels (batch, height, width, depth), as they are in image files, to one score per class.
    labels: the names of the classes.
    softmax: whether its scores are probabilities, not logits.
    """

    model: keras.Model
    labels: list
    softmax: bool = False

    @property
    def image_shape(self):
        """(height, width, depth)."""
        return tuple(self.model.input_shape[1:])

    def graph(self, model=None, logits=True):
        """The model without variables, so that what does not depend on the images can be computed once.

        TensorFlow and TFLite then make a batch norm part of the convolution before it.

        Args:
            model: compute this model instead, of the same input and output.
            logits: whether to return them too.

        Returns:
            `tf.ConcreteFunction` from float32 images (batch, height, width, depth) to a list of the probabilities and,
            if asked for, the logits, (batch, classes) float32.
        """
        model = model or self.model

        def scores(images):
            y = tf.cast(model(images, training=False), tf.float32)
            probabilities = y if self.softmax else tf.nn.softmax(y)
            if not logits:
                return [probabilities]
            return [probabilities, tf.math.log(tf.maximum(y, np.finfo(np.float32).tiny)) if self.softmax else y]

        images = tf.TensorSpec([None, *self.image_shape], tf.float32, "images")
        return without_variables(tf.function(scores, autograph=False).get_concrete_function(images))

    def probabilities(self, images, batch_size=128):
        """Probabilities (n, classes) of images (n, height, width, depth), by Keras."""
        y = self.model.predict(np.asarray(images, np.float32), batch_size, verbose=0)
        return y if self.softmax else tf.nn.softmax(y).numpy()


def _layers(model):
    """Those of a model and of the models in it."""
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from _layers(layer)


def _gives_probabilities(model):
    """Looks at the scores of random images, since a softmax can be written in many ways."""
    images = np.random.default_rng(0).uniform(0, 255, (4, *model.input_shape[1:])).astype(np.float32)
    try:
        scores = np.asarray(model.predict(images, verbose=0), np.float32)
    except Exception as error:  # of every kind: whatever its layers raise
        raise ModelError(f"it cannot be computed here: {_reason(error)}") from None
    if not np.isfinite(scores).all():
        raise ModelError("it gives NaN or infinite scores for random images.")
    last = model
    while isinstance(last, keras.Model):
        last = last.layers[-1]
    if getattr(last, "activation", None) is keras.activations.sigmoid:
        raise ModelError("it ends in a sigmoid: expected one class per image, by logits or a softmax.")
    return bool((scores >= 0).all() and np.allclose(scores.sum(axis=1), 1, atol=1e-2))


def _reason(error):
    """The line that says most of an error of TensorFlow, which tells at length where it happened."""
    lines = [line.strip() for line in str(getattr(error, "message", error)).splitlines()]
    said = [line for line in lines if line and not re.match(r"Graph execution|Detected at|File |Stack trace|<", line)]
    return next(iter(said), type(error).__name__)[:300]


def _in_float32(model):
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


def load(path, labels=None, image_size=None):
    """Reads a classifier.

    Args:
        path: a `.keras` file.
        labels: names of the classes; None takes those of the config.json that a training run leaves beside the model,
            or else the numbers of the classes.
        image_size: height and width, for a model that takes images of all sizes.

    Returns:
        `Classifier`.

    Raises:
        ModelError: the file cannot be read, needs layers that Keras does not have, or is no image classifier.
    """
    path = pathlib.Path(path)
    try:
        model = load_model(path)
    except ValueError as error:
        raise ModelError(error) from None
    if any(getattr(layer, "data_format", None) == "channels_first" for layer in _layers(model)):
        raise ModelError("it has layers of channels_first: expected channels_last, (n, height, width, depth).")
    image_shape, count = model.input_shape[1:], model.output_shape[1]
    if count is None or count < 2:
        raise ModelError(f"it has {count} outputs: expected a score for each of at least 2 classes.")
    if None in image_shape[:2] and image_size:
        image_shape = image_size, image_size, image_shape[2]
    if None in image_shape or 0 in image_shape:
        wanted = "one size" if image_size else "one size, or --image_size"
        raise ModelError(f"its images are {model.input_shape}: expected {wanted}.")
    size = sum(4 * math.prod(weight.shape) for weight in model.weights)
    if size > LARGEST:
        raise ModelError(f"its weights take {size / 1e9:.1f} GB in float32: expected at most {LARGEST / 1e9:.0f} GB.")
    if image_shape != model.input_shape[1:]:
        images = keras.Input(image_shape)
        model = keras.Model(images, model(images))
    labels = _labels(path, labels, count)
    model = _in_float32(model)
    return Classifier(model, labels, _gives_probabilities(model))


def _labels(path, labels, count):
    where = ""
    if labels is None:
        labels, where = beside(path).get("class_names"), " in the config.json beside it"
    if labels is None:
        labels, where = [str(number) for number in range(count)], ""
    if len(labels) != count:
        raise ModelError(f"it has {count} classes and there are {len(labels)} labels{where}: expected as many.")
    try:
        for number, label in enumerate(labels):
            check(label, f"the label of class {number}{where}")
    except LabelError as error:
        raise ModelError(f"{error}: expected --labels, one per line.") from None
    return list(labels)
