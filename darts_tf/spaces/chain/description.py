"""What a chain consists of: a stem, stages of layers, a head. As JSON:

{
    "stem": {"channels": 16, "stride": 1},
    "stages": [
        {"channels": 24, "layers": 2, "stride": 2, "candidates": ["mb3_k3", "mb6_k5", "identity"]}
    ],
    "head": {"channels": 160}
}

The first layer of a stage has its stride; "first" lists other candidates for it. "activation" is that of stem, head and
inverted residuals, "relu6" if it is not there, or "relu" or "hard_silu". "affine": false leaves out what batch norms
learn, while the chain is searched. Head: {"bias": false} leaves out the offsets of the classifier.
"""

import dataclasses
import json
import re

from darts_tf.spaces.base import LONGEST

MOST = 1000  # layers, and the like
WIDEST = 8192  # channels
ACTIVATIONS = ("relu6", "relu", "hard_silu")
# The names of blocks, see `blocks`.
INVERTED = re.compile(r"mb([1-9])_k([3579])(_se)?(_hs)?")
OF_FBNET = re.compile(r"k([3579])_e([1-9])(?:_g([2-9]))?")
SHUFFLE = re.compile(r"shuffle_k([3579])")
NAMES = "identity, mb3_k5 (expansion 1 to 9, kernel 3, 5, 7 or 9; then _se, _hs), k5_e1_g2, shuffle_k5, xception"
IDENTITY = ("identity", "skip")
EXPECTED = "expected an object with stages, and perhaps stem, head, activation and affine."


def check_block(name):
    """Raises ValueError if there is no block of a name."""
    known = name in (*IDENTITY, "xception") or any(form.fullmatch(name) for form in (INVERTED, OF_FBNET, SHUFFLE))
    if not known:
        raise ValueError(f"no block {name!r}: expected {NAMES}.")


