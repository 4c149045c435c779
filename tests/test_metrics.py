import keras
import numpy as np
import pytest

from darts_tf import callbacks, metrics
from darts_tf.genotypes import PUBLISHED, Genotype
from darts_tf.networks import cifar_network


def test_multiply_adds_are_counted_by_hand():
    images = keras.Input((8, 6, 3))
    x = keras.layers.Conv2D(5, 3, 2, "same", use_bias=False)(images)  # 4 x 3 x (3 x 3 x 3 x 5)
    x = keras.layers.DepthwiseConv2D((1, 3), padding="same")(x)  # 4 x 3 x (3 x 5)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(images, keras.layers.Dense(7)(x))  # 5 x 7
    assert metrics.multiply_adds(model) == 12 * 135 + 12 * 15 + 35
    assert metrics.parameters(model) == 135 + 20 + 10 + 42
    assert metrics.multiply_adds(keras.Sequential([keras.Input((8, 6, 3)), model])) == metrics.multiply_adds(model)


class Own(keras.layers.Layer):
    def build(self, shape):
        self.matrix = self.add_weight(shape=(shape[-1], 5))

    def call(self, x):
        return x @ self.matrix


@pytest.mark.parametrize(
    "shape, make, expected",
    [
        ((10, 3), lambda layers: layers.Conv1D(4, 3), 8 * 36),
        ((11, 3), lambda layers: layers.Conv1D(4, 3, padding="same", dilation_rate=2), 11 * 36),
        ((5, 6, 7, 2), lambda layers: layers.Conv3D(4, 3, padding="same"), 210 * 216),
        ((4, 5, 3), lambda layers: layers.Conv2DTranspose(6, 3, 2), 20 * 162),
        ((10, 4), lambda layers: layers.SeparableConv1D(6, 3, padding="same"), 10 * (12 + 24)),
        ((7, 9, 4), lambda layers: layers.Conv2D(6, 3, padding="same", groups=2), 63 * 108),
        ((7, 7, 4), lambda layers: layers.DepthwiseConv2D(3, padding="same", dilation_rate=2), 49 * 36),
        ((5, 4), lambda layers: layers.EinsumDense("...x,xy->...y", 6), 5 * 24),
        ((5, 4), lambda layers: layers.GRU(6, unroll=True), 5 * (4 + 6) * 18),
        ((5, 4), lambda layers: layers.LSTM(6), None),
        ((4,), lambda layers: Own(), 20),
        ((None, None, 3), lambda layers: layers.Conv2D(4, 3), None),
    ],
)
def test_multiply_adds_of_all_kinds_of_layers(shape, make, expected):
    layer = make(keras.layers)
    assert metrics.multiply_adds(keras.Sequential([keras.Input(shape), layer])) == expected
    if expected is not None and layer.output.shape == layer.input.shape:
        images = keras.Input(shape)
        assert metrics.multiply_adds(keras.Model(images, layer(layer(images)))) == 2 * expected


def test_multiply_adds_of_attention_and_of_inner_models_of_any_size():
    words = keras.Input((6, 8))
    attention = keras.layers.MultiHeadAttention(2, 4)(words, words)
    assert metrics.multiply_adds(keras.Model(words, attention)) == 4 * 6 * 8 * 8 + 2 * 2 * 6 * 6 * 4
    backbone = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(3, 3)])
    images = keras.Input((9, 9, 3))
    assert metrics.multiply_adds(keras.Model(images, backbone(backbone(images)))) == (49 + 25) * 81


def test_unknown_multiply_adds_in_words():
    found = {"top1": 1, "top5": 1, "test_images": 1, "parameters": 1, "multiply_adds": None, "per_class": {}}
    assert "unknown" in metrics.table(found)


