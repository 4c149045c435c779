"""Runs that are killed, and go on as if nothing had been."""

import csv
import json
import random
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
import tensorflow as tf
from processes import Process, run

SEARCH = ["darts_tf.search", "--layers=3", "--init_channels=2", "--nodes=1", "--epochs=4"]
SEARCH += ["--primitives=skip_connect,sep_conv_3x3"]
TRAIN = [
    *("darts_tf.train", "--layers=1", "--init_channels=2", "--epochs=4", "--drop_path_prob=0.3", "--train_portion=0.8"),
    "--arch=Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1)], normal_concat=[2], "
    "reduce=[('max_pool_3x3', 0), ('skip_connect', 1)], reduce_concat=[2])",
    *("--early_stopping=3", "--ema=0.9", "--gradient_accumulation=2", "--mixup=0.2", "--cutmix=1", "--randaugment=1"),
    "--deterministic",
]


def begin(command, output, *flags):
    return Process(*command, "--checkpoint_every=1", f"--output={output}", *flags)


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


@pytest.mark.parametrize(
    "command, kills",
    [pytest.param(SEARCH, 2, marks=pytest.mark.slow), pytest.param(TRAIN, 4, marks=pytest.mark.soak)],
    ids=["search", "train"],
)
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
    assert "Going on after" in errors and not list(killed.rglob(".[0-9]*"))
    if command is SEARCH:
        check_equal(killed, request.getfixturevalue("uninterrupted"))
    else:
        assert end(begin(command, tmp_path / "whole"))[0] == 0
        check_equal(killed, tmp_path / "whole")


