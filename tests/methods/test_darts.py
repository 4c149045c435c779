import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from darts_tf.methods.darts import DARTS, architecture_gradient, gradient, hessian_vector_product
from darts_tf.methods.optimizers import SGD, Adam
from darts_tf.spaces.cells.networks import SearchNetwork


def loss(weights, alphas, batch):
    """A smooth toy loss that mixes weights and alphas."""
    (matrix, vector), (alpha,) = weights, alphas
    x, y = batch
    hidden = tf.tanh(x @ matrix) * tf.nn.softmax(alpha)
    return tf.reduce_mean((tf.sin(hidden @ vector) - y) ** 2)


@pytest.fixture
def point():
    rng = np.random.default_rng(0)
    weights = [tf.constant(rng.normal(size=(3, 5))), tf.constant(rng.normal(size=(5, 1)))]
    alphas = [tf.constant(rng.normal(size=5))]
    train, valid = [(tf.constant(rng.normal(size=(7, 3))), tf.constant(rng.normal(size=(7, 1)))) for _ in range(2)]
    return weights, alphas, train, valid


def test_finite_differences_are_the_mixed_second_derivative(point):
    weights, alphas, train, _ = point
    v = [1e-2 * tf.ones_like(w) for w in weights]
    with tf.GradientTape() as outer:
        outer.watch(alphas)
        with tf.GradientTape() as inner:
            inner.watch(weights)
            value = loss(weights, alphas, train)
        product = tf.add_n([tf.reduce_sum(g * d) for g, d in zip(inner.gradient(value, weights), v, strict=True)])
    exact = outer.gradient(product, alphas)
    central = hessian_vector_product(loss, weights, alphas, train, v)[0]
    np.testing.assert_allclose(central, exact[0], rtol=1e-3)
    here = gradient(loss, weights, alphas, train, of="alphas")
    forward = hessian_vector_product(loss, weights, alphas, train, v, here)[0]
    np.testing.assert_allclose(forward, exact[0], rtol=0.05)
    assert np.abs(forward - exact[0]).max() > 10 * np.abs(central - exact[0]).max()


def test_second_order_differentiates_through_the_virtual_step(point):
    weights, alphas, train, valid = point
    rate = 0.1

    def ahead(gradients):
        return [w - rate * g for w, g in zip(weights, gradients, strict=True)]

    with tf.GradientTape() as outer:
        outer.watch(alphas)
        with tf.GradientTape() as inner:
            inner.watch(weights)
            value = loss(weights, alphas, train)
        through = loss(ahead(inner.gradient(value, weights)), alphas, valid)
    exact = outer.gradient(through, alphas)[0]
    ours = architecture_gradient(loss, weights, alphas, train, valid, ahead, rate)[0]
    first = architecture_gradient(loss, weights, alphas, train, valid)[0]
    np.testing.assert_allclose(ours, exact, rtol=1e-3, atol=1e-6)
    assert np.abs(first - exact).max() > 100 * np.abs(ours - exact).max()
    passes = []

    def counted(*arguments):
        passes.append(arguments)
        return loss(*arguments)

    forward = architecture_gradient(counted, weights, alphas, train, valid, ahead, rate, difference="forward")[0]
    assert len(passes) == 3 and np.abs(first - exact).max() > 10 * np.abs(forward - exact).max()


@pytest.mark.parametrize("v", [0.0, np.inf, np.nan, 1e-320])
def test_finite_differences_along_what_has_no_direction_are_zero(point, v):
    weights, alphas, train, _ = point
    product = hessian_vector_product(loss, weights, alphas, train, [v * tf.ones_like(w) for w in weights])
    np.testing.assert_array_equal(product[0], np.zeros(5))


def test_what_the_loss_does_not_depend_on_has_the_gradient_zero(point):
    weights, alphas, train, valid = point
    unused = tf.ones([2], tf.float64)

    def of_some(weights, alphas, batch):
        return loss(weights[:2], alphas[:1], batch)

    def ahead(gradients):
        return [w - 0.1 * g for w, g in zip([*weights, unused], gradients, strict=True)]

    ours = architecture_gradient(of_some, [*weights, unused], [*alphas, unused], train, valid, ahead, 0.1)
    np.testing.assert_allclose(
        ours[0], architecture_gradient(loss, weights, alphas, train, valid, ahead_of(weights), 0.1)[0]
    )
    np.testing.assert_array_equal(ours[1], [0, 0])


def ahead_of(weights):
    return lambda gradients: [w - 0.1 * g for w, g in zip(weights, gradients, strict=True)]


