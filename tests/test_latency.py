"""From what parts take on a device to a network that keeps to a budget: tables, the command, a search, a training."""

import itertools
import json
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf

from darts_tf import SearchConfig, TrainConfig, latency, run_search, run_training, spaces, train
from darts_tf.cli.messages import UsageError
from darts_tf.costs import latency as tables
from darts_tf.data.tasks import ImageClassification
from darts_tf.devices import runner
from darts_tf.methods import selections
from darts_tf.reports import report
from darts_tf.runs import budget, front, rundirectory
from darts_tf.spaces.chain.description import Description, Stage
from export import ExportConfig, run

SPACE = Description((Stage(4, ("identity", "mb2_k3", "mb3_k5"), 2, 2),), 2, 1, 8).to_json()
TINY = {"space": SPACE, "method": "gdas", "epochs": 3, "batch_size": 256}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("latency") / "here.json"
    latency.main(latency.LatencyConfig(space=SPACE, networks=3, rounds=2, output=str(path)))
    return path


def test_the_command(table, tmp_path):
    found = tables.read(table)
    space = spaces.of({"space": SPACE})
    assert found.device["threads"] == 1 and found.device["runtime"] == "tflite" and len(found.networks) == 3
    assert len(found.milliseconds) == 3 + 5  # stem, head and classifier; of the second layer identity is none
    assert all(value > 0 for value in found.milliseconds.values())
    factor, offset = found.fit
    assert factor > 0 and offset >= 0
    # What is there is not measured again, another device is refused.
    before = table.read_text(encoding="utf-8")
    path = tmp_path / "here.json"
    path.write_text(before, encoding="utf-8")
    latency.main(latency.LatencyConfig(space=SPACE, networks=1, rounds=1, output=str(path)))
    again = tables.read(path)
    assert again.milliseconds == found.milliseconds and again.networks[:3] == found.networks
    with pytest.raises(UsageError, match="it is of another device, threads 1; expected another file"):
        latency.main(latency.LatencyConfig(space=SPACE, networks=0, rounds=1, threads=2, output=str(path)))
    assert space.name == "chain"


def test_networks_as_saved_models_compute_them(tmp_path, monkeypatch):
    """One thread computes them, as the table says: two would compute branches of a cell in less than their sum."""
    threads, path = [], tmp_path / "here.json"
    for kind in ("intra", "inter"):
        monkeypatch.setattr(tf.config.threading, f"set_{kind}_op_parallelism_threads", threads.append)
    latency.main(latency.LatencyConfig(space=SPACE, runtime="saved_model", networks=2, rounds=1, output=str(path)))
    found = tables.read(path)
    assert threads == [1, 1] and found.device["threads"] == 1 and found.device["runtime"] == "saved_model"
    assert found.device["tensorflow"] == tf.__version__ and "litert" not in found.device
    assert len(found.milliseconds) == 3 + 5 and all(value > 0 for value in found.milliseconds.values())
    assert all(value > 0 for pair in found.networks for value in pair)


def test_another_device(tmp_path):
    """The archive is a program of its own; --on runs it by a command, here in a shell of this machine."""
    more = {"space": SPACE, "networks": 1, "rounds": 1, "widths": ["1"]}
    archive = tmp_path / "latency.zip"
    latency.main(latency.LatencyConfig(**more, archive=str(archive)))
    done = subprocess.run([sys.executable, archive], capture_output=True, text=True, check=True)
    measured = tmp_path / "measured.json"
    measured.write_text(done.stdout, encoding="utf-8")
    latency.main(latency.LatencyConfig(**more, measured=str(measured), output=str(tmp_path / "a.json")))
    shell = tmp_path / "shell"
    shell.write_text(f'#!/bin/sh\ncd {tmp_path}\npython3() {{ {sys.executable} "$@"; }}\neval "$1"\n', encoding="utf-8")
    latency.main(latency.LatencyConfig(**more, on=f"sh {shell}", output=str(tmp_path / "b.json")))
    a, b = (tables.read(tmp_path / name) for name in ("a.json", "b.json"))
    assert set(a.milliseconds) == set(b.milliseconds) and a.device == b.device
    told = json.loads(done.stdout)
    for change, message in (
        ({"threads": 2}, "it is of 2 threads; expected --threads=2"),
        ({"seconds": None}, "it is of other networks"),
        ({"seconds": told["seconds"] | {"nothing": float("nan")}}, "expected seconds that are numbers"),
    ):
        measured.write_text(json.dumps(told | change), encoding="utf-8")
        with pytest.raises(UsageError, match=message):
            latency.main(latency.LatencyConfig(**more, measured=str(measured), output=str(tmp_path / "c.json")))
    measured.write_text("what else", encoding="utf-8")
    for values, message in (
        ({"measured": str(measured)}, "expected what python3 latency.zip has printed"),
        ({"on": "no-such-command pi"}, "no such command; expected one such as ssh pi"),
        ({"on": "false"}, "the program did not end well there"),
        ({"on": "sh", "runtime": "saved_model"}, "--runtime=saved_model: expected tflite for another device"),
        ({"output": None}, "--output: expected the .json file to write"),
        ({"output": "a.txt"}, "--output=a.txt: expected a file name that ends in .json"),
        ({"space": "recurrent", "widths": None}, "expected a space of images"),
    ):
        config = {**more, "output": str(tmp_path / "c.json"), **values}
        with pytest.raises(UsageError, match=message):
            latency.main(latency.LatencyConfig(**config))
    assert not (tmp_path / "c.json").exists()