@pytest.mark.slow
def test_a_run_on_two_devices_that_is_killed(tmp_path):
    command = [*SEARCH[:-1], "--primitives=skip_connect,max_pool_3x3", "--strategy=mirrored", "--cpu_devices=2"]
    command.append("--epochs=2")
    process = begin(command, tmp_path / "killed")
    while newest(tmp_path / "killed") is None or newest(tmp_path / "killed").stem < "step-00000030":
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.kill()
    process.communicate()
    status, _, errors = end(begin(["darts_tf.search"], tmp_path / "killed", "--resume"))
    assert status == 0 and "Going on after step" in errors, errors
    assert end(begin(command, tmp_path / "whole"))[0] == 0
    check_equal(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.slow
def test_damaged_checkpoints_give_way_to_the_one_before(uninterrupted, tmp_path):
    output = tmp_path / "run"
    shutil.copytree(uninterrupted, output)
    last, before, good = sorted((output / "checkpoints").glob("step-*.npz"), reverse=True)
    for file, damage in ((last, lambda content: content[: len(content) // 2]), (before, flipped)):
        file.write_bytes(damage(file.read_bytes()))
    status, _, errors = end(begin(SEARCH, output))
    assert status == 0, errors
    for bad in (last, before):
        assert f"warning: {bad} cannot be read" in errors
    assert "trying the one before" in errors and f"{good} cannot" not in errors
    check_equal(output, uninterrupted)


def flipped(content):
    return bytes(byte ^ (index % 997 == 500) for index, byte in enumerate(content))


@pytest.mark.slow
def test_a_signal_ends_a_run_with_a_checkpoint(uninterrupted, tmp_path):
    """One that goes on, too; and no other process disturbs it."""
    output = tmp_path / "run"
    process = begin(SEARCH, output, "--checkpoint_every=0")
    while not (output / "config.json").exists():
        assert process.poll() is None
        time.sleep(0.01)
    status, _, errors = end(begin(SEARCH, output))
    assert status == 2 and f"--output={output}: another process is at work in it" in errors
    for number in (signal.SIGINT, signal.SIGTERM):
        before = newest(output)
        while newest(output) == before:
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(0.05)
        process.send_signal(number)
        status, _, errors = end(process)
        assert status == 128 + number, errors
        last = errors.strip().splitlines()[-1]
        assert f"To go on: the same command with --output={output} --resume" in last and "Traceback" not in errors
        assert int(newest(output).stem.removeprefix("step-")) > (44 if before else 22)
        process = begin(["darts_tf.search"], output, "--resume", "--checkpoint_every=0")
    status, _, errors = end(process)
    assert status == 0, errors
    check_equal(output, uninterrupted)


def mount(folder, size, *options):
    line = ["mount", "-t", "tmpfs", "-o", ",".join([*options, f"size={size}"]), "tmpfs", str(folder)]
    return subprocess.run(line, capture_output=True, check=False).returncode == 0


@pytest.fixture
def small_disk(uninterrupted, tmp_path):
    """A file system that a run fills before it is done; only root may make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    used = sum(path.stat().st_size for path in uninterrupted.rglob("*"))
    if shutil.which("mount") is None or not mount(folder, int(0.6 * used)):
        pytest.skip("no tmpfs can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_no_space_on_the_disk(uninterrupted, small_disk):
    status, _, errors = end(begin(SEARCH, small_disk / "run", "--checkpoint_every=30"))
    assert status == 1 and "Traceback" not in errors, errors
    assert "No space left on device. What was written before is whole; with space, the same command goes on." in errors
    assert not list(small_disk.rglob(".[0-9]*"))
    assert mount(small_disk, "64m", "remount")
    assert end(begin(SEARCH, small_disk / "run"))[0] == 0
    check_equal(small_disk / "run", uninterrupted)


@pytest.mark.slow
def test_a_file_that_grows_too_large(uninterrupted, tmp_path):
    # All files but checkpoints are smaller than this.
    limit = newest(uninterrupted).stat().st_size - 1000
    done = run(*SEARCH, f"--output={tmp_path}/run", file_size=limit)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "File too large. What was written before is whole; with space, the same command goes on." in done.stderr
    assert not list((tmp_path / "run").rglob(".*")) and (tmp_path / "run" / "alphas.npz").exists()


@pytest.mark.slow
def test_a_file_that_vanishes_is_named(tmp_path):
    draw = np.random.default_rng(0)
    for name in ("train/a", "train/b", "val/a", "val/b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(20):
            pixels = draw.integers(0, 256, (40, 40, 3), np.uint8)
            (tmp_path / "data" / name / f"{index}.png").write_bytes(tf.io.encode_png(pixels).numpy())
    network = ["--layers=1", "--init_channels=4", "--noauxiliary", "--image_size=32", "--batch_size=4", "--epochs=20"]
    command = ["darts_tf.train", "--arch=DARTS_V1", "--recipe=imagenet", f"--dataset={tmp_path}/data", *network]
    process = begin(command, tmp_path / "run")
    while newest(tmp_path / "run") is None:
        assert process.poll() is None
        time.sleep(0.02)
    gone = tmp_path / "data" / "train" / "a" / "7.png"
    content = gone.read_bytes()
    gone.unlink()
    status, _, errors = end(process)
    assert status == 1 and f"error: {gone}: the file is gone. Once it is back, --resume goes on." in errors
    assert "Traceback" not in errors
    gone.write_bytes(content)
    status, _, errors = end(begin(["darts_tf.train"], tmp_path / "run", "--resume"))
    assert status == 0 and "Going on after" in errors, errors
    assert len((tmp_path / "run" / "history.csv").read_text().splitlines()) == 21


CONFIG = {"command": "search", "epochs": 4, "dataset": "digits", "batch_size": 32, "strategy": "none"}
CONFIG |= {"versions": {}, "data": {"image_shape": [8, 8, 1], "class_names": ["a", "b"]}}


@pytest.mark.parametrize(
    "config, flags, message",
    [
        (
            CONFIG,
            ["--epochs=5"],
            "--epochs=5: the run in OUTPUT has 4; expected that, another --output, or --overwrite.",
        ),
        (CONFIG, ["--dataset=photos/"], "--dataset=photos/: the run in OUTPUT has digits; expected that"),
        ({**CONFIG, "command": "train"}, [], "--output=OUTPUT: it holds a run of train, not of search"),
        (None, ["--resume"], "--output=OUTPUT: it holds no run to --resume"),
        ("{", [], "--output=OUTPUT: its config.json is damaged"),
    ],
)
def test_what_does_not_go_together_is_refused(config, flags, message, tmp_path):
    if config:
        (tmp_path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    status, _, errors = end(begin(["darts_tf.search"], tmp_path, *flags))
    assert status == 2 and message.replace("OUTPUT", str(tmp_path)) in errors
    assert "Starting TensorFlow" not in errors
