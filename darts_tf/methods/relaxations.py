"""Relaxations: how alphas, one number per candidate, become a mixture of the candidates (equation 2 of DARTS).

Each is an object; `--relaxation` and `SearchNetwork(relaxation=...)` name it. One of your own:

    import tensorflow as tf
    from darts_tf.methods.relaxations import Relaxation, register_relaxation

    @register_relaxation("cubed")
    class Cubed(Relaxation):
        formula = "softmax(alpha ** 3)"

        def __call__(self, alpha):
            return tf.nn.softmax(alpha**3)

This file needs TensorFlow when a relaxation is computed on tensors, not before.
"""

import math

import numpy as np

from darts_tf.cli.registry import Registry

NEVER = -1e9  # alpha of a candidate that a row does not have: its weight is zero


class Relaxation:
    """What every relaxation is; a subclass says how the weights are computed, the rest follows.

    Objects are without state and may be shared. `darts_tf.methods.contracts.check_relaxation` tells whether one is
    as it has to be.

    Attributes:
        name: what `register_relaxation` calls it.
        formula: of `strengths`, a text for the report: "softmax(alpha)".
        hard: whether one candidate of a row has the weight one and the others zero, so that only that one need be
            computed.
        normalized: whether the weights of a row sum to one.
        second_order: whether equations 6 to 8 make sense: whether the weights' gradient is that of the weights.
        learns: whether alpha is trained; else the weights alone are, and something else decides in the end.
    """

    name = None
    formula = "weights"
    hard = False
    normalized = True
    second_order = True
    learns = True

    def paths(self, purpose):
        """How many candidates of a row are computed, those of the largest weights; None for all.

        Args:
            purpose: of the pass, see `darts_tf.DARTS`; None outside of training.
        """
        return 1 if self.hard else None

    def __call__(self, alpha):
        """The weights of the candidates.

        Args:
            alpha: tensor (rows, candidates), floating. Each row chooses for itself. `NEVER` is that of a candidate
                that the row does not have.

        Returns:
            Tensor like alpha, not negative, that can be differentiated with respect to alpha.
        """
        raise NotImplementedError

    def strengths(self, alpha):
        """What the decision and the report see of alphas: by default the same weights, as NumPy in float64.

        Args:
            alpha: array (..., rows, candidates).

        Returns:
            float64 array like alpha; the larger, the more a candidate is wanted.
        """
        import tensorflow as tf

        return self(tf.constant(np.asarray(alpha, np.float64))).numpy()


class Sampled(Relaxation):
    """A relaxation that draws: weights are a function of alpha and of noise.

    Without noise they are what decides, as in validation.

    Attributes:
        temperature: (first, last) by default; None if there is no temperature.
        schedule: how it goes from epoch to epoch, a name of `darts_tf.methods.schedules`.
    """

    temperature = None
    schedule = "linear"

    def noise(self, alpha, seed):
        """What is drawn for alpha.

        Args:
            alpha: tensor (rows, candidates).
            seed: int32 tensor (2,); the same seed gives the same noise on every device.

        Returns:
            Tensor like alpha, perhaps with more axes behind, without a gradient.
        """
        raise NotImplementedError

    def __call__(self, alpha, noise=None, temperature=1.0):
        """As of any relaxation.

        Args:
            alpha: tensor (rows, candidates).
            noise: of `noise`, or None.
            temperature: scalar above 0.
        """
        raise NotImplementedError


_relaxations = Registry("relaxation", Relaxation)
register_relaxation, names, get = _relaxations.register, _relaxations.names, _relaxations.get


@register_relaxation("softmax")
class Softmax(Relaxation):
    """The weights of a row are the softmax of its alphas (equation 2 of DARTS)."""

    formula = "softmax(alpha)"

    def __call__(self, alpha):
        import tensorflow as tf

        return tf.nn.softmax(alpha)

    def strengths(self, alpha):
        alpha = np.asarray(alpha, np.float64)
        exponentials = np.exp(alpha - alpha.max(axis=-1, keepdims=True))
        # Summed one by one and inverted, as the original does: rounding decides between edges that tie.
        return exponentials * (1 / np.cumsum(exponentials, axis=-1)[..., -1:])


