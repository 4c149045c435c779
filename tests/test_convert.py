import json
import re

import keras
import numpy as np
import processes
import pytest

from darts_tf.cli import files
from darts_tf.spaces.cells import pytorch
from darts_tf.spaces.cells.derived import cifar_network
from darts_tf.spaces.cells.genotypes import PUBLISHED, Genotype


@pytest.fixture
def checkpoint(request):
    """A state dict of the original, its genotype's name, an image and the original's logits."""
    file = request.config.getoption("reference") / "cifar_DARTS_V2_auxiliary.npz"
    if not file.exists():
        pytest.skip(f"no {file}")
    arrays = np.load(file)
    state = {key.removeprefix("state/"): value for key, value in arrays.items() if key.startswith("state/")}
    state["stem.1.num_batches_tracked"] = np.array(7)
    return state, arrays["x"].transpose(0, 2, 3, 1), arrays["eval/logits"]


def run(*arguments):
    return processes.run("darts_tf.convert", *arguments)


def check_model(path, x, logits):
    model = keras.models.load_model(path)
    mean, std = map(np.array, pytorch.CIFAR)
    pixels = 255 * (x * std + mean)
    np.testing.assert_allclose(model.predict(pixels.astype("float32"), verbose=0), logits, rtol=1e-3, atol=1e-4)


def test_a_checkpoint_becomes_a_keras_model(checkpoint, tmp_path):
    state, x, logits = checkpoint
    np.savez(tmp_path / "model.npz", **state)
    done = run(tmp_path / "model.npz", "--arch=DARTS_V2", f"--output={tmp_path}/model.keras", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["image_shape"], found["classes"]) == ([32, 32, 3], 10) and found["parameters"] > 1000
    check_model(tmp_path / "model.keras", x, logits)


def test_a_checkpoint_of_torch(checkpoint, tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed: make test-torch")
    state, x, logits = checkpoint
    tensors = {f"module.{name}": torch.tensor(array) for name, array in state.items()}
    torch.save({"epoch": 3, "state_dict": tensors}, tmp_path / "model.pt", _use_new_zipfile_serialization=False)
    done = run(tmp_path / "model.pt", "--arch=DARTS_V2", f"--output={tmp_path}/model.keras")
    assert done.returncode == 0, done.stderr
    check_model(tmp_path / "model.keras", x, logits)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"cells.0._ops.2.op.1.weight": None}, "it has no tensor for cell0_edge2_1/kernel"),
        (
            {"cells.0._ops.7.op.1.weight": np.zeros((4, 1, 5, 5))},
            "its tensor cells.0._ops.7.op.1.weight is (4, 1, 5, 5), the network expects (4, 1, 3, 3)",
        ),
        (
            {"cells.0._ops.5.op.1.weight": np.zeros((4, 1, 3, 3))},
            "it has a tensor cells.0._ops.5.op.1.weight",
        ),
        (
            {"cells.0._ops.8.op.1.weight": np.zeros((4, 1, 3, 3))},
            "it has a tensor cells.0._ops.8.op.1.weight",
        ),
    ],
)
def test_another_architecture_is_refused_and_changes_nothing(change, message, checkpoint):
    state = {name: array for name, array in (checkpoint[0] | change).items() if array is not None}
    network = pytorch.network_for(state, PUBLISHED["DARTS_V2"])
    before = network.get_weights()
    with pytest.raises(pytorch.CheckpointError, match=re.escape(message)):
        pytorch.set_weights(network, PUBLISHED["DARTS_V2"], state)
    assert all((a == b).all() for a, b in zip(before, network.get_weights(), strict=True))


STATE = {
    "stem.0.weight": np.ones((12, 3, 3, 3)),
    "cells.0.preprocess0.op.1.weight": np.ones((8, 12, 1, 1)),
    "classifier.weight": np.ones((3, 32)),
    "classifier.bias": np.ones(3),
}


