import keras
import numpy as np
import pytest
import tensorflow as tf

from darts_tf.methods.curvature import Curvature, largest_eigenvalue
from darts_tf.methods.darts import DARTS
from darts_tf.methods.optimizers import SGD, Adam
from darts_tf.spaces.cells.networks import SearchNetwork


@pytest.mark.parametrize("size", [1, 2, 30])
def test_largest_eigenvalue_is_not_that_of_the_largest_magnitude(size):
    random = np.random.default_rng(size)
    for shift in (0, -10):
        matrix = random.normal(size=(size, size))
        matrix = matrix + matrix.T + shift * np.eye(size)
        found = largest_eigenvalue(lambda vector, matrix=matrix: matrix @ vector, size, 1e-12)
        assert found == pytest.approx(np.linalg.eigvalsh(matrix)[-1], 1e-9)
    assert largest_eigenvalue(lambda vector: 3 * vector, size, 1e-12) == pytest.approx(3)
    assert largest_eigenvalue(lambda vector: 0 * vector, size, 1e-12) == 0
    assert np.isnan(largest_eigenvalue(lambda vector: np.nan * vector, size, 1e-12))


class Choice(keras.Model):
    """Two numbers of alpha that scale what a layer gives."""

    def __init__(self):
        super().__init__()
        self.layer = keras.layers.Dense(2, "tanh")
        self.alpha = self.add_weight(shape=(2,), initializer="ones", name="alpha")

    def call(self, x):
        return self.layer(x) * keras.ops.softmax(self.alpha)

    weight_variables = property(lambda self: self.layer.trainable_variables)
    arch_variables = property(lambda self: [self.alpha])


def test_of_a_network_of_ones_own():
    network = Choice()
    search = DARTS(network)
    search.compile(SGD(), "mse", arch_optimizer=Adam(l2=0.25))
    x, y = np.random.default_rng(0).normal(size=(2, 5, 2)).astype(np.float32)
    search.create_variables(x, y)
    curvature = Curvature(search)

    def hessian():
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                loss = tf.reduce_mean((network(x) - y) ** 2)
            first = inner.gradient(loss, network.alpha.value)
        return outer.jacobian(first, network.alpha.value).numpy() + 0.25 * np.eye(2)

    for alpha in ([1.0, 1.0], [0.5, -0.5]):
        network.alpha.assign(alpha)
        assert curvature(x, y) == pytest.approx(np.linalg.eigvalsh(hessian())[-1], 1e-4)


def test_hard_draws_have_none():
    search = DARTS(SearchNetwork(2, 3, 3, 1, relaxation="gumbel_hard"))
    with pytest.raises(ValueError, match="curvature with relaxation=gumbel_hard"):
        Curvature(search)


@pytest.mark.slow
def test_in_both_precisions():
    """Float32 has fused batch norms and gradients of its own, float64 has not; and what is set for it is put back."""
    random, found, values = np.random.default_rng(0), [], {}
    x, y = random.normal(size=(8, 8, 8, 1)), np.arange(8) % 3
    for dtype in ("float64", "float32"):
        before = keras.config.floatx()
        keras.config.set_floatx(dtype)
        keras.config.set_dtype_policy(dtype)
        try:
            network = SearchNetwork(4, 3, 3, 1, partial_channels=2)
            search = DARTS(network)
            search.compile(SGD(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
            batch = tf.constant(x, dtype), tf.constant(y)
            search.create_variables(*batch)
            for place, variable in enumerate([*network.weight_variables, *network.arch_variables]):
                values.setdefault(place, random.normal(size=variable.shape).astype(np.float32))
                variable.assign(values[place])
            network.inline = True
            moving = [variable.numpy() for variable in network.non_trainable_variables]
            curvature = Curvature(search)
            found.append(curvature(*batch))
            assert curvature(*batch) == found[-1] and network.inline
            for variable, value in zip(network.non_trainable_variables, moving, strict=True):
                assert np.array_equal(variable, value)
        finally:
            keras.config.set_floatx(before)
            keras.config.set_dtype_policy(before)
    assert found[0] == pytest.approx(found[1], 1e-4)
