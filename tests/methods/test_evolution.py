import itertools

import numpy as np
import pytest

from darts_tf.methods.evolution import Evolution, crowding, undominated
from darts_tf.spaces.base import Choices

LAYERS, NUMBER = 8, 4
COSTS = np.random.default_rng(0).random((LAYERS, NUMBER))
SCORES = np.random.default_rng(1).random((LAYERS, NUMBER))
SIZES = {"population": 10, "parents": 3, "generations": 12, "mutations": 4, "crossovers": 4}


def total(table, path):
    return float(table[range(LAYERS), path].sum())


def is_cheap(path):
    return total(COSTS, path) <= LAYERS / 2


def made(random=0, feasible=is_cheap, **sizes):
    return Evolution([range(NUMBER)] * LAYERS, feasible=feasible, random=random, **(SIZES | sizes))


def step(search, count=None):
    paths = search.ask()[:count]
    search.tell({path: total(SCORES, path) for path in paths})
    return paths


def test_a_bound_is_kept_and_nothing_evaluated_twice():
    search, seen = made(), []
    while paths := step(search):
        seen += paths
    assert len(seen) == len(set(seen)) == SIZES["population"] * SIZES["generations"]
    assert all(map(is_cheap, seen))
    assert [path for _, path, _ in search.history] == seen
    assert [generation for generation, _, _ in search.history] == sorted([*range(SIZES["generations"])] * 10)
    assert search.best == min(search.scores.items(), key=lambda pair: pair[1]) == search.top(3)[0]
    scores = [score for _, score in search.top(200)]
    assert scores == sorted(scores) and len(scores) == len(seen)


def test_a_search_that_was_interrupted_ends_as_if_it_had_not_been():
    whole, other = made(3), made(3)
    while step(whole):
        pass
    other = Evolution.from_json(other.to_json(), is_cheap)
    while step(other, 7):  # a part of a generation
        other = Evolution.from_json(other.to_json(), is_cheap)
    assert other.history == whole.history and other.best == whole.best
    assert other.generation == whole.generation == SIZES["generations"]
    assert other.to_json() == Evolution.from_json(whole.to_json(), is_cheap).to_json() == whole.to_json()


def test_pairs_are_compared_one_after_the_other_and_stay_pairs():
    search = made()
    search.tell({path: (0.5, np.float32(place)) for place, path in enumerate(reversed(search.ask()))})
    first = search.populations[0]
    assert search.best == (first[-1], (0.5, 0.0))
    assert Evolution.from_json(search.to_json()).scores == search.scores
    assert search.top(2)[1][0] == first[-2]


def test_it_finds_better_paths_than_random_search():
    gains = []
    for seed in range(5):
        search = made(seed)
        while step(search):
            pass
        random = made(seed, mutations=0, crossovers=0)
        while step(random):
            pass
        gains.append(random.best[1] - search.best[1])
    assert min(gains) > 0
    best = min(total(SCORES, path) for path in itertools.product(range(NUMBER), repeat=LAYERS) if is_cheap(path))
    search = made(0, population=20, generations=30, mutations=8, crossovers=8)
    while step(search):
        pass
    assert search.best[1] == pytest.approx(best)


def test_layers_have_the_candidates_that_they_have():
    allowed = ((True, False, True), (True, True, True), (False, True, False))
    table = Choices("Layers", ("a", "b", "c"), ("x", "y", "z"), (((0,), 1), ((1,), 1), ((2,), 1)), allowed=allowed)
    search = Evolution([np.flatnonzero(row) for row in table.mask], 4, 2, 3, 1, 1, 0.5)
    while paths := search.ask():
        search.tell(dict.fromkeys(paths, 0))
    # It ends when all are evaluated, before the last generation.
    assert set(search.scores) == set(itertools.product((0, 2), (0, 1, 2), (1,)))
    assert search.generation < 3 and search.ask() == []


def test_errors():
    with pytest.raises(ValueError, match="none of 10000 random paths is feasible"):
        made(feasible=lambda path: False).ask()
    for name, value in (("population", 0), ("parents", 0), ("generations", 0), ("mutations", -1), ("crossovers", -1)):
        with pytest.raises(ValueError, match=f"{name}={value}: expected at least"):
            made(**{name: value})
    with pytest.raises(ValueError, match=r"mutation_prob=1\.5: expected a number from 0 to 1"):
        made(mutation_prob=1.5)
    with pytest.raises(ValueError, match="expected at least one layer, and one candidate on each"):
        Evolution([[0, 1], []])
    search = made()
    path = search.ask()[0]
    with pytest.raises(ValueError, match="expected a number"):
        search.tell({path: float("nan")})
    with pytest.raises(ValueError, match="expected one of the paths that were asked about"):
        search.tell({(9,) * LAYERS: 0.5})
    search.tell({path: 0.5})
    with pytest.raises(ValueError, match="expected one of the paths that were asked about"):
        search.tell({path: 0.4})
    assert path not in search.ask() and search.best == (path, 0.5)


def test_a_bound_that_random_paths_hardly_keep():
    def few(random):
        path = np.zeros(30, int)
        path[random.randint(30)] = 1
        return tuple(path.tolist())

    sizes = {"population": 8, "parents": 2, "generations": 2, "mutations": 4, "crossovers": 4}
    search = Evolution([range(4)] * 30, **sizes, feasible=lambda path: sum(path) < 3)
    with pytest.raises(ValueError, match="none of 10000 random paths is feasible"):
        search.ask()
    search = Evolution([range(4)] * 30, **sizes, feasible=lambda path: sum(path) < 3, within=few)
    while paths := search.ask():
        assert paths and all(sum(path) < 3 for path in paths)
        search.tell({path: sum(path) for path in paths})
    assert 1 < len(search.populations[0]) <= 8 and search.generation == 2


def test_what_is_not_dominated():
    points = np.random.default_rng(0).random((60, 2))
    expected = [
        place
        for place, one in enumerate(points)
        if not any((other <= one).all() and (other < one).any() for other in points)
    ]
    assert undominated(points).tolist() == expected
    assert undominated(np.ones((3, 2))).tolist() == [0, 1, 2]
    far = crowding(np.array([[0.0, 4], [1, 3], [1.5, 2.5], [4, 0]]))
    assert np.isinf(far[[0, 3]]).all() and far[1:3].tolist() == pytest.approx([(1.5 + 1.5) / 4, (3 + 3) / 4])


def test_a_front_is_found():
    """Of two aims that contradict each other it finds more of the compromises than one that follows the first alone."""

    def score(path):
        cost, gain = sum(path), sum(weight * value for weight, value in zip((8, 4, 2, 1), path, strict=True))
        return 1 - gain / 45, cost

    def compromises(front):
        search = Evolution([range(4)] * 4, 12, 4, 8, 6, 6, 0.3, front=front)
        half = None
        while paths := search.ask():
            if search.generation == 4 and half is None:
                half = search = Evolution.from_json(search.to_json())  # it goes on as if it had not been interrupted
                assert search.front == front
            search.tell({path: score(path) for path in paths})
        every = np.array([score(path) for path in itertools.product(range(4), repeat=4)])
        best = {tuple(point) for point in every[undominated(every)]}
        return len(best & set(search.scores.values())) / len(best)

    assert compromises(True) > max(compromises(False), 0.6)
