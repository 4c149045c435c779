"""Penalties: what is added to the loss of alpha, a function of alpha alone.

Each is an object; `--penalty` and `DARTS(penalty=...)` name it.
"""

import numpy as np

from darts_tf.cli.registry import Registry
from darts_tf.methods import relaxations


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


def _mean(function, alphas, candidates):
    """The mean of a function of alpha over the candidates that rows have, of all tables together."""
    import tensorflow as tf

    total = sum(tf.reduce_sum(tf.where(candidates[name], function(alpha), 0)) for name, alpha in alphas.items())
    return total / sum(int(np.sum(candidates[name])) for name in alphas)


@register_penalty("zero_one")
class ZeroOne(Penalty):
    """Minus the mean of (sigmoid(alpha) - 0.5) ** 2, which drives sigmoids to 0 and 1 (equation 6 of FairDARTS).

    The mean is over all candidates of all tables.
    """

    weight = 10.0

    def __call__(self, alphas, candidates):
        import tensorflow as tf

        return -_mean(lambda alpha: (tf.sigmoid(alpha) - 0.5) ** 2, alphas, candidates)


@register_penalty("zero_one_l1")
class ZeroOneL1(Penalty):
    """As `zero_one`, by distances: minus the mean of |sigmoid(alpha) - 0.5| (section 3.2 of FairDARTS)."""

    weight = 10.0

    def __call__(self, alphas, candidates):
        import tensorflow as tf

        return -_mean(lambda alpha: tf.abs(tf.sigmoid(alpha) - 0.5), alphas, candidates)


@register_penalty("anchor")
class Anchor(Penalty):
    """How far the Dirichlet distribution of each row is from the uniform one, summed over rows (section 3.1 of DrNAS).

    KL(Dir(c) || Dir(1)) of the concentration c = elu(alpha) + 1, as of `relaxations.Dirichlet`.
    """

    weight = 1e-3

    def __call__(self, alphas, candidates):
        import tensorflow as tf

        divergence = 0.0
        for name, alpha in alphas.items():
            there = tf.constant(candidates[name])
            some = tf.where(there, relaxations.Dirichlet().concentration(alpha), tf.ones([], alpha.dtype))
            weight = tf.cast(there, alpha.dtype)
            total = tf.reduce_sum(weight * some, -1)
            rows = tf.math.lgamma(total) - tf.math.lgamma(tf.reduce_sum(weight, -1))
            each = (some - 1) * (tf.math.digamma(some) - tf.math.digamma(total)[:, None]) - tf.math.lgamma(some)
            divergence += tf.reduce_sum(rows) + tf.reduce_sum(weight * each)
        return divergence
