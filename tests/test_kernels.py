import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from darts_tf import kernels


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


@pytest.mark.slow
def test_operations_that_run_at_once_leave_memory_intact():
    """Hundreds of steps on small images, where kernels of both threads overlap most."""
    sizes = ["--init_channels=8", "--layers=5", "--batch_size=32", "--image_size=8", "--steps=100"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.search_step", *sizes],
        capture_output=True,
        text=True,
        cwd=pathlib.Path(__file__).parent.parent,
        check=False,
    )
    assert done.returncode == 0 and json.loads(done.stdout)["steps"] == 100, done.stderr[-2000:]
