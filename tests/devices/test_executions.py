"""Several steps run at once make the same run as one after the other, interrupted or not."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from darts_tf import DARTS, SearchNetwork
from darts_tf.cli import messages
from darts_tf.data.tasks import ImageClassification
from darts_tf.methods.optimizers import SGD, Adam
from darts_tf.runs import callbacks, fitting
from darts_tf.runs.configurations import SearchConfig, TrainConfig

STEPS, EPOCHS = 6, 2
CONFIG = {
    "versions": {},
    "data": {"image_shape": [8, 8, 1], "class_names": ["a", "b"]},
    "dataset": "digits",
    "epochs": EPOCHS,
    "nodes": 1,
    "primitives": ["skip_connect", "max_pool_3x3"],
}
RATES = {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "metrics": ["accuracy"]}


def data():
    draw = np.random.default_rng(0)
    images = draw.normal(size=(64, 8, 8, 1)).astype(np.float32)
    return images, (images.mean((1, 2, 3)) > 0).astype(np.int32)


def pairs(start):
    halves = [tf.data.Dataset.from_tensor_slices(data()).shuffle(64, seed=seed).repeat().batch(8) for seed in (0, 1)]
    return tf.data.Dataset.zip(*halves).skip(start)


def a_search():
    search = DARTS(SearchNetwork(2, 3, 2, nodes=1, primitives=["skip_connect", "max_pool_3x3"]))
    search.compile(optimizer=SGD(0.05), arch_optimizer=Adam(0.01), **RATES)
    search.create_variables(*pairs(0).element_spec[0])
    return search


def a_network():
    network = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    network.add(keras.layers.Dropout(0.5, seed=1))
    network.add(keras.layers.Dense(2))
    network.compile(SGD(0.05), auto_scale_loss=False, **RATES)
    network.optimizer.build(network.trainable_variables)
    network.compute_loss(None, *(given := (tf.zeros([1], tf.int32), tf.zeros([1, 2]))))
    network.compute_metrics(None, *given)
    network.reset_metrics()
    return network


def run(folder, make, at_once, every=0, stop=None):
    """Runs to the end, or until some step; goes on if there is something to go on from. Returns what was seen."""
    command = "search" if make is a_search else "train"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, "command": command}))
    keras.utils.set_random_seed(0)
    model, seen = make(), []
    batches = pairs if make is a_search else lambda start: pairs(start).map(lambda first, second: first)
    kind = SearchConfig if make is a_search else TrainConfig
    config = kind(steps_per_execution=at_once, checkpoint_every=every, epochs=EPOCHS)
    with messages.spoken(0):
        search = make is a_search
        space = model.network.space if search else None
        _, checkpoints = fitting.restore(
            lambda done: model, folder, config, STEPS, lambda: None, tf.distribute.get_strategy(), space=space
        )
        done = checkpoints.done // STEPS
        record = (
            callbacks.SearchRecord(folder, model.network.space, done) if search else callbacks.History(folder, done)
        )
        used = [record, keras.callbacks.LambdaCallback()]

        def look(batch, logs):
            seen.append(batch)
            if stop and checkpoints.done >= stop - at_once:
                checkpoints.stop = 15

        used[1].on_train_batch_end = look
        fitting.fit(model, batches, STEPS, config, data(), used, checkpoints, ImageClassification.headline)
    return seen


def left(folder):
    """What the run is at the end."""
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    with np.load(folder / "checkpoints" / names[-1]) as arrays:
        values = [arrays[name] for name in arrays.files]
    lines = [line.split(",") for line in (folder / "history.csv").read_text().splitlines()]
    place = lines[0].index("seconds")
    return names[-1], values, [line[:place] + line[place + 1 :] for line in lines]


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory):
    """What runs of single steps leave, by what they train."""
    found = {}
    for make in (a_search, a_network):
        folder = tmp_path_factory.mktemp("executions") / "one"
        assert len(run(folder, make, 1)) == STEPS * EPOCHS
        found[make] = left(folder)
    return found


def check_same(folder, expected):
    found = left(folder)
    assert found[0] == expected[0] == f"step-{STEPS * EPOCHS:08}.npz" and found[2] == expected[2]
    for ours, theirs in zip(found[1], expected[1], strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "make, at_once, every, times",
    [
        (a_search, 4, 0, 4),
        (a_network, 4, 0, 4),
        (a_network, 1000, 0, 2),
        (a_network, 1000, 3, 4),
        (a_network, 3, 4, 4),  # checkpoints after steps 6 and 12
    ],
)
def test_several_steps_at_once(make, at_once, every, times, one_by_one, tmp_path):
    assert len(run(tmp_path / "run", make, at_once, every)) == times
    check_same(tmp_path / "run", one_by_one[make])


@pytest.mark.parametrize("make, first, then", [(a_search, 1, 4), (a_network, 4, 4), (a_network, 1000, 1)])
def test_after_an_interruption(make, first, then, one_by_one, tmp_path):
    with pytest.raises(SystemExit):
        run(tmp_path / "run", make, first, stop=4)
    done = int(max((tmp_path / "run" / "checkpoints").iterdir()).stem.removeprefix("step-"))
    assert 0 < done <= STEPS
    run(tmp_path / "run", make, then)
    check_same(tmp_path / "run", one_by_one[make])
