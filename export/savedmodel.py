"""SavedModel in the layout that TF Serving watches: a folder per model, in it the versions 1, 2, ..."""

import contextlib
import errno
import os
import pathlib
import re
import shutil
import time

import numpy as np
import tensorflow as tf

from export import decoding, labels
from export.locks import locked

SIGNATURE = "serving_bytes"
LAST = 2**63 - 1  # the largest version that the server knows


def export(classifier, base, top_k=5, max_pixels=decoding.MAX_PIXELS):
    """Writes the next version of a model; earlier ones stay, and a server never sees half of one.

    Signatures, all of any batch size:
        serving_default: `images` (batch, height, width, depth) float32, pixels as they are in files, to
            `probabilities` and `logits`, (batch, classes) float32.
        serving_bytes: `encoded` (batch,) strings, PNG, JPEG, GIF or BMP files of any size, to `probabilities`
            (batch, top_k) float32, the largest first, and `classes` (batch, top_k) strings. An image that cannot be
            decoded, or is too large, gets the class "" and probability 0; if that is so of all, the request fails.
            Models of images that are neither grey nor colour do not have it.

    Args:
        classifier: `classifier.Classifier`.
        base: folder of the versions, made if it is not there; its name is the model's.
        top_k: number of classes that serving_bytes returns.
        max_pixels: the largest image that serving_bytes decodes, see `decoding.decode`.

    Returns:
        The folder of the version, as `pathlib.Path`.

    Raises:
        OSError: the folder cannot be written to.
    """
    base = pathlib.Path(base)
    base.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as ours:
        with locked(base):
            _remove_left_behind(base)
            beside = base / f".{os.getpid()}.{time.time_ns()}"  # a server looks at folders that are called a number
            beside.mkdir()
            ours.callback(shutil.rmtree, beside, ignore_errors=True)
            ours.enter_context(locked(beside))
        try:
            _write(classifier, base.name, top_k, max_pixels, beside)
        except tf.errors.OpError as error:
            full = isinstance(error, tf.errors.ResourceExhaustedError)
            reason = " ".join(str(error.message).split())
            raise OSError(errno.ENOSPC if full else errno.EIO, reason, str(base)) from None
        while True:
            version = base / str(1 + max(versions(base), default=0))
            if int(version.name) > LAST:
                raise OSError(errno.EEXIST, "it is the last version that a server knows", str(base / str(LAST)))
            try:
                beside.rename(version)
                return version
            except OSError:
                if not version.exists():  # or else another export took the number
                    raise


def _write(classifier, name, top_k, max_pixels, folder):
    asset = folder / "labels.txt"  # which TensorFlow copies
    asset.write_bytes(labels.to_bytes(classifier.labels))
    module, signatures = _module(classifier, top_k, max_pixels, asset)
    tf.saved_model.save(module, str(folder), signatures)
    _write_warmup(classifier, name, signatures, folder / "assets.extra" / "tf_serving_warmup_requests")
    asset.unlink()


def _remove_left_behind(base):
    """Removes what exports that were killed had begun."""
    for entry in base.iterdir():
        if re.fullmatch(r"\.[0-9]+(\.[0-9]+)?", entry.name) and entry.is_dir() and not entry.is_symlink():
            with locked(entry, wait=False) as nobody_is_at_work:
                if nobody_is_at_work:
                    shutil.rmtree(entry, ignore_errors=True)


def versions(base):
    """The version numbers in a model's folder, those that a server knows."""
    names = (entry.name for entry in pathlib.Path(base).iterdir())
    return [int(name) for name in names if re.fullmatch("[0-9]{1,40}", name) and int(name) <= LAST]


def ask(version, image):
    """The first class, and its probability, that a written model gives an image (height, width, depth), 0 to 255."""
    model = tf.saved_model.load(str(version))
    if SIGNATURE in model.signatures:
        encoded = tf.io.encode_png(np.rint(image).astype(np.uint8))[None]
        answer = model.signatures[SIGNATURE](encoded=encoded)
        return answer["classes"][0, 0].numpy().decode(), float(answer["probabilities"][0, 0])
    names = labels.from_bytes(pathlib.Path(version, "assets", "labels.txt").read_bytes())
    probabilities = model.signatures["serving_default"](images=tf.constant(image, tf.float32)[None])["probabilities"][0]
    return names[int(tf.argmax(probabilities))], float(tf.reduce_max(probabilities))


def _module(classifier, top_k, max_pixels, asset):
    """A `tf.Module` and its signatures."""
    module = tf.Module()
    module.labels = tf.saved_model.Asset(str(asset))
    module.scores = classifier.graph()
    image_shape = height, width, depth = classifier.image_shape
    names = tf.constant(classifier.labels)
    top_k = min(top_k, len(classifier.labels))

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
    signatures = {"serving_default": tf.function(serving_default, [images], autograph=False)}
    if depth in decoding.DEPTHS:
        encoded = tf.TensorSpec([None], tf.string, "encoded")
        signatures[SIGNATURE] = tf.function(serving_bytes, [encoded], autograph=False)
    return module, signatures


def _write_warmup(classifier, name, signatures, path):
    """One request per signature, which the server answers to itself before it serves."""
    from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

    height, width, depth = classifier.image_shape
    black = np.zeros((height, width, depth), np.uint8)
    inputs = {"serving_default": {"images": black[None].astype(np.float32)}}
    if SIGNATURE in signatures:
        inputs[SIGNATURE] = {"encoded": np.array([tf.io.encode_png(black).numpy()])}
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as file:
        for signature, tensors in inputs.items():
            request = predict_pb2.PredictRequest(
                model_spec=model_pb2.ModelSpec(name=name, signature_name=signature),
                inputs={key: tf.make_tensor_proto(value) for key, value in tensors.items()},
            )
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            file.write(log.SerializeToString())
