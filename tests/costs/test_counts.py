import keras
import pytest

from darts_tf.costs import counts
from darts_tf.private.tensorflow import without_variables
from darts_tf.spaces.cells.derived import cifar_network
from darts_tf.spaces.cells.genotypes import PUBLISHED


def test_multiply_adds_are_counted_by_hand():
    images = keras.Input((8, 6, 3))
    x = keras.layers.Conv2D(5, 3, 2, "same", use_bias=False)(images)  # 4 x 3 x (3 x 3 x 3 x 5)
    x = keras.layers.DepthwiseConv2D((1, 3), padding="same")(x)  # 4 x 3 x (3 x 5)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(images, keras.layers.Dense(7)(x))  # 5 x 7
    assert counts.multiply_adds(model) == 12 * 135 + 12 * 15 + 35
    assert counts.parameters(model) == 135 + 20 + 10 + 42
    assert counts.multiply_adds(keras.Sequential([keras.Input((8, 6, 3)), model])) == counts.multiply_adds(model)


def test_what_int8_files_have_beside_kernels():
    images = keras.Input((8, 8, 2))
    x = keras.layers.Conv2D(4, 1, use_bias=False)(images)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))  # becomes part of the convolution
    plain = counts.model_bytes(keras.Model(images, x), "int8_model_bytes")
    ways = [keras.layers.AveragePooling2D(3, 1, "same")(keras.layers.ReLU()(x)), keras.layers.ReLU()(x)]
    more = counts.model_bytes(keras.Model(images, keras.layers.Add()(ways)), "int8_model_bytes")
    assert more - plain == counts.BESIDE["average"] + 2 * counts.BESIDE["relu"] + counts.BESIDE["join"]
    halved = keras.layers.AveragePooling2D(1, 2)(x)
    assert counts.model_bytes(keras.Model(images, halved), "int8_model_bytes") == plain


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
    assert counts.multiply_adds(keras.Sequential([keras.Input(shape), layer])) == expected
    if expected is not None and layer.output.shape == layer.input.shape:
        images = keras.Input(shape)
        assert counts.multiply_adds(keras.Model(images, layer(layer(images)))) == 2 * expected


def test_multiply_adds_of_attention_and_of_inner_models_of_any_size():
    words = keras.Input((6, 8))
    attention = keras.layers.MultiHeadAttention(2, 4)(words, words)
    assert counts.multiply_adds(keras.Model(words, attention)) == 4 * 6 * 8 * 8 + 2 * 2 * 6 * 6 * 4
    backbone = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(3, 3)])
    images = keras.Input((9, 9, 3))
    assert counts.multiply_adds(keras.Model(images, backbone(backbone(images)))) == (49 + 25) * 81


@pytest.mark.slow
def test_multiply_adds_agree_with_the_profiler():
    import tensorflow as tf
    from tensorflow.python.framework import ops

    model = cifar_network(PUBLISHED["DARTS_V2"], 8, 5, image_shape=(32, 32, 3))
    call = tf.function(lambda x: model(x)).get_concrete_function(tf.TensorSpec([1, 32, 32, 3]))
    graph = without_variables(call).graph
    counted = [op for op in graph.get_operations() if op.type in ("Conv2D", "DepthwiseConv2dNative", "MatMul")]
    flops = sum(ops.get_stats_for_node_def(graph, op.node_def, "flops").value for op in counted)
    assert counts.multiply_adds(model) == flops / 2
