"""The command as a user runs it."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest

from darts_tf import genotypes

TINY = ["--layers=3", "--init_channels=2", "--nodes=2"]


def run(*arguments, timeout=280):
    command = [sys.executable, "-m", "darts_tf.search", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


@pytest.mark.slow
def test_a_search_and_its_run_directory(tmp_path):
    output = tmp_path / "run"
    done = run(*TINY, "--unrolled", "--epochs=3", f"--output={output}")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "Starting TensorFlow ...\n"
    assert "Epoch 3/3" in done.stdout and "val_accuracy" in done.stdout and "Genotype(normal=[(" in done.stdout

    genotype = genotypes.from_json((output / "genotype.json").read_text())
    assert str(genotype) in done.stdout
    config = json.loads((output / "config.json").read_text())
    assert config["unrolled"] is True and config["batch_size"] == 32 and config["data"]["image_shape"] == [8, 8, 1]
    history = list(csv.DictReader((output / "history.csv").open()))
    assert [row["epoch"] for row in history] == ["1", "2", "3"] and history[-1]["genotype"] == str(genotype)
    with np.load(output / "alphas.npz") as alphas:
        assert alphas["normal"].shape == alphas["reduce"].shape == (4, 5, 8)
        assert (alphas["normal"][0] != alphas["normal"][1]).any()
        weights = [genotypes.softmax(alphas[kind][-1]) for kind in ("normal", "reduce")]
        assert genotypes.derive(*weights, alphas["primitives"].tolist()) == genotype

    again = run(*TINY, "--epochs=1", f"--output={output}")
    assert again.returncode == 2 and f"--epochs=1: the run in {output} has 3; expected that" in again.stderr
    done = run("--resume", f"--output={output}")
    assert done.returncode == 0 and str(genotype) in done.stdout and "Epoch" not in done.stdout
    assert genotypes.from_json((output / "genotype.json").read_text()) == genotype
    assert run(*TINY, "--epochs=1", "--overwrite", f"--output={output}").returncode == 0
    assert len((output / "history.csv").read_text().splitlines()) == 2


@pytest.mark.slow
def test_operations_of_the_user_and_a_loss_that_becomes_nan(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import darts_tf\n"
        "from darts_tf.stages import BatchNorm, Conv, ReLU\n"
        "@darts_tf.register_operation('conv_1x1')\n"
        "def conv_1x1(stride, affine):\n"
        "    return [ReLU(), Conv((1, 1), (stride, stride)), BatchNorm(affine)]\n"
    )
    mine = [f"--operations={tmp_path}/mine.py", "--primitives=none,conv_1x1"]
    done = run(*TINY, *mine, "--epochs=1", f"--output={tmp_path}/a")
    assert done.returncode == 0, done.stderr
    assert "('conv_1x1', 1)" in done.stdout
    broken = run(*TINY, *mine, "--epochs=3", "--learning_rate=1e30", "--grad_clip=1e30", f"--output={tmp_path}/b")
    assert broken.returncode == 1
    assert "the loss became NaN in epoch 1" in broken.stderr and "Traceback" not in broken.stderr


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--layers=2"], "flag --layers=2: 2 is not integer >= 3"),
        (["--train_portion=1"], "--train_portion=1.0: expected a number between 0 and 1"),
        (["--init_chanels=3"], "Unknown command line flag 'init_chanels'. Did you mean: init_channels"),
        (["cifar10"], "cifar10: expected no argument and flags"),
        (["--init_channels=5"], "--init_channels=5: expected an even number"),
    ],
)
def test_wrong_flags(arguments, message, tmp_path):
    check_refusal([*arguments, f"--output={tmp_path}/run"], message, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--dataset=no_such_set"], "--dataset=no_such_set: no such dataset: expected digits, a folder"),
        (
            ["--primitives=sep_conv_4x4"],
            "--primitives=sep_conv_4x4: no such operation; expected some of none, max_pool",
        ),
        (["--batch_size=1000"], "--batch_size=1000: a batch of 1000 is larger than a split of the data"),
        (["--dataset=EMPTY"], "no folders in it: expected one folder of images per class"),
        (["--operations=missing.py"], "--operations=missing.py: FileNotFoundError"),
    ],
)
def test_wrong_data(arguments, message, tmp_path):
    (tmp_path / "empty").mkdir()
    arguments = [argument.replace("EMPTY", str(tmp_path / "empty")) for argument in arguments]
    check_refusal([*arguments, f"--output={tmp_path}/run"], message, tmp_path)


def check_refusal(arguments, message, folder):
    done = run(*arguments)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line != "Starting TensorFlow ..."]
    assert len(lines) == 1 and message in lines[0], done.stderr
    assert not (folder / "run").exists()


def test_help_starts_with_what_the_command_does():
    done = subprocess.run(
        [sys.executable, "-m", "darts_tf.search", "--help"], capture_output=True, text=True, check=False
    )
    assert "Searches a neural network cell" in done.stdout and "--unrolled" in " ".join(
        done.stdout.replace("[no]", "").split()
    )
