"""The spaces that come with the package, and those that a file describes."""

import json

import keras_tuner
import numpy as np
import pytest
import tensorflow as tf

from darts_tf import spaces
from darts_tf.cli.messages import UsageError
from darts_tf.data.tasks import ImageClassification
from darts_tf.reports import drawing
from darts_tf.runs import starting
from darts_tf.runs.configurations import SearchConfig
from darts_tf.spaces import MLP, S1, S2, S4, NasBench201, RecurrentSpace
from darts_tf.spaces.cells.described import DescribedCells
from darts_tf.spaces.contracts import TASK, check_space
from darts_tf.tuner.space import genotype_of, hyperparameters_of

SKIP_OR_CONV = ["skip_connect", "sep_conv_3x3"]
DESCRIPTION = {
    "keep": 1,
    "normal": {
        "0": {"c(k-1)": ["sep_conv_3x3", "max_pool_3x3"], "c(k-2)": SKIP_OR_CONV},
        "1": {"0": ["none", "sep_conv_3x3", "avg_pool_3x3"], "c(k-1)": SKIP_OR_CONV},
    },
    "reduce": {"0": {"c(k-1)": ["sep_conv_3x3"]}, "1": {"c(k-1)": SKIP_OR_CONV, "0": ["noise", "skip_connect"]}},
}
CELL = "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_3x3~2|"


def described(**changes):
    return DescribedCells(json.dumps(DESCRIPTION | changes))


@pytest.mark.parametrize(
    "space",
    [
        S1(2),
        S4(1),
        described(),
        described(keep=3),
        NasBench201(),
        NasBench201(2, ("skip_connect", "sep_conv_3x3")),
        MLP(3, 12),
        MLP(2, 5, ("identity", "selu"), (1,), batch_norm=False),
        RecurrentSpace(3),
        RecurrentSpace(2, ("gelu", "none", "tanh")),
    ],
    ids=lambda space: space.name,
)
def test_the_contract(space):
    check_space(space, draws=3)


@pytest.mark.parametrize(
    "space", [S1(), S2(2), described(), described(keep=2), NasBench201(), RecurrentSpace(), MLP()], ids=str
)
def test_genotypes_and_hyperparameters_are_inverse(space):
    random = np.random.default_rng(0)
    for _ in range(20):
        strengths = {name: random.random(table.mask.shape) for name, table in space.choices.items()}
        found = space.decide(strengths)
        for name, picks in space.picks(found).items():
            for row, candidate in picks:
                assert space.choices[name].candidates[candidate] in space.choices[name].names(row)
        hp = hyperparameters_of(found, space=space)
        again = keras_tuner.HyperParameters.from_config(hp.get_config())
        assert space.declare(again) == genotype_of(again, space)
        for name, picks in space.picks(genotype_of(again, space)).items():
            assert sorted(picks) == sorted(space.picks(found)[name])
        assert hyperparameters_of(genotype_of(hp, space), space=space).values == hp.values


def test_what_has_no_place_in_s1_has_no_values():
    found = S1(1).decide({kind: np.zeros((2, len(S1(1).primitives))) for kind in ("normal", "reduce")})
    for change, message in (
        ({"normal": [("max_pool_3x3", 0), ("skip_connect", 1)]}, "max_pool_3x3' on c.k-2. → 0: expected one of skip"),
        ({"normal": [("sep_conv_3x3", 0), ("skip_connect", 1)]}, "names the operation 'sep_conv_3x3'"),
        ({"normal": [("skip_connect", 0), ("skip_connect", 0)]}, "feeds node 0 from c.k-2. twice"),
        ({"normal": [("skip_connect", 0, 2)]}, "1 edges into node 0: expected two"),
    ):
        with pytest.raises(ValueError, match=message):
            S1(1).values(found._replace(**change))


