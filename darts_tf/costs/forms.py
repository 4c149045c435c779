"""How the cost of a network enters the loss of alpha: each is a function of the loss and of the expected cost.

Each is an object; `--cost_form` names it. Costs are in the units of `darts_tf.costs.tables.Table.unit`.
"""

import dataclasses

from darts_tf.cli.registry import Registry
from darts_tf.costs.tables import Table


class CostForm:
    """What every one is.

    Args:
        weight: what the cost counts; `--cost_weight`. Default: its own.
        reference: the cost that others are compared with.

    Attributes:
        name: what `register_cost_form` calls it.
        weight: by default.
        compares: whether it has a reference.
        takes_log: whether it takes logarithms of costs, which must be above 1 then.
    """

    name = None
    weight = 1.0
    compares = True
    takes_log = False

    def __init__(self, weight=None, reference=2.0):
        self.weight = type(self).weight if weight is None else weight
        self.reference = reference

    def __call__(self, loss, cost, weight=None):
        """The loss that counts the cost.

        Args:
            loss: scalar tensor.
            cost: scalar tensor, the expected cost.
            weight: scalar in place of the attribute.

        Returns:
            Scalar tensor.
        """
        raise NotImplementedError

    def _weight(self, weight):
        return self.weight if weight is None else weight

    def to_config(self):
        """What `get` makes it of again, a dict that JSON can hold."""
        return {"named": self.name, "weight": self.weight, "reference": self.reference}


_forms = Registry("cost_form", CostForm)
register_cost_form, names, get = _forms.register, _forms.names, _forms.get


@register_cost_form("fbnet")
class FBNetLoss(CostForm):
    """CE * alpha * log(LAT) ** beta (equation 2 of FBNet), with alpha = 0.2, which is `weight`, and beta = 0.6."""

    weight = 0.2
    exponent = 0.6
    compares = False
    takes_log = True

    def __call__(self, loss, cost, weight=None):
        import tensorflow as tf

        return loss * self._weight(weight) * tf.math.log(cost) ** self.exponent


@register_cost_form("mul_log")
class MultipliedLog(CostForm):
    """alpha * CE * (log(LAT) / log(LAT_ref)) ** beta with beta = 0.6 (of the authors' code of ProxylessNAS)."""

    exponent = 0.6
    takes_log = True

    def __call__(self, loss, cost, weight=None):
        import tensorflow as tf

        ratio = tf.math.log(cost) / tf.math.log(tf.cast(self.reference, cost.dtype))
        return self._weight(weight) * loss * ratio**self.exponent


@register_cost_form("add_linear")
class AddedLinear(CostForm):
    """CE + lambda * (LAT - LAT_ref) / LAT_ref (of the authors' code of ProxylessNAS), with lambda = 0.1."""

    weight = 0.1

    def __call__(self, loss, cost, weight=None):
        return loss + self._weight(weight) * (cost - self.reference) / self.reference


@register_cost_form("add_log")
class AddedLog(CostForm):
    """CE + lambda * log(LAT) / log(LAT_ref) (equation 9 of DenseNAS, whose base of the logarithm is LAT_ref)."""

    weight = 0.1
    takes_log = True

    def __call__(self, loss, cost, weight=None):
        import tensorflow as tf

        return loss + self._weight(weight) * tf.math.log(cost) / tf.math.log(tf.cast(self.reference, cost.dtype))


@dataclasses.dataclass(frozen=True)
class Cost:
    """What `darts_tf.DARTS` adds to alpha's loss: a cost of the networks of a space, in some form.

    Attributes:
        table: `darts_tf.costs.tables.Table`.
        form: `CostForm`.
    """

    table: Table
    form: CostForm

    def to_config(self):
        """What `Cost.from_config` makes it of again, a dict that JSON can hold."""
        return {"table": self.table.to_config(), "form": self.form.to_config()}

    @classmethod
    def from_config(cls, config):
        return cls(Table.from_config(config["table"]), get(**config["form"]))
