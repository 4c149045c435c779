"""Regularized evolution (Real et al., Regularized Evolution for Image Classifier Architecture Search, AAAI 2019)."""

import numpy as np

from darts_tf.tuner.oracle import ChoiceOracle, one_of


class RegularizedEvolutionOracle(ChoiceOracle):
    """Every trial is the child of a good one among the last few: it differs from it in one value.

    The first trials are random, until `population_size` of them have a score. From then on the population are the last
    that got one, so that the oldest die, however good they are ("ageing").

    Args:
        population_size: P of the paper.
        tournament_size: S of the paper: the parent is the best of so many, drawn with replacement.
        selection: "tournament", or "proportional": parents are drawn in proportion to their score less the worst one.
        crossover: the part of the children that have two parents and take each value from either, before they mutate.
        **kwargs: of `keras_tuner.Oracle`.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        objective=None,
        max_trials=100,
        population_size=20,
        tournament_size=5,
        selection="tournament",
        crossover=0.0,
        **kwargs,
    ):
        super().__init__(objective, max_trials, **kwargs)
        if population_size < 2 or tournament_size < 1:
            sizes = f"population_size={population_size}, tournament_size={tournament_size}"
            raise ValueError(f"{sizes}: expected at least 2 and 1.")
        if selection not in ("tournament", "proportional"):
            raise ValueError(f"selection={selection!r}: expected 'tournament' or 'proportional'.")
        if not 0 <= crossover <= 1:
            raise ValueError(f"crossover={crossover}: expected a number from 0 to 1.")
        self.population_size, self.tournament_size = population_size, tournament_size
        self.selection, self.crossover = selection, crossover
        self.population = []  # trial ids, the oldest first

    def draw(self, trial_id, random, attempt):
        if len(self.population) < self.population_size:
            return self.assign(lambda hp, values: one_of(random, values))
        parents = [self._parent(random)]
        if random.random() < self.crossover:
            parents.append(self._parent(random))
        child = self._inherit(parents, random)
        for _ in range(1 + attempt // 5):
            free = [hp.name for hp in self.hyperparameters.space if hp.name in child and len(list(hp.values)) > 1]
            child = self._inherit([child], random, mutated=one_of(random, free)) if free else child
        return child

    def _parent(self, random):
        """The values of a trial of the population."""
        trials = [self.trials[trial_id] for trial_id in self.population]
        gains = np.array([self.gain(trial) for trial in trials])
        if self.selection == "tournament":
            entrants = random.integers(len(trials), size=self.tournament_size)
            chosen = entrants[gains[entrants].argmax()]
        else:
            fitness = gains - gains.min() + 1e-12
            chosen = random.choice(len(trials), p=fitness / fitness.sum())
        return trials[chosen].hyperparameters.values

    def _inherit(self, parents, random, mutated=None):
        """Values of parents, another one for what is mutated, random ones for what no parent has."""

        def pick(hp, values):
            inherited = [parent[hp.name] for parent in parents if parent.get(hp.name) in values]
            if hp.name == mutated:
                return one_of(random, [value for value in values if value != inherited[0]])
            return one_of(random, inherited or values)

        return self.assign(pick)

    def learn(self, trial):
        self.population = [*self.population, trial.trial_id][-self.population_size :]

    def get_state(self):
        return {**super().get_state(), "population": self.population}

    def set_state(self, state):
        super().set_state(state)
        trials = [(trial_id, self.trials.get(trial_id)) for trial_id in state["population"]]
        self.population = [trial_id for trial_id, trial in trials if trial and trial.score is not None]
