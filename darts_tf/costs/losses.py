"""How the cost of a network enters the loss of alpha: each is a function of the loss and of the expected cost.

Each is an object; `--cost_loss` and `DARTS(cost_loss=...)` name it. Costs are above 1: they are thousands of
multiply-adds.
"""

from darts_tf.cli.registry import Registry


class CostLoss:
    """What every one is.

    Args:
        weight: what the cost counts; `--cost_weight`. Default: its own.
        reference: the cost that others are compared with, above 1.

    Attributes:
        name: what `register_cost_loss` calls it.
        weight: by default.
        compares: whether it has a reference.
    """

    name = None
    weight = 1.0
    compares = True

    def __init__(self, weight=None, reference=2.0):
        self.weight = type(self).weight if weight is None else weight
        self.reference = reference

    def __call__(self, loss, cost):
        """The loss that counts the cost.

        Args:
            loss: scalar tensor.
            cost: scalar tensor above 1, the expected cost.

        Returns:
            Scalar tensor.
        """
        raise NotImplementedError

    def to_config(self):
        """What `get` makes it of again, a dict that JSON can hold."""
        return {"named": self.name, "weight": self.weight, "reference": self.reference}


_losses = Registry("cost_loss", CostLoss)
register_cost_loss, names, get = _losses.register, _losses.names, _losses.get


@register_cost_loss("fbnet")
class FBNetLoss(CostLoss):
    """CE * alpha * log(LAT) ** beta (equation 2 of FBNet), with alpha = 0.2, which is `weight`, and beta = 0.6."""

    weight = 0.2
    exponent = 0.6
    compares = False

    def __call__(self, loss, cost):
        import tensorflow as tf

        return loss * self.weight * tf.math.log(cost) ** self.exponent


@register_cost_loss("mul_log")
class MultipliedLog(CostLoss):
    """alpha * CE * (log(LAT) / log(LAT_ref)) ** beta with beta = 0.6 (of the authors' code of ProxylessNAS)."""

    exponent = 0.6

    def __call__(self, loss, cost):
        import tensorflow as tf

        ratio = tf.math.log(cost) / tf.math.log(tf.cast(self.reference, cost.dtype))
        return self.weight * loss * ratio**self.exponent


@register_cost_loss("add_linear")
class AddedLinear(CostLoss):
    """CE + lambda * (LAT - LAT_ref) / LAT_ref (of the authors' code of ProxylessNAS), with lambda = 0.1."""

    weight = 0.1

    def __call__(self, loss, cost):
        return loss + self.weight * (cost - self.reference) / self.reference


@register_cost_loss("add_log")
class AddedLog(CostLoss):
    """CE + lambda * log(LAT) / log(LAT_ref) (equation 9 of DenseNAS, whose base of the logarithm is LAT_ref)."""

    weight = 0.1

    def __call__(self, loss, cost):
        import tensorflow as tf

        return loss + self.weight * tf.math.log(cost) / tf.math.log(tf.cast(self.reference, cost.dtype))