@register_relaxation("sigmoid")
class Sigmoid(Relaxation):
    """Candidates do not compete: the weight of each is the sigmoid of its alpha (equation 5 of FairDARTS)."""

    formula = "sigmoid(alpha)"
    normalized = False

    def __call__(self, alpha):
        import tensorflow as tf

        return tf.sigmoid(alpha)


def gumbel(shape, seed, dtype):
    """Noise of the standard Gumbel distribution, -log(-log(u))."""
    import tensorflow as tf

    uniform = tf.random.stateless_uniform(shape, seed, np.finfo(dtype.as_numpy_dtype).tiny, 1, dtype)
    return -tf.math.log(-tf.math.log(uniform))


@register_relaxation("gumbel_soft")
class GumbelSoft(Sampled):
    """Softmax of alphas with Gumbel noise, over a temperature: a concrete distribution (equation 4 of SNAS)."""

    formula = Softmax.formula
    temperature = (1.0, 0.03)
    strengths = Softmax.strengths

    def noise(self, alpha, seed):
        return gumbel(alpha.shape, seed, alpha.dtype)

    def __call__(self, alpha, noise=None, temperature=1.0):
        import tensorflow as tf

        return tf.nn.softmax(alpha if noise is None else (alpha + noise) / tf.cast(temperature, alpha.dtype))


@register_relaxation("gumbel_hard_v1")
class GumbelHardV1(Sampled):
    """One candidate per row, drawn by Gumbel noise, with the gradient of the soft weights (equations 5 and 6 of GDAS).

    Only the candidate that is drawn is computed; it alone has a gradient.
    """

    formula = Softmax.formula
    temperature = (10.0, 0.1)
    schedule = "linear_to_last"
    hard = True
    second_order = False
    others = False  # whether candidates that are not drawn have a gradient
    noise, strengths = GumbelSoft.noise, Softmax.strengths

    def __call__(self, alpha, noise=None, temperature=1.0):
        import tensorflow as tf

        logits = tf.nn.log_softmax(alpha)
        soft = tf.nn.softmax(logits if noise is None else (logits + noise) / tf.cast(temperature, alpha.dtype))
        drawn = tf.one_hot(tf.argmax(soft, -1), alpha.shape[-1], dtype=alpha.dtype)
        return tf.stop_gradient(drawn - soft) + soft  # straight through: the value of one, the gradient of the other


@register_relaxation("gumbel_hard")
class GumbelHard(GumbelHardV1):
    """As `gumbel_hard_v1`, and as GDAS was published: weights of candidates that are not drawn are added as numbers.

    They are zero, but have a gradient: the sum of the gradient of all that the edge gives.
    """

    others = True


@register_relaxation("binary_gates")
class BinaryGates(Sampled):
    """One candidate per row, drawn by the softmax of its alphas, is computed to train the weights (ProxylessNAS).

    Where alpha is trained two are, drawn without replacement; one of both is active, drawn by the softmax of the two,
    whose alphas get the gradients of both gates (equation 4 and section 3.2.1 there). Without noise the strongest
    candidate has the weight one.
    """

    formula = Softmax.formula
    hard = True
    second_order = False
    strengths = Softmax.strengths

    def paths(self, purpose):
        return 2 if purpose == "alpha" else 1

    def noise(self, alpha, seed):
        import tensorflow as tf

        seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        return tf.stack([gumbel(alpha.shape, one, alpha.dtype) for one in seeds], -1)

    def rescaled(self, before, after, drawn):
        """Alphas after a step, such that those that were not drawn keep their probabilities (section 3.2.1 there).

        Args:
            before, after: tensors (rows, candidates), alphas before and after the step.
            drawn: what the step's mixture was, above zero for the candidates that were drawn.
        """
        import tensorflow as tf

        drawn = drawn > 0
        sums = [tf.reduce_logsumexp(tf.where(drawn, alpha, NEVER), -1, keepdims=True) for alpha in (before, after)]
        return tf.where(drawn, after - (sums[1] - sums[0]), before)

    def __call__(self, alpha, noise=None, temperature=1.0, paths=1):
        """As of any relaxation.

        Args:
            alpha: tensor (rows, candidates).
            noise: of `noise`, (rows, candidates, 2): that which draws the candidates, and that which draws the active
                one of two; or None.
            temperature: it has none.
            paths: 1 or 2, how many are drawn.

        Returns:
            One for the active candidate. With two paths the other one has the smallest positive number, which counts
            nothing, but says that it is drawn; and the two have gradients.
        """
        import tensorflow as tf

        first, second = (0.0, 0.0) if noise is None else tf.unstack(noise, axis=-1)
        # The largest of log-probabilities with Gumbel noise are draws without replacement (Kool et al., 2019).
        order = tf.stop_gradient(tf.nn.log_softmax(alpha) + first)
        drawn = tf.math.top_k(order, min(paths, alpha.shape[-1])).indices
        if paths == 1:
            value, gates = tf.one_hot(drawn[:, 0], alpha.shape[-1], dtype=alpha.dtype), tf.nn.softmax(alpha)
            return value + (gates - tf.stop_gradient(gates))
        is_drawn = tf.reduce_sum(tf.one_hot(drawn, alpha.shape[-1], dtype=alpha.dtype), 1)
        is_drawn *= tf.cast(alpha > NEVER / 2, alpha.dtype)  # a row may have one candidate only
        gates = tf.nn.softmax(tf.where(is_drawn > 0, alpha, NEVER))
        smallest = np.finfo(alpha.dtype.as_numpy_dtype).tiny
        active = tf.argmax(tf.stop_gradient(tf.math.log(tf.maximum(gates, smallest)) + second), -1)
        value = tf.maximum(tf.one_hot(active, alpha.shape[-1], dtype=alpha.dtype), is_drawn * smallest)
        return value + (gates - tf.stop_gradient(gates))


