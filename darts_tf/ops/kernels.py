"""Computations that TensorFlow has no op for, or whose op is wrong, slow or missing on some devices.

Where a function serves images of all sizes its gradient must not ask for the shape of a large tensor: TensorFlow then
keeps that tensor in memory until the backward pass (the gradients of `tf.reshape` and `tf.squeeze` do).
"""

import contextlib
import contextvars
import functools

import keras
import numpy as np
import tensorflow as tf

from darts_tf.devices import replicas
from darts_tf.private.keras import layers_within
from darts_tf.private.tensorflow import never_inlined, separate_calls

EPSILON = 1e-5  # of batch norm
MOMENTUM = 0.9  # of batch norm's moving statistics
SYNCHRONIZED = "synchronized"  # a kind of training, see `batch_norm`

_own = contextvars.ContextVar("own", default=None)
_twice = contextvars.ContextVar("twice", default=False)


@contextlib.contextmanager
def own_kernels():
    """In the graph of this scope no kernel computes two things at once, though calls share functions.

    The batch norm of oneDNN is two to four times as fast as TensorFlow's, but a kernel of it keeps what it is computing
    in members: where it computes two things at once it corrupts the heap (TensorFlow 2.21, x86). Gradients are to be
    taken within the scope.
    """
    graph = tf.compat.v1.get_default_graph() if not tf.executing_eagerly() else None
    token = _own.set(graph)
    try:
        yield
    finally:
        _own.reset(token)
    if graph is not None:
        separate_calls(graph)


def _has_own_kernels():
    """Whether what is traced here is in `own_kernels`, or in a shared function that was called there."""
    graph = _own.get()
    return graph is True or (graph is not None and graph is tf.compat.v1.get_default_graph())


def shared(function, signature):
    """A function with one graph, which all graphs that call it share: TensorFlow does not copy it into them.

    Args:
        function: of tensors.
        signature: as `input_signature` of `tf.function`.
    """

    @functools.cache
    def variant(own):
        def traced(*arguments):
            token = _own.set(own or None)
            try:
                return function(*arguments)
            finally:
                _own.reset(token)

        return never_inlined(traced, signature)

    return lambda *arguments: variant(_own.get() is not True and _has_own_kernels())(*arguments)


@contextlib.contextmanager
def twice_differentiable():
    """What is traced in this context has second derivatives, which backward passes that are written out do not have."""
    token = _twice.set(True)
    try:
        yield
    finally:
        _twice.reset(token)


def is_twice_differentiable():
    """Whether this is in `twice_differentiable`."""
    return _twice.get()


_FROZEN = "frozen"


def frozen(tensors):
    """A list of tensors; where they come out of this in a graph, nobody wants their gradients.

    It is one operation, as hundreds of `tf.stop_gradient` take a while to trace.
    """
    return tf.identity_n(tensors, name=_FROZEN) if tensors else []


def is_frozen(variable):
    """Whether no gradient of a weight is wanted: in this scope it comes out of `frozen` or `tf.stop_gradient`."""
    tensor = tf.convert_to_tensor(variable)
    if not tf.is_symbolic_tensor(tensor):
        return False
    return tensor.op.type == "StopGradient" or tensor.op.name.rpartition("/")[2].startswith(_FROZEN)


def subsample(x, stride):
    """x[:, ::stride, ::stride], as a pool because the gradient of a strided slice is slow; `stride` may be a pair."""
    return x if stride in (1, (1, 1)) else tf.nn.avg_pool2d(x, 1, stride, "VALID")


def pointwise_conv2d(x, kernel, strides):
    """A 1x1 convolution of x (batch, height, width, inputs) by (1, 1, inputs, outputs), with strides (of y, of x).

    With strides, the filter gradient of oneDNN (TensorFlow 2.21, x86) writes past its buffer where there are fewer
    inputs than a vector register holds, 8 with AVX2 and 16 with AVX-512, and so corrupts the heap. Here the image is
    subsampled first.
    """
    return tf.nn.conv2d(subsample(x, tuple(strides)), kernel, 1, "VALID")


def reroute_strided_pointwise(layer):
    """Makes the Keras convolutions within a layer or model compute as `pointwise_conv2d` where they are such.

    What they save and how they are configured stays as it is.
    """
    for inner in layers_within(layer):
        if not isinstance(inner, keras.layers.Conv2D) or inner.kernel_size != (1, 1) or max(inner.strides) == 1:
            continue
        if inner.groups == 1 and inner.data_format == "channels_last":
            inner.convolution_op = functools.partial(pointwise_conv2d, strides=inner.strides)


