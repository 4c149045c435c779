"""Spaces of chains: which block each layer is, and how wide."""

import dataclasses
from typing import ClassVar

from darts_tf.spaces.base import Architecture, SearchSpace, checked_widths, every_row, register_space
from darts_tf.spaces.chain import description as descriptions
from darts_tf.spaces.chain.description import Description, Stage


class Chain(Architecture):
    """The blocks of a chain, and their widths where these are searched.

    As text it is `chain:32:mb3_k3,identity|mb6_k5*0.5`: what the space needs to be told, and the layers of each stage,
    with their widths where these are not 1.

    Attributes:
        names: of the blocks.
        widths: numbers, for each layer the part of its inner channels that it has.
    """

    @property
    def names(self):
        return self.chosen["layers"]

    @property
    def widths(self):
        return [float(width) for width in self.chosen.get("widths", ["1"] * len(self.names))]

    def __str__(self):
        pairs = zip(self.names, self.widths, strict=True)
        texts, stages = iter([name if width == 1 else f"{name}*{width:g}" for name, width in pairs]), []
        for stage in self.space.description.stages:
            stages.append(",".join(next(texts) for _ in range(stage.layers)))
        return f"{self.space.notation}{self.space.told()}{'|'.join(stages)}"


class Chains(SearchSpace):
    """What all spaces of chains have in common.

    A subclass has, as fields or properties:

    Attributes:
        description: `Description`.
        widths: the parts of its inner channels that a layer may have, texts of numbers above 0 up to 1, which is one
            of them; "1" alone if they are not searched.
    """

    widths: tuple = ("1",)
    has_paths: ClassVar = True
    sizes: ClassVar = {"init_channels": None, "layers": None}  # as described

    def __post_init__(self):
        object.__setattr__(self, "widths", checked_widths(self.widths))

    @property
    def choices(self):
        description = self.description
        rows, names = tuple(description.rows()), description.candidates()
        layers = every_row("Layers", rows, names)
        allowed = tuple(tuple(name in layer.candidates for name in names) for layer in description.layers())
        tables = {"layers": layers._replace(allowed=None if all(map(all, allowed)) else allowed)}
        if len(self.widths) > 1:
            tables["widths"] = every_row("Widths", rows, self.widths)
        return tables

    def described(self, init_channels=None):
        """The `Description` whose stem has so many channels, see `Description.scaled`."""
        return self.description if init_channels is None else self.description.scaled(init_channels)

    def told(self):
        """What the text of an architecture tells of the space, beside its name."""
        return ""

    @classmethod
    def of_told(cls, told, stages, widths):
        """The space of the text of an architecture.

        Args:
            told: the text between the space's name and its layers, "" if there is none.
            stages: list of the names of each stage's blocks.
            widths: those that it has.
        """
        if told:
            raise ValueError(f"{cls.name}:{told[:100]}: expected the layers, nothing before them.")
        return cls(widths=widths)

    def configuration(self):
        """What `spaces.of` makes this space of, a dict that JSON can hold."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"space": self.spec, **fields}

    def fitted(self, task):
        reduction, size = self.description.reduction(), min(task.input_shape[:2])
        if size < reduction:
            raise ValueError(
                f"its strides make images {reduction} times smaller, which leaves nothing of {size} pixels: expected "
                f"images of at least {reduction} pixels."
            )
        self._check_blocks()
        return self

    def _check_blocks(self):
        """Raises ValueError if a layer cannot have one of its blocks."""
        from darts_tf.spaces.chain.blocks import block

        for layer in self.description.layers():
            for name in layer.candidates:
                block(name, layer.inputs, layer.outputs, layer.stride)

    @staticmethod
    def check_primitive(name):
        descriptions.check_block(name)

    def supernet(
        self,
        task,
        relaxation="softmax",
        init_channels=None,
        sync_batch_norm=False,
        candidates=None,
        limits=(),
    ):
        """The chain whose layers have all candidates, see `networks.ChainSupernet`."""
        from darts_tf.spaces.chain.networks import ChainSupernet

        return ChainSupernet(
            self,
            task.outputs,
            init_channels,
            limits,
            sync_batch_norm=sync_batch_norm,
            relaxation=relaxation,
            candidates=candidates,
        )

    def network(self, architecture, task, init_channels=None):
        """The chain of an architecture, see `networks.chain_network`."""
        from darts_tf.spaces.chain.networks import chain_network

        space = architecture.space
        Chains.fitted(space, task)
        return chain_network(
            space.described(init_channels),
            architecture.names,
            architecture.widths,
            task.outputs,
            task.input_shape,
            task.normalization,
        )

    def costs(self, task, init_channels=None):
        """As of any space, without building each network: the layers' costs are added up."""
        from darts_tf.spaces.chain.costs import costs

        return costs(self, task, init_channels)

    def decode(self, picks):
        return Chain(self, super().decode(picks).chosen)

    def check(self, architecture):
        super().check(self._with_widths(architecture))

    def picks(self, architecture):
        return super().picks(self._with_widths(architecture))

    def _with_widths(self, architecture):
        """The architecture with a width for each layer if there is a choice, without if there is none."""
        chosen = {"layers": architecture.chosen.get("layers")}
        if "widths" in self.choices:
            chosen["widths"] = tuple(f"{width:g}" for width in architecture.widths)
        elif set(architecture.widths) - {1.0}:
            raise ValueError(f"{architecture}: expected layers of the width 1.")
        return Chain(self, chosen)

    @classmethod
    def from_notation(cls, text):
        """The `Chain` of a text.

        Raises:
            ValueError: it is not of this form, or not in the space that it tells.
        """
        told, _, layers = text.removeprefix(cls.notation).rpartition(":")
        stages = [[layer.partition("*")[::2] for layer in stage.split(",")] for stage in layers.split("|")]
        names = [[name for name, _ in stage] for stage in stages]
        try:
            widths = [float(width or 1) for stage in stages for _, width in stage]
        except ValueError:
            raise ValueError(f"Not a chain: {text[:200]!r}: expected widths such as mb3_k3*0.5.") from None
        space = cls.of_told(told, names, tuple({*widths, 1.0}))
        expected = [stage.layers for stage in space.description.stages]
        if [len(stage) for stage in names] != expected:
            raise ValueError(
                f"Not an architecture of {cls.name}: {text[:200]!r}: expected stages of "
                f"{', '.join(map(str, expected))} layers."
            )
        chosen = {"layers": tuple(name for stage in names for name in stage)}
        if len(space.widths) > 1:
            chosen["widths"] = tuple(f"{width:g}" for width in widths)
        return Chain(space, chosen)

    def pictures(self, architecture, names=None, init_channels=None):
        """As of any space: one for both tables, whose stem has so many channels, by default the description's."""
        from darts_tf.spaces.chain.picture import ChainPicture

        return [ChainPicture(self, init_channels)]


