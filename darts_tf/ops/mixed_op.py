"""The mixed operation: all candidate operations on all the edges that leave one node (equation 2 of the paper)."""

import functools

import keras
import tensorflow as tf

from darts_tf.ops import kernels
from darts_tf.ops.operations import Operation, compute, compute_prepared, make_operation
from darts_tf.ops.stages import BatchNorm, Noise, Pool, ReLU, Zero
from darts_tf.private.tensorflow import never_inlined


@keras.saving.register_keras_serializable("darts_tf")
class MixedOp(keras.layers.Layer):
    """Applies every candidate operation to one node, for all of the node's outgoing edges at once.

    The edges share their input. So an operation with weights runs once, on the input repeated `edges` times, with one
    group of channels per edge; an operation without (pooling, identity) has the same result on each edge and is
    computed once. The architecture weight of an operation is the scale of its last batch norm.

    Args:
        primitives: names of the candidate operations.
        channels: channels of the node.
        edges: number of edges that leave the node.
        stride: 1, or 2 on edges that leave an input of a reduction cell.
        pool_norm: whether a batch norm follows on pools.
        affine: whether batch norms learn a scale and an offset.

    Call arguments:
        x: (batch, height, width, channels), the node.
        weights: (edges, len(primitives)), architecture weights after the softmax, of the type of the layer's variables.
        inline: whether to write the operations out in the graph instead of calling a function that all nodes share.
        noise: seed of operations that give noise, int32 (2,); None for none.

    Returns:
        (batch, height / stride, width / stride, edges * channels), for each edge the weighted sum over operations.
    """

    def __init__(self, primitives, channels, edges, stride=1, pool_norm=True, affine=False, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.primitives = tuple(primitives)
        self.channels = channels
        self.edges = edges
        self.stride = stride
        self.pool_norm = pool_norm
        self.affine = affine
        self.noisy = []
        self.shared, self.grouped, self.separate = {}, {}, {}
        for index, name in enumerate(self.primitives):
            made = make_operation(name, channels, stride, affine=affine)
            if isinstance(made, keras.layers.Layer):
                others = [make_operation(name, channels, stride, affine=affine) for _ in range(edges - 1)]
                self.separate[index] = [made, *others]
            elif any(isinstance(stage, Noise) for stage in made):
                self.noisy.append(index)
            elif any(isinstance(stage, Zero) for stage in made):
                continue
            elif any(weight.trainable for stage in made for weight in stage.weights(1, 1, 1)):
                self.grouped[index] = Operation(made, channels, edges, name=name)
            else:
                pooled = pool_norm and bool(made) and isinstance(made[-1], Pool)
                self.shared[index] = Operation([*made, BatchNorm()] if pooled else made, channels, name=name)

    def build(self, input_shape):
        for operation in self.grouped.values():
            operation.build((*input_shape[:-1], self.edges * input_shape[-1]))
        for layer in [*self.shared.values(), *(layer for layers in self.separate.values() for layer in layers)]:
            layer.build(input_shape)
            kernels.reroute_strided_pointwise(layer)
        self.built = True

    def call(self, x, weights, training=False, inline=False, noise=None):
        total = []
        if self.shared or self.grouped:
            operations = [*self.shared.values(), *self.grouped.values()]
            modes = {index: op.training(training) for index, op in (self.shared | self.grouped).items()}
            edges_at_once = _edges_at_once(
                tuple((index, _split(operation.stages)[1], modes[index]) for index, operation in self.shared.items()),
                tuple((index, operation.stages, modes[index]) for index, operation in self.grouped.items()),
                len(self.primitives),
                inline,
                all(_is_frozen(variable) for op in self.grouped.values() for variable in op.trainable_variables),
                x.dtype,
                weights.dtype,
            )
            images, tensors = [], []
            for operation in self.shared.values():
                outside, _ = _split(operation.stages)
                images.append(compute(outside, x, [[]] * len(outside), 1, training)[0])
                tensors.append(operation.tensors(x.dtype)[len(outside) :])
            tensors += [operation.tensors(x.dtype) for operation in self.grouped.values()]
            y, updates = edges_at_once(x, images, weights, tensors)
            moving = [variable for op in operations if op.training(training) for variable in op.moving]
            values = tf.split(updates, [variable.shape[-1] for variable in moving], axis=-1) if moving else []
            for variable, value in zip(moving, values, strict=True):
                variable.assign(value)
            height, width = (size and -(-size // self.stride) for size in x.shape[1:3])
            total.append(tf.ensure_shape(y, [x.shape[0], height, width, self.edges * self.channels]))
        for index, layers in self.separate.items():
            parts = [
                tf.cast(layer(x, training=bool(training)), x.dtype) * tf.cast(weights[edge, index], x.dtype)
                for edge, layer in enumerate(layers)
            ]
            total.append(tf.concat(parts, -1))
        if self.noisy and training and noise is not None:
            total.append(self._noise(x, weights, noise))
        if not total:
            return tf.tile(tf.zeros_like(kernels.subsample(x, self.stride)), [1, 1, 1, self.edges])
        return tf.add_n(total)

    def _noise(self, x, weights, seed):
        """What operations that give noise add to the edges."""
        parts = []
        for index in self.noisy:
            shape = tf.shape(kernels.subsample(x, self.stride)[..., :1]) * [1, 1, 1, self.edges * self.channels]
            drawn = tf.random.stateless_normal(
                shape, tf.random.experimental.stateless_fold_in(seed, index), dtype=x.dtype
            )
            parts.append(drawn * tf.cast(tf.repeat(weights[:, index], self.channels), x.dtype))
        return tf.add_n(parts)

    def get_config(self):
        return {
            **super().get_config(),
            "primitives": self.primitives,
            "channels": self.channels,
            "edges": self.edges,
            "stride": self.stride,
            "pool_norm": self.pool_norm,
            "affine": self.affine,
        }


def _is_frozen(variable):
    """Whether no gradient is wanted for a weight: in the current scope it comes out of `tf.stop_gradient`."""
    tensor = tf.convert_to_tensor(variable)
    return tf.is_symbolic_tensor(tensor) and tensor.op.type == "StopGradient"


def _split(stages):
    """The stages of an operation without weights before its batch norm, and the batch norm if there is one.

    The former stay out of the function below: oneDNN's max pooling remembers where each maximum was, and inside of a
    function that is not inlined its gradient cannot see that.
    """
    last = len(stages) - (bool(stages) and isinstance(stages[-1], BatchNorm))
    return stages[:last], stages[last:]


@functools.cache
def _edges_at_once(shared, grouped, num_operations, inline, frozen, dtype, exact_dtype):
    """The body of `MixedOp` as one graph function for all nodes of all cells, whatever their channels and edges.

    `shared` and `grouped` hold (index, stages, training) of each operation; the updates that the function returns are
    those of operations that are in training.

    Tracing and optimising the graph of each node anew would take most of the time until the first step, so the
    function leaves every length open and is never inlined, unless `inline` says so. With `frozen` it computes no
    gradients of the weights.
    """

    def edges_at_once(x, images, scales, weights):
        if frozen:
            weights = tf.nest.map_structure(tf.stop_gradient, weights)
        channels, groups = tf.shape(x)[-1], tf.shape(scales)[0]
        scales = tf.unstack(scales, num_operations, axis=1)
        results, updates, spread, repeated = [], [], [], {}
        for (_, stages, training), image, tensors in zip(shared, images, weights[: len(shared)], strict=True):
            y, update = compute(stages, image, tensors, 1, training)
            spread.append(y)
            updates += update if training else []
        if shared:
            results.append(_spread(spread, [scales[index] for index, *_ in shared], channels, groups))
        for (index, stages, training), tensors in zip(grouped, weights[len(shared) :], strict=True):
            relu = isinstance(stages[0], ReLU)
            stages, tensors = stages[relu:], tensors[relu:]
            start = relu, stages[0].preparation  # cheaper before the repetition than after it
            if start not in repeated:
                image, prepared = stages[0].prepare(tf.nn.relu(x) if relu else x)
                repeated[start] = kernels.repeat(image, groups), prepared
            scale = tf.reshape(scales[index][:, None] * tf.ones([1, channels], scales[index].dtype), [-1])
            y, update = compute_prepared(stages, *repeated[start], tensors, groups, training, scale)
            results.append(y)
            updates += update if training else []
        return tf.add_n(results), tf.concat(updates, -1) if updates else []

    if inline:
        return edges_at_once

    image = tf.TensorSpec([None] * 4, dtype)

    def any_length(weight):
        shape = [None if axis in weight.free else n for axis, n in enumerate(weight.shape)]
        return tf.TensorSpec(shape, exact_dtype if weight.exact else dtype)

    weights = [
        [[any_length(w) for w in stage.weights(1, 1, 1)] for stage in stages] for _, stages, _ in (*shared, *grouped)
    ]
    return never_inlined(
        edges_at_once, [image, [image] * len(shared), tf.TensorSpec([None, num_operations], exact_dtype), weights]
    )


def _spread(images, scales, channels, groups):
    """Weighted sum of images (batch, h, w, channels) for each edge, as one 1x1 convolution with diagonal blocks."""
    identity = kernels.identity(channels, images[0].dtype)
    blocks = tf.cast(tf.stack(scales), identity.dtype)[:, None, :, None] * identity[None, :, None, :]
    kernel = tf.reshape(blocks, [1, 1, len(images) * channels, groups * channels])
    return tf.nn.conv2d(tf.concat(images, -1), kernel, 1, "VALID")
