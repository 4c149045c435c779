"""The command as a user runs it."""

import csv
import json
import shutil
import types

import keras
import numpy as np
import processes
import pytest
import tensorflow as tf

from darts_tf import spaces
from darts_tf.cli.files import save_model
from darts_tf.cli.messages import UsageError
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
        asked = TrainConfig(arch=GENOTYPE, recipe="cifar", cutout=True)
        if cutout:
            assert train.completed(asked, data).cutout
        else:
            with pytest.raises(UsageError, match=f"--cutout_length=16: the images have {size}x{size} pixels"):
                train.completed(asked, data)


def test_teachers_of_other_images_or_classes_are_refused():
    from darts_tf import TrainConfig, train

    for shape, classes, message in (((8, 8, 3), 10, r"takes images \(8, 8, 3\)"), ((8, 8, 1), 9, "knows 9 classes")):
        inputs = keras.Input(shape)
        teacher = keras.Model(inputs, keras.layers.Dense(classes)(keras.layers.Flatten()(inputs)))
        with pytest.raises(UsageError, match=f"--teacher=t.keras: it {message}.*expected a model of the same images"):
            train.check_teacher(teacher, TrainConfig(arch=GENOTYPE, teacher="t.keras"), datasets.load("digits"))


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


NETWORK = {"layers": 1, "init_channels": 2, "auxiliary": True, "drop_path_prob": 0.2, "label_smooth": 0.1}
STEPS = {"warmup_epochs": 2, "nesterov": True, "gradient_accumulation": 2, "ema": 0.9, "class_weight": "balanced"}
IMAGES = {"mixup": 0.2, "cutmix": 1.0, "randaugment": 1, "magnitude": 5.0, "cutout": True, "cutout_length": 2}
EVERYTHING = {"epochs": 6, "batch_size": 8, "train_portion": 0.75, "early_stopping": 2, "checkpoint_every": 3}
EVERYTHING |= NETWORK | STEPS | IMAGES | {"teacher_weight": 0.3, "teacher_temperature": 2.0}


@pytest.fixture(scope="module")
def unequal(tmp_path_factory):
    """A folder with colours.npz, of three classes of 48, 24 and 12 images, and a teacher of them."""
    folder, draw = tmp_path_factory.mktemp("unequal"), np.random.default_rng(0)
    y = np.repeat(np.arange(3), [48, 24, 12])
    x = (60 * y[:, None, None, None] + draw.integers(0, 120, (84, 8, 8, 3))).astype(np.uint8)
    np.savez(folder / "colours.npz", x_train=x, y_train=y, x_test=x[::5], y_test=y[::5])
    inputs = keras.Input((8, 8, 3))
    outputs = keras.layers.Dense(3, "softmax")(keras.layers.Flatten()(inputs))
    save_model(keras.Model(inputs, outputs), folder / "teacher.keras")
    return folder


@pytest.fixture(scope="module")
def with_everything(unequal):
    """A function of a run directory and more flags -> the training with `EVERYTHING`."""
    from darts_tf import TrainConfig, run_training

    source = {"arch": GENOTYPE, "dataset": unequal / "colours.npz", "teacher": unequal / "teacher.keras"}

    def train(output, **more):
        keras.utils.clear_session()
        return run_training(TrainConfig(output=output, **source, **EVERYTHING | more), verbose=0)

    train(unequal / "whole")
    return train


FEW = {"epochs": 3, "early_stopping": 0, "train_portion": 1.0}


def last_of(output):
    """The arrays of the newest checkpoint."""
    with np.load(max((output / "checkpoints").glob("step-*.npz"))) as arrays:
        return {name: arrays[name] for name in arrays.files}


def test_everything_at_once(with_everything, unequal):
    output = unequal / "whole"
    rows = list(csv.DictReader((output / "history.csv").open()))
    rates = [float(row["learning_rate"]) for row in rows[:4]]
    assert rates == pytest.approx([0.025 / 3, 0.025 * 2 / 3, 0.025, 0.0125 * (1 + np.cos(np.pi / 4))][: len(rates)])
    values = [float(row["val_accuracy"]) for row in rows]
    assert len(rows) == min([e + 1 for e in range(6) if e - np.argmax(values[: e + 1]) >= 2], default=6)
    # What is saved is of the best epoch, and of the averages that were validated.
    data, model = datasets.load(str(unequal / "colours.npz")), keras.models.load_model(output / "model.keras")
    _, _, valid = data.batches(8, train_portion=0.75)
    assert model.evaluate(valid, verbose=0)[1] == pytest.approx(max(values))
    assert (192, 3) not in {array.shape for array in last_of(output).values()}  # which is the teacher's


