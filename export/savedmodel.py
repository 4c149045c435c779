"""SavedModel in the layout that TF Serving watches: a folder per model, in it the versions 1, 2, ..."""

import contextlib
import errno
import os
import pathlib
import re
import shutil
import time

import tensorflow as tf

from darts_tf.private.tensorflow import saved_model_of
from export import labels
from export.locks import locked

LAST = 2**63 - 1  # the largest version that the server knows


def export(model, base, **options):
    """Writes the next version of a model; earlier ones stay, and a server never sees half of one.

    Its signatures are those of `model.served`, and its names a file among the assets.

    Args:
        model: `classifier.Classifier`, `language.LanguageModel` or `tabular.TableModel`.
        base: folder of the versions, made if it is not there; its name is the model's.
        options: of `model.served`.

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
            _write(model, base.name, options, beside)
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


def _write(model, name, options, folder):
    served = model.served(**options)
    asset = folder / model.asset  # which TensorFlow copies
    asset.write_bytes(labels.to_bytes(model.names))
    served.module.names = tf.saved_model.Asset(str(asset))
    # TensorFlow cannot save the gradients of some activations (swish), and nobody asks a server for gradients.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(served.module, str(folder), served.signatures, options)
    if served.methods or served.defaults:
        _describe(folder / "saved_model.pb", served)
    _write_warmup(served.requests, name, folder / "assets.extra" / "tf_serving_warmup_requests")
    asset.unlink()


def _describe(path, served):
    """Says in a SavedModel which calls its signatures answer, what their inputs are called, and what is not given."""
    saved = saved_model_of(path.read_bytes())
    signatures = saved.meta_graphs[0].signature_def
    for name, called in served.inputs.items():
        for argument, key in called.items():
            signatures[name].inputs[key].CopyFrom(signatures[name].inputs.pop(argument))
    for name, method in served.methods.items():
        signatures[name].method_name = f"tensorflow/serving/{method}"
    for name, values in served.defaults.items():
        for key, value in values.items():
            signatures[name].defaults[key].CopyFrom(tf.make_tensor_proto(value))
    path.write_bytes(saved.SerializeToString(deterministic=True))


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


def _write_warmup(requests, name, path):
    """Requests of each signature, which the server answers to itself before it serves."""
    from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as file:
        for signature, tensors in requests.items():
            request = predict_pb2.PredictRequest(
                model_spec=model_pb2.ModelSpec(name=name, signature_name=signature),
                inputs={key: tf.make_tensor_proto(value) for key, value in tensors.items()},
            )
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            file.write(log.SerializeToString())
