"""Keras models as TFLite files of built-in operations."""

import collections
import functools
import warnings

import keras
import tensorflow as tf

from darts_tf.devices import runtime
from darts_tf.private.tensorflow import without_variables

TAPS = 25  # of the largest depthwise convolution that XNNPACK has a kernel of its own for


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
    return converted(without_variables(runtime.traced(suited(model))))


class _Instead(keras.layers.Layer):
    """A layer that is computed by a function of it and its input; its weights are those of the layer."""

    def __init__(self, layer, compute):
        super().__init__(name=layer.name, dtype=layer.dtype_policy)
        self.layer, self._compute = layer, compute
        self.built = True

    def call(self, x):
        return self._compute(self.layer, x)

    def compute_output_shape(self, input_shape):
        return self.layer.compute_output_shape(input_shape)


def suited(model, quantized=False):
    """A functional Keras model that computes the same with the same weights, of layers that TFLite computes fast.

    A dilated depthwise convolution is one operation; what Keras makes is a plain one between two shuffles of the image.
    A large one is a sum of smaller ones, since there are no fast kernels of more than 5x5. Shapes do not depend on the
    size of the batch. XNNPACK, which computes TFLite's operations, has no average pooling in int8, none of single
    pixels that are some pixels apart, and in int8 no ReLU that is not part of the operation before it: they are
    depthwise convolutions, and parts of poolings of single pixels.

    Args:
        model: functional `keras.Model`.
        quantized: whether its TFLite file is to be int8.

    Returns:
        `keras.Model`, to be converted: not every CPU has a kernel for its operations in TensorFlow.
    """
    makers = {id(x): layer for layer in model.layers for x in _tensors(layer, "output")}
    consumers = collections.Counter(id(x) for layer in model.layers for x in _tensors(layer, "input"))

    def is_part(layer):
        """Whether the converter makes an activation part of the operation before it, whose result nothing else gets."""
        (x,) = _tensors(layer, "input")
        kinds = keras.layers.BatchNormalization, keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Add
        return consumers[id(x)] == 1 and isinstance(makers.get(id(x)), kinds)

    def instead(layer):
        if isinstance(layer, keras.layers.DepthwiseConv2D) and layer.data_format == "channels_last":
            dilated, (rows, columns) = tuple(layer.dilation_rate) != (1, 1), layer.kernel_size
            large = rows * columns > TAPS >= columns
            return _Instead(layer, _dilated if dilated else _in_pieces) if dilated or large else layer
        if isinstance(layer, keras.layers.Reshape):
            return _Instead(layer, _reshaped)
        if isinstance(layer, keras.layers.AveragePooling2D) and layer.data_format == "channels_last":
            return _Instead(layer, _averaged) if quantized or tuple(layer.pool_size) == (1, 1) else layer
        if quantized and _is_relu(layer) and not is_part(layer):
            return _Instead(layer, lambda layer, x: tf.nn.relu(tf.nn.max_pool2d(x, 1, 1, "VALID")))
        return layer

    one = isinstance(getattr(model, "output", model.outputs[0]), keras.KerasTensor)
    if not one or all(instead(layer) is layer for layer in model.layers):
        return model
    inputs = model.inputs if len(model.inputs) > 1 else model.inputs[0]
    return keras.models.clone_model(keras.Model(inputs, model.outputs[0]), clone_function=instead)


def _tensors(layer, which):
    """The tensors that are the "input" or "output" of a layer where it is first called, a list."""
    try:
        return keras.tree.flatten(getattr(layer, which))
    except (AttributeError, ValueError):
        return []


def _is_relu(layer):
    """Whether a layer is a ReLU of images."""
    plain = isinstance(layer, keras.layers.ReLU) and not (layer.max_value or layer.negative_slope or layer.threshold)
    named = isinstance(layer, keras.layers.Activation) and layer.activation is keras.activations.relu
    return (plain or named) and [len(x.shape) for x in _tensors(layer, "input")] == [4]


def _dilated(layer, x):
    y = tf.raw_ops.DepthwiseConv2dNative(
        input=x,
        filter=tf.convert_to_tensor(layer.kernel),
        strides=[1, 1, 1, 1],
        padding=layer.padding.upper(),
        dilations=[1, *layer.dilation_rate, 1],
    )
    return layer.activation(y + layer.bias if layer.use_bias else y)


def _in_pieces(layer, x):
    (size, columns), strides, kernel = layer.kernel_size, layer.strides, tf.convert_to_tensor(layer.kernel)
    after = layer.compute_output_shape(x.shape)[1:3]
    if layer.padding == "same":
        beyond = [
            max((made - 1) * stride + taps - length, 0)
            for made, stride, taps, length in zip(after, strides, layer.kernel_size, x.shape[1:3], strict=True)
        ]
        x = tf.pad(x, [[0, 0], *([part // 2, part - part // 2] for part in beyond), [0, 0]])
    pieces = []
    for first in range(0, size, TAPS // columns):
        last = min(first + TAPS // columns, size)
        rows = x[:, first : last + (after[0] - 1) * strides[0]]
        pieces.append(tf.nn.depthwise_conv2d(rows, kernel[first:last], [1, *strides, 1], "VALID"))
    y = functools.reduce(tf.add, pieces)
    return layer.activation(y + layer.bias if layer.use_bias else y)


def _reshaped(layer, x):
    shape = layer.compute_output_shape(x.shape)[1:]
    return layer(x) if None in shape else tf.reshape(x, [-1, *shape])


def _averaged(layer, x):
    (rows, columns), strides, padding = layer.pool_size, layer.strides, layer.padding.upper()

    def sums(x, weight):
        kernel = tf.fill([rows, columns, x.shape[-1], 1], tf.constant(weight, x.dtype))
        return tf.nn.depthwise_conv2d(x, kernel, [1, *strides, 1], padding)

    with tf.init_scope():  # how many pixels are averaged: fewer at the border
        counts = sums(tf.ones([1, *x.shape[1:3], 1]), 1.0).numpy()
    y = sums(x, 1 / (rows * columns))
    return y if (counts == rows * columns).all() else y * tf.constant(rows * columns / counts, x.dtype)
