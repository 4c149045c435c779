"""Cells: small directed acyclic graphs whose nodes are images (section 2.1 of the paper).

What `SearchCell` and `derived_cell` have in common, the topology, is in the functions before them.
"""

import keras
import tensorflow as tf

from darts_tf.ops import operations
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


def rows_by_source(weights, nodes):
    """Regroups the edges of a cell, numbered by target node and then by source, by their source node.

    Args:
        weights: (edges, operations).
        nodes: number of intermediate nodes.

    Returns:
        For each node but the last, the rows (edges that leave it, operations).
    """
    return [
        tf.gather(weights, [num_edges(node - 2) + source for node in targets(source, nodes)])
        for source in range(nodes + 1)
    ]


@keras.saving.register_keras_serializable("darts_tf")
class SearchCell(keras.layers.Layer):
    """A cell of the supernet: every edge is a mixed operation.

    Args:
        primitives: names of the candidate operations.
        channels: channels of each node.
        nodes: number of intermediate nodes; the result is their concatenation.
        reduction: whether the cell halves the image.
        reduction_prev: whether the cell before it does.

    Call arguments:
        inputs: the results of the two cells before, (batch, height, width, ...) each; the first one twice as high and
            wide if `reduction_prev`.
        weights: architecture weights after the softmax, as `rows_by_source` gives them.
        inline: see `MixedOp`.

    Returns:
        (batch, height', width', nodes * channels).
    """

    def __init__(self, primitives, channels, nodes=4, reduction=False, reduction_prev=False, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.primitives = tuple(primitives)
        self.channels = channels
        self.nodes = nodes
        self.reduction = reduction
        self.reduction_prev = reduction_prev
        self.preprocess = [
            Operation(stages, channels, name=f"preprocess{place}")
            for place, stages in enumerate(preprocessing(reduction_prev, affine=False))
        ]
        self.mixed_ops = [
            MixedOp(
                self.primitives,
                channels,
                edges=len(targets(source, nodes)),
                stride=edge_stride(source, reduction),
                name=f"node{source}",
            )
            for source in range(nodes + 1)
        ]

    def build(self, input_shape):
        for operation, shape in zip(self.preprocess, input_shape, strict=True):
            operation.build(shape)
        for mixed_op in self.mixed_ops:
            mixed_op.build((*input_shape[0][:-1], self.channels))
        self.built = True

    def call(self, inputs, weights, training=False, inline=False):
        def edges_from(source, image):
            fed = targets(source, self.nodes)
            if not fed:
                return []
            edges = self.mixed_ops[source](image, weights[source], training=training, inline=inline)
            return zip(fed, tf.split(edges, len(fed), -1), strict=True)

        inputs = [operation(x, training=training) for operation, x in zip(self.preprocess, inputs, strict=True)]
        states = connect(inputs, self.nodes, edges_from, total=lambda node, images: tf.add_n(images))
        return tf.concat(states[2:], -1)

    def get_config(self):
        return {
            **super().get_config(),
            "primitives": self.primitives,
            "channels": self.channels,
            "nodes": self.nodes,
            "reduction": self.reduction,
            "reduction_prev": self.reduction_prev,
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