@pytest.mark.parametrize(
    "given, missing", [({"virtual_step": list}, "without rate"), ({"rate": 0.1}, "without virtual")]
)
def test_a_virtual_step_and_its_rate_belong_together(point, given, missing):
    with pytest.raises(ValueError, match=f"{missing}.*: expected both"):
        architecture_gradient(loss, *point, **given)


def test_gradient_of_both(point):
    weights, alphas, train, _ = point
    dweights, dalphas = gradient(loss, weights, alphas, train, of="both")
    for together, alone in zip(dweights, gradient(loss, weights, alphas, train, of="weights"), strict=True):
        np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(dalphas[0], gradient(loss, weights, alphas, train, of="alphas")[0])


FEW = {"nodes": 1, "primitives": ["skip_connect", "sep_conv_3x3"]}


def small_search(unrolled=False, optimizer=None, **network):
    search = DARTS(SearchNetwork(**{"channels": 2, "layers": 3, "num_classes": 3, "nodes": 2, **network}), unrolled)
    search.compile(
        optimizer=optimizer or SGD(0.05, global_clipnorm=5.0),
        arch_optimizer=Adam(0.01),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return search


def batches(depth=1, steps=3):
    x = tf.random.stateless_normal([6, 9, 8, depth], seed=[3, 0])
    y = tf.constant([0, 1, 2, 0, 1, 2])
    return tf.data.Dataset.from_tensors(((x, y), (x[::-1], y[::-1]))).repeat(steps)


@pytest.mark.parametrize(
    "network",
    [
        {"nodes": 1},
        {"nodes": 5, "primitives": ["none", "skip_connect", "sep_conv_3x3"]},
        {"primitives": ["max_pool_3x3"]},
    ],
)
def test_fits(network):
    search = small_search(**network)
    history = search.fit(batches(depth=4), verbose=0, shuffle=False, validation_data=batches(4, 1).map(lambda t, v: v))
    assert np.isfinite(history.history["val_loss"]).all()
    genotype = search.genotype()
    nodes = network.get("nodes", 2)
    assert len(genotype.normal) == len(genotype.reduce) == 2 * nodes
    assert list(genotype.normal_concat) == list(range(2, 2 + nodes))
    assert "none" not in dict(genotype.normal)


def test_alpha_and_weights_move_and_moving_statistics_once_a_step():
    search = small_search(unrolled=True, **FEW)
    search.fit(batches(steps=1), verbose=0, shuffle=False)
    x, y = next(iter(batches()))[0]
    before = [keras.ops.convert_to_numpy(v) for v in search.network.variables]
    moving = [keras.ops.convert_to_numpy(v) for v in search.network.non_trainable_variables]
    tf.function(search.alpha_gradient, autograph=False)((x, y), (x, y))
    assert all(
        (a == keras.ops.convert_to_numpy(b)).all() for a, b in zip(before, search.network.variables, strict=True)
    )
    search.fit(batches(steps=1), verbose=0, shuffle=False)
    assert any(
        (a != keras.ops.convert_to_numpy(b)).any()
        for a, b in zip(moving, search.network.non_trainable_variables, strict=True)
    )
    assert all(
        (a != keras.ops.convert_to_numpy(b)).any()
        for a, b in zip(before[:2], search.network.variables[:2], strict=True)
    )


def test_a_step_that_is_traced_again_keeps_the_metrics():
    search = small_search(**FEW)
    step = tf.function(search.train_step, autograph=False)
    whole = next(iter(batches()))
    search.create_variables(*whole[0])
    step(whole)
    step(tuple((x[:2], y[:2]) for x, y in whole))
    assert int(search.metrics[0].count) == 6 + 2


def test_several_steps_per_execution():
    pair = []
    for steps in (1, 2):
        keras.utils.set_random_seed(0)
        search = small_search(unrolled=True, **FEW)
        search.steps_per_execution = steps
        search.fit(batches(steps=3), verbose=0, shuffle=False)
        pair.append(search.network.variables)
    for one, other in zip(*pair, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_xla_compiles_once_and_computes_the_same():
    runs = []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(0)
        search = DARTS(SearchNetwork(2, 3, 3, nodes=1, primitives=["skip_connect", "sep_conv_3x3"]))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        search.compile(SGD(global_clipnorm=0.5), loss, jit_compile=jit_compile)
        ends = [time.monotonic()]
        watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: ends.append(time.monotonic()))  # noqa: B023
        search.fit(batches(steps=4), verbose=0, shuffle=False, callbacks=[watch])
        runs.append((search.network.variables, np.diff(ends)))
    (plain, _), (compiled, (first, *later)) = runs
    for one, other in zip(plain, compiled, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    assert max(later) < first / 5


def test_any_keras_optimizer():
    search = small_search(unrolled=True, optimizer=keras.optimizers.Adam(1e-3), **FEW)
    assert np.isfinite(search.fit(batches(), verbose=0, shuffle=False).history["loss"]).all()


def test_saving_and_loading(tmp_path):
    search = small_search(unrolled=True, **FEW)
    search.fit(batches(), verbose=0, shuffle=False)
    search.save(tmp_path / "search.keras")
    loaded = keras.models.load_model(tmp_path / "search.keras")
    (x, _), _ = next(iter(batches()))
    np.testing.assert_allclose(loaded.predict(x, verbose=0), search.predict(x, verbose=0), atol=1e-6)
    assert loaded.genotype() == search.genotype() and loaded.unrolled
    for one in (search, loaded):
        one.fit(batches(), verbose=0, shuffle=False)
    for ours, theirs in zip(search.network.variables, loaded.network.variables, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def frozen(part, unrolled, unused=None):
    """A search, some of whose parts, called `part`, are frozen, and the variables that have to stay."""
    network = SearchNetwork(2, 3, 3, nodes=1, primitives=["skip_connect", "max_pool_3x3", "dil_conv_3x3"])
    if unused:
        network.unused = unused
    network.build((None, 9, 8, 1))
    cell = network.cells[0]
    parts = {
        "edges": [cell.mixed_ops[0].grouped[2], cell.mixed_ops[1].shared[1], network.alphas["normal"]],
        "cells": [network.stem, network.cells[1], *network.alphas.values()],
    }[part]
    for one in parts:
        one.trainable = False
    search = DARTS(network, unrolled)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    search.compile(SGD(0.05), loss, arch_optimizer=Adam(0.01))
    return search, [v for one in parts for v in getattr(one, "variables", [one])]


@pytest.mark.filterwarnings("ignore:Gradients do not exist for variables \\['dense")
@pytest.mark.parametrize("part, unrolled", [("edges", True), ("cells", False)])
def test_frozen_parts_and_unused_weights_stay_as_they_are(part, unrolled):
    unused = keras.layers.Dense(2)
    unused.build((None, 3))
    search, still = frozen(part, unrolled, unused)
    before = [keras.ops.convert_to_numpy(v) for v in search.network.variables]
    loss = search.fit(batches(steps=2), verbose=0, shuffle=False).history["loss"]
    assert np.isfinite(loss).all()
    still = {id(variable) for variable in [*still, *unused.variables]}
    for old, variable in zip(before, search.network.variables, strict=True):
        assert (old == keras.ops.convert_to_numpy(variable)).all() == (id(variable) in still), variable.path


def test_frozen_parts_are_frozen_in_what_is_loaded(tmp_path):
    search, _ = frozen("edges", False)
    search.create_variables(*batches().element_spec[0])
    search.optimizer.momentums[0].assign_add(tf.ones_like(search.optimizer.momentums[0]))
    search.save(tmp_path / "search.keras")
    loaded = keras.models.load_model(tmp_path / "search.keras")
    assert [v.path for v in loaded.network.arch_variables] == [v.path for v in search.network.arch_variables]
    assert [v.path for v in loaded.network.weight_variables] == [v.path for v in search.network.weight_variables]
    np.testing.assert_array_equal(loaded.optimizer.momentums[0], search.optimizer.momentums[0])


@pytest.mark.parametrize(
    "optimizers, message",
    [
        ({"optimizer": keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())}, "optimizer=LossScaleOptimizer"),
        ({"arch_optimizer": keras.optimizers.LossScaleOptimizer(Adam())}, "arch_optimizer=LossScaleOptimizer"),
        ({"optimizer": SGD(gradient_accumulation_steps=2)}, "gradient_accumulation_steps=2: expected None"),
        (dict.fromkeys(["optimizer", "arch_optimizer"], keras.optimizers.Adam()), "one object: expected two"),
    ],
)
def test_optimizers_that_a_search_cannot_use(optimizers, message):
    search = DARTS(SearchNetwork(2, 3), unrolled=True)
    with pytest.raises(ValueError, match=message):
        search.compile(**{"optimizer": SGD(), "arch_optimizer": Adam(), "loss": "mse", **optimizers})


def test_a_scale_of_alphas_loss_cancels():
    found = []
    for optimizer in (SGD(0.1), SGD(0.1, loss_scale_factor=1024.0), SGD(0.1, loss_scale=True)):
        keras.utils.set_random_seed(0)
        search = DARTS(SearchNetwork(2, 3, 3, nodes=1, primitives=["skip_connect", "max_pool_3x3"]))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        search.compile(SGD(0.05), loss, arch_optimizer=optimizer, run_eagerly=True)
        search.fit(batches(steps=1), verbose=0, shuffle=False)
        found.append(search.network.alphas["normal"])
    for scaled in found[1:]:
        np.testing.assert_allclose(scaled, found[0], atol=1e-6)


@pytest.mark.parametrize(
    "train",
    [
        lambda search: search.fit(batches().map(lambda train, valid: train), verbose=0),
        lambda search: search.fit(batches().map(lambda train, valid: (train[0], valid[0])), verbose=0),
        lambda search: search.train_on_batch(np.zeros([6, 9, 8, 1]), np.zeros(6)),
    ],
)
def test_batches_that_are_no_pairs(train):
    with pytest.raises(ValueError, match=r"expected \(\(x, y\), \(x_valid, y_valid\)\)"):
        train(small_search())


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"layers": 2}, "layers=2: expected at least 3"),
        ({"nodes": 0}, "nodes=0: expected at least 1"),
        ({"channels": 0}, "channels=0: expected at least 1"),
        ({"channels": 2.5}, "channels=2.5: expected at least 1"),
        ({"num_classes": -3}, "num_classes=-3: expected at least 1"),
        ({"primitives": ["skip_connect"] * 2}, "expected each operation once"),
        ({"primitives": ["none"]}, "at least one operation other than none"),
        ({"primitives": ["conv"]}, "Unknown operation 'conv'"),
    ],
)
def test_impossible_networks(arguments, message):
    with pytest.raises(ValueError, match=message):
        SearchNetwork(**arguments)


