"""Highways of mixed activations have the values and the gradients of their formula."""

import numpy as np
import pytest
import tensorflow as tf

from darts_tf.ops import highway, kernels

NAMES = ("tanh", "relu", "sigmoid", "identity", "gelu")
EDGES, BATCH, UNITS = 3, 4, 5
DRAW = np.random.default_rng(0)
NODE, PRODUCTS, COUNTS, UPSTREAM = (
    tf.constant(DRAW.normal(size=shape))
    for shape in ((BATCH, UNITS), (BATCH, 2, EDGES, UNITS), (EDGES, len(NAMES)), (EDGES, BATCH, UNITS))
)


def formula(node, products, counts, functions):
    results = []
    for edge in range(counts.shape[0]):
        gate, candidate = tf.sigmoid(products[:, 0, edge]), products[:, 1, edge]
        parts = [
            count * (node + gate * (function(candidate) - node))
            for count, function in zip(tf.unstack(counts[edge]), functions, strict=True)
        ]
        results.append(tf.add_n(parts))
    return tf.stack(results)


def differentiated(mixture, frozen, names=NAMES):
    functions = [highway.activation(name) for name in names]

    @tf.function(autograph=False)
    def run(node, products, counts, upstream):
        with tf.GradientTape() as tape:
            tape.watch([node, products, counts])
            counted = tf.stop_gradient(counts) if frozen else counts
            result = mixture(node, products, counted, functions)
        zero = tf.UnconnectedGradients.ZERO
        return result, *tape.gradient(result, [node, products, counts], upstream, unconnected_gradients=zero)

    return run(NODE, PRODUCTS, COUNTS[:, : len(names)], UPSTREAM)


@pytest.mark.parametrize("names", [NAMES, ("relu",), ("gelu", "softplus")], ids=str)
@pytest.mark.parametrize("frozen", [False, True], ids=["counts", "frozen"])
def test_values_and_gradients(frozen, names):
    for ours, exact in zip(
        differentiated(highway.mixture, frozen, names), differentiated(formula, frozen, names), strict=True
    ):
        np.testing.assert_allclose(ours, exact, rtol=1e-10, atol=1e-13)


def test_second_derivatives():
    def hessian_vector(mixture):
        functions = [highway.activation(name) for name in NAMES]
        with tf.GradientTape() as outer, kernels.twice_differentiable():
            outer.watch(COUNTS)
            with tf.GradientTape() as inner:
                inner.watch(PRODUCTS)
                result = mixture(NODE, PRODUCTS, COUNTS, functions)
            gradient = inner.gradient(result, PRODUCTS, UPSTREAM**2)
        return outer.gradient(gradient, COUNTS)

    np.testing.assert_allclose(hessian_vector(highway.mixture), hessian_vector(formula), rtol=1e-10)


def test_no_such_activation():
    with pytest.raises(ValueError, match="swoosh"):
        highway.activation("swoosh")
