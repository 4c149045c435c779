"""A search is compiled, fitted, evaluated and saved as any Keras model is, with any network."""

import types
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import darts_tf
from darts_tf import DARTS, SearchNetwork
from darts_tf.methods import optimizers
from darts_tf.methods.optimizers import SGD

DRAW = np.random.default_rng(0)
X, Y = DRAW.normal(size=(24, 4)), DRAW.integers(0, 3, 24)
WEIGHTS = DRAW.uniform(0.5, 2, 24)
TRAIN, VALID = slice(12), slice(12, None)


def logits(**options):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **options)


@keras.saving.register_keras_serializable("test_keras_manners")
class Choice(keras.Model):
    """Two candidates, weighted by the softmax of alpha, and nothing that is not asked of a network."""

    def __init__(self, **options):
        super().__init__(**options)
        self.candidates = [keras.layers.Dense(3), keras.layers.Dense(3, "tanh")]
        self.alpha = self.add_weight(shape=(2,), initializer="zeros", name="alpha")

    def call(self, x):
        strengths = keras.ops.softmax(self.alpha)
        return sum(strengths[i] * candidate(x) for i, candidate in enumerate(self.candidates))

    weight_variables = property(lambda self: [v for layer in self.candidates for v in layer.variables])
    arch_variables = property(lambda self: [self.alpha])


@keras.saving.register_keras_serializable("test_keras_manners")
class Several(Choice):
    """Nested inputs, one of which are integers, and a loss of its own."""

    def __init__(self, **options):
        super().__init__(**options)
        self.table = keras.layers.Embedding(3, 4)

    def call(self, x):
        images, (labels, more) = x["images"], x["more"]
        outputs = super().call(images + self.table(labels) + more)
        self.add_loss(0.1 * keras.ops.mean(outputs**2))
        return outputs

    weight_variables = property(lambda self: [*super().weight_variables, *self.table.variables])


def searched(network=None, unrolled=False, optimizer=None, arch_optimizer=None, **options):
    """A small search; the same each time."""
    keras.utils.set_random_seed(0)
    search = DARTS(network or Choice(), unrolled)
    options = {"loss": logits(), "run_eagerly": True, "metrics": ["accuracy"], **options}
    search.compile(optimizer or SGD(0.1), arch_optimizer=arch_optimizer or "adam", **options)
    return search


def values(variables):
    return [np.array(variable) for variable in variables]


def fitted(*args, search=None, **options):
    """What a search becomes, and its history."""
    search = search or searched()
    history = search.fit(*args, **{"verbose": 0, "shuffle": False, **options}).history
    return values(search.network.variables), history


def check_same(ours, theirs):
    for mine, other in zip(ours[0], theirs[0], strict=True):
        np.testing.assert_array_equal(mine, other)
    assert ours[1] == theirs[1]


def batches(*arrays):
    return tf.data.Dataset.from_tensor_slices(tuple(a.astype("float32") if a.dtype.kind == "f" else a for a in arrays))


@pytest.fixture(scope="module")
def plain():
    """Fitted to pairs of batches."""
    pairs = tf.data.Dataset.zip(batches(X[TRAIN], Y[TRAIN]).batch(5), batches(X[VALID], Y[VALID]).repeat().batch(5))
    return fitted(pairs, epochs=2)


@pytest.mark.parametrize(
    "args, options",
    [
        ((X, Y), {"batch_size": 5}),
        ((tf.constant(X), tf.constant(Y)), {"steps_per_epoch": 3, "batch_size": 5}),
        ((X[TRAIN], Y[TRAIN]), {"batch_size": 5, "arch_data": (X[VALID], Y[VALID])}),
        ((X[TRAIN], Y[TRAIN]), {"batch_size": 5, "arch_data": batches(X[VALID], Y[VALID]).repeat().batch(5)}),
        ((batches(X[TRAIN], Y[TRAIN]).batch(5),), {"batch_size": 5, "arch_data": [X[VALID], Y[VALID]]}),
        ((X, Y), {"batch_size": 5, "sample_weight": np.ones(24)}),
        ((X, Y), {"batch_size": 5, "class_weight": {1: 1.0}}),
    ],
)
def test_arrays_and_datasets_are_the_same_search(args, options, plain):
    check_same(fitted(*args, epochs=2, **options), plain)


