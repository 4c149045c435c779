import numpy as np
import pytest

from darts_tf.costs.tables import Table
from darts_tf.methods import selections
from darts_tf.spaces.base import Choices, every_row, read
from darts_tf.spaces.cells.derived import cifar_network
from darts_tf.spaces.cells.space import CellSpace

SPACE = CellSpace(1, ("none", "skip_connect", "sep_conv_3x3"))


def decided(rows, selection):
    genotype = SPACE.decide({"normal": np.array(rows), "reduce": np.array(rows)}, selection)
    assert read(str(genotype)) == genotype
    return genotype


def test_parameters_are_checked():
    assert selections.get("max_skips", max_skips=3).max_skips == 3
    with pytest.raises(ValueError, match=r"max_skips with selection=strongest: expected one of \[\]"):
        selections.get("strongest", max_skips=3)


def test_only_candidates_that_a_row_has_win():
    table = every_row("Cell", ["a", "b"], ["x", "y"])._replace(allowed=((True, False), (False, True)))
    for name in selections.names():
        picks = selections.get(name)(np.array([[0.9, 0.95], [0.95, 0.9]]), table)
        assert picks == [(0, 0), (1, 1)], name


def test_a_node_may_keep_fewer_edges_than_two():
    genotype = decided([[0.99, 0.2, 0.3], [0.99, 0.9, 0.3]], "threshold")
    assert genotype.normal == [("skip_connect", 1), ("none", 0)]
    assert SPACE.picks(genotype)["normal"] == [(1, 1)]
    picture, _ = SPACE.pictures(genotype)
    assert picture.edges(genotype, np.full((2, 3), 0.5))
    genotype = decided(np.zeros((2, 3)), "threshold")
    assert genotype.normal == [("none", 0), ("none", 1)]


def test_a_node_may_keep_more_edges_than_two():
    genotype = decided([[0.99, 0.9, 0.95], [0.99, 0.9, 0.3]], "threshold_edges")
    assert genotype.normal == [("skip_connect", 0, 2), ("sep_conv_3x3", 0, 2), ("skip_connect", 1, 2)]
    network = cifar_network(genotype, 2, 3, 3, (8, 8, 3))
    assert network(np.zeros((1, 8, 8, 3), np.float32)).shape == (1, 3)


def test_both_operations_of_a_node_on_one_edge():
    genotype = decided([[0.1, 0.2, 0.3], [0.1, 0.8, 0.9]], "strongest_pairs")
    assert genotype.normal == [("sep_conv_3x3", 1), ("skip_connect", 1)]
    assert SPACE.picks(genotype)["normal"] == [(1, 2), (1, 1)]


def test_skips_are_limited_in_the_normal_cell():
    rows = [[0.1, 0.6, 0.3], [0.1, 0.5, 0.4]]
    for limit, normal in ((2, [1, 1]), (1, [1, 2]), (0, [2, 2])):
        genotype = decided(rows, selections.get("max_skips", max_skips=limit))
        names = [SPACE.primitives[place] for place in normal]
        assert genotype.normal == [(names[0], 0), (names[1], 1)]
        assert genotype.reduce == [("skip_connect", 0), ("skip_connect", 1)]


def test_a_skip_stays_where_there_is_nothing_else():
    table = Choices("Cell", ("a",), ("skip_connect", "x"), (((0,), 1),), allowed=((True, False),))
    assert selections.get("max_skips", max_skips=0)(np.array([[1.0, 0.0]]), table) == [(0, 0)]


def test_decisions_within_bounds():
    """What each selection keeps to holds within bounds on costs, too; other picks pay for it."""
    choices = SPACE.choices
    strengths = {name: np.array([[0.1, 0.9, 0.87], [0.1, 0.5, 0.4]]) for name in choices}
    dear = {(name,): np.array([[0.0, 1.0, 5.0], [0.0, 1.0, 3.0]]) for name in choices}
    table = Table("parameters", 0.0, dear)

    def within(name, most, **options):
        found = selections.get(name, **options).within(SPACE, strengths, [table], [most])
        assert SPACE.cost_of(table, SPACE.picks(found)) <= most
        return [SPACE.picks(found)[cell] for cell in choices]

    skips = [(0, 1), (1, 1)]
    assert within("strongest", 4) == [skips, skips]
    assert within("max_skips", 6, max_skips=1) == [[(0, 1), (1, 2)], skips]
    assert within("max_skips", 10, max_skips=0) == [[(0, 2), (1, 2)], skips]
    with pytest.raises(ValueError, match="nothing is within the bound"):
        within("strongest", 3)
    assert within("max_skips", 4, max_skips=0) == [skips, skips]  # or nothing would be left
    assert within("threshold", 2, threshold=0.6) == [[(0, 1)], [(0, 1)]]  # what is left out costs nothing
    assert within("threshold_edges", 11, threshold=0.6) == [[(0, 2), (0, 1)], [(0, 1)]]
