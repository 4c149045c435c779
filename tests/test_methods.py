"""Searches with the parts that methods are made of: from the flags to what is in the run directory."""

import csv
import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from darts_tf import DARTS, SearchNetwork, register_operation, run_search, spaces
from darts_tf.cli import messages
from darts_tf.cli.messages import UsageError
from darts_tf.data.tasks import ImageClassification
from darts_tf.methods import presets
from darts_tf.methods.optimizers import SGD, Adam
from darts_tf.ops import operations
from darts_tf.private.keras import place_of
from darts_tf.runs import inheritance, phases, recipes, rundirectory
from darts_tf.runs.configurations import SearchConfig
from darts_tf.spaces.chain.description import Description, Stage
from darts_tf.spaces.chain.space import DescribedChain
from darts_tf.spaces.densenas.space import DenseNAS
from darts_tf.spaces.recurrent.networks import RecurrentSearchNetwork
from darts_tf.spaces.recurrent.space import RecurrentSpace

IMAGES = ImageClassification((8, 8, 1), 3)
OF_CHAINS = ("fbnet", "proxyless", "densenas", "spos")
TINY = {
    "nodes": 1,
    "layers": 3,
    "init_channels": 4,
    "batch_size": 256,
    "primitives": ["none", "skip_connect", "sep_conv_3x3"],
}


def search(folder, **values):
    return run_search(SearchConfig(**{**TINY, "epochs": 2, "output": str(folder), **values}), verbose=0)


def contents(folder):
    """What two runs that are the same have in common."""
    with open(folder / "history.csv", newline="") as file:
        rows = [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]
    return rows, (folder / "alphas.npz").read_bytes(), (folder / "genotype.json").read_bytes()


def gone_on(whole, parts, **values):
    """Ends a run again from its first checkpoint, as if it had been killed after that, and compares the two."""
    shutil.copytree(whole, parts)
    for file in sorted((parts / "checkpoints").iterdir())[1:]:
        file.unlink()
    search(parts, resume=True, **values)
    assert contents(parts) == contents(whole)


@pytest.mark.parametrize("method", presets.METHODS)
def test_the_flags_of_every_method_go_together(method):
    for dataset in ("digits", "cifar10"):
        for space in ("chain", "fbnet", "mlp") if method in OF_CHAINS else ("darts", "s1", "s4", "nas-bench-201"):
            config = SearchConfig(method=method, dataset=dataset, space=space).begun()
            phases.check(config.replace(init_channels=config.init_channels or 16), spaces.of({"space": space}))
    chosen = SearchConfig(method=method, penalty="anchor", warmup_epochs=1).begun()
    assert chosen.penalty == "anchor" and chosen.warmup_epochs == 1


def test_auto_is_the_method_that_is_recommended():
    auto = SearchConfig(method="auto", dataset="photos").begun()
    parts = presets.METHODS[presets.AUTO].parts
    assert {name: getattr(auto, name) for name in parts} == parts
    # The hyperparameters are DARTS's, not those that its authors have for CIFAR-10.
    assert auto.batch_size is None and auto.learning_rate is None
    assert SearchConfig(method="auto", space="recurrent").begun().partial_channels == 1


def test_what_needs_one_machine():
    with pytest.raises(UsageError, match="--strategy=multi_worker with --early_stop"):
        SearchConfig(early_stop="skips", strategy="multi_worker").check()


def test_epochs_of_a_warm_up_follow_the_epochs_of_the_search():
    config = SearchConfig(method="pc-darts", epochs=10).begun()
    assert config.warmup_epochs == 3 and config.partial_channels == 4 and config.edge_normalization
    assert SearchConfig(method="pc-darts", dataset="cifar10").begun().warmup_epochs == 15


