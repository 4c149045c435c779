import itertools

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from darts_tf import spaces
from darts_tf.costs import counts, tables
from darts_tf.data.tasks import ImageClassification
from darts_tf.devices import tflite
from darts_tf.methods import selections
from darts_tf.methods.one_shot import one_hot
from darts_tf.runs import callbacks, rundirectory
from darts_tf.spaces.cells import costs
from darts_tf.spaces.cells.derived import cifar_network
from darts_tf.spaces.cells.genotypes import PUBLISHED, Genotype


@pytest.mark.parametrize("shape", [(32, 32, 3), (13, 10, 1)])
def test_sizes_of_networks_that_are_not_built(shape):
    sizes = costs.CellCosts(spaces.of({}), 6, 4, 7, shape)
    for genotype in (PUBLISHED["DARTS_V1"], PUBLISHED["AmoebaNet"], PUBLISHED["NASNet"]):
        model = cifar_network(genotype, 6, 4, 7, shape)
        found = sizes(genotype)
        assert found == {"parameters": counts.parameters(model), "multiply_adds": counts.multiply_adds(model)}


def test_sizes_that_are_not_known_go_through_the_history(monkeypatch, tmp_path):
    monkeypatch.setattr(counts, "multiply_adds", lambda model: None)
    sizes = costs.CellCosts(spaces.of({}), 2, 1, 3, (8, 8, 1))(Genotype([("none", 0)] * 2, [2], [("none", 0)] * 2, [2]))
    assert sizes["multiply_adds"] is None and sizes["parameters"] > 0
    history = callbacks.History(tmp_path)
    history.more = lambda epoch: sizes
    history.on_epoch_begin(0)
    history.on_epoch_end(0, {"loss": 1.0})
    history = callbacks.History(tmp_path, epochs=1)
    history.more = lambda epoch: sizes
    history.on_epoch_begin(1)
    history.on_epoch_end(1, {"loss": 2.0})
    rows = rundirectory.history(tmp_path)
    assert [(row["multiply_adds"], row["loss"]) for row in rows] == [(None, 1.0), (None, 2.0)]


SMALL = {
    "darts": ({}, {"init_channels": 4, "layers": 3}),
    "s1": ({}, {"init_channels": 4, "layers": 3}),
    "imagenet": ({"space": "s2"}, {"init_channels": 4, "layers": 3, "network": "imagenet"}),
    "nas-bench-201": ({}, {"init_channels": 4, "layers": 1}),
    "chain": ({"pixels": 8, "widths": ("0.5", "1"), "primitives": ("identity", "mb2_k3_se", "mb1_k5")}, {}),
    "fbnet": ({}, {"init_channels": 8}),
    "spos": ({}, {"init_channels": 8}),
    "mlp": ({"layers": 3, "units": 24, "widths": ("0.3", "0.5", "1"), "primitives": ("relu", "tanh")}, {}),
    "densenas": (
        {
            "graph": '{"channels": [4, 6, 6, 8, 16], "layers": [0, 1, 2, 2, 0], "stages": [0, 1, 1, 2, 3], "strides": '
            '[1, 2, 2, 1], "reach": [2, 2, 2, 2], "heads": ["mb1_k5", "mb3_k3"], "stack": ["mb3_k3", "identity"]}'
        },
        {},
    ),
}


@pytest.fixture(params=list(SMALL), scope="module")
def case(request):
    """A space, a task, sizes of its networks, and some of its architectures."""
    fields, sizes = SMALL[request.param]
    task = ImageClassification((64, 65, 3) if request.param in ("fbnet", "spos", "imagenet") else (9, 10, 3), 5)
    space, random = spaces.of({"space": request.param, **fields}), np.random.default_rng(0)

    def drawn():
        strengths = {name: random.random(table.mask.shape) * table.mask for name, table in space.choices.items()}
        return strengths, space.decide(strengths)

    return space, task, sizes, drawn


def test_tables_are_the_costs_of_built_networks(case):
    space, task, sizes, drawn = case
    costs = space.costs(task, **sizes)
    found = {cost: costs.table(cost) for cost in (*tables.ADDED, tables.PEAK)}
    for _ in range(2):
        _, architecture = drawn()
        model, picks = space.network(architecture, task, **sizes), space.picks(architecture)
        expected = {**counts.added(model), tables.PEAK: counts.activations(model)}
        for cost, table in found.items():
            value = space.cost_of(table, picks)
            assert value == costs.of(architecture, cost)
            again = tables.Table.from_config(table.to_config())
            assert space.cost_of(again, picks) == value
            assert space.cheapest(table) <= value
            if cost == tables.PEAK:  # of cells it depends on the order in which edges are computed
                chains = space.has_paths
                assert expected[cost] * (1 if chains else 0.6) <= value <= expected[cost] * (1 if chains else 2), cost
            elif cost in ("parameters", "multiply_adds"):
                assert value == expected[cost], cost
            else:
                assert value == pytest.approx(expected[cost], rel=0.02), cost


