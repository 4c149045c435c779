import itertools
import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import darts_tf
from darts_tf import spaces
from darts_tf.ops import kernels, operations, stages
from darts_tf.spaces import models


def gradients(function, inputs):
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        y = function(*inputs)
        loss = tf.reduce_sum(tf.sin(y))
    return [y, *tape.gradient(loss, inputs)]


@pytest.mark.parametrize("size", [3, 5])
def test_depthwise_of_a_repeated_image(size):
    def depthwise(x, kernel):
        return kernels.depthwise_same(tf.tile(x, [1, 1, 1, 3]), kernel)

    x = tf.random.stateless_normal([2, 6, 7, 4], seed=[0, 1])
    kernel = tf.random.stateless_normal([size, size, 12, 1], seed=[0, 2])
    image = tf.TensorSpec([None] * 4)
    in_graph = tf.function(depthwise, input_signature=[image, tf.TensorSpec([size, size, None, 1])])
    with_tf = gradients(lambda x, k: tf.nn.depthwise_conv2d(tf.tile(x, [1, 1, 1, 3]), k, [1] * 4, "SAME"), [x, kernel])
    for ours, expected in zip(gradients(in_graph, [x, kernel]), with_tf, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


def test_batch_norm_in_graphs_is_that_of_tensorflow():
    x = 3 + tf.random.stateless_normal([4, 5, 6, 8], seed=[0, 3])
    gamma, beta = tf.random.stateless_normal([2, 8], seed=[0, 4])
    zeros, ones = tf.zeros([8]), tf.ones([8])

    @tf.function(input_signature=[tf.TensorSpec([None] * 4), tf.TensorSpec([None]), tf.TensorSpec([None])])
    def in_graph(x, gamma, beta):
        return kernels.batch_norm(x, gamma, beta, zeros, ones, True)[0]

    def by_parts(x, gamma, beta):
        mean, variance = tf.nn.moments(x, [0, 1, 2])
        return tf.nn.batch_normalization(x, mean, variance, beta, gamma, kernels.EPSILON)

    for ours, expected in zip(
        gradients(in_graph, [x, gamma, beta]), gradients(by_parts, [x, gamma, beta]), strict=True
    ):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


def test_kernels_that_compute_at_once_are_not_the_same():
    widths = [1, 3, 40, 200, 7, 90, 2, 150] * 3
    images = [1 + tf.random.stateless_normal([2, 8, 8, width], [width, 0]) for width in widths]

    def norm(x):
        zeros, ones = tf.zeros([tf.shape(x)[-1]]), tf.ones([tf.shape(x)[-1]])
        return kernels.batch_norm(x, ones, zeros, zeros, ones, True)

    of_any_width = kernels.shared(norm, [tf.TensorSpec([None] * 4)])

    @tf.function(autograph=False)
    def step(*images):
        with kernels.own_kernels():
            results = [of_any_width(x) for x in images]
            more = [of_any_width(y) for y, *_ in results]  # after these, so by their kernels
            gradients = tf.gradients([y**3 for y, *_ in more], images)
        return results, gradients

    def in_turn(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            result = norm(x)
            total = tf.reduce_sum(norm(result[0])[0] ** 3)
        return result, tape.gradient(total, x)

    expected = [in_turn(x) for x in images]
    for _ in range(20):
        for result, gradient, (right, slope) in zip(*step(*images), expected, strict=True):
            for ours, theirs in zip(result, right, strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(gradient, slope, rtol=1e-2, atol=1e-2)
    calls = [op for op in step.get_concrete_function(*images).graph.get_operations() if "PartitionedCall" in op.type]
    numbers = [(call.get_attr("f").name, call.get_attr("f").attr["_call"].i) for call in calls]
    assert len(calls) == 4 * len(images) and len(set(numbers)) == 2 * len(images), numbers


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_of_another_epsilon(training, dtype):
    x = tf.random.stateless_normal((4, 8, 8, 16), seed=[0, 5], dtype=dtype) / 10
    ones, zeros = tf.ones(16, dtype), tf.zeros(16, dtype)
    mean, variance = tf.nn.moments(x, [0, 1, 2]) if training else (zeros, ones / 100)
    y, *_ = kernels.batch_norm(x, ones, zeros, zeros, ones / 100, training, epsilon=0.1)
    np.testing.assert_allclose(y, (x - mean) / tf.sqrt(variance + 0.1), rtol=1e-4, atol=1e-5)


def test_batch_norm_keeps_no_result_in_memory():
    """The backward pass needs the input of a batch norm, not its result."""

    @tf.function(input_signature=[tf.TensorSpec([None] * 4)], experimental_attributes={"_noinline": True})
    def normalize(x):
        zeros, ones = tf.zeros([8]), tf.ones([8])
        return tf.tanh(kernels.batch_norm(tf.tanh(x), ones, zeros, zeros, ones, True)[0])

    @tf.function
    def gradient(x):
        return tf.gradients(normalize(x), x)

    library = gradient.get_concrete_function(tf.TensorSpec([2, 4, 4, 8])).graph.as_graph_def().library.function
    forward = [function for function in library if function.signature.name.startswith("__forward")]
    assert forward
    for function in forward:
        kept = list(function.ret.values())
        assert any(name.startswith("Tanh:") for name in kept)  # the input
        assert not any(name.startswith(("FusedBatchNormV3:y", "Squeeze")) for name in kept), kept


GENOTYPE = (
    "Genotype(normal=[('foreign', 0), ('skip_connect', 1)], normal_concat=[2], "
    "reduce=[('skip_connect', 0), ('foreign', 1)], reduce_concat=[2])"
)


def foreign(stride, affine, channels):
    inside = keras.layers.Conv2D(channels, 1, (1, stride), padding="same")
    return keras.Sequential([inside, keras.layers.Conv2D(channels, 1, (stride, 1))])


def pointwise(stride, affine):
    return [stages.Conv((1, 1), (stride, stride)), stages.BatchNorm(affine)]


def test_strided_pointwise_convolutions():
    x = tf.random.stateless_normal([2, 7, 8, 3], seed=[0, 5])
    for strides in ((1, 1), (2, 2), (1, 3)):
        for padding in ("same", "valid"):
            layer = keras.layers.Conv2D(5, 1, strides, padding=padding)
            expected = layer(x)
            kernels.reroute_strided_pointwise(layer)
            np.testing.assert_allclose(layer(x), expected, atol=1e-6)
            assert layer.get_config()["strides"] == strides


@pytest.mark.parametrize("kind", ["derived", "of others", "supernet"])
def test_no_filter_gradient_of_a_strided_pointwise_convolution_is_taken(kind, monkeypatch):
    """oneDNN's writes past its buffer where there are few channels."""
    for operation in (foreign, pointwise):
        monkeypatch.setitem(operations._REGISTRY, operation.__name__, operation)
    if kind == "supernet":
        primitives = ["foreign", "pointwise"]
        network = darts_tf.SearchNetwork(channels=4, layers=3, num_classes=2, nodes=1, primitives=primitives)
    elif kind == "derived":
        network = darts_tf.imagenet_network(spaces.from_text(GENOTYPE), 4, 3, 2, (32, 32, 3))
    else:
        images = keras.Input((32, 32, 3))
        inner = keras.Sequential([keras.Input((16, 16, 4)), keras.layers.Conv2D(6, 1, 2)])
        x = keras.layers.Flatten()(inner(keras.layers.Conv2D(4, 1, 2)(images)))
        model = keras.Model(images, keras.layers.Dense(3)(x))
        network = models.with_new_classes(model, 2, (np.zeros(3), np.ones(3)))
    if not network.built:
        network.build((None, 32, 32, 3))

    @tf.function(input_signature=[tf.TensorSpec([2, 32, 32, 3])])
    def gradient(x):
        with tf.GradientTape() as tape:
            y = network(x, training=True)
        return tape.gradient(y, [variable.value for variable in network.trainable_variables])

    graph = gradient.get_concrete_function().graph
    filters = [op for op in graph.get_operations() if op.type == "Conv2DBackpropFilter"]
    assert filters
    for op in filters:
        assert max(op.get_attr("strides")) == 1 or tuple(op.outputs[0].shape[:2]) != (1, 1), op.name
    for function in graph.as_graph_def().library.function:  # what nodes share; of the operations here none is larger
        for node in function.node_def:
            assert node.op != "Conv2DBackpropFilter" or max(node.attr["strides"].list.i) == 1, node.name


@pytest.mark.soak
def test_few_channels_leave_memory_intact(tmp_path):
    """Trains with oneDNN, which TensorFlow uses by itself on some CPUs only."""
    from PIL import Image

    draw = np.random.default_rng(0)
    for split, label, number in itertools.product(("train", "val"), "ab", range(8)):
        folder = tmp_path / "images" / split / label
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (256, 256, 3), np.uint8)).save(folder / f"{number}.png")
    flags = ["--recipe=imagenet", "--arch=DARTS_V1", "--layers=3", "--init_channels=4", "--batch_size=4", "--epochs=2"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "darts_tf.train",
            *flags,
            f"--dataset={tmp_path / 'images'}",
            f"--output={tmp_path}/run",
        ],
        capture_output=True,
        text=True,
        env=os.environ | {"TF_ENABLE_ONEDNN_OPTS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.soak
def test_operations_that_run_at_once_leave_memory_intact():
    """Many steps on small images, where kernels of both threads overlap most."""
    sizes = ["--init_channels=8", "--layers=5", "--batch_size=32", "--image_size=8", "--steps=60"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.search_step", *sizes],
        capture_output=True,
        text=True,
        cwd=pathlib.Path(__file__).parents[2],
        env=os.environ | {"TF_ENABLE_ONEDNN_OPTS": "1"},
        check=False,
    )
    assert done.returncode == 0 and json.loads(done.stdout)["steps"] == 60, done.stderr[-2000:]
