"""TFLite, in float and quantised, from built-in operations only."""

import io
import zipfile

import numpy as np
import tensorflow as tf

from darts_tf.devices import tflite
from export import labels


def convert(model, quantize="none", samples=None):
    """Converts a model.

    A classifier maps images (batch, height, width, depth), pixels as they are in files, to probabilities (batch,
    classes). A language model is one step: its signature maps `tokens` (batch,) int32 and `state` (batch, units)
    float32 to `log_probabilities` (batch, vocabulary) float32 and the next `state`. The labels, or the vocabulary, are
    in the result: it is also a zip archive with labels.txt, or vocabulary.txt, as of TFLite metadata.

    Args:
        model: `classifier.Classifier` or `language.LanguageModel`.
        quantize: "none", float32; "float16", its weights; "dynamic", int8 weights, float32 input and output; "int8",
            for classifiers, all in int8, with uint8 input (pixel / scale + zero point, as the input's details in the
            file say) and output (probability * 256).
        samples: images (n, height, width, depth), typical ones; "int8" needs them to find the range of each tensor.

    Returns:
        bytes.

    Raises:
        ConversionError: an operation of the model has no counterpart among the built-in ones.
    """

    def more(converter):
        if quantize != "none":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantize == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if quantize == "int8":
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.representative_dataset = lambda: ([np.asarray(image[None], np.float32)] for image in samples)
            converter.inference_input_type = converter.inference_output_type = tf.uint8

    computed = tflite.suited(model.on_device, quantized=quantize == "int8")
    content = io.BytesIO(tflite.converted(model.converted(computed), more))
    with zipfile.ZipFile(content, "a") as archive:
        archive.writestr(model.asset, labels.to_bytes(model.names))
    return content.getvalue()


def labels_of(content):
    """The labels, or the vocabulary, in a file's bytes."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (name,) = archive.namelist()
        return labels.from_bytes(archive.read(name))
