"""The benchmarks of whole searches, with tiny ones."""

import csv
import gzip
import itertools
import json

import numpy as np
import pytest
from scipy.stats import kendalltau

from benchmarks import nas_bench_201, nas_bench_macro, recipes, robustness, searches
from darts_tf.cli import messages
from darts_tf.spaces.nas_bench_201.space import OPERATIONS

SMALL = ["--seeds=1", "--epochs=1", "--image_size=8", "--batch_size=8", "--init_channels=4"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Folder of IDX files of 40 training and 10 test images of noise."""
    folder, random = tmp_path_factory.mktemp("idx"), np.random.default_rng(0)
    for split, count in (("train", 40), ("t10k", 10)):
        pixels, labels = random.integers(0, 256, (count, 28, 28), np.uint8), np.arange(count, dtype=np.uint8) % 10
        for kind, values in (("images-idx3", pixels), ("labels-idx1", labels)):
            shape = np.array(values.shape, ">i4").tobytes()
            content = bytes([0, 0, 8, values.ndim]) + shape + values.tobytes()
            (folder / f"{split}-{kind}-ubyte.gz").write_bytes(gzip.compress(content))
    return folder


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_results_are_kept(tmp_path, capsys):
    computed = []

    def compute(folder):
        computed.append(folder.name)
        return {"accuracy": 1.0}

    def fail(folder):
        raise messages.RunError("the loss is NaN")

    for _ in range(2):
        results = searches.Results(tmp_path, {"epochs": 1})
        assert results.get(compute, method="darts", seed=1) == {"method": "darts", "seed": 1, "accuracy": 1.0}
        assert results.get(fail, method="darts", seed=2) is None
    assert computed == ["darts-1"]
    first, failed, *again = lines(capsys)
    assert again == [first, failed] and failed["error"] == "the loss is NaN"
    with pytest.raises(SystemExit, match="results of other flags"):
        searches.Results(tmp_path, {"epochs": 2})


def test_first_images(images, tmp_path):
    arrays = searches.idx(images)
    place = searches.first_images(images, 20, tmp_path / "20.npz")
    with np.load(place) as written:
        np.testing.assert_array_equal(written["x_train"], arrays["x_train"][:20])
        np.testing.assert_array_equal(written["y_train"], np.arange(20) % 10)
        np.testing.assert_array_equal(written["x_test"], arrays["x_test"])
    again = searches.first_images(place, 10, tmp_path / "10.npz")
    assert len(np.load(again)["x_train"]) == 10


def test_expected_best_is_that_of_all_draws():
    values = [3.0, 1.0, 2.0, 7.0]
    draws = [max(draw) for draw in itertools.product(values, repeat=3)]
    assert nas_bench_201.expected_best(values, 3) == pytest.approx(np.mean(draws))


@pytest.mark.soak
def test_nas_bench_201(images, tmp_path, capsys):
    place, table = searches.first_images(images, 40, tmp_path / "40.npz"), tmp_path / "table.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["architecture", "cifar10_test_accuracy"])
        for one in itertools.product(OPERATIONS, repeat=6):
            a, b, c, d, e, f = one
            writer.writerow([f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|", 90.0 - one.count("none")])
    arguments = [f"--table={table}", f"--images={place}", "--methods=random,darts", f"--output={tmp_path / 'results'}"]
    nas_bench_201.main([*arguments, *SMALL])
    trained, searched, summary, chance = lines(capsys)
    assert (trained["method"], searched["method"], chance["method"]) == ("random", "darts", "random")
    assert searched["accuracies"] == [searched["accuracy"]] == [90.0 - searched["nones"]]
    assert summary["accuracy"] == summary["worst"] == searched["accuracy"] and summary["accuracy_deviation"] is None
    assert summary["random_cells"] >= 1 and chance["accuracy"] == pytest.approx(88.8) and chance["worst"] == 84.0
    assert (tmp_path / "results" / "darts-1" / "report.html").exists()
    assert not json.loads((tmp_path / "results" / "random-1" / "config.json").read_text())["cutout"]


@pytest.mark.soak
def test_robustness(images, tmp_path, capsys):
    more = [
        "--spaces=s2",
        "--methods=darts",
        "--search_images=40",
        "--train_images=40",
        "--layers=3",
        "--final_epochs=1",
        "--final_batch_size=8",
    ]
    robustness.main([f"--images={images}", f"--output={tmp_path / 'results'}", *more, *SMALL])
    searched, summary = lines(capsys)
    assert 0 <= searched["test_error"] <= 100
    assert searched["skips"] == searched["genotype"].count("skip_connect") and searched["noise"] == 0
    assert (summary["space"], summary["method"], summary["seeds"]) == ("s2", "darts", 1)


def test_kendall():
    random = np.random.default_rng(0)
    for first, second in (random.normal(size=(2, 40)), random.integers(0, 5, (2, 40))):
        assert nas_bench_macro.kendall(first, second) == pytest.approx(kendalltau(first, second).statistic)


@pytest.mark.soak
def test_nas_bench_macro(images, tmp_path, capsys):
    place, table = searches.first_images(images, 40, tmp_path / "40.npz"), tmp_path / "table.json"
    keys = ["".join(key) for key in itertools.product("012", repeat=8)][::300]
    one = {key: {"mean_acc": 90.0 - key.count("0"), "flops": 1e6 * (1 + key.count("2")), "params": 1} for key in keys}
    table.write_text(json.dumps(one))
    arguments = [f"--table={table}", f"--images={place}", "--methods=spos", f"--output={tmp_path / 'results'}"]
    more = ["--networks=6", "--bounds=4", "--population=4", "--generations=2", "--recalibration_images=8"]
    nas_bench_macro.main([*arguments, *more, *SMALL])
    ranked, summary, *others = lines(capsys)
    assert -1 <= ranked["tau"] <= 1 and ranked["within_4_by_loss"]["key"] in keys
    assert one[ranked["within_4_by_accuracy"]["key"]]["flops"] <= 4e6
    assert (summary["method"], summary["seeds"]) == ("spos", 1)
    assert [other["by"] for other in others] == ["blocks", "flops", "params"] and others[0]["tau"] > 0.5


@pytest.mark.soak
def test_recipes(images, tmp_path, capsys):
    place, network = searches.first_images(images, 40, tmp_path / "40.npz"), "--flags=layers=1+init_channels=2"
    arguments = [f"--images={place}", f"--output={tmp_path / 'results'}", "--seeds=2", "--epochs=1", network]
    recipes.main([*arguments, "--recipes=small,modern+ema=0.5+nonesterov"])
    *trained, first, second = lines(capsys)
    assert [line["seed"] for line in trained] == [1, 1, 2, 2] and first["gain"] == 0 and second["seeds"] == 2
    kept = json.loads((tmp_path / "results" / "modern+ema=0.5+nonesterov-2" / "config.json").read_text())
    assert (kept["recipe"], kept["ema"], kept["nesterov"], kept["layers"]) == ("modern", 0.5, False, 1)
    recipes.main([*arguments, "--recipes=small"])
    assert lines(capsys) == [trained[0], trained[2], first]
