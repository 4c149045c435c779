"""What operations are made of: a ReLU, a convolution, a batch norm, a pool.

A stage is a small immutable description that says which weights it has and how it computes. In the supernet it
computes `groups` edges at once: the channels of the edges stand side by side, [edge 0's C channels, edge 1's C
channels, ...], and a convolution does not mix them. One operation on one edge is the same code with `groups=1`. In a
derived network, which is to open where this package is not installed, a stage is one or a few standard Keras layers.

All convolutions and pools pad symmetrically (k // 2 pixels on both sides, times the dilation), so an image of height H
becomes one of height ceil(H / stride). Images are float tensors in NHWC.
"""

import dataclasses
import math
from typing import ClassVar

import keras
import tensorflow as tf

from darts_tf.ops import kernels


@dataclasses.dataclass(frozen=True)
class Weight:
    """One weight of a stage: its name, its shape and where it starts.

    `free` are the axes whose length depends on the channels or the number of edges; along the last of them the edges
    stand side by side. Weights that are not `exact` are used in the precision of the images, even where that is lower
    than the variables'.
    """

    name: str
    shape: tuple
    free: tuple
    initializer: object
    trainable: bool = True
    exact: bool = False


def _uniform(fan_in):
    limit = 1 / math.sqrt(fan_in)
    return keras.initializers.RandomUniform(-limit, limit)


def _kernel(name, shape, fan_in, free=(2, 3)):
    return Weight(name, shape, free, _uniform(fan_in))


def _bias(name, width, fan_in):
    return Weight(name, (width,), (0,), _uniform(fan_in))


def _mean_0_variance_1(shape, dtype=None):
    return tf.stack([tf.zeros(shape[1:], dtype), tf.ones(shape[1:], dtype)])


class Stage:
    """One step of an operation."""

    def weights(self, inputs, outputs, groups):
        """Lists the stage's `Weight`s for `inputs` -> `outputs` channels on each of `groups` edges.

        Those that are not trainable have the shape (2, width), whatever the stage.
        """
        return []

    def channels(self, inputs, outputs):
        """Channels of the result on each edge; only a convolution changes their number."""
        return inputs

    averages = False  # whether each pixel of the result is the mean of some

    preparation = None  # what `prepare` does: stages whose preparations are equal may share its result

    def prepare(self, x):
        """The part of the stage that sees each channel alone and no weight: edges that share their input share it.

        Returns:
            The prepared x, with as many channels, and whatever else the rest of the stage needs.
        """
        return x, None

    def finish(self, x, prepared, weights, groups, training):
        """Computes the stage after `prepare`.

        Args:
            x: (batch, height, width, groups * inputs) as `prepare` made it, and `prepared`, what it returned beside x.
            weights: tensors in the order of `weights()`.
            groups: int or scalar int32 tensor.
            training: whether batch norms take the statistics of the batch, see `kernels.batch_norm`.

        Returns:
            The result (batch, height', width', groups * outputs), and the new values of the weights that are not
            trainable.
        """
        raise NotImplementedError

    def layers(self, x, outputs, name):
        """The stage as standard Keras layers, for one edge of a derived network.

        Args:
            x: `keras.KerasTensor` (batch, height, width, inputs), of known height and width.
            outputs: channels of the result, if the stage may choose.
            name: of the layer that has the weights; others add to it.

        Returns:
            `keras.KerasTensor` (batch, height', width', outputs).
        """
        raise NotImplementedError

    def layer_weights(self, weights):
        """The weights of the stage on one edge, as those layers have them.

        Args:
            weights: arrays in the order of `weights()`.

        Returns:
            {what is added to a layer's name: a list, as `set_weights` of the layer takes it}.
        """
        return {"": weights} if weights else {}


