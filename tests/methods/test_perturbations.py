import keras
import numpy as np
import pytest
import tensorflow as tf

from darts_tf.methods import perturbations
from darts_tf.methods.darts import DARTS
from darts_tf.methods.optimizers import SGD
from darts_tf.spaces.cells.networks import SearchNetwork

SEED = tf.constant([1, 2])


@pytest.fixture
def point():
    """A mixture, which candidates there are, and a loss."""
    slope = tf.constant(np.random.default_rng(1).normal(size=(5, 4)), tf.float32)
    weights = tf.nn.softmax(tf.constant(np.random.default_rng(0).normal(size=(5, 4)), tf.float32))
    there = np.ones((5, 4), bool)
    there[2, 1] = False
    weights = tf.where(there, weights, 0)
    weights /= tf.reduce_sum(weights, -1, keepdims=True)
    return {"cell": weights}, {"cell": there}, lambda mixture: tf.reduce_sum(slope * mixture["cell"])


@pytest.mark.parametrize("name", perturbations.names())
def test_rows_stay_mixtures(name, point):
    mixture, candidates, loss = point
    perturbation = perturbations.get(name)
    result = tf.function(lambda size: perturbation(mixture, candidates, loss, size, SEED))(tf.constant(0.3))["cell"]
    np.testing.assert_allclose(tf.reduce_sum(result, -1), np.ones(5), 1e-6)
    assert result.numpy().min() >= 0 and result[2, 1] == 0
    assert np.abs(result - mixture["cell"]).max() > 0.05
    again = perturbation(mixture, candidates, loss, 0.3, SEED)["cell"]
    np.testing.assert_allclose(result, again, 1e-5)
    other = perturbation(mixture, candidates, loss, 0.3, SEED + 1)["cell"]
    assert name == "adversarial" or np.abs(other - again).max() > 0.05
    still = perturbation(mixture, candidates, loss, 0.0, SEED)["cell"]
    np.testing.assert_allclose(still, mixture["cell"], 1e-6)


def test_an_attack_raises_the_loss_or_changes_nothing(point):
    mixture, candidates, loss = point
    attacked = perturbations.get("adversarial")(mixture, candidates, loss, 0.1, SEED)
    assert loss(attacked) > loss(mixture)
    noise = perturbations.get("random")(mixture, candidates, loss, 0.1, SEED)
    assert loss(attacked) > loss(noise)

    def highest_here(other):
        return -tf.reduce_sum(tf.abs(other["cell"] - mixture["cell"]))

    same = perturbations.get("adversarial")(mixture, candidates, highest_here, 0.1, SEED)
    assert np.array_equal(same["cell"], mixture["cell"])


def test_a_row_without_weight_keeps_its_largest():
    mixture = {"cell": tf.constant([[-0.5, -0.1, -0.2], [2.0, 1.0, 0.0]])}
    result = perturbations.projected(mixture, {"cell": np.ones((2, 3), bool)})["cell"]
    np.testing.assert_allclose(result, [[0, 1, 0], [0.5, 0.5, 0]])


def test_step_of_the_weights_sees_it():
    """The weights move otherwise, alpha and the moving statistics' number of updates do not."""
    found = {}
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)
    batch = x, np.array([0, 1, 2, 1])
    for name in (None, "random", "adversarial"):
        keras.utils.set_random_seed(0)
        search = DARTS(SearchNetwork(2, 3, 3, 1, ("skip_connect", "sep_conv_3x3")), perturbation=name)
        search.compile(SGD(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        search.train_on_batch(batch, batch)
        found[name] = [np.concatenate([np.ravel(v) for v in kind]) for kind in search.values()]
    plain = found.pop(None)
    for weights, alphas in found.values():
        assert np.array_equal(alphas, plain[1])
        assert 1e-6 < np.abs(weights - plain[0]).max() < 1


@pytest.mark.parametrize(
    "relaxation, expected", [("gumbel_hard", "mixes all candidates"), ("sigmoid", "whose weights sum to one")]
)
def test_relaxations_that_cannot_be_perturbed(relaxation, expected):
    with pytest.raises(ValueError, match=f"perturbation=random with relaxation={relaxation}: .*{expected}"):
        DARTS(SearchNetwork(2, 3, 3, 1, relaxation=relaxation), perturbation="random")
