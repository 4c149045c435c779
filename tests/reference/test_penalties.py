import numpy as np
import pytest
import tensorflow as tf
from original import relative_error

from darts_tf.methods import penalties, schedules

EXACT = 1e-9


@pytest.fixture(scope="module")
def arrays(losses_file):
    return np.load(losses_file)


def value_and_gradients(penalty, alphas):
    tables = {name: tf.constant(alpha, tf.float64) for name, alpha in alphas.items()}
    with tf.GradientTape() as tape:
        tape.watch(tables)
        value = penalty(tables, {name: np.ones(alpha.shape, bool) for name, alpha in alphas.items()})
    return value, tape.gradient(value, tables)


def test_beta_decay(arrays):
    value, gradients = value_and_gradients(penalties.get("beta_decay"), {"normal": arrays["beta/alphas"]})
    assert relative_error(value, arrays["beta/value"]) < EXACT
    assert relative_error(gradients["normal"], arrays["beta/grad"]) < EXACT
    expected, kind = arrays["beta/weight_by_epoch"], penalties.BetaDecay
    weights = [schedules.value(kind.schedule, e, len(expected), 0, kind.weight) for e in range(len(expected))]
    assert relative_error(weights, expected) < EXACT


@pytest.mark.parametrize("name, key", [("zero_one", "l2"), ("zero_one_l1", "l1")])
def test_zero_one(arrays, name, key):
    penalty = penalties.get(name)
    assert penalty.weight == arrays["fair/aux_loss_weight"]
    alphas = {kind: arrays[f"fair/alphas_{kind}"] for kind in ("normal", "reduce")}
    value, gradients = value_and_gradients(penalty, alphas)
    assert relative_error(value, arrays[f"fair/{key}/zero_one"]) < EXACT
    for kind in alphas:
        assert relative_error(penalty.weight * gradients[kind], arrays[f"fair/{key}/dalphas_{kind}"]) < EXACT


def test_anchor(arrays):
    penalty = penalties.get("anchor")
    assert penalty.weight == arrays["drnas/reg_scale"]
    value, gradients = value_and_gradients(
        penalty, {"normal": arrays["drnas/alphas"], "reduce": arrays["drnas/alphas_reduce"]}
    )
    assert relative_error(penalty.weight * value, arrays["drnas/kl"]) < EXACT
    for kind, suffix in (("normal", ""), ("reduce", "_reduce")):
        assert relative_error(penalty.weight * gradients[kind], arrays[f"drnas/kl_dalphas{suffix}"]) < EXACT
