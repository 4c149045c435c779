"""Search with a controller that learns by policy gradient (Zoph & Le, Neural Architecture Search with Reinforcement
Learning, ICLR 2017).
"""

import base64
import io
import math

import keras
import numpy as np
import tensorflow as tf

from darts_tf.tuner.oracle import ChoiceOracle, values_of


class ReinforceOracle(ChoiceOracle):
    """An LSTM emits the values one after another; trials whose score is above the moving average make theirs likelier.

    Any number of trials may be in flight: each updates the controller when its score arrives, by the gradient of

        A sum_t log p(value_t | values before) + entropy_weight sum_t H(p_t),   A = (score - baseline) / deviation,

    where baseline and deviation are moving averages.

    Args:
        units: of the LSTM and the embedding of the values.
        learning_rate: of the controller's Adam.
        entropy_weight: keeps the controller from deciding too early.
        baseline_decay: of the moving averages, per trial.
        **kwargs: of `keras_tuner.Oracle`.
    """

    def __init__(
        self,
        objective=None,
        max_trials=100,
        units=32,
        learning_rate=0.005,
        entropy_weight=0.1,
        baseline_decay=0.9,
        **kwargs,
    ):
        super().__init__(objective, max_trials, **kwargs)
        self.units, self.learning_rate = units, learning_rate
        self.entropy_weight, self.baseline_decay = entropy_weight, baseline_decay
        self._controller = None
        self._moments = [0.0, 0.0, 0]  # moving averages of the score and its square, and the number of scores

    def draw(self, trial_id, random, attempt):
        chosen = self._current().sample(random.integers(2**31, size=2), temperature=1 + attempt / 4)
        places = {id(hp): place for hp, place in zip(self.hyperparameters.space, chosen, strict=True)}
        return self.assign(lambda hp, values: values[places[id(hp)]])

    def learn(self, trial):
        mean, square, count = self._moments
        gain, decay = self.gain(trial), self.baseline_decay
        if count:
            debias = 1 - decay**count
            baseline, deviation = mean / debias, math.sqrt(max(square / debias - (mean / debias) ** 2, 0))
            advantage = (gain - baseline) / (deviation or abs(gain - baseline) or 1.0)
            values = trial.hyperparameters.values
            controller = self._current()
            active = [hp.name in values and values[hp.name] in values_of(hp) for hp in self.hyperparameters.space]
            places = [
                values_of(hp).index(values[hp.name]) if there else 0
                for hp, there in zip(self.hyperparameters.space, active, strict=True)
            ]
            controller.reinforce(places, active, float(np.clip(advantage, -3, 3)), self.entropy_weight)
        self._moments = [decay * mean + (1 - decay) * gain, decay * square + (1 - decay) * gain**2, count + 1]

    def _current(self):
        """The controller; a new one if there are hyperparameters now that it does not know."""
        sizes = [len(values_of(hp)) for hp in self.hyperparameters.space]
        if self._controller is None or self._controller.sizes != sizes:
            self._controller = Controller(sizes, self.units, self.learning_rate, self.seed)
        return self._controller

    def get_state(self):
        controller = self._controller and {"sizes": self._controller.sizes, "weights": self._controller.to_text()}
        return {**super().get_state(), "controller": controller, "moments": self._moments}

    def set_state(self, state):
        super().set_state(state)
        self._controller, self._moments = None, state["moments"]
        if state["controller"] and state["controller"]["sizes"] == self._current().sizes:
            self._current().from_text(state["controller"]["weights"])