@pytest.mark.slow
def test_multiply_adds_agree_with_the_profiler():
    import tensorflow as tf
    from tensorflow.python.framework import ops
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    model = cifar_network(PUBLISHED["DARTS_V2"], 8, 5, image_shape=(32, 32, 3))
    call = tf.function(lambda x: model(x)).get_concrete_function(tf.TensorSpec([1, 32, 32, 3]))
    graph = convert_variables_to_constants_v2(call).graph
    counted = [op for op in graph.get_operations() if op.type in ("Conv2D", "DepthwiseConv2dNative", "MatMul")]
    flops = sum(ops.get_stats_for_node_def(graph, op.node_def, "flops").value for op in counted)
    assert metrics.multiply_adds(model) == flops / 2


class Fixed:
    """Scores instead of a model."""

    trainable_variables, layers = (), ()

    def predict_on_batch(self, x):
        return x


def evaluate(batches):
    return metrics.evaluate(Fixed(), metrics.predict(Fixed(), batches), list("abcdefg"))


def test_accuracies():
    scores = np.array([[3, 2, 1, 0, -1, -2, 9], [0, 1, 2, 3, 4, 5, 6], [1, 1, 1, 1, 1, 1, 1], [np.nan] * 7])
    labels = np.array([0, 1, 2, 3])
    found = evaluate([(scores[:3], labels[:3]), (scores[3:], labels[3:])])
    assert (found["top1"], found["top5"], found["test_images"]) == (0, 0.25, 4)
    found = evaluate([(scores[:3], np.array([6, 6, 0]))])
    assert found["top1"] == 2 / 3 and found["per_class"] == {"a": 0, "g": 1}
    assert "66.67% of 3 images" in metrics.table(found) and "a 0.00%, g 100.00%" in metrics.table(found)


@pytest.mark.parametrize("shape", [(32, 32, 3), (13, 10, 1)])
def test_sizes_of_networks_that_are_not_built(shape):
    sizes = metrics.Sizes(6, 4, 7, shape)
    for genotype in (PUBLISHED["DARTS_V1"], PUBLISHED["AmoebaNet"], PUBLISHED["NASNet"]):
        model = cifar_network(genotype, 6, 4, 7, shape)
        found = sizes(genotype)
        assert found == {"parameters": metrics.parameters(model), "multiply_adds": metrics.multiply_adds(model)}


def test_sizes_that_are_not_known_go_through_the_history(monkeypatch, tmp_path):
    monkeypatch.setattr(metrics, "multiply_adds", lambda model: None)
    sizes = metrics.Sizes(2, 1, 3, (8, 8, 1))(Genotype([("none", 0)] * 2, [2], [("none", 0)] * 2, [2]))
    assert sizes["multiply_adds"] is None and sizes["parameters"] > 0
    history = callbacks.History(tmp_path)
    history.more = lambda epoch: sizes
    history.on_epoch_begin(0)
    history.on_epoch_end(0, {"loss": 1.0})
    for kept in (history, callbacks.History(tmp_path, epochs=1)):
        assert kept.last()["multiply_adds"] is None and kept.last()["loss"] == 1.0


class Scores(Fixed):
    """Of three classes, from the first three pixels."""

    def predict_on_batch(self, x):
        return x.reshape(len(x), -1)[:, :3]


@pytest.mark.parametrize("scale", [1, 100])
def test_predictions_and_the_worst_of_them(scale):
    right = [[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.6, 0.3, 0.1], [0.9, 0.09, 0.01]]
    scores = np.array(right) if scale == 1 else scale + np.log(right)
    images, labels = scores.reshape(4, 1, 3, 1), np.array([0, 1, 1, 2])
    batches = [(images[:2], labels[:2]), (images[2:], labels[2:])]
    found = metrics.predict(Scores(), batches)
    assert found.predicted.tolist() == [0, 1, 0, 0] and found.ranks.tolist() == [1, 1, 2, 3]
    np.testing.assert_allclose(found.probability, [0.8, 0.5, 0.6, 0.9])
    assert found.worst.tolist() == [3, 2]
    np.testing.assert_array_equal(found.worst_images, np.rint((255 if scale == 1 else 1) * images[[3, 2]]))
    assert metrics.predict(Scores(), batches, few=1).worst.tolist() == [3]
    assert metrics.predict(Scores(), batches[:1]).worst_images.size == 0
