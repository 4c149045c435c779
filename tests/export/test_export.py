"""The export of a classifier of the digits, and of others that this package did not make."""

import collections
import io
import itertools
import json
import struct
import subprocess
import sys
import threading
import zipfile

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.python.framework import op_def_registry
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from darts_tf.cli import files
from darts_tf.data import datasets
from darts_tf.data.images import decoded as trained_on
from darts_tf.private.keras import layers_within
from darts_tf.spaces.cells import genotypes
from darts_tf.spaces.cells.derived import cifar_network
from export import (
    ExportConfig,
    classifier,
    comparison,
    decoding,
    labels,
    locks,
    models,
    run_export,
    savedmodel,
    serving,
    tflite,
)


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory):
    """As a training leaves it: a small network with pools and dilated convolutions, trained on the digits."""
    folder = tmp_path_factory.mktemp("run")
    data = datasets.load("digits")
    pairs = [("sep_conv_3x3", 0), ("max_pool_3x3", 1), ("dil_conv_3x3", 2), ("skip_connect", 0)]
    genotype = genotypes.Genotype(pairs, [2, 3], pairs, [2, 3])
    keras.utils.set_random_seed(0)
    model = cifar_network(genotype, 8, 1, 10, data.image_shape, normalization=data.statistics())
    model.compile(keras.optimizers.Adam(0.003), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(data.x_train.astype("float32"), data.y_train, epochs=12, verbose=0)
    files.save_model(model, folder / "model.keras")
    names = [f"digit {name}" for name in data.class_names]
    (folder / "config.json").write_text(json.dumps({"dataset": "digits", "data": {"class_names": names}}))
    return folder


@pytest.fixture(scope="module")
def digits(run_directory):
    return classifier.load(run_directory / "model.keras")


@pytest.fixture(scope="module")
def expected(digits, images):
    probabilities = digits.probabilities(images)
    assert (probabilities.argmax(1) == datasets.load("digits").y_test).mean() > 0.9
    return probabilities


@pytest.fixture(scope="module")
def exported(run_directory, tmp_path_factory):
    """All formats."""
    output = tmp_path_factory.mktemp("serving")
    config = ExportConfig(model=run_directory / "model.keras", output=output, name="digits", top_k=3)
    return run_export(config, verbose=0)


@pytest.fixture(scope="module")
def base(exported):
    """A model's folder, with one version in it."""
    return exported.saved_model.parent


def test_what_an_export_returns(exported, base, digits, expected):
    assert exported.saved_model == base / "1" and not exported.failed
    formats = {"none": "float32", "float16": "float16", "dynamic": "dynamic", "int8": "int8"}
    made = {kind: base.parent / "tflite" / f"digits-{shown}.tflite" for kind, shown in formats.items()}
    assert exported.tflite == made and set((base.parent / "tflite").iterdir()) == set(made.values())
    shown = ["Keras", "SavedModel", *(f"TFLite {kind}" for kind in formats.values())]
    assert [row["format"] for row in exported.rows] == shown
    for row, size in zip(exported.rows[2:], (path.stat().st_size for path in made.values()), strict=True):
        assert row["bytes"] == size and row["agreement"] > 0.98 and 0 < row["latency_1"] < row["latency_32"]
    assert exported.rows[1]["agreement"] == 1 and exported.rows[1]["max_difference"] < 1e-5
    right = float((expected.argmax(1) == datasets.load("digits").y_test).mean())
    assert exported.rows[0]["accuracy"] == exported.rows[2]["accuracy"] == pytest.approx(right, abs=1e-6)
    actual, found, probability = exported.example
    chosen = np.random.default_rng(0).permutation(len(expected))[0]
    assert actual == digits.labels[datasets.load("digits").y_test[chosen]]
    assert found == digits.labels[expected[chosen].argmax()] and np.isclose(probability, expected[chosen].max())


def test_it_loads_as_the_server_loads_it(base, images, expected, png, tmp_path):
    """And by the tool that comes with TensorFlow, where neither Keras nor this package can be imported."""
    np.savez(tmp_path / "x.npz", images=images, encoded=np.array([*map(png, images)], object), allow_pickle=True)
    np.save(tmp_path / "images.npy", images[:4])
    script = """
import sys
sys.modules.update({"keras": None, "darts_tf": None, "export": None})
import numpy as np
import tensorflow as tf
arrays = np.load("x.npz", allow_pickle=True)
with tf.compat.v1.Session(graph=tf.Graph()) as session:
    meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], sys.argv[1])
    found = {}
    for name, key in (("serving_default", "images"), ("serving_bytes", "encoded")):
        signature = meta.signature_def[name]
        outputs = {k: v.name for k, v in signature.outputs.items()}
        for k, v in session.run(outputs, {signature.inputs[key].name: arrays[key]}).items():
            found[f"{name}_{k}"] = v
np.savez("y.npz", **found)
from tensorflow.python.tools import saved_model_cli
command = "saved_model_cli run --tag_set serve --signature_def serving_default --inputs images=images.npy --outdir ."
sys.argv = [*command.split(), "--dir", sys.argv[1]]
saved_model_cli.main()
"""
    command = [sys.executable, "-c", script, base / "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "y.npz", allow_pickle=True)
    np.testing.assert_allclose(found["serving_default_probabilities"], expected, atol=1e-5)
    np.testing.assert_allclose(tf.nn.softmax(found["serving_default_logits"]), expected, atol=1e-5)
    order = np.argsort(-expected, axis=1, kind="stable")[:, :3]
    np.testing.assert_allclose(found["serving_bytes_probabilities"], np.take_along_axis(expected, order, 1), atol=1e-5)
    first = [label.decode() for label in found["serving_bytes_classes"][:, 0]]
    assert first == [f"digit {label}" for label in order[:, 0]]
    np.testing.assert_allclose(np.load(tmp_path / "probabilities.npy"), expected[:4], atol=1e-5)


def test_only_stock_operations_and_weights_as_constants(base, digits):
    saved = saved_model_pb2.SavedModel.FromString((base / "1" / "saved_model.pb").read_bytes())
    (graph,) = saved.meta_graphs
    nodes = [*graph.graph_def.node, *(node for f in graph.graph_def.library.function for node in f.node_def)]
    kinds = {node.op for node in nodes} - {f.signature.name for f in graph.graph_def.library.function}
    assert all(op_def_registry.get(kind) for kind in kinds)
    assert not kinds & {"PyFunc", "EagerPyFunc", "PyFuncStateless"}
    weights = 4 * sum(np.prod(weight.shape) for weight in digits.model.weights)
    assert sum(path.stat().st_size for path in (base / "1" / "variables").iterdir()) < 1000 < weights


def test_assets_and_warm_up(base, digits):
    assert (base / "1" / "assets" / "labels.txt").read_text().splitlines() == digits.labels
    from tensorflow_serving.apis import prediction_log_pb2

    records = tf.data.TFRecordDataset(str(base / "1" / "assets.extra" / "tf_serving_warmup_requests"))
    requests = [prediction_log_pb2.PredictionLog.FromString(r.numpy()).predict_log.request for r in records]
    assert {request.model_spec.signature_name for request in requests} == {"serving_default", "serving_bytes"}
    model = tf.saved_model.load(str(base / "1"))
    for request in requests:
        assert request.model_spec.name == "digits"
        inputs = {key: tf.constant(tf.make_ndarray(value)) for key, value in request.inputs.items()}
        assert model.signatures[request.model_spec.signature_name](**inputs)


def served(folder):
    """{name: entry} of models.config."""
    config = text_format.Parse((folder / "models.config").read_text(), ModelServerConfig())
    return {model.name: model for model in config.model_config_list.config}


def test_server_configuration(base):
    (model,) = served(base.parent).values()
    assert (model.name, model.base_path, model.model_platform) == ("digits", "/models/digits", "tensorflow")
    assert "max_execution_batch_size { value: 32 }" in (base.parent / "batching.config").read_text()


EDITED = """# Ours { not theirs }.\r
model_config_list: <
  config { name: "cats" base_path: "/cats" model_version_policy { specific { versions: 3 } } }  # kept }
> # the end }"""
POLICY = 'model_config_list { config { name: "a" base_path: "/models/a" version_labels { key: "stable" value: 1 } } }'


@pytest.mark.parametrize(
    "text, more",
    [
        ("", ["a", "b"]),
        ("# nothing yet", ["a", "b"]),
        ("model_config_list {}", ["a", "b"]),
        (EDITED, ["a", "b"]),
        (POLICY, ["b"]),
        ('model_config_list { config { name: "x" base_path: "/models/a/" } }', ["b"]),
        ('model_config_list { config { name: "a" base_path: "/a" } config { name: "b" base_path: "/b" } }', []),
    ],
)
def test_an_edited_server_configuration_is_only_added_to(text, more, tmp_path):
    for name in "ab":
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "1" / "saved_model.pb").touch()
    config = tmp_path / "models.config"
    config.write_bytes(text.encode())
    before = served(tmp_path)
    serving.write_configuration(tmp_path)
    after = served(tmp_path)
    assert sorted(after.keys() - before.keys()) == more and {name: after[name] for name in before} == before
    written = config.read_bytes().decode()
    assert all(line in written for line in text.splitlines() if "#" in line) and (more or written == text)
    serving.write_configuration(tmp_path)
    assert config.read_bytes().decode() == written


@pytest.mark.parametrize("content", [b"model_config_list { config", b"\xff\xfe", b"custom_model_config {}", b"name: 3"])
def test_what_is_no_server_configuration_stays(content, tmp_path):
    (tmp_path / "a" / "1").mkdir(parents=True)
    (tmp_path / "a" / "1" / "saved_model.pb").touch()
    (tmp_path / "models.config").write_bytes(content)
    with pytest.raises(serving.ConfigurationError, match=r"models.config is no list .* config { name: \"a\""):
        serving.write_configuration(tmp_path)
    assert (tmp_path / "models.config").read_bytes() == content


@pytest.mark.parametrize(
    "content, found",
    [
        (b"a\nb", ["a", "b"]),
        (b"\xef\xbb\xbfa\r\nb\r\n", ["a", "b"]),
        (" a\tb \n\x0c\x85\u2028x\na\n a\tb \n".encode(), [" a\tb ", "\x0c\x85\u2028x", "a", " a\tb "]),
        (b"", []),
        (b"a\n\nb\n", "line 2 is blank"),
        (b"a\nb\n\n", "line 3 is blank"),
        (b"a\n \t\r\n", "line 2 is blank"),
        (b"a\nb\xff\n", "line 2 is not UTF-8"),
        ("a\n".encode("utf-16"), "line 1 is not UTF-8"),
        (b"a\nb\0\n", "line 2 holds a zero byte"),
    ],
)
def test_files_of_labels(content, found, tmp_path):
    (tmp_path / "labels.txt").write_bytes(content)
    if isinstance(found, str):
        with pytest.raises(labels.LabelError, match=found):
            labels.read(tmp_path / "labels.txt")
    else:
        assert labels.read(tmp_path / "labels.txt") == found == labels.from_bytes(labels.to_bytes(found))


ODD = ["\x0ca\u2028", " b\t", "same", "same", "ü 😀", "\x85\r", *"456", "#"]


def test_odd_labels_reach_every_file(small, images, png, tmp_path):
    made = classifier.Classifier(small.model, ODD)
    version = savedmodel.export(made, tmp_path / "digits", top_k=10)
    assert labels.from_bytes((version / "assets" / "labels.txt").read_bytes()) == ODD
    answer = tf.saved_model.load(str(version)).signatures["serving_bytes"](encoded=tf.constant([png(images[0])]))
    assert sorted(label.decode() for label in answer["classes"].numpy()[0]) == sorted(ODD)
    assert tflite.labels_of(tflite.convert(made)) == ODD


@pytest.mark.parametrize(
    "config, found",
    [
        ('{"data": {"class_names": ["x", "y", "z"]}, "dataset": 3}', ["x", "y", "z"]),
        *[(text, ["0", "1", "2"]) for text in ("[]", "3", "{", "\xff", '{"data": 3}', '{"data": {}}', "[" * 100_000)],
        *[(f'{{"data": {{"class_names": {names}}}}}', ["0", "1", "2"]) for names in ("5", "[]", "[1, 2, 3]", '"abc"')],
        ('{"data": {"class_names": ["x"]}}', "3 classes and there are 1 labels in the config.json beside it"),
        ('{"data": {"class_names": ["x", "y\\nz", "z"]}}', "the label of class 1 .* holds a line break"),
        ('{"data": {"class_names": ["x", "y", " "]}}', "the label of class 2 in the config.json beside it is blank"),
        ('{"data": {"class_names": ["x", "\\udcff", "z"]}}', "the label of class 1 .* is not UTF-8: expected --labels"),
    ],
)
def test_labels_of_the_run_that_made_the_model(config, found, tmp_path):
    (tmp_path / "config.json").write_text(config, encoding="latin-1")
    if isinstance(found, str):
        with pytest.raises(classifier.ModelError, match=found):
            models.class_names(tmp_path / "model.keras", None, 3)
    else:
        assert models.class_names(tmp_path / "model.keras", None, 3) == found
        assert labels.beside(tmp_path / "model.keras").get("dataset") is None


def test_images_of_all_sizes_and_formats_and_what_cannot_be_decoded(base, digits):
    model = tf.saved_model.load(str(base / "1"))
    ask = model.signatures["serving_bytes"]
    large = np.random.default_rng(0).integers(0, 256, (31, 50, 3), np.uint8)
    files = [tf.io.encode_png(large).numpy(), b"no image", tf.io.encode_jpeg(large[:20]).numpy(), b""]
    answer = ask(encoded=tf.constant(files))
    assert [bool(label) for label in answer["classes"][:, 0].numpy()] == [True, False, True, False]
    assert (answer["probabilities"].numpy()[[1, 3]] == 0).all()
    small = tf.image.resize(tf.io.decode_png(files[0], channels=1), [8, 8], antialias=True)
    np.testing.assert_allclose(
        np.sort(digits.probabilities(tf.round(small)[None]))[:, ::-1][:, :3], answer["probabilities"][:1], atol=1e-5
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match="None of the images can be decoded"):
        ask(encoded=tf.constant([b"no image"]))


def file_of(image, kind, **more):
    content = io.BytesIO()
    image.save(content, kind, **more)
    return content.getvalue()


def test_decoded_as_in_training(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 4), np.uint8)
    rgba = PIL.Image.fromarray(pixels)
    for number, (kind, mode) in enumerate(
        [*[("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")], *[("JPEG", mode) for mode in ("L", "CMYK")]]
        + [("BMP", mode) for mode in ("L", "P", "RGB", "RGBA")]
    ):
        image = rgba.convert("RGB").quantize(7) if mode == "P" else rgba.convert(mode)
        file = tmp_path / f"{number}.{kind.lower()}"
        file.write_bytes(file_of(image, kind))
        trained = trained_on(file.read_bytes()).numpy()
        trained = trained[..., : 3 if trained.shape[-1] > 2 else 1]
        decoded = decoding.decode(file.read_bytes(), (12, 10, 3)).numpy()
        np.testing.assert_array_equal(decoded, np.broadcast_to(trained, decoded.shape), (kind, mode))
        grey = decoding.decode(file.read_bytes(), (12, 10, 1))
        luminance = trained if trained.shape[-1] == 1 else trained @ np.array([[0.299], [0.587], [0.114]])
        np.testing.assert_allclose(grey, luminance, atol=1.0, err_msg=f"{kind} {mode}")
        alpha = np.asarray(image.convert("RGBA"))[..., 3] if kind == "PNG" or mode == "RGBA" else 255
        assert (decoding.decode(file.read_bytes(), (12, 10, 4)).numpy()[..., 3] == alpha).all(), (kind, mode)