def test_the_order_of_arguments_is_that_of_keras(plain):
    search = searched()
    assert search.fit(X, Y, 5, 2, 0, None, 0.0, None, False).history == plain[1]
    history = search.fit(X, Y, 5, 2, 0, None, 0.25, None, False, None, WEIGHTS, 1, 1, None, None, 1).history
    assert len(history["val_loss"]) == 1


def test_weights_of_samples_in_arrays_datasets_and_classes_are_the_same():
    of_class = {0: 2.0, 2: 0.5}
    weights = np.array([of_class.get(label, 1.0) for label in Y])
    pairs = tf.data.Dataset.zip(
        batches(X[TRAIN], Y[TRAIN], weights[TRAIN]).batch(4), batches(X[VALID], Y[VALID], weights[VALID]).batch(4)
    )
    expected = fitted(pairs)
    check_same(fitted(X, Y, batch_size=4, sample_weight=weights), expected)
    check_same(fitted(X, Y, batch_size=4, class_weight=of_class), expected)
    check_same(fitted(pairs.map(lambda t, v: (t[:2], v[:2])), class_weight=of_class), expected)
    assert expected[1]["loss"] != fitted(X, Y, batch_size=4)[1]["loss"]


def still(**options):
    """A search that does not move, so that its losses in training are those of evaluation."""
    return searched(optimizer=SGD(0.0, momentum=0.0), arch_optimizer=keras.optimizers.SGD(0.0), **options)


@pytest.mark.parametrize("unrolled", [False, True])
def test_what_is_logged_is_weighted_as_in_evaluation(unrolled):
    search = still(unrolled=unrolled, weighted_metrics=[keras.metrics.SparseCategoricalAccuracy(name="weighted")])
    history = search.fit(X, Y, batch_size=4, sample_weight=WEIGHTS, verbose=0).history
    ours = search.evaluate(X[TRAIN], Y[TRAIN], sample_weight=WEIGHTS[TRAIN], batch_size=4, verbose=0, return_dict=True)
    alphas = search.evaluate(X[VALID], Y[VALID], sample_weight=WEIGHTS[VALID], batch_size=4, verbose=0)
    assert set(ours) == {"loss", "accuracy", "weighted"}
    assert {name: history[name][0] for name in ours} == pytest.approx(ours, rel=1e-5)
    assert history["arch_loss"] == [pytest.approx(alphas[0], rel=1e-5)]
    assert ours["loss"] != pytest.approx(search.evaluate(X[TRAIN], Y[TRAIN], verbose=0)[0], rel=1e-2)


@pytest.mark.parametrize("unrolled", [False, True])
def test_samples_that_weigh_nothing_leave_alphas_gradient_to_the_others(unrolled):
    search = searched(unrolled=unrolled)
    x, y, weights = X.astype("float32"), Y, np.tile([2.0, 0.0], 6)
    search.create_variables(x, y)
    search.network.alpha.assign([0.5, -0.5])
    halves = [(x[part], y[part], weights) for part in (TRAIN, VALID)]
    ours = search.alpha_gradient(*halves)[0]
    expected = search.alpha_gradient(*[(x[::2], y[::2]) for x, y, _ in halves])[0]
    np.testing.assert_allclose(ours, expected, rtol=1e-3)
    assert np.abs(ours - search.alpha_gradient(*[half[:2] for half in halves])[0]).max() > 1e-3


