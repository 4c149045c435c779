import keras
import numpy as np
import pytest
import tensorflow as tf

from darts_tf import SearchNetwork
from darts_tf.methods.darts import gradient
from darts_tf.ops.recompute import recomputed


def gradients(network, x, of, draw=None):
    """Of the sum of squared logits, with what moving statistics become, computed in a graph."""

    def loss(weights, alphas, batch):
        variables = [*network.weight_variables, *network.arch_variables]
        with keras.StatelessScope(zip(variables, [*weights, *alphas], strict=True)):
            return tf.reduce_sum(network(batch, training=True, draw=draw) ** 2)

    @tf.function(autograph=False)
    def step():
        network(x, training=True, draw=draw)
        values = [tf.convert_to_tensor(variable) for variable in network.weight_variables]
        alphas = [tf.convert_to_tensor(variable) for variable in network.arch_variables]
        return gradient(loss, values, alphas, x, of=of)

    found = tf.nest.flatten(step())
    return [*found, *map(keras.ops.convert_to_numpy, network.non_trainable_variables)]


@pytest.mark.parametrize("of", ["alphas", "both"])
def test_gradients_and_moving_statistics_are_the_same(of):
    options = {"partial_channels": 2, "edge_normalization": True, "skip_dropout": True, "nodes": 2}
    found = []
    for recompute in (False, True):
        keras.utils.set_random_seed(0)
        primitives = ["skip_connect", "max_pool_3x3", "dil_conv_3x3"]
        network = SearchNetwork(4, 3, 3, primitives=primitives, recompute=recompute, **options)
        network.build((None, 8, 8, 3))
        network.skip_dropout.assign(0.5)
        x = tf.random.stateless_normal([4, 8, 8, 3], [0, 1])
        found.append(gradients(network, x, of, draw=tf.constant([1, 2])))
    assert SearchNetwork.from_config(network.get_config()).recompute
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_only_the_arguments_are_kept():
    layer = keras.layers.Dense(50, activation=lambda x: tf.tanh(tf.exp(tf.sin(x))))
    layer.build((None, 50))
    x, times = tf.ones([2, 50]), []
    layer.call, call = lambda x: times.append(x) or call(x), layer.call
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = recomputed(layer, x)
    assert len(times) == 1
    ours = tape.gradient(y, [x, *layer.trainable_variables])
    assert len(times) == 2
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = call(x)
    for one, other in zip(ours, tape.gradient(y, [x, *layer.trainable_variables]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
