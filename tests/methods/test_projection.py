import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from darts_tf.costs.tables import Table
from darts_tf.methods.darts import DARTS
from darts_tf.methods.optimizers import SGD
from darts_tf.methods.projection import Evaluation, Projected, Projection, project
from darts_tf.runs.budget import Budget
from darts_tf.spaces.base import every_row
from darts_tf.spaces.cells.networks import SearchNetwork
from darts_tf.spaces.cells.space import CellSpace

SPACE = CellSpace(2, ("skip_connect", "sep_conv_3x3"))


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    return random.normal(size=(6, 8, 8, 1)).astype(np.float32), np.array([0, 1, 2, 0, 1, 2])


def made(data, network, **options):
    search = DARTS(network, **options)
    search.compile(SGD(0.1, 0.0, l2=0.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    search.create_variables(*data)
    return search


@pytest.fixture(scope="module")
def search(data):
    keras.utils.set_random_seed(0)
    return made(data, SearchNetwork(2, 3, 3, 2, SPACE.primitives))


def test_a_search_is_projected(data, search):
    alphas = [alpha.numpy() for alpha in search.network.arch_variables]
    batches = [tuple(map(tf.constant, (x, y))) for x, y in zip(*(np.split(part, 2) for part in data), strict=True)]
    seen, tuned = [], []
    projection = project(
        search,
        batches,
        tune=lambda projection: tuned.append(len(projection.decisions)),
        criterion="loss",
        progress=lambda projection, made: seen.append(made),
    )
    assert projection.done and len(seen) == projection.rounds == 5 + 1
    assert tuned == [2, 4, 6, 8, 10]
    assert [len(made) for made in seen] == [2] * 6
    genotype = SPACE.decide(projection.strengths())
    kept = {made["table"]: made["rows"] for made in projection.decisions if "group" in made}
    rows = {name: [row for row, _ in picks] for name, picks in SPACE.picks(genotype).items()}
    assert {name: [0, 1, *some] for name, some in kept.items()} == rows
    assert all(np.array_equal(a, b) for a, b in zip(alphas, search.network.arch_variables, strict=True))

    recorded = json.loads(json.dumps(projection.decisions[:6]))
    again = project(search, batches, criterion="loss", decisions=recorded)
    assert again.decisions == projection.decisions
    other = Projection(SPACE.choices, seed=1)
    assert [made["row"] for made in other.decide(lambda *_: 0)] != [made["row"] for made in seen[0]]


def test_the_worst_loss_of_a_candidate_and_the_least_of_a_row_stay():
    scores = {(0, 0): 3, (0, 1): 2, (1, 0): 2, (1, 1): 2, (2, 0): 1, (2, 1): 2, (3, 0): 5, (3, 1): 4}
    scores |= {(4, 0): 1, (4, 1): 2, (2, None): 1, (3, None): 3, (4, None): 3}
    projection = Projection(SPACE.choices)
    while not projection.done:
        projection.decide(lambda table, row, candidate: scores[row, candidate])
    for name in SPACE.choices:
        chosen = {made["row"]: made["candidate"] for made in projection.decisions if "row" in made}
        assert chosen == {0: 1, 1: 0, 2: 0, 3: 1, 4: 0}
        assert projection.decisions[-1]["rows"] == [2, 3]
        strengths = projection.strengths()[name]
        assert strengths.tolist() == [[0, 1], [1, 0], [1, 0], [0, 1], [0, 0]]


def test_only_candidates_that_are_there_are_asked_about():
    table = every_row("Cell", ["a", "b"], ["x", "y", "z"])
    asked = []

    def score(name, row, candidate):
        asked.append((row, candidate))
        return -candidate

    there = {"cell": np.array([[False, True, True], [False, True, False]])}
    projection = Projection({"cell": table}, there)
    while not projection.done:
        projection.decide(score)
    assert sorted(asked) == [(0, 1), (0, 2)]  # the other row has no choice
    assert projection.strengths()["cell"].tolist() == [[0, 0, 1], [0, 1, 0]]


def test_mixture_as_far_as_it_is_decided():
    projection = Projection({"cell": every_row("Cell", ["a", "b"], ["x", "y"])})
    projection.decisions = [{"table": "cell", "row": 0, "candidate": 1}]
    weights = {"cell": np.array([[0.7, 0.3], [0.6, 0.4]], np.float32)}
    assert projection.mixture(weights)["cell"].tolist() == np.float32([[0, 1], [0.6, 0.4]]).tolist()
    assert projection.mixture(weights, ("cell", 1, 0))["cell"].tolist() == np.float32([[0, 1], [0, 0.4]]).tolist()
    assert projection.mixture(weights, ("cell", 0, None))["cell"].tolist() == np.float32([[0, 0], [0.6, 0.4]]).tolist()


def test_weights_are_tuned_with_what_is_decided(data, search):
    """Only what has a weight in the mixture has a gradient."""
    projection = Projection(SPACE.choices)
    projected = Projected(projection)
    tuned = made(data, search.network, perturbation=projected)
    tuned.alpha_moves = False

    def moved():
        before = [variable.numpy() for variable in search.network.weight_variables]
        alphas = [alpha.numpy() for alpha in search.network.arch_variables]
        tuned.train_on_batch(data, data)
        assert all(np.array_equal(a, b) for a, b in zip(alphas, search.network.arch_variables, strict=True))
        after = search.network.weight_variables
        names = [v.path for v, b in zip(after, before, strict=True) if not np.array_equal(v, b)]
        return sum("sep_conv" in name for name in names)

    assert moved() > 0
    projection.decisions = [
        {"table": name, "row": row, "candidate": 0} for name, t in SPACE.choices.items() for row in range(len(t.rows))
    ]
    projected.set(projection)
    assert moved() == 0


def test_accuracy_and_loss_of_a_mixture(data, search):
    mixture = {name: tensor.numpy() for name, tensor in search.network.mixture().items()}
    x, y = data
    one_hot = np.eye(3, dtype=np.float32)[y]
    logits = search.network(x, training=True).numpy()
    evaluation = Evaluation(search, [(x, y)])
    loss, correct, samples = evaluation(mixture)
    assert samples == 6 and correct == (logits.argmax(-1) == y).sum() == evaluation.score(mixture)
    losses = keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True)
    assert loss == pytest.approx(float(np.mean(losses)), 1e-5)
    search.compile(SGD(0.1, 0.0, l2=0.0), keras.losses.CategoricalCrossentropy(from_logits=True))
    assert Evaluation(search, [(x, one_hot)])(mixture) == (pytest.approx(loss, 1e-5), correct, 6)
    search.compile(SGD(0.1, 0.0, l2=0.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True))


def test_bad_input(search):
    with pytest.raises(ValueError, match="criterion=error: expected accuracy or loss"):
        Evaluation(search, [], "error")
    hard = DARTS(SearchNetwork(2, 3, 3, 1, relaxation="gumbel_hard"))
    with pytest.raises(ValueError, match="selection by perturbation with relaxation=gumbel_hard"):
        Evaluation(hard, [])


def test_nothing_is_decided_that_leaves_no_network_within_a_bound():
    rows = {(name,): np.tile([1.0, 5.0], (5, 1)) for name in SPACE.choices}
    budget = Budget(SPACE, {"parameters": Table("parameters", 0.0, rows)}, {"parameters": 16.0})
    found = []
    for possible in (None, budget.possible):
        projection = Projection(SPACE.choices, possible=possible)
        while not projection.done:  # the network misses convolutions most, and then the first rows
            projection.decide(lambda table, row, candidate: row if candidate is None else -candidate)
        assert len(projection.decisions) == 2 * (5 + 1)
        found.append(SPACE.decide(projection.strengths()))
    assert [budget.of_picks("parameters", SPACE.picks(genotype)) for genotype in found] == [40, 16]