@pytest.mark.parametrize(
    "values, logged",
    [
        ({"relaxation": "gumbel_hard", "partial_channels": 2, "edge_normalization": True}, {"temperature": [10, 0.1]}),
        ({"relaxation": "dirichlet", "penalty": "anchor", "auxiliary_skip": True}, {"auxiliary_rate": [1, 0.5]}),
        (
            {
                "relaxation": "gumbel_soft",
                "unrolled": True,
                "perturbation": "adversarial",
                "difference": "forward",
                "recompute": True,
            },
            {"temperature": [1, 0.515], "perturbation_size": [0.03, 0.165]},
        ),
    ],
)
@pytest.mark.slow
def test_a_search_that_draws_goes_on_bit_for_bit(values, logged, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    result = search(whole, **values)
    for name, numbers in logged.items():
        np.testing.assert_allclose([row[name] for row in result.history], numbers, rtol=1e-6)
    gone_on(whole, parts, **values)
    assert json.loads((parts / "config.json").read_text())["relaxation"] == values.get("relaxation", "softmax")


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [
        {
            "stages": ["3", "2"],
            "stage_layers": ["3", "4"],
            "stage_dropout": ["0.0", "0.5"],
            "warmup_epochs": 1,
            "partial_channels": 4,
            "stage_partial_channels": ["4", "2"],
        },
        {"prune_below": 0.3334},
    ],
)
def test_stages_and_pruning_go_on_bit_for_bit(values, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    values = {"epochs": 4, **values}
    result = search(whole, **values)
    history = rundirectory.alphas(whole, spaces.of(TINY).choices)
    left = [mask["normal"].sum() for mask in phases.candidates_of(result.config, spaces.of(TINY), history)]
    assert left[0] == 6 and left[-1] < left[0]
    gone_on(whole, parts, **values)


def test_a_search_that_gets_sharp_ends_where_it_was_flat(tmp_path, monkeypatch, capsys):
    from darts_tf.methods import curvature

    values = iter([0.1, 0.1, 0.1, 0.1, 0.1, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9])
    monkeypatch.setattr(curvature.Curvature, "__call__", lambda self, *batch: next(values))
    flags = {"epochs": 14, "curvature_every": 1, "early_stop": "curvature"}
    result = search(tmp_path / "run", primitives=["skip_connect", "max_pool_3x3"], **flags)
    assert 5 < len(result.history) < 14
    stop = phases.stop_of(result.config, result.genotype.space, result.history, [])
    assert stop.noticed == len(result.history) - 1 and stop.epoch < stop.noticed
    assert str(result.genotype) == result.history[stop.epoch]["genotype"]
    before = contents(tmp_path / "run")
    search(tmp_path / "run", resume=True, primitives=["skip_connect", "max_pool_3x3"], **flags)  # nothing is left to do
    assert contents(tmp_path / "run") == before


@pytest.mark.slow
def test_selection_by_perturbation(tmp_path):
    with messages.spoken(0):
        result = search(tmp_path, selection="perturbation", tuning_epochs=1, epochs=1)
    assert result.genotype == spaces.read(str(tmp_path / "genotype.json"))
    result.genotype.space.check(result.genotype)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"unrolled": True, "relaxation": "gumbel_hard"}, "--unrolled with --relaxation=gumbel_hard: expected"),
        ({"difference": "forward"}, "--difference=forward: expected --unrolled with it"),
        ({"jit_compile": True, "relaxation": "gumbel_hard"}, "--jit_compile with --relaxation=gumbel_hard: expected"),
        ({"partial_channels": 3}, "--partial_channels=3: expected a divisor of --init_channels=4"),
        ({"stages": ["4", "0"]}, "--stages=4,0: expected whole numbers of at least 1"),
        ({"stages": ["2", "4"]}, "--stages=2,4: expected fewer candidates in each stage"),
        ({"stages": ["4", "2"], "epochs": 1}, "--epochs=1: expected one at least for each of the 2 --stages"),
        ({"stages": ["4", "2"], "stage_layers": ["3"]}, "--stage_layers=3: expected as many numbers as --stages, 2"),
        ({"stage_dropout": ["0.5"]}, "--stage_dropout=0.5 without --stages: expected both"),
        ({"stages": ["4", "2"], "stage_dropout": ["0", "1"]}, "--stage_dropout=0,1: expected numbers below 1"),
        ({"warmup_epochs": 2}, "--warmup_epochs=2: expected fewer than the 2 of a stage"),
        ({"early_stop": "curvature"}, "--early_stop=curvature without --curvature_every: expected both"),
        ({"temperature": 5.0}, "--temperature=5.0: --relaxation=softmax has no such number; expected another"),
        (
            {"relaxation": "gumbel_soft", "temperature": 5.0, "temperature_schedule": "constant"},
            "--temperature=5.0: --temperature_schedule=constant has no such number",
        ),
        ({"penalty_weight": 5.0}, "--penalty_weight=5.0: --penalty=None has no such number; expected another"),
        ({"max_skips": 1}, "--max_skips=1: --selection=strongest has no such number; expected another --selection"),
        ({"selection": "perturbation", "early_stop": "skips"}, "--selection=perturbation with --early_stop=skips"),
        (
            {"relaxation": "gumbel_hard", "curvature_every": 1},
            "--curvature_every=1 with --relaxation=gumbel_hard: expected a relaxation whose weights are smooth",
        ),
        (
            {"selection": "perturbation", "relaxation": "gumbel_hard"},
            "--relaxation=gumbel_hard with --selection=perturbation: expected one that mixes all candidates",
        ),
        ({"cutout": True}, "--cutout_length=16: the images have 8x8 pixels; expected less, such as 4"),
        ({"penalty": "decay"}, "--penalty=decay: expected one of beta_decay, zero_one"),
        ({"perturbation": "some"}, "--perturbation=some: expected one of random, adversarial"),
        ({"selection": "best"}, "--selection=best: expected one of"),
        ({"relaxation": "hardmax"}, "--relaxation=hardmax: expected one of"),
        ({"method": "best"}, "--method=best: expected one of"),
    ],
)
def test_parts_that_do_not_go_together_leave_nothing_behind(values, message, tmp_path):
    with pytest.raises(UsageError) as refused:
        search(tmp_path / "run", **values)
    assert message in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flags", [{"penalty": "beta_decay"}, {"stages": ["5", "2"]}, {"prune_below": 0.1}])