def test_of_an_animation_the_first_frame_alone_is_decoded():
    frames = [PIL.Image.new("L", (300, 300), shade) for shade in range(40)]
    frames[0].paste(200, (0, 0, 150, 300))
    gif = file_of(frames[0], "GIF", save_all=True, append_images=frames[1:], comment=b"long " * 200)
    alone, height, width = tf.function(decoding._first_frame, autograph=False)(tf.constant(gif))
    assert (height, width) == (300, 300) and tf.io.decode_gif(alone).shape[0] == 1
    expected = tf.image.resize(tf.io.decode_gif(gif)[0], [8, 8], antialias=True)
    np.testing.assert_allclose(decoding.decode(alone, (8, 8, 3)), expected, atol=0.5)


def test_an_image_of_too_many_pixels_is_not_decoded():
    image = PIL.Image.new("RGB", (60, 50))
    png, jpeg, bmp, gif = (file_of(image, kind) for kind in ("PNG", "JPEG", "BMP", "GIF"))
    for file in (png, jpeg, bmp, gif):
        decoding.decode(file, (8, 8, 3), max_pixels=3000)
        with pytest.raises(tf.errors.InvalidArgumentError, match="too large size"):
            decoding.decode(file, (8, 8, 3), max_pixels=2999)
        with pytest.raises(tf.errors.InvalidArgumentError, match="too large size"):
            decoding.decode(file, (52, 8, 3), max_pixels=3000)  # it is made higher before it is made narrower
    decoding.decode(png, (50, 60, 3), max_pixels=1)
    most = struct.pack(">II", 2**32 - 1, 2**32 - 1)
    for file in (png[:16] + most + png[24:], bmp[:18] + b"\0\0\0\x80" * 2 + bmp[26:], b"GIF89a", b"BM", b"", b"RIFF"):
        with pytest.raises(tf.errors.InvalidArgumentError, match="too large size"):
            decoding.decode(file, (8, 8, 3))
    slow = b"GIF89a" + b"\0" * 7 + b"!\xfe" + b"\1a" * 200_000
    with pytest.raises(tf.errors.InvalidArgumentError, match="too large size"):
        tf.function(decoding.decode, autograph=False)(tf.constant(slow), (8, 8, 3))


