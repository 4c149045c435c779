"""TFLite, in float and quantised, from built-in operations only."""

import io
import warnings
import zipfile

import keras
import numpy as np
import tensorflow as tf

from darts_tf.devices import runtime
from export import labels


class ConversionError(ValueError):
    """TensorFlow could not convert the model; the message is its own, shortened."""


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
    graph = model.converted(_with_native_dilations(model.model))
    named = isinstance(graph.structured_outputs, dict)  # which become a signature if they belong to a module
    converter = tf.lite.TFLiteConverter.from_concrete_functions([graph], tf.Module() if named else None)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if quantize != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if quantize == "int8":
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: ([np.asarray(image[None], np.float32)] for image in samples)
        converter.inference_input_type = converter.inference_output_type = tf.uint8
    try:
        with warnings.catch_warnings(action="ignore"), runtime.quiet(show_errors=False):
            content = io.BytesIO(converter.convert())
    except Exception as error:  # of every kind: what the converter throws is not documented
        reason = next((line for line in str(error).splitlines() if "error:" in line), str(error).split("\n")[0])
        raise ConversionError(" ".join(reason.split())[-300:]) from error
    with zipfile.ZipFile(content, "a") as archive:
        archive.writestr(model.asset, labels.to_bytes(model.names))
    return content.getvalue()


def labels_of(content):
    """The labels, or the vocabulary, in a file's bytes."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (name,) = archive.namelist()
        return labels.from_bytes(archive.read(name))


class _NativeDilation(keras.layers.Layer):
    """A dilated depthwise convolution as one op; what Keras makes is a plain one between two shuffles of the image.

    Not every CPU has a kernel for the op in TensorFlow: it is there to be converted.
    """

    def __init__(self, layer):
        super().__init__(name=layer.name)
        self.layer = layer
        self.built = True

    def call(self, x):
        y = tf.raw_ops.DepthwiseConv2dNative(
            input=x,
            filter=tf.convert_to_tensor(self.layer.kernel),
            strides=[1, 1, 1, 1],
            padding=self.layer.padding.upper(),
            dilations=[1, *self.layer.dilation_rate, 1],
        )
        return self.layer.activation(y + self.layer.bias if self.layer.use_bias else y)

    def compute_output_shape(self, input_shape):
        return self.layer.compute_output_shape(input_shape)


def _with_native_dilations(model):
    def native(layer):
        dilated = isinstance(layer, keras.layers.DepthwiseConv2D) and tuple(layer.dilation_rate) != (1, 1)
        return _NativeDilation(layer) if dilated else layer

    if not any(native(layer) is not layer for layer in model.layers):
        return model
    return keras.models.clone_model(keras.Model(model.inputs, model.outputs[0]), clone_function=native)
