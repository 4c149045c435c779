"""Evolution over a trained one-shot model (Guo et al., Single Path One-Shot, ECCV 2020, section 3.4).

Paths are evaluated with the weights that they inherit; the best of all so far are the parents of the next generation.
This file needs no TensorFlow.
"""

import json
import numbers

import numpy as np

BATCH = 10  # paths are made so many at a time, as by the original: what is left of them is thrown away
TRIES = 10  # for each mutation and crossover that is wanted
RANDOM_TRIES = 10_000  # random paths in a row that may all be known already, or not feasible


class Evolution:
    """Algorithm 1 of Single Path One-Shot: mutation, crossover and random paths, under a constraint.

    The first generation is random. Each later one is made of the best paths of all generations before it: mutations of
    them, crossovers of two of them, and random paths for what is missing. No path is evaluated twice, none that is not
    feasible ever.

        mask = space.choices["layers"].mask
        search = Evolution([numpy.flatnonzero(row) for row in mask], feasible=lambda path: cost(path) <= 300e6)
        while paths := search.ask():
            search.tell({path: 1 - accuracy(path) for path in paths})
        path, score = search.best

    A search that was written by `to_json` at any time goes on as if it had not been interrupted.

    Args:
        candidates: for each layer a sequence of int, its candidates; layers may have different ones.
        population: paths of a generation; mutations and crossovers may be more.
        parents: how many of the best paths are parents.
        generations: how many there are, with the random one.
        mutations, crossovers: how many of a generation are made of parents, where so many are found in `TRIES` times
            as many tries.
        mutation_prob: the part of the layers of a mutation that are drawn anew.
        feasible: function of a path -> bool, the constraint.
        front: whether scores are tuples of numbers all of which are to be small: then those are parents that are not
            dominated by others, so that a front of paths is found (Deb et al., NSGA-II, 2002).
        within: function of `random` -> a path, most likely a feasible one: for the first generation where random paths
            hardly ever are.
        random: what draws, or the seed of it: an int or a `numpy.random.RandomState`, or anything that has `randint(n)`
            and `random_sample()`. The draws are those of the original code, in its order.

    Attributes:
        generation: how many generations are evaluated, an int.
        populations: list of the paths of each generation that was asked for.
        scores: {path: score} of all evaluated paths.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        candidates,
        population=50,
        parents=10,
        generations=20,
        mutations=25,
        crossovers=25,
        mutation_prob=0.1,
        feasible=lambda path: True,
        random=0,
        front=False,
        within=None,
    ):
        self.candidates = tuple(tuple(int(candidate) for candidate in layer) for layer in candidates)
        if not self.candidates or not all(self.candidates):
            raise ValueError(f"candidates={self.candidates}: expected at least one layer, and one candidate on each.")
        least = {"population": 1, "parents": 1, "generations": 1, "mutations": 0, "crossovers": 0}
        given = locals()
        for name, lowest in least.items():
            if given[name] < lowest:
                raise ValueError(f"{name}={given[name]}: expected at least {lowest}.")
        if not 0 <= mutation_prob <= 1:
            raise ValueError(f"mutation_prob={mutation_prob}: expected a number from 0 to 1.")
        self.population, self.parents, self.generations = population, parents, generations
        self.mutations, self.crossovers, self.mutation_prob = mutations, crossovers, mutation_prob
        self.front, self._feasible, self._within = bool(front), feasible, within
        self._random = np.random.RandomState(random) if isinstance(random, numbers.Integral) else random
        self._known = {}  # {path: whether it is feasible}
        self.populations = []
        self.generation, self.scores = 0, {}

    def ask(self):
        """The paths of the next generation that have no score yet.

        Returns:
            list of paths, tuples of one candidate of each layer; empty at the end of the search, or once no feasible
            path is found that is not evaluated already.

        Raises:
            ValueError: no feasible path is found at all.
        """
        if self.generation == len(self.populations) < self.generations:
            paths = []
            if self.generation:
                parents = [path for path, _ in (self._spread() if self.front else self.top(self.parents))]
                paths += self._new(lambda: self._mutation(parents), self.mutations, TRIES * self.mutations)
                paths += self._new(lambda: self._crossover(parents), self.crossovers, TRIES * self.crossovers)
            paths += self._new(self._drawn, self.population - len(paths))
            if self._within and not self.generation:
                paths += self._new(lambda: self._within(self._random), self.population - len(paths), self.population)
            if not paths and not self.generation:
                raise ValueError(f"none of {RANDOM_TRIES} random paths is feasible: expected a bound that some keep.")
            self.populations += [paths] if paths else []
        return self._without_score()

    def _without_score(self):
        return [path for paths in self.populations[self.generation :] for path in paths if path not in self.scores]

    def tell(self, scores):
        """Takes the scores of paths that were asked about, of all or of some of them.

        Args:
            scores: {path: number, or tuple of numbers that are compared one after the other}; the smaller, the better.

        Raises:
            ValueError: a path was not asked about, or its score is no number.
        """
        wanted = self._without_score()
        for path, score in scores.items():
            if path not in wanted:
                raise ValueError(f"score of {path}: expected one of the paths that were asked about.")
            if np.isnan(score).any():
                raise ValueError(f"score of {path} is {score}: expected a number.")
        for path, score in scores.items():
            self.scores[path] = tuple(map(float, score)) if isinstance(score, tuple) else float(score)
        if not self._without_score():
            self.generation = len(self.populations)

    @property
    def history(self):
        """[(generation, path, score)] of all evaluated paths, generation by generation."""
        return [
            (generation, path, self.scores[path])
            for generation, paths in enumerate(self.populations)
            for path in paths
            if path in self.scores
        ]

    def top(self, count):
        """The best evaluated paths, [(path, score)], the best first; of equals the one that was there first."""
        evaluated = [(path, score) for _, path, score in self.history]
        return sorted(evaluated, key=lambda pair: pair[1])[:count]

    def _spread(self):
        """As many (path, score) as there are parents: front after front, in the last those that are far from others."""
        evaluated = [(path, score) for _, path, score in self.history]
        scores, kept = np.array([score for _, score in evaluated]), []
        left = np.arange(len(evaluated))
        while len(kept) < self.parents and left.size:
            own = left[undominated(scores[left])]
            left = np.setdiff1d(left, own)
            order = np.argsort(-crowding(scores[own]), kind="stable")
            kept += own[order][: self.parents - len(kept)].tolist()
        return [evaluated[place] for place in kept]

    @property
    def best(self):
        """(path, score) of the best evaluated path; None if there is none yet."""
        return next(iter(self.top(1)), None)

    def _new(self, make, count, tries=None):
        """Makes feasible paths that no generation has yet.

        Args:
            make: function -> path.
            count: how many.
            tries: how many are made at most; None for `RANDOM_TRIES` in a row without one.

        Returns:
            list of at most `count` paths.
        """
        found, batch, tried = [], [], 0
        while len(found) < count and tried < (RANDOM_TRIES if tries is None else tries):
            batch = batch or [make() for _ in range(BATCH)]
            path, tried = batch.pop(0), tried + 1
            if path not in self._known:
                self._known[path] = bool(self._feasible(path))
                if self._known[path]:
                    found.append(path)
                    tried = 0 if tries is None else tried
        return found

    def _one(self, options):
        return options[int(self._random.randint(len(options)))]

    def _drawn(self):
        return tuple(self._one(layer) for layer in self.candidates)

    def _mutation(self, parents):
        parent = self._one(parents)
        return tuple(
            self._one(layer) if self._random.random_sample() < self.mutation_prob else candidate
            for layer, candidate in zip(self.candidates, parent, strict=True)
        )

    def _crossover(self, parents):
        pair = self._one(parents), self._one(parents)
        return tuple(self._one(both) for both in zip(*pair, strict=True))

    def to_json(self):
        """All of it but the constraint, the state of what draws included, as JSON text."""
        kind, keys, *rest = self._random.get_state()
        names = "candidates population parents generations mutations crossovers mutation_prob front"
        return json.dumps(
            {
                **{name: getattr(self, name) for name in names.split()},
                "random": [kind, keys.tolist(), *rest],
                "populations": self.populations,
                "scores": list(self.scores.items()),
            }
        )

    @classmethod
    def from_json(cls, text, feasible=lambda path: True):
        """The `Evolution` that `to_json` has written.

        Args:
            text: JSON.
            feasible: the constraint.
        """
        state = json.loads(text)
        populations, scores = state.pop("populations"), state.pop("scores")
        random = np.random.RandomState()
        random.set_state(state.pop("random"))
        search = cls(**state, feasible=feasible, random=random)
        search.populations = [[tuple(path) for path in paths] for paths in populations]
        search.scores = {tuple(path): tuple(score) if isinstance(score, list) else score for path, score in scores}
        search._known = {path: True for paths in search.populations for path in paths}
        search.generation = sum(all(path in search.scores for path in paths) for paths in search.populations)
        return search


def undominated(scores):
    """Places of the scores than which no other is smaller or equal in all, and smaller in one.

    Args:
        scores: array (points, numbers).
    """
    no_larger = (scores[:, None] <= scores[None]).all(-1)
    smaller = (scores[:, None] < scores[None]).any(-1)
    return np.flatnonzero(~(no_larger & smaller).any(0))


def crowding(scores):
    """How far each point is from its neighbours in every number; infinite at the ends (crowding distance of NSGA-II).

    Args:
        scores: array (points, numbers).
    """
    distance = np.zeros(len(scores))
    for values in scores.T:
        order = np.argsort(values, kind="stable")
        span = max(values[order[-1]] - values[order[0]], 1e-12)
        distance[order[[0, -1]]] = np.inf
        distance[order[1:-1]] += (values[order[2:]] - values[order[:-2]]) / span
    return distance
