"""The space of NAS-Bench-201: one of five operations on each of the six edges of a cell (section 2.1 of its paper)."""

import dataclasses
import functools
import itertools
import random
from typing import ClassVar

from darts_tf.spaces.base import Architecture, SearchSpace, every_row, register_space
from darts_tf.spaces.cells.genotypes import every_edge
from darts_tf.spaces.cells.space import Cells

# In the order of the original code.
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
NODES = 3
MOST_NODES = 9


class Structure(Architecture):
    """A cell. As text it is `|nor_conv_3x3~0|+|none~0|skip_connect~1|`: for each node the operations and their sources.

    Attributes:
        names: names of the operations, by node, then by source.
    """

    @property
    def names(self):
        return self.chosen["cell"]

    def __str__(self):
        names, nodes = list(self.names), []
        while names:
            own = range(len(nodes) + 1)
            nodes.append("".join(f"|{names.pop(0)}~{source}" for source in own) + "|")
        return "+".join(nodes)

    @property
    def index(self):
        """The number of the cell in NAS-Bench-201, from 0; None if it is none of its cells."""
        return _numbers().get(self.names) if len(self.names) == len(every_edge(NODES, 1)) else None

    @property
    def is_connected(self):
        """Whether something of the input reaches the result."""
        reached = [True]
        for own in self._by_node():
            reached.append(any(name != "none" and reached[source] for source, name in enumerate(own)))
        return reached[-1]

    def unique(self, zero=True):
        """A text that is the same for cells that compute the same, as far as `zero` says.

        Args:
            zero: None: nodes are sums, whose order does not matter; False: and `skip_connect` is the node before it;
                True: and `none`, and what is made of it, is nothing.
        """
        nodes = ["0"]
        for own in self._by_node():
            terms = []
            for name, source in zip(own, nodes, strict=False):
                if zero and (name == "none" or source == "#"):
                    terms.append("#")
                else:
                    terms.append(source if name == "skip_connect" and zero is not None else f"({source})@{name}")
            nodes.append("+".join(sorted(terms)))
        return nodes[-1]

    def _by_node(self):
        names = iter(self.names)
        for node in itertools.count(1):
            own = list(itertools.islice(names, node))
            if not own:
                return
            yield own


@functools.cache
def _numbers():
    """{names: number} of all cells. The numbers are those of the benchmark, whose authors shuffled them with a seed."""
    cells = list(itertools.product(OPERATIONS, repeat=len(every_edge(NODES, 1))))
    random.Random(88).shuffle(cells)
    return {names: number for number, names in enumerate(cells)}


@register_space("nas-bench-201")
@dataclasses.dataclass(frozen=True)
class NasBench201(SearchSpace):
    """A cell of one input whose `nodes` other nodes are each the sum of what all nodes before it give.

    Args:
        nodes: nodes of a cell besides its input, 1 to 9; the last is the result.
        primitives: names of the candidate operations.

    Raises:
        ValueError: an argument is out of range.
    """

    nodes: int = NODES
    primitives: tuple = OPERATIONS

    sizes: ClassVar = {"init_channels": 16, "layers": 5}
    notation: ClassVar = "|"
    leaves_out: ClassVar = True

    def __post_init__(self):
        if self.nodes not in range(1, MOST_NODES + 1):
            raise ValueError(f"nodes={self.nodes}: expected 1 to {MOST_NODES} nodes besides the input.")
        object.__setattr__(self, "primitives", tuple(self.primitives))
        if not self.primitives or len(set(self.primitives)) < len(self.primitives):
            raise ValueError(f"primitives={list(self.primitives)}: expected at least one operation, each once.")

    def edges(self, kind="cell"):
        """{(node, source): names of the candidates}; node 0 is the input of the cell."""
        return dict.fromkeys(every_edge(self.nodes, 1), self.primitives)

    @property
    def choices(self):
        rows = [f"{source} → {node}" for node, source in self.edges()]
        return {"cell": every_row("Cell", rows, self.primitives)}

    def supernet_class(self):
        from darts_tf.spaces.nas_bench_201.networks import SearchNetwork201

        return SearchNetwork201

    supernet = Cells.supernet  # of `layers` cells in each stage

    def network(self, architecture, task, init_channels=16, layers=5):
        """Three stages of `layers` cells each, see `networks.network_201`."""
        from darts_tf.spaces.nas_bench_201.networks import network_201

        return network_201(
            architecture, init_channels, layers, task.outputs, task.input_shape, normalization=task.normalization
        )

    def decode(self, picks):
        names = {row: self.primitives[candidate] for row, candidate in picks["cell"]}
        return Structure(self, {"cell": tuple(names.get(row, "none") for row in range(len(self.edges())))})

    @classmethod
    def from_notation(cls, text):
        """The `Structure` of a text.

        Raises:
            ValueError: it is not of this form; says where.
        """
        nodes, names = text.split("+"), []
        for node, part in enumerate(nodes, 1):
            own = part.split("|")
            if own[0] or own[-1] or len(own) != node + 2 or node > MOST_NODES:
                example = "".join(f"|OPERATION~{source}" for source in range(min(node, MOST_NODES))) + "|"
                raise ValueError(f"Not a cell of {cls.name}: node {node} is {part[:100]!r}; expected {example}.")
            for source, edge in enumerate(own[1:-1]):
                name, _, start = edge.rpartition("~")
                if not 0 < len(name) <= 100 or not name.isprintable() or start != str(source):
                    raise ValueError(
                        f"Not a cell of {cls.name}: node {node} has {edge[:100]!r}; expected OPERATION~{source}."
                    )
                names.append(name)
        more = tuple(name for name in dict.fromkeys(names) if name not in OPERATIONS)
        return Structure(cls(len(nodes), OPERATIONS + more), {"cell": tuple(names)})

    def pictures(self, architecture, names=None):
        from darts_tf.spaces.nas_bench_201.picture import StructurePicture

        return [StructurePicture(self, names or architecture.names)]

    def costs(self, task, init_channels=16, layers=5):
        """As of any space, without building each network: every edge adds what its operation has."""
        from darts_tf.spaces.nas_bench_201.costs import costs

        return costs(self, task, init_channels, layers)