def test_alphas_loss_of_the_second_order_is_that_after_the_virtual_step():
    search = searched(unrolled=True, optimizer=SGD(0.5, momentum=0.0), arch_optimizer=keras.optimizers.SGD(0.0))
    x, y = X.astype("float32"), Y
    search.create_variables(x, y)
    train, valid = (tuple(map(tf.constant, (x[part], y[part]))) for part in (TRAIN, VALID))
    weights, alphas = search.values()
    with tf.GradientTape() as tape:
        tape.watch(weights)
        loss = search.loss_at(weights, alphas, train)
    expected = search.loss_at(search.virtual_step(tape.gradient(loss, weights)), alphas, valid)
    found = search.train_on_batch(train, valid, return_dict=True)
    assert found["arch_loss"] == pytest.approx(float(expected), rel=1e-6) != pytest.approx(found["loss"], rel=1e-3)


def test_alphas_loss_is_logged_without_the_scale():
    plain, scaled = (
        fitted(X, Y, search=searched(unrolled=True, optimizer=SGD(0.1, loss_scale=scale)))[1] for scale in (False, True)
    )
    assert scaled["arch_loss"] == pytest.approx(plain["arch_loss"], rel=1e-6)


def test_alphas_loss_is_for_callbacks_and_not_of_validation():
    seen = {}
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.update(batch=set(logs)),
        on_epoch_end=lambda epoch, logs: seen.update(epoch=set(logs)),
        on_test_end=lambda logs: seen.update(test=set(logs)),
    )
    search = searched(run_eagerly=False, unrolled=True)
    fitted(X, Y, search=search, callbacks=[watch], validation_data=(X, Y))
    ours = {"loss", "accuracy"}
    assert seen["test"] == ours and seen["batch"] == {*ours, "arch_loss"}
    assert seen["epoch"] == {*ours, "arch_loss", "val_loss", "val_accuracy"}
    assert len(search.test_on_batch(X, Y)) == 2
    # In a graph the search is what it is without one.
    with_graph, eager = values(search.network.variables), fitted(X, Y, search=searched(unrolled=True))[0]
    for one, other in zip(with_graph, eager, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_validation_split_epochs_and_steps():
    search = searched()
    assert search.fit(X, Y, verbose=0, validation_split=0.25, initial_epoch=1, epochs=3, steps_per_epoch=2).epoch == [
        1,
        2,
    ]
    assert int(search.optimizer.iterations) == 4  # 9 samples for the weights, in batches of 5 and 4
    history = still().fit(X, Y, verbose=0, validation_split=0.25).history
    evaluated = still().fit(X[:18], Y[:18], verbose=0, validation_data=(X[18:], Y[18:])).history
    assert history["val_loss"] == evaluated["val_loss"]


def test_evaluation_and_prediction():
    search = searched(run_eagerly=False)
    before = search.predict(X, verbose=0)  # before it is fitted, too
    assert before.shape == (24, 3)
    loss, accuracy = search.evaluate(X, Y, batch_size=7, verbose=0)
    assert accuracy == pytest.approx(np.mean(before.argmax(1) == Y))
    assert loss == pytest.approx(float(logits()(Y, before)), rel=1e-5)
    fitted(X, Y, search=search)
    after = search.predict(X, verbose=0)
    np.testing.assert_allclose(search.predict(batches(X).batch(7), verbose=0), after, atol=1e-6)
    found = search.evaluate(batches(X, Y).batch(7), verbose=0, return_dict=True)
    assert found == pytest.approx({"loss": float(logits()(Y, after)), "accuracy": np.mean(after.argmax(1) == Y)}, 1e-5)


def test_nested_inputs_losses_of_the_network_and_files(tmp_path):
    x = {"images": X, "more": (Y, X[:, :1])}
    search = searched(Several(), unrolled=True)
    fitted(x, Y, search=search, batch_size=5, epochs=2)
    search.save(tmp_path / "search.keras")
    loaded = keras.models.load_model(tmp_path / "search.keras")
    np.testing.assert_array_equal(search.predict(x, verbose=0), loaded.predict(x, verbose=0))
    check_same(fitted(x, Y, search=search), fitted(x, Y, search=loaded))
    # The network's own loss counts in that of the weights, and in alpha's gradient.
    search = still(network=Several(), unrolled=True)
    history = search.fit(x, Y, batch_size=12, shuffle=False, verbose=0).history
    whole = tf.nest.map_structure(lambda part: tf.constant(part[VALID]), (x, Y))
    outputs = search.network(whole[0])
    expected = logits()(whole[1], outputs) + 0.1 * tf.reduce_mean(outputs**2)
    assert history["arch_loss"][0] == pytest.approx(float(expected), rel=1e-5)
    assert history["loss"][0] == pytest.approx(
        search.evaluate(keras.tree.map_structure(lambda part: part[TRAIN], x), Y[TRAIN], verbose=0)[0], rel=1e-5
    )


def test_a_network_of_whole_numbers_without_build():
    class LookUp(Choice):
        def call(self, x):
            return super().call(tf.one_hot(x, 4))

    search = searched(LookUp())
    with warnings.catch_warnings(action="error"):  # that it was not built
        search.predict(Y, verbose=0)
    assert np.isfinite(fitted(Y, Y, search=search)[1]["loss"]).all()


def test_a_functional_network():
    class Sum(keras.Layer):
        def build(self, shapes):
            self.alpha = self.add_weight(shape=(len(shapes),), initializer="zeros", name="alpha")

        def call(self, candidates):
            return keras.ops.tensordot(keras.ops.softmax(self.alpha), keras.ops.stack(candidates), 1)

    class Functional(keras.Model):
        weight_variables = property(lambda self: [v for v in self.trainable_variables if v.name != "alpha"])
        arch_variables = property(lambda self: [v for v in self.trainable_variables if v.name == "alpha"])

    inputs = keras.Input((4,))
    candidates = [keras.layers.Dense(3, name="linear"), keras.layers.Dense(3, "tanh", name="curved")]
    network = Functional(inputs, Sum()([layer(inputs) for layer in candidates]))
    search = searched(network, unrolled=True, metrics=None)
    before = values(network.variables)
    after, _ = fitted(X, Y, search=search)
    assert all((old != new).any() for old, new in zip(before, after, strict=True))


def test_networks_that_do_not_have_what_is_asked():
    with pytest.raises(ValueError, match="network=Sequential has no weight_variables: expected a list"):
        DARTS(keras.Sequential())
    with pytest.raises(AttributeError, match="genotype"):
        searched().genotype()

    class Everything(Choice):
        weight_variables = property(lambda self: self.trainable_variables)

    with pytest.raises(ValueError, match="alpha is in weight_variables and arch_variables: expected in one"):
        fitted(X, Y, search=searched(Everything()))


def test_compile_takes_what_keras_takes(tmp_path):
    search = DARTS(Choice())
    search.predict(X, verbose=0)
    search.save(tmp_path / "search.keras")  # not compiled
    search.compile("rmsprop", "mse", 2.0, ["mae"], ["mse"], steps_per_execution=2)
    assert isinstance(search.optimizer, keras.optimizers.RMSprop) and search.steps_per_execution == 2
    assert type(search.arch_optimizer) is optimizers.Adam and search.arch_optimizer.l2 == 1e-3
    history = search.fit(X, X[:, :3], verbose=0).history
    assert set(history) == {"loss", "arch_loss", "mae", "mse"}
    assert history["loss"][0] > 1.5 * history["mse"][0]  # loss_weights
    search.compile("sgd", "mse", arch_optimizer={"class_name": "Adam", "config": {"learning_rate": 0.25}})
    search.fit(X, X[:, :3], verbose=0)
    search.save(tmp_path / "search.keras")
    loaded = keras.models.load_model(tmp_path / "search.keras")
    assert type(loaded.arch_optimizer) is keras.optimizers.Adam and loaded.arch_optimizer.learning_rate == 0.25
    with pytest.raises(ValueError, match="loss=Adam: expected a loss; alpha's optimizer goes by arch_optimizer="):
        search.compile("sgd", keras.optimizers.Adam(), "mse")


class Logits(Choice):
    from_logits = True


@pytest.mark.parametrize(
    "loss, expected",
    [
        ("sparse_categorical_crossentropy", "SparseCategoricalCrossentropy"),
        ("bce", "BinaryCrossentropy"),
        ("crossentropy", "SparseCategoricalCrossentropy"),
        ("CategoricalCrossentropy", "CategoricalCrossentropy"),
        (keras.losses.categorical_focal_crossentropy, "CategoricalFocalCrossentropy"),
        (keras.losses.BinaryCrossentropy(), "BinaryCrossentropy"),
        ([None, "ce"], "SparseCategoricalCrossentropy"),
    ],
)
def test_losses_that_take_probabilities_where_there_are_logits(loss, expected):
    message = rf"takes probabilities, the network gives logits: expected {expected}\(from_logits=True\)\.$"
    with pytest.raises(ValueError, match=message):
        DARTS(Logits()).compile("sgd", loss)
    DARTS(Choice()).compile("sgd", loss)  # which says nothing about what it gives


def test_losses_that_fit():
    for loss in (logits(), "mse", lambda y, outputs: outputs, keras.losses.MeanSquaredError(), np.add, None):
        DARTS(Logits()).compile("sgd", loss)
    assert SearchNetwork.from_logits
    network = Choice()
    network.from_logits = False
    with pytest.raises(ValueError, match=r"takes logits, the network gives probabilities: .*\(from_logits=False\)"):
        DARTS(network).compile("sgd", logits())


def test_a_file_with_a_loss_that_does_not_fit_can_be_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(Choice, "from_logits", True, raising=False)
    search = searched()
    search._compile("sgd", "adam", loss="sparse_categorical_crossentropy")
    search.create_variables(X, Y)
    search.save(tmp_path / "search.keras")
    assert keras.models.load_model(tmp_path / "search.keras").loss == "sparse_categorical_crossentropy"


@pytest.mark.parametrize("role", ["optimizer", "arch_optimizer"])
def test_averages_are_in_place_at_the_end_of_fit(role):
    averaged = "weight_variables" if role == "optimizer" else "arch_variables"
    other = {"weight_variables", "arch_variables"} - {averaged}
    states = []

    def look(search):
        return keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: states.append(values(getattr(search.network, averaged)))
        )

    plain = searched(**{role: SGD(0.1)})
    fitted(X, Y, search=plain, epochs=2, batch_size=4, callbacks=[look(plain)])
    average = states[0]
    for state in states[1:]:
        average = [0.75 * mean + 0.25 * value for mean, value in zip(average, state, strict=True)]
    ours, at_end = searched(**{role: SGD(0.1, use_ema=True, ema_momentum=0.75)}), []
    end = keras.callbacks.LambdaCallback(on_train_end=lambda logs: at_end.extend(values(ours.network.variables)))
    after, _ = fitted(X, Y, search=ours, epochs=2, batch_size=4, callbacks=[end])
    for mean, last, value in zip(average, states[-1], values(getattr(ours.network, averaged)), strict=True):
        np.testing.assert_allclose(value, mean, atol=1e-6)
        assert np.abs(last - mean).max() > 1e-3
    for name in other:
        for mine, theirs in zip(getattr(ours.network, name), getattr(plain.network, name), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    for one, two in zip(at_end, after, strict=True):
        np.testing.assert_array_equal(one, two)


def test_averages_now_and_then_and_while_validating():
    search = searched(optimizer=SGD(0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2))
    search.create_variables(X, Y)
    batch = (X[TRAIN], Y[TRAIN]), (X[VALID], Y[VALID])
    same = []
    for _ in range(4):
        search.train_on_batch(*batch)
        averages = search.optimizer._model_variables_moving_average
        same.append(
            all((a == b).all() for a, b in zip(values(search.network.weight_variables), values(averages), strict=True))
        )
    assert same == [True, True, False, True]  # the first average is the first value
    swap = keras.callbacks.SwapEMAWeights()
    search = searched(optimizer=SGD(0.1, use_ema=True), unrolled=True)
    assert np.isfinite(fitted(X, Y, search=search, callbacks=[swap], validation_data=(X, Y))[1]["val_loss"]).all()


def test_averages_now_and_then_on_several_devices_are_refused(monkeypatch):
    monkeypatch.setattr(DARTS, "distribute_strategy", types.SimpleNamespace(num_replicas_in_sync=2))
    for role in ("optimizer", "arch_optimizer"):
        with pytest.raises(ValueError, match=f"^{role} with ema_overwrite_frequency=3 on 2 devices: expected None"):
            searched(**{role: SGD(0.1, use_ema=True, ema_overwrite_frequency=3)})


@pytest.mark.parametrize(
    "args, options, message",
    [
        ((batches(X, Y).batch(4),), {}, r"expected \(\(x, y\), \(x_valid, y_valid\)\).*, or \(x, y\) and arch_data\.$"),
        (
            (batches(X, Y).batch(4),),
            {"validation_split": 0.5},
            "validation_split=0.5 of a tf.data.Dataset: expected arr",
        ),
        ((batches(X, Y).batch(4),), {"arch_data": X}, "arch_data: a ndarray, expected"),
        ((X, Y), {"arch_split": 0}, "arch_split=0: expected a number between 0 and 1"),
        ((X, Y), {"validation_split": 2.0}, "validation_split=2.0: expected a number"),
        ((X,), {}, "x and y: a NoneType, expected arrays"),
        ((keras.utils.PyDataset(),), {}, "x and y: a keras.utils.PyDataset, expected arrays"),
        ((iter([(X, Y)]),), {}, "x and y: a list_iterator, expected arrays"),
        ((X, Y), {"class_weight": {0: 2.0}, "sample_weight": WEIGHTS}, "class_weight and sample_weight: expected one"),
    ],
)
def test_what_a_search_cannot_be_fitted_to(args, options, message):
    with pytest.raises(ValueError, match=message) as error:
        searched().fit(*args, verbose=0, shuffle=False, **options)
    assert "\n" not in str(error.value)


def test_what_does_not_go_with_batches_that_are_distributed():
    class Distributed(tf.distribute.DistributedDataset):
        def __iter__(self):
            return iter(())

    for name, value in {"arch_data": (X, Y), "class_weight": {0: 2.0}, "validation_split": 0.5}.items():
        with pytest.raises(ValueError, match=f"^{name} with a DistributedDataset: expected it in what"):
            searched().fit(Distributed(), **{name: value})


def test_a_batch_has_its_weights_with_it():
    search = searched()
    with pytest.raises(ValueError, match="sample_weight, class_weight: expected None"):
        search.train_on_batch((X, Y), (X, Y), class_weight={0: 2.0})
    weighted = search.train_on_batch((X, Y, WEIGHTS), (X, Y), return_dict=True)
    assert weighted["loss"] != pytest.approx(weighted["arch_loss"], rel=1e-3)


def test_fit_before_compile():
    with pytest.raises(ValueError, match="compile"):
        DARTS(Choice()).fit(X, Y)


def test_the_package_lists_what_it_offers():
    assert {"DARTS", "SearchNetwork", "__version__"} <= set(dir(darts_tf))


@pytest.mark.parametrize("part", [{"penalty": "beta_decay"}, {"perturbation": "random"}])
def test_parts_that_need_to_know_what_alphas_are_of(part):
    ((name, value),) = part.items()
    with pytest.raises(ValueError, match=f"{name}={value}: expected a .*Supernet.*; Choice is none"):
        DARTS(Choice(), **part)
