import numpy as np
import tensorflow as tf
from original import relative_error

from darts_tf.costs import forms
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


def test_fbnet(losses_file):
    arrays = np.load(losses_file)
    noise = -np.log(arrays["fbnet/exponential"].astype(np.float64))
    thetas, logits = (tf.constant(arrays[f"fbnet/{name}"], tf.float64) for name in ("thetas", "logits"))
    with tf.GradientTape() as tape:
        tape.watch([thetas, logits])
        masks = relaxations.get("gumbel_soft")(thetas, noise, tf.constant(arrays["fbnet/temperature"]))
        cost = tf.reduce_sum(masks * arrays["fbnet/latency_table"].astype(np.float64))
        cross_entropy = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(arrays["fbnet/y"], logits))
        weight, exponent = arrays["fbnet/alpha_beta"]
        loss = forms.get("fbnet", weight=weight)
        assert exponent == loss.exponent
        value = loss(cross_entropy, cost)
    assert relative_error(masks, arrays["fbnet/masks"]) < EXACT
    assert relative_error(cost, arrays["fbnet/latency"]) < EXACT
    assert relative_error(value, arrays["fbnet/paper/value"]) < EXACT
    for gradient, name in zip(tape.gradient(value, [thetas, logits]), ("dthetas", "dlogits"), strict=True):
        assert relative_error(gradient, arrays[f"fbnet/paper/{name}"]) < EXACT


def test_costs_in_the_loss_of_proxyless(losses_file):
    arrays = np.load(losses_file)
    alpha, exponent, factor = arrays["latency_loss/alpha_beta_lambda"]
    reference = float(arrays["latency_loss/reference"])
    cross_entropy, latency = (
        tf.constant(arrays[f"latency_loss/{name}"], tf.float64) for name in ("cross_entropy", "latency")
    )
    for name, weight in (("mul_log", alpha), ("add_linear", factor)):
        loss = forms.get(name, weight=weight, reference=reference)
        assert getattr(loss, "exponent", exponent) == exponent
        with tf.GradientTape() as tape:
            tape.watch([cross_entropy, latency])
            value = loss(cross_entropy, latency)
        found = dict(zip(("dcross_entropy", "dlatency"), tape.gradient(value, [cross_entropy, latency]), strict=True))
        for key, one in (found | {"value": value}).items():
            assert relative_error(one, arrays[f"latency_loss/{name}/{key}"]) < EXACT


def test_proxyless(losses_file):
    arrays = np.load(losses_file)
    alphas, gates = arrays["proxyless/alphas"].astype(np.float64)[None], relaxations.get("binary_gates")
    assert relative_error(gates.strengths(alphas)[0], arrays["proxyless/probs"]) < EXACT
    for case, paths in (("full", alphas.size), ("two", 2)):
        active, inactive = (arrays[f"proxyless/{case}/{name}"] for name in ("active", "inactive"))
        noise = np.zeros((*alphas.shape, 2))
        noise[0, [*active, *inactive], 0], noise[0, active, 1] = 100, 100
        found = tf.constant(alphas)
        with tf.GradientTape() as tape:
            tape.watch(found)
            weights = gates(found, noise, paths=paths)
        assert relative_error(weights[0], arrays[f"proxyless/{case}/gates"]) < EXACT
        assert (weights.numpy()[0] > 0).sum() == paths
        gradient = tape.gradient(weights, found, arrays[f"proxyless/{case}/dgates"][None])
        assert relative_error(gradient[0], arrays[f"proxyless/{case}/dalphas"]) < EXACT
    after = arrays["proxyless/two/alphas_updated"].astype(np.float64)[None]
    rescaled = gates.rescaled(tf.constant(alphas), tf.constant(after), weights)
    assert relative_error(rescaled[0], arrays["proxyless/two/alphas_rescaled"]) < EXACT
