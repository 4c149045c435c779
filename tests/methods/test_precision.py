"""Computing in a low precision."""

import csv

import keras
import numpy as np
import processes
import pytest
import tensorflow as tf

from darts_tf import DARTS, SearchNetwork
from darts_tf.methods.optimizers import SGD, Adam
from darts_tf.spaces.cells import genotypes
from darts_tf.spaces.cells.derived import cifar_network
from darts_tf.spaces.models import inference_model

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(params=["mixed_bfloat16", "mixed_float16"])
def policy(request):
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy("float32")


def batch():
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(2, 6, 8, 8, 3)).astype(np.float32), draw.integers(0, 3, (2, 6)).astype(np.int32)
    return (x[0], y[0]), (x[1], y[1])


def searched(unrolled, loss_scale, **options):
    keras.utils.set_random_seed(0)
    search = DARTS(SearchNetwork(4, 3, 3, nodes=2, **options), unrolled=unrolled)
    search.compile(SGD(global_clipnorm=0.1, loss_scale=loss_scale), LOSS, arch_optimizer=Adam())
    search.create_variables(*(tf.constant(part) for part in batch()[0]))
    return search


def types(graph):
    """Types of the results of an operation's nodes, over all functions of a graph."""
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return {
        op: {tf.as_dtype(node.attr["T"].type).name for node in nodes if node.op == op}
        for op in ("Conv2D", "DepthwiseConv2dNative", "FusedBatchNormV3", "Softmax", "ResourceApplyMomentum", "AddN")
    }


def test_what_is_computed_in_which_type(policy):
    search = searched(True, loss_scale=policy == "mixed_float16")
    step = tf.function(search.train_step, autograph=False)
    low, graph = policy.removeprefix("mixed_"), step.get_concrete_function(batch()).graph
    found = types(graph.as_graph_def())
    # In both types, since finite differences are exact.
    assert found["Conv2D"] == found["DepthwiseConv2dNative"] == found["FusedBatchNormV3"] == {low, "float32"}
    assert found["Softmax"] == found["ResourceApplyMomentum"] == {"float32"}
    assert {variable.dtype for variable in search.variables} == {"float32"}

    search = searched(False, loss_scale=policy == "mixed_float16")
    found = types(tf.function(search.train_step, autograph=False).get_concrete_function(batch()).graph.as_graph_def())
    assert found["Conv2D"] == found["DepthwiseConv2dNative"] == {low}


@pytest.mark.parametrize("unrolled", [False, True])
def test_the_scale_cancels(unrolled):
    """In float32, where a scale that is a power of two changes no bit."""
    steps = [searched(unrolled, loss_scale) for loss_scale in (False, True)]
    for search in steps:
        tf.function(search.train_step, autograph=False)(batch())
    plain, scaled = steps
    assert not scaled.optimizer.skipped and float(scaled.optimizer.scale_loss(1.0)) == 2.0**15
    for ours, theirs in zip(scaled.network.variables, plain.network.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("unrolled", [False, True])
def test_an_overflow_does_not_reach_the_loss_that_is_told(unrolled):
    """It leaves its step out with a lower scale; a loss that is NaN would end the run."""
    (x, y), _ = batch()
    search = searched(unrolled, True, primitives=["skip_connect", "max_pool_3x3"], dtype="mixed_float16")
    loss = LOSS(y, search.network(x, training=True))
    before = [np.array(variable) for variable in search.network.variables]
    search.optimizer._scale.assign(2.0**40)
    logs = tf.function(search.train_step, autograph=False)(batch())
    assert search.optimizer.skipped and float(search.optimizer.scale_loss(1.0)) == 2.0**39
    np.testing.assert_allclose(logs["loss"], loss, atol=0.01)
    for now, old in zip(search.network.variables, before, strict=True):
        np.testing.assert_array_equal(now, old)


def test_the_scale_grows_after_enough_good_steps(monkeypatch):
    monkeypatch.setattr("darts_tf.methods.optimizers.GOOD_STEPS", 2)
    variable = keras.Variable(np.zeros(2, np.float32))
    optimizer = SGD(1.0, loss_scale=True)
    optimizer.build([variable])
    scales = []
    for value in (1.0, 1.0, np.inf, 1.0, np.nan, 1.0, 1.0):
        before = np.array(variable), np.array(optimizer.momentums[0])
        optimizer.apply([tf.constant([1.0, value])], [variable])
        scales.append(float(optimizer.scale_loss(1.0)) / 2**15)
        unchanged = all(
            (np.array(now) == old).all() for now, old in zip((variable, optimizer.momentums[0]), before, strict=True)
        )
        assert unchanged == bool(optimizer.skipped) == (not np.isfinite(value))
    assert scales == [1, 2, 1, 1, 0.5, 0.5, 1]


def test_float16_wants_an_optimizer_that_scales_losses():
    search = DARTS(SearchNetwork(4, 3, 3, dtype="mixed_float16"))
    with pytest.raises(ValueError, match=r"float16: expected optimizer=darts_tf\.optimizers\.SGD"):
        search.compile(SGD(), LOSS)


def test_an_operation_of_the_users_own(policy):
    import darts_tf

    @darts_tf.register_operation("test_precision")
    def layer(stride, affine, channels):
        return keras.layers.SeparableConv2D(channels, 3, strides=stride, padding="same")

    search = searched(False, policy == "mixed_float16", primitives=["none", "skip_connect", "test_precision"])
    assert np.isfinite(tf.function(search.train_step, autograph=False)(batch())["loss"])


def test_a_trained_network_is_exact(policy, tmp_path):
    pairs = [("sep_conv_3x3", 0), ("dil_conv_3x3", 1)]
    network = cifar_network(genotypes.Genotype(pairs, [2], pairs, [2]), 4, 3, 3, (8, 8, 3), True, True)
    assert {layer.compute_dtype for layer in network.layers} == {policy.removeprefix("mixed_"), "float32"}
    network.compile(SGD(loss_scale=True), LOSS, auto_scale_loss=False, jit_compile=False)
    x, y = batch()[0]
    network.fit(x, y, verbose=0)
    model = inference_model(network)
    model.save(tmp_path / "model.keras")
    keras.config.set_dtype_policy("float32")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert {layer.compute_dtype for layer in loaded.layers} == {"float32"}
    np.testing.assert_allclose(loaded(x), model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_search_on_the_digits_in_each_precision(tmp_path):
    found = {}
    for precision in ("float32", "bfloat16", "float16"):
        flags = [f"--precision={precision}", "--layers=3", "--init_channels=4", "--nodes=1", "--epochs=5"]
        flags.append("--primitives=skip_connect,max_pool_3x3")
        done = processes.run("darts_tf.search", *flags, f"--output={tmp_path}/{precision}")
        assert done.returncode == 0, done.stderr
        with (tmp_path / precision / "history.csv").open() as table:
            found[precision] = [float(row["val_accuracy"]) for row in csv.DictReader(table)][-1]
    assert found["float32"] > 0.7
    assert min(found.values()) > found["float32"] - 0.05, found
