"""What the oracles share: they see every hyperparameter as a choice among finitely many values."""

import json
import math
import os
import pathlib

import keras_tuner
import numpy as np
from keras_tuner.engine.trial import Trial

from darts_tf.cli.files import write
from darts_tf.private.keras_tuner import oracle_file, save_trials_by, trial_file, untried
from darts_tf.runs.rundirectory import DamageError

RUNNING, STOPPED = "RUNNING", "STOPPED"


class ChoiceOracle(keras_tuner.Oracle):
    """An oracle that draws values and learns from scores; a subclass says how (`draw`, `learn`).

    All that is random follows from the seed and the number of draws so far, both of which keras-tuner saves.

    Args: of `keras_tuner.Oracle`. A seed of 0 is keras-tuner's word for a random one.
    """

    def populate_space(self, trial_id):
        """New values for a trial, or the end where 20 draws in a row have all been tried before."""
        values = untried(self, lambda seed, attempt: self.draw(trial_id, np.random.default_rng(seed), attempt))
        return {"status": STOPPED if values is None else RUNNING, "values": values}

    def score_trial(self, trial):
        """Scores a trial that has ended, and learns from it before keras-tuner saves the oracle."""
        super().score_trial(trial)
        if np.isfinite(trial.score):
            self.learn(trial)
        else:
            trial.score = math.nan  # which keras-tuner takes for a failure

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


def durable(oracle, restored=lambda trial_id: None, tell=lambda line: None):
    """Makes an oracle write its files whole, where keras-tuner writes in place, and check them when it reads them.

    A trial whose file is damaged or gone counts as failed, unless `restored` knows it. So does one
    whose score is infinite, as in keras-tuner one whose score is NaN.

    Args:
        oracle: any `keras_tuner.Oracle`.
        restored: function of a trial's id -> a `keras_tuner.engine.trial.Trial` that has ended, or None.
        tell: called with a line about each trial whose file cannot be read.

    Returns:
        The oracle. Its `reload` raises `darts_tf.runs.rundirectory.DamageError` if its own file cannot be read.
    """

    def save():
        write(oracle_file(oracle), json.dumps(oracle.get_state()))

    def save_trial(trial):
        write(trial_file(oracle, trial.trial_id), json.dumps(trial.get_state()))

    def reload():
        path = pathlib.Path(oracle_file(oracle))
        name = f"{path.parent.name}/{path.name}"
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            started, ended = (_unique_texts(state[order]) for order in ("start_order", "end_order"))
            lost = {}
            for trial_id in started:
                trial = _read_trial(path.parent, trial_id)
                if trial is None:
                    lost[trial_id] = restored(trial_id)
                    there = "what trials.csv says of it is kept" if lost[trial_id] else "it counts as failed"
                    tell(f"{path.parent}/trial_{trial_id}/trial.json cannot be read; {there}.")
                    trial = lost[trial_id] or Trial(
                        keras_tuner.HyperParameters(), trial_id, "FAILED", "Its file is lost."
                    )
                oracle.trials[trial_id] = trial
            state["end_order"] = [*ended, *(trial_id for trial_id in lost if trial_id not in ended)]
            ongoing = {name: trial_id for name, trial_id in state["ongoing_trials"].items() if trial_id not in lost}
            state["ongoing_trials"] = {}
            retry = [trial_id for trial_id in state["retry_queue"] if trial_id not in lost]
            state["retry_queue"] = _unique_texts([*retry, *ongoing.values()])
            if not {*state["retry_queue"], *state["end_order"]} <= set(started):
                raise ValueError("it has trials that were never begun")
            oracle.set_state(state)
        except OSError as error:
            raise DamageError(f"its {name} cannot be read: {error.strerror}") from None
        except Exception as error:  # of every kind: JSON, and keys and types that are others
            reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
            raise DamageError(
                f"its {name} is damaged, or of another oracle ({' '.join(reason.split())[:200]})"
            ) from None

    def score_trial(trial, score=oracle.score_trial):
        score(trial)
        if not np.isfinite(trial.score):
            trial.score = math.nan

    oracle.save, oracle.reload, oracle.score_trial = save, reload, score_trial
    save_trials_by(oracle, save_trial)
    return oracle


def _unique_texts(values):
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError("expected lists of names")
    if len(set(values)) < len(values):
        raise ValueError("a trial is there twice")
    return values


def _read_trial(folder, trial_id):
    """A trial of a project's folder; None if its file cannot be read."""
    try:
        trial = Trial.load(os.path.join(folder, f"trial_{trial_id}", "trial.json"))
        whole = trial.trial_id == trial_id and isinstance(trial.hyperparameters.values, dict)
        if trial.status == "COMPLETED":
            whole = whole and math.isfinite(trial.score)
        return trial if whole and trial.status in ("RUNNING", "COMPLETED", "INVALID", "FAILED") else None
    except Exception:  # of every kind
        return None


def values_of(hp):
    """The values of a hyperparameter, as a list; ten of an interval without steps."""
    values = list(hp.values)
    return sorted(values) if isinstance(hp, keras_tuner.engine.hyperparameters.Float) else values


def one_of(random, values):
    """A value drawn from a list, of the type that it has there."""
    return values[random.integers(len(values))]
