"""Searches and trainings of language models: stopped and gone on with, on low precision, and what they refuse."""

import csv
import random

import keras
import numpy as np
import pytest

from darts_tf import SearchConfig, TrainConfig, run_search, run_training
from darts_tf.runs import checkpoints

WORDS = ["the", "cat", "sat", "on", "a", "mat", "dog", "ran", "to", "house", "and", ","]
GENOTYPE = "Genotype(recurrent=[('relu', 0), ('tanh', 1)], concat=[1, 2])"
SIZES = {"units": 6, "batch_size": 4, "bptt": 10, "dropout": 0.3, "dropouth": 0.2, "dropoutx": 0.3, "dropoute": 0.1}
SEARCH = {"space": "recurrent", "nodes": 2, "epochs": 2, **SIZES}
TRAIN = {"space": "recurrent", "arch": GENOTYPE, "epochs": 7, "nonmono": 1, "learning_rate": 40.0, **SIZES}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    draw, file = random.Random(0), tmp_path_factory.mktemp("text") / "text.txt"
    file.write_text("\n".join(" ".join(draw.choices(WORDS, k=draw.randint(3, 12))) for _ in range(120)))
    return str(file)


def search(text, output, **values):
    return run_search(SearchConfig(**{**SEARCH, "dataset": text, "output": str(output), **values}), verbose=0)


def train(text, output, **values):
    return run_training(TrainConfig(**{**TRAIN, "dataset": text, "output": str(output), **values}), verbose=0)


def stopped_after(step, monkeypatch):
    end = checkpoints.Checkpoints.on_train_batch_end

    def on_train_batch_end(self, batch, logs=None):
        self.stop = 15 if self.done == step - 1 else None
        return end(self, batch, logs)

    monkeypatch.setattr(checkpoints.Checkpoints, "on_train_batch_end", on_train_batch_end)


def state(folder):
    """All that a run leaves, but for times."""
    newest = max((folder / "checkpoints").iterdir())
    with np.load(newest) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    with (folder / "history.csv").open() as file:
        found |= {f"row {row['epoch']}": {**row, "seconds": 0} for row in csv.DictReader(file)}
    for name in ("alphas.npz", "genotype.json", "metrics.json"):
        found[name] = (folder / name).read_bytes() if (folder / name).exists() else None
    if (folder / "model.keras").exists():
        weights = keras.models.load_model(folder / "model.keras").get_weights()
        found |= {f"weight {place}": weight for place, weight in enumerate(weights)}
    return {**found, "newest": newest.name}


def check_goes_on(run, text, tmp_path, steps, **values):
    """A run that is stopped after each of some steps ends as one that is not."""
    run(text, tmp_path / "whole", **values)
    for step in steps:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
            stopped_after(step, patch)
            run(text, tmp_path / "parts", **values)
        assert (tmp_path / "parts" / "checkpoints" / f"step-{step:08}.npz").exists()
    run(text, tmp_path / "parts", **values)
    ours, theirs = state(tmp_path / "parts"), state(tmp_path / "whole")
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)
    return theirs


@pytest.mark.slow
@pytest.mark.parametrize("unrolled", [False, True])
def test_a_search_goes_on_bit_for_bit(unrolled, text, tmp_path):
    check_goes_on(search, text, tmp_path, [4, 20], unrolled=unrolled)


@pytest.mark.slow
def test_a_training_goes_on_bit_for_bit_while_it_averages(text, tmp_path):
    rows = check_goes_on(train, text, tmp_path, [7, 115])
    assert [rows[f"row {epoch}"]["averaged"] for epoch in range(1, 8)] == ["0.0"] * 3 + ["1.0"] * 4
