import collections

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from darts_tf.devices import tflite

LAYERS = keras.layers
SIZE = 6, 8, 4


def network():
    """Of what TFLite's int8 does not compute by XNNPACK, and of what depends on the size of a batch."""
    images = keras.Input(SIZE)
    x = LAYERS.Conv2D(4, 1)(images)
    y = LAYERS.ReLU()(LAYERS.BatchNormalization()(x))  # part of the convolution but that `x` is wanted, too
    pooled = [LAYERS.AveragePooling2D(3, stride, "same")(x) for stride in (1, 2)]
    large = [LAYERS.DepthwiseConv2D(7, padding="same")(x), LAYERS.DepthwiseConv2D((9, 4), 2, padding="same")(x)]
    z = LAYERS.Add()([x, y, pooled[0], LAYERS.Activation("relu")(x), large[0]])
    z = LAYERS.AveragePooling2D(1, 2)(LAYERS.AveragePooling2D(2, 1, "same")(LAYERS.Conv2D(4, 1)(LAYERS.ReLU()(z))))
    z = LAYERS.ReLU()(LAYERS.Concatenate()([z, pooled[1], large[1]]))
    shared = LAYERS.ReLU()
    z = LAYERS.Add()([shared(z), shared(shared(z))])
    z = LAYERS.Reshape((3, 4, 12))(LAYERS.Permute((1, 2, 4, 3))(LAYERS.Reshape((3, 4, 2, 6))(z)))
    return keras.Model(images, LAYERS.Dense(3)(LAYERS.GlobalAveragePooling2D()(LAYERS.ReLU(6.0)(z))))


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return network()


def test_what_is_suited_computes_the_same(model):
    x = np.random.default_rng(0).normal(size=(3, *SIZE)).astype(np.float32)
    for quantized in (False, True):
        suited = tflite.suited(model, quantized)
        np.testing.assert_allclose(suited(x), model(x), rtol=1e-5, atol=1e-6)
        assert suited is not model and len(suited.weights) == len(model.weights)


def test_a_model_that_is_suited_stays(model):
    plain = keras.Model(model.inputs, LAYERS.Conv2D(2, 3)(model.inputs[0]))
    assert tflite.suited(plain, quantized=True) is plain
    several = keras.Model(model.inputs, {"y": model.output})
    assert tflite.suited(several, quantized=True) is several


def test_xnnpack_computes_all_of_an_int8_file(model):
    """As one partition; of batches of any size."""
    x = np.random.default_rng(0).normal(size=(20, *SIZE)).astype(np.float32)

    def more(converter):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: ([image[None]] for image in x)

    suited = tflite.suited(model, quantized=True)
    call = tf.function(lambda x: suited(x, training=False), autograph=False)
    content = tflite.converted(call.get_concrete_function(tf.TensorSpec((None, *SIZE))), more)
    interpreter = Interpreter(model_content=content)
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], x.shape)
    interpreter.allocate_tensors()
    operations = collections.Counter(one["op_name"] for one in interpreter._get_ops_details())
    assert operations["DELEGATE"] == 1 and not {"AVERAGE_POOL_2D", "RELU", "SHAPE"} & set(operations), operations
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    expected = model(x).numpy()
    assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()
