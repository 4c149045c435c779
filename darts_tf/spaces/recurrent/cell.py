"""The recurrent cell: a graph of nodes within each step of time (section 2.1.1 of the paper).

What the supernet and the network of a genotype have in common is here; they differ in the edges, and in what an edge
makes of the product of its node.
"""

from typing import NamedTuple

import tensorflow as tf

from darts_tf.ops import highway, kernels
from darts_tf.ops.recurrence import recur


class Dropout(NamedTuple):
    """Rates of variational dropout, which drops the same units in all steps of a segment (Gal & Ghahramani, 2016).

    Attributes:
        output: of the states that are decoded.
        hidden: of what enters the products of the nodes.
        inputs: of what the input's product gets.
        embedded: of embeddings.
        words: of whole words, wherever they are in a batch.
    """

    output: float = 0.75
    hidden: float = 0.25
    inputs: float = 0.75
    embedded: float = 0.2
    words: float = 0.0


class Weights(NamedTuple):
    """Tensors of a network with V tokens and U units.

    Attributes:
        embedding: (V, U), which decodes, too.
        first: (2 U, 2 U), of the input and the hidden state: a gate, then a candidate.
        nodes: list of (U, 2 U), the same of each node.
        bias: (V,), of the decoder.
    """

    embedding: tf.Tensor
    first: tf.Tensor
    nodes: list
    bias: tf.Tensor


class States(NamedTuple):
    """What a pass over a segment gives.

    Attributes:
        logits: (batch, steps, V).
        hidden: (steps, batch, U), the states after each step.
        dropped: the same with the output's dropout.
        statistics: what `normalize` has made of them.
    """

    logits: tf.Tensor
    hidden: tf.Tensor
    dropped: tf.Tensor
    statistics: list


def readers(edges, nodes):
    """For node 0, 1, ... the list of nodes that read it; edges are (node, source) pairs."""
    return [[node for node, source in edges if source == place] for place in range(nodes + 1)]


def run(tokens, state, weights, readers, concat, edges, normalize=None, parameters=(), statistics=(), drop=None):
    """Runs the network over a segment of text.

    Args:
        tokens: int (batch, steps).
        state: (batch, U), before it.
        weights: `Weights`.
        readers: of the edges, see above.
        concat: nodes whose mean is the next state.
        edges: function of a node's place, the node (batch, U), its products (batch, 2, readers, U), gates and
            candidates, and of `parameters` -> what its edges give, (readers, batch, U).
        normalize: function of a node (batch, U) and the statistics -> the node normalised and the next statistics.
        parameters: list of tensors for `edges`, with gradients.
        statistics: list of tensors for `normalize`, without.
        drop: function of a rate's name in `Dropout` and a shape -> what is multiplied by; None without dropout.

    Returns:
        `States`.
    """
    batch, units = tf.shape(tokens)[0], weights.embedding.shape[1]
    dtype = weights.embedding.dtype

    def dropped(name, tensor, shape):
        mask = drop and drop(name, shape)
        return tensor if mask is None else tensor * tf.cast(mask, dtype)

    x = tf.gather(weights.embedding, tf.transpose(tokens))  # (steps, batch, U)
    if drop:
        words = drop("words", [weights.embedding.shape[0], 1])
        x = x if words is None else x * tf.cast(tf.gather(words, tf.transpose(tokens)), dtype)
    x = dropped("embedded", x, [batch, units])
    x = dropped("inputs", x, [batch, units])
    # The input's part of the first product, of all steps at once.
    x = tf.reshape(tf.matmul(tf.reshape(x, [-1, units]), weights.first[:units]), [-1, batch, 2 * units])
    x.set_shape([tokens.shape[1], tokens.shape[0], 2 * units])
    mask = drop and drop("hidden", [batch, units])
    mask = None if mask is None else tf.cast(mask, dtype)

    sources = [place for place, own in enumerate(readers) if own]
    matrices = [weights.first[units:], *(_beside([weights.nodes[node - 1] for node in readers[p]]) for p in sources)]
    if all(map(kernels.is_frozen, weights.nodes)):
        matrices = [tf.stop_gradient(matrix) for matrix in matrices]

    def step(x, hidden, parameters, statistics, product):
        def masked(tensor):
            return tensor if mask is None else tensor * mask

        gate, candidate = tf.split(x + product(0, masked(hidden)), 2, -1)
        incoming, nodes = {node: [] for node in range(len(readers))}, []
        incoming[0] = [highway.gated(hidden, gate, tf.tanh(candidate))]
        for place, own in enumerate(readers):
            node = incoming[place][0] if len(incoming[place]) == 1 else tf.add_n(incoming[place])
            if normalize:
                node, statistics = normalize(node, statistics)
            nodes.append(node)
            if not own:
                continue
            both = tf.reshape(product(1 + sources.index(place), masked(node)), [-1, 2, len(own), units])
            results = edges(place, node, both, parameters)
            for reader, result in zip(own, tf.unstack(results, len(own)), strict=True):
                incoming[reader].append(result)
        return tf.add_n([nodes[place] for place in concat]) / len(concat), statistics

    hidden, statistics = recur(step, x, state, matrices, parameters, statistics)
    output = dropped("output", hidden, [batch, units])
    rows = tf.reshape(tf.transpose(output, [1, 0, 2]), [-1, units])
    logits = tf.matmul(rows, weights.embedding, transpose_b=True) + weights.bias
    shape = [batch, tf.shape(tokens)[1], weights.embedding.shape[0]]
    return States(tf.reshape(logits, shape), hidden, output, statistics)


def _beside(matrices):
    """Matrices of a gate and a candidate (U, 2 U) as one: all gates, then all candidates."""
    if len(matrices) == 1:
        return matrices[0]
    halves = [tf.split(matrix, 2, 1) for matrix in matrices]
    return tf.concat([*(gate for gate, _ in halves), *(candidate for _, candidate in halves)], 1)
