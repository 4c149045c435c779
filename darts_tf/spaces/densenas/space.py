"""The space of DenseNAS: which blocks a network goes through, and which operations they have."""

import dataclasses
import functools
import itertools
from typing import ClassVar, NamedTuple

from darts_tf.costs import bounds
from darts_tf.methods import selections
from darts_tf.spaces.base import Architecture, Choices, SearchSpace, every_row, register_space
from darts_tf.spaces.chain.description import INVERTED
from darts_tf.spaces.densenas import graph as graphs


class Block(NamedTuple):
    """A block on the path of an architecture.

    Attributes:
        number: of the block, an int.
        channels: of its images.
        stride: of its head.
        operations: names: that of the head, and those of the layers that are there.
    """

    number: int
    channels: int
    stride: int
    operations: tuple


class Path(Architecture):
    """What a search finds: the blocks on a path, and their operations.

    As text it is `densenas(blocks=['1 mb6_k3', '4 mb6_k7 mb3_k3', ...])`: of each block between the first and the last
    its number, the operation of its head, and those of its layers.

    Attributes:
        chosen: {"blocks": tuple of such texts}.
    """

    @property
    def numbers(self):
        """The numbers of the blocks on the path, with the first and the last one of the graph."""
        return [0, *(int(text.split()[0]) for text in self.chosen["blocks"]), self.space.blocks.blocks - 1]

    @property
    def operations(self):
        """Of each block between the first and the last the names of its operations, the head's first."""
        return [tuple(text.split()[1:]) for text in self.chosen["blocks"]]


@functools.lru_cache
def _graph(text):
    return graphs.graph(text)


