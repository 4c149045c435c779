"""What operations are made of: a ReLU, a convolution, a batch norm, a pool.

A stage is a small immutable description that says which weights it has and how it computes. Each computes `groups`
edges at once: the channels of the edges stand side by side, [edge 0's C channels, edge 1's C channels, ...], and a
convolution does not mix them. One operation on one edge is the same code with `groups=1`.

All convolutions and pools pad symmetrically (k // 2 pixels on both sides, times the dilation), so an image of height H
becomes one of height ceil(H / stride). Images are float tensors in NHWC.
"""

import dataclasses
import functools
import math

import keras
import tensorflow as tf

EPSILON = 1e-5  # of batch norm
MOMENTUM = 0.9  # of batch norm's moving statistics


@dataclasses.dataclass(frozen=True)
class Weight:
    """One weight of a stage: its name, its shape and where it starts.

    `free` are the axes whose length depends on the channels or the number of edges.
    """

    name: str
    shape: tuple
    free: tuple
    initializer: object
    trainable: bool = True


def _kernel(name, shape, fan_in):
    limit = 1 / math.sqrt(fan_in)
    return Weight(name, shape, (2, 3), keras.initializers.RandomUniform(-limit, limit))


def _mean_0_variance_1(shape, dtype=None):
    return tf.stack([tf.zeros(shape[1:], dtype), tf.ones(shape[1:], dtype)])


