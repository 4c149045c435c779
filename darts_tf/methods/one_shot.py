"""What the networks in a trained supernet are worth, with the weights that they share (Single Path One-Shot)."""

import inspect

import keras
import numpy as np
import tensorflow as tf

from darts_tf.data.tasks import right
from darts_tf.devices import replicas
from darts_tf.ops import kernels


class Inherited:
    """How good the network of one choice in each row is, with a supernet's weights.

        worth = Inherited(search, recalibration, validation)
        accuracy, loss = worth(mixture)
        worth.restore()

    The statistics of batch norms are those of all networks that were trained, so they are computed anew for each
    (section 3.4 of Guo et al., Single Path One-Shot, 2020): they begin at mean 0 and variance 1 and move with the
    batches of `recalibration`, by a tenth each. The authors have 200 batches. After few ones much of the beginning
    would be left, so it is taken out, as Adam does with its moments.

    Args:
        search: a compiled `DARTS`, whose variables exist, of a network whose call takes `mixture`; if it takes `paths`
            as well no other candidates are computed.
        score: function of labels and logits -> what each of a batch counts, a tensor (batch,): by default 1 if it is
            right, else 0; see `darts_tf.data.tasks.Task.score`.
        corrected: whether that is done; False is as the authors' code.
        recalibration, validation: iterables of batches (x, y), such as `tf.data.Dataset`s, each gone through every
            time; batches of one size are traced once.
    """

    def __init__(self, search, recalibration, validation, corrected=True, score=right):
        self._search, self._batches, self._corrected = search, (recalibration, validation), corrected
        self._score = score
        takes = inspect.signature(search.network.call).parameters
        self._options = {"paths": 1} if "paths" in takes else {}
        trained = {id(variable) for variable in search.network.trainable_variables}
        self._moving = [
            variable
            for variable in search.network.variables
            if id(variable) not in trained and variable.path.rpartition("/")[2].endswith("moving_mean_and_variance")
        ]
        self._before = [keras.ops.convert_to_numpy(variable) for variable in self._moving]
        self._steps = [
            tf.function(step, autograph=False, reduce_retracing=True) for step in (self._recalibrate, self._measure)
        ]

    def _recalibrate(self, batch, mixture):
        self._search.network(batch[0], training=True, mixture=mixture, **self._options)

    def _measure(self, batch, mixture):
        x, y = batch[:2]
        logits = self._search.network(x, training=False, mixture=mixture, **self._options)
        loss = self._search.compute_loss(x, y, logits, None, training=False) * replicas.count()
        return tf.reduce_sum(self._score(y, logits)), loss, tf.shape(logits)[0]

    def __call__(self, mixture):
        """The mean score of the validation data, by default the part that is right, and the mean loss.

        Args:
            mixture: {table: array (rows, candidates)}, one for what each row chooses, else zero.
        """
        mixture = {name: tf.convert_to_tensor(weights, "float32") for name, weights in mixture.items()}
        recalibrate, measure = self._steps
        with self._search.distribute_strategy.scope():
            for variable in self._moving:
                variable.assign(_start(variable))
        left = 1.0
        for batch in self._batches[0]:
            recalibrate(batch, mixture)
            left *= kernels.MOMENTUM
        if self._corrected and left < 1:
            for variable in self._moving:
                variable.assign((tf.convert_to_tensor(variable) - left * _start(variable)) / (1 - left))
        score, total, samples = 0, 0.0, 0
        for batch in self._batches[1]:
            own, loss, size = (part.numpy().item() for part in measure(batch, mixture))
            score, total, samples = score + own, total + loss * size, samples + size
        return score / samples, total / samples

    def restore(self):
        """Gives the batch norms their statistics back."""
        for variable, value in zip(self._moving, self._before, strict=True):
            variable.assign(value)


def _start(variable):
    """Mean 0 and variance 1 of every channel, like a variable (2, channels)."""
    return tf.stack([tf.zeros(variable.shape[1:], variable.dtype), tf.ones(variable.shape[1:], variable.dtype)])


def one_hot(choices, picks):
    """The mixture of one choice in each row, {table: float32 array (rows, candidates)}.

    Args:
        choices: {table: `darts_tf.spaces.base.Choices`}.
        picks: {table: list of (row, candidate)}.
    """
    found = {}
    for name, table in choices.items():
        found[name] = np.zeros((len(table.rows), len(table.candidates)), np.float32)
        for row, candidate in picks[name]:
            found[name][row, candidate] = 1
    return found
