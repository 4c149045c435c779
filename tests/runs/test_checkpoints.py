"""Checkpoints of a search."""

import keras
import numpy as np
import tensorflow as tf

from darts_tf import DARTS, SearchNetwork
from darts_tf.runs.checkpoints import Checkpoints


def searched():
    search = DARTS(SearchNetwork(2, 3, 3, nodes=1, primitives=["skip_connect", "max_pool_3x3"]))
    search.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    search.create_variables(np.zeros([4, 8, 8, 1]), np.zeros(4, int))
    return search


def test_files_of_before_alphas_loss_was_logged(tmp_path):
    search, other = searched(), searched()
    checkpoints = Checkpoints(tmp_path, steps=2)
    checkpoints.set_model(search)
    checkpoints.done = 1
    search.arch_optimizer.variables[-1].assign_add(search.arch_optimizer.variables[-1] + 1)
    checkpoints.save()
    (file,) = (tmp_path / "checkpoints").glob("*.npz")
    with np.load(file) as arrays:
        kept = dict(arrays)
    assert [kept.pop(f"arr_{len(kept) - 2}") for _ in range(2)] == [0, 0]  # sum and number
    np.savez(file, **kept)
    again = Checkpoints(tmp_path, steps=2)
    assert again.restore(lambda done: other, tf.distribute.get_strategy(), warn=None) is other
    assert again.done == 1
    for ours, theirs in zip(other.network.variables, search.network.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(other.arch_optimizer.variables, search.arch_optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
