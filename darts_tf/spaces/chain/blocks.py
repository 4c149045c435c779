"""The blocks that layers of a chain choose among, by name, as stages of `darts_tf.ops.stages`.

mb3_k5        inverted residual: expansion 3, depthwise kernel 5 (Sandler et al., MobileNetV2, 2018); without expansion
              (mb1) it has no convolution before the depthwise one
mb3_k5_se     the same with squeeze-and-excitation (Howard et al., MobileNetV3, 2019); ..._hs has hard swish as well
k5_e1_g2      inverted residual of FBNet (Wu et al., 2019): the same with 1x1 convolutions in 2 groups, a shuffle after
              the first of them, which is there without expansion, too
shuffle_k5    of ShuffleNetV2 with depthwise kernel 5, and xception, with three of them (Guo et al., Single Path
              One-Shot, 2020)
identity      nothing: the chain is one layer shorter; FBNet calls it skip. Where the shape changes, a 1x1 convolution
"""

import dataclasses

import keras
import tensorflow as tf

from darts_tf.ops import kernels, operations
from darts_tf.ops.stages import Activation, BatchNorm, Conv, Depthwise, ReLU, Shuffle, SqueezeExcite, Stage
from darts_tf.spaces.chain.description import IDENTITY, INVERTED, OF_FBNET, SHUFFLE, check_block


@dataclasses.dataclass(frozen=True)
class Width(Stage):
    """Where the channels are that a narrower layer does without. In the supernet it multiplies them by zero."""

    def finish(self, x, prepared, weights, groups, training):
        return (x * tf.cast(weights[0], x.dtype) if weights else x), []

    def layers(self, x, outputs, name):
        return x


