"""Particle swarm optimisation of choices (Kennedy & Eberhart, Particle Swarm Optimization, 1995).

Choices are relaxed to probabilities, as by Strasser et al. (A new discrete particle swarm optimization algorithm,
GECCO 2016): a particle is a distribution over the values of every hyperparameter, and each trial a sample of it.
"""

import numpy as np

from darts_tf.tuner.oracle import ChoiceOracle, values_of

LEAST = 0.01  # probability that every value keeps


class ParticleSwarmOracle(ChoiceOracle):
    """Particles move towards the best sample that they had themselves and the best of all.

    v <- inertia v + cognitive r1 (own best - x) + social r2 (best of all - x);  x <- x + v, made a distribution again.

    Args:
        particles: their number; they take turns.
        inertia, cognitive, social: the coefficients, of Clerc & Kennedy (2002) by default.
        **kwargs: of `keras_tuner.Oracle`.

    Raises:
        ValueError: there are no particles.
    """

    def __init__(
        self, objective=None, max_trials=100, particles=10, inertia=0.7298, cognitive=1.4962, social=1.4962, **kwargs
    ):
        super().__init__(objective, max_trials, **kwargs)
        if particles < 1:
            raise ValueError(f"particles={particles}: expected at least 1.")
        self.particles = particles
        self.inertia, self.cognitive, self.social = inertia, cognitive, social
        self._swarm = []  # of each particle: position and velocity {name: list}, best gain and the values that had it
        self._flown = {}  # trial id: particle
        self._turn = 0

    def draw(self, trial_id, random, attempt):
        turn = self._turn % self.particles
        while turn >= len(self._swarm):
            self._swarm.append({"position": {}, "velocity": {}, "gain": None, "values": {}})
        particle = self._swarm[turn]
        if particle["gain"] is not None:
            self._move(particle, random)
        self._flown[trial_id], self._turn = turn, self._turn + 1

        def pick(hp, values):
            if len(particle["position"].get(hp.name, ())) != len(values):
                particle["position"][hp.name] = random.dirichlet(np.ones(len(values))).tolist()
                particle["velocity"][hp.name] = [0.0] * len(values)
            likely, bold = _distribution(particle["position"][hp.name]), attempt / 20
            return values[random.choice(len(values), p=(1 - bold) * likely + bold / len(values))]

        return self.assign(pick)

    def _move(self, particle, random):
        best = max((other for other in self._swarm if other["gain"] is not None), key=lambda other: other["gain"])
        for hp in self.hyperparameters.space:
            if len(particle["position"].get(hp.name, ())) != len(values_of(hp)):
                continue
            x, v = (np.array(particle[what][hp.name]) for what in ("position", "velocity"))
            v = self.inertia * v
            for coefficient, values in ((self.cognitive, particle["values"]), (self.social, best["values"])):
                if hp.name in values:
                    there = np.array([value == values[hp.name] for value in values_of(hp)], float)
                    v += coefficient * random.random(len(x)) * (there - x)
            particle["position"][hp.name] = _distribution(x + v).tolist()
            particle["velocity"][hp.name] = np.clip(v, -1, 1).tolist()

    def learn(self, trial):
        particle = self._swarm[self._flown[trial.trial_id]]
        if particle["gain"] is None or self.gain(trial) > particle["gain"]:
            particle["gain"], particle["values"] = self.gain(trial), dict(trial.hyperparameters.values)

    def get_state(self):
        return {**super().get_state(), "swarm": self._swarm, "flown": self._flown, "turn": self._turn}

    def set_state(self, state):
        super().set_state(state)
        self._swarm, self._flown, self._turn = state["swarm"], state["flown"], state["turn"]


def _distribution(position):
    position = np.clip(position, LEAST, 1)
    return position / position.sum()
