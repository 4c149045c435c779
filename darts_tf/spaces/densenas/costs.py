"""What a network of densely connected blocks costs before its path is decided (section 3.3 of DenseNAS)."""

import math

import tensorflow as tf


def expected(graph, cost, mixture):
    """The chained estimate: from the last block to the first, what is to come after each (equations 7 and 8).

    Args:
        graph: `graph.Graph`.
        cost: (constant, {table: array}), with `routing` (blocks - 1, most targets): what the way from a block to the
            target at a place costs beside the target's head and layers, such as the 1x1 convolution of the last
            block; `heads` (heads, operations), and `stack` (layers, operations).
        mixture: {table: tensor}, of the same shapes: probabilities of the targets of each block, weights of the
            operations.

    Returns:
        Scalar tensor, that can be differentiated with respect to the mixture.
    """
    constant, tables = cost
    dtype = mixture["routing"].dtype
    weighted = {name: tf.constant(table, dtype) * mixture[name] for name, table in tables.items()}
    ways, heads, layers = (tf.reduce_sum(weighted[name], -1) for name in ("routing", "heads", "stack"))
    edges, nothing = {edge: row for row, edge in enumerate(graph.heads_of)}, tf.zeros([], dtype)
    after = {graph.blocks - 1: nothing}
    for block in reversed(range(graph.blocks - 1)):
        costs = []
        for target in graph.targets(block):
            head = heads[edges[block, target]] if (block, target) in edges else nothing
            own = [row for row, (of, _) in enumerate(graph.layers_of) if of == target]
            costs.append(head + sum(layers[row] for row in own) + after[target])
        shares = mixture["routing"][block, : len(costs)]
        after[block] = ways[block] + tf.reduce_sum(shares * tf.stack(costs))
    return tf.constant(constant, dtype) + after[0]


def penalty(cost, base=15.0, factor=0.15):
    """What is added to the loss for a cost: factor * log(cost) / log(base) (equation 9)."""
    return factor * tf.math.log(cost) / math.log(base)
