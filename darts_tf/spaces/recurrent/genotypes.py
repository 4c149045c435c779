"""Recurrent genotypes, what a search of recurrent cells finds, and the published ones."""

import json
from typing import NamedTuple

from darts_tf.spaces.cells.genotypes import is_node, text_of_nodes

MOST = 1000  # nodes of a cell


class RecurrentGenotype(NamedTuple):
    """A recurrent cell: for node 1, 2, ... its (activation, source node), and the nodes that are averaged.

    Node 0 is made of the input and the hidden state.
    """

    recurrent: list
    concat: list

    @property
    def space(self):
        """The `RecurrentSpace` of as many nodes, with the paper's activations and the others that it has."""
        from darts_tf.spaces.recurrent.space import PRIMITIVES, RecurrentSpace

        names = dict.fromkeys([*PRIMITIVES, *(name for name, _ in self.recurrent)])
        return RecurrentSpace(max(1, len(self.recurrent)), tuple(names))

    def __str__(self):
        pairs = [tuple(pair) for pair in self.recurrent]
        return f"Genotype(recurrent={pairs}, concat={text_of_nodes(self.concat)})"

    def items(self):
        """(field, value) pairs."""
        return self._asdict().items()

    def to_json(self):
        """The genotype as JSON text; pairs become lists."""
        pairs = [list(pair) for pair in self.recurrent]
        return json.dumps({"space": "recurrent", "recurrent": pairs, "concat": list(self.concat)})


# Pham et al. 2018; Liu et al. 2019 (first and second order).
PUBLISHED = {
    "ENAS": RecurrentGenotype(
        recurrent=[
            *(("tanh", 0), ("tanh", 1), ("relu", 1), ("tanh", 3), ("tanh", 3), ("relu", 3)),
            *(("relu", 4), ("relu", 7), ("relu", 8), ("relu", 8), ("relu", 8)),
        ],
        concat=[2, 5, 6, 9, 10, 11],
    ),
    "DARTS_V1": RecurrentGenotype(
        recurrent=[
            *(("relu", 0), ("relu", 1), ("tanh", 2), ("relu", 3)),
            *(("relu", 4), ("identity", 1), ("relu", 5), ("relu", 1)),
        ],
        concat=[1, 2, 3, 4, 5, 6, 7, 8],
    ),
    "DARTS_V2": RecurrentGenotype(
        recurrent=[
            *(("sigmoid", 0), ("relu", 1), ("relu", 1), ("identity", 1)),
            *(("tanh", 2), ("sigmoid", 5), ("tanh", 3), ("relu", 5)),
        ],
        concat=[1, 2, 3, 4, 5, 6, 7, 8],
    ),
}


def check(genotype, activations):
    """Raises ValueError if a genotype is of no cell whose activations are among these names; says why."""
    nodes = len(genotype.recurrent)
    if not nodes:
        raise ValueError("recurrent is empty: expected at least one node.")
    for node, (name, source) in enumerate(genotype.recurrent, 1):
        if name not in activations:
            raise ValueError(f"recurrent has {name!r} on node {node}: expected one of {', '.join(activations)}.")
        if not 0 <= source < node:
            raise ValueError(f"recurrent feeds node {node} from node {source}: expected one of 0 to {node - 1}.")
    if not genotype.concat or not all(1 <= node <= nodes for node in genotype.concat):
        raise ValueError(f"concat={list(genotype.concat)}: expected some of the nodes 1 to {nodes}.")
    read = {*genotype.concat, *(source for _, source in genotype.recurrent)}
    unread = [node for node in range(1, nodes + 1) if node not in read]
    if unread:
        raise ValueError(f"concat={list(genotype.concat)}: nothing reads node {unread[0]}; expected it there, too.")


def from_fields(fields):
    """The genotype of what its JSON or its text holds, a dict.

    Raises:
        ValueError: it holds something else.
    """
    pairs, concat = fields.get("recurrent"), fields.get("concat")
    lists = all(isinstance(value, list | tuple | range) and len(value) <= MOST for value in (pairs, concat))
    if set(fields) != {"recurrent", "concat"} or not lists:
        raise ValueError("Not a genotype: expected recurrent and concat, two lists.")
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise ValueError("Not a genotype: expected recurrent of (activation, node) pairs.")
    if not all(isinstance(name, str) and is_node(source) for name, source in pairs) or not all(map(is_node, concat)):
        raise ValueError("Not a genotype: expected names of activations and numbers of nodes.")
    return RecurrentGenotype([(name, source) for name, source in pairs], list(concat))


def change(before, after):
    """How a genotype differs from the one before it, in a few words."""
    new = [
        f"{name} from {source} at node {node}"
        for node, (old, (name, source)) in enumerate(zip(before.recurrent, after.recurrent, strict=True), 1)
        if tuple(old) != (name, source)
    ]
    if not new:
        return "genotype unchanged"
    return f"new: {new[0]}" if len(new) == 1 else f"new at {len(new)} nodes"
