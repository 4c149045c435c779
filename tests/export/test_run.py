"""The whole export, from Python and by the command, of models that this package did not make."""

import errno
import json
import pathlib
import subprocess
import sys
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf

from darts_tf.cli import files, messages
from darts_tf.data import datasets, streams
from export import ExportConfig, classifier, comparison, representative, run_export
from export.__main__ import main

ROOT = pathlib.Path(__file__).parents[2]


@keras.saving.register_keras_serializable("tests")
class Mine(keras.layers.Layer):
    def call(self, x):
        return x


def save(path, image_shape, *layers, classes=3, head=None):
    ends = [keras.layers.Flatten() if image_shape[0] else keras.layers.GlobalMaxPooling2D()]
    ends.append(keras.layers.Dense(classes, activation=head))
    keras.Sequential([keras.Input(image_shape), keras.layers.Rescaling(1 / 255), *layers, *ends]).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models and what is none."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "broken.keras").write_text("no")
    (folder / "file").write_text("no")
    (folder / "labels.txt").write_text("a\nb\n")
    save(folder / "images.keras", (8, 9, 3))
    save(folder / "sigmoid.keras", (8, 8, 3), head="sigmoid")
    save(folder / "free.keras", (None, None, 3))
    save(folder / "custom.keras", (8, 8, 1), Mine())
    save(folder / "one.keras", (8, 8, 1), classes=1)
    save(folder / "bicubic.keras", (8, 8, 1), keras.layers.Resizing(9, 9, interpolation="bicubic"))
    save(folder / "dilated.keras", (8, 8, 1), keras.layers.DepthwiseConv2D(3, dilation_rate=2), classes=10)
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]).save(folder / "vectors.keras")
    return folder


@pytest.mark.parametrize(
    "values, message",
    [
        ({"output": "out"}, "--model: expected a value"),
        ({"model": "broken.keras"}, "--output: expected a value"),
        ({"model": "broken.keras", "output": "file"}, "--output=file: it is a file; expected a folder"),
        ({"model": "broken.keras", "quantize": ["int4"]}, "--quantize=int4: expected some of"),
        ({"model": "broken.keras", "name": "3"}, "--name=3: expected letters"),
        ({"model": "broken.keras", "name": ""}, "--name=: expected letters"),
        ({"model": "broken.keras", "name": "models.config"}, "expected another name"),
        ({"model": "broken.keras", "output": f"{'x' * 300}/out"}, "not a .keras file"),
        ({"model": "broken.keras", "output": ".", "name": "file"}, "--name=file: there is a file of that name in .;"),
        ({"model": "broken.keras", "saved_model": False, "quantize": []}, "expected something to write"),
        ({"model": "broken.keras"}, "not a .keras file of layers that Keras knows"),
        ({"model": "missing.keras"}, "--model=missing.keras: no such file"),
        ({"model": "vectors.keras"}, r"it maps \(None, 4\) to \(None, 3\): expected images"),
        ({"model": "images.keras", "quantize": ["int8"]}, "--quantize=int8: it learns ranges from images"),
        ({"model": "images.keras", "dataset": "no_such"}, "--dataset=no_such: no such dataset"),
        ({"model": "images.keras", "dataset": "digits"}, "--dataset=digits: it has 10 classes: the model has 3"),
        ({"model": "images.keras", "labels": "labels.txt"}, "3 classes and there are 2 labels"),
        ({"model": "images.keras", "labels": "none.txt"}, "--labels=none.txt: No such file"),
        ({"model": "free.keras"}, "expected one size, or --image_size"),
        ({"model": "one.keras"}, "it has 1 outputs: expected a score for each"),
        ({"model": "sigmoid.keras"}, "it ends in a sigmoid: expected one class per image"),
    ],
)
def test_wrong_input(values, message, folder, monkeypatch):
    monkeypatch.chdir(folder)
    before = set(folder.iterdir())
    if "output" not in values and "--output" not in message:
        values = values | {"output": "out"}
    with pytest.raises(messages.UsageError, match=message) as caught:
        run_export(ExportConfig(**values), verbose=0)
    assert "\n" not in str(caught.value) and set(folder.iterdir()) == before


