"""What chains cost, without building each: the sum of what their layers cost."""

import math

import numpy as np

from darts_tf.ops.stages import SqueezeExcite
from darts_tf.spaces.chain.blocks import block, ends

COSTS = ("parameters", "multiply_adds")


class Costs:
    """The costs of the chains of a space.

        costs = Costs(space, task)
        costs(architecture)                          # {"parameters": ..., "multiply_adds": ...}
        costs.expected("multiply_adds", mixture)     # of candidates that count as a mixture says

    Args:
        space: `Chains`.
        task: `darts_tf.data.tasks.Task` on images.
        init_channels: channels of the stem; by default the description's.

    Attributes:
        fixed: {cost: number}, what all chains have in common.
        layers: {cost: float64 array (layers, candidates, widths)}; zero for candidates that a layer does not have.
    """

    def __init__(self, space, task, init_channels=None):
        self._space, description = space, space.described(init_channels)
        made, (height, width, depth) = ends(description), task.input_shape
        stem, (height, width) = stage_counts(*made["stem"], depth, (height, width))
        names, layers = space.choices["layers"].candidates, description.layers()
        rows = np.zeros((2, len(layers), len(names), len(space.widths)))
        for row, layer in enumerate(layers):
            after = [-(-size // layer.stride) for size in (height, width)]
            for name in layer.candidates:
                for place, part in enumerate(space.widths):
                    shape = layer.inputs, layer.outputs, layer.stride, description.activation, True, float(part)
                    own = block(name, *shape)
                    for stages, channels in own.operations().values():
                        counts, _ = stage_counts(stages, channels, layer.inputs // (1 + own.splits), (height, width))
                        rows[:, row, names.index(name), place] += counts
            height, width = after
        head, _ = stage_counts(*made["head"], layers[-1].outputs, (height, width))
        classifier = description.head * task.outputs
        classifier = np.array([classifier + (task.outputs if description.bias else 0), classifier])
        self.fixed = dict(zip(COSTS, (stem + head + classifier).tolist(), strict=True))
        self.layers = dict(zip(COSTS, rows, strict=True))

    def __call__(self, architecture):
        picks = self._space.picks(architecture)
        places = dict(picks.get("widths", ()))
        return {
            cost: int(self.fixed[cost] + sum(rows[row, name, places.get(row, 0)] for row, name in picks["layers"]))
            for cost, rows in self.layers.items()
        }

    def least(self, cost):
        """The least that a chain of the space costs."""
        table = self._space.choices["layers"].mask
        return self.fixed[cost] + np.where(table, self.layers[cost].min(-1), np.inf).min(-1).sum()

    def expected(self, cost, mixture):
        """The cost of candidates that count as a mixture says.

        Args:
            cost: its name.
            mixture: {table: tensor (rows, candidates)}.

        Returns:
            Scalar tensor of the mixture's type; it can be differentiated.
        """
        import tensorflow as tf

        layers = mixture["layers"]
        rows = tf.constant(self.layers[cost], layers.dtype)
        widths = mixture.get("widths", tf.ones([rows.shape[0], 1], layers.dtype))
        return tf.cast(self.fixed[cost], layers.dtype) + tf.einsum("lc,lw,lcw->", layers, widths, rows)


def stage_counts(stages, outputs, inputs, size):
    """Parameters and multiply-adds of stages, an array, and the height and width of their result."""
    parameters = products = 0
    for stage in stages:
        steps = getattr(stage, "strides", None) or (getattr(stage, "stride", 1),) * 2
        size = [-(-length // step) for length, step in zip(size, steps, strict=True)]
        pixels = 1 if isinstance(stage, SqueezeExcite) else math.prod(size)
        for weight in stage.weights(inputs, outputs, 1):
            parameters += math.prod(weight.shape) if weight.trainable else 0
            products += math.prod(weight.shape) * pixels if "kernel" in weight.name else 0
        inputs = stage.channels(inputs, outputs)
    return np.array([parameters, products], float), size