def test_a_batch_of_no_images(base):
    signatures = tf.saved_model.load(str(base / "1")).signatures
    for answer in (
        signatures["serving_default"](images=tf.zeros([0, 8, 8, 1])),
        signatures["serving_bytes"](encoded=tf.constant([], tf.string)),
    ):
        assert {tensor.shape[0] for tensor in answer.values()} == {0}


def test_what_killed_exports_left_is_removed(small, tmp_path):
    left = [tmp_path / "digits" / name for name in (".123", ".123.456")]
    kept = [tmp_path / "digits" / name for name in (".git", ".12a", "12a", ".1.2.3", ".789.1")]
    for folder in left + kept:
        (folder / "variables").mkdir(parents=True)
    (tmp_path / "digits" / ".5").symlink_to(kept[0])
    with locks.locked(kept[-1]) as held:
        assert held and savedmodel.export(small, tmp_path / "digits").name == "1"
    assert not any(folder.exists() for folder in left) and all((folder / "variables").exists() for folder in kept)


@pytest.mark.parametrize("there, found", [("0007", "8"), ("9" * 20, "1"), ("\u0663", "1"), (str(2**63 - 1), None)])
def test_version_numbers_are_those_that_the_server_knows(there, found, small, tmp_path, monkeypatch):
    monkeypatch.setattr(savedmodel, "_write", lambda *_: None)
    (tmp_path / "digits" / there).mkdir(parents=True)
    if found:
        assert savedmodel.export(small, tmp_path / "digits").name == found
    else:
        with pytest.raises(OSError, match="the last version that a server knows"):
            savedmodel.export(small, tmp_path / "digits")
        assert [path.name for path in (tmp_path / "digits").iterdir()] == [there]


