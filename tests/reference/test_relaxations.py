import numpy as np
import tensorflow as tf
from original import relative_error

from darts_tf.methods import relaxations

EXACT = 1e-9


def weights_and_gradient(relaxation, alphas, upstream, **options):
    alphas = tf.constant(alphas, tf.float64)
    options = {name: tf.constant(value, tf.float64) for name, value in options.items()}
    with tf.GradientTape() as tape:
        tape.watch(alphas)
        weights = relaxation(alphas, **options)
        total = tf.reduce_sum(weights * tf.constant(upstream, tf.float64))
    return weights, tape.gradient(total, alphas)


def test_gdas(gdas_file):
    arrays = np.load(gdas_file)
    noise = -np.log(arrays["mixture/exponential"].astype(np.float64))
    for place, temperature in enumerate(arrays["taus"]):
        stored = {name: arrays[f"mixture/{place}/{name}"] for name in ("index", "hardwts", "dalphas")}
        for name in ("gumbel_hard", "gumbel_hard_v1"):
            weights, gradient = weights_and_gradient(
                relaxations.get(name),
                arrays["mixture/alphas"],
                arrays["mixture/dhardwts"],
                noise=noise,
                temperature=temperature,
            )
            assert np.array_equal(np.argmax(weights, -1), stored["index"])
            assert relative_error(weights, stored["hardwts"]) < EXACT
            assert relative_error(gradient, stored["dalphas"]) < EXACT


def test_snas(losses_file):
    arrays = np.load(losses_file)
    noise = -np.log(-np.log(arrays["snas/uniform"].astype(np.float64)))
    for place, temperature in enumerate(arrays["snas/temps"]):
        weights, gradient = weights_and_gradient(
            relaxations.get("gumbel_soft"),
            arrays["snas/log_alpha"],
            arrays["snas/dweights"],
            noise=noise,
            temperature=temperature,
        )
        assert relative_error(weights, arrays[f"snas/{place}/weights"]) < EXACT
        assert relative_error(gradient, arrays[f"snas/{place}/dlog_alpha"]) < EXACT


def test_drnas(losses_file):
    arrays, relaxation = np.load(losses_file), relaxations.get("dirichlet")
    alphas = arrays["drnas/alphas"]
    concentration = relaxation.concentration(tf.constant(alphas, tf.float64))
    assert relative_error(concentration, arrays["drnas/concentration"]) < EXACT
    gamma = arrays["drnas/gamma"]
    weights, gradient = weights_and_gradient(relaxation, alphas, arrays["drnas/dweights"], noise=gamma)
    assert relative_error(weights, arrays["drnas/weights"]) < EXACT
    assert relative_error(gradient, arrays["drnas/gamma_path/dalphas"]) < EXACT


def test_dirichlet_of_the_candidates_that_are_left(losses_file):
    arrays, relaxation = np.load(losses_file), relaxations.get("dirichlet")
    weights = arrays["drnas/weights"]
    mask = arrays["drnas/prune/1/mask"]
    alphas = tf.constant(np.where(mask, arrays["drnas/prune/1/alphas"], relaxations.NEVER))
    ours = relaxation(alphas, noise=tf.constant(arrays["drnas/gamma"], tf.float64))
    kept = np.where(mask, weights, 0) / np.where(mask, weights, 0).sum(-1, keepdims=True)
    assert relative_error(arrays["drnas/prune/1/dirichlet"], kept) < EXACT  # what theirs is
    assert relative_error(ours, kept) < EXACT