def phases(x, block):
    """Stacks the block**2 subsampled images into the batch: a dilated convolution is a plain one on each of them.

    Returns:
        (block**2 * batch, height / block, width / block, channels), and by how much the image had to grow for that.
    """
    odd = tf.stack([[0, -tf.shape(x)[1] % block], [0, -tf.shape(x)[2] % block]])
    return tf.space_to_batch(x, [block, block], odd), odd


def join_phases(x, block, odd):
    """The inverse of `phases`, given what it returned."""
    return tf.batch_to_space(x, [block, block], odd)


def depthwise_same(x, kernel):
    """A depthwise convolution of x (batch, height, width, channels) by (size, size, channels, 1); keeps x's shape."""
    with _gradient("DepthwiseConv2dNative", "darts_tf.DepthwiseSame"):
        return tf.raw_ops.DepthwiseConv2dNative(input=x, filter=kernel, strides=[1, 1, 1, 1], padding="SAME")


@tf.RegisterGradient("darts_tf.DepthwiseSame")
def _depthwise_same_gradient(op, dy):
    # oneDNN has no vectorised kernel for the filter gradient beyond 3x3; explicit padding selects TensorFlow's own,
    # about twice as fast.
    x, kernel = op.inputs
    if x.op.type == "Tile":  # repeating an image again is cheaper than keeping the copies
        x = tf.tile(*x.op.inputs)
    padding, size = {"padding": "SAME"}, kernel.shape[0]
    dx = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
        input_sizes=tf.shape(x), filter=kernel, out_backprop=dy, strides=[1, 1, 1, 1], **padding
    )
    if size > 3:
        padding = {"padding": "EXPLICIT", "explicit_paddings": [0, 0, *[size // 2] * 4, 0, 0]}
    dkernel = tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
        input=x, filter_sizes=tf.shape(kernel), out_backprop=dy, strides=[1, 1, 1, 1], **padding
    )
    return dx, dkernel


def repeat(x, times):
    """Repeats the channels of x (batch, height, width, channels), [all of them, all of them again, ...]."""
    with _gradient("Tile", "darts_tf.Repeat"):
        return tf.tile(x, [1, 1, 1, times])


@tf.RegisterGradient("darts_tf.Repeat")
def _repeat_gradient(op, dy):
    # TensorFlow's gradient computes shapes on the GPU and waits for them.
    times = op.inputs[1][3]
    return tf.reduce_sum(tf.reshape(dy, tf.concat([tf.shape(dy)[:3], [times, -1]], 0)), 3), None


def beside(tensors, *companions):
    """The tensors, each beside a companion of each kind, which the gradients of `first` and `take` find there.

    Without that they would have to compute from large tensors, and so keep them in memory.
    """
    return tf.identity_n([*tensors, *(one for kind in companions for one in kind)])[: len(tensors)]


def _companions(tensor, kinds):
    together = tensor.op.outputs
    count = len(together) // (1 + kinds)
    return [together[tensor.value_index + (1 + kind) * count] for kind in range(kinds)]


def first(x, size):
    """The first images of x (batch, height, width, channels).

    Args:
        size: [images, -1, -1, -1], `beside` what is missing: [batch - images, 0, 0, 0].
    """
    with _gradient("Slice", "darts_tf.First"):
        return tf.slice(x, [0, 0, 0, 0], size)


@tf.RegisterGradient("darts_tf.First")
def _first_gradient(op, dy):
    (missing,) = _companions(op.inputs[2], 1)
    return tf.pad(dy, tf.stack([tf.zeros_like(missing), missing], 1)), None, None


def ends(some, batch, number):
    """Sizes for `first`: all images of a batch, or one where `some`, bools (number,), says that none is wanted."""
    images = tf.where(some, batch, 1)[:, None]
    zeros = np.zeros([number, 3], np.int32)
    return beside(
        *(tf.unstack(tf.concat(columns, 1), number) for columns in ([images, zeros - 1], [batch - images, zeros]))
    )


def take(x, index, axis):
    """Takes some of x along an axis.

    Args:
        x: tensor of known rank.
        index: (taken,), `beside` the place in the result of each thing of x (0 where it is not taken), and whether it
            is taken. What is taken though that says otherwise has no gradient.
        axis: int.
    """
    with _gradient("GatherV2", "darts_tf.Take"):
        return tf.gather(x, index, axis=axis)


@tf.RegisterGradient("darts_tf.Take")
def _take_gradient(op, dy):
    place, there = _companions(op.inputs[1], 2)
    return put(dy, place, there, tf.get_static_value(op.inputs[2]).item()), None, None


def put(values, place, there, axis, old=0):
    """The inverse of `take`: what is at each place of values along an axis, or what was there before."""
    there = tf.reshape(there, [-1] + [1] * (values.shape.rank - 1 - axis)) if axis < values.shape.rank - 1 else there
    return tf.where(there, tf.gather(values, place, axis=axis), tf.cast(old, values.dtype))


def shuffle(x, groups):
    """Channels (groups, width) of x (batch, height, width, groups * width) in the order (width, groups)."""
    channels = tf.shape(x)[-1] if x.shape[-1] is None else x.shape[-1]

    def transposed(x, rows):
        pairs = tf.reshape(x, [-1, rows, channels // rows])
        return tf.reshape(tf.transpose(pairs, [0, 2, 1]), tf.shape(x))

    @tf.custom_gradient
    def shuffled(x):
        return transposed(x, groups), lambda dy: transposed(dy, channels // groups)

    return tf.ensure_shape(shuffled(x), x.shape)


def sum_by_edge(parts, sizes, index, edge, channels, batch=None, added=None):
    """Sums groups of channels that belong to the same edge.

    Args:
        parts: images (batch, height, width, groups * channels).
        sizes: (parts,) or a list, the numbers of their groups.
        index: (edges, most), the groups of each edge, counted over all parts; the number of all groups stands for none.
        edge: (groups,), the edge of each group.
        channels: scalar.
        batch: scalar, how many images there are; then a part whose size is zero is (1, height, width, channels) and is
            left out. None if there is no such part.
        added: (edges,) or None, zeros that count as numbers added to all that an edge has: their gradient is the sum of
            that of the edge.

    Returns:
        (batch, height, width, edges * channels).
    """
    images, height, width, _ = tf.unstack(tf.shape(parts[0]))
    edges, groups = tf.shape(index)[0], tf.size(edge)
    batch, may_lack = (images, False) if batch is None else (batch, True)
    pixels, widths = batch * height * width, tf.stack(sizes) * channels

    def each(*columns):
        """For each part a vector of its values in columns."""
        return tf.unstack(tf.stack([column + tf.zeros_like(widths) for column in columns], 1), len(parts))

    lacks = tf.where(widths > 0, 0, 1)
    here = batch * (1 - lacks)

    def total(parts):
        if may_lack:
            ends, shapes = each(here, -1, -1, -1), each(batch, height, width, widths)
            parts = [
                tf.reshape(tf.slice(part, [0] * 4, end), shape)
                for part, end, shape in zip(parts, ends, shapes, strict=True)
            ]
        x = tf.concat([*parts, tf.zeros([batch, height, width, channels], parts[0].dtype)], -1)
        x = tf.gather(tf.reshape(x, [pixels, groups + 1, channels]), tf.reshape(index, [-1]), axis=1)
        if index.shape[1] != 1:
            x = tf.reduce_sum(tf.reshape(x, [pixels, edges, tf.shape(index)[1], channels]), 2)
        return tf.reshape(x, [batch, height, width, edges * channels])

    def gradient(dy):  # each group is of one edge
        dy = tf.reshape(dy, [pixels, edges * channels])
        sums = None if added is None else tf.reduce_sum(tf.reshape(tf.reduce_sum(dy, 0), [edges, channels]), 1)
        dy = tf.reshape(dy, [pixels, edges, channels])
        dx = tf.reshape(tf.gather(dy, edge, axis=1), [batch, height, width, groups * channels])
        dx = tf.split(dx, widths, -1, num=len(parts))
        if may_lack:  # a part that was left out becomes one image of zeros
            shapes, missing = each(here, height, width, widths + lacks * channels), each(lacks, 0, 0, 0)
            dx = [
                tf.pad(tf.reshape(d, shape), tf.stack([tf.zeros_like(more), more], 1))
                for d, shape, more in zip(dx, shapes, missing, strict=True)
            ]
        numbers = [] if added is None else [tf.cast(sums, added.dtype)]
        return *numbers, *dx

    @tf.custom_gradient
    def summed(*arguments):
        return total(arguments[0 if added is None else 1 :]), gradient

    return summed(*([] if added is None else [added]), *parts)


def identity(size, dtype):
    """The identity matrix; `tf.eye` has arguments that a GPU would have to give back to the CPU."""
    return tf.one_hot(tf.range(size), size, dtype=dtype)


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


def by_group(kernel, groups):
    """Splits the last axis of a kernel (h, w, inputs, groups * width) into two, (groups, width)."""
    return tf.reshape(kernel, tf.concat([tf.shape(kernel)[:-1], [groups, tf.shape(kernel)[-1] // groups]], 0))


def grouped_conv2d(x, kernel, strides, padding, groups):
    """Convolves each edge's channels with its own kernel.

    Args:
        x: (batch, height, width, groups * inputs).
        kernel: (h, w, inputs, groups * outputs).
        strides, padding: as in `tf.nn.conv2d`.
        groups: number of edges, an int or a scalar int32 tensor.

    Returns:
        (batch, height', width', groups * outputs).
    """
    single = isinstance(groups, int) and groups == 1
    if not single and not _has_grouped_convolutions(x.dtype):
        # A block-diagonal kernel does the same with more arithmetic.
        height, width, inputs, outputs = tf.unstack(tf.shape(kernel))
        blocks = by_group(kernel, groups)[:, :, None] * identity(groups, kernel.dtype)[:, None, :, None]
        kernel = tf.reshape(blocks, [height, width, groups * inputs, outputs])
    return tf.nn.conv2d(x, kernel, strides, padding)


def batch_norm(x, gamma, beta, moving_mean, moving_variance, training, epsilon=EPSILON):
    """Normalises x (batch, height, width, channels), which may be of a lower precision than the other arguments.

    Args:
        training: False normalises by the moving statistics, True by those of the batch, `SYNCHRONIZED` by those of the
            batches of all replicas.
        epsilon: what is added to the variance.

    Returns:
        y like x, and the new moving mean and (unbiased) variance, (channels,).
    """
    if training == SYNCHRONIZED and x.dtype != gamma.dtype:
        wide = tf.cast(x, gamma.dtype)
        y, *moving = batch_norm(wide, gamma, beta, moving_mean, moving_variance, training, epsilon)
        return tf.cast(y, x.dtype), *moving
    if x.dtype == tf.float64 or training == SYNCHRONIZED:  # the fused kernel knows neither
        mean, variance = moving_mean, moving_variance
        if training == SYNCHRONIZED:
            mean, variance = tf.nn.moments(x, [0, 1, 2])
        elif training:  # `tf.nn.moments` has wrong second derivatives
            mean = tf.reduce_mean(x, [0, 1, 2])
            variance = tf.reduce_mean(tf.math.squared_difference(x, mean), [0, 1, 2])
        count = tf.cast(tf.size(x) / tf.size(mean), x.dtype)
        if training == SYNCHRONIZED:
            means, variances = tf.unstack(replicas.gather(tf.stack([mean, variance])), axis=1)
            mean, count = tf.reduce_mean(means, 0), count * replicas.count()
            # Not the mean of squares less the square of the mean: a channel may vary by less than these are exact.
            variance = tf.reduce_mean(variances + (means - mean) ** 2, 0)
        y = tf.nn.batch_normalization(x, mean, variance, beta, gamma, epsilon)
        unbiased = variance * count / tf.maximum(count - 1, 1) if training else variance
        pairs = (moving_mean, mean), (moving_variance, unbiased)
        return y, *(old + (1 - MOMENTUM) * (new - old) for old, new in pairs)
    # oneDNN, whose kernels must be `own_kernels`, leaves images with a depth axis to TensorFlow's, which are slower.
    volume = not (tf.config.list_physical_devices("GPU") or _has_own_kernels())
    y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=tf.expand_dims(x, 1) if volume else x,
        scale=gamma,
        offset=beta,
        mean=moving_mean,
        variance=moving_variance,
        epsilon=epsilon,
        exponential_avg_factor=1 - MOMENTUM,
        is_training=training,
        data_format="NDHWC" if volume else "NHWC",
    )
    if volume:
        with _gradient("Squeeze", "darts_tf.SqueezeDepth"):
            y = tf.squeeze(y, 1)
    return y, mean, variance


@tf.RegisterGradient("darts_tf.SqueezeDepth")
def _squeeze_depth_gradient(op, dy):
    return tf.expand_dims(dy, 1)


def _gradient(op_type, name):
    """Ops of this type that are made in this scope of a graph have the gradient registered under `name`.

    Unlike `tf.custom_gradient` this adds no op and keeps no tensor alive. Eagerly it has no effect: the gradients
    below are TensorFlow's, in another way.
    """
    return tf.compat.v1.get_default_graph().gradient_override_map({op_type: name})