def test_edges_that_are_missing_are_nowhere():
    space = described()
    table = space.choices["reduce"]
    assert table.rows == ("c(k-1) → 0", "c(k-1) → 1", "0 → 1") and table.groups == (((0,), 1), ((1, 2), 1))
    assert table.names(2) == ["skip_connect", "noise"] and "none" in space.choices["normal"].never
    strengths = np.zeros((3, 6))
    strengths[2, space.primitives.index("skip_connect")] = 1
    found = space.decide({"normal": np.eye(4, 6), "reduce": strengths})
    assert found.reduce == [("sep_conv_3x3", 1, 2), ("skip_connect", 2, 3)]
    assert spaces.from_text(str(found)) == spaces.from_json(found.to_json()) == found
    assert drawing.png(found).startswith(b"\x89PNG") and "sep_conv_3x3" in drawing.svg(found)
    sizes = {"init_channels": 4, "layers": 3}
    network = space.network(found, TASK, **sizes)
    from darts_tf.costs import counts

    assert space.costs(TASK, **sizes)(found) == counts.of(network)


def test_noise_is_drawn_anew_in_training_only():
    network = S4(1).supernet(ImageClassification((8, 8, 1), 3), init_channels=2, layers=3)
    network.build((None, 8, 8, 1))
    assert network.has_noise
    x, seeds = tf.ones([2, 8, 8, 1]), [tf.constant(seed) for seed in ([1, 2], [1, 2], [1, 3])]
    first, again, other = (network(x, training=True, draw=seed).numpy() for seed in seeds)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(network(x, draw=seeds[0]), network(x))
    mixed_op = network.cells[0].mixed_ops[0]
    weights = tf.constant([[1.0, 0.0]])
    noise = mixed_op(tf.zeros([50, 8, 8, 2]), weights, training=True, noise=seeds[0]).numpy()
    assert abs(noise.mean()) < 0.05 and abs(noise.std() - 1) < 0.05
    with tf.GradientTape() as tape:
        weights = tf.constant([[0.0, 1.0]])
        tape.watch(weights)
        y = mixed_op(tf.ones([5, 8, 8, 2]), weights, training=True, noise=seeds[0], drawn=True)
    assert tape.gradient(y, weights)[0, 0] == 0
    assert not S1(1).supernet(TASK, init_channels=2, layers=3).has_noise


def test_a_network_with_noise_has_none_of_it_in_use():
    pairs = [("noise", 0), ("noise", 1)]
    network = S4(1).network(
        spaces.read(f"Genotype(normal={pairs}, normal_concat=[2], reduce={pairs}, reduce_concat=[2])"), TASK
    )
    x = tf.ones([2, 8, 8, 1])
    assert (network(x, training=True) != network(x, training=True)).numpy().any()
    np.testing.assert_array_equal(network(x), network(2 * x))