@register_relaxation("uniform")
class Uniform(Sampled):
    """One candidate per row is drawn and computed, each with the same probability (Single Path One-Shot, section 3.2).

    Alpha is not trained: what the trained weights are worth decides, see `darts_tf.methods.evolution`.
    """

    formula = Softmax.formula
    hard = True
    second_order = False
    learns = False
    noise, strengths = GumbelSoft.noise, Softmax.strengths

    def __call__(self, alpha, noise=None, temperature=1.0):
        import tensorflow as tf

        known = tf.stop_gradient(alpha)
        there = tf.where(known > NEVER / 2, known if noise is None else noise, NEVER)
        return tf.one_hot(tf.argmax(there, -1), alpha.shape[-1], dtype=alpha.dtype)


@register_relaxation("path_dropout")
class PathDropout(Sampled):
    """Each candidate is kept with the same probability, independently; the mean of those that are kept counts.

    One stays if none was kept. As `uniform` it does not train alpha. (Bender et al., Understanding and Simplifying
    One-Shot Architecture Search, ICML 2018, sums what is kept; the mean does not grow with their number, so that a
    single candidate fits.)
    """

    formula = Softmax.formula
    second_order = False
    learns = False
    keep = 0.5
    noise, strengths = GumbelSoft.noise, Softmax.strengths

    def __call__(self, alpha, noise=None, temperature=1.0):
        import tensorflow as tf

        known = tf.stop_gradient(alpha)
        there = known > NEVER / 2
        order = tf.where(there, known if noise is None else noise, NEVER)
        kept = tf.one_hot(tf.argmax(order, -1), alpha.shape[-1], dtype=alpha.dtype)
        if noise is not None:  # the quantile of Gumbel noise above which a part of the draws is
            above = -math.log(-math.log(1 - self.keep))
            kept = tf.maximum(kept, tf.cast(there & (noise > above), alpha.dtype))
        return kept / tf.reduce_sum(kept, -1, keepdims=True)


@register_relaxation("drawn_softmax")
class DrawnSoftmax(Sampled):
    """Some candidates per row are drawn by the softmax of their alphas; the softmax of these counts (DenseNAS).

    One to train the weights, two to train alpha, without replacement (section 3.4 there); only these are computed.
    """

    formula = Softmax.formula
    second_order = False
    noise, strengths = GumbelSoft.noise, Softmax.strengths

    def paths(self, purpose):
        return {None: None, "alpha": 2}.get(purpose, 1)

    def __call__(self, alpha, noise=None, temperature=1.0, paths=None):
        """As of any relaxation.

        Args:
            alpha: tensor (rows, candidates).
            noise: of `noise`, or None.
            temperature: it has none.
            paths: how many are drawn; None for all.
        """
        import tensorflow as tf

        if paths is None or paths >= alpha.shape[-1]:
            return tf.nn.softmax(alpha)
        order = tf.stop_gradient(alpha if noise is None else alpha + noise)  # see `BinaryGates`
        drawn = tf.reduce_sum(tf.one_hot(tf.math.top_k(order, paths).indices, alpha.shape[-1]), 1)
        return tf.nn.softmax(tf.where(drawn > 0, alpha, NEVER))