def test_train_on_batch_takes_the_two_batches():
    search = DARTS(SearchNetwork(4, 3, nodes=2))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    search.compile(SGD(), loss, metrics=["accuracy"])
    batch = tf.random.stateless_normal([4, 8, 8, 1], seed=[0, 1]), tf.zeros([4], tf.int32)
    losses = [search.train_on_batch(batch, batch)[0] for _ in range(3)]
    assert losses[-1] < losses[0]
    assert search.arch_optimizer.iterations == search.optimizer.iterations == 3


def test_the_virtual_step_and_v_are_clipped():
    random = np.random.default_rng(0)
    w, a, x, z = (tf.constant(random.normal(size=4)) for _ in range(4))

    def loss(weights, alphas, batch):
        return tf.reduce_sum((tf.sigmoid(alphas[0]) * weights[0] - batch) ** 2)

    def clip(gradients, most=0.25):
        factor = tf.minimum(tf.constant(1.0, tf.float64), most / (tf.linalg.global_norm(gradients) + 1e-6))
        return [factor * gradient for gradient in gradients], factor

    (ours,) = architecture_gradient(loss, [w], [a], x, z, ahead_of([w]), 0.1, clip=clip)
    s = tf.sigmoid(a)
    (d,), factor = clip([2 * s * (s * w - x)])
    ahead = w - 0.1 * d
    (v,), _ = clip([2 * s * (s * ahead - z)])
    mixed = (2 * s * w - x) * 2 * s * (1 - s)  # d2 L_train / dw da
    expected = 2 * (s * ahead - z) * ahead * s * (1 - s) - 0.1 * factor * mixed * v
    np.testing.assert_allclose(ours, expected, rtol=1e-3)
    assert factor < 1


