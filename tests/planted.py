"""A tuning problem whose best answer is known: a table over a small space."""

import itertools

import keras_tuner
import numpy as np

CHOICES, VALUES = 6, 4


def table(seed):
    """Scores (VALUES,) * CHOICES from 0 to 1: what the values are worth alone, and in neighbouring pairs."""
    random = np.random.default_rng(seed)
    alone, pairs = random.normal(size=(CHOICES, VALUES)), random.normal(size=(CHOICES - 1, VALUES, VALUES))
    scores = np.zeros((VALUES,) * CHOICES)
    for place in itertools.product(range(VALUES), repeat=CHOICES):
        scores[place] = sum(alone[i, value] for i, value in enumerate(place))
        scores[place] += 0.5 * sum(pairs[i, one, two] for i, (one, two) in enumerate(itertools.pairwise(place)))
    return (scores - scores.min()) / np.ptp(scores)


def hyperparameters():
    hp = keras_tuner.HyperParameters()
    for choice in range(CHOICES):
        hp.Choice(f"c{choice}", [f"v{value}" for value in range(VALUES)])
    return hp


def run(oracle, scores, trials, folder, workers=1):
    """Best score so far after each trial; so many workers run trials at once."""
    oracle._set_project_dir(folder, "trials")
    oracle.verbose = 0
    found = []
    while len(found) < trials:
        running = [oracle.create_trial(f"tuner{worker}") for worker in range(min(workers, trials - len(found)))]
        for trial in running:
            assert trial.status == "RUNNING"
            place = tuple(int(trial.hyperparameters.values[f"c{choice}"][1:]) for choice in range(CHOICES))
            oracle.update_trial(trial.trial_id, {"score": float(scores[place])})
            trial.status = "COMPLETED"
            oracle.end_trial(trial)
            oracle.save()  # as keras_tuner.Tuner does
            found.append(scores[place])
    return np.maximum.accumulate(found)


def objective():
    return keras_tuner.Objective("score", "max")