def test_functions_take_turns():
    calls = []
    seconds = runner.measure({name: lambda name=name: calls.append(name) for name in "ab"}, rounds=3)
    assert set(seconds) == set("ab") and all(value > 0 for value in seconds.values())
    changes = sum(first != second for first, second in itertools.pairwise(calls))
    assert changes >= 3  # of warming up and of the rounds


def test_the_first_calls_of_a_turn_do_not_count(monkeypatch):
    """A clock on which the first calls after those of another function take ten times as long."""
    clock, last = [0.0], [None, 0]
    monkeypatch.setattr(runner, "time", types.SimpleNamespace(perf_counter=lambda: clock[0]))

    def run(name, seconds):
        last[:] = [name, last[1] + 1 if last[0] == name else 0]
        clock[0] += seconds * (10 if last[1] < 3 else 1)

    takes = {"a": 2.5e-3, "b": 2.6e-3}  # six calls in a turn
    runs = {name: lambda name=name, each=each: run(name, each) for name, each in takes.items()}
    assert runner.measure(runs, rounds=4) == pytest.approx(takes)


def test_what_whole_networks_take_beside_their_parts():
    networks = [[total, 1.2 * total + 0.3] for total in (0.5, 1.0, 4.0)]
    assert tables.fitted(networks) == pytest.approx((1.2, 0.3))
    assert tables.fitted([[total, 2 * total - 0.1] for total in (0.5, 1.0, 4.0)])[1] == 0  # no network takes less
    assert tables.fitted(networks[:1]) == (1.0, 0.0)


@pytest.mark.parametrize(
    "change, message",
    [
        ("no", "it is no JSON; expected a file of python -m darts_tf.latency"),
        ({"milliseconds": {}}, "it has no milliseconds"),
        ({"milliseconds": {"a of 1x1x1": -1.0}}, "a of 1x1x1 takes -1.0 milliseconds: expected a number of at least 0"),
        ({"milliseconds": {"a of 1x1x1": float("nan")}}, "a of 1x1x1 takes nan milliseconds"),
        ({"milliseconds": {"a of 1x1x1": 1.0}}, "it has nothing about .* of .*; expected one that was measured"),
        ({"fit": [0, 1]}, "expected a factor above 0"),
        ({"networks": [[1]]}, "networks is no list of pairs"),
        ({"overhead": "none"}, "overhead is 'none'"),
        ({"more": 1}, "it has other fields than"),
    ],
)
def test_tables_that_are_wrong(table, tmp_path, change, message):
    path = tmp_path / "table.json"
    fields = json.loads(table.read_text(encoding="utf-8"))
    path.write_text(change if change == "no" else json.dumps(fields | change), encoding="utf-8")
    values = {**TINY, "output": str(tmp_path / "run"), "latency_table": str(path), "max_latency_ms": 1.0}
    with pytest.raises(UsageError, match=message):
        run_search(SearchConfig(**values), verbose=0)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def bounded(table, tmp_path_factory):
    """A search that is within two bounds, each of which leaves out some networks."""
    folder = tmp_path_factory.mktemp("bounded") / "run"
    costs = spaces.of({"space": SPACE})
    bounds = {"max_parameters": 420.0, "max_latency_ms": 0.9 * longest(table)}
    values = {**TINY, "output": str(folder), "latency_table": str(table), **bounds, "front": 3, "seed": 3}
    return run_search(SearchConfig(**values), verbose=0), values, costs


