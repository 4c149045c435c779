import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from darts_tf.ops import kernels, mixed_op
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


def parts_of(variable, mixed, index):
    """The parts of a weight of a grouped operation that belong to its edges, {edge: array}."""
    operation = mixed.grouped[index]
    owned = zip(operation.specs, itertools.chain(*operation.variables_by_stage), strict=True)
    spec = next(spec for spec, own in owned if own is variable)
    edges = np.flatnonzero(mixed.candidates[:, index])
    return dict(zip(edges, np.split(np.asarray(variable), len(edges), spec.free[-1]), strict=True))


def one_by_one(mixed, primitives, stride, channels):
    """Operations of one edge with the weights of a mixed operation, {(edge, index): layer}."""
    made = {}
    for edge, index in np.argwhere(mixed.candidates):
        stages = get_operation(primitives[index])(stride=stride, affine=False)
        stages += [BatchNorm()] if stages and isinstance(stages[-1], Pool) else []
        made[edge, index] = operation = Operation(stages, channels)
        operation.build((None, None, None, channels))
        if index in mixed.grouped:
            for theirs, ours in zip(mixed.grouped[index].weights, operation.weights, strict=True):
                ours.assign(parts_of(theirs, mixed, index)[edge])
    return made


MASK = np.random.default_rng(3).random((4, len(PRIMITIVES))) < 0.5
MASK[0], MASK[:, 0], MASK[:, -1] = True, True, [True, False, False, False]
HARD = np.eye(len(PRIMITIVES))
CASES = {
    "all": (None, None, {}),
    "some": (MASK, None, {}),
    "drawn": (None, [4, 1, 4, 3], {"drawn": True}),
    "none drawn": (None, [0, 0, 7, 0], {"drawn": True}),
    "only none drawn": (None, [0, 0, 0, 0], {"drawn": True}),
    "with others": (None, [2, 5, 6, 7], {"drawn": True, "others": True}),
    "drawn of some": (MASK, [row.nonzero()[0][-1] for row in MASK], {"drawn": True}),
}