class Carrying(keras.Model):
    """A network to which it matters which pass it is."""

    def __init__(self):
        super().__init__()
        self.dense, self.seen = keras.layers.Dense(3), []
        self.alpha = self.add_weight(shape=(3,), initializer="ones", name="alpha")
        self.counts = {
            name: self.add_weight(shape=(), initializer="zeros", trainable=False, name=name)
            for name in ("weights", "alpha", "ahead")
        }

    def call(self, x, training=False, purpose=None):
        self.seen.append(purpose)
        if purpose:
            self.counts[purpose].assign_add(1.0)
        return self.alpha * self.dense(x)

    def carried(self, purpose):
        return [self.counts["alpha"]] if purpose == "alpha" else []

    weight_variables = property(lambda self: self.dense.trainable_variables)
    arch_variables = property(lambda self: [self.alpha])


def test_what_a_pass_carries_on_is_kept():
    search = DARTS(Carrying(), unrolled=True, virtual_clipnorm=0.5)
    search.compile(SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True), arch_optimizer=Adam())
    x, y = tf.ones([2, 4]), tf.constant([0, 1])
    search.create_variables(x, y)
    search.network.seen.clear()
    for count in (1, 2):
        search.train_on_batch((x, y), (x, y))
        counts = {name: float(variable) for name, variable in search.network.counts.items()}
        assert counts == {"weights": count, "alpha": count, "ahead": 0}
    assert search.network.seen == ["ahead", "alpha", "ahead", "ahead", "weights"]  # traced once
    search.alpha_gradient((x, y), (x, y))
    assert float(search.network.counts["alpha"]) == 2