@pytest.mark.parametrize("error, number", [(tf.errors.ResourceExhaustedError, 28), (tf.errors.UnknownError, 5)])
def test_errors_of_tensorflow_while_it_writes(error, number, small, tmp_path, monkeypatch):
    def fail(*_):
        raise error(None, None, "saved_model.pb; No space\nleft on device")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(OSError, match="No space left on device") as caught:
        savedmodel.export(small, tmp_path / "digits")
    assert caught.value.errno == number and not [*(tmp_path / "digits").iterdir()]


def test_versions_are_whole_and_never_reused(small, tmp_path):
    base = tmp_path / "digits"
    (base / "7").mkdir(parents=True)
    (base / "notes").mkdir()
    seen, stop = set(), threading.Event()

    def poll():
        while not stop.is_set():
            for version in savedmodel.versions(base):
                if version != 7:
                    seen.add(all((base / str(version) / part).exists() for part in ("saved_model.pb", "assets.extra")))

    poller = threading.Thread(target=poll)
    poller.start()
    try:
        assert [savedmodel.export(small, base).name for _ in range(2)] == ["8", "9"]
    finally:
        stop.set()
        poller.join()
    assert seen == {True}
    assert {path.name for path in base.iterdir()} == {"7", "8", "9", "notes"}


@pytest.mark.parametrize(
    "quantize, difference, agreement",
    [("none", 1e-5, 1), ("float16", 1e-2, 1), ("dynamic", 0.2, 0.98), ("int8", 0.3, 0.98)],
)
def test_tflite(quantize, difference, agreement, exported, digits, images, expected):
    content = exported.tflite[quantize].read_bytes()
    found = comparison.agreement(comparison.probabilities(comparison.TFLite(content), images), expected)
    assert found[0] <= difference and found[1] >= agreement, found
    assert tflite.labels_of(content) == digits.labels

    operations, types = operations_of(content)
    allowed = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "MUL", "SUB", "RELU", "CONCATENATION", "PAD"}
    allowed |= {"AVERAGE_POOL_2D", "MAX_POOL_2D", "MEAN", "SOFTMAX", "STRIDED_SLICE", "DEQUANTIZE", "QUANTIZE"}
    assert set(operations) <= allowed
    assert {kind for kind in ("MUL", "SUB") if operations[kind] > 1} == set()  # normalisation; batch norms are folded
    dilated = sum(
        "edge" in layer.name and getattr(layer, "dilation_rate", (1, 1)) != (1, 1) for layer in digits.model.layers
    )
    assert dilated > 0 and types["dilated"] == dilated
    if quantize == "int8":
        assert "FLOAT32" not in types["tensors"] and "FLOAT16" not in types["tensors"]
        assert types["input"] == types["output"] == "UINT8"


