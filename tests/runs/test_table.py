"""Searches, trainings and trials on tables."""

import csv
import json
import os
import signal

import keras
import numpy as np
import pytest
from small_table import people

from darts_tf import SearchConfig, TrainConfig, run_search, run_training, train, tune
from darts_tf.cli import messages
from darts_tf.cli.messages import UsageError
from darts_tf.data import columns
from darts_tf.reports import report
from darts_tf.runs import checkpoints

DATA = {"label": "price", "columns": ["band:none"]}
SIZES = {"layers": 2, "units": 8}
ARCH = "mlp:8:relu,tanh"


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "people.csv"
    path.write_text("\n".join(people()))
    return str(path)


@pytest.fixture(scope="module")
def searched(table, tmp_path_factory):
    config = SearchConfig(dataset=table, epochs=2, output=str(tmp_path_factory.mktemp("search")), **DATA, **SIZES)
    return run_search(config, verbose=0)


@pytest.fixture(scope="module")
def trained(table, searched, tmp_path_factory):
    values = {"dataset": table, "epochs": 3, "train_portion": 0.75, **DATA}
    output = str(tmp_path_factory.mktemp("train"))
    return run_training(TrainConfig(arch=f"{searched.directory}/genotype.json", output=output, **values), verbose=0)


def shown(directory):
    """What a report shows."""
    assert (directory / "report.html").exists()
    return report.contents(directory)


def test_a_search(searched):
    assert searched.config.space == "mlp" and searched.config.batch_size == 10  # of 40 rows in each part
    assert 0 < searched.history[-1]["val_mean_absolute_error"] < 200
    content = shown(searched.directory)
    assert content["headline"]["direction"] == "min" and content["item"] == "row"
    settings = dict(content["config"])
    assert settings["--label"] == "price" and settings["columns"] == "4" and "--flip" not in settings


def test_a_training(table, trained):
    results = trained.results
    assert results["test_rows"] == 20 and results["mean_absolute_error"] > 0 and "r2" in results
    assert "mean absolute, of 20 rows" in trained.task.table(results)
    content = shown(trained.directory)
    assert content["residuals"]["of"] == len(content["residuals"]["points"]) == 20
    assert [name for name, _ in content["figures"]] == ["mean absolute error of 20 test rows", "R² of the test rows"]
    again = run_training(TrainConfig(evaluate=f"{trained.directory}/model.keras", dataset=table), verbose=0)
    assert again.results == results and again.config.label == "price"
    with pytest.raises(UsageError, match=r"--label=band: expected price, which the model of .* knows"):
        run_training(TrainConfig(evaluate=f"{trained.directory}/model.keras", dataset=table, label="band"), verbose=0)


def test_the_model_is_plain_keras_and_takes_columns(trained):
    model = keras.models.load_model(trained.directory / "model.keras")
    assert not [layer for layer in model.layers if type(layer).__module__.startswith("darts_tf")]
    rows = {
        "age_years": np.array([30, np.nan], np.float32),
        "city": np.array(["Basel", "Paris"], object),
        "joined": np.array(["2012-03-04", ""], object),
        "member": np.array([1, np.nan], np.float32),
    }
    known = json.loads((trained.directory / "config.json").read_text())["data"]["columns"]
    kinds = [columns.Column.from_config(name, config) for name, config in known.items()]
    predicted = columns.in_batches(model, kinds, rows)
    assert predicted.shape == (2, 1) and np.isfinite(predicted).all() and abs(predicted.mean() - 150) < 100
    loss, error = model.evaluate(columns.tensors(kinds, rows), np.array([100.0, 200.0]), verbose=0)
    assert loss > 0 and error == pytest.approx(np.abs(predicted[:, 0] - [100, 200]).mean(), rel=1e-4)


def test_the_same_rows_are_for_testing(table, trained):
    """As in the training of the model, unless another table is given."""
    model = keras.models.load_model(trained.directory / "model.keras")
    known = json.loads((trained.directory / "config.json").read_text(encoding="utf-8"))
    known |= {"test_seed": 7}
    for name, seed in ((known["dataset"], 7), (os.path.relpath(known["dataset"]), 7), ("other.csv", 0)):
        config = TrainConfig(init_from=f"{trained.directory}/model.keras", dataset=name)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(train.starting, "load_data", lambda config, **more: None)
            config, _ = train._load_table(config, model, "model.keras", known)
        assert (config.test_seed, config.label) == (seed, "price")


