"""The command as a user runs it."""

import csv
import json

import keras
import numpy as np
import processes
import pytest
import tensorflow as tf

from darts_tf import spaces
from darts_tf.cli.files import save_model
from darts_tf.data import datasets
from darts_tf.spaces.cells import genotypes

TINY = ["--layers=3", "--init_channels=4"]
GENOTYPE = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1)], normal_concat=[2], "
    "reduce=[('max_pool_3x3', 0), ('skip_connect', 1)], reduce_concat=[2])"
)


def run(*arguments):
    return processes.run("darts_tf.train", *arguments)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run directory and what the command that made it printed."""
    output = tmp_path_factory.mktemp("runs") / "digits"
    extras = ["--auxiliary", "--drop_path_prob=0.2", "--cutout", "--cutout_length=3", "--train_portion=0.8"]
    done = run(*TINY, *extras, f"--arch={GENOTYPE}", "--epochs=3", f"--output={output}")
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == 6 and "epoch 3/3  loss " in done.stderr, done.stderr
    return output, done.stdout


@pytest.mark.slow
def test_a_training_and_its_run_directory(trained):
    output, printed = trained
    files = {"checkpoints", "config.json", "history.csv", "metrics.json", "model.keras", "predictions.npz"}
    files.add("report.html")
    assert {path.name for path in output.iterdir()} == files
    config = json.loads((output / "config.json").read_text())
    assert (config["recipe"], config["epochs"], config["batch_size"], config["crop_padding"]) == ("small", 3, 32, 1)
    assert config["genotype"].startswith("Genotype(normal=[('sep_conv_3x3', 0)")
    history = list(csv.DictReader((output / "history.csv").open()))
    assert [row["epoch"] for row in history] == ["1", "2", "3"] and "val_accuracy" in history[0]
    assert float(history[2]["loss"]) < float(history[0]["loss"])
    assert float(history[0]["learning_rate"]) == 0.025 > float(history[1]["learning_rate"])

    metrics = json.loads((output / "metrics.json").read_text())
    model = keras.models.load_model(output / "model.keras")
    data = datasets.load("digits")
    scores = model.predict(data.x_test.astype("float32"), verbose=0)
    assert np.isclose(metrics["top1"], (scores.argmax(1) == data.y_test).mean())
    assert metrics["top1"] > 0.5 and metrics["test_images"] == len(data.y_test) and len(metrics["per_class"]) == 10
    assert metrics["parameters"] == sum(np.prod(v.shape) for v in model.trainable_variables)
    with np.load(output / "predictions.npz") as predictions:
        assert (predictions["predicted"] == scores.argmax(1)).all() and (predictions["labels"] == data.y_test).all()
        worst = predictions["worst"]
        assert (predictions["worst_images"] == data.x_test[worst]).all()
        assert (predictions["predicted"][worst] != predictions["labels"][worst]).all()
    assert '"confusion"' in (output / "report.html").read_text()
    for expected in (f"{metrics['top1']:.2%} of 355 images", "multiply-adds", "weakest"):
        assert expected in printed


def test_a_recipe_does_not_cut_out_whole_images():
    from darts_tf import train
    from darts_tf.runs.configurations import TrainConfig

    images, labels = np.zeros((10, 32, 32, 3), np.uint8), np.arange(10) % 2
    for size, cutout in ((32, True), (17, True), (16, False), (8, False)):
        part = images[:, :size, :size]
        data = datasets.Dataset(part, labels, part, labels, ["a", "b"])
        config = train.completed(TrainConfig(arch=GENOTYPE, recipe="cifar"), data)
        assert config.cutout == cutout
        assert train.completed(TrainConfig(arch=GENOTYPE, recipe="cifar", cutout=True), data).cutout


def test_the_step_is_traced_once():
    from darts_tf import train
    from darts_tf.runs import recipes
    from darts_tf.runs.configurations import TrainConfig

    data = datasets.load("digits")
    config = TrainConfig(arch=GENOTYPE, layers=3, init_channels=2, auxiliary=True).completed(recipes.SMALL)
    network = train.prepare(None, spaces.from_text(GENOTYPE), data, config)
    traces, step = [], network.train_step
    network.train_step = lambda batch: traces.append(1) or step(batch)
    batches = tf.data.Dataset.from_tensors((data.x_train[:8].astype("float32"), data.y_train[:8])).repeat()
    network.fit(batches, epochs=2, steps_per_epoch=2, verbose=0, shuffle=False)
    assert len(traces) == 1


@pytest.mark.slow
def test_evaluation_prints_the_same_metrics(trained, tmp_path):
    output, printed = trained
    done = run(f"--evaluate={output}/model.keras", f"--output={tmp_path}/again")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() and done.stdout.strip() in printed
    results = json.loads((output / "metrics.json").read_text())
    assert json.loads((tmp_path / "again" / "metrics.json").read_text()) == results
    done = run(f"--evaluate={output}/model.keras", "--json")
    assert json.loads(done.stdout) == results


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three classes of bright, dark and striped 12x10 images."""
    folder = tmp_path_factory.mktemp("photos")
    for name, image in (
        ("bright", np.full((12, 10, 1), 220)),
        ("dark", np.full((12, 10, 1), 20)),
        ("striped", np.tile([[20], [220]], (12, 5, 1))),
    ):
        (folder / name).mkdir()
        for number in range(15):
            noise = np.random.default_rng(number).integers(-20, 20, image.shape)
            (folder / name / f"{number}.png").write_bytes(tf.io.encode_png((image + noise).astype(np.uint8)).numpy())
    return folder