class Stage:
    """One step of an operation."""

    def weights(self, inputs, outputs, groups):
        """Lists the stage's `Weight`s for `inputs` -> `outputs` channels on each of `groups` edges."""
        return []

    def channels(self, inputs, outputs):
        """Channels of the result on each edge; only a convolution changes their number."""
        return inputs

    def __call__(self, x, weights, groups, training):
        """Computes the stage.

        Args:
            x: (batch, height, width, groups * inputs).
            weights: tensors in the order of `weights()`.
            groups: int or scalar int32 tensor.
            training: bool; batch statistics instead of moving ones.

        Returns:
            The result (batch, height', width', groups * outputs), and the new values of the weights that are not
            trainable.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class ReLU(Stage):
    def __call__(self, x, weights, groups, training):
        return tf.nn.relu(x), []


@dataclasses.dataclass(frozen=True)
class Conv(Stage):
    """A convolution within each edge, without bias."""

    size: tuple = (1, 1)
    strides: tuple = (1, 1)

    def weights(self, inputs, outputs, groups):
        height, width = self.size
        return [_kernel("kernel", (height, width, inputs, groups * outputs), height * width * inputs)]

    def channels(self, inputs, outputs):
        return outputs

    def __call__(self, x, weights, groups, training):
        if self.strides == (1, 1):
            return _grouped_conv2d(x, weights[0], 1, "SAME", groups), []
        x = tf.pad(x, [[0, 0], *([size // 2] * 2 for size in self.size), [0, 0]])
        return _grouped_conv2d(x, weights[0], self.strides, "VALID", groups), []


@dataclasses.dataclass(frozen=True)
class Depthwise(Stage):
    """A depthwise convolution, without bias; `dilation` is 1 or 2."""

    size: int
    stride: int = 1
    dilation: int = 1

    def weights(self, inputs, outputs, groups):
        return [_kernel("kernel", (self.size, self.size, groups * inputs, 1), self.size**2)]

    def __call__(self, x, weights, groups, training):
        stride, dilation = self.stride, self.dilation
        if dilation == stride:  # every tap falls on a pixel that the stride keeps
            x, stride, dilation = _subsample(x, dilation), 1, 1
        if dilation > 1:
            x, undo = _phases(x, dilation)
            return undo(_depthwise_same(x, weights[0])), []
        if stride > 1:
            x = tf.pad(x, [[0, 0], *[[self.size // 2] * 2] * 2, [0, 0]])
            return tf.nn.depthwise_conv2d(x, weights[0], [1, stride, stride, 1], "VALID"), []
        return _depthwise_same(x, weights[0]), []


@dataclasses.dataclass(frozen=True)
class BatchNorm(Stage):
    """Normalises each channel; `affine` adds a learned scale and offset."""

    affine: bool = False

    def weights(self, inputs, outputs, groups):
        width = groups * inputs
        learned = [Weight("gamma", (width,), (0,), "ones"), Weight("beta", (width,), (0,), "zeros")]
        moving = Weight("moving_mean_and_variance", (2, width), (1,), _mean_0_variance_1, trainable=False)
        return [*learned, moving] if self.affine else [moving]

    def __call__(self, x, weights, groups, training, scale=None):
        """As any stage; `scale` (groups * inputs,) multiplies the result at no cost."""
        *learned, moving = weights
        moving_mean, moving_variance = tf.unstack(moving)
        gamma, beta = learned or (tf.ones_like(moving_mean), tf.zeros_like(moving_mean))
        if scale is not None:
            gamma, beta = gamma * scale, beta * scale if learned else beta
        y, mean, variance = _batch_norm(x, gamma, beta, moving_mean, moving_variance, training)
        return y, [tf.stack([mean, variance])]


@dataclasses.dataclass(frozen=True)
class FactorizedReduce(Stage):
    """Halves the image by two 1x1 convolutions, the second one on the image shifted by a pixel."""

    def weights(self, inputs, outputs, groups):
        return [
            _kernel(name, (1, 1, inputs, groups * width), inputs)
            for name, width in (("conv_1", outputs - outputs // 2), ("conv_2", outputs // 2))
        ]

    def channels(self, inputs, outputs):
        return outputs

    def __call__(self, x, weights, groups, training):
        # tf.slice, since the gradient of x[:, 1:, 1:] is slow.
        shifted = tf.pad(tf.slice(x, [0, 1, 1, 0], [-1] * 4), [[0, 0], [0, 1], [0, 1], [0, 0]])
        halves = [
            _grouped_conv2d(image, kernel, (2, 2), "VALID", groups)
            for image, kernel in zip((x, shifted), weights, strict=True)
        ]
        return _interleave(halves, groups), []


@dataclasses.dataclass(frozen=True)
class Pool(Stage):
    """A 3x3 pool, "max" or "avg"; the padding counts in neither."""

    kind: str
    stride: int = 1

    def __call__(self, x, weights, groups, training):
        border = [[0, 0], [1, 1], [1, 1], [0, 0]]
        pool = tf.nn.max_pool2d if self.kind == "max" else tf.nn.avg_pool2d
        if self.stride == 1:
            return pool(x, 3, 1, "SAME"), []
        if self.kind == "max":
            lowest = tf.constant(x.dtype.min, x.dtype)
            return pool(tf.pad(x, border, constant_values=lowest), 3, self.stride, "VALID"), []
        inside = pool(tf.pad(tf.ones_like(x[:1, :, :, :1]), border), 3, self.stride, "VALID")
        return pool(tf.pad(x, border), 3, self.stride, "VALID") / inside, []


@dataclasses.dataclass(frozen=True)
class Zero(Stage):
    """Nothing: an edge that is not there."""

    stride: int = 1

    def __call__(self, x, weights, groups, training):
        return tf.zeros_like(_subsample(x, self.stride)), []


def _subsample(x, stride):
    """x[:, ::stride, ::stride], as a pool because the gradient of a strided slice is slow."""
    return tf.nn.avg_pool2d(x, 1, stride, "VALID") if stride > 1 else x


def _phases(x, block):
    """Stacks the block**2 subsampled images into the batch: a dilated convolution is a plain one on each of them."""
    height, width = tf.shape(x)[1], tf.shape(x)[2]
    odd = [[0, -height % block], [0, -width % block]]

    def undo(y):
        return tf.batch_to_space(y, [block, block], odd)

    return tf.space_to_batch(x, [block, block], odd), undo


@tf.custom_gradient
def _depthwise_same(x, kernel):
    """A depthwise convolution that keeps the size of the image, with the faster of two kernels for d(kernel).

    oneDNN has no vectorised kernel for the filter gradient beyond 3x3; explicit padding selects TensorFlow's own,
    about twice as fast.
    """
    same = {"strides": [1, 1, 1, 1], "padding": "SAME"}
    y = tf.raw_ops.DepthwiseConv2dNative(input=x, filter=kernel, **same)
    size = kernel.shape[0]
    explicit = {"padding": "EXPLICIT", "explicit_paddings": [0, 0, *[size // 2] * 4, 0, 0]}

    def gradient(dy):
        dx = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
            input_sizes=tf.shape(x), filter=kernel, out_backprop=dy, **same
        )
        dkernel = tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
            input=x, filter_sizes=tf.shape(kernel), out_backprop=dy, **(same | explicit if size > 3 else same)
        )
        return dx, dkernel

    return y, gradient


@functools.cache
def _has_grouped_convolutions(dtype):
    """Whether this device differentiates grouped convolutions: GPUs and oneDNN do, plain CPU kernels do not."""
    with tf.init_scope():
        kernel, dy = tf.ones([1, 1, 2, 4], dtype), tf.ones([1, 4, 4, 4], dtype)
        try:
            tf.raw_ops.Conv2DBackpropInput(
                input_sizes=dy.shape, filter=kernel, out_backprop=dy, strides=[1, 1, 1, 1], padding="VALID"
            )
            return True
        except tf.errors.OpError:
            return False


def _grouped_conv2d(x, kernel, strides, padding, groups):
    """Convolves each edge's channels with its own kernel: (h, w, inputs, groups * outputs)."""
    single = isinstance(groups, int) and groups == 1
    if not single and not _has_grouped_convolutions(x.dtype):
        # A block-diagonal kernel does the same with more arithmetic.
        height, width, inputs, outputs = tf.unstack(tf.shape(kernel))
        blocks = tf.reshape(kernel, [height, width, 1, inputs, groups, outputs // groups])
        kernel = blocks * tf.eye(groups, dtype=kernel.dtype)[:, None, :, None]
        kernel = tf.reshape(kernel, [height, width, groups * inputs, outputs])
    return tf.nn.conv2d(x, kernel, strides, padding)


def _interleave(parts, groups):
    """Joins tensors of (..., groups * width) channels edge by edge."""
    if isinstance(groups, int) and groups == 1:
        return tf.concat(parts, -1)
    shape = tf.shape(parts[0])[:-1]
    split = [tf.reshape(part, tf.concat([shape, [groups, tf.shape(part)[-1] // groups]], 0)) for part in parts]
    joined = tf.reshape(tf.concat(split, -1), tf.concat([shape, [-1]], 0))
    return tf.ensure_shape(joined, [None] * 4)


def _batch_norm(x, gamma, beta, moving_mean, moving_variance, training):
    """Returns the normalised x and the new moving mean and (unbiased) variance."""
    if x.dtype == tf.float64:  # the fused kernel knows no float64
        mean, variance = tf.nn.moments(x, [0, 1, 2]) if training else (moving_mean, moving_variance)
        y = tf.nn.batch_normalization(x, mean, variance, beta, gamma, EPSILON)
        count = tf.cast(tf.size(x) / tf.size(mean), x.dtype)
        unbiased = variance * count / tf.maximum(count - 1, 1) if training else variance
        pairs = (moving_mean, mean), (moving_variance, unbiased)
        return y, *(old + (1 - MOMENTUM) * (new - old) for old, new in pairs)
    # Two fused batch norms of oneDNN that run at once corrupt the heap (TensorFlow 2.21, x86). It leaves images with a
    # depth axis to TensorFlow's own kernel, which is slower and safe; on GPUs there is no oneDNN.
    volume = not tf.config.list_physical_devices("GPU")
    y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=tf.expand_dims(x, 1) if volume else x,
        scale=gamma,
        offset=beta,
        mean=moving_mean,
        variance=moving_variance,
        epsilon=EPSILON,
        exponential_avg_factor=1 - MOMENTUM,
        is_training=training,
        data_format="NDHWC" if volume else "NHWC",
    )
    return tf.squeeze(y, 1) if volume else y, mean, variance
