"""The Keras model that is to be exported, and what its numbers mean."""

import dataclasses
import json
import pathlib

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2


class ModelError(ValueError):
    """The file is no image classifier; the message says what is wrong and what would be accepted."""


@dataclasses.dataclass
class Classifier:
    """An image classifier.

    model: Keras model from pixels (batch, height, width, depth), as they are in image files, to one score per class.
    labels: the names of the classes.
    """

    model: keras.Model
    labels: list

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
        softmax = _ends_in_softmax(self.model)

        def scores(images):
            y = tf.cast(model(images, training=False), tf.float32)
            probabilities = y if softmax else tf.nn.softmax(y)
            return [probabilities, tf.math.log(y) if softmax else y] if logits else [probabilities]

        images = tf.TensorSpec([None, *self.image_shape], tf.float32, "images")
        return convert_variables_to_constants_v2(tf.function(scores, autograph=False).get_concrete_function(images))

    def probabilities(self, images, batch_size=128):
        """Probabilities (n, classes) of images (n, height, width, depth), by Keras."""
        y = self.model.predict(np.asarray(images, np.float32), batch_size, verbose=0)
        return y if _ends_in_softmax(self.model) else tf.nn.softmax(y).numpy()


def _ends_in_softmax(model):
    last = model.layers[-1]
    if isinstance(last, keras.Model):
        return _ends_in_softmax(last)
    return isinstance(last, keras.layers.Softmax) or getattr(last, "activation", None) is keras.activations.softmax


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
    if not path.is_file():
        raise ModelError("no such file.")
    try:
        model = keras.models.load_model(path, compile=False)
    except Exception as error:  # of every kind: zip, JSON, layers that are not registered
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(f"not a .keras file of layers that Keras knows: {reason}") from None
    shapes = [model.input_shape, model.output_shape]
    if any(isinstance(shape, list | dict) for shape in shapes) or len(shapes[0]) != 4 or len(shapes[1]) != 2:
        raise ModelError(f"it maps {shapes[0]} to {shapes[1]}: expected images (n, height, width, depth) to classes.")
    if shapes[1][1] is None or shapes[1][1] < 2:
        raise ModelError(f"it has {shapes[1][1]} outputs: expected a score for each of at least 2 classes.")
    if None in shapes[0][1:3]:
        if not image_size or shapes[0][3] is None:
            raise ModelError(f"its images are {shapes[0]}: expected one size, or --image_size.")
        images = keras.Input((image_size, image_size, shapes[0][3]))
        model = keras.Model(images, model(images))
    return Classifier(model, _labels(path, labels, shapes[1][1]))


def _labels(path, labels, count):
    if labels is None:
        labels = beside(path).get("data", {}).get("class_names") or [str(number) for number in range(count)]
    if len(labels) != count:
        raise ModelError(f"it has {count} classes and there are {len(labels)} labels: expected as many.")
    return list(labels)


def beside(path):
    """The config.json that a training run leaves beside its model, {} if there is none."""
    config = pathlib.Path(path).with_name("config.json")
    try:
        found = json.loads(config.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
