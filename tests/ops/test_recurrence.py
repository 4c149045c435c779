"""The loop over time has the values and the gradients of the plain one."""

import numpy as np
import pytest
import tensorflow as tf

from darts_tf.ops import kernels
from darts_tf.ops.recurrence import recur

STEPS, BATCH, UNITS = 5, 3, 4


def drawn(*shapes):
    draw = np.random.default_rng(0)
    return [tf.constant(draw.normal(size=shape)) for shape in shapes]


INPUTS, STATE, WIDE, NARROW, SCALE, UNUSED = drawn(
    (STEPS, BATCH, UNITS), (BATCH, UNITS), (UNITS, 2 * UNITS), (2 * UNITS, UNITS), (UNITS,), (2,)
)
UPSTREAM = drawn((STEPS, BATCH, UNITS))[0]


def step(x, state, parameters, statistics, product):
    wide = tf.tanh(product(0, state))
    after = state + tf.sigmoid(x) * parameters[0] * product(1, wide)
    return after, statistics and [statistics[0] + tf.reduce_sum(x)]


def plain(inputs, state, matrices, parameters):
    states = []
    for x in tf.unstack(inputs):
        state, _ = step(x, state, parameters, None, lambda place, tensor: tensor @ matrices[place])
        states.append(state)
    return tf.stack(states)


def gradients(states_of, frozen=()):
    """The states and the gradients of inputs, state, both matrices and both parameters, those frozen by place."""
    values = [INPUTS, STATE, WIDE, NARROW, SCALE, UNUSED]

    @tf.function(autograph=False)
    def run():
        with tf.GradientTape() as tape:
            tape.watch(values)
            used = [tf.stop_gradient(value) if place in frozen else value for place, value in enumerate(values)]
            states = states_of(used[0], used[1], used[2:4], used[4:])
            loss = tf.reduce_sum(states * UPSTREAM)
        return states, tape.gradient(loss, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    return run()


@pytest.mark.parametrize("frozen", [(), (2,), (3,), (2, 3), (4,), (0, 1, 2, 3)], ids=str)
@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
def test_values_and_gradients(frozen, twice):
    def ours(*arguments):
        if not twice:
            return recur(step, *arguments)[0]
        with kernels.twice_differentiable():
            return recur(step, *arguments)[0]

    states, found = gradients(ours, frozen)
    expected, exact = gradients(plain, frozen)
    np.testing.assert_allclose(states, expected, rtol=1e-12)
    for place, (one, other) in enumerate(zip(found, exact, strict=True)):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-13)
        assert (np.abs(other).max() > 0) == (place not in frozen and place != 5)


def test_second_derivatives():
    def hessian_vector(states_of):
        with tf.GradientTape() as outer, kernels.twice_differentiable():
            outer.watch(SCALE)
            with tf.GradientTape() as inner:
                inner.watch(WIDE)
                loss = tf.reduce_sum(states_of(INPUTS, STATE, [WIDE, NARROW], [SCALE, UNUSED]) * UPSTREAM)
            gradient = inner.gradient(loss, WIDE)
        return outer.gradient(gradient, SCALE)

    exact = hessian_vector(plain)
    np.testing.assert_allclose(hessian_vector(lambda *of: recur(step, *of)[0]), exact, rtol=1e-10)


def test_statistics_go_from_step_to_step():
    start = tf.constant(2.0, tf.float64)
    states, (total,) = recur(step, INPUTS, STATE, [WIDE, NARROW], [SCALE], [start])
    np.testing.assert_allclose(total, 2 + tf.reduce_sum(INPUTS), rtol=1e-12)
    np.testing.assert_array_equal(states, recur(step, INPUTS, STATE, [WIDE, NARROW], [SCALE])[0])
    with tf.GradientTape() as tape:
        tape.watch(STATE)
        states, (total,) = recur(step, INPUTS, STATE, [WIDE, NARROW], [SCALE], [start])
        loss = tf.reduce_sum(states * UPSTREAM) + total
    exact = gradients(plain)[1][1]
    np.testing.assert_allclose(tape.gradient(loss, STATE), exact, rtol=1e-10)


def test_one_graph_for_all_lengths():
    @tf.function(
        autograph=False,
        input_signature=[tf.TensorSpec([None, BATCH, UNITS], tf.float64), tf.TensorSpec([None, UNITS], tf.float64)],
    )
    def run(inputs, state):
        with tf.GradientTape() as tape:
            tape.watch(WIDE)
            states, _ = recur(step, inputs, state, [WIDE, NARROW], [SCALE])
        return states, tape.gradient(states, WIDE)

    for steps in (1, 2, 5):
        states, gradient = run(INPUTS[:steps], STATE)
        with tf.GradientTape() as tape:
            tape.watch(WIDE)
            expected = plain(INPUTS[:steps], STATE, [WIDE, NARROW], [SCALE])
        np.testing.assert_allclose(states, expected, rtol=1e-12)
        np.testing.assert_allclose(gradient, tape.gradient(expected, WIDE), rtol=1e-10)
    assert run.experimental_get_tracing_count() == 1