def test_everything_goes_on_bit_for_bit(with_everything, unequal, tmp_path):
    """From a checkpoint in the middle of an epoch, and of a step."""
    whole, output = unequal / "whole", tmp_path / "run"
    shutil.copytree(whole, output)
    steps = {int(file.stem[-8:]): file for file in (output / "checkpoints").glob("step-*.npz")}
    before = max(step for step in steps if step % 2 and step % 7)  # 7 batches in an epoch, 2 in a step
    assert before < max(steps)
    later = [file for step, file in steps.items() if step > before]
    for file in (*later, output / "metrics.json", output / "predictions.npz"):
        file.unlink()
    again = with_everything(output)
    np.testing.assert_equal(last_of(output), last_of(whole))
    assert [row["loss"] for row in again.history] == [
        float(row["loss"]) for row in csv.DictReader((whole / "history.csv").open())
    ]
    assert json.loads((whole / "metrics.json").read_text()) == again.results
    # A training that has ended early does not go on.
    assert with_everything(output).results == again.results and len(last_of(output)) == len(last_of(whole))


def test_an_epoch_makes_a_step_at_least(with_everything, tmp_path):
    with pytest.raises(UsageError, match="--gradient_accumulation=8: expected at most 7, as many batches as an epoch"):
        with_everything(tmp_path / "run", gradient_accumulation=8)


def test_the_average_is_saved_without_early_stopping(with_everything, tmp_path):
    training = with_everything(tmp_path / "run", **FEW, optimizer="adamw", nesterov=False)
    saved, kept = training.model.trainable_variables, last_of(tmp_path / "run").values()
    same = [sum(np.array_equal(weight, array) for array in kept) for weight in saved]
    assert min(same) >= 1 and training.config.learning_rate == 1e-3 and training.config.weight_decay == 0.05
    raw = training.history[-1]
    assert np.isfinite(raw["loss"]) and "val_loss" not in raw


def test_the_defaults_change_nothing(unequal):
    """A recipe of the paper has none of what came later; `modern` sets some of it, also where a space has defaults."""
    from darts_tf import TrainConfig, train
    from darts_tf.runs import recipes

    data = datasets.load(str(unequal / "colours.npz"))
    for recipe in ("cifar", "imagenet", "small", "modern"):
        config = train.completed(TrainConfig(arch=GENOTYPE, recipe=recipe, nesterov=False).begun(), data)
        for name, value in recipes.MODERN.items():
            expected = value if recipe == "modern" else recipes.TRAINING[recipe].get(name, getattr(TrainConfig(), name))
            if name not in ("nesterov", "cutout"):
                assert getattr(config, name) == expected, name
        assert not config.nesterov  # which was given
    table = TrainConfig(arch="mlp:4:relu", dataset="a.csv", label="b", recipe="modern").begun()
    assert table.mixup == 0 and table.ema == recipes.MODERN["ema"]


def test_weights_of_classes(unequal):
    from darts_tf import train

    data = datasets.load(str(unequal / "colours.npz"))
    weigh = train.weighing(data)
    of_classes = np.array([84 / 144, 84 / 72, 84 / 36])
    y, shares = np.array([0, 1, 2, 2]), np.array([[0.5, 0.5, 0], [0.2, 0, 0.8]], np.float32)
    ((_, labels, weights),) = weigh(tf.data.Dataset.from_tensors((np.zeros(4), y)))
    np.testing.assert_array_equal(labels, y)
    np.testing.assert_allclose(weights, of_classes[y], rtol=1e-6)
    # The loss of a mixture: that of each class in it, times the weight of the class.
    ((_, labels, weights),) = weigh(tf.data.Dataset.from_tensors((np.zeros(2), shares)))
    p = np.array([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]])
    losses = keras.losses.CategoricalCrossentropy(reduction=None)(labels, p) * weights
    np.testing.assert_allclose(losses, -(of_classes * shares * np.log(p)).sum(1), rtol=1e-5)


def test_a_class_without_images_does_not_make_others_count_less():
    from darts_tf import train

    data = types.SimpleNamespace(y_train=np.array([0, 0, 0, 2]), class_names=["a", "b", "c", "d"])
    ((_, _, weights),) = train.weighing(data)(tf.data.Dataset.from_tensors((np.zeros(4), data.y_train)))
    np.testing.assert_allclose(weights, [2 / 3, 2 / 3, 2 / 3, 2])


