"""Searches and trainings of language models: stopped and gone on with, on low precision, and what they refuse."""

import csv
import random

import keras
import numpy as np
import pytest

from darts_tf import SearchConfig, TrainConfig, run_search, run_training
from darts_tf.cli.messages import UsageError
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
    averaged = [rows[f"row {epoch}"]["averaged"] for epoch in range(1, 8)]
    assert averaged[0] == "0.0" and averaged[-2:] == ["1.0", "1.0"]  # which the second stop is in


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision(precision, text, tmp_path):
    found = search(text, tmp_path / "search", precision=precision, unrolled=True, epochs=1)
    trained = train(text, tmp_path / "train", precision=precision, epochs=1, learning_rate=5.0)
    assert np.isfinite(found.history[-1]["val_perplexity"]) and trained.results["perplexity"] < 40


@pytest.mark.slow
def test_selection_by_perturbation(text, tmp_path):
    found = search(text, tmp_path, selection="perturbation", tuning_epochs=0, epochs=1)
    found.genotype.space.check(found.genotype)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"selection": "threshold"}, "--selection=threshold: in the space recurrent no row can be left out"),
        ({"selection": "max_skips"}, "--selection=max_skips: nothing in the space recurrent is a skip_connect"),
        ({"early_stop": "skips"}, "--early_stop=skips: nothing in the space recurrent is a skip_connect"),
        ({"auxiliary_skip": True}, "--auxiliary_skip=True: the space recurrent has no such part"),
        ({"sync_batch_norm": True}, "--sync_batch_norm=True: the space recurrent has no such part"),
        ({"partial_channels": 2}, "--partial_channels=2: the space recurrent has no such part"),
        ({"recompute": True}, "--recompute=True: the space recurrent has no such part"),
        ({"layers": 3}, "--layers=3: the space recurrent has no such size"),
        ({"flip": True}, "--flip=True: expected none with text"),
        ({"steps_per_execution": 4}, "--steps_per_execution=4: expected 1 with text"),
        ({"primitives": ["glu"]}, "--primitives=glu: no such activation; expected tanh, relu"),
        ({"space": "darts", "nodes": 1}, "it is text, the network is one of images"),
    ],
)
def test_searches_that_cannot_be(values, message, text, tmp_path):
    with pytest.raises(UsageError) as refused:
        search(text, tmp_path / "run", **values)
    assert message in str(refused.value) and "\n" not in str(refused.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "values, message",
    [
        ({"recipe": "cifar"}, "--recipe=cifar: expected one of ptb, wikitext2, small for language models"),
        ({"auxiliary": True}, "--auxiliary=True: the space recurrent has no such size"),
        ({"recompute": True}, "expected a genotype of cells of images"),
        ({"space": "recursive"}, "--space=recursive: expected one of darts"),
        ({"arch": "NASNet"}, "--arch=NASNet: Not a genotype: expected ENAS, DARTS_V1, DARTS_V2, a genotype.json"),
        ({"space": "darts", "arch": "DARTS_V2"}, "it is text, the network is one of images; expected images"),
        ({"dataset": "digits", "space": "darts", "arch": "DARTS_V2"}, "--bptt=10: expected none with images"),
    ],
)
def test_trainings_that_cannot_be(values, message, text, tmp_path):
    with pytest.raises(UsageError) as refused:
        train(text, tmp_path / "run", **values)
    assert message in str(refused.value) and "\n" not in str(refused.value) and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_model_has_its_own_tokens_and_size(text, tmp_path):
    train(text, tmp_path / "run", epochs=1)
    model = str(tmp_path / "run" / "model.keras")
    for start in ("evaluate", "init_from"):
        for name, value in {"tokens": "characters", "vocabulary": 5, "units": 7}.items():
            with pytest.raises(UsageError, match=f"--{name}={value}: expected none, the model of .* has its own"):
                run_training(TrainConfig(**{start: model, "dataset": text, name: value}), verbose=0)
