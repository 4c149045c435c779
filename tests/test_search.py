"""The command as a user runs it."""

import contextlib
import csv
import json
import os
import pty
import re
import subprocess
import sys
import termios

import numpy as np
import processes
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from darts_tf import spaces
from darts_tf.methods.relaxations import Softmax
from darts_tf.spaces.cells.space import CellSpace

SOFTMAX = Softmax()

TINY = ["--layers=3", "--init_channels=2", "--nodes=1", "--primitives=none,skip_connect,max_pool_3x3,sep_conv_3x3"]


def run(*arguments):
    return processes.run("darts_tf.search", *arguments)


@pytest.mark.slow
def test_a_search_and_its_run_directory(tmp_path):
    output = tmp_path / "run"
    command = [sys.executable, "-m", "darts_tf.search", *TINY, "--unrolled", "--epochs=3", "--tensorboard"]
    # A Python of its own, since no library may say a word on the way either.
    done = subprocess.run([*command, f"--output={output}"], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    first, second, third, *epochs = done.stderr.splitlines()
    assert (first, third) == ("Starting TensorFlow ...", "Tracing the step ...")
    assert second == f"Searching on 1,442 grey 8x8 images of 10 classes; results go to {output}/"
    number = r"\d+\.\d+"
    for epoch, line in enumerate(epochs, 1):
        left = "" if epoch == 3 else r"  00:\d\d left"
        change = "" if epoch == 1 else "  (genotype unchanged|new in (normal|reduce): .*)"
        reached = rf"loss {number}  accuracy {number}%  validation {number}%  {number} s"
        assert re.fullmatch(f"epoch {epoch}/3  {reached}{left}{change}", line), line
    assert len(epochs) == 3

    genotype = spaces.from_json((output / "genotype.json").read_text())
    assert done.stdout.startswith(f"\n{genotype}\n\nSaved in {output}/: ") and (output / "report.html").exists()
    config = json.loads((output / "config.json").read_text())
    assert config["unrolled"] is True and config["batch_size"] == 32 and config["data"]["image_shape"] == [8, 8, 1]
    history = list(csv.DictReader((output / "history.csv").open()))
    assert [row["epoch"] for row in history] == ["1", "2", "3"] and history[-1]["genotype"] == str(genotype)
    with np.load(output / "alphas.npz") as alphas:
        assert alphas["normal"].shape == alphas["reduce"].shape == (4, 2, 4)
        assert (alphas["normal"][0] != alphas["normal"][1]).any()
        weights = [SOFTMAX.strengths(alphas[kind][-1]) for kind in ("normal", "reduce")]
        assert (
            CellSpace(1, alphas["primitives"].tolist()).decide(dict(zip(("normal", "reduce"), weights, strict=True)))
            == genotype
        )
    check_tensorboard(output / "tensorboard", history)

    again = run(*TINY, "--epochs=1", f"--output={output}")
    assert again.returncode == 2 and f"--epochs=1: the run in {output} has 3; expected that" in again.stderr
    done = run("--resume", "--json", f"--output={output}")
    assert done.returncode == 0 and "Going on after epoch 3." in done.stderr and "epoch 3/3" not in done.stderr
    found = json.loads(done.stdout)
    assert spaces.from_json(json.dumps(found["genotype"])) == genotype
    assert found["val_accuracy"] == float(history[-1]["val_accuracy"])
    assert (found["output"], found["parameters"]) == (str(output), int(history[-1]["parameters"]))
    assert spaces.from_json((output / "genotype.json").read_text()) == genotype
    (output / "history.csv").rename(tmp_path / "elsewhere")
    done = run("--resume", f"--output={output}")
    assert done.returncode == 2 and f"--output={output}: its history.csv is gone" in done.stderr
    done = run(*TINY, "--epochs=1", "--overwrite", "--verbose=0", f"--output={output}")
    assert done.returncode == 0 and not done.stderr and done.stdout.startswith("\nGenotype(")
    assert len((output / "history.csv").read_text().splitlines()) == 2
    assert not list(output.glob("tensorboard/*/*"))


def check_tensorboard(folder, history):
    def read(name):
        events = EventAccumulator(str(folder / name), size_guidance={"tensors": 0})
        events.Reload()
        return {tag: [event.tensor_proto for event in events.Tensors(tag)] for tag in events.Tags()["tensors"]}

    scalars = [float(tf.make_ndarray(value)) for value in read("train")["epoch_loss"]]
    assert scalars == pytest.approx([float(row["loss"]) for row in history])
    assert len(read("validation")["epoch_accuracy"]) == 3
    found = read("search")
    assert len(found["alpha/normal"]) == len(found["alpha/reduce"]) == len(found["cells"]) == 3
    width, height, picture = tf.make_ndarray(found["cells"][-1])
    assert tf.io.decode_png(picture).shape == (int(height), int(width), 3)


@pytest.mark.slow
def test_a_bar_on_a_terminal(tmp_path):
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (40, 120))
    process = processes.Process("darts_tf.search", *TINY, "--epochs=1", f"--output={tmp_path}/run", stderr=end)
    os.close(end)
    written = b""
    with contextlib.suppress(OSError):  # the end
        while part := os.read(terminal, 10_000):
            written += part
    os.close(terminal)
    process.communicate()
    shown = written.decode().replace("\r\n", "\n").split("\n")
    assert process.returncode == 0 and len(shown) == 4, shown
    bar = shown[2].split("\r")
    assert "epoch 1/1" in bar[1] and " 0/22" in bar[1] and any("tracing the step" in state for state in bar)
    assert any(re.search(r"█.* \d+/22, loss \d.*  accuracy \d.*%  00:0\d left", state) for state in bar), bar
    assert any("validating" in state for state in bar) and re.fullmatch(r"epoch 1/1  loss .* s", bar[-1])


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
    assert "Try a lower --learning_rate or --grad_clip" in broken.stderr and not broken.stdout


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--layers=0"], "--layers=0: expected at least 1."),
        (["--layers=2"], "--layers=2: expected at least 3 with --space=darts"),
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
