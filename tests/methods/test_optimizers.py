"""Keras's arguments do in our optimizers what they do in Keras's."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from darts_tf.methods import optimizers

GRADIENTS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
BOTH = [
    {"weight_decay": 0.1},
    {"clipnorm": 0.5},
    {"clipvalue": 0.3},
    {"global_clipnorm": 0.5},
    {"use_ema": True, "ema_momentum": 0.5},
    {"use_ema": True, "ema_overwrite_frequency": 2},
    {"loss_scale_factor": 4.0},
    {"gradient_accumulation_steps": 2},
    {"gradient_accumulation_steps": 2, "weight_decay": 0.1, "use_ema": True, "ema_overwrite_frequency": 2},
]


def trained(optimizer):
    variable = keras.Variable(np.array([1.0, 2.0, -3.0], np.float32))
    optimizer.build([variable])
    for gradient in GRADIENTS:
        optimizer.apply([tf.constant(gradient)], [variable])
    optimizer.finalize_variable_values([variable])
    return keras.ops.convert_to_numpy(variable)


@pytest.mark.parametrize(
    "kind, options",
    [
        *[(kind, options) for kind in ("SGD", "Adam") for options in BOTH],
        ("SGD", {"nesterov": True}),
        ("Adam", {"amsgrad": True}),
    ],
    ids=str,
)
def test_as_in_keras(kind, options):
    same = {"momentum": 0.9} if kind == "SGD" else {"beta_1": 0.5, "beta_2": 0.8, "epsilon": 1e-8}
    ours = getattr(optimizers, kind)(0.1, l2=0.0, **same, **options)
    theirs = getattr(keras.optimizers, kind)(0.1, **same, **options)
    again = type(ours).from_config(ours.get_config())
    expected = trained(theirs)
    np.testing.assert_allclose(trained(ours), expected, atol=1e-5)
    np.testing.assert_allclose(trained(again), expected, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{}, {"nesterov": True}, {"weight_decay": 0.1}, {"nesterov": True, "momentum": 0.0}]
)
def test_the_virtual_step_is_the_next(options):
    optimizer, variable = optimizers.SGD(0.1, **options), keras.Variable(np.array([1.0, -2.0, 3.0], np.float32))
    optimizer.build([variable])
    for gradient in map(tf.constant, GRADIENTS[:2]):
        ahead = optimizer.virtual_step([gradient], [variable], [tf.convert_to_tensor(variable)])[0]
        optimizer.apply([gradient], [variable])
        np.testing.assert_allclose(ahead, variable, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"nesterov": True}, {"nesterov": True, "momentum": 0.0}, {"momentum": 0.0}])
def test_how_far_the_virtual_step_goes(options):
    """By a gradient, which is what equation 7 multiplies the second order with."""
    optimizer, variable = optimizers.SGD(0.1, **options), keras.Variable(np.zeros(3, np.float32))
    optimizer.build([variable])
    gradient = tf.constant(GRADIENTS[0])
    (ahead,) = optimizer.virtual_step([gradient], [variable], [tf.zeros(3)])
    np.testing.assert_allclose(ahead, -float(optimizer.virtual_rate) * gradient, rtol=1e-6)


@pytest.mark.parametrize(
    "kind, options, message",
    [
        ("SGD", {"loss_scale_factor": 2.0, "loss_scale": True}, "loss_scale_factor=2.0 with loss_scale=True: expected"),
        ("SGD", {"l2": -1.0}, "l2=-1.0: expected a number, 0 or more"),
        ("Adam", {"l2": float("nan")}, "l2=nan: expected a number, 0 or more"),
    ],
)
def test_what_is_refused(kind, options, message):
    with pytest.raises(ValueError, match=message):
        getattr(optimizers, kind)(**options)


@pytest.mark.parametrize("kind, options", [("SGD", {"nesterov": True}), ("Adam", {"amsgrad": True})])
def test_a_step_that_is_left_out_changes_nothing(kind, options):
    """Of a loss scale that is too large, or of batches before the last one; decay and moments included."""
    options = options | {"weight_decay": 0.1, "loss_scale": True}
    every = getattr(optimizers, kind)(0.1, l2=0.01, global_clipnorm=2.0, **options)
    second = getattr(optimizers, kind)(0.1, l2=0.01, global_clipnorm=2.0, gradient_accumulation_steps=2, **options)
    variables = [keras.Variable(np.array([1.0, -2.0, 3.0], np.float32)) for _ in range(2)]
    for optimizer, variable in zip((every, second), variables, strict=True):
        optimizer.build([variable])

    def kept():
        others = "iteration", "scale", "good_steps", "gradient_accumulator"  # and what the step is of
        own = [v for v in second.variables if not v.path.endswith(others)]
        return [keras.ops.convert_to_numpy(v) for v in (variables[1], *own)]

    scale = 2.0**15
    for first, other in (GRADIENTS[:2], GRADIENTS[2:], [GRADIENTS[0], np.full(3, np.inf)], GRADIENTS[1:3]):
        before = kept()
        second.apply([tf.constant(scale * first)], [variables[1]])
        np.testing.assert_equal(kept(), before)
        second.apply([tf.constant(np.float32(scale * other))], [variables[1]])
        every.apply([tf.constant(np.float32(scale * (first + other) / 2))], [variables[0]])
        np.testing.assert_allclose(*variables, rtol=1e-5)
        left_out = np.isinf(other).any()
        assert left_out == second.skipped and left_out == all(map(np.array_equal, kept(), before))
        scale = float(second.scale_loss(1.0))
    assert int(second.iterations) == int(every.iterations) == 4 and scale == 2.0**14


def test_moving_averages_forget_the_beginning_and_are_of_steps():
    variable, statistic = (keras.Variable(np.array(values, np.float32)) for values in ([1.0, -2.0, 3.0], [4.0]))
    optimizer = optimizers.SGD(0.1, 0.0, l2=0.0, gradient_accumulation_steps=2)
    optimizer.build([variable])
    count = len(optimizer.variables)
    optimizer.keep_averages([variable], [statistic], 0.25)
    assert len(optimizer.variables) == count + 2  # which are what checkpoints keep
    expected = np.array([1.0, -2.0, 3.0, 4.0])
    for number, gradient in enumerate(GRADIENTS, 1):
        statistic.assign_add([1.0])
        optimizer.apply([tf.constant(gradient)], [variable])
        if number % 2 == 0:
            part = 1 - min(0.25, (1 + number // 2) / (10 + number // 2))
            expected += part * (np.concatenate([variable, statistic]) - expected)
    own = np.concatenate([variable, statistic])
    optimizer.swap_averages()
    np.testing.assert_allclose(np.concatenate([variable, statistic]), expected, rtol=1e-5)
    optimizer.swap_averages()
    np.testing.assert_array_equal(np.concatenate([variable, statistic]), own)


def test_averaged_sgd_averages_from_where_it_is_told_to():
    optimizer, variable = (
        optimizers.AveragedSGD(0.1, 0.9, l2=0.01),
        keras.Variable(np.array([1.0, -2.0, 3.0], np.float32)),
    )
    optimizer.build([variable])
    weight, buffer, seen = np.array([1.0, -2.0, 3.0]), 0, []
    for place, gradient in enumerate(GRADIENTS):
        if place == 2:
            assert not optimizer.is_averaging
            optimizer.start_averaging()
        assert optimizer.is_averaging == (place > 2)
        optimizer.apply([tf.constant(gradient)], [variable])
        buffer = 0.9 * buffer + gradient + 0.01 * weight
        weight = weight - 0.1 * buffer
        seen += [weight] if place >= 2 else []
    np.testing.assert_allclose(variable, weight, rtol=1e-5)
    np.testing.assert_allclose(optimizer.averages[0], np.mean(seen, 0), rtol=1e-5)
    optimizer.swap([variable])
    np.testing.assert_allclose(variable, np.mean(seen, 0), rtol=1e-5)
    optimizer.swap([variable])
    np.testing.assert_allclose(variable, weight, rtol=1e-5)
    optimizer.start_averaging()  # anew
    optimizer.apply([tf.constant(GRADIENTS[0])], [variable])
    np.testing.assert_array_equal(optimizer.averages[0], variable)
