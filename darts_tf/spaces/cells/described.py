"""Cells that a user describes: which edges there are, and which candidates each of them has.

{
    "keep": 2,
    "normal": {
        "0": {"c(k-2)": ["skip_connect", "sep_conv_3x3"], "c(k-1)": ["skip_connect", "sep_conv_3x3"]},
        "1": {"c(k-1)": ["max_pool_3x3", "sep_conv_3x3"], "0": ["none", "sep_conv_3x3", "sep_conv_5x5"]}
    },
    "reduce": {...}
}
"""

import dataclasses
import json

from darts_tf.spaces.base import EXPECTED, LONGEST
from darts_tf.spaces.cells.genotypes import node_name
from darts_tf.spaces.cells.picture import TITLES as KINDS
from darts_tf.spaces.cells.space import Cells

MOST_NODES = 100


@dataclasses.dataclass(frozen=True)
class DescribedCells(Cells):
    """The space of a description.

    Args:
        description: JSON text of an object. `normal` and `reduce` have for each node, "0", "1", ..., a list of the
            candidates on each edge that reaches it, by the node that the edge leaves: "c(k-2)" and "c(k-1)" are the
            inputs of the cell. An edge that is not there is not in the space. Without `reduce` both cells are alike.
            `keep` says how many edges a node keeps, 2 if it is not there; a node that fewer edges reach keeps them all.

    Raises:
        ValueError: it is something else; says what is expected.
    """

    name = "cells"
    description: str = json.dumps(
        {"normal": {"0": {name: ["skip_connect", "sep_conv_3x3"] for name in ("c(k-2)", "c(k-1)")}}}
    )

    def __post_init__(self):
        fields = _parsed(self.description)
        cells = {kind: _edges(kind, fields.get(kind, fields["normal"])) for kind in KINDS}
        sizes = [len(fields.get(kind, fields["normal"])) for kind in KINDS]
        if sizes[0] != sizes[1]:
            raise ValueError(f"normal has {sizes[0]} nodes, reduce {sizes[1]}: expected as many in both.")
        keep = fields.get("keep", 2)
        if type(keep) is not int or keep < 1:
            raise ValueError(f"keep is {keep!r}: expected how many edges a node keeps, at least 1.")
        known = dict.fromkeys(name for edges in cells.values() for names in edges.values() for name in names)
        object.__setattr__(self, "description", json.dumps(fields))
        object.__setattr__(self, "nodes", sizes[0])
        object.__setattr__(self, "keep", keep)
        object.__setattr__(self, "primitives", tuple(known))
        object.__setattr__(self, "edges_by_cell", cells)

    @property
    def spec(self):
        return self.description

    def edges(self, kind):
        return self.edges_by_cell[kind]


def _parsed(text):
    """The object of a description; ValueError if it is none."""
    try:
        fields = json.loads(text) if len(text) <= LONGEST else None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error}); {EXPECTED}") from None
    if not isinstance(fields, dict) or "normal" not in fields:
        raise ValueError(EXPECTED)
    for name in fields:
        if name not in ("normal", "reduce", "keep"):
            raise ValueError(f"{name!r}: expected normal, reduce and keep, nothing else.")
    return fields


def _edges(kind, cell):
    """{(node, source): names of the candidates} of a description's cell."""
    if not isinstance(cell, dict) or not 0 < len(cell) <= MOST_NODES:
        raise ValueError(f"{kind}: expected an object with nodes 0, 1, ... and the edges that reach each.")
    names, edges = [node_name(node) for node in range(2 + len(cell))], {}
    for place, node in enumerate(names[2:], 2):
        sources = cell.get(node)
        if sources is None:
            wrong = next(name for name in cell if name not in names[2:])
            raise ValueError(f"{kind} has a node {wrong!r}: expected nodes 0 to {len(cell) - 1}.")
        if not isinstance(sources, dict) or not sources:
            raise ValueError(f"{kind}, node {node}: expected an object with the edges that reach it, at least one.")
        for source, candidates in sources.items():
            if source not in names[:place]:
                raise ValueError(f"{kind}, node {node}: no edge from {source!r}; expected {', '.join(names[:place])}.")
            where = f"{kind}, {source} → {node}"
            if not isinstance(candidates, list) or not all(isinstance(name, str) and name for name in candidates):
                raise ValueError(f"{where}: expected a list of names of operations.")
            if len(set(candidates)) < len(candidates):
                raise ValueError(f"{where}: an operation is there twice; expected it once.")
            if not set(candidates) - {"none"}:
                raise ValueError(f"{where}: expected at least one operation other than none.")
        for source in sorted(map(names.index, sources)):
            edges[place, source] = tuple(sources[names[source]])
    return edges
