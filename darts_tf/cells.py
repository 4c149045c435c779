"""Cells: small directed acyclic graphs whose nodes are images."""

import keras
import tensorflow as tf

from darts_tf.mixed_op import MixedOp
from darts_tf.operations import Operation, factorized_reduce, relu_conv_bn


def num_edges(nodes):
    """Edges of a cell with two inputs and `nodes` intermediate nodes, each fed by all before it."""
    return sum(2 + node for node in range(nodes))


def targets(source, nodes):
    """The intermediate nodes, counted from 0, that node `source` feeds; sources 0 and 1 are the cell's inputs."""
    return range(max(source - 1, 0), nodes)


def rows_by_source(weights, nodes):
    """Regroups the edges of a cell, numbered by target node and then by source, by their source node.

    Args:
        weights: (edges, operations).
        nodes: number of intermediate nodes.

    Returns:
        For each node but the last, the rows (edges that leave it, operations).
    """
    return [
        tf.gather(weights, [num_edges(node) + source for node in targets(source, nodes)]) for source in range(nodes + 1)
    ]


@keras.saving.register_keras_serializable("darts_tf")
class SearchCell(keras.layers.Layer):
    """A cell of the supernet: every edge is a mixed operation (section 2.1 of the paper).

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

    Returns:
        (batch, height', width', nodes * channels).
    """

    def __init__(self, primitives, channels, nodes=4, reduction=False, reduction_prev=False, **kwargs):
        super().__init__(**kwargs)
        self.primitives = tuple(primitives)
        self.channels = channels
        self.nodes = nodes
        self.reduction = reduction
        self.reduction_prev = reduction_prev
        first = factorized_reduce(affine=False) if reduction_prev else relu_conv_bn(affine=False)
        self.preprocess = [
            Operation(first, channels, name="preprocess0"),
            Operation(relu_conv_bn(affine=False), channels, name="preprocess1"),
        ]
        self.mixed_ops = [
            MixedOp(
                self.primitives,
                channels,
                edges=len(targets(source, nodes)),
                stride=2 if reduction and source < 2 else 1,
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

    def call(self, inputs, weights, training=False):
        states = [operation(x, training=training) for operation, x in zip(self.preprocess, inputs, strict=True)]
        incoming = [[] for _ in range(self.nodes)]
        for source, mixed_op in enumerate(self.mixed_ops):
            if source >= 2:
                states.append(tf.add_n(incoming[source - 2]))
            edges = mixed_op(states[source], weights[source], training=training)
            fed = targets(source, self.nodes)
            for node, edge in zip(fed, tf.split(edges, len(fed), -1), strict=True):
                incoming[node].append(edge)
        states.append(tf.add_n(incoming[-1]))
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
