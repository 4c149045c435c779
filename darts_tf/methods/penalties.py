"""Penalties: what is added to the loss of alpha, a function of alpha alone.

Each is an object; `--penalty` and `DARTS(penalty=...)` name it.
"""

import numpy as np

from darts_tf.cli.registry import Registry


class Penalty:
    """What every penalty is. Objects are without state and may be shared.

    Attributes:
        name: what `register_penalty` calls it.
        weight: what it is multiplied by, by default; `--penalty_weight`.
        schedule: how the weight goes from epoch to epoch, a name of `darts_tf.methods.schedules`.
    """

    name = None
    weight = 1.0
    schedule = "constant"

    def __call__(self, alphas, candidates):
        """The penalty.

        Args:
            alphas: {table: tensor (rows, candidates)}.
            candidates: {table: bool array (rows, candidates)}, which rows have which; the others must not count.

        Returns:
            Scalar tensor, differentiable with respect to alphas.
        """
        raise NotImplementedError


_penalties = Registry("penalty", Penalty)
register_penalty, names, get = _penalties.register, _penalties.names, _penalties.get


@register_penalty("beta_decay")
class BetaDecay(Penalty):
    """The mean over rows of the log of the sum of exponentials of alpha (equation 11 of beta-DARTS)."""

    weight = 50.0
    schedule = "linear"

    def __call__(self, alphas, candidates):
        import tensorflow as tf

        rows = []
        for name, alpha in alphas.items():
            masked = tf.where(candidates[name], alpha, tf.constant(-np.inf, alpha.dtype))
            rows.append(tf.reduce_logsumexp(masked, -1))
        return tf.reduce_mean(tf.concat(rows, 0))