def operations_of(content):
    """How often each built-in operation is in a flatbuffer, and types of its tensors."""
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    kinds = {v: k for k, v in vars(schema.TensorType).items() if isinstance(v, int)}
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    (graph,) = model.subgraphs
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    assert not any(code.customCode for code in model.operatorCodes)
    operations = collections.Counter(names[codes[op.opcodeIndex]] for op in graph.operators)
    options = [op.builtinOptions for op in graph.operators if names[codes[op.opcodeIndex]] == "DEPTHWISE_CONV_2D"]
    return operations, {
        "tensors": {kinds[tensor.type] for tensor in graph.tensors},
        "input": kinds[graph.tensors[graph.inputs[0]].type],
        "output": kinds[graph.tensors[graph.outputs[0]].type],
        "dilated": sum(option.dilationHFactor > 1 for option in options),
    }


def foreign(image_shape=(20, 24, 3), head="softmax"):
    """A classifier as others make them."""
    return keras.Sequential(
        [
            keras.Input(image_shape),
            keras.layers.Rescaling(1 / 255),
            keras.layers.SeparableConv2D(6, 3, dilation_rate=2, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.GlobalMaxPooling2D(),
            keras.layers.Dense(3, activation=head),
        ]
    )


@pytest.mark.parametrize("head", ["softmax", None])
@pytest.mark.parametrize("image_shape", [(20, 24, 3), (9, 8, 2), (None, None, 1)])
def test_classifiers_that_others_made(image_shape, head, tmp_path):
    model = foreign(image_shape, head)
    model.save(tmp_path / "mine.keras")
    made = classifier.load(tmp_path / "mine.keras", ["a", "b", "c"], image_size=16)
    x = np.random.default_rng(0).uniform(0, 255, (5, *made.image_shape)).astype(np.float32)
    y = model.predict(x, verbose=0)
    probabilities = y if head else tf.nn.softmax(y).numpy()
    version = savedmodel.export(made, tmp_path / "mine")
    np.testing.assert_allclose(comparison.saved_model(version)(x), probabilities, atol=1e-5)
    np.testing.assert_allclose(comparison.TFLite(tflite.convert(made))(x), probabilities, atol=1e-5)
    label, probability = classifier.ask(version, np.zeros(made.image_shape))
    black = made.probabilities(np.zeros((1, *made.image_shape)))[0]
    assert label == "abc"[black.argmax()] and np.isclose(probability, black.max(), atol=1e-5)


def test_files_of_all_formats_at_all_depths(tmp_path):
    colour = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)
    bmp = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54 + 12 * 32, 0, 0, 54, 40, 10, 12, 1, 24, 0, 0, 0, 0, 0, 0)
    bmp += b"".join(row[:, ::-1].tobytes() + b"\0\0" for row in colour[::-1])
    grey_gif = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\xff\xff\xff\x00\x00\x00!\xf9\x04\x00\x00\x00\x00\x00,"
    grey_gif += b"\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
    files = [tf.io.encode_png(colour).numpy(), tf.io.encode_jpeg(colour).numpy(), bmp, grey_gif]
    for depth in decoding.DEPTHS:
        foreign((8, 9, depth)).save(tmp_path / "mine.keras")
        version = savedmodel.export(classifier.load(tmp_path / "mine.keras"), tmp_path / "mine")
        answer = tf.saved_model.load(str(version)).signatures["serving_bytes"](encoded=tf.constant(files))
        assert all(answer["classes"].numpy().ravel()), depth
    decoded = decoding.decode(tf.constant(bmp), (12, 10, 3))
    np.testing.assert_array_equal(decoded, colour)