def test_what_is_for_alphas_that_are_trained(flags):
    config = SearchConfig(method="spos", **flags).begun().completed(recipes.SEARCH_DIGITS)
    with pytest.raises(UsageError, match=r"--relaxation=uniform: expected none; alpha is not trained"):
        phases.check(config, spaces.of({"space": "chain"}))


@pytest.mark.parametrize("early_stop", ["ranking", "skips"])
def test_a_search_does_not_end_while_alpha_stands_still(early_stop):
    """Neither in the warm-up nor in that of a later stage."""
    space, rows = spaces.of(TINY), [{"epoch": epoch} for epoch in range(1, 25)]
    one = {name: np.ones(table.mask.shape) for name, table in space.choices.items()}
    one = {name: values * np.arange(values.shape[1]) for name, values in one.items()}
    history = [(one, {})] * 25
    for warmup, stages, first in ((0, None, 10), (8, None, 18), (8, ["3", "2"], 20)):
        config = SearchConfig(epochs=24, warmup_epochs=warmup, early_stop=early_stop, stages=stages, **TINY)
        stop = phases.stop_of(config.begun().completed(recipes.SEARCH_DIGITS), space, rows, history)
        assert not stop or stop.epoch >= warmup
        if early_stop == "ranking":
            assert (stop and stop.epoch) == first


def chain(candidates):
    space = DescribedChain(Description((Stage(4, ("mb2_k3", "mb3_k5", "identity"), 1),), 4, 1, 8).to_json())
    return space.supernet(IMAGES, candidates=candidates and candidates(space)), (None, 8, 8, 1)


