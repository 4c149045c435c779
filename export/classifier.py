"""A Keras image classifier that is to be exported, and what its numbers mean."""

import dataclasses
import pathlib

import keras
import numpy as np
import tensorflow as tf

from darts_tf.cli import files
from darts_tf.private.tensorflow import without_variables
from export import decoding, labels, models
from export.models import ModelError

SIGNATURE = "serving_bytes"


@dataclasses.dataclass
class Classifier(models.Exported):
    """An image classifier.

    model: Keras model from pixels (batch, height, width, depth), as they are in image files, to one score per class.
    labels: the names of the classes.
    softmax: whether its scores are probabilities, not logits.
    """

    model: keras.Model
    labels: list
    softmax: bool = False

    asset = "labels.txt"

    @property
    def names(self):
        return self.labels

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

    def converted(self, model):
        return self.graph(model, logits=False)

    def served(self, top_k=5, max_pixels=decoding.MAX_PIXELS):
        """`models.Served`, of signatures of any batch size.

        serving_default: `images` (batch, height, width, depth) float32, pixels as they are in files, to
            `probabilities` and `logits`, (batch, classes) float32.
        serving_bytes: `encoded` (batch,) strings, PNG, JPEG, GIF or BMP files of any size, to `probabilities`
            (batch, top_k) float32, the largest first, and `classes` (batch, top_k) strings. An image that cannot be
            decoded, or is too large, gets the class "" and probability 0; if that is so of all, the request fails.
            Models of images that are neither grey nor colour do not have it.

        Args:
            top_k: number of classes that serving_bytes returns.
            max_pixels: the largest image that serving_bytes decodes, see `decoding.decode`.
        """
        module = tf.Module()
        module.scores = self.graph()
        image_shape = height, width, depth = self.image_shape
        names = tf.constant(self.labels)
        top_k = min(top_k, len(self.labels))

        def scores(images):
            count = tf.shape(images)[0]
            # Convolutions of oneDNN make a tensor of the wrong depth of no images (TensorFlow 2.21, x86): it gets one.
            missing = tf.zeros([tf.cast(tf.equal(count, 0), tf.int32), *image_shape])
            return [y[:count] for y in module.scores(tf.concat([images, missing], axis=0))]

        def serving_default(images):
            probabilities, logits = scores(images)
            return {"probabilities": probabilities, "logits": logits}

        def decode(place, encoded):
            return place, decoding.decode(encoded, image_shape, max_pixels)

        def serving_bytes(encoded):
            count = tf.size(encoded)
            # Those that cannot be decoded drop out: their neighbours in a batch may be other people's.
            files = tf.data.Dataset.from_tensor_slices(encoded).enumerate()
            decoded = files.map(decode, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors()
            nothing = tf.data.Dataset.from_tensors((tf.constant(-1, tf.int64), tf.zeros(image_shape)))
            places, images = nothing.concatenate(decoded).batch(tf.cast(count, tf.int64) + 1).get_single_element()
            places, images = tf.cast(places[1:, None], tf.int32), images[1:]
            message = "None of the images can be decoded: expected PNG, JPEG, GIF or BMP files."
            with tf.control_dependencies([tf.debugging.Assert((tf.size(places) > 0) | tf.equal(count, 0), [message])]):
                probabilities, _ = scores(tf.identity(images))
            best = tf.math.top_k(probabilities, top_k)
            shape = [count, top_k]
            return {
                "probabilities": tf.scatter_nd(places, best.values, shape),
                "classes": tf.tensor_scatter_nd_update(tf.fill(shape, ""), places, tf.gather(names, best.indices)),
            }

        images = tf.TensorSpec([None, height, width, depth], tf.float32, "images")
        black = np.zeros((height, width, depth), np.uint8)
        signatures = {"serving_default": tf.function(serving_default, [images], autograph=False)}
        requests = {"serving_default": {"images": black[None].astype(np.float32)}}
        if depth in decoding.DEPTHS:
            encoded = tf.TensorSpec([None], tf.string, "encoded")
            signatures[SIGNATURE] = tf.function(serving_bytes, [encoded], autograph=False)
            requests[SIGNATURE] = {"encoded": np.array([tf.io.encode_png(black).numpy()])}
        return models.Served(module, signatures, requests)

    def probabilities(self, images, batch_size=128):
        """Probabilities (n, classes) of images (n, height, width, depth), by Keras."""
        y = self.model.predict(np.asarray(images, np.float32), batch_size, verbose=0)
        return y if self.softmax else tf.nn.softmax(y).numpy()


def ask(version, image):
    """The first class, and its probability, that a SavedModel gives an image (height, width, depth), 0 to 255."""
    model = tf.saved_model.load(str(version))
    if SIGNATURE in model.signatures:
        encoded = tf.io.encode_png(np.rint(image).astype(np.uint8))[None]
        answer = model.signatures[SIGNATURE](encoded=encoded)
        return answer["classes"][0, 0].numpy().decode(), float(answer["probabilities"][0, 0])
    names = labels.from_bytes(pathlib.Path(version, "assets", Classifier.asset).read_bytes())
    probabilities = model.signatures["serving_default"](images=tf.constant(image, tf.float32)[None])["probabilities"][0]
    return names[int(tf.argmax(probabilities))], float(tf.reduce_max(probabilities))


def _layers(model):
    """Those of a model and of the models in it."""
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from _layers(layer)


def _gives_probabilities(model):
    """Looks at the scores of random images, since a softmax can be written in many ways."""
    images = np.random.default_rng(0).uniform(0, 255, (4, *model.input_shape[1:])).astype(np.float32)
    scores = models.computed(lambda: np.asarray(model.predict(images, verbose=0), np.float32), "images")
    last = model
    while isinstance(last, keras.Model):
        last = last.layers[-1]
    if getattr(last, "activation", None) is keras.activations.sigmoid:
        raise ModelError("it ends in a sigmoid: expected one class per image, by logits or a softmax.")
    return bool((scores >= 0).all() and np.allclose(scores.sum(axis=1), 1, atol=1e-2))


def load(path, labels=None, image_size=None, model=None):
    """Reads a classifier.

    Args:
        path: a `.keras` file.
        labels: names of the classes; None takes those of the config.json that a training run leaves beside the model,
            or else the numbers of the classes.
        image_size: height and width, for a model that takes images of all sizes.
        model: what `models.read` has made of the file, if it has been read.

    Returns:
        `Classifier`.

    Raises:
        ModelError: the file cannot be read, needs layers that Keras does not have, or is no image classifier.
    """
    path = pathlib.Path(path)
    try:
        model = files.as_classifier(model or models.read(path))
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
    models.check_size(model)
    if image_shape != model.input_shape[1:]:
        images = keras.Input(image_shape)
        model = keras.Model(images, model(images))
    labels = models.class_names(path, labels, count)
    model = models.in_float32(model)
    return Classifier(model, labels, _gives_probabilities(model))
