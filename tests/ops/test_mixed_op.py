import keras
import numpy as np
import pytest
import tensorflow as tf

from darts_tf.ops.mixed_op import MixedOp
from darts_tf.ops.operations import _REGISTRY, Operation, get_operation, register_operation
from darts_tf.ops.stages import BatchNorm, Conv, Pool, ReLU
from darts_tf.spaces.cells.space import PRIMITIVES


@pytest.fixture
def registry():
    before = dict(_REGISTRY)
    yield
    _REGISTRY.clear()
    _REGISTRY.update(before)


@pytest.mark.parametrize("stride", [1, 2])
def test_is_the_weighted_sum_of_its_operations(stride):
    edges, channels = 3, 4
    mixed = MixedOp(PRIMITIVES, channels, edges, stride)
    x = tf.random.stateless_normal([2, 10, 8, channels], seed=[1, 0])
    weights = tf.nn.softmax(tf.random.stateless_normal([edges, len(PRIMITIVES)], seed=[1, 1]))
    y = mixed(x, weights, training=True)
    for edge, part in enumerate(tf.split(y, edges, -1)):
        expected = 0
        for index, name in enumerate(PRIMITIVES):
            made = get_operation(name)(stride=stride, affine=False)
            made += [BatchNorm()] if made and isinstance(made[-1], Pool) else []
            operation = Operation(made, channels)
            operation.build(x.shape)
            if index in mixed.grouped:
                for theirs, ours in zip(
                    mixed.grouped[index].trainable_variables, operation.trainable_variables, strict=True
                ):
                    axis = 2 if theirs.shape[3] == 1 else 3
                    ours.assign(np.split(np.asarray(theirs), edges, axis)[edge])
            expected += weights[edge, index] * operation(x, training=True)
        np.testing.assert_allclose(part, expected, atol=1e-5)


def test_frozen_weights_cost_no_gradients():
    mixed = MixedOp(PRIMITIVES, 4, 2)
    mixed.build((None, 8, 8, 4))
    variables = mixed.trainable_variables

    @tf.function
    def dalpha(x, weights, frozen):
        tensors = [tf.convert_to_tensor(variable) for variable in variables]
        tensors = [tf.stop_gradient(t) for t in tensors] if frozen else tensors
        with tf.GradientTape() as tape, keras.StatelessScope(zip(variables, tensors, strict=True)):
            tape.watch(weights)
            loss = tf.reduce_sum(mixed(x, weights, training=True) ** 2)
        return tape.gradient(loss, weights)

    x, weights = tf.random.stateless_normal([2, 8, 8, 4], seed=[2, 0]), tf.fill([2, len(PRIMITIVES)], 0.1)

    def filter_gradients(frozen):
        library = dalpha.get_concrete_function(x, weights, frozen).graph.as_graph_def().library
        functions = {f.signature.name: f for f in library.function}
        wanted = [name for name in functions if "backward" in name]
        return sum(len(functions[name].signature.output_arg) for name in wanted)

    assert filter_gradients(frozen=True) < filter_gradients(frozen=False) / 2
    np.testing.assert_allclose(dalpha(x, weights, True), dalpha(x, weights, False), rtol=1e-4)


def test_registered_operations(registry):
    @register_operation("conv_3x3")
    def conv_3x3(stride, affine):
        return [ReLU(), Conv((3, 3), (stride, stride)), BatchNorm(affine)]

    @register_operation("any_layer")
    def any_layer(stride, affine, channels):
        return keras.layers.Conv2D(channels, 1, strides=stride)

    mixed = MixedOp(["none", "conv_3x3", "any_layer"], 4, edges=2, stride=2)
    y = mixed(tf.ones([1, 8, 8, 4]), tf.constant([[0.2, 0.5, 0.3]] * 2), training=True)
    assert y.shape == (1, 4, 4, 8)
    assert len(mixed.trainable_variables) == 1 + 2 * 2  # one grouped kernel, and a layer per edge
    only = MixedOp(["any_layer"], 4, edges=2)
    assert only(tf.ones([1, 8, 8, 4]), tf.ones([2, 1])).shape == (1, 8, 8, 8)


def test_unknown_operation():
    with pytest.raises(ValueError, match=r"Unknown operation 'sep_conv_4x4': expected one of none, max_pool_3x3"):
        MixedOp(["sep_conv_4x4"], 4, 1)
