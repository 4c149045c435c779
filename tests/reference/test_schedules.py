import json

import numpy as np
import pytest
from original import relative_error

from darts_tf.methods import schedules

EXACT = 1e-9


def test_temperature_of_snas(losses_file):
    expected = np.load(losses_file)["snas/temperature_by_step"]
    # The original overwrites the number of epochs that it is given by 150.
    found = [schedules.value("linear", step, 150, 1, 0.03) for step in range(len(expected))]
    assert relative_error(found, expected) < EXACT


@pytest.mark.parametrize("name", ["cosine", "slow_cosine", "linear"])
def test_rate_of_the_auxiliary_skip(losses_file, name):
    arrays = np.load(losses_file)
    expected = arrays[f"darts_minus/decay/{name}"]
    found = [schedules.value(name, epoch, len(expected), 1, 0) for epoch in range(len(expected))]
    assert relative_error(found, expected) < EXACT


def test_rate_between_two_epochs(losses_file):
    arrays, prefix, some = np.load(losses_file), "darts_minus/decay/linear_start", 0
    for name in arrays.files:
        if name.startswith(prefix):
            start, _, rest = name.removeprefix(prefix).partition("_stop")
            stop, _, base = rest.partition("_base")
            expected = arrays[name]
            found = [
                schedules.value("linear", epoch, len(expected), float(base), 0, int(start), int(stop))
                for epoch in range(len(expected))
            ]
            assert relative_error(found, expected) < EXACT
            some += 1
    assert some


def test_dropout_after_skips(pdarts_file):
    table = json.loads(pdarts_file.with_suffix(".json").read_text())["table"]
    epochs = table["epochs"]
    for rate, moves, expected in zip(table["p_init"], table["train_arch"], table["p"], strict=True):
        still = moves.index(1)
        found = [schedules.skip_dropout(epoch, epochs, rate, still) for epoch in range(epochs)]
        assert np.allclose(found, expected, 1e-12, 0)
