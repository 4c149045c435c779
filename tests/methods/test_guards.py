import numpy as np
import pytest

from darts_tf.methods import guards
from darts_tf.spaces.base import every_row

CHOICES = {
    "normal": every_row("Normal", ["a", "b", "c"], ["none", "skip_connect", "x", "y"]),
    "reduce": every_row("Reduce", ["a", "b", "c"], ["none", "skip_connect", "x", "y"]),
}


def test_growing_curvature_stops():
    epochs = list(range(0, 20, 2))
    values = [1.0] * 4 + [1.2, 1.6, 2.0, 3.0, 4.0, 5.0]
    stop = guards.sharpness(epochs, values, 50, window=3, start=2, delta=2)
    assert stop == guards.Stop(epoch=6, noticed=12)
    assert guards.sharpness(epochs[:6], values[:6], 50, window=3, start=2, delta=2) is None
    assert guards.sharpness(epochs, [1.0] * 10, 50, window=3, start=2, delta=2) is None
    assert guards.sharpness([], [], 50) is None
    with pytest.raises(ValueError, match="delta=0: expected at least 1"):
        guards.sharpness(epochs, values, 50, delta=0)


def test_skips_in_the_normal_cell_stop():
    one, two = [(0, 1), (1, 2), (2, 2)], [(0, 1), (1, 1), (2, 2)]
    picks = [{"normal": normal, "reduce": two} for normal in (one, two, one, two)]
    assert guards.many_skips(range(4), picks, CHOICES) == guards.Stop(1, 1)
    assert guards.many_skips(range(4), picks, CHOICES, start=2) == guards.Stop(3, 3)
    assert guards.many_skips(range(4), picks, CHOICES, least=3) is None


def test_a_stable_ranking_stops():
    def tables(x, y, skip):
        row = [[0.1, skip, x, y]] * 3
        return {"normal": np.array(row), "reduce": np.array(row)}

    changing = [tables(0.3, 0.4, 0.9), tables(0.4, 0.3, 0.9)]
    still = [tables(0.4, 0.3, 0.5 * place) for place in range(4)]  # the skip is not ranked
    assert guards.stable_ranking(range(6), changing + still, CHOICES, stable=3) == guards.Stop(4, 4)
    assert guards.stable_ranking(range(6), changing + still, CHOICES, stable=5) is None
    with pytest.raises(ValueError, match="stable=0: expected at least 1"):
        guards.stable_ranking([], [], CHOICES, stable=0)
