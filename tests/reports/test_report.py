"""The report of a run, as data and in a browser (headless Chromium, Debian's chromium and chromium-driver)."""

import csv
import json
import shutil

import numpy as np
import pytest

from darts_tf import PRIMITIVES, spaces
from darts_tf.methods.evolution import Evolution
from darts_tf.methods.relaxations import Softmax
from darts_tf.reports import drawing, report
from darts_tf.runs import rundirectory
from darts_tf.spaces import RecurrentSpace
from darts_tf.spaces.cells import genotypes
from darts_tf.spaces.cells.space import CellSpace
from darts_tf.spaces.chain.space import AdaptiveChain

SOFTMAX = Softmax()

EPOCHS = 4
GENOTYPE = genotypes.PUBLISHED["NASNet"]
CONFIG = {
    "epochs": EPOCHS,
    "dataset": "<script>alert(1)</script>",
    "unrolled": True,
    "output": "runs/a",
    "image_size": None,
    "primitives": list(PRIMITIVES),
    "versions": {"keras": "3"},
}


def write_history(folder, rows):
    with (folder / "history.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def write_config(folder, command, classes, **more):
    data = {"image_shape": [8, 8, 1], "class_names": classes}
    (folder / "config.json").write_text(json.dumps({**CONFIG, "command": command, "data": data, **more}))


def search_run(folder, nodes, done=EPOCHS, primitives=PRIMITIVES, betas=False, columns=lambda epoch: {}, **config):
    """A run directory with alphas that drift; columns are more of history.csv, of an epoch from 1."""
    folder.mkdir()
    write_config(folder, "search", ["a", "b"], nodes=nodes, primitives=list(primitives), **config)
    rows = nodes * (nodes + 3) // 2
    drift = np.random.default_rng(0).normal(size=(2, done + 1, rows, len(primitives)))
    normal, reduce = drift.cumsum(1)
    more = {f"betas_{name}": drift[place, ..., 0] for place, name in enumerate(("normal", "reduce")) if betas}
    np.savez(folder / "alphas.npz", normal=normal, reduce=reduce, primitives=np.array(primitives), **more)
    row = {"loss": 0.5, "accuracy": 0.75, "val_loss": 0.6, "val_accuracy": 0.5, "learning_rate": 0.025, "seconds": 1}
    row |= {"parameters": 123456, "multiply_adds": "", "genotype": str(GENOTYPE)}
    write_history(folder, [{"epoch": epoch, **row, **columns(epoch)} for epoch in range(1, done + 1)])
    report.write_report(folder)
    return normal, reduce


P_DARTS = {
    "method": "p-darts",
    "stages": ["8", "3"],
    "selection": "max_skips",
    "max_skips": 1,
    "edge_normalization": True,
}


def staged_run(folder):
    """A run of two stages of two epochs, with betas and two schedules."""
    return search_run(folder, 2, betas=True, columns=lambda epoch: {"skip_dropout": 0.1 * epoch}, **P_DARTS)


def stopped_run(folder):
    """A run that ended by its eigenvalues; returns the epochs, from 1, of the result and after which it ended."""
    config = {"method": "r-darts", "early_stop": "curvature", "curvature_every": 1, "epochs": 20}
    search_run(folder, 2, done=12, columns=lambda epoch: {"eigenvalue": 1.0 if epoch < 12 else 4.0}, **config)
    return 6, 12


def train_run(folder, classes=3):
    folder.mkdir()
    names = [f"class <b>{label}</b>" for label in range(classes)]
    write_config(folder, "train", names, genotype=str(GENOTYPE))
    write_history(folder, [{"epoch": 1, "loss": 2.0, "accuracy": 0.2, "seconds": 100}])
    test = {"top1": 0.5, "top5": 1.0, "test_images": 4, "parameters": 10, "multiply_adds": None, "per_class": {}}
    (folder / "metrics.json").write_text(json.dumps(test))
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    labels, predicted = np.array([0, 1, 1, 2]), np.array([0, 2, 2, 2])
    what = {"labels": labels, "predicted": predicted, "probability": np.array([0.9, 0.8, 0.7, 0.6])}
    np.savez(folder / "predictions.npz", **what, worst=np.array([2, 1]), worst_images=images)
    report.write_report(folder)


RECURRENT = RecurrentSpace.PUBLISHED["DARTS_V2"]
WORDS = {"tokens": "words", "vocabulary": ["<unk>", "<eos>", *map(str, range(298))]}


def language_run(folder, command, perplexities, **config):
    """The directory of a run of language models, up to what only one command writes."""
    folder.mkdir()
    flags = {"command": command, "task": "language_model", "data": WORDS, "units": 4, "layers": 5, "stream": False}
    (folder / "config.json").write_text(json.dumps({**CONFIG, **flags, **config}))
    rows = [
        {"epoch": epoch, "loss": 5.0, "perplexity": 150.0, "val_perplexity": value, "learning_rate": 20.0, "seconds": 1}
        for epoch, value in enumerate(perplexities, 1)
    ]
    return rows


def language_search(folder):
    rows = language_run(folder, "search", ["", 1e9, 400.0, 200.0], space="recurrent", nodes=3, primitives=None)
    choices = RecurrentSpace(3).choices
    alphas = np.random.default_rng(0).normal(size=(EPOCHS + 1, *choices["recurrent"].mask.shape)).cumsum(0)
    history = [({"recurrent": alpha}, {}) for alpha in alphas]
    (folder / "alphas.npz").write_bytes(rundirectory.to_alphas(history, choices))
    costs = {"parameters": 1000, "multiply_adds": 900, "genotype": str(RECURRENT)}
    write_history(folder, [row | costs for row in rows])
    report.write_report(folder)
    return [RecurrentSpace(3).decide({"recurrent": SOFTMAX.strengths(alpha)}) for alpha in alphas]


def language_training(folder):
    rows = language_run(folder, "train", [300.0, 250.0, 120.0, 130.0], arch="DARTS_V2", genotype=str(RECURRENT))
    write_history(folder, [row | {"averaged": float(row["epoch"] > 2)} for row in rows])
    test = {"perplexity": float("inf"), "bits_per_token": 7.1, "validation_perplexity": 120.0, "test_tokens": 50}
    test |= {"tokens": "words", "unknown": 0.1, "parameters": 1000, "multiply_adds": None}
    test |= {"by_rank": {"1 to 10": 20.5, "101 to 300": float("inf")}}
    (folder / "metrics.json").write_text(json.dumps(test))
    ranks = {"rank": np.array([10, 300]), "tokens": np.array([1234, 5]), "cross_entropy": np.array([3.0, 800.0])}
    np.savez(folder / "predictions.npz", **ranks)
    report.write_report(folder)


def table_training(folder):
    """Of a label that is a number, with three test rows."""
    folder.mkdir()
    data = {"columns": {"a <b>": {"type": "number"}}, "label": "rent <b>", "label_scale": [900.0, 200.0]}
    config = {"command": "train", "task": "table_regression", "data": data, "genotype": "mlp:8:relu"}
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    write_history(folder, [{"epoch": 1, "loss": 2.0, "mean_absolute_error": 150.0, "seconds": 1}])
    test = {"mean_absolute_error": 40.0, "root_mean_squared_error": 50.0, "r2": 0.5, "test_rows": 3}
    (folder / "metrics.json").write_text(json.dumps({**test, "parameters": 10, "multiply_adds": 9}))
    labels, predicted = np.array([500.0, 900.0, -100.0]), np.array([600.0, 880.0, 0.0])
    np.savez(folder / "predictions.npz", labels=labels, predicted=predicted)
    report.write_report(folder)


CHAIN = AdaptiveChain(8)
EVOLVED = [  # generation, layers, accuracy, loss, multiply-adds
    (1, "mb3_k3,identity|mb3_k3,mb6_k5|mb3_k3,identity", 0.5, 1.0, 240_000),
    (1, "mb6_k5,identity|mb3_k3,identity|mb3_k5,identity", 0.25, 1.5, 220_000),
    (2, "mb3_k5,identity|mb3_k3,mb6_k5|mb3_k3,identity", 0.625, 0.9, 245_000),
    (2, "mb3_k3,mb3_k3|mb3_k3,identity|mb3_k3,identity", 0.625, 0.8, 200_000),
]


def evolution_run(folder, count=4, ended=True, done=EPOCHS, **config):
    """A run directory of a search that evolution decides; those in the supernet of another have no epochs."""
    folder.mkdir()
    more = {**CHAIN.configuration(), "primitives": list(CHAIN.primitives), "init_channels": 8}
    more |= {"method": "spos", "relaxation": "uniform", "selection": "evolution", "generations": 2} | config
    write_config(folder, "search", ["a", "b"], **more)
    networks = [
        {"generation": generation, "architecture": f"chain:8:{layers}", "result": accuracy, "loss": loss}
        | {"parameters": 1000 + place, "multiply_adds": products}
        for place, (generation, layers, accuracy, loss, products) in enumerate(EVOLVED[:count])
    ]
    if count:
        found = {"evolution": json.loads(Evolution([[0, 1]]).to_json()), "networks": networks, "ended": ended}
        (folder / "evolution.json").write_text(json.dumps(found))
    if not config.get("from_supernet"):
        shape = CHAIN.choices["layers"].mask.shape
        alphas = np.random.default_rng(0).normal(size=(done + 1, *shape)).cumsum(0)
        history = [({"layers": alpha}, {}) for alpha in alphas]
        (folder / "alphas.npz").write_bytes(rundirectory.to_alphas(history, CHAIN.choices))
        row = {"loss": 0.5, "accuracy": 0.75, "val_accuracy": 0.125, "learning_rate": 0.025, "seconds": 1}
        row |= {"parameters": 123456, "multiply_adds": 99999, "genotype": f"chain:8:{EVOLVED[0][1]}"}
        write_history(folder, [{"epoch": epoch, **row} for epoch in range(1, done + 1)])
    report.write_report(folder)
    return networks


def drawn(picture, place):
    """What a picture shows of a network of an evolution."""
    return "".join(picture["elements"][element] for element in picture["networks"][place])


def test_what_the_report_of_an_evolution_says(tmp_path):
    networks = evolution_run(tmp_path / "run", max_multiply_adds=250_000.0)
    content = report.contents(tmp_path / "run")
    evolution, (picture,) = content["evolution"], content["pictures"]
    # Of the same accuracy the one of the least loss is the best.
    assert evolution["best"] == 3 and evolution["done"] == evolution["generations"] == 2 and evolution["ended"]
    assert content["genotype"] == networks[3]["architecture"] and evolution["bound"] == 250_000
    assert [network["multiply_adds"] for network in evolution["networks"]] == [240_000, 220_000, 245_000, 200_000]
    for network, there in zip(evolution["networks"], networks, strict=True):
        assert network.items() <= {**there, "cost": there["multiply_adds"]}.items()
    assert (evolution["unit"], evolution["front"]) == ("multiply-adds", [])
    assert content["decision"] == (
        "Method spos: evolution chose the best of 4 networks of at most 250,000 multiply-adds by what they are worth "
        "with the weights of the supernet."
    )
    # Alpha is not trained: nothing is shown of it.
    assert not {"choices", "genotypes", "formula"} & set(content) and content["result"] == EPOCHS
    assert picture["edges"] == [drawn(picture, 3)]
    for place, network in enumerate(networks):
        architecture = spaces.from_text(network["architecture"])
        (own,) = architecture.space.pictures(architecture, init_channels=8)
        assert drawn(picture, place) == drawing.svg_elements(own.edges(architecture))
    assert len(picture["elements"]) == len(set(picture["elements"])) and "8 channels" in picture["shapes"]


def test_a_search_for_a_front_takes_the_cheaper_of_equals(tmp_path):
    networks = evolution_run(tmp_path / "run", front=2, cost="parameters")
    content = report.contents(tmp_path / "run")
    assert content["evolution"]["best"] == 2 and content["genotype"] == networks[2]["architecture"]
    assert content["evolution"]["unit"] == "parameters"


def test_what_the_report_of_an_evolution_says_before_its_end(tmp_path):
    evolution_run(tmp_path / "trains", count=0, done=2)
    content = report.contents(tmp_path / "trains")
    assert content["evolution"]["networks"] == [] and content["evolution"]["best"] is None
    assert content["genotype"] is None and not {"pictures", "choices", "genotypes"} & set(content)
    networks = evolution_run(tmp_path / "found", count=2, ended=False)
    content = report.contents(tmp_path / "found")
    assert content["genotype"] == networks[0]["architecture"] and content["evolution"]["done"] == 1
    decision = (
        "Method spos: at the end evolution chooses the genotype, the best of the networks by what they are worth with "
        "the weights of the supernet."
    )
    assert content["decision"] == decision == report.contents(tmp_path / "trains")["decision"]


def test_what_the_report_of_a_search_in_the_supernet_of_another_says(tmp_path):
    networks = evolution_run(tmp_path / "run", from_supernet="runs/chain")
    content = report.contents(tmp_path / "run")
    assert content["evolution"]["supernet"] == "runs/chain" and content["history"] == []
    assert content["genotype"] == networks[3]["architecture"] and len(content["pictures"]) == 1
    assert content["decision"].endswith("worth with the weights of the supernet in runs/chain.")
    assert ["--from_supernet", "runs/chain"] in content["config"]


def test_an_evolution_after_a_relaxation_that_learns(tmp_path):
    networks = evolution_run(tmp_path / "run", method="gdas", relaxation="gumbel_hard")
    (tmp_path / "run" / "genotype.json").write_text(spaces.from_text(networks[3]["architecture"]).to_json())
    content = report.contents(tmp_path / "run")
    assert len(content["genotypes"]) == EPOCHS + 1 and content["genotypes"][-1] == networks[3]["architecture"]
    (table,), (picture,) = content["choices"], content["pictures"]
    assert len(table["weights"]) == len(picture["edges"]) == EPOCHS + 1
    assert ", weight 0." in picture["edges"][0] and ", weight" not in drawn(picture, 3)
    assert content["decision"].endswith("the supernet; until then it is the strongest by softmax(alpha).")


def test_a_damaged_evolution(tmp_path, capsys):
    evolution_run(tmp_path / "run")
    before = (tmp_path / "run" / "report.html").read_text()
    path = tmp_path / "run" / "evolution.json"
    for old, new in (('"loss": 0.9', '"loss": null'), ('"generation": 2', '"generation": "2"'), ("true", "2")):
        content = path.read_text()
        assert old in content
        path.write_text(content.replace(old, new))
        report.write_report(tmp_path / "run")
        assert "report.html stays as it is: its evolution.json is damaged" in capsys.readouterr().err
        path.write_text(content)
    assert (tmp_path / "run" / "report.html").read_text() == before


def test_what_the_report_of_language_models_says(tmp_path):
    found = language_search(tmp_path / "search")
    content = report.contents(tmp_path / "search")
    assert content["genotypes"] == [*map(str, found)] and content["item"] == "token" and content["headline"]["log"]
    (table,) = content["choices"]
    assert table["skips"] is None and [len(kept) for kept in table["kept"]] == [3] * (EPOCHS + 1)
    assert [row["val_perplexity"] for row in content["history"]] == [None, 1e9, 400.0, 200.0]
    assert "result" in content and "averaged" not in content
    name, source = found[-1].recurrent[-1]
    assert f"{name} from {source} to 3, weight " in content["pictures"][0]["edges"][-1]
    language_training(tmp_path / "train")
    content = report.contents(tmp_path / "train")
    assert (content["result"], content["averaged"]) == (3, 3)
    assert content["ranks"] == [["1 to 10", 1234, 20.5], ["101 to 300", 5, None]]
    assert content["test"] == {"parameters": 1000, "multiply_adds": None} and content["figures"][0][1] == "inf"
    flags = [name for name, _ in content["config"]]
    assert "--units" in flags and not {"--stream", "--layers", "--task"} & set(flags)


def test_what_the_report_of_a_search_says(tmp_path):
    alphas = search_run(tmp_path / "run", nodes=3)
    content = report.contents(tmp_path / "run")
    for epoch in range(EPOCHS + 1):
        weights = [SOFTMAX.strengths(alpha[epoch]) for alpha in alphas]
        genotype = CellSpace(3).decide(dict(zip(("normal", "reduce"), weights, strict=True)))
        assert content["genotypes"][epoch] == str(genotype)
        for kind, pairs, values in (("normal", genotype.normal, weights[0]), ("reduce", genotype.reduce, weights[1])):
            table = content["choices"][["normal", "reduce"].index(kind)]
            assert table["name"] == kind and table["skips"][epoch] == [name for name, _ in pairs].count("skip_connect")
            entropy = np.mean([-sum(p * np.log(p) for p in row) for row in values])
            assert table["entropy"][epoch] == pytest.approx(entropy, abs=1e-4)
            np.testing.assert_allclose(table["weights"][epoch], 1000 * values, atol=0.5)
            # Edge by edge, in the order of their targets.
            ends = [(source, node) for node in range(2, 5) for source in range(node)]
            kept = [(PRIMITIVES[operation], *ends[edge]) for edge, operation in table["kept"][epoch]]
            assert kept == [(*pair, 2 + place // 2) for place, pair in enumerate(pairs)]
            for (name, source), (edge, operation) in zip(pairs, table["kept"][epoch], strict=True):
                picture = content["pictures"][["normal", "reduce"].index(kind)]["edges"][epoch]
                node = genotypes.node_name(ends[edge][1])
                assert (
                    f"{name} from {genotypes.node_name(source)} to {node}, weight {values[edge, operation]:.3f}"
                    in picture
                )
    assert content["history"][0]["parameters"] == 123456 and content["history"][0]["multiply_adds"] is None
    assert ["--unrolled", "yes"] in content["config"] and ["keras", "3"] in content["config"]
    assert not any(name in ("--output", "--image_size") for name, _ in content["config"])

    assert content["result"] == EPOCHS and content["stopped"] is None and content["stages"] == [1]
    decision = f"Method darts: the selection strongest chose the genotype from softmax(alpha) after epoch {EPOCHS}."
    assert content["decision"] == decision


def test_what_the_report_says_of_stages_and_edges(tmp_path):
    alphas = staged_run(tmp_path / "run")
    content = report.contents(tmp_path / "run")
    assert content["stages"] == [1, 3]
    assert content["decision"] == (
        "Method p-darts: the selection max_skips (at most 1) chose the genotype from softmax(alpha) times the share of "
        "the edge after epoch 4."
    )
    for table, alpha in zip(content["choices"], alphas, strict=True):
        assert table["left"] == [8, 8, 8, 3, 3]
        np.testing.assert_allclose(table["all_alike"], np.log(table["left"]), atol=1e-4)
        for epoch in (3, 4):
            there = [[weight is not None for weight in row] for row in table["weights"][epoch]]
            assert np.sum(there, axis=1).tolist() == [3] * 5
            masked = SOFTMAX.strengths(np.where(there, alpha[epoch], -1e9))
            shown = [[weight or 0 for weight in row] for row in table["weights"][epoch]]
            np.testing.assert_allclose(shown, 1000 * masked, atol=0.5)
            assert all(there[row][candidate] for row, candidate in table["kept"][epoch])
        edges = np.array(table["edges"])
        for rows in ([0, 1], [2, 3, 4]):
            np.testing.assert_allclose(edges[..., rows].sum(-1), 1000, atol=2)
        assert max(table["skips"]) <= (1 if table["name"] == "normal" else 4)
        assert 0 < max(table["entropy"]) <= np.log(8) + 1e-4


def test_what_the_report_says_of_an_early_stop(tmp_path):
    result, stopped = stopped_run(tmp_path / "run")
    content = report.contents(tmp_path / "run")
    assert (content["result"], content["stopped"]) == (result, stopped)
    assert content["decision"] == (
        f"Method r-darts: the selection strongest chose the genotype from softmax(alpha) after epoch {result}, "
        f"to which the early stop by curvature went back after epoch {stopped}."
    )
    # Each average is shown at the middle of its five eigenvalues.
    assert content["averages"][-1] == [stopped - 2, pytest.approx((4 * 1.0 + 4.0) / 5)]
    search_run(tmp_path / "skips", 2, done=2, primitives=("none", "skip_connect"), early_stop="skips")
    content = report.contents(tmp_path / "skips")
    assert content["result"] == content["stopped"] == 2
    assert content["decision"].endswith(" after epoch 2, where the early stop by skips ended the search.")
    search_run(tmp_path / "on", 2, early_stop="ranking")
    assert report.contents(tmp_path / "on")["decision"].endswith("the early stop by ranking has not ended the search.")


def test_the_result_of_a_selection_by_the_network_is_that_of_the_file(tmp_path):
    alphas = search_run(tmp_path / "run", 2, selection="perturbation")
    before = report.contents(tmp_path / "run")
    other = CellSpace(2).decide({"normal": alphas[0][0], "reduce": alphas[1][0]})
    (tmp_path / "run" / "genotype.json").write_text(other.to_json())
    content = report.contents(tmp_path / "run")
    assert content["genotypes"] == [*before["genotypes"][:-1], str(other)] != before["genotypes"]
    kept = [[tuple(pick) for pick in table["kept"][-1]] for table in content["choices"]]
    assert kept == list(CellSpace(2).picks(other).values())
    assert content["decision"] == (
        "Method darts: at the end the selection perturbation chooses the genotype from what the network loses; until "
        "then it is the strongest by softmax(alpha)."
    )


@pytest.mark.parametrize("relaxation, formula", [("sigmoid", "sigmoid(alpha)"), ("gumbel_hard", "softmax(alpha)")])
def test_the_formula_is_of_the_weights_that_are_shown(relaxation, formula, tmp_path):
    normal, _ = search_run(tmp_path / "run", 2, relaxation=relaxation)
    content = report.contents(tmp_path / "run")
    assert content["formula"] == formula and content["normalized"] == (relaxation != "sigmoid")
    expected = 1 / (1 + np.exp(-normal)) if relaxation == "sigmoid" else SOFTMAX.strengths(normal)
    np.testing.assert_allclose(content["choices"][0]["weights"], 1000 * expected, atol=0.5)
    assert max(content["choices"][0]["entropy"]) <= np.log(8) + 1e-4


def test_what_the_report_of_a_training_says(tmp_path):
    train_run(tmp_path / "few")
    content = report.contents(tmp_path / "few")
    assert content["confusion"] == [[1, 0, 0], [0, 0, 2], [0, 0, 1]]
    assert [(one["label"], one["predicted"], one["probability"]) for one in content["worst"]] == [
        (1, 2, 0.7),
        (1, 2, 0.8),
    ]
    assert content["genotype"].startswith("Genotype(") and len(content["pictures"]) == 2
    train_run(tmp_path / "many", classes=40)
    content = report.contents(tmp_path / "many")
    assert content["confused"] == [[1, 2, 2]] and "confusion" not in content


def test_flags_beside_one_that_is_off_are_not_shown(tmp_path):
    run = tmp_path / "run"
    train_run(run)
    config = json.loads((run / "config.json").read_text())
    for teacher in (None, "model.keras"):
        (run / "config.json").write_text(json.dumps(config | {"teacher": teacher, "teacher_weight": 0.5}))
        shown = dict(report.contents(run)["config"])
        assert (shown.get("--teacher"), shown.get("--teacher_weight")) == (teacher, teacher and "0.5")


def test_a_run_without_a_finished_epoch(tmp_path):
    write_config(tmp_path, "train", ["a"])
    report.write_report(tmp_path)
    assert report.contents(tmp_path)["history"] == []


@pytest.fixture(scope="module")
def browser():
    driver = shutil.which("chromedriver")
    if not driver or not shutil.which("chromium"):
        pytest.skip("chromium and chromedriver are not there: apt-get install chromium chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-background-networking", "no-first-run"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(driver)) as browser:
        yield browser


def open_page(browser, run, width, theme="light"):
    """Opens a report; checks that nothing is wrong with it, whatever it shows."""
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    feature = {"name": "prefers-color-scheme", "value": theme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.get(f"file://{run}/report.html")
    assert browser.get_log("browser") == []
    assert (
        browser.execute_script(
            "return performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length"
        )
        == 0
    )
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    # No card lies upon another, and nothing but what scrolls is wider than its card.
    boxes = browser.execute_script(
        "return [...document.querySelectorAll('.card')].map(card => {"
        "const box = card.getBoundingClientRect(); return [box.left, box.top, box.right, box.bottom]})"
    )
    for place, (left, top, right, bottom) in enumerate(boxes):
        assert 0 <= left < right <= width
        for other in boxes[:place]:
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top


def texts(browser, selector):
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map(element => element.textContent)", selector
    )


def move_slider(browser, epoch):
    browser.execute_script(
        "const slider = document.getElementById('epoch'); slider.value = arguments[0];"
        "slider.dispatchEvent(new Event('input'))",
        epoch,
    )


@pytest.mark.parametrize("width, theme", [(360, "dark"), (1400, "light")])
@pytest.mark.parametrize("nodes", [2, 7])
def test_the_slider_replays_a_search(browser, nodes, width, theme, tmp_path):
    alphas = search_run(tmp_path / "run", nodes)
    open_page(browser, tmp_path / "run", width, theme)
    page = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert page == ("rgb(13, 17, 23)" if theme == "dark" else "rgb(255, 255, 255)")
    assert browser.title == "Search on <script>alert(1)</script>" == texts(browser, "h1")[0]
    assert texts(browser, "#replay output") == [f"epoch {EPOCHS} of {EPOCHS}"]
    seen = set()
    for epoch in (EPOCHS, 0, 2):
        move_slider(browser, epoch)
        weights = [SOFTMAX.strengths(alpha[epoch]) for alpha in alphas]
        genotype = CellSpace(nodes).decide(dict(zip(("normal", "reduce"), weights, strict=True)))
        drawn = texts(browser, ".edges text")
        assert sorted(drawn) == sorted(name for name, _ in (*genotype.normal, *genotype.reduce))
        seen.add("".join(texts(browser, ".edges title")))
        assert texts(browser, "#genotype") == [str(genotype)]
        shown = [float(text) for text in texts(browser, ".heat td")]
        np.testing.assert_allclose(shown, np.concatenate(weights).flatten(), atol=0.0056)
        assert len(texts(browser, ".heat td.kept")) == 4 * nodes
        skips = [name for name, _ in genotype.normal].count("skip_connect")
        assert f"normal cell {skips}" in texts(browser, ".legend span")
    assert len(seen) == 3


@pytest.mark.parametrize("width, theme", [(360, "dark"), (1400, "light")])
def test_stages_edges_and_schedules(browser, width, theme, tmp_path):
    staged_run(tmp_path / "run")
    open_page(browser, tmp_path / "run", width, theme)
    for epoch, left, stage in ((4, 15, 2), (2, 40, 1)):
        move_slider(browser, epoch)
        assert len(texts(browser, ".heat td:not(.share)")) - len(texts(browser, ".heat td.gone")) == 2 * left
        assert set(texts(browser, ".heat td.gone")) <= {""} and len(texts(browser, "td.share")) == 10
        assert f"{left} of 40 candidates are left, stage {stage} of 2." in texts(browser, ".card p")
        assert f"dropout after skips {0.1 * epoch:.1g}" in texts(browser, ".legend span")
    assert texts(browser, ".chart text").count("stage 2") == 2 and "Schedules" in texts(browser, "h2")


def test_the_result_of_a_search_that_ended_early(browser, tmp_path):
    result, stopped = stopped_run(tmp_path / "run")
    open_page(browser, tmp_path / "run", 360)
    assert texts(browser, "#replay output") == [f"epoch {result} of 20, the result"]
    assert texts(browser, "#genotype") == [report.contents(tmp_path / "run")["genotypes"][result]]
    assert f"Ended early, after epoch {stopped} of 20; the result is that of epoch {result}." in texts(browser, "p")[0]
    assert {"result", "stop"} <= set(texts(browser, ".chart text"))
    move_slider(browser, stopped)
    assert texts(browser, "#replay output") == [f"epoch {stopped} of 20; the result is {result}"]
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360


def test_replay_and_copy(browser, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    search_run(tmp_path / "run", 2)
    open_page(browser, tmp_path / "run", 800)
    browser.find_element(By.CSS_SELECTOR, "#replay button").click()
    assert texts(browser, "#replay output") == ["at the start"]
    last = f"epoch {EPOCHS} of {EPOCHS}"
    WebDriverWait(browser, 10, poll_frequency=0.05).until(lambda _: texts(browser, "#replay output") == [last])
    browser.execute_cdp_cmd(
        "Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    )
    browser.find_element(By.ID, "copy").click()
    WebDriverWait(browser, 5).until(lambda _: texts(browser, "#copy") == ["Copied"])
    copied = browser.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    assert [copied] == texts(browser, "#genotype")


@pytest.mark.parametrize("width, theme", [(360, "dark"), (1400, "light")])
def test_language_models(browser, width, theme, tmp_path):
    found = language_search(tmp_path / "search")
    open_page(browser, tmp_path / "search", width, theme)
    for epoch in (EPOCHS, 0):
        move_slider(browser, epoch)
        assert texts(browser, ".edges text") == [name for name, _ in found[epoch].recurrent]
        assert texts(browser, "#genotype") == [str(found[epoch])]
    assert "multiply-adds per token" in texts(browser, ".numbers span") and not texts(browser, "#collapse")
    # Powers on the axis of the perplexity, between which the last epochs can be told apart.
    axis = texts(browser, ".chart[aria-label=Perplexity] text")
    assert {"10 k", "1.00 M", "100.00 M"} <= set(axis)
    assert "Schedules" not in texts(browser, "h2")
    language_training(tmp_path / "train")
    open_page(browser, tmp_path / "train", width, theme)
    assert texts(browser, "#ranks tr:last-child td") == ["101 to 300", "5", "infinite"]
    assert "1,234" in texts(browser, "#ranks td") and "inf" in texts(browser, ".numbers b")
    assert "averaged, best" in texts(browser, ".chart[aria-label=Loss] text")
    assert "All 4 epochs are done; the model is that of epoch 3." in texts(browser, "p")[0]
    assert "validation 120" in texts(browser, ".legend span")


@pytest.mark.parametrize("width", [360, 1400])
def test_residuals(browser, width, tmp_path):
    table_training(tmp_path / "run")
    open_page(browser, tmp_path / "run", width)
    assert texts(browser, "#residuals title") == [
        "right 500, predicted 600",
        "right 900, predicted 880",
        "right -100, predicted 0",
    ]
    assert "Residuals of rent <b> on test rows (label - prediction), by prediction" in texts(browser, "h2")
    assert "Mean absolute error" in texts(browser, "h2") and "training mean absolute error" in texts(
        browser, ".numbers span"
    )
    assert {"40", "0.500"} <= set(texts(browser, ".numbers b"))


@pytest.mark.parametrize("classes", [3, 40])
@pytest.mark.parametrize("width", [360, 1400])
def test_a_training(browser, classes, width, tmp_path):
    train_run(tmp_path / "run", classes)
    open_page(browser, tmp_path / "run", width)
    assert "50.00%" in texts(browser, ".numbers b") and not texts(browser, "#replay")
    assert "1 of 4 epochs are done" in texts(browser, "p")[0]
    table = " ".join(texts(browser, "#confusion")).split()
    assert "class <b>1</b>" in " ".join(table)
    assert texts(browser, "figcaption") == [
        "class <b>1</b> → class <b>2</b>, 70%",
        "class <b>1</b> → class <b>2</b>, 80%",
    ]
    assert browser.execute_script("return [...document.images].every(image => image.naturalWidth === 8)")
    assert len(texts(browser, ".edges text")) == 20


@pytest.mark.parametrize("width, theme", [(360, "dark"), (1400, "light")])
def test_the_networks_of_an_evolution(browser, width, theme, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    networks = evolution_run(tmp_path / "run", max_multiply_adds=250_000.0)
    open_page(browser, tmp_path / "run", width, theme)
    assert (
        texts(browser, "p")[0] == "All 4 epochs are done, all 2 generations of the evolution are done. 4 s of training."
    )
    assert texts(browser, ".numbers b") == ["62.50%", "1003", "200 k", "4"]
    assert texts(browser, "#genotype") == [networks[3]["architecture"]]
    titles = "return [...document.querySelectorAll('.edges title')].map(element => element.textContent)"
    assert browser.execute_script(titles)[0] == "mb3_k3 on 1.1, 8 to 8 channels"
    assert "epoch" not in " ".join(texts(browser, "button")) and not texts(browser, ".heat")
    assert "at most 250 k" in texts(browser, ".population text")
    said = "The best network: generation 2, 62.50%, 200 k multiply-adds, 1003 parameters"
    assert texts(browser, "#network") == [said]
    dots = browser.find_elements(By.CSS_SELECTOR, ".population circle[data-place]")
    assert dots[0].get_attribute("aria-label") == "generation 1, 50.00%, 240 k multiply-adds, 1000 parameters"
    assert texts(browser, ".population title")[1] == (
        f"generation 1, 25.00%, 220 k multiply-adds, 1001 parameters\n{networks[1]['architecture']}"
    )
    assert len({dot.value_of_css_property("fill") for dot in dots}) == 2
    dots[1].click()
    assert texts(browser, "#genotype") == [networks[1]["architecture"]]
    assert browser.execute_script(titles)[0] == "mb6_k5 on 1.1, 8 to 8 channels"
    assert texts(browser, "#network") == ["Generation 1, 25.00%, 220 k multiply-adds, 1001 parameters"]
    assert "Chain: generation 1, 25.00%" in texts(browser, "h2")
    # Arrow keys go from one to the next, by multiply-adds; a pointer over a chart changes nothing.
    chart = browser.find_element(By.CSS_SELECTOR, ".chart[aria-label=Loss]")
    browser.execute_script(
        "arguments[0].dispatchEvent(new PointerEvent('pointermove', {pointerType: 'mouse', clientX: 100}))", chart
    )
    dots[1].send_keys(Keys.ARROW_RIGHT)
    assert texts(browser, "#genotype") == [networks[0]["architecture"]]
    assert [dot.get_attribute("tabindex") for dot in dots] == ["0", "-1", "-1", "-1"]
    dots[0].send_keys(Keys.HOME)
    assert texts(browser, "#network") == [said] and "Chain" in texts(browser, "h2")
    assert "best so far 62.50%" in texts(browser, ".legend span") and "mean 62.50%" in texts(browser, ".legend span")
    assert browser.get_log("browser") == []


def test_states_of_an_evolution(browser, tmp_path):
    evolution_run(tmp_path / "trains", count=0, done=2)
    open_page(browser, tmp_path / "trains", 360)
    assert texts(browser, "p")[0] == "2 of 4 epochs are done; reload this page for more. 2 s of training."
    assert texts(browser, ".numbers span") == ["validation accuracy of the supernet"]
    evolution_run(tmp_path / "begins", count=0)
    open_page(browser, tmp_path / "begins", 360)
    state = "All 4 epochs are done, 0 of 2 generations of the evolution are done; reload this page for more."
    assert texts(browser, "p")[0].startswith(state) and not texts(browser, "#genotype")
    evolution_run(tmp_path / "other", from_supernet="runs/chain", generations=3)
    open_page(browser, tmp_path / "other", 360)
    assert texts(browser, "p")[0] == (
        "In the supernet of runs/chain: after generation 2 of 3 the evolution found no other network."
    )
    assert not texts(browser, ".chart[aria-label=Loss]") and len(texts(browser, "#genotype")) == 1
    networks = evolution_run(tmp_path / "learns", method="gdas", relaxation="gumbel_hard")
    (tmp_path / "learns" / "genotype.json").write_text(spaces.from_text(networks[3]["architecture"]).to_json())
    report.write_report(tmp_path / "learns")
    open_page(browser, tmp_path / "learns", 1400)
    assert texts(browser, "#genotype") == [networks[3]["architecture"]] and texts(browser, "#replay output")
    assert texts(browser, "#network")[0].startswith("The best network: ")
    move_slider(browser, 1)
    assert texts(browser, "#network") == [""] and texts(browser, "#genotype") != [networks[3]["architecture"]]
