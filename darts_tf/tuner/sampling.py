"""Genotypes drawn from what a DARTS search has learnt."""

import numpy as np

from darts_tf.runs import rundirectory
from darts_tf.spaces.cells import genotypes
from darts_tf.spaces.cells.genotypes import Genotype
from darts_tf.tuner.oracle import ChoiceOracle
from darts_tf.tuner.space import KINDS, hyperparameters_of


def read(run):
    """What a search has learnt.

    Args:
        run: a run directory of `darts_tf.search`.

    Returns:
        {"normal": alpha, "reduce": alpha}, (edges, operations) each, and the names of the operations.

    Raises:
        ValueError: there is no search in the directory.
    """
    if not run:
        raise ValueError("no run given: expected the run directory of a search, with alphas.npz.")
    try:
        alphas = rundirectory.alphas(run)
    except rundirectory.DamageError as error:
        raise ValueError(f"{error}; expected the run directory of a search.") from None
    if alphas is None:
        raise ValueError(f"run={run}: expected the run directory of a search, with alphas.npz.")
    return {kind: alphas[kind][-1] for kind in KINDS}, alphas["primitives"]


class DARTSOracle(ChoiceOracle):
    """Tries the genotype of a search first, then others, distinct ones, by their probability under softmax(alpha).

    Of each node an edge and its operation are drawn in proportion to softmax(alpha / temperature), then another edge
    and its. `none` is never drawn. Hyperparameters that are not the genotype's keep their defaults.

    Args:
        run: a run directory of `darts_tf.search`.
        temperature: above 1 for more variety, below for less.
        **kwargs: of `keras_tuner.Oracle`; its hyperparameters have to be those of `GenotypeHyperModel`.

    Raises:
        ValueError: there is no search in the directory, or the temperature is not above 0.
    """

    def __init__(self, objective=None, max_trials=10, run=None, temperature=1.0, **kwargs):
        super().__init__(objective, max_trials, **kwargs)
        if not 0 < temperature < np.inf:
            raise ValueError(f"temperature={temperature}: expected a number above 0.")
        self.temperature = temperature
        self._alphas, self._primitives = read(run)

    def draw(self, trial_id, random, attempt):
        genotype = self._drawn(random, self.temperature * (1 + attempt / 4)) if self.start_order else self._derived()
        values = hyperparameters_of(genotype, [name for name in self._primitives if name != "none"]).values

        def pick(hp, allowed):
            value = values.get(hp.name, hp.default)
            if value not in allowed:
                raise ValueError(
                    f"The search chose {value} for {hp.name}: the space has {', '.join(map(str, allowed))}."
                )
            return value

        missing = set(values) - {hp.name for hp in self.hyperparameters.space}
        if missing:
            raise ValueError(f"The search has {min(missing)}, the space has not: expected one of as many nodes.")
        return self.assign(pick)

    def learn(self, trial):
        pass

    def _derived(self):
        weights = [genotypes.softmax(self._alphas[kind]) for kind in KINDS]
        genotype = genotypes.derive(*weights, self._primitives)
        return _in_order(genotype)

    def _drawn(self, random, temperature):
        fields, some = {}, [name != "none" for name in self._primitives]
        names = [name for name in self._primitives if name != "none"]
        for kind in KINDS:
            weights = genotypes.softmax(self._alphas[kind] / temperature)[:, some]
            pairs, start, sources = [], 0, 2
            while start < len(weights):
                left = weights[start : start + sources] + 1e-12
                for _ in range(2):
                    place = random.choice(left.size, p=(left / left.sum()).ravel())
                    source, operation = divmod(int(place), len(names))
                    pairs.append((names[operation], source))
                    left[source] = 0
                start, sources = start + sources, sources + 1
            fields |= {kind: pairs, f"{kind}_concat": list(range(2, sources))}
        return _in_order(Genotype(**fields))


def _in_order(genotype):
    """The same cells, the edges of each node in the order of their sources."""
    pairs = {
        kind: [
            pair
            for place in range(0, len(getattr(genotype, kind)), 2)
            for pair in sorted(getattr(genotype, kind)[place : place + 2], key=lambda pair: pair[1])
        ]
        for kind in KINDS
    }
    return genotype._replace(**pairs)
