"""SavedModel in the layout that TF Serving watches: a folder per model, in it the versions 1, 2, ..."""

import os
import pathlib
import shutil
import tempfile

import numpy as np
import tensorflow as tf

DECODED_DEPTHS = (1, 3, 4)  # grey, colour, colour with transparency


def export(classifier, base, top_k=5):
    """Writes the next version of a model; earlier ones stay, and a server never sees half of one.

    Signatures, all of any batch size:
        serving_default: `images` (batch, height, width, depth) float32, pixels as they are in files, to
            `probabilities` and `logits`, (batch, classes) float32.
        serving_bytes: `encoded` (batch,) strings, PNG, JPEG, GIF or BMP files of any size, to `probabilities`
            (batch, top_k) float32, the largest first, and `classes` (batch, top_k) strings. An image that cannot be
            decoded gets the class "" and probability 0; if none can, the request fails. Models of images that are
            neither grey nor colour do not have it.

    Args:
        classifier: `classifier.Classifier`.
        base: folder of the versions, made if it is not there; its name is the model's.
        top_k: number of classes that serving_bytes returns.

    Returns:
        The folder of the version, as `pathlib.Path`.

    Raises:
        OSError: the folder cannot be written to.
    """
    base = pathlib.Path(base)
    base.mkdir(parents=True, exist_ok=True)
    beside = base / f".{os.getpid()}"  # a server looks at folders that are called a number
    with tempfile.TemporaryDirectory() as folder:
        try:
            labels = pathlib.Path(folder) / "labels.txt"
            labels.write_text("".join(f"{label}\n" for label in classifier.labels))
            module, signatures = _module(classifier, top_k, labels)
            tf.saved_model.save(module, str(beside), signatures)
            _write_warmup(classifier, base.name, signatures, beside / "assets.extra" / "tf_serving_warmup_requests")
            while True:
                version = base / str(1 + max(versions(base), default=0))
                try:
                    beside.rename(version)
                    return version
                except OSError:
                    if not version.exists():  # or else another export took the number
                        raise
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def versions(base):
    """The version numbers in a model's folder."""
    return [int(entry.name) for entry in pathlib.Path(base).iterdir() if entry.name.isdecimal()]


def ask(version, image):
    """The first class, and its probability, that a written model gives an image (height, width, depth), 0 to 255."""
    model = tf.saved_model.load(str(version))
    if "serving_bytes" in model.signatures:
        encoded = tf.io.encode_png(np.rint(image).astype(np.uint8))[None]
        answer = model.signatures["serving_bytes"](encoded=encoded)
        return answer["classes"][0, 0].numpy().decode(), float(answer["probabilities"][0, 0])
    labels = pathlib.Path(version, "assets", "labels.txt").read_text().splitlines()
    probabilities = model.signatures["serving_default"](images=tf.constant(image, tf.float32)[None])["probabilities"][0]
    return labels[int(tf.argmax(probabilities))], float(tf.reduce_max(probabilities))


def _module(classifier, top_k, labels):
    """A `tf.Module` and its signatures."""
    module = tf.Module()
    module.labels = tf.saved_model.Asset(str(labels))
    module.scores = scores = classifier.graph()
    height, width, depth = classifier.image_shape
    names = tf.constant(classifier.labels)
    top_k = min(top_k, len(classifier.labels))

    def serving_default(images):
        probabilities, logits = scores(images)
        return {"probabilities": probabilities, "logits": logits}

    def decode(place, encoded):
        image = tf.image.resize(_decoded(encoded, depth), [height, width], antialias=True)
        return place, tf.clip_by_value(tf.round(image), 0.0, 255.0)

    def serving_bytes(encoded):
        count = tf.size(encoded)
        # Those that cannot be decoded drop out: their neighbours in a batch may be other people's.
        files = tf.data.Dataset.from_tensor_slices(encoded).enumerate()
        decoded = files.map(decode, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors()
        nothing = tf.data.Dataset.from_tensors((tf.constant(-1, tf.int64), tf.zeros([height, width, depth])))
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
    if depth in DECODED_DEPTHS:
        encoded = tf.TensorSpec([None], tf.string, "encoded")
        signatures["serving_bytes"] = tf.function(serving_bytes, [encoded], autograph=False)
    return module, signatures


def _decoded(encoded, depth):
    """An image file as (height, width, depth). TensorFlow reads GIF and BMP as colour only, JPEG without alpha."""
    jpeg = tf.io.is_jpeg(encoded)
    png = tf.equal(tf.strings.substr(encoded, 0, 4), b"\x89PNG")

    def as_is(channels):
        image = tf.io.decode_image(encoded, channels, expand_animations=False)
        return tf.cast(tf.ensure_shape(image, [None, None, channels]), tf.float32)

    if depth == 3:
        return as_is(3)
    if depth == 1:
        return tf.cond(jpeg | png, lambda: as_is(1), lambda: tf.image.rgb_to_grayscale(as_is(3)))
    return tf.cond(png, lambda: as_is(4), lambda: tf.pad(as_is(3), [[0, 0], [0, 0], [0, 1]], constant_values=255.0))


def _write_warmup(classifier, name, signatures, path):
    """One request per signature, which the server answers to itself before it serves."""
    from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

    height, width, depth = classifier.image_shape
    black = np.zeros((height, width, depth), np.uint8)
    inputs = {"serving_default": {"images": black[None].astype(np.float32)}}
    if "serving_bytes" in signatures:
        inputs["serving_bytes"] = {"encoded": np.array([tf.io.encode_png(black).numpy()])}
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as file:
        for signature, tensors in inputs.items():
            request = predict_pb2.PredictRequest(
                model_spec=model_pb2.ModelSpec(name=name, signature_name=signature),
                inputs={key: tf.make_tensor_proto(value) for key, value in tensors.items()},
            )
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            file.write(log.SerializeToString())