@pytest.mark.parametrize("end", ["ops", "linear after softmax", "mixed precision", "saturated"])
def test_probabilities_however_they_are_made(end, tmp_path):
    images = keras.Input((8, 8, 1))
    policy = "mixed_float16" if end == "mixed precision" else "float32"
    x = keras.layers.Conv2D(4, 3, dtype=policy, activation="relu")(images)
    x = keras.layers.Dense(3, dtype=policy)(keras.layers.GlobalAveragePooling2D(dtype=policy)(x))
    x = x * 1000 if end == "saturated" else x
    y = keras.ops.softmax(x) if end in ("ops", "saturated") else keras.layers.Softmax()(x)
    y = keras.layers.Activation("linear")(y) if end == "linear after softmax" else y
    model = keras.Model(images, y)
    model.save(tmp_path / "model.keras")
    made = classifier.load(tmp_path / "model.keras")
    x = np.random.default_rng(1).uniform(0, 255, (4, 8, 8, 1)).astype(np.float32)
    tolerance = 2e-2 if policy != "float32" else 1e-5
    np.testing.assert_allclose(made.probabilities(x), model.predict(x, verbose=0), atol=tolerance)
    probabilities, logits = made.graph()(tf.constant(x))
    np.testing.assert_allclose(probabilities, made.probabilities(x), atol=1e-5)
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(comparison.TFLite(tflite.convert(made))(x), probabilities, atol=1e-5)


