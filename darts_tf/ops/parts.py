"""What networks are made of: an operation at the shape at which it occurs, which can be counted or measured alone."""

import dataclasses
import math
from collections.abc import Callable

import keras

from darts_tf.costs import counts, tables
from darts_tf.ops import operations
from darts_tf.ops.stages import ReLU, SqueezeExcite


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of a network. Those of the same name and shapes are equal.

    Args:
        name: what it is, with all that matters to how it is computed but the shapes, "sep_conv_3x3 to 16, stride 2".
        shapes: ((height, width, channels), ...) of the images that it takes.
        layers: function of these, Keras tensors, -> its result, of standard Keras layers.
        ways: ((stages, channels of the result, channels of the images), ...), each of the first of the images, that
            have all of its weights; None if they are not known.
        beside: bytes of float32 images that are in memory beside its own, for one image.
    """

    name: str
    shapes: tuple
    layers: Callable = dataclasses.field(compare=False)
    ways: tuple | None = dataclasses.field(default=None, compare=False)
    beside: int = dataclasses.field(default=0, compare=False)

    def __str__(self):
        return f"{self.name} of {' and '.join('x'.join(map(str, shape)) for shape in self.shapes)}"

    def model(self):
        """It alone, a functional `keras.Model`."""
        images = [keras.Input(shape) for shape in self.shapes]
        return keras.Model(images, self.layers(*images))

    def counts(self):
        """{cost: number} of `darts_tf.costs.tables.ADDED`, see `darts_tf.costs.counts`; None for what is not known."""
        if self.ways is None:
            found = counts.added(self.model())
            return {name: value - tables.FILE.get(name, 0) if value else value for name, value in found.items()}
        total = dict.fromkeys(tables.ADDED, 0)
        for stages, outputs, inputs in self.ways:
            found = _counts(stages, outputs, inputs, self.shapes[0][:2])
            total = {name: total[name] + found[name] for name in total}
        return total

    def activations(self):
        """The most bytes of images that are in memory while it is computed, see `darts_tf.costs.counts`."""
        return self.beside + counts.activations(self.model())


def of_stages(name, stages, channels, shape, beside=0):
    """The `Part` of an operation.

    Args:
        name: what it is; the channels of the result and all that is in the stages follow from that and the shape.
        stages: list of `Stage`, or a Keras layer.
        channels: of the result.
        shape: (height, width, channels) of its images.
        beside: see `Part`.
    """
    ways = None if isinstance(stages, keras.layers.Layer) else ((tuple(stages), channels, shape[-1]),)
    return Part(name, (tuple(shape),), lambda x: operations.layers(stages, x, channels, "part"), ways, beside)


def _counts(stages, outputs, inputs, size):
    """What stages cost, a dict of `tables.ADDED`."""
    total = dict.fromkeys(tables.ADDED, 0)
    if stages and isinstance(stages[0], ReLU):
        total["int8_model_bytes"] += counts.BESIDE["relu"]
    for stage in stages:
        size = operations.result_of([stage], size)
        pixels = 1 if isinstance(stage, SqueezeExcite) else math.prod(size)
        weights = stage.weights(inputs, outputs, 1)
        kernels = [math.prod(weight.shape) for weight in weights if len(weight.shape) == 4]
        total["parameters"] += sum(math.prod(weight.shape) for weight in weights if weight.trainable)
        total["multiply_adds"] += sum(kernels) * pixels
        inputs = stage.channels(inputs, outputs)
        if stage.averages:
            total["int8_model_bytes"] += counts.BESIDE["average"]
        if kernels:  # a batch norm becomes part of the convolution before it, which has an offset then
            offsets = inputs + (stage.hidden(inputs) if isinstance(stage, SqueezeExcite) else 0)
            for name, size_of in counts.BYTES.items():
                total[name] += size_of(sum(kernels), offsets, len(kernels))
    return total


def joined(kind, count, shape):
    """The `Part` that adds or concatenates images.

    Args:
        kind: "Add" or "Concatenate".
        count: of images.
        shape: (height, width, channels) of each.
    """

    def layers(*images):
        return getattr(keras.layers, kind)()(images)

    return Part(f"{kind.lower()} {count}", (tuple(shape),) * count, layers)


def classifier(shape, outputs, bias=True):
    """The `Part` that makes logits of images: average pooling and a linear layer."""

    def layers(x):
        return keras.layers.Dense(outputs, use_bias=bias)(keras.layers.GlobalAveragePooling2D()(x))

    return Part(f"classifier of {outputs}{'' if bias else ', no bias'}", (tuple(shape),), layers)