@register_relaxation("dirichlet")
class Dirichlet(Sampled):
    """The weights of a row are drawn from a Dirichlet distribution of concentration elu(alpha) + 1 (DrNAS).

    The gradient is pathwise, through the gamma variables whose shares the weights are, with implicit derivatives
    (Figurnov et al. 2018). Without noise they are the distribution's mean.
    """

    formula = "mean of Dirichlet(elu(alpha) + 1)"

    def concentration(self, alpha):
        """elu(alpha) + 1, a tensor; never quite zero."""
        import tensorflow as tf

        return tf.nn.elu(alpha) + 1

    def noise(self, alpha, seed):
        import tensorflow as tf

        return tf.stop_gradient(gamma(self.concentration(alpha), seed))

    def __call__(self, alpha, noise=None, temperature=1.0):
        import tensorflow as tf

        wanted = self.concentration(alpha)
        drawn = wanted if noise is None else tf.where(wanted > 0, _through(wanted, noise), 0)
        return drawn / tf.reduce_sum(drawn, -1, keepdims=True)

    def strengths(self, alpha):
        alpha = np.asarray(alpha, np.float64)
        wanted = np.where(alpha > 0, alpha + 1, np.exp(np.minimum(alpha, 0)))
        return wanted / wanted.sum(-1, keepdims=True)


PROPOSALS = 32  # each is accepted with a probability above 0.95


def gamma(concentration, seed):
    """Draws from gamma distributions (Marsaglia & Tsang, 2000); TensorFlow's own op is for CPUs only.

    Args:
        concentration: tensor, not negative; 0 gives 0.
        seed: int32 tensor (2,).

    Returns:
        Tensor like concentration, at least the smallest normal number where the concentration is above 0.
    """
    import tensorflow as tf

    dtype, shape = concentration.dtype, concentration.shape
    smallest = np.finfo(dtype.as_numpy_dtype).tiny
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 3))
    uniform, boost = (
        tf.random.stateless_uniform(size, one, smallest, 1, dtype)
        for size, one in (([PROPOSALS, *shape], seeds[0]), (shape, seeds[1]))
    )
    normal = tf.random.stateless_normal([PROPOSALS, *shape], seeds[2], dtype=dtype)
    small = concentration < 1  # drawn with one more, and multiplied by a power of another uniform variable
    d = concentration + tf.where(small, tf.ones([], dtype), 0) - 1 / 3
    root = 1 + normal / tf.sqrt(9 * d)
    v = tf.maximum(root, smallest) ** 3
    accepted = (root > 0) & (tf.math.log(uniform) < normal**2 / 2 + d * (1 - v + tf.math.log(tf.maximum(v, smallest))))
    first = tf.one_hot(tf.argmax(accepted, 0), PROPOSALS, axis=0, dtype=dtype)
    drawn = d * tf.reduce_sum(first * v, 0)
    drawn *= tf.where(small, boost ** (1 / tf.maximum(concentration, smallest)), 1)
    return tf.where(concentration > 0, tf.maximum(drawn, smallest), 0)


def _through(concentration, drawn):
    """`drawn`, with the derivative of gamma variables with respect to their concentration.

    That of the cumulative distribution at what was drawn is zero, so d drawn / d concentration is the ratio of its two
    partial derivatives.
    """
    import tensorflow as tf

    @tf.custom_gradient
    def through(concentration, drawn):
        def gradient(upstream):
            density = tf.exp((concentration - 1) * tf.math.log(drawn) - drawn - tf.math.lgamma(concentration))
            derivative = -tf.raw_ops.IgammaGradA(a=concentration, x=drawn) / density
            return upstream * derivative, None

        return tf.identity(drawn), gradient

    some = concentration > 0
    return through(tf.where(some, concentration, 1), tf.where(some, drawn, 1))
