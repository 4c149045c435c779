"""Cells: small directed acyclic graphs whose nodes are images (section 2.1 of the paper).

What `SearchCell` and `derived_cell` have in common, the topology, is in the functions before them.
"""

import keras
import numpy as np
import tensorflow as tf

from darts_tf.ops import kernels, operations
from darts_tf.ops.drop_path import DropPath
from darts_tf.ops.mixed_op import MixedOp
from darts_tf.ops.operations import Operation, factorized_reduce, relu_conv_bn


def preprocessing(reduction_prev, affine):
    """Stages for each of a cell's two inputs; the first one is twice as high and wide after a reduction cell."""
    return [factorized_reduce(affine) if reduction_prev else relu_conv_bn(affine), relu_conv_bn(affine)]


def edge_stride(source, reduction):
    """The edges that leave an input of a reduction cell halve the image."""
    return 2 if reduction and source < 2 else 1


def connect(inputs, nodes, edges_from, total):
    """Computes the nodes of a cell one after the other: each is the sum of the edges that reach it.

    Args:
        inputs: the two inputs, preprocessed.
        nodes: number of intermediate nodes.
        edges_from: function (source, image) -> list of (target, image), the edges that leave a node; nodes are counted
            from the inputs on.
        total: function (node, images) -> their sum.

    Returns:
        All nodes, the inputs first.
    """
    states = list(inputs)
    incoming = {node: [] for node in range(2, nodes + 2)}
    for source in range(nodes + 2):
        if source >= 2:
            states.append(total(source, incoming[source]))
        for target, image in edges_from(source, states[source]):
            incoming[target].append(image)
    return states


def num_edges(nodes):
    """Edges of a cell with two inputs and `nodes` intermediate nodes, each fed by all before it."""
    return sum(2 + node for node in range(nodes))


def targets(source, nodes):
    """The nodes that node `source` feeds; nodes 0 and 1 are the cell's inputs."""
    return range(max(source + 1, 2), nodes + 2)


def edges_by_source(nodes):
    """The edges that leave each node but the last, a list of their numbers for each."""
    return [[num_edges(node - 2) + source for node in targets(source, nodes)] for source in range(nodes + 1)]


def rows_by_source(weights, nodes):
    """Regroups the edges of a cell, numbered by target node and then by source, by their source node.

    Args:
        weights: (edges, operations).
        nodes: number of intermediate nodes.

    Returns:
        For each node but the last, the rows (edges that leave it, operations).
    """
    return [tf.gather(weights, rows) for rows in edges_by_source(nodes)]