def longest(table):
    """What the slowest network is expected to take."""
    found = tables.read(table)
    return found.fixed + sum(found.fit[0] * value for value in found.milliseconds.values())


def test_a_search_within_bounds(bounded):
    search, values, space = bounded
    assert [one["cost"] for one in search.budget] == ["parameters", "latency_ms"]
    assert all(0 < one["expected"] <= one["most"] for one in search.budget)
    assert search.history[-1]["parameters"] == search.budget[0]["expected"]
    rows = search.history
    assert rows[0]["weight_of_parameters"] == 0
    expected = max(0, min(rows[0]["strongest_parameters"] / 420 - 1, 1) * budget.ASCENT / 3)
    assert rows[1]["weight_of_parameters"] == pytest.approx(expected)
    assert "report.html" in {path.name for path in search.directory.iterdir()}
    read = budget.read(search.directory, space)
    assert read.keeps(search.genotype) and read.bounds == {"parameters": 420.0, "latency_ms": values["max_latency_ms"]}


def test_networks_from_the_cheapest_to_the_strongest(bounded):
    search, _, space = bounded
    parameters = [one["parameters"] for one in search.front]
    assert 1 < len(parameters) <= 3 and parameters == sorted(set(parameters))
    assert parameters[-1] == search.budget[0]["expected"] and search.front[-1]["architecture"] == str(search.genotype)
    assert parameters[0] == space.cheapest(budget.read(search.directory, space).tables["parameters"])
    for number, one in enumerate(search.front, 1):
        assert str(spaces.read(str(search.directory / "front" / f"{number}.json"))) == one["architecture"]
        assert 0 <= one["result"] <= 1 and one["latency_ms"] <= search.budget[1]["most"]
    assert rundirectory.front(search.directory) == {"cost": "parameters", "networks": search.front}
    content = report.contents(search.directory)
    assert content["evolution"]["front"] == list(range(len(parameters))) and content["evolution"]["best"] is None
    assert [one["cost"] for one in content["evolution"]["networks"]] == parameters
    lines = front.in_words(search.front, "parameters", ImageClassification.headline)
    assert len(lines) == 1 + len(parameters) and "front/1.json" in lines[1]


def test_it_goes_on_as_it_would_have(bounded, tmp_path):
    search, values, _ = bounded
    parts = tmp_path / "parts"
    shutil.copytree(search.directory, parts)
    for file in [*sorted((parts / "checkpoints").iterdir())[1:], parts / "genotype.json", parts / "front.json"]:
        file.unlink()
    again = run_search(SearchConfig(**{**values, "output": str(parts)}, resume=True), verbose=0)
    assert again.genotype == search.genotype and again.front == search.front
    for name in ("alphas.npz", "front.json", "budget.json"):
        assert (parts / name).read_bytes() == (search.directory / name).read_bytes(), name


def test_from_the_budget_to_the_exported_file(bounded, tmp_path):
    """The training of what was found says what it was found for, the export what came of it."""
    search, _, _ = bounded
    arch, output = str(search.directory / "genotype.json"), str(tmp_path / "train")
    training = run_training(TrainConfig(arch=arch, output=output, epochs=1, batch_size=512), verbose=0)
    assert rundirectory.budget(tmp_path / "train") == search.budget
    assert training.results["parameters"] == search.budget[0]["expected"]
    rows = [{"format": "TFLite float32", "bytes": 1000, "latency_1": 2e-3}]
    (tmp_path / "train" / "model.keras").touch()
    config = ExportConfig(model=str(tmp_path / "train" / "model.keras"), output=str(tmp_path))
    promised = run.promised(config, rows)
    assert [one["exported"] for one in promised] == [None, 2.0]
    other = [one | {"device": {"processor": "of a phone"}} for one in search.budget]
    (tmp_path / "train" / "budget.json").write_text(json.dumps(other), encoding="utf-8")
    assert [one["exported"] for one in run.promised(config, rows)] == [None, None]
    own = {"inputs": [8, 8, 1], "outputs": 10}
    assert search.budget[0]["networks"] == own and search.budget[1]["device"]["threads"] == 1
    (tmp_path / "train" / "budget.json").write_text("[3]", encoding="utf-8")
    assert run.promised(config, rows) == []


def test_perceptrons_of_a_table(tmp_path):
    rows = [f"{row % 7},{3 * (row % 7)}" for row in range(60)]
    (tmp_path / "people.csv").write_text("\n".join(["age,price", *rows]), encoding="utf-8")
    asked = {"space": "mlp", "layers": 1, "units": 8, "dataset": str(tmp_path / "people.csv"), "label": "price"}
    path = tmp_path / "here.json"
    latency.main(latency.LatencyConfig(**asked, networks=0, rounds=1, output=str(path)))
    assert tables.read(path).milliseconds