def test_mixed_precision_within_layers_and_adapted_normalization(tmp_path, request):
    rng = np.random.default_rng(0)
    request.addfinalizer(lambda: keras.config.set_dtype_policy("float32"))
    keras.config.set_dtype_policy("mixed_float16")
    normalization = keras.layers.Normalization()
    normalization.adapt(rng.uniform(0, 255, (50, 8, 8, 1)).astype(np.float32))
    shared = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()])
    shared = keras.Sequential([keras.Input((8, 8, 1)), shared])
    images = keras.Input((8, 8, 1))
    x = normalization(images)
    x = keras.layers.Add()([shared(x), shared(keras.ops.flip(x, 1))])
    x = keras.ops.cast(keras.ops.relu(x), "float16")
    x = keras.layers.TimeDistributed(keras.layers.Dense(2))(keras.layers.Reshape((-1, 4))(x))
    model = keras.Model(images, keras.layers.Dense(3)(keras.layers.Flatten()(x)))
    model.save(tmp_path / "model.keras")
    keras.config.set_dtype_policy("float32")
    made = classifier.load(tmp_path / "model.keras")
    assert {layer.compute_dtype for layer in layers_within(made.model)} == {"float32"}
    x = rng.uniform(0, 255, (4, 8, 8, 1)).astype(np.float32)
    expected = tf.nn.softmax(model.predict(x, verbose=0).astype(np.float32)).numpy()
    assert expected.std() > 0.05
    np.testing.assert_allclose(made.probabilities(x), expected, atol=1e-2)
    np.testing.assert_allclose(comparison.TFLite(tflite.convert(made))(x), made.probabilities(x), atol=1e-5)


def head(x, classes=3):
    return keras.layers.Dense(classes)(keras.layers.Flatten()(x))


@keras.saving.register_keras_serializable("tests")
class Subclassed(keras.Model):
    def call(self, x):
        return x


def archive(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name.replace("_", ".", 1), content)


