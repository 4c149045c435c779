"""The Keras model that is to be exported, and what its numbers mean."""

import dataclasses
import json
import pathlib

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from darts_tf.files import load_model


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
        return convert_variables_to_constants_v2(tf.function(scores, autograph=False).get_concrete_function(images))

    def probabilities(self, images, batch_size=128):
        """Probabilities (n, classes) of images (n, height, width, depth), by Keras."""
        y = self.model.predict(np.asarray(images, np.float32), batch_size, verbose=0)
        return y if self.softmax else tf.nn.softmax(y).numpy()


def _gives_probabilities(model):
    """Looks at the scores of random images, since a softmax can be written in many ways."""
    images = np.random.default_rng(0).uniform(0, 255, (4, *model.input_shape[1:])).astype(np.float32)
    scores = np.asarray(model.predict(images, verbose=0), np.float32)
    if not np.isfinite(scores).all():
        raise ModelError("it gives NaN or infinite scores for random images.")
    if (scores >= 0).all() and np.allclose(scores.sum(axis=1), 1, atol=1e-2):
        return True
    if getattr(model.layers[-1], "activation", None) is keras.activations.sigmoid:
        raise ModelError("it ends in a sigmoid: expected one class per image, by logits or a softmax.")
    return False


def _in_float32(model):
    """The same model without mixed precision, which is for training."""
    if all(layer.compute_dtype == "float32" for layer in model.layers):
        return model
    plain = keras.models.clone_model(
        model, clone_function=lambda layer: type(layer).from_config({**layer.get_config(), "dtype": "float32"})
    )
    plain.set_weights(model.get_weights())
    return plain


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
    shapes = [model.input_shape, model.output_shape]
    if shapes[1][1] is None or shapes[1][1] < 2:
        raise ModelError(f"it has {shapes[1][1]} outputs: expected a score for each of at least 2 classes.")
    if None in shapes[0][1:3]:
        if not image_size or shapes[0][3] is None:
            raise ModelError(f"its images are {shapes[0]}: expected one size, or --image_size.")
        images = keras.Input((image_size, image_size, shapes[0][3]))
        model = keras.Model(images, model(images))
    labels = _labels(path, labels, shapes[1][1])
    model = _in_float32(model)
    return Classifier(model, labels, _gives_probabilities(model))


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
