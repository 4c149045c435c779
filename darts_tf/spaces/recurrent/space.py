"""The recurrent space of the paper: nodes that each transform one node before them (section 3.1.2)."""

import dataclasses
from typing import ClassVar

from darts_tf.spaces.base import Choices, SearchSpace, register_space
from darts_tf.spaces.cells.genotypes import every_edge
from darts_tf.spaces.recurrent import genotypes
from darts_tf.spaces.recurrent.genotypes import RecurrentGenotype

# In the order of the original code.
PRIMITIVES = ("none", "tanh", "relu", "sigmoid", "identity")
MOST_NODES = 100


@register_space("recurrent")
@dataclasses.dataclass(frozen=True)
class RecurrentSpace(SearchSpace):
    """A cell of `nodes` nodes, each an activation of one node before it; node 0 is made of input and hidden state.

    Args:
        nodes: nodes of the cell besides node 0, 1 to 100.
        primitives: names of the candidates, at least one of them other than "none"; any activation of Keras.

    Raises:
        ValueError: an argument is out of range.
    """

    nodes: int = 8
    primitives: tuple = PRIMITIVES

    PUBLISHED = genotypes.PUBLISHED
    kinds: ClassVar = ("text",)
    dataset: ClassVar = "topics"

    def __post_init__(self):
        if self.nodes not in range(1, MOST_NODES + 1):
            raise ValueError(f"nodes={self.nodes}: expected 1 to {MOST_NODES} nodes.")
        object.__setattr__(self, "primitives", tuple(self.primitives))
        names = self.activations
        if not names or len(set(self.primitives)) < len(self.primitives):
            raise ValueError(f"primitives={list(self.primitives)}: expected at least one activation, each once.")

    @property
    def activations(self):
        """The candidates other than "none"."""
        return tuple(name for name in self.primitives if name != "none")

    @property
    def edges(self):
        """(node, source) of each row."""
        return every_edge(self.nodes, 1)

    @property
    def choices(self):
        rows = [f"{source} → {node}" for node, source in self.edges]
        groups = [
            (tuple(row for row, (node, _) in enumerate(self.edges) if node == own), 1)
            for own in range(1, self.nodes + 1)
        ]
        table = Choices("Recurrent cell", tuple(rows), self.primitives, tuple(groups), frozenset(["none"]))
        return {"recurrent": table}

    @staticmethod
    def check_primitive(name):
        from darts_tf.ops import highway

        if name != "none":
            highway.activation(name)

    def supernet(
        self,
        task,
        relaxation="softmax",
        units=300,
        batch_size=256,
        dropout=0.75,
        dropouth=0.25,
        dropoutx=0.75,
        dropouti=0.2,
        dropoute=0.0,
        activation_penalty=0.0,
        temporal_penalty=1e-3,
        candidates=None,
        edge_normalization=False,
    ):
        from darts_tf.spaces.recurrent.networks import RecurrentSearchNetwork

        return RecurrentSearchNetwork(
            task.outputs,
            units,
            batch_size,
            dropout=(dropout, dropouth, dropoutx, dropouti, dropoute),
            penalties=(activation_penalty, temporal_penalty),
            relaxation=relaxation,
            space=self,
            candidates=candidates,
            edge_normalization=edge_normalization,
        )

    def network(
        self,
        architecture,
        task,
        units=850,
        batch_size=64,
        dropout=0.75,
        dropouth=0.25,
        dropoutx=0.75,
        dropouti=0.2,
        dropoute=0.1,
        activation_penalty=0.0,
        temporal_penalty=1e-3,
    ):
        from darts_tf.spaces.recurrent.networks import RecurrentNetwork

        return RecurrentNetwork(
            architecture,
            task.outputs,
            units,
            batch_size,
            dropout=(dropout, dropouth, dropoutx, dropouti, dropoute),
            penalties=(activation_penalty, temporal_penalty),
        )

    def decode(self, picks):
        pairs = {self.edges[row][0]: (self.primitives[name], self.edges[row][1]) for row, name in picks["recurrent"]}
        nodes = range(1, self.nodes + 1)
        return RecurrentGenotype([pairs[node] for node in nodes], list(nodes))

    def picks(self, architecture):
        self.check(architecture)
        rows = {edge: row for row, edge in enumerate(self.edges)}
        return {
            "recurrent": [
                (rows[node, source], self.primitives.index(name))
                for node, (name, source) in enumerate(architecture.recurrent, 1)
            ]
        }

    def check(self, architecture):
        genotypes.check(architecture, self.activations)
        if len(architecture.recurrent) != self.nodes:
            raise ValueError(f"the cell has {len(architecture.recurrent)} nodes: expected {self.nodes}.")

    @classmethod
    def from_fields(cls, fields):
        return genotypes.from_fields(fields)

    def change(self, before, after):
        return genotypes.change(before, after)

    def pictures(self, architecture, names=None):
        from darts_tf.spaces.recurrent.picture import RecurrentPicture

        return [RecurrentPicture(self, architecture, names or [name for name, _ in architecture.recurrent])]

    def costs(self, task, units=850):
        """As of any space; all cells of as many nodes are as large, so that no choice adds anything."""
        from darts_tf.spaces.recurrent.costs import Costs

        return Costs(self, task.outputs, units)