PIXELS = 8, 512
CANDIDATES = ("identity", "mb3_k3", "mb6_k3", "mb3_k5", "mb6_k5")


@register_space("chain")
@dataclasses.dataclass(frozen=True)
class AdaptiveChain(Chains):
    """A chain of inverted residuals whose depth and strides suit the images.

    Images of 8 pixels go through 3 stages of 2 layers, those of 224 through 5 of 4, which see them 32 times smaller.

    Args:
        pixels: height or width of the images, the smaller of both; `fitted` says it.
        primitives: names of the blocks that each layer chooses among, see `blocks`; the first of a stage is no
            identity.
        widths: see `Chains`.

    Raises:
        ValueError: an argument is out of range.
    """

    pixels: int = 32
    primitives: tuple = CANDIDATES
    widths: tuple = ("1",)

    adapts: ClassVar = ("pixels",)
    notation: ClassVar = "chain:"

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "primitives", tuple(self.primitives))
        if not PIXELS[0] <= self.pixels <= PIXELS[1]:
            raise ValueError(f"images of {self.pixels} pixels: expected {PIXELS[0]} to {PIXELS[1]}.")
        if not self.first() or len(set(self.primitives)) < len(self.primitives):
            names = ",".join(self.primitives)
            raise ValueError(f"primitives={names}: expected blocks, each once, at least one that is no identity.")
        for name in self.primitives:
            descriptions.check_block(name)

    def first(self):
        """The candidates of layers that change the shape."""
        return tuple(name for name in self.primitives if name not in descriptions.IDENTITY)

    @property
    def description(self):
        halvings = min(max((self.pixels // 4).bit_length() - 1, 1), 5)
        layers = 2 if self.pixels < 24 else 3 if self.pixels < 96 else 4
        stages, in_stem = [], halvings > 3
        halvings -= in_stem
        for place, channels in enumerate((16, 24, 40, 80, 112)[: max(3, halvings + 1)]):
            stride = 2 if 0 < place <= halvings else 1
            stages.append(Stage(channels, self.primitives, layers, stride, self.first()))
        return Description(tuple(stages), 16, 2 if in_stem else 1, 640)

    def fitted(self, task):
        space = dataclasses.replace(self, pixels=min(min(task.input_shape[:2]), PIXELS[1]))
        space._check_blocks()
        return space

    def told(self):
        return f"{self.pixels}:"

    @classmethod
    def of_told(cls, told, stages, widths):
        if told.startswith("{"):
            return DescribedChain(told, widths)
        if not told.isdecimal() or len(told) > 5:
            raise ValueError(f"chain:{told[:100]}: expected the images' height, as in chain:32:mb3_k3,identity|...")
        more = dict.fromkeys(name for stage in stages for name in stage if name not in CANDIDATES)
        return cls(int(told), (*CANDIDATES, *more), widths)


@dataclasses.dataclass(frozen=True)
class DescribedChain(Chains):
    """The space of a description.

    Args:
        text: the description, JSON, see `description`; `spec` is the same.
        widths: see `Chains`.

    Raises:
        ValueError: it is something else; says what is expected.
    """

    text: str = Description((Stage(16, ("identity", "mb3_k3")),)).to_json()
    widths: tuple = ("1",)

    name = "chain"
    notation: ClassVar = "chain:"

    def __post_init__(self):
        super().__post_init__()
        description = descriptions.from_json(self.text)
        object.__setattr__(self, "description", description)
        object.__setattr__(self, "text", description.to_json())

    description = None  # a `Description`

    @property
    def spec(self):
        return self.text

    def configuration(self):
        return {"space": self.spec, "widths": self.widths}

    def told(self):
        return f"{self.text}:"


MOBILE = ("mb3_k3", "mb6_k3", "mb3_k5", "mb6_k5", "mb3_k7", "mb6_k7")


@register_space("fbnet")
@dataclasses.dataclass(frozen=True)
class FBNetSpace(Chains):
    """22 layers of nine candidates (tables 1 and 2 of Wu et al., FBNet, CVPR 2019)."""

    widths: tuple = ("1",)

    notation: ClassVar = "fbnet:"
    description: ClassVar = Description(
        tuple(
            Stage(
                channels,
                ("k3_e1", "k3_e1_g2", "k3_e3", "k3_e6", "k5_e1", "k5_e1_g2", "k5_e3", "k5_e6", "skip"),
                layers,
                stride,
            )
            for channels, layers, stride in (
                *((16, 1, 1), (24, 4, 2), (32, 4, 2), (64, 4, 2)),
                *((112, 4, 1), (184, 4, 2), (352, 1, 1)),
            )
        ),
        *(16, 2, 1984, "relu"),
    )


@register_space("proxyless")
@dataclasses.dataclass(frozen=True)
class ProxylessSpace(Chains):
    """21 layers after a fixed one (Cai et al., ProxylessNAS, 2019); those that keep the shape may be left out."""

    widths: tuple = ("1",)

    notation: ClassVar = "proxyless:"
    description: ClassVar = Description(
        (
            Stage(16, ("mb1_k3",)),
            *(
                Stage(channels, (*MOBILE, "identity") if layers > 1 else MOBILE, layers, stride, MOBILE)
                for channels, layers, stride in (
                    *((24, 4, 2), (40, 4, 2), (80, 4, 2)),
                    *((96, 4, 1), (192, 4, 2), (320, 1, 1)),
                )
            ),
        ),
        *(32, 2, 1280),
    )


@register_space("spos")
@dataclasses.dataclass(frozen=True)
class SinglePathSpace(Chains):
    """20 layers of four blocks of ShuffleNetV2 (table 2 of Guo et al., Single Path One-Shot, ECCV 2020)."""

    widths: tuple = ("1",)

    notation: ClassVar = "spos:"
    description: ClassVar = Description(
        tuple(
            Stage(channels, ("shuffle_k3", "shuffle_k5", "shuffle_k7", "xception"), layers, 2)
            for channels, layers in ((64, 4), (160, 4), (320, 8), (640, 4))
        ),
        *(16, 2, 1024, "relu", False, False),
    )


@register_space("nas-bench-macro")
@dataclasses.dataclass(frozen=True)
class NasBenchMacro(Chains):
    """8 layers of three candidates (Su et al., NAS-Bench-Macro, 2021), 6,561 networks for images of CIFAR-10.

    As text an architecture may be the benchmark's, too: `nas-bench-macro:02012100`.
    """

    widths: tuple = ("1",)

    BLOCKS: ClassVar = ("identity", "mb3_k3", "mb6_k5")
    notation: ClassVar = "nas-bench-macro:"
    description: ClassVar = Description(
        tuple(
            Stage(channels, ("identity", "mb3_k3", "mb6_k5"), layers, 2)
            for channels, layers in ((64, 2), (128, 3), (256, 3))
        ),
        *(32, 1, 1280, "relu"),
    )

    @classmethod
    def from_notation(cls, text):
        key = text.removeprefix(cls.notation)
        if len(key) == 8 and set(key) <= set("012"):
            return Chain(cls(), {"layers": tuple(cls.BLOCKS[int(digit)] for digit in key)})
        return super().from_notation(text)

    @classmethod
    def key(cls, architecture):
        """What the benchmark calls an architecture of this space: "02012100"."""
        return "".join(str(cls.BLOCKS.index(name)) for name in architecture.names)
