"""The mixed operation: all candidate operations on all the edges that leave one node (equation 2 of the paper)."""

import functools

import keras
import numpy as np
import tensorflow as tf

from darts_tf.ops import kernels, operations
from darts_tf.ops.operations import Operation, compute, compute_prepared, make_operation
from darts_tf.ops.stages import BatchNorm, Noise, Pool, ReLU, Zero


@keras.saving.register_keras_serializable("darts_tf")
class MixedOp(keras.layers.Layer):
    """Applies every candidate operation to one node, for all of the node's outgoing edges at once.

    The edges share their input. So an operation with weights runs once, on the input repeated, with one group of
    channels for each edge that has it; an operation without (pooling, identity) has the same result on each edge and
    is computed once. The architecture weight of an operation is the scale of its last batch norm.

    Args:
        primitives: names of the candidate operations.
        channels: channels of the node.
        edges: number of edges that leave the node.
        stride: 1, or 2 on edges that leave an input of a reduction cell.
        candidates: bool (edges, len(primitives)), which edges have which operations; None if each has all.
        pool_norm: whether a batch norm follows on pools.
        affine: whether batch norms learn a scale and an offset.

    Call arguments:
        x: (batch, height, width, channels), the node.
        weights: (edges, len(primitives)), architecture weights after the softmax, of the type of the layer's variables.
        inline: whether to write the operations out in the graph instead of calling a function that all nodes share.
        drawn: whether the weights are one for one operation of each edge, the largest, and zero for the others. Then
            only that one is computed, and only its moving statistics change. Operations that are Keras layers are
            computed all the same.
        others: with `drawn`, whether the other weights have the gradient of numbers that are added to what the edge
            gives.
        dropout: (rate, seed) of dropout after identities, a scalar and an int32 (2,); None for no dropout.
        noise: seed of operations that give noise, int32 (2,); None for none.

    Returns:
        (batch, height / stride, width / stride, edges * channels), for each edge the weighted sum over operations.
    """

    def __init__(self, primitives, channels, edges, stride=1, candidates=None, pool_norm=True, affine=False, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.primitives = tuple(primitives)
        self.channels = channels
        self.edges = edges
        self.stride = stride
        self.pool_norm = pool_norm
        self.affine = affine
        self.noisy = []
        shape = edges, len(self.primitives)
        self.candidates = np.ones(shape, bool) if candidates is None else np.array(candidates, bool).reshape(shape)
        self.shared, self.grouped, self.separate = {}, {}, {}
        for index, name in enumerate(self.primitives):
            members = self.members(index)
            if not len(members):
                continue
            made = make_operation(name, channels, stride, affine=affine)
            if isinstance(made, keras.layers.Layer):
                others = [make_operation(name, channels, stride, affine=affine) for _ in members[1:]]
                self.separate[index] = [made, *others]
            elif any(isinstance(stage, Noise) for stage in made):
                self.noisy.append(index)
            elif any(isinstance(stage, Zero) for stage in made):
                continue
            elif any(weight.trainable for stage in made for weight in stage.weights(1, 1, 1)):
                self.grouped[index] = Operation(made, channels, len(members), name=name)
            else:
                pooled = pool_norm and bool(made) and isinstance(made[-1], Pool)
                self.shared[index] = Operation([*made, BatchNorm()] if pooled else made, channels, name=name)

    def members(self, index):
        """The edges that have an operation, an array."""
        return np.flatnonzero(self.candidates[:, index]).astype(np.int32)

    def build(self, input_shape):
        for index, operation in self.grouped.items():
            operation.build((*input_shape[:-1], len(self.members(index)) * input_shape[-1]))
        for layer in [*self.shared.values(), *(layer for layers in self.separate.values() for layer in layers)]:
            layer.build(input_shape)
            kernels.reroute_strided_pointwise(layer)
        self.built = True

    def call(self, x, weights, training=False, inline=False, drawn=False, others=False, dropout=None, noise=None):
        if not self.candidates.all():
            weights = tf.where(self.candidates, weights, tf.zeros([], weights.dtype))
        total = []
        if self.shared or self.grouped:
            operations = [*self.shared.values(), *self.grouped.values()]
            identities = tuple(index for index, operation in self.shared.items() if not operation.stages)
            dropped = identities if dropout and training else ()
            which, tables = self._tables(drawn)
            modes = {index: op.training(training) for index, op in (self.shared | self.grouped).items()}
            edges_at_once = _edges_at_once(
                tuple((index, *_split(operation.stages), modes[index]) for index, operation in self.shared.items()),
                tuple((index, operation.stages, modes[index]) for index, operation in self.grouped.items()),
                len(self.primitives),
                which,
                bool(tables),
                others and drawn,
                dropped,
                inline,
                all(kernels.is_frozen(variable) for op in self.grouped.values() for variable in op.trainable_variables),
                x.dtype,
                weights.dtype,
            )
            images, tensors = [], []
            counted = self._where_drawn(x, weights) if drawn else {}
            for index, operation in self.shared.items():
                outside, _ = _split(operation.stages)
                image = kernels.first(x, counted[index]) if outside and drawn else x
                images.append(compute(outside, image, [[]] * len(outside), 1, training)[0])
                tensors.append(operation.tensors(x.dtype)[len(outside) :])
            tensors += [operation.tensors(x.dtype) for operation in self.grouped.values()]
            drop = [*dropout] if dropped else []
            y, updates = edges_at_once(x, images, weights, tensors, *([tables, drop] if tables or drop else []))
            moving = [variable for op in operations if op.training(training) for variable in op.moving]
            values = tf.split(updates, [variable.shape[-1] for variable in moving], axis=-1) if moving else []
            for variable, value in zip(moving, values, strict=True):
                variable.assign(value)
            height, width = (size and -(-size // self.stride) for size in x.shape[1:3])
            total.append(tf.ensure_shape(y, [x.shape[0], height, width, self.edges * self.channels]))
        for index, layers in self.separate.items():
            column, parts = weights[:, index], [None] * self.edges
            if drawn:
                column = tf.where(tf.argmax(weights, 1) == index, column, 0)
            for edge, layer in zip(self.members(index), layers, strict=True):
                parts[edge] = tf.cast(layer(x, training=bool(training)), x.dtype) * tf.cast(column[edge], x.dtype)
            there = parts[self.members(index)[0]]
            total.append(tf.concat([tf.zeros_like(there) if part is None else part for part in parts], -1))
        if self.noisy and training and noise is not None:
            total.append(self._noise(x, weights, noise, drawn))
        if not total:
            return tf.tile(tf.zeros_like(kernels.subsample(x, self.stride)), [1, 1, 1, self.edges])
        return tf.add_n(total)

    def _where_drawn(self, x, weights):
        """For each operation without weights how many images are computed, for `kernels.first`; one if none drew it."""
        indices = [index for index, operation in self.shared.items() if _split(operation.stages)[0]]
        if not indices:
            return {}
        some = tf.equal(tf.argmax(weights, 1), np.array(indices, np.int64).reshape(-1, 1))
        ends = kernels.ends(tf.reduce_any(some, 1), tf.shape(x)[0], len(indices))
        return dict(zip(indices, ends, strict=True))

    def _tables(self, drawn):
        """Which layout `_edges_at_once` is to have, and the tables of edges that it needs for that."""
        members = [self.members(index) for index in (*self.shared, *self.grouped)]
        own = members[len(self.shared) :]
        if drawn:
            place = np.full([len(members), self.edges], -1, np.int32)
            for row, edges in zip(place, members, strict=True):
                row[edges] = range(len(edges))
            return _Drawn, [place] if (place < 0).any() else []
        if all(len(edges) == self.edges for edges in own):
            return _All, []
        edge = np.concatenate(own)
        groups = [np.flatnonzero(edge == one) for one in range(self.edges)]
        index = np.full([self.edges, max(map(len, groups))], len(edge), np.int32)
        for row, some in zip(index, groups, strict=True):
            row[: len(some)] = some
        return _Some, [members, index, edge]

    def _noise(self, x, weights, seed, drawn):
        """What operations that give noise add to the edges."""
        parts = []
        for index in self.noisy:
            column = weights[:, index]
            if drawn:
                column = tf.where(tf.argmax(weights, 1) == index, column, 0)
            shape = tf.shape(kernels.subsample(x, self.stride)[..., :1]) * [1, 1, 1, self.edges * self.channels]
            own = tf.random.experimental.stateless_fold_in(seed, index)
            normal = tf.random.stateless_normal(shape, own, dtype=x.dtype)
            parts.append(normal * tf.cast(tf.repeat(column, self.channels), x.dtype))
        return tf.add_n(parts)

    def get_config(self):
        return {
            **super().get_config(),
            "primitives": self.primitives,
            "channels": self.channels,
            "edges": self.edges,
            "stride": self.stride,
            "candidates": self.candidates.tolist(),
            "pool_norm": self.pool_norm,
            "affine": self.affine,
        }


def _split(stages):
    """The stages of an operation without weights before its batch norm, and that with what follows, if there is one.

    The former stay out of the function below: oneDNN's max pooling remembers where each maximum was, and inside of a
    function that is not inlined its gradient cannot see that.
    """
    last = next((place for place, stage in enumerate(stages) if isinstance(stage, BatchNorm)), len(stages))
    return stages[:last], stages[last:]


class _All:
    """Each edge has each operation: a group of channels for each edge.

    Args:
        scales: (edges, operations), as `MixedOp` is called with them.
        channels: of one group.
        columns: the operations, counted by the methods' `place`.
        tables: of `MixedOp._tables`.
    """

    def __init__(self, scales, channels, columns, tables):
        self.scales, self.channels, self.tables = tf.unstack(scales, axis=1, num=scales.shape[1]), channels, tables
        self.columns, self.edges = columns, tf.shape(scales)[0]

    def groups(self, place):
        """How many groups are computed."""
        return self.edges

    def image(self, x, place):
        """Those of the images x that are computed."""
        return x

    def column(self, place):
        """The architecture weight of each group."""
        return self.scales[self.columns[place]]

    def scale(self, place):
        """The architecture weight of each channel of the groups."""
        column = self.column(place)
        return tf.reshape(column[:, None] * tf.ones([1, self.channels], column.dtype), [-1])

    def weights(self, stages, tensors, place):
        """The stages' weights of the groups, given those of all edges that have the operation."""
        return tensors

    def updates(self, stages, tensors, updates, place):
        """The new values of all weights that are not trainable, given those of the groups."""
        return updates

    def total(self, results):
        """The sum of results, pairs (place, groups side by side), for all edges side by side."""
        return [y for _, y in results]


class _Some(_All):
    """As `_All`, with groups for the edges that have the operation."""

    def groups(self, place):
        return tf.size(self.tables[0][place])

    def column(self, place):
        return tf.gather(super().column(place), self.tables[0][place])

    def total(self, results):
        _, index, edge = self.tables
        sizes = [self.groups(place) for place, _ in results]
        return [kernels.sum_by_edge([y for _, y in results], sizes, index, edge, self.channels)]


class _Drawn(_All):
    """As `_All`, with groups for the edges that have drawn the operation, for which it has the largest weight.

    Where there are none, one group is computed of one image, and left out.
    """

    def __init__(self, scales, channels, columns, tables, batch, others):
        """`batch` is how many images there are, `others` as in `MixedOp`."""
        super().__init__(scales, channels, columns, tables)
        self.batch, number = batch, len(columns)
        drawn = tf.argmax(scales, 1, tf.int32)
        one_hot = tf.one_hot(drawn, scales.shape[1], dtype=scales.dtype)
        self.drawn_scale = self._repeat(tf.reduce_sum(scales * one_hot, 1))
        self.added = tf.reduce_sum(scales * (1 - one_hot), 1) if others else None

        # Edges in the order of what they drew, `place` among the columns; those of other operations come last.
        place = np.full(scales.shape[1], number, np.int32)
        place[columns] = range(number)
        place = tf.gather(place, drawn)
        self.order = tf.argsort(place, stable=True)
        self.position = tf.math.invert_permutation(self.order)
        there = tf.equal(place[None], tf.range(number)[:, None])  # (operations, edges)
        self.sizes = tf.reduce_sum(tf.cast(there, tf.int32), 1)
        starts, lengths = tf.cumsum(self.sizes, exclusive=True), tf.maximum(self.sizes, 1)
        self.lengths, self.all = tf.unstack(lengths, number), tf.reduce_sum(self.sizes)
        within = tf.where(there, self.position - starts[:, None], 0)

        some = self.sizes > 0
        self.ends, self.some = kernels.ends(some, batch, number), tf.unstack(some, number)

        order = tf.concat([self.order, [0]], 0)  # an operation that no edge drew is computed for any
        begins, lengths = (tf.unstack(column[:, None], number) for column in (starts, lengths))
        self.members = [tf.slice(order, *part) for part in zip(begins, lengths, strict=True)]
        self.channel_index = kernels.beside(
            [self._each(edges) for edges in self.members],
            tf.unstack(self._each(within), number),
            tf.unstack(self._repeat(there), number),
        )
        self.within, self.there = tf.unstack(within, number), tf.unstack(there, number)

    def _each(self, groups, width=None):
        """The index of each channel, given that of the groups, (..., groups)."""
        width = self.channels if width is None else width
        channels = tf.expand_dims(groups * width, -1) + tf.range(width)
        return tf.reshape(channels, [*groups.shape[:-1], -1])

    def _repeat(self, groups, width=None):
        """What each channel has, given what the groups have, (..., groups)."""
        width = self.channels if width is None else width
        channels = tf.tile(tf.expand_dims(groups, -1), [*[1] * groups.shape.rank, width])
        return tf.reshape(channels, [*groups.shape[:-1], -1])

    def groups(self, place):
        return self.lengths[place]

    def image(self, x, place):
        return kernels.first(x, self.ends[place])

    def scale(self, place):
        return kernels.take(self.drawn_scale, self.channel_index[place], 0)

    def weights(self, stages, tensors, place):
        edges, within, there = self._of_owners(place)
        wide = self.channel_index[place] if not self.tables else self._wide(edges, within, there, self.channels)

        def index(weight, tensor):
            axis = weight.free[-1]
            if weight.shape[axis] == _MANY:
                return wide
            return self._wide(edges, within, there, tf.shape(tensor)[axis] // tf.size(there))

        return [
            [
                kernels.take(
                    tensor if weight.trainable else tf.stop_gradient(tensor), index(weight, tensor), weight.free[-1]
                )
                for weight, tensor in zip(stage.weights(_MANY, _MANY, 1), row, strict=True)
            ]
            for stage, row in zip(stages, tensors, strict=True)
        ]

    def updates(self, stages, tensors, updates, place):
        _, within, there = self._of_owners(place)
        within, there = self._each(within), self._repeat(there)
        old = [
            tensor
            for stage, row in zip(stages, tensors, strict=True)
            for weight, tensor in zip(stage.weights(1, 1, 1), row, strict=True)
            if not weight.trainable
        ]
        new = [kernels.put(new, within, there, 1, was) for new, was in zip(updates, old, strict=True)]
        return [tf.stop_gradient(value) for value in new]

    def _of_owners(self, place):
        """The index of each group, and for all edges that have weights its group if it drew the operation."""
        edges, within, there = self.members[place], self.within[place], self.there[place]
        if not self.tables:
            return edges, within, there
        positions = self.tables[0][place]
        own = tf.where(positions >= 0)[:, 0]
        return tf.maximum(tf.gather(positions, edges), 0), tf.gather(within, own), tf.gather(there, own)

    def _wide(self, edges, within, there, width):
        indices = self._each(edges, width=width), self._each(within, width=width), self._repeat(there, width)
        (index,) = kernels.beside([indices[0]], *([one] for one in indices[1:]))
        return index

    def total(self, results):
        index, edge = tf.minimum(self.position, self.all)[:, None], self.order[: self.all]
        parts = [y for _, y in results]
        return [kernels.sum_by_edge(parts, self.sizes, index, edge, self.channels, self.batch, self.added)]


_MANY = 2**31 - 1  # channels, no other length


@functools.cache
def _edges_at_once(shared, grouped, num_operations, which, masked, others, dropped, inline, frozen, dtype, exact_dtype):
    """The body of `MixedOp` as one graph function for all nodes of all cells, whatever their channels and edges.

    `grouped` holds (index, stages, training) of each operation with weights, `shared` (index, stages before the call,
    stages within, training) of each without. The updates that the function returns are those of operations that are in
    training. `which` is the class that says which edges an operation is computed for, `masked` whether it needs tables
    for that, `dropped` are the identities that dropout follows on.

    Tracing and optimising the graph of each node anew would take most of the time until the first step, so the
    function leaves every length open and is never inlined, unless `inline` says so. With `frozen` it computes no
    gradients of the weights.
    """

    def edges_at_once(x, images, scales, weights, tables=(), noise=()):
        if frozen:
            weights = tf.nest.map_structure(tf.stop_gradient, weights)
        channels, edges = tf.shape(x)[-1], tf.shape(scales)[0]
        columns = [index for index, *_ in (*shared, *grouped)]
        more = (tf.shape(x)[0], others) if which is _Drawn else ()
        layout = which(scales, channels, columns, tables, *more)
        sums, results, updates, spread, started, repeated = [], [], [], [], {}, {}

        def dropout(y):
            rate, seed = noise
            keeps = tf.random.stateless_uniform(tf.shape(y), seed, dtype=rate.dtype) >= rate
            return tf.cast(tf.where(keeps, 1 / (1 - rate), 0), dtype)

        for place, ((index, outside, stages, training), tensors) in enumerate(
            zip(shared, weights[: len(shared)], strict=True)
        ):
            y, update = compute(stages, images[place], tensors, 1, training)
            if which is _Drawn:
                y = y if outside else layout.image(y, place)
                y = kernels.repeat(y, layout.groups(place))
                y = y * dropout(y) if index in dropped else y
                results.append((place, y * tf.cast(layout.scale(place), dtype)))
                old = [tensor for row in tensors for tensor in row]
                update = [
                    tf.stop_gradient(tf.where(layout.some[place], new, was))
                    for new, was in zip(update, old, strict=True)
                ]
            else:
                spread.append(y)
                if index in dropped:  # the difference, so that a rate of zero is as if there were no dropout
                    y = kernels.repeat(x, edges)
                    sums.append(y * ((dropout(y) - 1) * tf.cast(tf.repeat(layout.scales[index], channels), dtype)))
            updates += update if training else []
        if spread:
            sums.insert(0, _spread(spread, [layout.scales[index] for index, *_ in shared], channels, edges))

        for place, ((_, stages, training), tensors) in enumerate(
            zip(grouped, weights[len(shared) :], strict=True), len(shared)
        ):
            own = layout.weights(stages, tensors, place)
            relu = isinstance(stages[0], ReLU)
            start = relu, stages[relu].preparation, place if which is _Drawn else None
            if start not in started:  # cheaper before the repetition than after it
                image = layout.image(x, place)
                started[start] = stages[relu].prepare(tf.nn.relu(image) if relu else image)
            image, prepared = started[start]
            size = layout.groups(place)
            if which is not _All:
                image = kernels.repeat(image, size)
            elif start not in repeated:
                repeated[start] = image = kernels.repeat(image, size)
            else:
                image = repeated[start]
            y, update = compute_prepared(
                stages[relu:], image, prepared, own[relu:], size, training, layout.scale(place)
            )
            results.append((place, y))
            updates += layout.updates(stages, tensors, update, place) if training else []
        sums += layout.total(results) if results else []
        return tf.add_n(sums), tf.concat(updates, -1) if updates else []

    if inline:
        return edges_at_once

    image = tf.TensorSpec([None] * 4, dtype)

    weights = [operations.any_length(stages, dtype, exact_dtype) for *_, stages, _ in (*shared, *grouped)]
    signature = [image, [image] * len(shared), tf.TensorSpec([None, num_operations], exact_dtype), weights]
    if masked or dropped:
        members = [tf.TensorSpec([None], tf.int32)] * len(weights)
        matrix, vector = (tf.TensorSpec([None] * rank, tf.int32) for rank in (2, 1))
        tables = {_All: [], _Some: [members, matrix, vector], _Drawn: [matrix] if masked else []}[which]
        noise = [tf.TensorSpec([], exact_dtype), tf.TensorSpec([2], tf.int32)]
        signature += [tables, noise if dropped else []]
    return kernels.shared(edges_at_once, signature)


def _spread(images, scales, channels, groups):
    """Weighted sum of images (batch, h, w, channels) for each edge, as one 1x1 convolution with diagonal blocks."""
    identity = kernels.identity(channels, images[0].dtype)
    blocks = tf.cast(tf.stack(scales), identity.dtype)[:, None, :, None] * identity[None, :, None, :]
    kernel = tf.reshape(blocks, [1, 1, len(images) * channels, groups * channels])
    return tf.nn.conv2d(tf.concat(images, -1), kernel, 1, "VALID")