@dataclasses.dataclass(frozen=True)
class Block:
    """A block from `inputs` to `outputs` channels.

    Attributes:
        main: stages.
        outputs: channels of their result.
        beside: stages of the way past them; None if there is none. Without stages it is the image, of which a block
            that concatenates takes the even channels, and its main stages the odd ones.
        concatenates: whether both are concatenated, else they are added.
    """

    main: tuple
    outputs: int
    beside: tuple | None = None
    concatenates: bool = False

    @property
    def splits(self):
        """Whether each of both ways sees half of the channels."""
        return self.concatenates and not self.beside

    def operations(self):
        """{"main": (stages, channels of the result), "beside": ...}: what has weights."""
        own = {"main": (self.main, self.outputs), "beside": (self.beside or (), self.outputs)}
        return {name: part for name, part in own.items() if part[0]}

    def compute(self, x, weights, training):
        """The block of images.

        Args:
            x: (batch, height, width, inputs).
            weights: {name of an operation: one list of tensors per stage}.
            training: see `Stage`.

        Returns:
            (batch, height', width', outputs), and the new values of the weights that are not trainable, in the order of
            `operations`.
        """
        first, second = (x[..., ::2], x[..., 1::2]) if self.splits else (x, x)
        y, updates = operations.compute(self.main, second, weights.get("main", ()), 1, training)
        if self.beside is None:
            return y, updates
        way, more = operations.compute(self.beside, first, weights.get("beside", ()), 1, training)
        return (tf.concat([way, y], -1) if self.concatenates else way + y), updates + more

    def layers(self, x, name):
        """The block as standard Keras layers."""
        first = second = x
        if self.splits:
            height, width, channels = x.shape[1:]
            pairs = keras.layers.Reshape((height * width * channels // 2, 2, 1), name=f"{name}_pairs")(x)
            halves = [
                keras.layers.Cropping2D(((0, 0), crop), name=f"{name}_{which}_pairs")(pairs)
                for which, crop in (("even", (0, 1)), ("odd", (1, 0)))
            ]
            first, second = (
                keras.layers.Reshape((height, width, channels // 2), name=f"{name}_{which}")(half)
                for which, half in zip(("even", "odd"), halves, strict=True)
            )
        y = operations.layers(self.main, second, self.outputs, name)
        if self.beside is None:
            return y
        way = operations.layers(self.beside, first, self.outputs, f"{name}_beside")
        joined = keras.layers.Concatenate if self.concatenates else keras.layers.Add
        return joined(name=f"{name}_joined")([way, y])


def block(name, inputs, outputs, stride, activation="relu6", affine=True, width=1.0, epsilon=kernels.EPSILON):
    """The `Block` of a name.

    Args:
        name: see above.
        inputs, outputs: channels of its input and its result.
        stride: 1 or 2.
        activation: name of one of `keras.activations`, of inverted residuals.
        affine: whether batch norms learn a scale and an offset.
        width: of an inverted residual that expands, the part of the channels between its convolutions that it has.
        epsilon: of batch norms.

    Raises:
        ValueError: there is no such block, or none for these channels.
    """
    check_block(name)
    norm = BatchNorm(affine, epsilon)
    if name in IDENTITY:
        same = stride == 1 and inputs == outputs
        return Block(() if same else (Conv(strides=(stride, stride)), norm), outputs)
    if name == "xception" or SHUFFLE.fullmatch(name):
        return _shuffle_block(name, inputs, outputs, stride, norm)
    parts, shuffle, se = 1, (), ()
    if found := INVERTED.fullmatch(name):
        expansion, size = int(found[1]), int(found[2])
        activation = "hard_silu" if found[4] else activation
        se = (SqueezeExcite(),) if found[3] else ()
        expands = expansion > 1
    else:
        found = OF_FBNET.fullmatch(name)
        size, expansion, parts = int(found[1]), int(found[2]), int(found[3] or 1)
        shuffle, expands, activation = (Shuffle(parts),) if parts > 1 else (), True, "relu"
        if inputs % parts or outputs % parts:
            raise ValueError(f"{name} from {inputs} to {outputs} channels: expected numbers that {parts} divides.")
    hidden = hidden_channels(expansion * inputs, width, parts) if expands else inputs
    acts = ReLU() if activation == "relu" else Activation(activation)
    expand = (Conv(width=hidden, parts=parts), norm, acts, *shuffle) if expands else ()
    narrow = (Width(),) if expands else ()
    between = Depthwise(size, stride), norm, acts, *narrow, *se
    main = *expand, *between, Conv(parts=parts), norm
    return Block(main, outputs, () if stride == 1 and inputs == outputs else None)


def hidden_channels(channels, width, parts=1):
    """How many of so many channels a layer of a width has, at least one in each part."""
    return max(round(channels * width / parts), 1) * parts


def ends(description, affine=True):
    """{"stem": (stages, channels), "head": ...}: what is before the layers, and behind them."""
    name, stride = description.activation, description.stem_stride
    norm = BatchNorm(affine), ReLU() if name == "relu" else Activation(name)
    return {
        "stem": ([Conv((3, 3), (stride, stride)), *norm], description.stem),
        "head": ([Conv(), *norm], description.head),
    }


def _shuffle_block(name, inputs, outputs, stride, norm):
    """The four blocks of Single Path One-Shot; at stride 1 half of the channels passes by."""
    if (
        inputs % 2
        or outputs % 2
        or (stride == 1 and inputs != outputs)
        or outputs <= inputs // (1 if stride > 1 else 2)
    ):
        raise ValueError(
            f"{name} from {inputs} to {outputs} channels, stride {stride}: expected even numbers, more of them where "
            "the stride is 2, else as many."
        )
    middle = outputs // 2
    own = outputs - (inputs // 2 if stride == 1 else inputs)
    acts, conv = (norm, ReLU()), Conv(width=middle)
    if name == "xception":
        size, steps = 3, [Depthwise(3, stride), norm, conv, *acts, Depthwise(3), norm, conv]
        main = *steps, *acts, Depthwise(3), norm, Conv(), *acts
    else:
        size = int(SHUFFLE.fullmatch(name)[1])
        main = conv, *acts, Depthwise(size, stride), norm, Conv(), *acts
    beside = (Depthwise(size, stride), norm, Conv(width=inputs), *acts) if stride > 1 else ()
    return Block(main, own, beside, concatenates=True)
