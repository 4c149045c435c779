import numpy as np
import pytest

from darts_tf.methods import pruning
from darts_tf.spaces.base import Choices

CHOICES = {
    "cell": Choices("Cell", ("a", "b"), ("none", "skip", "conv", "pool"), (((0, 1), 1),), frozenset(["none"])),
}
ALL = {"cell": np.ones((2, 4), bool)}


def names(candidates):
    return [[CHOICES["cell"].candidates[place] for place in np.flatnonzero(row)] for row in candidates["cell"]]


def test_each_row_keeps_its_strongest():
    strengths = {"cell": np.array([[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]])}
    kept = pruning.narrowed(strengths, ALL, CHOICES, 2)
    assert names(kept) == [["none", "skip"], ["conv", "pool"]]
    assert names(pruning.narrowed(strengths, kept, CHOICES, 1)) == [["skip"], ["pool"]]
    assert names(pruning.narrowed(strengths, ALL, CHOICES, 3, never_first=True)) == [["skip", "conv", "pool"]] * 2
    assert names(pruning.narrowed(strengths, kept, CHOICES, 3)) == names(kept)


def test_nothing_cannot_stay():
    with pytest.raises(ValueError, match="keep=0: expected at least 1 candidate"):
        pruning.narrowed({"cell": np.ones((2, 4))}, ALL, CHOICES, 0)
    with pytest.raises(ValueError, match="least=2: expected a share"):
        pruning.pruned({"cell": np.ones((2, 4))}, ALL, CHOICES, 2)


def test_weak_candidates_leave():
    strengths = {"cell": np.array([[0.5, 0.1, 0.3, 0.1], [8.0, 1.0, 0.5, 0.5]])}
    assert names(pruning.pruned(strengths, ALL, CHOICES, 0.0)) == names(ALL)
    kept = pruning.pruned(strengths, ALL, CHOICES, 0.2)
    assert names(kept) == [["none", "conv"], ["none", "skip"]]  # the second of the last could be the architecture's
    assert names(pruning.pruned(strengths, kept, CHOICES, 1.0)) == names(kept)
    left = {"cell": np.array([[False, True, True, True], [True, False, True, True]])}
    assert names(pruning.pruned(strengths, left, CHOICES, 0.21)) == [["conv"], ["none", "conv"]]
