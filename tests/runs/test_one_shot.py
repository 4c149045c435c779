"""Searches of Single Path One-Shot: killed ones go on, other networks in the same supernet, what is refused."""

import json
import shutil

import pytest

from darts_tf import run_search, spaces
from darts_tf.cli.messages import UsageError
from darts_tf.methods import evolution
from darts_tf.runs import rundirectory
from darts_tf.runs.configurations import SearchConfig
from darts_tf.spaces.chain.description import Description, Stage

SPACE = Description((Stage(4, ("identity", "mb2_k3", "mb3_k5"), 2, 2),), 2, 1, 8).to_json()
TINY = {"space": SPACE, "method": "spos", "epochs": 2, "batch_size": 256, "learning_rate": 0.1}
TINY |= {"generations": 2, "population": 4, "recalibration_images": 256}


def search(folder, **values):
    return run_search(SearchConfig(**{**TINY, "output": str(folder), **values}), verbose=0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one_shot") / "whole"
    search(folder)
    return folder


def test_what_a_search_leaves(whole):
    found, best = rundirectory.evolution(whole), rundirectory.genotype(whole)
    assert found["ended"] and len(found["networks"]) == 8
    first = max(found["networks"], key=lambda network: (network["result"], -network["loss"]))
    assert first["architecture"] == str(best)
    assert len({network["architecture"] for network in found["networks"]}) == 8
    config = rundirectory.configuration(whole)
    assert (config["relaxation"], config["selection"], config["train_portion"]) == ("uniform", "evolution", 0.8)
    assert (whole / "report.html").exists()


@pytest.mark.parametrize("after", ["an epoch", "a generation"])
def test_a_search_that_is_killed_ends_as_it_would_have(whole, tmp_path, after):
    parts = tmp_path / "parts"
    shutil.copytree(whole, parts)
    (parts / "genotype.json").unlink()
    if after == "an epoch":
        (parts / "evolution.json").unlink()
        for file in sorted((parts / "checkpoints").iterdir())[1:]:
            file.unlink()
    else:
        other = tmp_path / "other"  # the first generation alone
        shutil.copytree(parts, other)
        (other / "evolution.json").unlink()
        config = json.loads((other / "config.json").read_text(encoding="utf-8"))
        (other / "config.json").write_text(json.dumps(config | {"generations": 1}), encoding="utf-8")
        search(other, generations=1)
        state = json.loads((other / "evolution.json").read_text(encoding="utf-8"))
        assert state["networks"] == rundirectory.evolution(whole)["networks"][:4]
        shutil.copy(other / "evolution.json", parts)
    search(parts, resume=True)
    for name in ("evolution.json", "genotype.json", "alphas.npz"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes(), name


def test_another_network_of_the_same_supernet(whole, tmp_path):
    space = spaces.of({"space": SPACE})
    networks = rundirectory.evolution(whole)["networks"]
    bound = sorted(network["multiply_adds"] for network in networks)[3]
    found = search(tmp_path / "a", from_supernet=str(whole), max_multiply_adds=float(bound), front=2)
    assert found.history == [] and not (tmp_path / "a" / "checkpoints").exists()
    inside = rundirectory.evolution(tmp_path / "a")["networks"]
    assert [one["multiply_adds"] for one in found.front] == sorted({one["multiply_adds"] for one in found.front})
    for one in found.front:  # nothing that was measured is better and no dearer
        assert not [
            other
            for other in inside
            if other["result"] > one["result"] and other["multiply_adds"] <= one["multiply_adds"]
        ]
    assert str(found.genotype) == found.front[-1]["architecture"]
    assert inside and all(network["multiply_adds"] <= bound for network in inside)
    known = {network["architecture"]: network["result"] for network in networks}
    both = [network for network in inside if network["architecture"] in known]
    assert both and all(network["result"] == known[network["architecture"]] for network in both)  # the same weights
    assert space.picks(found.genotype)
    assert "In the supernet of" in (tmp_path / "a" / "report.html").read_text(encoding="utf-8")


def test_a_bound_that_only_the_smallest_networks_keep(whole, tmp_path, monkeypatch):
    """They are found at once, not drawn at random."""
    monkeypatch.setattr(evolution, "RANDOM_TRIES", 0)
    bound = min(network["multiply_adds"] for network in rundirectory.evolution(whole)["networks"])
    found = search(tmp_path / "a", from_supernet=str(whole), max_multiply_adds=float(bound))
    assert found.genotype.space.picks(found.genotype)
    assert all(one["multiply_adds"] <= bound for one in rundirectory.evolution(tmp_path / "a")["networks"])


def test_a_supernet_whose_run_is_damaged(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "damaged")
    (tmp_path / "damaged" / "alphas.npz").unlink()
    with pytest.raises(UsageError, match=r"its alphas\.npz is gone"):
        search(tmp_path / "a", from_supernet=str(tmp_path / "damaged"), max_multiply_adds=1e9)


def test_what_is_refused(whole, tmp_path):
    for values, message in (
        ({"from_supernet": str(tmp_path)}, "expected the folder of a search of --selection=evolution"),
        (
            {"from_supernet": str(whole), "init_channels": 4},
            "--init_channels=4: the search of --from_supernet has None",
        ),
        ({"max_multiply_adds": 1.0}, "--max_multiply_adds=1: expected at least [0-9,]+, which the smallest network"),
        ({"selection": "strongest"}, "expected --selection=evolution; alpha is not trained"),
        ({"space": "darts"}, "--method=spos has --selection=evolution: expected a space of images"),
        ({"space": "fbnet"}, "--space=fbnet: its strides make images 32 times smaller"),
        ({"widths": ["2", "1"]}, "widths=2,1: expected numbers above 0, up to 1"),
        ({"layers": 3}, "--layers=3: the space chain has no such size"),
        ({"method": "darts", "population": 4, "generations": 2}, "--population=4: --selection=strongest has no such"),
        ({"method": "darts", "relaxation": "binary_gates", "space": "darts"}, "a row computes one candidate or all"),
        ({"cost_form": "fbnet"}, "--cost_form=fbnet: expected a relaxation that trains alpha"),
        (
            {"max_multiply_adds": 5e5, "max_parameters": 100.0},
            "--max_parameters=100: expected at least [0-9,]+, which the smallest network",
        ),
        (
            {"method": "fbnet", "cost_reference": 1e6},
            "--cost_reference=1000000.0: --cost_form=fbnet has no such number",
        ),
        (
            {"method": "fbnet", "cost": "parameters"},
            "--cost_form=fbnet: expected add_linear; parameters of",
        ),
        ({"early_stop": "skips"}, "--selection=evolution with --early_stop=skips: expected one of them"),
    ):
        of_evolution = ("generations", "population", "recalibration_images")
        given = {name: value for name, value in TINY.items() if name not in of_evolution}
        with pytest.raises(UsageError, match=message):
            run_search(SearchConfig(**{**given, "output": str(tmp_path / "refused"), **values}), verbose=0)
    assert not (tmp_path / "refused" / "genotype.json").exists()
