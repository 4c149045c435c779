"""Keras models as TFLite files of built-in operations."""

import warnings

import keras
import tensorflow as tf

from darts_tf.devices import runtime
from darts_tf.private.tensorflow import without_variables


class ConversionError(ValueError):
    """TensorFlow could not convert the model; the message is its own, shortened."""


def converted(graph, more=lambda converter: None):
    """A graph as a TFLite model.

    Args:
        graph: concrete function. If its results are a dict they become a signature.
        more: function of the `tf.lite.TFLiteConverter`, that sets what it is to do beside.

    Returns:
        bytes.

    Raises:
        ConversionError: an operation of the model has no counterpart among the built-in ones.
    """
    named = isinstance(graph.structured_outputs, dict)  # which become a signature if they belong to a module
    converter = tf.lite.TFLiteConverter.from_concrete_functions([graph], tf.Module() if named else None)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    more(converter)
    try:
        with warnings.catch_warnings(action="ignore"), runtime.quiet(show_errors=False):
            return converter.convert()
    except Exception as error:  # of every kind: what the converter throws is not documented
        reason = next((line for line in str(error).splitlines() if "error:" in line), str(error).split("\n")[0])
        raise ConversionError(" ".join(reason.split())[-300:]) from error


def of_model(model):
    """The TFLite file of a functional Keras model for one input, in float32, bytes; raises as `converted`."""
    return converted(without_variables(runtime.traced(with_native_dilations(model))))


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


def with_native_dilations(model):
    """A functional Keras model whose dilated convolutions are one operation each; it has the same weights."""

    def native(layer):
        dilated = isinstance(layer, keras.layers.DepthwiseConv2D) and tuple(layer.dilation_rate) != (1, 1)
        return _NativeDilation(layer) if dilated else layer

    if not any(native(layer) is not layer for layer in model.layers):
        return model
    return keras.models.clone_model(keras.Model(model.inputs, model.outputs[0]), clone_function=native)
