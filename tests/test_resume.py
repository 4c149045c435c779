"""Runs that are killed, and go on as if nothing had been."""

import csv
import json
import random
import subprocess
import sys
import time

import numpy as np
import pytest

SEARCH = ["darts_tf.search", "--layers=3", "--init_channels=2", "--nodes=1", "--epochs=4", "--unrolled"]
TRAIN = [
    *("darts_tf.train", "--layers=3", "--init_channels=2", "--epochs=4", "--drop_path_prob=0.3", "--train_portion=0.8"),
    "--arch=Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1)], normal_concat=[2], "
    "reduce=[('max_pool_3x3', 0), ('skip_connect', 1)], reduce_concat=[2])",
]


def begin(command, output, *flags):
    line = [sys.executable, "-m", *command, "--checkpoint_every=1", f"--output={output}", *flags]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process):
    printed, errors = process.communicate(timeout=280)
    return process.returncode, printed, errors


def newest(output):
    return max((output / "checkpoints").glob("step-*.npz"), default=None)


def state(output):
    """All that a run leaves, but for times."""
    with np.load(newest(output)) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    for row in csv.DictReader((output / "history.csv").open()):
        found[f"history {row['epoch']}"] = {name: value for name, value in row.items() if name != "seconds"}
    found["epochs"] = len((output / "history.csv").read_text().splitlines())
    for name in ("genotype.json", "metrics.json"):
        if (output / name).exists():
            found[name] = json.loads((output / name).read_text())
    if (output / "alphas.npz").exists():
        with np.load(output / "alphas.npz") as alphas:
            found |= {f"alphas {kind}": alphas[kind] for kind in ("normal", "reduce")}
    return found


def check_equal(output, other):
    ours, theirs = state(output), state(other)
    assert ours.keys() == theirs.keys() and newest(output).name == newest(other).name
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "search"
    status, _, errors = end(begin(SEARCH, output))
    assert status == 0, errors
    return output


@pytest.mark.slow
@pytest.mark.parametrize("command, kills", [(SEARCH, 14), (TRAIN, 6)], ids=["search", "train"])
def test_a_run_killed_again_and_again_ends_where_it_would_have(command, kills, tmp_path, request):
    draw, killed = random.Random(0), tmp_path / "killed"
    for _ in range(kills):
        before, process = newest(killed), begin(command, killed)
        while newest(killed) == before:  # files are written all the time from here on
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.15))
        process.kill()
        process.communicate()
    status, _, errors = end(begin(command, killed))
    assert status == 0, errors
    assert "Going on after step" in errors and not list(killed.rglob(".[0-9]*"))
    if command is SEARCH:
        check_equal(killed, request.getfixturevalue("uninterrupted"))
    else:
        assert end(begin(command, tmp_path / "whole"))[0] == 0
        check_equal(killed, tmp_path / "whole")
