import keras
import numpy as np
import pytest
import tensorflow as tf

from darts_tf.ops import kernels, stages
from darts_tf.ops.operations import Operation, compute, get_operation, operation_names


def copy_edge(source, target, edge, edges):
    """Gives `target`, an operation on one edge, the weights of one edge of `source`."""
    for theirs, ours in zip(source.weights, target.weights, strict=True):
        axis = next(i for i, (a, b) in enumerate(zip(theirs.shape, ours.shape, strict=True)) if a != b)
        ours.assign(np.split(np.asarray(theirs), edges, axis=axis)[edge])


@pytest.mark.parametrize("grouped_kernels", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", operation_names())
def test_edges_at_once_are_edges_one_by_one(name, stride, grouped_kernels, monkeypatch):
    if not grouped_kernels:
        monkeypatch.setattr(kernels, "_has_grouped_convolutions", lambda dtype: False)
    x = tf.random.stateless_normal([2, 9, 12, 3 * 4], seed=[0, 1])
    together = Operation(get_operation(name)(stride=stride, affine=True), channels=4, groups=3)
    expected = []
    y = together(x, training=True)
    assert y.shape == (2, 9 if stride == 1 else 5, 12 // stride, 12)
    for edge, part in enumerate(tf.split(x, 3, axis=-1)):
        alone = Operation(get_operation(name)(stride=stride, affine=True), channels=4)
        alone.build(part.shape)
        copy_edge(together, alone, edge, 3)
        expected.append(alone(part, training=True))
    np.testing.assert_allclose(y, tf.concat(expected, -1), atol=2e-5)


@pytest.mark.parametrize(
    "stage", [stages.Conv(bias=True), stages.Conv((3, 3), (2, 2), bias=True), stages.FactorizedReduce(bias=True)]
)
def test_biases_are_of_each_edge(stage):
    x = tf.random.stateless_normal([2, 9, 12, 3 * 4], seed=[0, 1])
    together = Operation([stage], channels=5, groups=3)
    y, expected = together(x), []
    for edge, part in enumerate(tf.split(x, 3, axis=-1)):
        alone = Operation([stage], channels=5)
        alone.build(part.shape)
        copy_edge(together, alone, edge, 3)
        expected.append(alone(part))
        images = keras.Input(part.shape[1:])
        model = keras.Model(images, stage.layers(images, 5, "stage"))
        by_name = {variable.path.replace("/", "_"): variable for variable in model.variables}
        for spec, ours in zip(alone.specs, alone.weights, strict=True):
            name = "stage" if spec.name in ("kernel", "bias") else f"stage_{spec.name[:6]}"
            by_name[f"{name}_{'bias' if 'bias' in spec.name else 'kernel'}"].assign(ours)
        np.testing.assert_allclose(model(part), expected[-1], atol=1e-5)
    np.testing.assert_allclose(y, tf.concat(expected, -1), atol=1e-5)
    assert float(tf.reduce_max(tf.abs(together.weights[-1]))) > 0


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("image", [(8, 8), (7, 9), (2, 3)])
def test_dilation(size, image):
    x = tf.random.stateless_normal([2, *image, 4], seed=[0, 2])
    kernel = tf.random.stateless_normal([size, size, 4, 1], seed=[0, 3])
    y, _ = compute([stages.Depthwise(size, dilation=2)], x, [[kernel]], 1, True)
    stuffed = np.zeros([2 * size - 1, 2 * size - 1, 4, 1], np.float32)
    stuffed[::2, ::2] = kernel
    np.testing.assert_allclose(y, tf.nn.depthwise_conv2d(x, stuffed, [1, 1, 1, 1], "SAME"), atol=1e-4)


def test_batch_norm_follows_its_batches():
    operation = Operation([stages.BatchNorm()], channels=3)
    x = 5 + 2 * tf.random.stateless_normal([64, 8, 8, 3], seed=[0, 4])
    for _ in range(100):
        y = operation(x, training=True)
    np.testing.assert_allclose(tf.math.reduce_std(y, [0, 1, 2]), 1, atol=1e-3)
    np.testing.assert_allclose(operation(x, training=False), y, atol=1e-2)


@pytest.mark.parametrize("name", operation_names())
def test_no_seed_is_drawn_for_weights_that_there_are_not(name, monkeypatch):
    """Every initializer draws one, so that one too many would change all weights that are made after it."""
    made, uniform = [], stages._uniform
    monkeypatch.setattr(stages, "_uniform", lambda fan_in: made.append(fan_in) or uniform(fan_in))
    weights = [w for stage in get_operation(name)(stride=2, affine=True) for w in stage.weights(4, 4, 1)]
    assert len(made) == sum(isinstance(w.initializer, keras.initializers.RandomUniform) for w in weights)
