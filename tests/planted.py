"""A tuning problem whose best answer is known, a table over a small space; and a search that has never been."""

import itertools
import json

import keras_tuner
import numpy as np

from darts_tf.tuner import GridOracle, ParticleSwarmOracle, RegularizedEvolutionOracle, ReinforceOracle
from darts_tf.tuner.space import OPERATIONS

CHOICES, VALUES = 6, 4

# Of keras-tuner and of this package.
ORACLES = {
    "random": keras_tuner.oracles.RandomSearchOracle,
    "bayesian": keras_tuner.oracles.BayesianOptimizationOracle,
    "hyperband": lambda objective, trials, **more: keras_tuner.oracles.HyperbandOracle(objective, max_epochs=9, **more),
    "grid": keras_tuner.oracles.GridSearchOracle,
    "evolution": lambda *more, **named: RegularizedEvolutionOracle(*more, population_size=5, crossover=0.5, **named),
    "reinforce": ReinforceOracle,
    "swarm": ParticleSwarmOracle,
    "our grid": GridOracle,
}


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


def search_run(folder, nodes=2, scale=2.0):
    """The files of a search with random alphas; returns the last ones, (2, edges, operations), and the operations."""
    names = ["none", *OPERATIONS]
    alphas = scale * np.random.default_rng(0).normal(size=(2, 3, nodes * (nodes + 3) // 2, len(names)))
    np.savez(folder / "alphas.npz", normal=alphas[0], reduce=alphas[1], primitives=np.array(names))
    data = {"image_shape": [8, 8, 1], "class_names": ["a", "b"]}
    config = {"command": "search", "versions": {}, "data": data, "nodes": nodes, "primitives": names}
    (folder / "config.json").write_text(json.dumps(config))
    return alphas[:, -1], names
