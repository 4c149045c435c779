"""The contract of relaxations, as a check that says what is wrong with one."""

import numpy as np

from darts_tf.methods import relaxations


def check_relaxation(relaxation):
    """Checks a relaxation.

    Args:
        relaxation: name or object, see `darts_tf.methods.relaxations`.

    Raises:
        AssertionError: it does not do what `Relaxation` says; the message is one line.
    """
    import tensorflow as tf

    relaxation = relaxations.get(relaxation)
    name = relaxation.name
    assert name in relaxations.names(), f"{type(relaxation).__name__} has no name: decorate it by register_relaxation."
    assert type(relaxations.get(name)) is type(relaxation), f"{name}: the registered relaxation is another."
    random = np.random.default_rng(0)
    for dtype, rows, candidates in ((tf.float32, 1, 1), (tf.float32, 4, 3), (tf.float64, 5, 8)):
        alpha = tf.constant(random.normal(size=(rows, candidates)), dtype)
        with tf.GradientTape() as tape:
            tape.watch(alpha)
            weights = relaxation(alpha)
            some = tf.reduce_sum(weights * tf.constant(random.normal(size=(rows, candidates)), dtype))
        there = f"{weights.dtype.name}{list(weights.shape)}"
        expected = f"{dtype.name}{[rows, candidates]}"
        assert there == expected, f"{name}: alphas {expected} become {there}, expected the same."
        assert np.isfinite(weights).all() and (weights.numpy() >= 0).all(), (
            f"{name}: a weight is negative or no number."
        )
        gradient = tape.gradient(some, alpha)
        if relaxation.learns:
            assert gradient is not None, f"{name}: its weights cannot be differentiated with respect to alpha."
            assert np.isfinite(gradient).all(), f"{name}: a gradient is no number."
        if relaxation.learns and candidates > 1:
            assert np.abs(gradient).max() > 0, f"{name}: its weights do not depend on alpha."
        traced = tf.function(relaxation, autograph=False)(alpha)
        np.testing.assert_allclose(traced, weights, 1e-5, 1e-7, err_msg=f"{name} differs within a tf.function.")
        order = random.permutation(rows)
        message = f"{name}: the weights of a row depend on other rows."
        np.testing.assert_allclose(
            relaxation(tf.gather(alpha, order)), tf.gather(weights, order), 1e-5, err_msg=message
        )
        strengths = relaxation.strengths(alpha.numpy())
        assert isinstance(strengths, np.ndarray) and strengths.dtype == np.float64, f"{name}: strengths are no float64."
        assert strengths.shape == (rows, candidates), f"{name}: strengths are {strengths.shape}, alphas {alpha.shape}."
        history = relaxation.strengths(np.stack([alpha.numpy(), 2 * alpha.numpy()]))
        message = f"{name}: strengths of several alphas differ from those of one."
        np.testing.assert_allclose(history[0], strengths, 1e-12, err_msg=message)
        raised = alpha.numpy().copy()
        raised[0, 0] += 1
        assert relaxation.strengths(raised)[0, 0] >= strengths[0, 0], f"{name}: a larger alpha is weaker."
        if isinstance(relaxation, relaxations.Sampled):
            _check_noise(relaxation, alpha)
        never = relaxation(tf.concat([alpha, tf.fill([rows, 1], tf.constant(relaxations.NEVER, dtype))], 1))
        assert (never[:, -1].numpy() == 0).all(), f"{name}: a candidate that a row lacks has a weight."
    huge = relaxation(tf.constant([[1e4, -1e4, 0.0]]))
    assert np.isfinite(huge).all(), f"{name}: large alphas give weights that are no numbers."


def _check_noise(relaxation, alpha):
    import tensorflow as tf

    name, seeds = relaxation.name, [tf.constant([0, place]) for place in range(2)]
    noise, again, other = (relaxation.noise(alpha, seed) for seed in (seeds[0], seeds[0], seeds[1]))
    assert noise.shape[:2] == alpha.shape and noise.dtype == alpha.dtype, f"{name}: noise is not like alpha."
    assert np.array_equal(noise, again), f"{name}: the same seed gives other noise."
    assert not np.array_equal(noise, other), f"{name}: another seed gives the same noise."
    with tf.GradientTape() as tape:
        tape.watch(alpha)
        weights = relaxation(alpha, noise, tf.constant(0.5))
        some = tf.reduce_sum(weights * tf.random.stateless_uniform(alpha.shape, seeds[0], dtype=alpha.dtype))
    gradient = tape.gradient(some, alpha) if relaxation.learns else np.zeros(0)
    for what, values in (("weight", weights), ("gradient", gradient)):
        assert np.isfinite(values).all(), f"{name}: with noise a {what} is no number."
    assert (weights.numpy() >= 0).all(), f"{name}: with noise a weight is negative."