class Controller:
    """The LSTM, which makes one decision after another; each sees the one before.

    Args:
        sizes: number of values of each decision.
        units: of the LSTM and the embedding.
        learning_rate: of Adam.
        seed: int, of the first weights.
    """

    def __init__(self, sizes, units, learning_rate, seed):
        self.sizes = sizes
        seeds = keras.random.SeedGenerator(seed)
        uniform = keras.initializers.RandomUniform(-0.1, 0.1, seed=seeds)
        self._cell = keras.layers.LSTMCell(
            units, kernel_initializer=uniform, recurrent_initializer=keras.initializers.Orthogonal(seed=seeds)
        )
        self._cell.build((1, units))
        # All values of all decisions have a row or a column; the first row is what the first decision sees.
        self._embedding = keras.Variable(uniform((1 + sum(sizes), units)), name="embedding")
        self._kernel = keras.Variable(uniform((units, sum(sizes))), name="kernel")
        self._bias = keras.Variable(np.zeros(sum(sizes), np.float32), name="bias")
        self._weights = [*self._cell.trainable_weights, self._embedding, self._kernel, self._bias]
        self._optimizer = keras.optimizers.Adam(learning_rate)
        self._optimizer.build(self._weights)
        self._text = None  # of `to_text`, as long as it is true
        self._sample = tf.function(self._sampled, autograph=False)
        self._reinforce = tf.function(self._reinforced, autograph=False)

    def sample(self, seed, temperature=1.0):
        """Draws all decisions.

        Args:
            seed: two ints.
            temperature: above 1 for more variety.

        Returns:
            list of int, the place of a value for each decision.
        """
        return self._sample(tf.constant(seed, tf.int32), tf.constant(temperature, tf.float32)).numpy().tolist()

    def reinforce(self, decisions, active, advantage, entropy_weight):
        """Makes decisions likelier, or with a negative advantage less likely.

        Args:
            decisions: places of the values, one per decision.
            active: whether each of them played a role.
            advantage, entropy_weight: see `ReinforceOracle`.
        """
        self._text = None
        self._reinforce(
            tf.constant(decisions, tf.int32),
            tf.constant(active, tf.float32),
            tf.constant(advantage, tf.float32),
            tf.constant(entropy_weight, tf.float32),
        )

    def _log_probabilities(self, decide):
        """Of the values of each decision, one after the other; `decide` is given each and returns the value's place."""
        embedding, kernel, bias = (
            tf.convert_to_tensor(weight) for weight in (self._embedding, self._kernel, self._bias)
        )
        state, seen, first = self._cell.get_initial_state(1), embedding[:1], 0
        for place, size in enumerate(self.sizes):
            output, state = self._cell(seen, state)
            own = slice(first, first + size)
            log_probabilities = tf.nn.log_softmax(output @ kernel[:, own] + bias[own])
            chosen = decide(place, log_probabilities)
            yield log_probabilities[0], chosen
            seen, first = embedding[1 + first + chosen][None], first + size

    def _sampled(self, seed, temperature):
        def decide(place, log_probabilities):
            logits = log_probabilities / temperature
            return tf.random.stateless_categorical(logits, 1, seed + [0, place], dtype=tf.int32)[0, 0]

        return tf.stack([chosen for _, chosen in self._log_probabilities(decide)])

    def _reinforced(self, decisions, active, advantage, entropy_weight):
        with tf.GradientTape() as tape:
            loss = 0.0
            for place, (logs, chosen) in enumerate(self._log_probabilities(lambda place, _: decisions[place])):
                entropy = -tf.reduce_sum(tf.exp(logs) * logs)
                loss -= active[place] * (advantage * tf.gather(logs, chosen) + entropy_weight * entropy)
        gradients = tape.gradient(loss, self._weights)
        self._optimizer.apply(gradients, self._weights)

    def to_text(self):
        """All that changes, exactly, as text."""
        if self._text is None:
            content = io.BytesIO()
            np.savez(content, *[keras.ops.convert_to_numpy(variable) for variable in self._variables()])
            self._text = base64.b64encode(content.getvalue()).decode()
        return self._text

    def from_text(self, text):
        """Takes over what `to_text` gave."""
        with np.load(io.BytesIO(base64.b64decode(text))) as arrays:
            for place, variable in enumerate(self._variables()):
                variable.assign(arrays[f"arr_{place}"])
        self._text = text

    def _variables(self):
        return [*self._weights, *self._optimizer.variables]
