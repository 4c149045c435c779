"""The export of a classifier of the digits, and of others that this package did not make."""

import collections
import json
import os
import pathlib
import struct
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.python.framework import op_def_registry

from darts_tf import datasets
from export import classifier, comparison, savedmodel, tflite

ROOT = pathlib.Path(__file__).parent.parent


def encoded(images):
    return [tf.io.encode_png(image.astype(np.uint8)).numpy() for image in images]


def in_a_process(script, *arguments, folder):
    """Runs Python code where neither Keras nor this package can be imported."""
    block = "import sys\nsys.modules.update({'keras': None, 'darts_tf': None, 'export': None})\n"
    command = [sys.executable, "-c", block + script, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_loads_as_the_server_loads_it(base, images, expected, tmp_path):
    np.savez(tmp_path / "x.npz", images=images, encoded=np.array(encoded(images), object), allow_pickle=True)
    script = """
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
"""
    in_a_process(script, base / "1", folder=tmp_path)
    found = np.load(tmp_path / "y.npz", allow_pickle=True)
    np.testing.assert_allclose(found["serving_default_probabilities"], expected, atol=1e-5)
    np.testing.assert_allclose(tf.nn.softmax(found["serving_default_logits"]), expected, atol=1e-5)
    order = np.argsort(-expected, axis=1, kind="stable")[:, :3]
    np.testing.assert_allclose(found["serving_bytes_probabilities"], np.take_along_axis(expected, order, 1), atol=1e-5)
    first = [label.decode() for label in found["serving_bytes_classes"][:, 0]]
    assert first == [f"digit {label}" for label in order[:, 0]]


def test_saved_model_cli_runs_it(base, images, expected, tmp_path):
    np.save(tmp_path / "images.npy", images[:4])
    cli = pathlib.Path(sys.executable).with_name("saved_model_cli")
    signature = ["--tag_set", "serve", "--signature_def", "serving_default", "--inputs", "images=images.npy"]
    command = [cli, "run", "--dir", base / "1", *signature, "--outdir", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
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


def test_server_configuration(base):
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse((base.parent / "models.config").read_text(), config)
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("digits", "/models/digits", "tensorflow")
    assert "max_execution_batch_size { value: 32 }" in (base.parent / "batching.config").read_text()


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


def test_versions_are_whole_and_never_reused(digits, tmp_path):
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
        assert [savedmodel.export(digits, base).name for _ in range(2)] == ["8", "9"]
    finally:
        stop.set()
        poller.join()
    assert seen == {True}
    assert {path.name for path in base.iterdir()} == {"7", "8", "9", "notes"}


@pytest.mark.parametrize(
    "quantize, difference, agreement",
    [("none", 1e-5, 1), ("float16", 1e-2, 1), ("dynamic", 0.2, 0.98), ("int8", 0.3, 0.98)],
)
def test_tflite(quantize, difference, agreement, digits, images, expected):
    content = tflite.convert(digits, quantize, datasets.load("digits").x_train[::7])
    found = comparison.agreement(comparison.tflite(content), images, expected)
    assert found[0] <= difference and found[1] >= agreement, found
    assert tflite.labels(content) == digits.labels

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
    np.testing.assert_allclose(comparison.tflite(tflite.convert(made))(x), probabilities, atol=1e-5)
    label, probability = savedmodel.ask(version, np.zeros(made.image_shape))
    black = made.probabilities(np.zeros((1, *made.image_shape)))[0]
    assert label == "abc"[black.argmax()] and np.isclose(probability, black.max(), atol=1e-5)


def test_files_of_all_formats_at_all_depths(tmp_path):
    colour = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)
    bmp = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54 + 12 * 32, 0, 0, 54, 40, 10, 12, 1, 24, 0, 0, 0, 0, 0, 0)
    bmp += b"".join(row[:, ::-1].tobytes() + b"\0\0" for row in colour[::-1])
    grey_gif = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\xff\xff\xff\x00\x00\x00!\xf9\x04\x00\x00\x00\x00\x00,"
    grey_gif += b"\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
    files = [tf.io.encode_png(colour).numpy(), tf.io.encode_jpeg(colour).numpy(), bmp, grey_gif]
    for depth in savedmodel.DECODED_DEPTHS:
        foreign((8, 9, depth)).save(tmp_path / "mine.keras")
        version = savedmodel.export(classifier.load(tmp_path / "mine.keras"), tmp_path / "mine")
        answer = tf.saved_model.load(str(version)).signatures["serving_bytes"](encoded=tf.constant(files))
        assert all(answer["classes"].numpy().ravel()), depth
    decoded = savedmodel._decoded(tf.constant(bmp), 3)
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
    np.testing.assert_allclose(comparison.tflite(tflite.convert(made))(x), probabilities, atol=1e-5)


