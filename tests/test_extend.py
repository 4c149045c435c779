"""The lines of docs/extend.md: a space and a relaxation of a user's own, from search to export."""

import json
import pathlib
import re
import signal

import keras
import numpy as np
import pytest

from darts_tf import run_search, run_training, spaces, tune
from darts_tf.cli import messages
from darts_tf.data import datasets
from darts_tf.methods import penalties, perturbations, relaxations, selections
from darts_tf.methods.contracts import check_relaxation
from darts_tf.methods.relaxations import Relaxation
from darts_tf.reports import drawing, report
from darts_tf.runs import rundirectory
from darts_tf.runs.configurations import SearchConfig, TrainConfig
from darts_tf.spaces import base
from darts_tf.spaces.contracts import check_space

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "extend.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
SPACE, RELAXATION, PARTS, CHECKS, _ = BLOCKS
SMALL = {"epochs": 1, "init_channels": 4, "batch_size": 64}


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """The file that the page makes."""
    parts = relaxations._relaxations, penalties._penalties, perturbations._perturbations, selections._selections
    registries = [registry.members for registry in (base._spaces, *parts)]
    before = [dict(registry) for registry in registries]
    file = tmp_path_factory.mktemp("extend") / "mine.py"
    file.write_text(SPACE + RELAXATION + PARTS, encoding="utf-8")
    yield str(file)
    for registry, kept in zip(registries, before, strict=True):
        registry.clear()
        registry.update(kept)


@pytest.fixture(scope="module")
def search(mine, tmp_path_factory):
    output = str(tmp_path_factory.mktemp("extend") / "search")
    parts = {"penalty": "entropy", "perturbation": "towards-uniform", "selection": "no-skips"}
    config = SearchConfig(
        operations=mine, space="chain-of-convolutions", relaxation="sharp-softmax", output=output, **parts, **SMALL
    )
    return run_search(config, verbose=0)


def test_each_part_is_short():
    for block in (SPACE, RELAXATION, PARTS):
        assert len(block.splitlines()) < 60


def test_the_checks_of_the_page(search):
    exec(SPACE + RELAXATION + CHECKS, {"__name__": "page"})


def test_search(search):
    assert search.genotype.space.name == "chain-of-convolutions" and len(search.genotype.chosen["kernels"]) == 3
    assert "skip_connect" not in search.genotype.chosen["kernels"]
    assert search.history[-1]["penalty_weight"] == 0 and search.history[-1]["perturbation_size"] > 0
    written = (search.directory / "genotype.json").read_text()
    assert json.loads(written)["space"] == "chain-of-convolutions" and spaces.from_json(written) == search.genotype
    with np.load(search.directory / "alphas.npz") as alphas:
        assert alphas["kernels"].shape == (2, 3, 3) and alphas["primitives"].tolist()[0] == "conv_3x3"
        strengths = relaxations.get("sharp-softmax").strengths(alphas["kernels"][-1])
    content = report.contents(search.directory)
    assert content["formula"] == "softmax(5 alpha)" and content["genotypes"][-1] == str(search.genotype)
    (table,) = content["choices"]
    np.testing.assert_allclose(table["weights"][-1], 1000 * strengths, atol=0.51)
    assert [name for name in search.genotype.chosen["kernels"]] == [
        table["candidates"][candidate] for _, candidate in table["kept"][-1]
    ]
    assert content["pictures"][0]["title"] == "Kernels" and content["history"][0]["parameters"] > 0


def test_an_interrupted_search_goes_on(search, mine, tmp_path):
    """From Python twice in one process, in the same directory."""
    config = search.config.replace(output=str(tmp_path / "run"), epochs=2)
    again = run_search(search.config.replace(output=str(tmp_path / "run")), verbose=0)
    assert again.genotype == search.genotype
    with pytest.raises(ValueError, match=r"--epochs=2: the run in .* has 1"):
        run_search(SearchConfig(**{name: getattr(config, name) for name in (*search.config.given, "epochs", "output")}))


def test_train_and_export(search, mine, tmp_path):
    training = run_training(
        TrainConfig(operations=mine, arch=str(search.directory / "genotype.json"), output=str(tmp_path / "t"), **SMALL),
        verbose=0,
    )
    assert training.results["test_images"] == 355 and training.results["parameters"] > 0
    from export import ExportConfig, run_export

    exported = run_export(ExportConfig(model=str(tmp_path / "t" / "model.keras"), output=str(tmp_path / "s")))
    assert not exported.failed and all(row["max_difference"] < 0.2 for row in exported.rows)
    model = keras.models.load_model(tmp_path / "t" / "model.keras")
    data = datasets.load("digits")
    scores = model.predict(data.x_test.astype("float32"), verbose=0)
    assert (scores.argmax(1) == data.y_test).mean() == training.results["top1"]


def test_tune(search, mine, tmp_path, capsys):
    config = {name: SMALL[name] for name in ("epochs", "batch_size")}
    before = signal.getsignal(signal.SIGTERM)
    with messages.spoken(0):
        tune.main(
            tune.TuneConfig(
                **config,
                operations=mine,
                space="chain-of-convolutions",
                oracle="random",
                max_trials=2,
                init_channels=4,
                output=str(tmp_path / "tune"),
            )
        )
    signal.signal(signal.SIGTERM, before)
    rows = rundirectory.trials(tmp_path / "tune", "val_accuracy")
    assert [row["status"] for row in rows] == ["COMPLETED"] * 2 and all(float(row["parameters"]) > 0 for row in rows)
    best = spaces.from_json((tmp_path / "tune" / "genotype.json").read_text())
    assert str(best) in {row["genotype"] for row in rows} and str(best) in capsys.readouterr().out


def test_plot(search, tmp_path):
    picture = drawing.svg(search.genotype)
    for name in search.genotype.chosen["kernels"]:
        assert f">{name}</text>" in picture
    assert drawing.png(search.genotype).startswith(b"\x89PNG")


def reversed_decode(space, picks):
    right = base.SearchSpace.decode(space, picks)
    return base.Architecture(space, {"kernels": right.chosen["kernels"][::-1]})


class Wrong(Relaxation):
    name = "softmax"

    def __call__(self, alpha):
        return alpha


def test_the_checks_tell_what_is_wrong(search):
    with pytest.raises(AssertionError, match="softmax: the registered relaxation is another"):
        check_relaxation(Wrong())
    for name in relaxations.names():
        check_relaxation(name)
    check_space(spaces.CellSpace(1, ("none", "skip_connect", "max_pool_3x3", "sep_conv_3x3")), draws=3)
    page = {"__name__": "page"}
    exec(SPACE, page)
    kind = page["ChainOfConvolutions"]
    for name, value, message in (
        ("decode", reversed_decode, "not the inverse"),
        ("values", lambda self, architecture: {}, "declare another one"),
        ("choices", property(lambda self: {"a b": None}), "a b is NoneType|no identifier"),
        (
            "network",
            lambda self, architecture, task: keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()]),
            "its network gives",
        ),
    ):
        broken = type(kind.__name__, (kind,), {name: value})
        base.register_space("chain-of-convolutions")(broken)
        with pytest.raises(AssertionError, match=message):
            check_space(broken(), draws=2)
