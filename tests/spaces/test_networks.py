import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from darts_tf.cli.files import save_model
from darts_tf.methods.optimizers import SGD
from darts_tf.ops import operations
from darts_tf.ops.drop_path import DropPath
from darts_tf.spaces.cells.derived import cifar_network, imagenet_network
from darts_tf.spaces.cells.genotypes import PUBLISHED, Genotype
from darts_tf.spaces.models import inference_model, with_new_classes

SIZES = [(8, 8), (9, 9), (12, 9), (11, 16)]
SMALL = Genotype(
    normal=[("sep_conv_3x3", 0), ("skip_connect", 1), ("dil_conv_5x5", 2), ("none", 0)],
    normal_concat=[3, 0],
    reduce=[("max_pool_3x3", 0), ("conv_7x1_1x7", 1)],
    reduce_concat=[2],
)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", operations.operation_names())
def test_an_operation_is_the_same_in_the_supernet_and_in_a_derived_network(name, stride):
    for size in SIZES:
        made = operations.make_operation(name, 5, stride, affine=True)
        images = keras.Input((*size, 5))
        model = keras.Model(images, operations.layers(made, images, 5, "op"))
        operation = operations.Operation(made, 5)
        operation.build((None, *size, 5))
        variables = [
            variable for variable in model.variables if "moving" not in variable.name and "seed" not in variable.name
        ]
        for ours, theirs in zip(variables, operation.trainable_variables, strict=True):
            ours.assign(tf.random.stateless_normal(ours.shape, [len(ours.path), 1]))
            theirs.assign(ours)
        x = tf.random.stateless_normal([2, *size, 5], [1, 2])
        for training in (False,) if name == "noise" else (False, True):
            expected = operation(x, training=training)
            assert expected.shape == (2, -(-size[0] // stride), -(-size[1] // stride), 5)
            np.testing.assert_allclose(model(x, training=training), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("build", [cifar_network, imagenet_network])
@pytest.mark.parametrize("image_shape", [(8, 8, 1), (9, 13, 2), (17, 8, 4)])
def test_images_of_all_sizes(build, image_shape):
    network = build(SMALL, 4, 3, 7, image_shape, auxiliary=True, drop_path=True)
    logits, auxiliary = network(tf.zeros([2, *image_shape]), training=True)
    assert logits.shape == auxiliary.shape == (2, 7)
    assert inference_model(network).output_shape == (None, 7)


def test_what_is_saved_opens_without_this_package(tmp_path):
    network = cifar_network(
        PUBLISHED["NASNet"], 4, 4, 5, (9, 8, 3), auxiliary=True, drop_path=True, normalization=([1, 2, 3], [4, 5, 6])
    )
    x = np.random.default_rng(0).normal(size=(4, 9, 8, 3)).astype(np.float32)
    for variable in network.variables:
        if "moving" in variable.name:
            variable.assign(tf.random.stateless_uniform(variable.shape, [1, len(variable.path)]) + 0.5)
    save_model(inference_model(network), tmp_path / "model.keras")
    np.savez(tmp_path / "x.npz", x=x, logits=network(x)[0])
    script = (
        "import sys; sys.modules['darts_tf'] = None\n"
        "import keras, numpy as np\n"
        "model = keras.models.load_model('model.keras')\n"
        "arrays = np.load('x.npz')\n"
        "np.testing.assert_allclose(model.predict(arrays['x'], verbose=0), arrays['logits'], atol=1e-5)\n"
        "assert all(type(layer).__module__.startswith('keras.') for layer in model.layers)\n"
        "assert not any('auxiliary' in layer.name or 'drop' in layer.name for layer in model.layers)\n"
        "loss, accuracy = model.evaluate(arrays['x'], arrays['logits'].argmax(1), verbose=0)\n"
        "assert accuracy == 1\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_drop_path_drops_whole_edges_but_no_identities():
    network = cifar_network(SMALL, 4, 3, drop_path=True, image_shape=(8, 8, 3))
    dropped = {layer.name for layer in network.layers if isinstance(layer, DropPath)}
    expected = {f"cell0_edge{edge}_drop_path" for edge in (0, 2, 3)}
    expected |= {f"cell{cell}_edge{edge}_drop_path" for cell in (1, 2) for edge in (0, 1)}
    assert dropped == expected

    layer, x = DropPath(), tf.ones([1000, 2, 2, 3])
    np.testing.assert_array_equal(layer(x, training=True), x)
    layer.rate.assign(0.25)
    y = layer(x, training=True).numpy()
    assert ((y == 0).all(axis=(1, 2, 3)) | np.isclose(y, 1 / 0.75).all(axis=(1, 2, 3))).all()
    assert 0.2 < (y == 0).mean() < 0.3
    assert (y != layer(x, training=True).numpy()).any()
    np.testing.assert_array_equal(layer(x), x)


def test_the_auxiliary_head_counts_in_training_only():
    network = cifar_network(SMALL, 4, 3, 3, (8, 8, 1), auxiliary=True)
    network.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    x, y = tf.random.stateless_normal([6, 8, 8, 1], [0, 0]), tf.constant([0, 1, 2, 0, 1, 2])
    logits, auxiliary = network(x)
    alone, head = (float(network.loss(y, scores)) for scores in (logits, auxiliary))
    network.auxiliary_weight = 0.3
    assert np.isclose(network.compute_loss(x, y, [logits, auxiliary]), alone + 0.3 * head)
    loss, accuracy = network.evaluate(x, y, verbose=0)
    assert np.isclose(loss, alone, rtol=1e-4)
    assert np.isclose(accuracy, np.mean(np.argmax(logits, 1) == y))


def test_an_auxiliary_head_is_saved_with_its_weight(tmp_path):
    network = cifar_network(SMALL, 2, 3, 3, (8, 8, 1), auxiliary=True, drop_path=True)
    network.auxiliary_weight = 0.25
    network.compile(SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    network.optimizer.build(network.trainable_variables)
    network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    assert loaded.auxiliary_weight == 0.25 and isinstance(loaded.optimizer, SGD)
    x, y = tf.random.stateless_normal([6, 8, 8, 1], [0, 0]), tf.constant([0, 1, 2, 0, 1, 2])
    for ours, theirs in zip(network(x), loaded(x), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert float(loaded.compute_loss(x, y, loaded(x))) == float(network.compute_loss(x, y, network(x)))


def test_what_is_made_of_a_network_leaves_it_as_it_is():
    keras.config.set_dtype_policy("mixed_bfloat16")
    network = cifar_network(SMALL, 2, 3, 3, (8, 8, 1), auxiliary=True, drop_path=True)
    before = [layer.compute_dtype for layer in network.layers]
    keras.config.set_dtype_policy("float32")
    model = inference_model(network)
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    new = with_new_classes(model, 4, ([0], [1]))
    assert [layer.compute_dtype for layer in network.layers] == before
    model.get_layer("cell0_edge0_1").kernel.assign_add(tf.ones([3, 3, 2, 1]))
    for other in (network, new):
        difference = model.get_layer("cell0_edge0_1").kernel - other.get_layer("cell0_edge0_1").kernel
        np.testing.assert_allclose(difference, 1, atol=1e-6)


def test_nodes_that_lead_nowhere_are_left_out():
    reduce = PUBLISHED["DARTS_V2"].reduce
    network = cifar_network(Genotype(reduce, [3], reduce, [5]), 4, 3, image_shape=(8, 8, 3))
    names = {layer.name for layer in network.layers}
    assert {"cell0_node2", "cell0_node3", "cell1_node5"} <= names
    assert not names & {"cell0_node4", "cell0_node5"}


@pytest.mark.parametrize("head", [[], [keras.layers.Softmax()]])
def test_new_classes_keep_all_other_weights(head):
    model = cifar_network(SMALL, 4, 3, image_shape=(8, 9, 2), normalization=([0, 0], [1, 1]))
    if head:
        model = keras.Model(model.inputs, head[0](model.outputs[0]))
    new = with_new_classes(model, 3, ([1, 2], [3, 4]))
    assert new.output_shape == (None, 3)
    np.testing.assert_array_equal(new.get_layer("cell0_edge0_1").kernel, model.get_layer("cell0_edge0_1").kernel)
    np.testing.assert_allclose(new.get_layer("normalization")(tf.constant([[[[4.0, 6.0]]]])), [[[[1, 1]]]])
    with pytest.raises(ValueError, match="its last layer is GlobalAveragePooling2D: expected Dense"):
        with_new_classes(keras.Model(model.inputs, model.get_layer("pooling").output), 3, ([1, 2], [3, 4]))


def test_a_normalization_in_the_middle_stays():
    images = keras.Input((8, 8, 1))
    x = keras.layers.Normalization(mean=[0.5], variance=[0.1], name="inner")(keras.layers.Rescaling(1 / 255)(images))
    model = keras.Model(images, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    kept = with_new_classes(model, 3, ([9], [9])).get_layer("inner")
    assert float(kept.mean[0, 0, 0, 0]) == 0.5


def test_operations_of_the_user_may_be_layers():
    @operations.register_operation("conv_test")
    def conv_test(stride, affine, channels):
        return keras.layers.Conv2D(channels, 3, stride, "same")

    try:
        pairs = [("conv_test", 0), ("conv_test", 1)]
        network = cifar_network(Genotype(pairs, [2], pairs, [2]), 4, 3, image_shape=(9, 8, 1))
        assert sum(type(layer) is keras.layers.Conv2D and layer.use_bias for layer in network.layers) == 6
    finally:
        del operations._REGISTRY["conv_test"]


def test_wrong_arguments():
    with pytest.raises(ValueError, match="normal names the operation 'sep_conv_9x9': expected one of none, max_pool"):
        cifar_network(SMALL._replace(normal=[("sep_conv_9x9", 0)] * 4))
    with pytest.raises(ValueError, match="layers=0: expected at least 1 cell"):
        imagenet_network(SMALL, layers=0)
