import numpy as np
import pytest
import tensorflow as tf

from darts_tf.methods import penalties


@pytest.mark.parametrize("name", penalties.names())
def test_candidates_that_a_row_lacks_do_not_count(name):
    """A penalty of tables with holes is that of tables without the columns; the gradient of the holes is zero."""
    random = np.random.default_rng(0)
    alphas = {"normal": random.normal(size=(3, 4)), "reduce": random.normal(size=(2, 4))}
    candidates = {table: np.broadcast_to([True, False, True, True], alpha.shape) for table, alpha in alphas.items()}
    penalty = penalties.get(name)

    def value_and_gradients(alphas, candidates):
        alphas = {table: tf.constant(alpha) for table, alpha in alphas.items()}
        with tf.GradientTape() as tape:
            tape.watch(alphas)
            value = penalty(alphas, candidates)
        return value, tape.gradient(value, alphas)

    value, gradients = value_and_gradients(alphas, candidates)
    compact = {table: alpha[:, [0, 2, 3]] for table, alpha in alphas.items()}
    expected, others = value_and_gradients(compact, {table: np.ones(a.shape, bool) for table, a in compact.items()})
    np.testing.assert_allclose(value, expected, 1e-12)
    for table in alphas:
        np.testing.assert_allclose(gradients[table].numpy()[:, [0, 2, 3]], others[table], 1e-9, 1e-15)
        assert np.abs(others[table]).max() > 0 and not gradients[table].numpy()[:, 1].any()


def test_anchor_is_zero_where_the_distribution_is_uniform():
    uniform = {"cell": tf.zeros([3, 4], tf.float64)}
    assert abs(penalties.get("anchor")(uniform, {"cell": np.ones((3, 4), bool)})) < 1e-14
