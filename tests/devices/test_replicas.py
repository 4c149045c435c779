"""Two replicas of a search or a training do what one device does."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from processes import run

from darts_tf.devices import replicas

HERE = pathlib.Path(__file__).parents[1]


def found(case, *flags):
    done = run(HERE / "two_devices.py", case, *flags)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_each_average_of_the_architecture_gradient_is_needed_where_it_is():
    for right, *wrong in found("averages").values():
        assert right < 1e-9 and min(wrong) > 1e-3


def test_replicas_agree_about_an_attack():
    result = found("perturbation")
    assert result["equal"] and result["difference"] < 1e-12 < 1e-2 < result["alone"]


@pytest.mark.slow
def test_curvature_of_a_search_on_two_devices():
    result = found("curvature")
    assert result["single"] == pytest.approx(result["mirrored"], 1e-3)


@pytest.mark.parametrize("unrolled", [False, True])
def test_replicas_with_the_same_batch_equal_one_device(unrolled):
    differences = found("search", unrolled, False, True)
    assert differences["bitwise"]
    assert differences["weights"] < 1e-6 and differences["alphas"] < 1e-6 and differences["loss"] < 1e-6
    assert differences["moved"] > 1e-3


@pytest.mark.parametrize("case, synchronised", [("drawn", False), ("drawn", True), ("blocks", False), ("blocks", True)])
def test_replicas_draw_the_same_operations(case, synchronised):
    differences = found(case, synchronised, not synchronised)
    assert differences["bitwise"]
    assert differences["weights"] < 1e-5 and differences["alphas"] < 1e-5 and differences["loss"] < 1e-5
    assert differences["moved"] > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("unrolled", [False, True])
def test_a_batch_over_replicas_equals_one_device_if_batch_norms_are_synchronised(unrolled):
    differences = found("search", unrolled, True, False)
    assert differences["bitwise"]
    assert differences["weights"] < 1e-5 and differences["alphas"] < 1e-5 and differences["loss"] < 1e-5


def test_training_of_a_derived_network_over_replicas():
    result = found("train")
    assert max(result["weights"], result["averages"]) < 1e-5 and result["moved"] > 1e-3 and result["again"] == 0


@pytest.mark.parametrize("unrolled", [False, True])
def test_a_search_of_text_whose_rows_are_on_both_devices_equals_one_device(unrolled):
    result = found("text", unrolled)
    assert result["bitwise"] and max(result["weights"], result["hidden"], result["loss"]) < 1e-6


def test_a_training_of_text_over_replicas():
    result = found("text_train")
    assert max(result["weights"], result["hidden"]) < 1e-6 and result["logs"] < 1e-5


@pytest.mark.slow
def test_an_overflow_of_any_pass_on_any_replica_leaves_the_step_out_on_all():
    result = found("overflow")
    *skipped, made = result["changed"]
    assert skipped == [0.0] * 5 and made > 1e-3
    assert result["scales"] == [0.5] * 5 + [1]


@pytest.mark.slow
def test_validation_of_any_number_of_images_counts_each_once():
    assert found("validation")["difference"] < 1e-6


def test_replicas_agree_about_moving_statistics():
    assert found("statistics") == {"before": [2.0, 6.0], "after": [4.0, 4.0]}


def test_batches_are_on_the_gpu_before_the_step():
    result = found("feed")
    assert [device[-5:] for device in result["devices"]] == ["CPU:1"] and result["loss"] > 0


@pytest.mark.slow
def test_the_command(tmp_path):
    flags = ["--strategy=mirrored", "--cpu_devices=2", "--layers=3", "--init_channels=4", "--epochs=1"]
    command = ["darts_tf.train", "--arch=DARTS_V2", "--auxiliary", "--sync_batch_norm", *flags]
    done = run(*command, f"--output={tmp_path}/run")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "run" / "model.keras").exists()
    done = run(*command, "--batch_size=9", f"--output={tmp_path}/other")
    assert not (tmp_path / "other").exists()
    assert done.returncode == 2 and "--batch_size=9: expected a multiple of 2, one part per device" in done.stderr


@pytest.mark.parametrize("images, devices, sizes", [(4, 3, [2, 1, 1]), (3, 3, [1, 1, 1]), (7, 2, [4, 3])])
def test_no_device_is_without_images_of_a_small_batch(images, devices, sizes):
    batches = tf.data.Dataset.from_tensor_slices(np.arange(images)).batch(images)
    parts = [part.numpy() for (part,) in replicas.split(batches.map(lambda batch: (batch,)), devices)]
    assert [len(part) for part in parts] == sizes and sorted(np.concatenate(parts)) == list(range(images))