def test_defaults_that_depend_on_others():
    """Small tables have some batches, AdamW its own rate, short trainings a shorter warm-up, tables no images."""
    from darts_tf import TrainConfig, train

    def completed(y, names, **flags):
        data = types.SimpleNamespace(y_train=y, class_names=names, task=mock_task)
        arch = {"arch": "mlp:4:relu", "dataset": "a.csv", "label": "b"}
        return train.completed(TrainConfig(**arch, **flags).begun(), data)

    mock_task = types.SimpleNamespace(loss=lambda label_smooth: None)
    few = np.arange(100)
    assert completed(few, None).batch_size == 25
    assert completed(few, None, train_portion=0.9, early_stopping=2).batch_size == 22
    assert completed(few[:5], None).batch_size == 2
    adam = completed(few, None, optimizer="adamw")
    assert (adam.learning_rate, adam.weight_decay) == (1e-3, 0.05)
    assert completed(few, None).learning_rate == 0.1
    assert completed(few, None, optimizer="adamw", learning_rate=0.5).learning_rate == 0.5
    for recipe in ("small", "cifar", "modern"):
        config = completed(few, None, recipe=recipe)
        assert not (config.flip or config.cutout or config.label_smooth)
    assert completed(few, ["x"], recipe="modern").label_smooth == 0.1
    assert [completed(few, None, recipe="modern", epochs=epochs).warmup_epochs for epochs in (1, 2, 9)] == [0, 1, 2]


def test_adamw_does_not_decay_batch_norms_and_biases():
    from darts_tf import TrainConfig, train

    inputs = keras.Input((4,))
    network = keras.Model(inputs, keras.layers.BatchNormalization()(keras.layers.Dense(3)(inputs)))
    config = TrainConfig(arch=GENOTYPE, optimizer="adamw", learning_rate=0.1, weight_decay=0.5)
    optimizer = train.optimizer(network, datasets.load("digits").task, config)
    optimizer.build(network.trainable_variables)
    for variable in network.trainable_variables:
        variable.assign(keras.ops.ones_like(variable))
    optimizer.apply([keras.ops.zeros_like(variable) for variable in network.trainable_variables])
    kernel, *others = (variable.numpy() for variable in network.trainable_variables)
    np.testing.assert_allclose(kernel, 0.95)
    np.testing.assert_equal(np.concatenate(others), 1)


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
        (["--arch=DARTS_V2", "--early_stopping=3"], "--early_stopping=3 with --train_portion=1: expected less"),
        (
            ["--arch=DARTS_V2", "--optimizer=adamw", "--nesterov"],
            "--nesterov=True: expected none with --optimizer=adamw",
        ),
        (["--arch=DARTS_V2", "--epochs=3", "--warmup_epochs=3"], "--warmup_epochs=3: expected less than --epochs=3"),
        (["--arch=DARTS_V2", "--nesterov", "--momentum=0"], "--nesterov=True with --momentum=0.0: expected a momentum"),
        (["--init_from=a.keras", "--recompute"], "--recompute=True: expected none with --init_from"),
        (
            ["--arch=mlp:4:relu", "--label=a", "--dataset=a.csv", "--recipe=imagenet"],
            "--recipe=imagenet: expected another one, or none, with a table",
        ),
        (["--arch=DARTS_V2", "--teacher=FOLDER/a.keras"], "a.keras: no such file"),
        (["--arch=DARTS_V2", "--teacher_weight=0.5"], "--teacher_weight=0.5 without --teacher: expected both"),
        (["--arch=DARTS_V2", "--class_weight=balanced", "--recipe=imagenet"], "--class_weight=balanced: expected none"),
        (["--arch=DARTS_V2", "--space=recurrent", "--mixup=0.2"], "--mixup=0.2: expected none with text"),
        (
            ["--arch=mlp:4:relu", "--label=a", "--dataset=a.csv", "--cutmix=1"],
            "--cutmix=1.0: expected none with a table",
        ),
    ],
)
def test_wrong_flags(arguments, message, tmp_path):
    check_refusal(arguments, message, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments, message",
    [
        ([f"--arch={GENOTYPE.replace('sep_conv_3x3', 'sep_conv_4x4')}"], "'sep_conv_4x4': expected one of none, max_"),
        (
            ["--arch=DARTS_V2", "--train_portion=0.9999", "--early_stopping=1"],
            "--train_portion=0.9999: of 1442 images that leaves none to validate; expected less",
        ),
        (["--arch=DARTS_V2", "--batch_size=2000"], "--batch_size=2000: there are 1442 images to train on"),
        (["--evaluate=BROKEN"], "not a .keras file of layers that Keras knows"),
        (["--init_from=missing.keras"], "--init_from=missing.keras: no such file"),
        (["--evaluate=VECTORS"], "it maps (None, 3) to (None, 2): expected images"),
        (["--arch=DARTS_V2", "--teacher=VECTORS"], "it maps (None, 3) to (None, 2): expected images"),
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