def _padded(x, sizes, name):
    """Pads by half of a kernel's (height, width) on every side."""
    return keras.layers.ZeroPadding2D([size // 2 for size in sizes], name=f"{name}_padding")(x)


def _subsampled(x, stride, name):
    """x[:, ::stride, ::stride]; `stride` may be a pair."""
    return x if stride in (1, (1, 1)) else keras.layers.AveragePooling2D(1, stride, name=f"{name}_stride")(x)


@dataclasses.dataclass(frozen=True)
class ReLU(Stage):
    def finish(self, x, prepared, weights, groups, training):
        return tf.nn.relu(x), []

    def layers(self, x, outputs, name):
        return keras.layers.ReLU(name=name)(x)


@dataclasses.dataclass(frozen=True)
class Activation(Stage):
    """One of `keras.activations`, by name, such as "relu6" or "hard_silu"."""

    name: str

    def finish(self, x, prepared, weights, groups, training):
        return keras.activations.get(self.name)(x), []

    def layers(self, x, outputs, name):
        return keras.layers.Activation(self.name, name=name)(x)


@dataclasses.dataclass(frozen=True)
class Conv(Stage):
    """A convolution within each edge; `bias` adds a learned offset, which a batch norm right after it takes out.

    `width` are the channels of its result on each edge, None for those of the operation. Of `parts` of an edge's
    channels each sees its own part of the inputs.
    """

    size: tuple = (1, 1)
    strides: tuple = (1, 1)
    bias: bool = False
    width: int | None = None
    parts: int = 1

    def weights(self, inputs, outputs, groups):
        height, width = self.size
        inputs //= self.parts
        fan_in = height * width * inputs
        wide = groups * self.channels(inputs, outputs)
        kernel = _kernel("kernel", (height, width, inputs, wide), fan_in)
        return [kernel, _bias("bias", wide, fan_in)] if self.bias else [kernel]

    def channels(self, inputs, outputs):
        return outputs if self.width is None else self.width

    @property
    def _is_pointwise(self):  # whose strides are taken before the convolution, see `kernels.pointwise_conv2d`
        return self.size == (1, 1)

    @property
    def preparation(self):
        return ("subsample", self.strides) if self._is_pointwise and self.strides != (1, 1) else None

    def prepare(self, x):
        return (kernels.subsample(x, self.strides) if self._is_pointwise else x), None

    def finish(self, x, prepared, weights, groups, training):
        kernel, *bias = weights
        groups = groups if self.parts == 1 else groups * self.parts
        if self._is_pointwise or self.strides == (1, 1):
            y = kernels.grouped_conv2d(x, kernel, 1, "SAME", groups)
        else:
            x = tf.pad(x, [[0, 0], *([size // 2] * 2 for size in self.size), [0, 0]])
            y = kernels.grouped_conv2d(x, kernel, self.strides, "VALID", groups)
        return (tf.nn.bias_add(y, bias[0]) if bias else y), []

    def layers(self, x, outputs, name):
        strides, padding = self.strides, "same"
        if self._is_pointwise:
            x, strides = _subsampled(x, strides, name), (1, 1)
        elif strides != (1, 1):
            x, padding = _padded(x, self.size, name), "valid"
        start = _uniform(math.prod(self.size) * x.shape[-1] // self.parts)
        return keras.layers.Conv2D(
            self.channels(None, outputs),
            self.size,
            strides,
            padding,
            groups=self.parts,
            use_bias=self.bias,
            kernel_initializer=start,
            bias_initializer=start if self.bias else "zeros",
            name=name,
        )(x)


@dataclasses.dataclass(frozen=True)
class Depthwise(Stage):
    """A depthwise convolution, without bias; `dilation` is 1 or 2."""

    size: int
    stride: int = 1
    dilation: int = 1

    def weights(self, inputs, outputs, groups):
        return [_kernel("kernel", (self.size, self.size, groups * inputs, 1), self.size**2, free=(2,))]

    @property
    def preparation(self):
        if self.dilation == self.stride:  # every tap falls on a pixel that the stride keeps
            return "subsample", self.stride
        return ("pad", self.size // 2) if self.dilation == 1 else ("phases", self.dilation)

    def prepare(self, x):
        kind, amount = self.preparation
        if kind == "subsample":
            return kernels.subsample(x, amount), None
        if kind == "pad":
            return tf.pad(x, [[0, 0], *[[amount] * 2] * 2, [0, 0]]), None
        return kernels.phases(x, amount)

    def finish(self, x, prepared, weights, groups, training):
        kind, amount = self.preparation
        if kind == "pad":
            return tf.nn.depthwise_conv2d(x, weights[0], [1, self.stride, self.stride, 1], "VALID"), []
        y = kernels.depthwise_same(x, weights[0])
        return (kernels.join_phases(y, amount, prepared) if kind == "phases" else y), []

    def layers(self, x, outputs, name):
        kind, amount = self.preparation
        if kind == "subsample":
            x = _subsampled(x, amount, name)
        padded = kind == "pad" and self.stride > 1
        return keras.layers.DepthwiseConv2D(
            self.size,
            self.stride if padded else 1,
            "valid" if padded else "same",
            dilation_rate=self.dilation if kind == "phases" else 1,
            use_bias=False,
            depthwise_initializer=_uniform(self.size**2),
            name=name,
        )(_padded(x, [self.size] * 2, name) if padded else x)


@dataclasses.dataclass(frozen=True)
class BatchNorm(Stage):
    """Normalises each channel; `affine` adds a learned scale and offset, `epsilon` is added to the variance."""

    affine: bool = False
    epsilon: float = kernels.EPSILON

    def weights(self, inputs, outputs, groups):
        width = groups * inputs
        learned = [
            Weight(name, (width,), (0,), start, exact=True) for name, start in (("gamma", "ones"), ("beta", "zeros"))
        ]
        moving = Weight("moving_mean_and_variance", (2, width), (1,), _mean_0_variance_1, trainable=False, exact=True)
        return [*learned, moving] if self.affine else [moving]

    def finish(self, x, prepared, weights, groups, training, scale=None):
        """As any stage; `scale` (groups * inputs,) multiplies the result at no cost."""
        *learned, moving = weights
        moving_mean, moving_variance = tf.unstack(moving)
        gamma, beta = learned or (tf.ones_like(moving_mean), tf.zeros_like(moving_mean))
        if scale is not None:
            gamma, beta = gamma * scale, beta * scale if learned else beta
        y, mean, variance = kernels.batch_norm(x, gamma, beta, moving_mean, moving_variance, training, self.epsilon)
        return y, [tf.stack([mean, variance])]

    def layers(self, x, outputs, name):
        return keras.layers.BatchNormalization(
            momentum=kernels.MOMENTUM, epsilon=self.epsilon, center=self.affine, scale=self.affine, name=name
        )(x)

    def layer_weights(self, weights):
        *learned, moving = weights
        return {"": [*learned, *moving]}


@dataclasses.dataclass(frozen=True)
class FactorizedReduce(Stage):
    """Halves the image by two 1x1 convolutions, the second one on the image shifted by a pixel; `bias` as of `Conv`."""

    bias: bool = False
    stride: ClassVar = 2

    def weights(self, inputs, outputs, groups):
        halves = ("conv_1", outputs - outputs // 2), ("conv_2", outputs // 2)
        convolutions = [_kernel(name, (1, 1, inputs, groups * width), inputs) for name, width in halves]
        return convolutions + [_bias(f"{name}_bias", groups * width, inputs) for name, width in halves if self.bias]

    def channels(self, inputs, outputs):
        return outputs

    def finish(self, x, prepared, weights, groups, training):
        # As one 2x2 convolution: half of the outputs see the pixel at (0, 0) only, the other half that at (1, 1).
        first, second = (kernels.by_group(kernel, groups) for kernel in weights[:2])
        none_first, none_second = tf.zeros_like(first), tf.zeros_like(second)
        taps = [[(first, none_second), (none_first, none_second)], [(none_first, none_second), (none_first, second)]]
        kernel = tf.concat([tf.concat([tf.concat(tap, -1) for tap in row], 1) for row in taps], 0)
        kernel = tf.reshape(kernel, [2, 2, tf.shape(kernel)[2], -1])
        y = kernels.grouped_conv2d(x, kernel, 2, "SAME", groups)
        if self.bias:
            biases = [tf.reshape(bias, [groups, -1]) for bias in weights[2:]]
            y = tf.nn.bias_add(y, tf.reshape(tf.concat(biases, -1), [-1]))
        return y, []

    def layers(self, x, outputs, name):
        odd = [(0, size % 2) for size in x.shape[1:3]]
        shifted = keras.layers.ZeroPadding2D(odd, name=f"{name}_padding")(x) if odd != [(0, 0), (0, 0)] else x
        shifted = keras.layers.Cropping2D([(1, 0), (1, 0)], name=f"{name}_shift")(shifted)
        halves = [
            Conv(strides=(2, 2), bias=self.bias).layers(image, width, f"{name}_{conv}")
            for conv, width, image in (("conv_1", outputs - outputs // 2, x), ("conv_2", outputs // 2, shifted))
            if width
        ]
        return keras.layers.Concatenate(name=name)(halves) if len(halves) > 1 else halves[0]

    def layer_weights(self, weights):
        return {f"_conv_{half + 1}": weights[half::2] for half in range(2) if weights[half].size}


@dataclasses.dataclass(frozen=True)
class Pool(Stage):
    """A 3x3 pool, "max" or "avg"; the padding counts in neither."""

    kind: str
    stride: int = 1

    @property
    def averages(self):
        return self.kind == "avg"

    def finish(self, x, prepared, weights, groups, training):
        border = [[0, 0], [1, 1], [1, 1], [0, 0]]
        pool = tf.nn.max_pool2d if self.kind == "max" else tf.nn.avg_pool2d
        if self.stride == 1:
            return pool(x, 3, 1, "SAME"), []
        if self.kind == "max":  # whose windows always hold the pixels that the border repeats
            return pool(tf.pad(x, border, "SYMMETRIC"), 3, self.stride, "VALID"), []
        inside = pool(tf.pad(tf.ones_like(x[:1, :, :, :1]), border), 3, self.stride, "VALID")
        return pool(tf.pad(x, border), 3, self.stride, "VALID") / inside, []

    def layers(self, x, outputs, name):
        # No Keras pool of stride 2 pads both sides, and by something that does not count.
        pool = keras.layers.MaxPooling2D if self.kind == "max" else keras.layers.AveragePooling2D
        return _subsampled(pool(3, 1, "same", name=name)(x), self.stride, name)


@dataclasses.dataclass(frozen=True)
class MeanOfFour(Stage):
    """Halves the image: each pixel is the mean of 2x2; of fewer where an odd image ends."""

    stride: ClassVar = 2
    averages: ClassVar = True

    def finish(self, x, prepared, weights, groups, training):
        return tf.nn.avg_pool2d(x, 2, 2, "SAME"), []

    def layers(self, x, outputs, name):
        return keras.layers.AveragePooling2D(2, 2, "same", name=name)(x)


@dataclasses.dataclass(frozen=True)
class Zero(Stage):
    """Nothing: an edge that is not there."""

    stride: int = 1

    def finish(self, x, prepared, weights, groups, training):
        return tf.zeros_like(kernels.subsample(x, self.stride)), []

    def layers(self, x, outputs, name):
        return keras.layers.Rescaling(0.0, name=name)(_subsampled(x, self.stride, name))


@dataclasses.dataclass(frozen=True)
class Noise(Zero):
    """Gaussian noise of deviation 1 in training, whatever the input is; else nothing.

    The noise of a supernet is `MixedOp`'s, which is given a seed.
    """

    def layers(self, x, outputs, name):
        return keras.layers.GaussianNoise(1.0, name=f"{name}_noise")(super().layers(x, outputs, name))


@dataclasses.dataclass(frozen=True)
class SqueezeExcite(Stage):
    """Multiplies each channel by a number from 0 to 1 that follows from the means of all of them (Hu et al., 2018).

    `reduction` is how many times fewer numbers there are in between; the hard sigmoid is MobileNetV3's. On one edge.
    """

    reduction: int = 4

    def hidden(self, inputs):
        """How many numbers there are in between."""
        return max(inputs // self.reduction, 1)

    def weights(self, inputs, outputs, groups):
        hidden = self.hidden(inputs)
        return [
            Weight("reduce_kernel", (1, 1, inputs, hidden), (2, 3), _uniform(inputs)),
            _bias("reduce_bias", hidden, inputs),
            Weight("expand_kernel", (1, 1, hidden, inputs), (2, 3), _uniform(hidden)),
            _bias("expand_bias", inputs, hidden),
        ]

    def finish(self, x, prepared, weights, groups, training):
        reduce, reduce_bias, expand, expand_bias = weights
        means = tf.reduce_mean(x, [1, 2], keepdims=True)
        hidden = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(means, reduce, 1, "VALID"), reduce_bias))
        gates = tf.nn.bias_add(tf.nn.conv2d(hidden, expand, 1, "VALID"), expand_bias)
        return x * keras.activations.hard_sigmoid(gates), []

    def layers(self, x, outputs, name):
        inputs = x.shape[-1]
        means = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_means")(x)
        for part, width, activation in (("reduce", self.hidden(inputs), "relu"), ("expand", inputs, "hard_sigmoid")):
            start = _uniform(means.shape[-1])
            means = keras.layers.Conv2D(
                *(width, 1),
                activation=activation,
                kernel_initializer=start,
                bias_initializer=start,
                name=f"{name}_{part}",
            )(means)
        return keras.layers.Multiply(name=name)([x, means])

    def layer_weights(self, weights):
        return {"_reduce": weights[:2], "_expand": weights[2:]}


@dataclasses.dataclass(frozen=True)
class Shuffle(Stage):
    """Channels (parts, width) in the order (width, parts), so that the parts of what follows see all of those before.

    On one edge.
    """

    parts: int

    def finish(self, x, prepared, weights, groups, training):
        return kernels.shuffle(x, self.parts), []

    def layers(self, x, outputs, name):
        height, width, channels = x.shape[1:]
        x = keras.layers.Reshape((height * width, self.parts, channels // self.parts), name=f"{name}_parts")(x)
        x = keras.layers.Permute((1, 3, 2), name=f"{name}_order")(x)
        return keras.layers.Reshape((height, width, channels), name=name)(x)