@keras.saving.register_keras_serializable("darts_tf")
class SearchCell(keras.layers.Layer):
    """A cell of the supernet: every edge is a mixed operation.

    Args:
        primitives: names of the candidate operations.
        channels: channels of each node.
        nodes: number of intermediate nodes; the result is their concatenation.
        reduction: whether the cell halves the image.
        reduction_prev: whether the cell before it does.
        candidates: bool (edges, operations), which edges have which operations; None if each has all.
        partial_channels: K; only the first `channels // K` channels of a node go through the operations. The others
            pass by, and all are shuffled at the next node (PC-DARTS).

    Call arguments:
        inputs: the results of the two cells before, (batch, height, width, ...) each; the first one twice as high and
            wide if `reduction_prev`.
        weights: architecture weights after the softmax, as `rows_by_source` gives them.
        passing: with `partial_channels`, weights of what passes by, a list of tensors (edges that leave the node,) for
            each node; None for one.
        dropout: (rate, seed) as of `MixedOp`, or None; the seed is that of the cell.
        inline, drawn, others: see `MixedOp`.

    Returns:
        (batch, height', width', nodes * channels).
    """

    def __init__(
        self,
        primitives,
        channels,
        nodes=4,
        reduction=False,
        reduction_prev=False,
        candidates=None,
        partial_channels=1,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        self.primitives = tuple(primitives)
        self.channels = channels
        self.nodes = nodes
        self.reduction = reduction
        self.reduction_prev = reduction_prev
        self.partial_channels = partial_channels
        self.candidates = None if candidates is None else np.array(candidates, bool)
        self.preprocess = [
            Operation(stages, channels, name=f"preprocess{place}")
            for place, stages in enumerate(preprocessing(reduction_prev, affine=False))
        ]
        self.mixed_ops = [
            MixedOp(
                self.primitives,
                channels // partial_channels,
                edges=len(rows),
                stride=edge_stride(source, reduction),
                candidates=None if candidates is None else self.candidates[rows],
                name=f"node{source}",
            )
            for source, rows in enumerate(edges_by_source(nodes))
        ]

    def build(self, input_shape):
        for operation, shape in zip(self.preprocess, input_shape, strict=True):
            operation.build(shape)
        for mixed_op in self.mixed_ops:
            mixed_op.build((*input_shape[0][:-1], mixed_op.channels))
        self.built = True

    def call(self, inputs, weights, training=False, passing=None, dropout=None, **options):
        def mixed(source, image):
            more = options
            if dropout is not None:
                rate, seed = dropout
                more = {**options, "dropout": (rate, tf.random.experimental.stateless_fold_in(seed, source))}
            edges = self.mixed_ops[source](image, weights[source], training=training, **more)
            return tf.split(edges, len(targets(source, self.nodes)), -1)

        def edges_from(source, image):
            fed = targets(source, self.nodes)
            if not fed:
                return []
            if self.partial_channels == 1:
                return zip(fed, mixed(source, image), strict=True)
            own = self.channels // self.partial_channels
            image, rest = tf.split(image, [own, self.channels - own], -1)
            if edge_stride(source, self.reduction) == 2:
                rest = tf.nn.max_pool2d(rest, 2, 2, "SAME")
            rests = [rest] * len(fed)
            if passing is not None:
                rests = [rest * tf.cast(share, rest.dtype) for share in tf.unstack(passing[source], len(fed))]
            return zip(fed, zip(mixed(source, image), rests, strict=True), strict=True)

        def total(node, images):
            if self.partial_channels == 1:
                return tf.add_n(images)
            sums = [tf.add_n(parts) for parts in zip(*images, strict=True)]
            return kernels.shuffle(tf.concat(sums, -1), self.partial_channels)

        inputs = [operation(x, training=training) for operation, x in zip(self.preprocess, inputs, strict=True)]
        states = connect(inputs, self.nodes, edges_from, total)
        return tf.concat(states[2:], -1)

    def get_config(self):
        return {
            **super().get_config(),
            "primitives": self.primitives,
            "channels": self.channels,
            "nodes": self.nodes,
            "reduction": self.reduction,
            "reduction_prev": self.reduction_prev,
            "candidates": None if self.candidates is None else self.candidates.tolist(),
            "partial_channels": self.partial_channels,
        }


def derived_cell(inputs, pairs, concat, channels, reduction, reduction_prev, drop_path, name):
    """A cell of a genotype, of standard Keras layers.

    Args:
        inputs: the results of the two cells before, `keras.KerasTensor` (batch, height, width, ...) each.
        pairs: two (operation, source) for each intermediate node.
        concat: the nodes that make the result.
        channels: channels of each node.
        reduction, reduction_prev: as in `SearchCell`.
        drop_path: whether edges other than identities can be dropped during training, see `DropPath`.
        name: its layers are called `{name}_preprocess0_...`, `{name}_edge0_...`, `{name}_node2`, ...

    Returns:
        `keras.KerasTensor` (batch, height', width', len(concat) * channels).
    """

    def edges_from(source, image):
        for edge, (operation, start) in enumerate(pairs):
            if start == source:
                made = operations.make_operation(operation, channels, edge_stride(source, reduction), affine=True)
                result = operations.layers(made, image, channels, f"{name}_edge{edge}")
                if drop_path and result is not image:
                    result = DropPath(name=f"{name}_edge{edge}_drop_path")(result)
                yield 2 + edge // 2, result

    def total(node, images):
        return keras.layers.Add(name=f"{name}_node{node}")(images)

    inputs = [
        operations.layers(stages, x, channels, f"{name}_preprocess{place}")
        for place, (stages, x) in enumerate(zip(preprocessing(reduction_prev, affine=True), inputs, strict=True))
    ]
    states = connect(inputs, len(pairs) // 2, edges_from, total)
    states = [states[node] for node in concat]
    return keras.layers.Concatenate(name=name)(states) if len(states) > 1 else states[0]
