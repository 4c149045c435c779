import keras
import numpy as np
import pytest
import tensorflow as tf
from weights import take_weights

import darts_tf
from darts_tf.methods.optimizers import SGD
from darts_tf.ops import operations
from darts_tf.spaces.cells import derived
from darts_tf.spaces.cells.genotypes import Genotype
from darts_tf.spaces.cells.trained import TrainedNetwork
from darts_tf.spaces.models import inference_model

SOME = Genotype(
    normal=[("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("dil_conv_5x5", 2), ("own", 0), ("own", 1)],
    normal_concat=[2, 3, 4],
    reduce=[("max_pool_3x3", 0), ("max_pool_3x3", 0), ("skip_connect", 1), ("conv_7x1_1x7", 2)],
    reduce_concat=[3, 2],
)
NOISE = SOME._replace(normal=[("noise", 0), ("noise", 0)], normal_concat=[2])
SIZES = {"channels": 6, "num_classes": 3, "auxiliary": True, "normalization": ([1.0], [2.0])}
ROOM = {"cifar": ((9, 8, 1), 3), "imagenet": ((33, 40, 1), 4)}


@pytest.fixture(autouse=True)
def own_layer(monkeypatch):
    """Registers an operation that is a Keras layer, and leaves precision and operations as they were."""
    monkeypatch.setattr(operations, "_REGISTRY", dict(operations._REGISTRY))

    @darts_tf.register_operation("own")
    def own(stride, affine, channels):
        return keras.layers.Conv2D(channels, 1, stride)

    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


def batch(shape, size=4):
    return np.random.default_rng(0).normal(1, 3, (size, *shape)).astype("float32"), np.arange(size) % 3


def made(network, dtype="float32", **options):
    """A network as it is trained and the same of Keras layers, with the same weights, compiled."""
    keras.config.set_floatx("float64" if dtype == "float64" else "float32")
    keras.config.set_dtype_policy(dtype)
    shape, layers = ROOM[network]
    sizes = {**SIZES, "image_shape": shape, "layers": layers, **options}
    pair = TrainedNetwork(SOME, network, **sizes), derived.BUILDERS[network](SOME, **sizes)
    take_weights(*pair)
    for one in pair:
        optimizer = SGD(0.1, momentum=0.9, l2=1e-2, global_clipnorm=1.0)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        one.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)
    return pair


def test_pixels_that_float16_does_not_hold():
    """Those of 16 bits, whose variance is beyond it, too."""
    pixels = np.random.default_rng(0).integers(0, 65_536, (2, *ROOM["cifar"][0])).astype("float32")
    pixels[0, 0, 0] = 65_535
    networks = made("cifar", "mixed_float16", normalization=([32_768.0], [18_900.0]), auxiliary=False)
    for network in networks:
        network.autocast = False  # as a training does it
        logits = np.asarray(network(pixels))
        assert np.isfinite(logits).all() and np.abs(logits[0] - logits[1]).max() > 1e-3
    np.testing.assert_allclose(*(np.asarray(network(pixels)) for network in networks), atol=1e-2)


@pytest.mark.parametrize("network", ["cifar", "imagenet"])
def test_it_computes_as_the_network_of_keras_layers(network):
    ours, plain = made(network, "float64")
    x, _ = batch(ours.image_shape)
    np.testing.assert_allclose(ours(x), plain(x)[0], rtol=1e-9)
    for results in zip(ours(x, training=True), plain(x, training=True), strict=True):
        np.testing.assert_allclose(*results, rtol=1e-9)
    model = inference_model(ours)
    assert [layer.name for layer in model.layers] == [layer.name for layer in inference_model(plain).layers]
    np.testing.assert_allclose(ours(x), model(x), rtol=1e-9)


@pytest.mark.parametrize("recompute", [False, True])
def test_it_learns_as_the_network_of_keras_layers(recompute):
    ours, plain = made("cifar", "float64", layers=2)
    ours.recompute = recompute
    x, y = batch(ours.image_shape)
    for _ in range(2):
        logs = [one.train_on_batch(x, y, return_dict=True) for one in (ours, plain)]
        assert logs[0] == pytest.approx(logs[1], rel=1e-9)
    for one, other in zip(inference_model(ours).weights, inference_model(plain).weights, strict=True):
        # Keras's moving variance is that of the sample, ours that of the population, as in the original.
        rtol = 0.2 if "moving_variance" in one.path else 1e-9
        np.testing.assert_allclose(one, other, rtol, atol=1e-12)


def test_drop_path_drops_edges_of_some_images():
    ours, _ = made("cifar", drop_path=True, auxiliary=False)
    x, _ = batch(ours.image_shape)
    same = np.array(ours(x, training=True))
    np.testing.assert_allclose(same, ours(x, training=True), rtol=1e-3)  # at a rate of zero
    ours.drop_path.rate.assign(0.5)
    drawn = [np.array(ours(x, training=True)) for _ in range(2)]
    assert not np.allclose(*drawn) and not np.allclose(drawn[0], same)
    np.testing.assert_array_equal(*(ours(x) for _ in range(2)))


def test_noise_is_there_in_training_only():
    network = TrainedNetwork(NOISE, "cifar", 4, 3, 3, (8, 8, 1))
    x, _ = batch((8, 8, 1))
    logits = [np.array(network(x, training=training)) for training in (True, True, False, False)]
    assert not np.allclose(logits[0], logits[1])
    np.testing.assert_array_equal(logits[2], logits[3])


def test_it_is_saved_and_opened_whole(tmp_path):
    ours, _ = made("imagenet")
    ours.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    x, _ = batch(ours.image_shape)
    np.testing.assert_array_equal(ours(x), again(x))
    assert again.get_config() == ours.get_config() and again.optimizer.momentum == 0.9
    with pytest.raises(ValueError, match="layers=0: expected at least 1 cell"):
        TrainedNetwork(SOME, layers=0)
    with pytest.raises(ValueError, match="sep_conv_9x9"):
        TrainedNetwork(SOME._replace(normal=[("sep_conv_9x9", 0)] * 2))


def test_low_precision():
    exact, low = (made("cifar", dtype)[0] for dtype in ("float32", "mixed_bfloat16"))
    for ours, theirs in zip(low.weights, exact.weights, strict=True):
        ours.assign(theirs)
    x, _ = batch(low.image_shape)
    assert low(x).dtype == tf.float32
    np.testing.assert_allclose(low(x), exact(x), atol=0.1)
    assert {layer.compute_dtype for layer in low.inference_model().layers} == {"float32"}


def test_networks_of_other_genotypes_share_functions():
    ours, _ = made("cifar", auxiliary=False)
    x, y = batch(ours.image_shape)
    ours.train_on_batch(x, y)
    known = operations._shared.cache_info().misses
    wired = SOME._replace(normal=[(name, 1 - source if source < 2 else source) for name, source in SOME.normal])
    other = TrainedNetwork(wired, "cifar", 4, 4, 3, (8, 8, 1))
    other.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    other.train_on_batch(x[:, :8, :8], y)
    assert known and operations._shared.cache_info().misses == known


def test_xla_computes_the_same():
    ours, plain = made("cifar", layers=1)
    x, y = batch(ours.image_shape)
    ours.compile("sgd", ours.loss, jit_compile=True)
    assert ours.jit_compile
    assert ours.train_on_batch(x, y)[0] == pytest.approx(plain.train_on_batch(x, y)[0], rel=1e-4)
