"""Relaxations: how alphas, one number per candidate, become a mixture of the candidates (equation 2 of DARTS).

Each is an object; `--relaxation` and `SearchNetwork(relaxation=...)` name it. One of your own:

    import tensorflow as tf
    from darts_tf.methods.relaxations import Relaxation, register_relaxation

    @register_relaxation("sigmoid")
    class Sigmoid(Relaxation):
        formula = "sigmoid(alpha)"

        def __call__(self, alpha):
            return tf.sigmoid(alpha)

This file needs TensorFlow when a relaxation is computed on tensors, not before.
"""

import numpy as np

from darts_tf.cli.registry import Registry


class Relaxation:
    """What every relaxation is; a subclass says how the weights are computed, the rest follows.

    Objects are without state and may be shared. `darts_tf.methods.contracts.check_relaxation` tells whether one is
    as it has to be.

    Attributes:
        name: what `register_relaxation` calls it.
        formula: text for the report, "softmax(alpha)".
    """

    name = None
    formula = "weights"

    def __call__(self, alpha):
        """The weights of the candidates.

        Args:
            alpha: tensor (rows, candidates), floating. Each row chooses for itself.

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