def test_files_of_descriptions(tmp_path):
    (tmp_path / "cells.json").write_text(json.dumps(DESCRIPTION))
    (tmp_path / "cells.py").write_text(f"space = dict({DESCRIPTION!r}, keep=2)\n")
    for name, expected in (("cells.json", described()), ("cells.py", described(keep=2))):
        space, config = starting.search_space(SearchConfig(space=str(tmp_path / name)))
        assert space == expected and spaces.of({"space": config.space}) == space
        (tmp_path / name).unlink()
        assert starting.search_space(config)[0] == space


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "not JSON"),
        ("[]", "expected an object with normal"),
        ('{"reduce": {}}', "expected an object with normal"),
        ('{"normal": {}}', "normal: expected an object with nodes 0, 1, ..."),
        ('{"normal": {"1": {}}}', "normal has a node '1': expected nodes 0 to 0"),
        ('{"normal": {"0": {}}}', "normal, node 0: expected an object with the edges that reach it"),
        ('{"normal": {"0": {"1": ["none"]}}}', "normal, node 0: no edge from '1'; expected c(k-2), c(k-1)"),
        ('{"normal": {"0": {"c(k-1)": "none"}}}', "c(k-1) → 0: expected a list of names of operations"),
        ('{"normal": {"0": {"c(k-1)": ["none"]}}}', "expected at least one operation other than none"),
        ('{"normal": {"0": {"c(k-1)": ["a", "a"]}}}', "an operation is there twice"),
        ('{"normal": {"0": {"c(k-1)": ["conv_9x9"]}}}', "no operation 'conv_9x9'; expected some of none, max_pool_3x3"),
        ('{"normal": {"0": {"c(k-1)": ["skip_connect"]}}, "keep": 0}', "keep is 0: expected how many edges"),
        ('{"normal": {"0": {"c(k-1)": ["skip_connect"]}}, "kept": 1}', "'kept': expected normal, reduce and keep"),
        ('{"normal": {"0": {"c(k-1)": ["skip_connect"]}}, "reduce": {}}', "reduce: expected an object with nodes"),
        (json.dumps(DESCRIPTION | {"reduce": {"0": {"c(k-1)": ["noise"]}}}), "normal has 2 nodes, reduce 1"),
    ],
)
def test_descriptions_of_nothing_are_refused(text, message, tmp_path):
    file = tmp_path / "cells.json"
    file.write_text(text)
    with pytest.raises(UsageError) as error:
        starting.search_space(SearchConfig(space=str(file)))
    assert str(error.value).startswith(f"--space={file}: ") and message in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_describe_nothing(tmp_path):
    for name, content, message in (
        ("a.py", "spaces = 1", "it assigns no `space`; expected an object with normal"),
        ("b.py", "1 / 0", "ZeroDivisionError: division by zero"),
        ("c.py", "space = {1}", "TypeError: Object of type set is not JSON serializable"),
        ("d.json", None, "No such file or directory; expected a file that can be read"),
    ):
        if content:
            (tmp_path / name).write_text(content)
        with pytest.raises(UsageError, match=message):
            starting.search_space(SearchConfig(space=str(tmp_path / name)))
    with pytest.raises(UsageError, match="--space=s9: expected one of darts, s1, s2, s3, s4, chain"):
        starting.search_space(SearchConfig(space="s9"))
    with pytest.raises(UsageError, match="--space=s1: nodes=5: expected 1 to 4 intermediate nodes"):
        starting.search_space(SearchConfig(space="s1", nodes=5))


def test_a_cell_of_the_benchmark():
    found = spaces.read(CELL)
    assert str(found) == CELL and found.space == NasBench201() and found == spaces.from_json(found.to_json())
    assert json.loads(found.to_json()) == {"space": "nas-bench-201", "architecture": CELL}
    assert found.is_connected and found.index == 3160
    assert not spaces.read("|none~0|+|none~0|skip_connect~1|").is_connected
    own = spaces.read("|sep_conv_3x3~0|")
    assert own.index is None and own.space == NasBench201(1, (*NasBench201().primitives, "sep_conv_3x3"))
    shapes = found.space.pictures(found)[0].edges(found)
    assert sorted(shape.text for shape in shapes if hasattr(shape, "text")) == sorted(found.names)
    assert drawing.png(found).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "text, message",
    [
        ("|", "node 1 is '|'; expected |OPERATION~0|"),
        ("|nor_conv_3x3~1|", "node 1 has 'nor_conv_3x3~1'; expected OPERATION~0"),
        ("|a~0|+|b~0|", "node 2 is '|b~0|'; expected |OPERATION~0|OPERATION~1|"),
        ("|a~0|+", "node 2 is ''; expected"),
        (CELL + "x", "node 3 is "),
        ("|~0|", "node 1 has '~0'"),
    ],
)
def test_texts_of_no_cell_are_refused(text, message, tmp_path):
    for read in (spaces.read, spaces.from_text):
        with pytest.raises(ValueError) as error:
            read(text)
        assert message in str(error.value) and str(error.value).startswith("Not a cell of nas-bench-201: ")
    (tmp_path / "genotype.json").write_text(json.dumps({"space": "nas-bench-201", "architecture": text}))
    with pytest.raises(ValueError, match="Not a"):
        spaces.read(str(tmp_path / "genotype.json"))