def odd_models():
    """(what is saved, what is said of it) or a function of the path that writes it instead."""
    images, more = keras.Input((8, 8, 1)), keras.Input((8, 8, 1))
    first = keras.Input((3, 8, 8))
    nan = keras.Model(images, head(images))
    nan.set_weights([np.full_like(weight, np.nan) for weight in nan.get_weights()])
    sigmoid = keras.Input((None, None, 1))
    nested = keras.layers.Dense(3, "sigmoid")(keras.layers.GlobalMaxPooling2D()(sigmoid))
    yield keras.layers.Dense(3), "it holds a Dense: expected a model"
    yield keras.optimizers.SGD(), "it holds a SGD|Expected a model"
    yield keras.Sequential([keras.layers.Dense(3)]), "it is a Sequential that does not know its inputs"
    yield Subclassed(), "it is a Subclassed that does not know its inputs"
    yield keras.Model(images, [head(images), head(images)]), r"it maps .* to \[.*: expected images"
    yield keras.Model(images, {"a": head(images), "b": head(images)}), r"it maps .* to \[.*: expected images"
    yield keras.Model([images, more], head(keras.layers.Add()([images, more]))), r"it maps \[.*: expected images"
    yield (
        keras.Model(first, head(keras.layers.Conv2D(2, 3, data_format="channels_first")(first))),
        "channels_first: expected",
    )
    yield nan, "NaN or infinite scores"
    yield keras.Model(sigmoid, nested), "it ends in a sigmoid"
    yield lambda path: path.write_bytes(b""), "no zip archive"
    yield lambda path: path.mkdir(), "Is a directory"
    yield lambda path: path.symlink_to(path), "symbolic links"
    yield lambda path: archive(path, config_json="[" * 100_000, metadata_json="{}"), "not a .keras file"
    yield lambda path: archive(path, config_json=b"\0" * (1 << 22)), "it unpacks from 0.0 MB to 0.0 GB"


def test_what_is_no_image_classifier(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "UNPACKED", 1 << 20)
    for number, (model, message) in enumerate(odd_models()):
        path = tmp_path / f"{number}.keras"
        if isinstance(model, type(odd_models)):
            model(path)
        else:
            keras.saving.save_model(model, path)
        with pytest.raises(classifier.ModelError, match=message) as caught:
            classifier.load(path, image_size=8)
        assert "\n" not in str(caught.value)
    with pytest.raises(classifier.ModelError, match="File name too long"):
        classifier.load("x" * 300 + ".keras")


@pytest.mark.parametrize("wrap", [lambda x: [x], lambda x: {"x": x}])
def test_one_input_and_one_output_in_a_list_or_a_dict(wrap, tmp_path):
    images = keras.Input((8, 8, 1))
    scores = head(images)
    keras.Model(wrap(images), wrap(scores)).save(tmp_path / "model.keras")
    made = classifier.load(tmp_path / "model.keras")
    x = np.ones((2, 8, 8, 1), np.float32)
    expected = tf.nn.softmax(keras.Model(images, scores).predict(x, verbose=0))
    np.testing.assert_allclose(made.probabilities(x), expected, atol=1e-6)


def test_activations_whose_gradients_tensorflow_cannot_save(tmp_path):
    images = keras.Input((4, 4, 1))
    x = keras.layers.Dense(3, "swish")(keras.layers.Flatten()(images))
    keras.Model(images, keras.layers.Dense(2)(keras.layers.Activation("swish")(x))).save(tmp_path / "model.keras")
    version = savedmodel.export(classifier.load(tmp_path / "model.keras"), tmp_path / "swish")
    assert "serving_default" in tf.saved_model.load(str(version)).signatures


def test_forms_take_turns(small, images, monkeypatch):
    """What else the machine does is the same for all; of a TFLite file Python's part is not counted."""
    calls, converted, quantized = [], [], comparison.quantized
    monkeypatch.setattr(comparison, "quantized", lambda *given: converted.append(1) or quantized(*given))
    forms = {name: lambda x, name=name: calls.append(name) or small.probabilities(x) for name in "ab"}
    lite = comparison.TFLite(tflite.convert(small))
    found = comparison.latencies({**forms, "lite": lite}, [images], 1)
    assert set(found) == {"a", "b", "lite"} and found["lite"] < found["a"] and len(converted) == 1
    turns = [name for name, _ in itertools.groupby(calls)]
    assert len(turns) > comparison.ROUNDS[1]
    np.testing.assert_allclose(lite(images[:3]), small.probabilities(images[:3]), atol=1e-6)