def test_a_model_that_tflite_cannot_have(tmp_path):
    images = keras.Input((8, 8, 1))
    x = keras.layers.Resizing(9, 9, interpolation="bicubic")(images)
    keras.Model(images, keras.layers.Dense(3)(keras.layers.Flatten()(x))).save(tmp_path / "model.keras")
    with pytest.raises(tflite.ConversionError):
        tflite.convert(classifier.load(tmp_path / "model.keras"))


def run(*arguments):
    command = [sys.executable, "-m", "export", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_command(run_directory, tmp_path):
    done = run(f"--model={run_directory}/model.keras", f"--output={tmp_path}/out", "--name=digits", "--top_k=2")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split("  ")[0] for line in lines[1:7]] == [
        "Keras",
        "SavedModel",
        *(f"TFLite {kind}" for kind in ("float32", "float16", "dynamic", "int8")),
    ]
    assert "digits/1 takes a test image of class digit" in lines[-1]
    made = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.tflite")}
    assert made == {f"tflite/digits-{kind}.tflite" for kind in ("float32", "float16", "dynamic", "int8")}
    assert tflite.labels((tmp_path / "out/tflite/digits-int8.tflite").read_bytes())[3] == "digit 3"
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 6
    flags = ["--quantize=", "--name=digits", "--json", "--verbose=0"]
    done = run(f"--model={run_directory}/model.keras", f"--output={tmp_path}/out", *flags)
    found = json.loads(done.stdout)
    assert not done.stderr and found["saved_model"] == f"{tmp_path}/out/digits/2"
    assert [entry["format"] for entry in found["formats"]] == ["Keras", "SavedModel"]
    assert found["formats"][1]["agreement"] == 1 and found["formats"][1]["max_difference"] < 1e-5


@keras.saving.register_keras_serializable("tests")
class Mine(keras.layers.Layer):
    def call(self, x):
        return x


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--output=OUT"], "--model: expected a value"),
        (["--model=broken.keras", "--output=file"], "--output=file: it is a file; expected a folder"),
        (
            ["--model=broken.keras", "--output=OUT", "--quantize=int4"],
            "--quantize=int4: expected some of",
        ),
        (["--model=broken.keras", "--output=OUT", "--name=3"], "--name=3: expected letters"),
        (["--model=broken.keras", "--output=OUT"], "not a .keras file of layers that Keras knows"),
        (["--model=missing.keras", "--output=OUT"], "--model=missing.keras: no such file"),
        (["--model=vectors.keras", "--output=OUT"], "it maps (None, 4) to (None, 3): expected images"),
        (["--model=custom.keras", "--output=OUT"], "not a .keras file of layers that Keras knows"),
        (
            ["--model=images.keras", "--output=OUT", "--quantize=int8"],
            "it learns ranges from images",
        ),
        (["--model=images.keras", "--output=OUT", "--dataset=no_such"], "--dataset=no_such: no such dataset"),
        (["--model=images.keras", "--output=OUT", "--labels=labels.txt"], "3 classes and there are 2 labels"),
        (["--model=free.keras", "--output=OUT"], "expected one size, or --image_size"),
        (["--model=one.keras", "--output=OUT"], "it has 1 outputs: expected a score for each"),
        (["--model=sigmoid.keras", "--output=OUT"], "it ends in a sigmoid: expected one class per image"),
        (["--model=images.keras", "--output=OUT", "--dataset=digits"], "its images have 1 channels|it has 10 classes"),
    ],
)
def test_wrong_input(arguments, message, tmp_path):
    (tmp_path / "broken.keras").write_text("no")
    (tmp_path / "file").write_text("no")
    (tmp_path / "labels.txt").write_text("a\nb\n")
    foreign().save(tmp_path / "images.keras")
    foreign(head="sigmoid").save(tmp_path / "sigmoid.keras")
    foreign((None, None, 3)).save(tmp_path / "free.keras")
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]).save(tmp_path / "vectors.keras")
    keras.Sequential([keras.Input((8, 8, 1)), Mine(), keras.layers.Flatten(), keras.layers.Dense(3)]).save(
        tmp_path / "custom.keras"
    )
    single = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(1)]
    keras.Sequential(single).save(tmp_path / "one.keras")
    before = set(tmp_path.iterdir())
    command = [sys.executable, "-m", "export", *(a.replace("OUT", f"{tmp_path}/out") for a in arguments)]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    lines = [line for line in done.stderr.splitlines() if line != "Starting TensorFlow ..."]
    assert done.returncode == 2 and len(lines) == 1, done.stderr
    assert any(part in lines[0] for part in message.split("|")), done.stderr
    assert set(tmp_path.iterdir()) == before