def dense(candidates):
    sizes = {"channels": [4, 4, 6], "layers": [0, 1, 0], "stages": [0, 1, 2], "strides": [1, 2, 1], "reach": [2, 2, 1]}
    space = DenseNAS(json.dumps({**sizes, "heads": ["mb3_k3", "mb1_k5"], "stack": ["mb3_k3", "identity"]}))
    return space.supernet(IMAGES, candidates=candidates and candidates(space)), (None, 8, 8, 1)


def recurrent(candidates):
    space = RecurrentSpace(2)
    own = {"vocabulary": 7, "units": 4, "batch_size": 2, "candidates": candidates and candidates(space)}
    return RecurrentSearchNetwork(space=space, **own), None


@pytest.mark.parametrize("make", [chain, dense, recurrent])
def test_supernets_of_other_spaces_go_on_with_their_weights_too(make):
    """All of what both have, when one candidate leaves."""

    def fewer(space):
        left = {name: table.mask.copy() for name, table in space.choices.items()}
        row = next(row for rows in left.values() for row in rows if row.sum() > 1)
        row[np.flatnonzero(row)[-1]] = False
        return left

    networks = []
    for candidates in (None, fewer):
        network, shape = make(candidates)
        network.build(shape)
        networks.append(network)
    before, after = (dict(network.parts()) for network in networks)
    assert set(after) <= set(before)
    for key, (layer, _) in after.items():
        assert [one.shape for one in layer.variables] == [one.shape for one in before[key][0].variables]
    covered = {id(variable) for layer, _ in after.values() for variable in layer.variables}
    alphas = {id(variable) for variable in networks[1].alphas.values()}
    missing = [one.path for one in networks[1].trainable_variables if id(one) not in covered | alphas]
    assert not missing


def test_what_the_next_stage_takes_over(monkeypatch):
    """The network that is left computes what the whole one computes without the candidates that are gone."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(4, 8, 8, 1)).astype(np.float32), np.arange(4) % 3
    name = "layer_of_each_edge"
    monkeypatch.setattr(operations, "_REGISTRY", dict(operations._REGISTRY))
    register_operation(name)(lambda stride, affine, channels: keras.layers.Conv2D(channels, 3, stride, "same"))
    primitives = ["skip_connect", "sep_conv_3x3", name]
    left = {kind: np.array([[True, False, True], [True, True, False]]) for kind in ("normal", "reduce")}

    def made(candidates=None, partial_channels=1):
        primitives_here = primitives if partial_channels == 1 else primitives[:2]
        network = SearchNetwork(4, 3, 3, 1, primitives_here, candidates=candidates, partial_channels=partial_channels)
        search = DARTS(network)
        search.compile(SGD(), keras.losses.SparseCategoricalCrossentropy(from_logits=True), arch_optimizer=Adam())
        search.create_variables(x, y)
        return search

    before, after = made(), made(left)
    before.fit(x, y, batch_size=2, verbose=0)
    inheritance.inherit(after, before)
    mixture = {kind: tf.where(left[kind], rows, 0) for kind, rows in after.network.mixture().items()}
    np.testing.assert_allclose(after.network(x), before.network(x, mixture=mixture), atol=1e-6)
    assert int(after.optimizer.iterations) == int(before.optimizer.iterations) == 1
    for ours, theirs in zip(after.arch_optimizer.variables, before.arch_optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    momentum = [
        search.optimizer.momentums[place_of(search.network.classifier.kernel, search.optimizer)]
        for search in (after, before)
    ]
    np.testing.assert_array_equal(*momentum)
    assert np.abs(momentum[0]).max() > 0
    narrow, wide = made(partial_channels=4), made(partial_channels=2)
    inheritance.inherit(wide, narrow)
    kernels = [
        dict(search.network.parts())[0, 0, 1][0].flat_variables[1].numpy() for search in (narrow, wide)
    ]  # pointwise, (1, 1, inputs, edges * outputs): each channel twice, read by halves
    np.testing.assert_allclose(kernels[1], np.full([1, 1, 2, 2], kernels[0] / 2))