@pytest.mark.parametrize(
    "name, array, message",
    [
        ("stem.0.weight", np.array(3.0), "its tensor stem.0.weight is (): expected 4 dimensions"),
        ("stem.0.weight", np.ones((12, 3, 3, 3, 1)), "expected 4 dimensions"),
        ("stem.0.weight", np.ones((0, 3, 3, 3)), "its tensor stem.0.weight (0, 3, 3, 3) is empty"),
        ("stem.0.weight", np.ones((2, 3, 3, 3)), "are for 3 channels and 2: expected images"),
        ("stem.0.weight", np.ones((12, 7, 3, 3)), "are for 7 channels and 12: expected images"),
        ("classifier.bias", np.array(1.0), "its tensor classifier.bias is (): expected 1 dimensions"),
        ("classifier.weight", np.ones((2, 2, 2)), "the network expects (3, "),
        ("cells.0.preprocess0.op.1.weight", np.array(1.0), "its tensor cells.0.preprocess0.op.1.weight is (), the"),
        ("cells.3000.preprocess0.op.1.weight", np.ones(1), "it has no tensor cells.1: expected"),
        (f"cells.{'9' * 5000}.x", np.ones(1), "the network has no such weight"),
        ("cells.-1.x", np.ones(1), "the network has no such weight"),
        ("stem_0.weight", np.ones((12, 3, 3, 3)), "it has two tensors for stem_0/kernel of the network: stem_0.weight"),
        ("x", np.full(3, np.nan), "its tensor x (3,) is empty or holds NaN"),
        ("x", np.full(3, 1e300), "its tensor x (3,) is empty or holds NaN"),
        ("x", np.array(["a"]), "its tensor x is <U1: expected numbers"),
        ("x", np.ones(3, complex), "its tensor x is complex128: expected numbers"),
        ("x", np.array([None]), "not a readable state dict"),
    ],
)
def test_tensors_of_other_kinds(name, array, message, tmp_path):
    np.savez(tmp_path / "model.npz", **(STATE | {name: array}))
    with pytest.raises(pytorch.CheckpointError, match=re.escape(message)), np.errstate(over="ignore"):
        state = pytorch.read(tmp_path / "model.npz")
        network = pytorch.network_for(state, PUBLISHED["DARTS_V2"])
        pytorch.set_weights(network, PUBLISHED["DARTS_V2"], state)


def test_an_archive_that_unpacks_to_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "UNPACKED", 1 << 20)
    np.savez_compressed(tmp_path / "model.npz", x=np.zeros(1 << 20))
    with pytest.raises(pytorch.CheckpointError, match="it unpacks from"):
        pytorch.read(tmp_path / "model.npz")


def test_tensors_of_a_node_that_leads_nowhere_are_left_out():
    pairs = [("sep_conv_3x3", 0), ("skip_connect", 1), ("dil_conv_3x3", 0), ("dil_conv_3x3", 1)]
    genotype = Genotype(pairs, [3], pairs, [3])
    network = cifar_network(genotype, 4, 3, image_shape=(8, 8, 3))
    state = {}
    for layer in network.layers:
        for name, variable in pytorch._variables(layer).items():
            depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
            original = re.sub(r"^cell(\d+)_edge(\d+)_(\w+)$", r"cells.\1._ops.\2.op.\3", layer.name)
            original = re.sub(r"^cell(\d+)_preprocess(\d)_(\d+)$", r"cells.\1.preprocess\2.op.\3", original)
            original = re.sub(r"(op\.)?1_conv_(\d)$", r"conv_\2", original.replace("stem_", "stem."))
            original = re.sub(r"^cell(\d+)_preprocess0_conv_(\d)$", r"cells.\1.preprocess0.conv_\2", original)
            state[f"{original}.{name}"] = np.ones(pytorch.to_original_shape(variable.shape, depthwise), np.float32)
    assert not any("_ops.0." in name or "_ops.1." in name for name in state)
    state["cells.0._ops.0.op.1.weight"] = np.ones((4, 1, 3, 3), np.float32)
    pytorch.set_weights(network, genotype, state)
    assert all((np.asarray(weights) == 1).all() for weights in network.trainable_variables)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "expected CHECKPOINT, see --help"),
        (["a.npz", "b.npz", "--arch=DARTS_V2"], "b.npz: expected CHECKPOINT and flags"),
        (["a.npz", "--output=a.keras"], "--arch: expected a value"),
        (["missing.npz", "--arch=DARTS_V2", "--output=OUT/a.keras"], "missing.npz: no such file"),
        (["a.npz", "--arch=DARTS_V2", "--output=OUT/a.h5"], "a.h5: expected a file name in an existing folder, ending"),
        (["a.npz", "--arch=no", "--output=OUT/a.keras"], "--arch=no: Not a genotype"),
        (["a.npz", "--arch=mlp:128:gelu", "--output=OUT/a.keras"], "--arch=mlp:128:gelu: it is of another space"),
        (["OUT/broken.npz", "--arch=DARTS_V2", "--output=OUT/a.keras"], "not a readable state dict"),
        (
            ["OUT/empty.npz", "--arch=DARTS_V2", "--output=OUT/a.keras"],
            "it has no tensor stem.0.weight: expected",
        ),
    ],
)
def test_wrong_command_lines(arguments, message, tmp_path):
    (tmp_path / "broken.npz").write_text("no")
    np.savez(tmp_path / "empty.npz", x=np.zeros(3))
    done = run(*(argument.replace("OUT", str(tmp_path)) for argument in arguments))
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"broken.npz", "empty.npz"}