def test_equal_results_are_computed_once():
    task = ImageClassification((9, 10, 3), 5)
    pools = [("max_pool_3x3", 0), ("max_pool_3x3", 1)]
    genotype = Genotype([pools[0], ("skip_connect", 1), pools[0], ("sep_conv_3x3", 0)], [2, 3], pools * 2, [2, 3])
    for space, text, fewer in (
        ("darts", str(genotype), 1 + 2 * 2),  # of a normal cell and of two reductions
        ("nas-bench-201", "|skip_connect~0|+|avg_pool_3x3~0|avg_pool_3x3~1|+|none~0|avg_pool_3x3~1|none~2|", 6),
        ("nas-bench-201", "|nor_conv_1x1~0|+|avg_pool_3x3~0|avg_pool_3x3~1|+|nor_conv_1x1~0|none~1|none~2|", 0),
    ):
        architecture = spaces.read(text, space)
        built, sizes = architecture.space, {"init_channels": 2, "layers": 1 if "201" in space else 3}
        costs = built.costs(task, **sizes)
        parts, computed = (
            [str(part) for part in made(architecture) if "pool" in str(part)]
            for made in (costs.parts_of, costs.computed)
        )
        assert len(parts) - len(computed) == fewer and set(computed) == set(parts)
        file = tflite.of_model(built.network(architecture, task, **sizes))
        operations = [one["op_name"] for one in Interpreter(model_content=file)._get_ops_details()]
        residual = 2 if "201" in space else 0  # blocks, which halve images by a pooling, too
        assert sum("POOL" in name for name in operations) == len(computed) + residual


def test_what_is_expected_of_a_decided_mixture(case):
    space, task, sizes, drawn = case
    table = space.costs(task, **sizes).table("multiply_adds")
    _, architecture = drawn()
    picks = space.picks(architecture)
    mixture = {name: tf.Variable(weights) for name, weights in one_hot(space.choices, picks).items()}
    with tf.GradientTape() as tape:
        value = space.expected(table, mixture)
    assert float(value) == pytest.approx(space.cost_of(table, picks), rel=1e-5)
    for names, rows in table.rows.items():  # another candidate costs as much more as the table says
        gradient = np.array(tape.gradient(value, mixture[names[0]])) if len(table.rows) == 1 else None
        for row, _ in picks[names[0]] if gradient is not None else ():
            if all(keep == len(own) for own, keep in space.choices[names[0]].groups) and rows.ndim == 2:
                np.testing.assert_allclose(gradient[row], rows[row], rtol=1e-5)


def test_the_strongest_within_bounds(case):
    """Of all that was drawn nothing within the bounds is stronger."""
    space, task, sizes, drawn = case
    costs = space.costs(task, **sizes)
    found = [costs.table(cost) for cost in ("multiply_adds", "parameters")]
    strengths, strongest = drawn()
    values = [[space.cost_of(table, space.picks(drawn()[1])) for table in found] for _ in range(40)]
    likelihood = {name: np.log(np.maximum(rows, 1e-30)) for name, rows in strengths.items()}

    def worth(architecture):
        return sum(likelihood[name][pick] for name, picks in space.picks(architecture).items() for pick in picks)

    for count, part in itertools.product((1, 2), (0.2, 0.6)):
        most = list(np.quantile(values, part, axis=0))[:count]
        best = space.within(strengths, found[:count], most)
        assert all(space.cost_of(t, space.picks(best)) <= one for t, one in zip(found[:count], most, strict=True))
        for _ in range(40):
            _, other = drawn()
            fits = all(space.cost_of(t, space.picks(other)) <= one for t, one in zip(found[:count], most, strict=True))
            if fits and space.name not in ("densenas", "mlp"):  # where what is not there counts in `worth`
                assert worth(best) >= worth(other) - 1e-6
    whole = [10 * space.cost_of(found[0], space.picks(strongest))]
    assert space.within(strengths, found[:1], whole) == strongest
    with pytest.raises(ValueError, match="nothing is within the bound"):
        space.within(strengths, found[:1], [space.cheapest(found[0]) - 1])


def test_two_operations_of_a_node_on_one_edge_both_cost():
    """As those of NASNet have it, and `threshold_edges` decides."""
    space, task, sizes = spaces.of({"space": "darts"}), ImageClassification((9, 10, 3), 5), SMALL["darts"][1]
    strengths = {name: np.full(table.mask.shape, 0.5) for name, table in space.choices.items()}
    architecture = space.decide(strengths, selections.get("threshold_edges", threshold=0.4))
    costs = space.costs(task, **sizes)
    assert (
        costs.of(architecture, "parameters") == counts.added(space.network(architecture, task, **sizes))["parameters"]
    )