@dataclasses.dataclass(frozen=True)
class Stage:
    """Layers of as many channels.

    Attributes:
        channels: of the result of each layer.
        candidates: names of blocks that each layer chooses among, see `blocks`.
        layers: how many there are.
        stride: of the first of them, 1 or 2.
        first: candidates of the first layer; None for those of the others.
    """

    channels: int
    candidates: tuple
    layers: int = 1
    stride: int = 1
    first: tuple | None = None


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer of a chain: channels of its input and its result, its stride, and its candidates."""

    inputs: int
    outputs: int
    stride: int
    candidates: tuple


@dataclasses.dataclass(frozen=True)
class Description:
    """A chain.

    Attributes:
        stages: tuple of `Stage`.
        stem, stem_stride: channels of the 3x3 convolution before the layers, and its stride.
        head: channels of the 1x1 convolution behind them.
        activation: name of one of `keras.activations`.
        affine: whether batch norms of the supernet learn a scale and an offset.
        bias: whether the classifier has offsets.
    """

    stages: tuple
    stem: int = 16
    stem_stride: int = 1
    head: int = 1280
    activation: str = "relu6"
    affine: bool = True
    bias: bool = True

    def layers(self):
        """All layers, a list of `Layer`."""
        found, inputs = [], self.stem
        for stage in self.stages:
            for place in range(stage.layers):
                names = stage.first if place == 0 and stage.first else stage.candidates
                found.append(Layer(inputs, stage.channels, stage.stride if place == 0 else 1, names))
                inputs = stage.channels
        return found

    def rows(self):
        """What the layers are called: "1.1" is the first of the first stage."""
        return [
            f"{place}.{layer}" for place, stage in enumerate(self.stages, 1) for layer in range(1, stage.layers + 1)
        ]

    def candidates(self):
        """All names, in the order in which they are named; "identity" comes first, if it is there."""
        names = dict.fromkeys(name for stage in self.stages for name in (*stage.candidates, *(stage.first or ())))
        return tuple(sorted(names, key=lambda name: name not in IDENTITY))

    def scaled(self, stem):
        """The same chain, as many times as wide as its stem is with so many channels; all channels are even."""

        def width(channels):
            return max(2 * round(channels * stem / self.stem / 2), 2)

        stages = tuple(dataclasses.replace(stage, channels=width(stage.channels)) for stage in self.stages)
        return dataclasses.replace(self, stages=stages, stem=stem, head=width(self.head))

    def reduction(self):
        """How many times larger an image is than what the head sees of it."""
        total = self.stem_stride
        for stage in self.stages:
            total *= stage.stride
        return total

    def to_json(self):
        """JSON text, as `from_json` reads it."""
        stages = []
        for stage in self.stages:
            fields = dataclasses.asdict(stage)
            stages.append({name: value for name, value in fields.items() if value is not None})
        head = {"channels": self.head, **({} if self.bias else {"bias": False})}
        values = {"stem": {"channels": self.stem, "stride": self.stem_stride}, "stages": stages, "head": head}
        return json.dumps({**values, "activation": self.activation, "affine": self.affine})


def from_json(text):
    """The `Description` of JSON text.

    Raises:
        ValueError: it is something else; says what, and what is expected.
    """
    try:
        fields = json.loads(text) if len(text) <= LONGEST else None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error}); {EXPECTED}") from None
    _object(fields, "a chain", ("stages",), ("stem", "head", "activation", "affine"))
    stem = _object(fields.get("stem", {}), "stem", (), ("channels", "stride"))
    head = _object(fields.get("head", {}), "head", (), ("channels", "bias"))
    stages = fields["stages"]
    if not isinstance(stages, list) or not 0 < len(stages) <= MOST:
        raise ValueError("stages: expected a list of at least one stage.")
    activation = fields.get("activation", Description.activation)
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is {activation!r}: expected one of {', '.join(ACTIVATIONS)}.")
    found = Description(
        tuple(_stage(stage, f"stage {place}") for place, stage in enumerate(stages, 1)),
        _number(stem, "channels", "stem", WIDEST, Description.stem),
        _number(stem, "stride", "stem", 2, Description.stem_stride),
        _number(head, "channels", "head", WIDEST, Description.head),
        activation,
        _flag(fields, "affine", "a chain"),
        _flag(head, "bias", "head"),
    )
    if len(found.layers()) > MOST:
        raise ValueError(f"{len(found.layers())} layers: expected at most {MOST}.")
    return found


def _stage(fields, where):
    _object(fields, where, ("channels", "candidates"), ("layers", "stride", "first"))
    return Stage(
        _number(fields, "channels", where, WIDEST),
        _names(fields["candidates"], f"{where}: candidates"),
        _number(fields, "layers", where, MOST, 1),
        _number(fields, "stride", where, 2, 1),
        _names(fields["first"], f"{where}: first") if "first" in fields else None,
    )


def _object(fields, where, needed, more):
    if not isinstance(fields, dict) or not set(needed) <= set(fields) or not set(fields) <= {*needed, *more}:
        expected = " and ".join(needed) or "nothing needed"
        raise ValueError(f"{where}: expected an object with {expected}, and perhaps {', '.join(more)}.")
    return fields


def _number(fields, name, where, most, default=None):
    value = fields.get(name, default)
    if type(value) is not int or not 1 <= value <= most:
        raise ValueError(f"{where}: {name} is {value!r}; expected a whole number from 1 to {most}.")
    return value


def _flag(fields, name, where):
    value = fields.get(name, True)
    if type(value) is not bool:
        raise ValueError(f"{where}: {name} is {value!r}; expected true or false.")
    return value


def _names(names, where):
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{where}: expected a list of names of blocks, at least one.")
    if len(set(names)) < len(names):
        raise ValueError(f"{where}: a block is there twice; expected it once.")
    for name in names:
        try:
            check_block(name)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    return tuple(names)
