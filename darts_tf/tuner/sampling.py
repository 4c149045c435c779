"""Architectures drawn from what a search has learnt."""

import numpy as np

from darts_tf.methods import relaxations, selections
from darts_tf.runs import phases, rundirectory
from darts_tf.runs.configurations import SearchConfig
from darts_tf.spaces.base import strengths_of
from darts_tf.tuner.oracle import ChoiceOracle
from darts_tf.tuner.space import hyperparameters_of


def read(run):
    """What a search has learnt.

    Args:
        run: a run directory of `darts_tf.search`.

    Returns:
        The configuration of the search, its space, {table: array (rows, candidates)} of alphas, {table: betas}, and
        {table: bool array}, the candidates that were left: of the epoch that the result is of.

    Raises:
        ValueError: there is no search in the directory.
    """
    if not run:
        raise ValueError("no run given: expected the run directory of a search, with alphas.npz.")
    try:
        config = rundirectory.configuration(run)
        space = rundirectory.space(config or {})
        alphas = rundirectory.alphas(run, space.choices)
    except rundirectory.DamageError as error:
        raise ValueError(f"{error}; expected the run directory of a search.") from None
    if alphas is None:
        raise ValueError(f"run={run}: expected the run directory of a search, with alphas.npz.")
    config = SearchConfig().taken_over(config)
    stop = phases.stop_of(config, space, rundirectory.history(run) or [], alphas)
    last = stop.epoch + 1 if stop else len(alphas) - 1
    return config, space, *alphas[last], phases.candidates_of(config, space, alphas[:last])[-1]


class DARTSOracle(ChoiceOracle):
    """Tries the genotype of a search first, then others, distinct ones, by their probability under its weights.

    In each group of rows that compete, a row and its candidate are drawn in proportion to softmax(alpha / temperature)
    (or the relaxation of the search), then another row and its. What no architecture has (`none`) is never drawn.
    Hyperparameters that are not the space's keep their defaults.

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
        config, self._space, self._alphas, self._betas, self._candidates = read(run)
        self._relaxation = relaxations.get(config.relaxation)
        self._selection = selections.configured(config.to_dict())
        self._found = rundirectory.genotype(run) if self._selection.by_network else None  # which alphas do not tell

    def draw(self, trial_id, random, attempt):
        if self.start_order:
            picks = self._drawn(random, self.temperature * (1 + attempt / 4))
        elif self._found:
            picks = self._space.picks(self._found)
        else:
            picks = self._selection.decide(self._strengths(), self._space.choices)
        # By rows within a group: which of them is the stronger one says nothing here.
        architecture = self._space.decode({name: _in_order(picks[name], t) for name, t in self._space.choices.items()})
        values = hyperparameters_of(architecture, space=self._space).values

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

    def _strengths(self, temperature=1.0):
        alphas = {name: alpha / temperature for name, alpha in self._alphas.items()}
        return strengths_of(self._space, self._relaxation, alphas, self._betas, self._candidates)

    def _drawn(self, random, temperature):
        picks, strengths = {}, self._strengths(temperature)
        for name, table in self._space.choices.items():
            allowed = [place for place, other in enumerate(table.candidates) if other not in table.never]
            weights = strengths[name][:, allowed]
            picks[name] = []
            for rows, keep in table.groups:
                there = self._candidates[name][list(rows)][:, allowed]
                left = np.where(there, weights[list(rows)] + 1e-12, 0)
                for _ in range(keep):
                    place = random.choice(left.size, p=(left / left.sum()).ravel())
                    row, candidate = divmod(int(place), len(allowed))
                    picks[name].append((rows[row], allowed[candidate]))
                    left[row] = 0
        return picks


def _in_order(picks, table):
    """The same picks, in each group in the order of the rows."""
    groups = {row: place for place, (rows, _) in enumerate(table.groups) for row in rows}
    return sorted(picks, key=lambda pick: (groups[pick[0]], pick[0]))
