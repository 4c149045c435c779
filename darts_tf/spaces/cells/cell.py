"""Cells: small directed acyclic graphs whose nodes are images (section 2.1 of the paper).

What `SearchCell` and the cells of genotypes have in common, the topology, is in the functions before it.
"""

import keras
import numpy as np
import tensorflow as tf

from darts_tf.ops import kernels
from darts_tf.ops.mixed_op import MixedOp
from darts_tf.ops.operations import Operation, factorized_reduce, relu_conv_bn
from darts_tf.spaces.cells import genotypes


def preprocessing(reduction_prev, affine):
    """Stages for each of a cell's two inputs; the first one is twice as high and wide after a reduction cell."""
    return [factorized_reduce(affine) if reduction_prev else relu_conv_bn(affine), relu_conv_bn(affine)]


def edge_stride(source, reduction):
    """The edges that leave an input of a reduction cell halve the image."""
    return 2 if reduction and source < 2 else 1


def rows_from(source, edges):
    """The places in `edges`, (node, source) pairs, of those that leave a node."""
    return [row for row, (_, start) in enumerate(edges) if start == source]


def sources(edges):
    """The nodes that edges leave, in their order."""
    return sorted({source for _, source in edges})


def rows_by_source(weights, edges):
    """Regroups rows, one per edge, by the node that the edges leave.

    Args:
        weights: (edges, ...).
        edges: (node, source) of each.

    Returns:
        {source: (edges that leave it, ...)}.
    """
    return {source: tf.gather(weights, rows_from(source, edges)) for source in sources(edges)}


def connect(inputs, nodes, edges_from, total):
    """Computes the nodes of a cell one after the other: each is the sum of the edges that reach it.

    Args:
        inputs: the cell's inputs, preprocessed.
        nodes: number of intermediate nodes.
        edges_from: function (source, image) -> list of (target, image), the edges that leave a node; nodes are counted
            from the inputs on.
        total: function (node, images) -> their sum.

    Returns:
        All nodes, the inputs first; None for one that nothing reaches.
    """
    states, first = list(inputs), len(inputs)
    incoming = {node: [] for node in range(first, first + nodes)}
    for source in range(first + nodes):
        if source >= first:
            states.append(total(source, incoming[source]) if incoming[source] else None)
        if states[source] is not None:
            for target, image in edges_from(source, states[source]):
                incoming[target].append(image)
    return states


@keras.saving.register_keras_serializable("darts_tf")
class SearchCell(keras.layers.Layer):
    """A cell of the supernet: every edge is a mixed operation.

    Args:
        primitives: names of the candidate operations.
        channels: channels of each node.
        nodes: number of intermediate nodes; the result is their concatenation.
        reduction: whether the cell halves the image.
        reduction_prev: whether the cell before it does.
        edges: (node, source) pairs, by default each node is fed by all before it.
        candidates: bool (edges, operations), which edges have which operations; None if each has all.
        partial_channels: K; only the first `channels // K` channels of a node go through the operations. The others
            pass by, and all are shuffled at the next node (PC-DARTS).
        affine: whether the batch norms of candidates learn a scale and an offset.

    Call arguments:
        inputs: the results of the two cells before, (batch, height, width, ...) each; the first one twice as high and
            wide if `reduction_prev`.
        weights: architecture weights after the softmax, as `rows_by_source` gives them.
        passing: with `partial_channels`, weights of what passes by, {source: (edges that leave it,)}; None for one.
        draw: seed of what is drawn in the cell, int32 (2,), or None.
        dropout: rate of dropout after identities, a scalar, or None; there is none without a draw.
        **options: `inline`, `drawn` and `others` of `MixedOp`.

    Returns:
        (batch, height', width', nodes * channels).
    """

    num_inputs = 2
    pool_norm = True

    def __init__(
        self,
        primitives,
        channels,
        nodes=4,
        reduction=False,
        reduction_prev=False,
        edges=None,
        candidates=None,
        partial_channels=1,
        affine=False,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        self.primitives = tuple(primitives)
        self.channels = channels
        self.nodes = nodes
        self.reduction = reduction
        self.reduction_prev = reduction_prev
        self.edges = tuple(map(tuple, edges)) if edges else genotypes.every_edge(nodes, self.num_inputs)
        self.partial_channels = partial_channels
        self.candidates = None if candidates is None else np.array(candidates, bool)
        self.affine = affine
        self.preprocess = [
            Operation(stages, channels, name=f"preprocess{place}") for place, stages in enumerate(self._preprocessing())
        ]
        self.mixed_ops = {
            source: MixedOp(
                self.primitives,
                channels // partial_channels,
                edges=len(rows_from(source, self.edges)),
                stride=edge_stride(source, reduction),
                candidates=None if candidates is None else self.candidates[rows_from(source, self.edges)],
                pool_norm=self.pool_norm,
                affine=affine,
                name=f"node{source}",
            )
            for source in sources(self.edges)
        }

    def _preprocessing(self):
        """Stages for each of the inputs."""
        return preprocessing(self.reduction_prev, affine=False)

    def _result(self, states):
        """The result of the cell, of its nodes."""
        return tf.concat(states[self.num_inputs :], -1)

    def build(self, input_shape):
        for operation, shape in zip(self.preprocess, input_shape, strict=False):
            operation.build(shape)
        for mixed_op in self.mixed_ops.values():
            mixed_op.build((*input_shape[0][:-1], mixed_op.channels))
        self.built = True

    def call(self, inputs, weights, passing=None, training=False, draw=None, dropout=None, **options):
        def mixed(source, image, count):
            more = options
            if draw is not None:
                seed = tf.random.experimental.stateless_fold_in(draw, source)
                more = {**options, "noise": seed, "dropout": None if dropout is None else (dropout, seed)}
            return tf.split(self.mixed_ops[source](image, weights[source], training=training, **more), count, -1)

        def edges_from(source, image):
            if source not in self.mixed_ops:
                return []
            fed = [self.edges[row][0] for row in rows_from(source, self.edges)]
            if self.partial_channels == 1:
                return zip(fed, mixed(source, image, len(fed)), strict=True)
            own = self.channels // self.partial_channels
            image, rest = tf.split(image, [own, self.channels - own], -1)
            if edge_stride(source, self.reduction) == 2:
                rest = tf.nn.max_pool2d(rest, 2, 2, "SAME")
            rests = [rest] * len(fed)
            if passing is not None:
                rests = [rest * tf.cast(share, rest.dtype) for share in tf.unstack(passing[source], len(fed))]
            return zip(fed, zip(mixed(source, image, len(fed)), rests, strict=True), strict=True)

        def total(node, images):
            if self.partial_channels == 1:
                return tf.add_n(images)
            sums = [tf.add_n(parts) for parts in zip(*images, strict=True)]
            return kernels.shuffle(tf.concat(sums, -1), self.partial_channels)

        if self.preprocess:
            inputs = [operation(x, training=training) for operation, x in zip(self.preprocess, inputs, strict=True)]
        return self._result(connect(inputs, self.nodes, edges_from, total))

    def get_config(self):
        return {
            **super().get_config(),
            "primitives": self.primitives,
            "channels": self.channels,
            "nodes": self.nodes,
            "reduction": self.reduction,
            "reduction_prev": self.reduction_prev,
            "edges": self.edges,
            "candidates": None if self.candidates is None else self.candidates.tolist(),
            "partial_channels": self.partial_channels,
            "affine": self.affine,
        }