@pytest.mark.parametrize(
    "space",
    [
        {"space": "darts", "nodes": 2, "primitives": ["skip_connect", "max_pool_3x3", "sep_conv_3x3"]},
        {"space": "chain", "primitives": ["identity", "mb4_k5", "mb2_k3"]},
        {"space": "mlp", "widths": [0.5, 1.0], "layers": 3},
    ],
)
def test_a_budget_is_that_of_the_candidates_of_its_search(space, tmp_path):
    """A genotype alone does not say which others there were, nor does one of a front."""
    own = spaces.of(space)
    table = own.costs(ImageClassification((16, 16, 3), 4)).table("parameters")
    strengths = {name: choices.mask * np.arange(1, 1 + choices.mask.shape[1]) for name, choices in own.choices.items()}
    bounded = budget.Budget(own, {"parameters": table}, {"parameters": 1e9})
    architecture = bounded.decide(strengths, selections.get("strongest"))
    bounded.write(tmp_path)
    told = {"command": "search", "versions": {}, "data": {"image_shape": [16, 16, 3], "class_names": list("abcd")}}
    (tmp_path / "config.json").write_text(json.dumps(told | space), encoding="utf-8")
    for name in ("genotype.json", "front/1.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(architecture.to_json(), encoding="utf-8")
        read = spaces.read(str(tmp_path / name))
        assert budget.carried(str(tmp_path / name), read).found(read) == bounded.found(architecture)


def test_a_network_of_another_size_has_no_budget(bounded, capsys):
    search, _, _ = bounded
    arch = str(search.directory / "genotype.json")
    for shape, classes, kept in (((8, 8, 1), 10, True), ((16, 16, 1), 10, False), ((8, 8, 1), 4, False)):
        data = types.SimpleNamespace(task=ImageClassification(shape, classes))
        found = train.carried(TrainConfig(arch=arch), data, search.genotype)
        assert bool(found) == kept and ("is not told of them" in capsys.readouterr().err) != kept


def test_the_sizes_of_networks_are_those_of_their_training():
    """A space's own count, however many images there are."""
    space = spaces.of({"space": "nas-bench-201"})
    config = SearchConfig(space="nas-bench-201", dataset="cifar10").begun()
    for samples in (100, 50_000):
        found = budget.derived_sizes(space, config, samples, space.costs)
        assert found == {"init_channels": space.sizes["init_channels"], "layers": space.sizes["layers"]}
    cells = spaces.of({"space": "darts"})
    config = SearchConfig(dataset="imagenet2012").begun()
    assert budget.derived_sizes(cells, config, 10**6, cells.costs)["network"] == "imagenet"


def test_the_least_that_is_named_is_enough():
    for least in (1234560.5, 1_234_561, 0.22751239, 999.99951, 1000.0, 3e-7):
        assert float(budget._at_least(least).replace(",", "")) >= least


@pytest.mark.parametrize(
    "values, message",
    [
        ({"max_parameters": 10.0}, "--max_parameters=10: expected at least [0-9]+, which the smallest network has"),
        ({"max_latency_ms": 1.0}, "--max_latency_ms=1 without --latency_table: expected a file of"),
        ({"cost_form": "fbnet", "cost": "latency_ms"}, "--cost=latency_ms without --latency_table"),
        (
            {"front": 3, "selection": "perturbation", "relaxation": "softmax"},
            "--front=3: expected a space of images or tables, and another",
        ),
        ({"cost": "parameters"}, "--cost=parameters: --cost_form=None has no such number"),
        ({"latency_table": "nothing.json", "front": 2}, "--latency_table=nothing.json: No such file"),
        ({"latency_table": "nothing.json"}, "--latency_table=nothing.json: expected --max_latency_ms, --front or"),
    ],
)
def test_what_is_refused(tmp_path, values, message):
    for name, value in (("strategy", "multi_worker"), ("early_stop", "skips")):
        with pytest.raises(UsageError, match=f"--front=2 with --{name}={value}: expected one of them"):
            SearchConfig(front=2, **{name: value}).check()
    with pytest.raises(UsageError, match=message):
        run_search(SearchConfig(**{**TINY, "output": str(tmp_path / "run"), **values}), verbose=0)
    assert rundirectory.genotype(tmp_path / "run") is None