@register_space("densenas")
@dataclasses.dataclass(frozen=True)
class DenseNAS(SearchSpace):
    """A network is a path through densely connected blocks; each has a head, and layers that may not be there.

    The number of the blocks, their widths and their depths are found with their operations. Three tables of alphas:
    `routing`, for each block which of those after it reads from it; `heads`, the operation of a block for each block
    that it may read from; `stack`, that of each layer. An architecture is the likeliest path (Viterbi), and what is
    strongest on it.

    Args:
        graph: "mbv2", the published one, or JSON of a `graph.Graph`, which `--space` may say as well.

    Raises:
        ValueError: the graph is not as it should be.
    """

    graph: str = "mbv2"

    sizes: ClassVar = {"init_channels": None}  # as the graph says
    has_paths: ClassVar = True

    def __post_init__(self):
        if self.graph not in graphs.PRESETS:
            object.__setattr__(self, "graph", self.blocks.to_json())

    @property
    def spec(self):
        return self.name if self.graph in graphs.PRESETS else self.graph

    @property
    def blocks(self):
        """The `Graph`."""
        return _graph(self.graph)

    @property
    def choices(self):
        graph = self.blocks
        reach = max(len(graph.targets(block)) for block in range(graph.blocks - 1))
        rows = tuple(f"block {block}" for block in range(graph.blocks - 1))
        groups = tuple(((row,), 1) for row in range(len(rows)))
        steps = tuple(f"+{step}" for step in range(1, reach + 1))
        allowed = tuple(tuple(step < len(graph.targets(block)) for step in range(reach)) for block in range(len(rows)))
        return {
            "routing": Choices("Routing", rows, steps, groups, allowed=allowed),
            "heads": every_row("Heads", [f"{source} → {target}" for source, target in graph.heads_of], graph.heads),
            "stack": every_row("Layers", [f"block {block}, {layer}" for block, layer in graph.layers_of], graph.stack),
        }

    def fitted(self, task):
        for name in (*self.blocks.heads, *self.blocks.stack):
            if name != "identity" and not INVERTED.fullmatch(name):
                raise ValueError(f"{name}: expected identity, or an inverted residual such as mb6_k3.")
        return self

    def supernet(self, task, relaxation="softmax", init_channels=None, sync_batch_norm=False, candidates=None):
        """All blocks with all their candidates, see `networks.DenseSupernet`; strides suit the images."""
        from darts_tf.spaces.densenas.networks import DenseSupernet

        return DenseSupernet(
            self,
            task.outputs,
            init_channels,
            self.blocks.strides_for(min(task.input_shape[:2])),
            sync_batch_norm=sync_batch_norm,
            relaxation=relaxation,
            candidates=candidates,
        )

    def network(self, architecture, task, init_channels=None):
        """The network of a path, see `networks.dense_network`; strides suit the images."""
        from darts_tf.spaces.densenas.networks import dense_network

        strides = architecture.space.blocks.strides_for(min(task.input_shape[:2]))
        return dense_network(architecture, init_channels, task.outputs, task.input_shape, strides, task.normalization)

    def pictures(self, architecture, names=None, init_channels=None):
        from darts_tf.spaces.densenas.picture import BlocksPicture

        return [BlocksPicture(self, init_channels)]

    def costs(self, task, init_channels=None):
        """As of any space, without building each network: what is on the path is added up."""
        from darts_tf.spaces.densenas.costs import Costs

        return Costs(self, task, init_channels)

    def cost_of(self, table, picks):
        from darts_tf.spaces.densenas.costs import on_path

        chosen = {name: dict(own) for name, own in picks.items()}
        kept, path = {name: [] for name in chosen}, [0]
        while path[-1] < self.blocks.blocks - 1:
            path.append(path[-1] + 1 + chosen["routing"][path[-1]])
        for name, row in on_path(self.blocks, path):
            kept[name].append((row, chosen[name][row]))
        return table.of(kept)

    def expected(self, table, mixture, shares=None):
        from darts_tf.spaces.densenas.costs import chained

        return chained(self.blocks, (table.fixed, {name: rows for (name,), rows in table.rows.items()}), mixture)

    def cheapest(self, table):
        from darts_tf.spaces.densenas.costs import cheapest

        return cheapest(self.blocks, table)

    def within(self, strengths, costs, most):
        """The likeliest path whose costs are within bounds; every weaker operation on it makes it less likely."""
        from darts_tf.spaces.densenas.costs import likeliest

        options = bounds.Options(self.choices, strengths, costs, most)
        picks = {name: dict(own) for name, own in options.ordered(likeliest(self.blocks, options)).items()}
        nothing = {name: dict.fromkeys(range(len(one.rows)), 0) for name, one in self.choices.items()}
        return self.decode({name: list((rows | picks[name]).items()) for name, rows in nothing.items()})

    def decide(self, strengths, selection="strongest"):
        """The likeliest path by the strengths of routing, with the operations that a selection makes of theirs."""
        picks = selections.get(selection).decide(strengths, self.choices)
        path, _ = self.blocks.likeliest_path(strengths["routing"])
        steps = dict(picks["routing"]) | dict(self._steps(path))
        return self.decode(picks | {"routing": list(steps.items())})

    @staticmethod
    def _steps(path):
        """[(block, place of its target among its targets)] of a path."""
        return [(source, target - source - 1) for source, target in itertools.pairwise(path)]

    def decode(self, picks):
        """A `Path`: what was picked for blocks that are not on it is left out, as are layers that are not there."""
        graph, (routing, heads, stack) = self.blocks, (dict(picks[name]) for name in ("routing", "heads", "stack"))
        edges, layers = graph.heads_of, graph.layers_of
        path = [0]
        while path[-1] < graph.blocks - 1:
            path.append(path[-1] + 1 + routing[path[-1]])
        texts = []
        for source, block in itertools.pairwise(path[:-1]):
            names = [graph.heads[heads[edges.index((source, block))]]]
            names += [graph.stack[stack[layers.index((block, layer))]] for layer in range(graph.layers[block])]
            texts.append(" ".join([str(block), names[0], *(name for name in names[1:] if name != "identity")]))
        return Path(self, {"blocks": tuple(texts)})

    def picks(self, architecture):
        """The inverse of `decode`; of what is not on the path the first candidates."""
        self.check(architecture)
        graph, path = self.blocks, architecture.numbers
        routing = dict.fromkeys(range(graph.blocks - 1), 0) | dict(self._steps(path))
        heads, stack = dict.fromkeys(graph.heads_of, 0), dict.fromkeys(graph.layers_of, 0)
        for source, block, names in zip(path, path[1:], architecture.operations, strict=False):
            heads[source, block] = graph.heads.index(names[0])
            missing = graph.layers[block] - len(names[1:])
            for layer, name in enumerate((*names[1:], *["identity"] * missing)):
                stack[block, layer] = graph.stack.index(name)
        return {
            "routing": list(routing.items()),
            "heads": list(enumerate(heads.values())),
            "stack": list(enumerate(stack.values())),
        }

    def check(self, architecture):
        graph, texts = self.blocks, architecture.chosen.get("blocks")
        if not texts or set(architecture.chosen) != {"blocks"}:
            raise ValueError(f"an architecture of {self.name} has {', '.join(architecture.chosen)}: expected blocks.")
        before = 0
        for text in texts:
            number, *names = (text or "").split()[: 3 + max(graph.layers)] or [""]
            numbers = [str(block) for block in graph.targets(before) if block < graph.blocks - 1]
            if number not in numbers:
                raise ValueError(f"block {before} is followed by {text!r:.100}: expected {' or '.join(numbers)}.")
            before, (least, most) = int(number), self._layers(int(number))
            for name, known in zip(names, [graph.heads] + [graph.stack] * most, strict=False):
                if name not in known:
                    raise ValueError(f"block {number} has {name!r:.100}: expected one of {', '.join(known)}.")
            if not least < len(names) <= most + 1:
                raise ValueError(f"block {number} has {text!r:.100}: expected a head and {least} to {most} layers.")
        if graph.blocks - 1 not in graph.targets(before):
            raise ValueError(f"the last block is {before}: expected one that the network may end with.")

    def _layers(self, block):
        """The fewest and the most layers of a block."""
        most = self.blocks.layers[block]
        return 0 if "identity" in self.blocks.stack else most, most

    @classmethod
    def from_fields(cls, fields):
        architecture = super().from_fields(fields)
        return Path(architecture.space, architecture.chosen)

    def path(self, architecture, graph=None):
        """[`Block`] of an architecture, without the first and the last one of the graph.

        Args:
            architecture: `Path`.
            graph: another one of the same blocks, such as with other widths; by default the space's.
        """
        graph, numbers = graph or self.blocks, architecture.numbers
        return [
            Block(block, graph.channels[block], graph.stride(source, block), names)
            for source, block, names in zip(numbers, numbers[1:], architecture.operations, strict=False)
        ]