def test_a_trained_model_learns_another_label(table, trained, tmp_path):
    values = {"dataset": table, "label": "band", "epochs": 2, "output": str(tmp_path / "run")}
    tuned = run_training(TrainConfig(init_from=f"{trained.directory}/model.keras", **values), verbose=0)
    assert set(tuned.results["per_class"]) == {"high", "low"} and 0 <= tuned.results["auc"] <= 1
    before = json.loads((trained.directory / "config.json").read_text())["data"]["columns"]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data"]["columns"] == before
    content = shown(tmp_path / "run")
    assert np.sum(content["confusion"]) == 20 and content["classes"] == ["high", "low"] and "worst" not in content
    assert [name for name, _ in content["figures"]] == ["of 20 test rows", "area under the ROC curve"]


def test_a_training_that_is_stopped_goes_on(table, tmp_path, monkeypatch):
    values = {"arch": ARCH, "dataset": table, "epochs": 2, **DATA}
    whole = run_training(TrainConfig(output=str(tmp_path / "whole"), **values), verbose=0)
    end = checkpoints.Checkpoints.on_train_batch_end

    def stopping(self, batch, logs=None):
        self.stop = signal.SIGTERM if self.done == 4 else None
        return end(self, batch, logs)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(checkpoints.Checkpoints, "on_train_batch_end", stopping)
        run_training(TrainConfig(output=str(tmp_path / "parts"), **values), verbose=0)
    parts = run_training(TrainConfig(output=str(tmp_path / "parts"), **values), verbose=0)
    assert parts.results == whole.results


def test_trials(table, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    values = {"dataset": table, "oracle": "random", "max_trials": 2, "epochs": 1, **DATA, **SIZES}
    with messages.spoken(0):
        tune.main(tune.TuneConfig(output=str(tmp_path / "run"), **values))
    signal.signal(signal.SIGTERM, before)
    with (tmp_path / "run" / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 and all(float(row["val_mean_absolute_error"]) > 0 for row in rows)
    best = shown(tmp_path / "run")["genotype"]
    assert best == min(rows, key=lambda row: float(row["val_mean_absolute_error"]))["genotype"]


@pytest.mark.parametrize(
    "values, message",
    [
        ({"label": None}, "no --label: expected the column to predict, one of id, age_years"),
        ({"label": "prize"}, r"no column prize \(--label\): did you mean price\?"),
        ({"columns": ["age"]}, "--columns=age: expected NAME:TYPE, such as age:number"),
        ({"columns": ["city:number"]}, "--dataset=.*: the column city has 'Bern' in line 2"),
        ({"space": "darts", "units": None}, "--space=darts: its networks are of images, .*people.csv is a table"),
        ({"flip": True}, "--flip=True: expected none with a table"),
        ({"tokens": "words"}, "--tokens=words: expected none with a table"),
        ({"dataset": "digits", "label": None, "test_seed": 3}, "--test_seed=3: expected none with images"),
        ({"test_table": "gone.csv"}, "--test_table=gone.csv: no such file"),
    ],
)
def test_searches_that_cannot_be(values, message, table, tmp_path):
    values = {"dataset": table, "output": str(tmp_path / "run"), **DATA, **SIZES, **values}
    if values["dataset"] == "digits":
        del values["columns"]
        values["space"] = "mlp"
    with pytest.raises(UsageError, match=message) as refused:
        run_search(SearchConfig(**{name: value for name, value in values.items() if value is not None}), verbose=0)
    assert "\n" not in str(refused.value) and not (tmp_path / "run").exists()


def test_a_model_without_its_columns_is_refused(table, trained, tmp_path):
    (tmp_path / "model.keras").write_bytes((trained.directory / "model.keras").read_bytes())
    with pytest.raises(
        UsageError, match=r"its columns are not known; expected a model of a table, and the config\.json"
    ):
        run_training(TrainConfig(evaluate=str(tmp_path / "model.keras"), dataset=table), verbose=0)
    with pytest.raises(UsageError, match=r"--arch=DARTS_V2: its networks are of images, .*people.csv is a table"):
        run_training(TrainConfig(arch="DARTS_V2", dataset=table, label="price"), verbose=0)


def test_evolution_goes_by_the_error(table, tmp_path):
    values = {"method": "spos", "epochs": 1, "population": 4, "generations": 1, "recalibration_images": 8}
    config = SearchConfig(dataset=table, output=str(tmp_path / "run"), **DATA, **SIZES, **values)
    found = run_search(config, verbose=0)
    networks = json.loads((tmp_path / "run" / "evolution.json").read_text())["networks"]
    best = min(networks, key=lambda one: one["result"])
    assert str(found.genotype) == best["architecture"] and best["result"] > 1  # in the unit of the table