def test_a_package_that_is_not_installed(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(messages.UsageError, match=r"ai_edge_litert is not installed: pip install 'darts-tf\[export\]'"):
        run_export(ExportConfig(model=folder / "images.keras", output=tmp_path), verbose=0)


def test_it_needs_no_tensorflow_before_it_begins():
    script = "import export, sys; export.ExportConfig(model='a'); assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_where_tensorflow_has_begun_otherwise(folder, tmp_path, monkeypatch, request):
    """Trained in mixed precision before, without the graph optimiser, as searches and trainings leave the process."""
    request.addfinalizer(lambda: keras.config.set_dtype_policy("float32"))
    keras.config.set_dtype_policy("mixed_float16")
    before = tf.config.optimizer.get_experimental_options()
    assert before["disable_meta_optimizer"]
    optimised = []

    def latencies(forms, *_):
        optimised.append(not tf.config.optimizer.get_experimental_options()["disable_meta_optimizer"])
        return dict.fromkeys(forms, 1.0)

    monkeypatch.setattr(comparison, "latencies", latencies)
    config = ExportConfig(model=folder / "dilated.keras", output=tmp_path, quantize=["none"], dataset="digits")
    done = run_export(config, verbose=0)
    assert not done.failed and all(optimised) and tf.config.optimizer.get_experimental_options() == before
    assert keras.config.dtype_policy().name == "mixed_float16"
    assert [row["agreement"] for row in done.rows] == [1, 1, 1] and max(r["max_difference"] for r in done.rows) < 1e-5


def test_what_cannot_be_converted(folder, tmp_path, capsys):
    config = ExportConfig(model=folder / "bicubic.keras", output=tmp_path / "out", quantize=["none"])
    done = run_export(config)
    assert done.saved_model == tmp_path / "out" / "bicubic" / "1" and not done.tflite and done.example is None
    assert [row["format"] for row in done.rows] == ["Keras", "SavedModel"]
    (message,) = done.failed
    assert message.startswith("TFLite float32: ") and "\n" not in message
    assert capsys.readouterr().err.splitlines() == [
        "Starting TensorFlow ...",
        "No --dataset: comparing on random images.",
        "Writing the SavedModel ...",
        "Converting to TFLite, float32 ...",
        "Measuring ...",
    ]


def test_where_nothing_can_be_written(folder, tmp_path, monkeypatch):
    (tmp_path / "tflite").write_text("mine")
    config = ExportConfig(model=folder / "images.keras", output=tmp_path, saved_model=False, quantize=["none"])
    with pytest.raises(messages.UsageError, match=rf"--output={tmp_path}: .*; expected a place to write to"):
        run_export(config, verbose=0)
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(files, "write", mock.Mock(side_effect=full))
    with pytest.raises(OSError, match="No space left") as caught:
        run_export(config, verbose=0)
    assert caught.value is full


def test_the_result_as_text_and_as_json(folder, tmp_path, capsys):
    config = ExportConfig(model=folder / "dilated.keras", output=tmp_path / "out", quantize=["none"], dataset="digits")
    with messages.spoken(0), pytest.raises(SystemExit) as ended:
        main(config)
    assert ended.value.code == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert [line.split("  ")[0] for line in lines[:4]] == [
        "format",
        "Keras",
        "SavedModel",
        "TFLite float32",
    ] and not err
    assert lines[4:7] == [
        "",
        f"Saved {tmp_path}/out/dilated/1/ (docker run ... tensorflow/serving: docs/serve.md)",
        f"Saved {tmp_path}/out/tflite/dilated-*.tflite",
    ]
    assert lines[7] == "" and lines[8].startswith(f"{tmp_path}/out/dilated/1 takes a test image of class ")
    (tmp_path / "out" / "tflite" / "mine-int8.tflite").write_bytes(b"of another model")
    with messages.spoken(0, as_json=True), pytest.raises(SystemExit):
        main(config.replace(name="mine", saved_model=False))
    out, err = capsys.readouterr()
    assert f"warning: {tmp_path}/out/tflite/mine-int8.tflite: of an earlier export, perhaps of another model." in err
    (tmp_path / "out" / "tflite" / "mine-int8.tflite").unlink()
    found = json.loads(out)
    assert found.keys() == {"tflite", "formats", "budget"} and found["budget"] == []
    assert found["tflite"] == f"{tmp_path}/out/tflite"
    assert [row.keys() for row in found["formats"]] == 2 * [
        {"format", "bytes", "accuracy", "max_difference", "agreement", "latency_1", "latency_32"}
    ]
    made = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.tflite")}
    assert made == {"tflite/dilated-float32.tflite", "tflite/mine-float32.tflite"}


def test_the_command(folder, tmp_path):
    (tmp_path / "models.config").write_text("not one")
    command = [sys.executable, "-m", "export", f"--output={tmp_path}", "--quantize=none"]
    options = {"cwd": ROOT, "capture_output": True, "text": True, "check": False}
    done = subprocess.run([*command, f"--model={folder}/images.keras", "--name=mine"], **options)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert [line.split("  ")[0] for line in lines[:4]] == ["format", "Keras", "SavedModel", "TFLite float32"]
    assert lines[4:] == [
        "",
        f"Saved {tmp_path}/mine/1/ (docker run ... tensorflow/serving: docs/serve.md)",
        f"Saved {tmp_path}/tflite/mine-*.tflite",
    ]
    said = done.stderr.splitlines()
    begun = dict.fromkeys(line.split(" ")[0] for line in said[:-1])
    assert list(begun) == ["Starting", "No", "Writing", "Converting", "Measuring"], done.stderr
    assert said[-1].startswith(f"error: {tmp_path}/models.config is no list of models (")
    done = subprocess.run(command, **options)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: --model: expected a value, see --help.\n")


@pytest.fixture
def run_of(tmp_path):
    """Function that writes the config.json that a training leaves beside its model; returns what `load` takes."""

    def write(classes, **config):
        described = {"class_names": [str(number) for number in range(classes)]}
        (tmp_path / "config.json").write_text(json.dumps({"data": described, **config}))
        save(tmp_path / "model.keras", (8, 8, 3), classes=classes)
        return ExportConfig(model=tmp_path / "model.keras"), classifier.load(tmp_path / "model.keras")

    return write


def test_data_of_the_run_that_made_the_model(run_of, monkeypatch, capsys):
    def noisy(*arguments):
        print("Downloading")
        return load(*arguments)

    load = datasets.load
    monkeypatch.setattr(datasets, "load", noisy)
    data = representative.load(*run_of(10, dataset="digits"))
    assert capsys.readouterr() == ("", "Downloading\n")
    (x, y), more = representative.test_images(data, None), representative.training_images(data, 3)
    assert x.shape == (355, 8, 8, 3) and x.dtype == np.float32 and len(y) == 355 and more.shape == (3, 8, 8, 3)
    for classes, dataset, why in ((3, "digits", "it has 10 classes"), (10, "gone", "no such dataset")):
        assert representative.load(*run_of(classes, dataset=dataset)) is None
        assert f"Without --dataset={dataset}, of the run that made the model: {why}" in capsys.readouterr().err


def test_images_of_the_recipe_for_imagenet_stay_on_disk(run_of, images, png, tmp_path):
    for number, image in enumerate(images[:6]):
        path = tmp_path / "photos" / ("test" if number < 2 else "train") / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(image))
    config, made = run_of(2, dataset=str(tmp_path / "photos"), recipe="imagenet")
    data = representative.load(config, made)
    assert isinstance(data, streams.Stream)
    x, y = representative.test_images(data, made)
    assert x.shape == (2, 8, 8, 3) and sorted(y) == [0, 1]
    assert representative.training_images(data, 200).shape == (4, 8, 8, 3)
    given = config.replace(dataset=tmp_path / "photos")
    assert isinstance(representative.load(given, made), datasets.Dataset)


def test_images_that_go_up_to_one(small, capsys):
    black, labels = np.zeros((4, 8, 8, 1), np.uint8), np.arange(4) % 2
    data = datasets.Dataset(black, labels, black, labels, ["a", "b"])
    representative.test_images(data, small)
    assert "the images of --dataset go from 0 to" in capsys.readouterr().err
