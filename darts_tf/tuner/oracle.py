"""What the oracles share: they see every hyperparameter as a choice among finitely many values."""

import json
import os

import keras_tuner
import numpy as np

from darts_tf.files import write

RUNNING, STOPPED = "RUNNING", "STOPPED"


class ChoiceOracle(keras_tuner.Oracle):
    """An oracle that draws values and learns from scores; a subclass says how (`draw`, `learn`).

    All that is random follows from the seed and the number of draws so far, both of which keras-tuner saves.

    Args: of `keras_tuner.Oracle`. A seed of 0 is keras-tuner's word for a random one.
    """

    def populate_space(self, trial_id):
        """New values for a trial, or the end where 20 draws in a row have all been tried before."""
        for attempt in range(1 + self._max_collisions):
            self._seed_state += 1
            values = self.draw(trial_id, np.random.default_rng(self._seed_state), attempt)
            if not self._duplicate(values):
                return {"status": RUNNING, "values": values}
        return {"status": STOPPED, "values": None}

    def score_trial(self, trial):
        """Scores a trial that has ended, and learns from it before keras-tuner saves the oracle."""
        super().score_trial(trial)
        if not np.isnan(trial.score):
            self.learn(trial)

    def draw(self, trial_id, random, attempt):
        """Values of all active hyperparameters, a dict.

        Args:
            trial_id: text, of the trial that will have them.
            random: `numpy.random.Generator`.
            attempt: how many draws for this trial turned out to have been tried before; the more, the bolder.
        """
        raise NotImplementedError

    def learn(self, trial):
        """Takes note of a trial that has a score."""
        raise NotImplementedError

    def gain(self, trial):
        """A trial's score, turned so that more is better."""
        return trial.score if self.objective.direction == "max" else -trial.score

    def assign(self, pick):
        """Values of all active hyperparameters.

        Args:
            pick: function of a hyperparameter and the list of its values -> one of these.
        """
        hps = keras_tuner.HyperParameters()
        for hp in self.hyperparameters.space:
            hps.merge([hp])
            if hps.is_active(hp):
                hps.values[hp.name] = pick(hp, values_of(hp))
        return hps.values


def durable(oracle):
    """Makes any oracle's files appear whole; keras-tuner writes them in place.

    Returns:
        The oracle.
    """

    def save():
        write(oracle._get_oracle_fname(), json.dumps(oracle.get_state()))

    def save_trial(trial):
        write(os.path.join(oracle._get_trial_dir(trial.trial_id), "trial.json"), json.dumps(trial.get_state()))

    oracle.save, oracle._save_trial = save, save_trial
    return oracle


def values_of(hp):
    """The values of a hyperparameter, as a list; of an interval without steps ten."""
    values = list(hp.values)
    return sorted(values) if isinstance(hp, keras_tuner.engine.hyperparameters.Float) else values


def one_of(random, values):
    """A value drawn from a list, of the type that it has there."""
    return values[random.integers(len(values))]
