import pytest

from darts_tf.costs import counts
from darts_tf.runs import callbacks, rundirectory
from darts_tf.spaces.cells import costs
from darts_tf.spaces.cells.genotypes import PUBLISHED, Genotype
from darts_tf.spaces.cells.networks import cifar_network


@pytest.mark.parametrize("shape", [(32, 32, 3), (13, 10, 1)])
def test_sizes_of_networks_that_are_not_built(shape):
    sizes = costs.CellCosts(6, 4, 7, shape)
    for genotype in (PUBLISHED["DARTS_V1"], PUBLISHED["AmoebaNet"], PUBLISHED["NASNet"]):
        model = cifar_network(genotype, 6, 4, 7, shape)
        found = sizes(genotype)
        assert found == {"parameters": counts.parameters(model), "multiply_adds": counts.multiply_adds(model)}


def test_sizes_that_are_not_known_go_through_the_history(monkeypatch, tmp_path):
    monkeypatch.setattr(costs, "multiply_adds", lambda model: None)
    sizes = costs.CellCosts(2, 1, 3, (8, 8, 1))(Genotype([("none", 0)] * 2, [2], [("none", 0)] * 2, [2]))
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
