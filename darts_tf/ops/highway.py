"""What an edge of a recurrent cell makes of a node: a highway whose candidate is a mixture of activations.

One fused kernel computes it, and one its gradient: TensorFlow would run some twenty operations over as many arrays.
"""

import functools

import keras
import tensorflow as tf

from darts_tf.ops import kernels


def activation(name):
    """The function of an activation's name, "tanh" or any other that Keras knows.

    Raises:
        ValueError: there is none, or its result has another shape.
    """
    return _FUNCTIONS.get(name) or _of_keras(name)


@functools.cache
def _of_keras(name):
    try:
        function = keras.activations.get(name)
        with tf.init_scope():
            keeps_shape = function(tf.zeros([1, 2])).shape == (1, 2)
    except (AttributeError, TypeError, ValueError):  # a layer's name for example
        keeps_shape = False
    if not keeps_shape:
        raise ValueError(f"{name}: no such activation; expected {', '.join(_FUNCTIONS)}, or another of Keras.")
    return function


_FUNCTIONS = {"tanh": tf.tanh, "relu": tf.nn.relu, "sigmoid": tf.sigmoid, "identity": tf.identity}


def gated(node, gate, value):
    """A highway: node + sigmoid(gate) * (value - node), all of shapes that go together."""
    return node + tf.sigmoid(gate) * (value - node)


def mixture(node, products, counts, functions):
    """For each edge the sum over its activations f of count * (node + gate * (f(candidate) - node)) (equation 2).

    Args:
        node: (batch, units).
        products: (batch, 2, edges, units), of the node: gates before their sigmoid, then candidates.
        counts: (edges, activations), what each activation counts. If it is a `tf.stop_gradient` it has no gradient.
        functions: as many functions of tensors.

    Returns:
        (edges, batch, units).
    """
    if kernels.is_twice_differentiable():
        return _mixture(node, products, counts, functions)
    wanted = not kernels.is_frozen(counts)
    forward, backward = _forward(tuple(functions)), _backward(tuple(functions), wanted)

    @tf.custom_gradient
    def run(node, products, counts):
        def gradient(upstream):
            found = backward(node, products, counts, upstream)
            return found if wanted else (*found, None)

        return forward(node, products, counts), gradient

    return run(node, products, counts)


def _mixture(node, products, counts, functions):
    gate, candidate = products[:, 0], products[:, 1]
    values = sum(counts[:, place, None] * function(candidate) for place, function in enumerate(functions))
    carried = tf.reduce_sum(counts, 1)[:, None] * node[:, None]
    return tf.transpose(gated(carried, gate, values), [1, 0, 2])


@functools.cache
def _forward(functions):
    return tf.function(functools.partial(_mixture, functions=functions), jit_compile=True, autograph=False)


@functools.cache
def _backward(functions, with_counts):
    def backward(node, products, counts, upstream):
        of = [node, products, *([counts] if with_counts else [])]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(of)
            result = _mixture(node, products, counts, functions)
        return tuple(tape.gradient(result, of, output_gradients=upstream))

    return tf.function(backward, jit_compile=True, autograph=False)