@pytest.mark.slow
def test_a_trained_model_is_trained_on_for_other_classes(trained, photos, tmp_path):
    output, _ = trained
    again = ["--epochs=6", "--batch_size=9", f"--dataset={photos}", f"--output={tmp_path}/run"]
    done = run(f"--init_from={output}/model.keras", *again)
    assert done.returncode == 0, done.stderr
    model = keras.models.load_model(tmp_path / "run" / "model.keras")
    assert model.input_shape == (None, 8, 8, 1) and model.output_shape == (None, 3)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["top1"] == 1
    done = run(f"--evaluate={output}/model.keras", f"--dataset={photos}")
    assert done.returncode == 2
    assert f"it knows 10 classes, {photos} has 3; expected as many" in done.stderr


@pytest.mark.slow
def test_images_that_stay_on_disk(photos, tmp_path):
    flags = ["--recipe=imagenet", "--image_size=32", "--epochs=2", "--batch_size=9", f"--dataset={photos}"]
    done = run(*TINY, *flags, f"--arch={GENOTYPE}", f"--output={tmp_path}/run")
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["network"], config["label_smooth"], config["weight_decay"]) == ("imagenet", 0.1, 3e-5)
    history = list(csv.DictReader((tmp_path / "run" / "history.csv").open()))
    assert [float(row["learning_rate"]) for row in history] == pytest.approx([0.1, 0.097])


@pytest.mark.slow
def test_a_loss_that_becomes_nan(tmp_path):
    wild = ["--learning_rate=1e30", "--grad_clip=1e30", "--epochs=3"]
    done = run(*TINY, *wild, f"--arch={GENOTYPE}", f"--output={tmp_path}/run")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "the loss became NaN in epoch 1" in done.stderr
    assert not (tmp_path / "run" / "model.keras").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "nothing given: expected one of --arch, --init_from and --evaluate"),
        (["--arch=DARTS_V2", "--evaluate=a.keras"], "--arch and --evaluate given: expected one of"),
        (["--arch=DARTS_V3"], "--arch=DARTS_V3: Not a genotype: expected NASNet"),
        (["--arch=BROKEN"], "Not a genotype: expected NASNet"),
        ([f"--arch={GENOTYPE.replace('1)', '2)')}"], "normal feeds node 2 from node 2: expected one of 0 to 1"),
        ([f"--arch={GENOTYPE.replace('concat=[2]', 'concat=[2, 3]')}"], "normal_concat is [2, 3]: expected some of"),
        (["--arch=DARTS_V2", "--train_portion=0"], "--train_portion=0.0: expected a number above 0, at most 1"),
        (["--arch=FOLDER/run/genotype.json", "--overwrite"], "genotype.json is in it; expected another folder"),
        (["--arch=FOLDER/typo/genotype.json"], "genotype.json: no such file"),
        (["--init_from=a.keras", "--layers=5"], "--layers=5: expected none, --init_from has an architecture already"),
    ],
)
def test_wrong_flags(arguments, message, tmp_path):
    check_refusal(arguments, message, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments, message",
    [
        ([f"--arch={GENOTYPE.replace('sep_conv_3x3', 'sep_conv_4x4')}"], "'sep_conv_4x4': expected one of none, max_"),
        (["--arch=DARTS_V2", "--batch_size=2000"], "--batch_size=2000: there are 1442 images to train on"),
        (["--evaluate=BROKEN"], "not a .keras file of layers that Keras knows"),
        (["--init_from=missing.keras"], "--init_from=missing.keras: no such file"),
        (["--evaluate=VECTORS"], "it maps (None, 3) to (None, 2): expected images"),
    ],
)
def test_wrong_input(arguments, message, tmp_path):
    save_model(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), tmp_path / "vectors.keras")
    check_refusal(
        [argument.replace("VECTORS", f"{tmp_path}/vectors.keras") for argument in arguments], message, tmp_path
    )


def check_refusal(arguments, message, folder):
    (folder / "broken.json").write_text('{"normal": [')
    if arguments and "FOLDER/run" in arguments[0]:
        (folder / "run").mkdir()
        (folder / "run" / "genotype.json").write_text(genotypes.PUBLISHED["DARTS_V1"].to_json())
    arguments = [argument.replace("FOLDER", str(folder)) for argument in arguments]
    arguments = [argument.replace("BROKEN", f"{folder}/broken.json") for argument in arguments]
    before = set(folder.iterdir())
    done = run(*arguments, f"--output={folder}/run")
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line != "Starting TensorFlow ..."]
    assert len(lines) == 1 and message in lines[0], done.stderr
    assert set(folder.iterdir()) == before