@pytest.mark.parametrize(
    "case, stride, grouped_kernels",
    [*itertools.product(CASES, (1, 2), [True]), *(("drawn of some", stride, False) for stride in (1, 2))],
)
def test_is_the_weighted_sum_of_its_operations(case, stride, grouped_kernels, monkeypatch):
    if not grouped_kernels:
        monkeypatch.setattr(kernels, "_has_grouped_convolutions", lambda dtype: False)
        mixed_op._edges_at_once.cache_clear()
    mask, chosen, options = CASES[case]
    edges, channels = 4, 3
    mixed = MixedOp(PRIMITIVES, channels, edges, stride, mask)
    x = tf.random.stateless_normal([2, 7, 8, channels], seed=[1, 0])
    mixed.build(x.shape)
    for number, variable in enumerate(mixed.weights):
        start = tf.random.stateless_normal(variable.shape, [2, number])
        variable.assign(start if variable.trainable else 0.5 + start**2)
    plain = one_by_one(mixed, PRIMITIVES, stride, channels)
    for (_, index), operation in plain.items():
        if index in mixed.shared:
            for theirs, ours in zip(mixed.shared[index].weights, operation.weights, strict=True):
                ours.assign(theirs)
    weights = tf.nn.softmax(tf.random.stateless_normal([edges, len(PRIMITIVES)], seed=[1, 1]))
    weights = weights if chosen is None else tf.constant(HARD[chosen], tf.float32)
    weights = weights if mask is None else tf.where(mask, weights, 0)
    cotangent = tf.random.stateless_normal([2, 7 if stride == 1 else 4, 8 // stride, edges * channels], seed=[1, 2])

    @tf.function
    def ours():
        with tf.GradientTape() as tape:
            tape.watch([x, weights])
            y = mixed(x, weights, training=True, **options)
            loss = tf.reduce_sum(y * cotangent)
        return y, tape.gradient(
            loss, [x, weights, [v.value for v in mixed.trainable_variables]], unconnected_gradients="zero"
        )

    with tf.GradientTape() as tape:
        tape.watch([x, weights])
        parts = []
        for edge in range(edges):
            part = tf.zeros_like(cotangent[..., :channels])
            for index in range(len(PRIMITIVES)):
                if (edge, index) not in plain:
                    continue
                if chosen is None or chosen[edge] == index:
                    part += weights[edge, index] * plain[edge, index](x, training=True)
                elif options.get("others"):
                    part += weights[edge, index]
            parts.append(part)
        loss = tf.reduce_sum(tf.concat(parts, -1) * cotangent)
    kernels_of = {key: operation.trainable_variables for key, operation in plain.items()}
    expected = tape.gradient(
        loss,
        [x, weights, {str(key[0]) + str(key[1]): [v.value for v in own] for key, own in kernels_of.items()}],
        unconnected_gradients="zero",
    )
    y, (dx, dweights, dkernels) = ours()
    np.testing.assert_allclose(y, tf.concat(parts, -1), atol=3e-5)
    np.testing.assert_allclose(dx, expected[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(dweights, expected[1], rtol=1e-4, atol=1e-3)
    gradients = {id(v): d for v, d in zip(mixed.trainable_variables, dkernels, strict=True)}
    for index, operation in mixed.grouped.items():
        own = np.flatnonzero(mixed.candidates[:, index])
        trainable = [spec for spec in operation.specs if spec.trainable]
        for place, (spec, variable) in enumerate(zip(trainable, operation.trainable_variables, strict=True)):
            for edge, part in zip(own, np.split(gradients[id(variable)], len(own), spec.free[-1]), strict=True):
                np.testing.assert_allclose(part, expected[2][f"{edge}{index}"][place], rtol=1e-3, atol=1e-3)
        for place, variable in enumerate(operation.moving):
            for edge, part in parts_of(variable, mixed, index).items():
                np.testing.assert_allclose(part, plain[edge, index].moving[place], rtol=1e-4, atol=1e-4)
    for index, operation in mixed.shared.items():
        drew = [edge for edge in range(edges) if (edge, index) in plain and (chosen is None or chosen[edge] == index)]
        edge = drew[0] if drew else next(edge for edge in range(edges) if (edge, index) in plain)
        for ours_, theirs in zip(operation.weights, plain[edge, index].weights, strict=True):
            np.testing.assert_allclose(ours_, theirs, rtol=1e-4, atol=1e-4)
    assert np.isfinite(y).all()
    if not grouped_kernels:
        mixed_op._edges_at_once.cache_clear()


def test_frozen_weights_cost_no_gradients():
    mixed = MixedOp(PRIMITIVES, 4, 2)
    mixed.build((None, 8, 8, 4))
    variables = mixed.trainable_variables

    @tf.function
    def dalpha(x, weights, frozen):
        tensors = [tf.convert_to_tensor(variable) for variable in variables]
        tensors = kernels.frozen(tensors) if frozen else tensors
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


def test_an_operation_goes_on_after_its_batch_norm(registry):
    @register_operation("pool_norm_relu")
    def pool_norm_relu(stride, affine):
        return [Pool("avg", stride), BatchNorm(affine), ReLU()]

    x = tf.random.stateless_normal([2, 8, 8, 4], [0, 1])
    y = MixedOp(["none", "pool_norm_relu"], 4, edges=1)(x, tf.constant([[0.0, 1.0]]), training=True)
    pooled = tf.nn.avg_pool2d(x, 3, 1, "SAME")
    mean, variance = tf.nn.moments(pooled, [0, 1, 2])
    np.testing.assert_allclose(y, tf.nn.relu((pooled - mean) / tf.sqrt(variance + 1e-5)), atol=1e-4)


def test_unknown_operation():
    with pytest.raises(ValueError, match=r"Unknown operation 'sep_conv_4x4': expected one of none, max_pool_3x3"):
        MixedOp(["sep_conv_4x4"], 4, 1)
