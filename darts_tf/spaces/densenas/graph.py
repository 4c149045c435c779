"""Blocks that are densely connected: a network is a path among them (section 3.1 of DenseNAS)."""

import dataclasses
import itertools
import json
import math

MOST = 200  # blocks
MB = tuple(f"mb{expansion}_k{kernel}" for kernel in (3, 5, 7) for expansion in (3, 6))


@dataclasses.dataclass(frozen=True)
class Graph:
    """Blocks 0, 1, ..., each of which reads from some of those before it.

    A block is a head, an operation of its own for each block that it may read from, and then a stack of layers that
    keep its width. The first block is what the stem gives, the last a 1x1 convolution before the classifier; neither
    has anything to choose.

    Args:
        channels: of each block.
        layers: of the stack of each block, 0 for the first and the last.
        stages: of each block the number of its stage: 0 for the first, then as large or larger by one.
        strides: of each stage, 1 or 2: of heads that read from the stage before it.
        reach: of each stage: the blocks after one of its blocks that may read from it. They are of its own stage or
            of the next; the block after it is always among them.
        heads: names of the operations that a head may be.
        stack: names of those that a layer may be; `identity` is a layer that is not there.

    Raises:
        ValueError: an argument is out of range, or does not go with another.
    """

    channels: tuple
    layers: tuple
    stages: tuple
    strides: tuple
    reach: tuple
    heads: tuple = MB
    stack: tuple = (*MB, "identity")

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            object.__setattr__(self, field.name, value := tuple(value))
            if field.name in ("heads", "stack"):
                well = value and all(isinstance(name, str) for name in value) and len(set(value)) == len(value)
                what = "names of operations, each once"
            else:
                least, most = {"layers": (0, 100), "stages": (0, MOST), "strides": (1, 2)}.get(field.name, (1, 10**5))
                well = all(isinstance(number, int) and least <= number <= most for number in value)
                what = f"whole numbers from {least} to {most}"
            if not well:
                raise ValueError(f"{field.name}={list(value)}: expected {what}.")
        blocks, stages = len(self.channels), self.stages
        if not 3 <= blocks <= MOST:
            raise ValueError(f"channels={list(self.channels)}: expected those of 3 to {MOST} blocks.")
        for name in ("layers", "stages"):
            if len(getattr(self, name)) != blocks:
                raise ValueError(f"{name}={list(getattr(self, name))}: expected {blocks}, one for each block.")
        if stages[0] or any(after - before not in (0, 1) for before, after in itertools.pairwise(stages)):
            raise ValueError(f"stages={list(stages)}: expected 0, and for each block the stage before or the next.")
        for name in ("strides", "reach"):
            if len(getattr(self, name)) != stages[-1] + 1:
                count = stages[-1] + 1
                raise ValueError(f"{name}={list(getattr(self, name))}: expected {count}, one for each stage.")
        if self.layers[0] or self.layers[-1] or not any(self.layers):
            raise ValueError(f"layers={list(self.layers)}: expected some, and 0 for the first and the last block.")

    @property
    def blocks(self):
        """How many blocks there are."""
        return len(self.channels)

    def targets(self, block):
        """The blocks that may read from a block, a range."""
        stages = self.stages
        end = min(block + 1 + self.reach[stages[block]], self.blocks)
        return range(block + 1, next((b for b in range(block + 1, end) if stages[b] > stages[block] + 1), end))

    def sources(self, block):
        """The blocks that a block may read from, a list, the nearest first."""
        return [source for source in reversed(range(block)) if block in self.targets(source)]

    def stride(self, source, target):
        """The stride of the head of a block that reads from another."""
        return self.strides[self.stages[target]] if self.stages[target] > self.stages[source] else 1

    @property
    def heads_of(self):
        """[(source, target)]: the heads that are chosen, by target, the nearest source first."""
        inner = range(1, self.blocks - 1)
        return [(source, target) for target in inner for source in self.sources(target)]

    @property
    def layers_of(self):
        """[(block, layer)]: the layers that are chosen."""
        return [(block, layer) for block, count in enumerate(self.layers) for layer in range(count)]

    def likeliest_path(self, routing):
        """The path from the first to the last block whose product of probabilities is largest (section 3.4).

        It is found block by block (Viterbi). Of equals the block that is read from is the nearest.

        Args:
            routing: array (blocks - 1, most targets of a block), of each block the probabilities of its targets.

        Returns:
            list of the numbers of blocks, and the product, a float.
        """
        best, came = [1.0], [None]
        for block in range(1, self.blocks):
            ways = [
                (best[source] * float(routing[source][block - source - 1]), source) for source in self.sources(block)
            ]
            probability, source = max(ways, key=lambda way: way[0])  # which is the first of equals
            best.append(probability)
            came.append(source)
        path = [self.blocks - 1]
        while path[-1]:
            path.append(came[path[-1]])
        return path[::-1], best[-1]

    def strides_for(self, pixels, least=4):
        """The strides of the stem, and of the stages: 2 and those of the graph, if images are large.

        For smaller images, of which fewer than `least` pixels would be left, the first strides are 1.

        Args:
            pixels: the smaller of height and width.
            least: pixels.
        """
        strides = [2, *self.strides]
        for place in range(len(strides)):
            if pixels // math.prod(strides) >= least:
                break
            strides[place] = 1
        return strides

    def to_json(self):
        """JSON text, which `graph` reads."""
        return json.dumps(dataclasses.asdict(self))


# The configuration for ImageNet of section 4.1, of MobileNetV2's block.
PRESETS = {
    "mbv2": Graph(
        channels=(16, 24, 32, 40, 48, 56, 64, 72, 96, 112, 128, 160, 176, 192, 320, 352, 384, 1984),
        layers=(0, *[3] * 13, 0, 0, 0, 0),
        stages=(0, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6, 7),
        strides=(1, 2, 2, 2, 1, 2, 1, 1),
        reach=(4,) * 8,
    )
}


def graph(text):
    """The `Graph` of a name, "mbv2", or of JSON.

    Raises:
        ValueError: it is neither; says why.
    """
    if text in PRESETS:
        return PRESETS[text]
    expected = f"expected {', '.join(PRESETS)}, or JSON of {', '.join(f.name for f in dataclasses.fields(Graph))}."
    try:
        fields = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        raise ValueError(f"graph={text!r:.100}: {expected}") from None
    known = {field.name: field.default for field in dataclasses.fields(Graph)}
    needed = {name for name, default in known.items() if default is dataclasses.MISSING}
    well = isinstance(fields, dict) and needed <= set(fields) <= set(known)
    if not well or not all(isinstance(value, list) for value in fields.values()):
        raise ValueError(f"graph={text!r:.100}: {expected}")
    return Graph(**fields)
