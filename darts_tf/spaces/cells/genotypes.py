"""Genotypes, what a search in the paper's space finds, and the published ones."""

import json
from typing import NamedTuple

MOST = 1000  # numbers in a cell's lists


class Genotype(NamedTuple):
    """Two cells: per intermediate node two pairs of (operation, source node), and the nodes that are concatenated.

    Nodes 0 and 1 are the inputs of a cell, 2, 3, ... its intermediate nodes. A cell some of whose nodes have more or
    fewer than two edges has (operation, source node, node) instead of each pair.
    """

    normal: list
    normal_concat: list
    reduce: list
    reduce_concat: list

    @property
    def space(self):
        """The `CellSpace` of as many nodes and the paper's operations."""
        from darts_tf.spaces.cells.space import CellSpace

        return CellSpace(max(1, num_nodes(self.normal)))

    def __str__(self):
        normal, reduce = ([tuple(pair) for pair in pairs] for pairs in (self.normal, self.reduce))
        return (
            f"Genotype(normal={normal}, normal_concat={text_of_nodes(self.normal_concat)}, "
            f"reduce={reduce}, reduce_concat={text_of_nodes(self.reduce_concat)})"
        )

    def to_json(self):
        """The genotype as JSON text; pairs become lists."""
        return json.dumps({key: [list(i) if isinstance(i, tuple) else i for i in value] for key, value in self.items()})

    def items(self):
        """(field, value) pairs."""
        return self._asdict().items()


# Of the papers that found them: Zoph et al. 2018; Real et al. 2019; Liu et al. 2019 (first and second order).
PUBLISHED = {
    "NASNet": Genotype(
        normal=[
            *(("sep_conv_5x5", 1), ("sep_conv_3x3", 0)),
            *(("sep_conv_5x5", 0), ("sep_conv_3x3", 0)),
            *(("avg_pool_3x3", 1), ("skip_connect", 0)),
            *(("avg_pool_3x3", 0), ("avg_pool_3x3", 0)),
            *(("sep_conv_3x3", 1), ("skip_connect", 1)),
        ],
        normal_concat=[2, 3, 4, 5, 6],
        reduce=[
            *(("sep_conv_5x5", 1), ("sep_conv_7x7", 0)),
            *(("max_pool_3x3", 1), ("sep_conv_7x7", 0)),
            *(("avg_pool_3x3", 1), ("sep_conv_5x5", 0)),
            *(("skip_connect", 3), ("avg_pool_3x3", 2)),
            *(("sep_conv_3x3", 2), ("max_pool_3x3", 1)),
        ],
        reduce_concat=[4, 5, 6],
    ),
    "AmoebaNet": Genotype(
        normal=[
            *(("avg_pool_3x3", 0), ("max_pool_3x3", 1)),
            *(("sep_conv_3x3", 0), ("sep_conv_5x5", 2)),
            *(("sep_conv_3x3", 0), ("avg_pool_3x3", 3)),
            *(("sep_conv_3x3", 1), ("skip_connect", 1)),
            *(("skip_connect", 0), ("avg_pool_3x3", 1)),
        ],
        normal_concat=[4, 5, 6],
        reduce=[
            *(("avg_pool_3x3", 0), ("sep_conv_3x3", 1)),
            *(("max_pool_3x3", 0), ("sep_conv_7x7", 2)),
            *(("sep_conv_7x7", 0), ("avg_pool_3x3", 1)),
            *(("max_pool_3x3", 0), ("max_pool_3x3", 1)),
            *(("conv_7x1_1x7", 0), ("sep_conv_3x3", 5)),
        ],
        reduce_concat=[3, 4, 6],
    ),
    "DARTS_V1": Genotype(
        normal=[
            *(("sep_conv_3x3", 1), ("sep_conv_3x3", 0)),
            *(("skip_connect", 0), ("sep_conv_3x3", 1)),
            *(("skip_connect", 0), ("sep_conv_3x3", 1)),
            *(("sep_conv_3x3", 0), ("skip_connect", 2)),
        ],
        normal_concat=[2, 3, 4, 5],
        reduce=[
            *(("max_pool_3x3", 0), ("max_pool_3x3", 1)),
            *(("skip_connect", 2), ("max_pool_3x3", 0)),
            *(("max_pool_3x3", 0), ("skip_connect", 2)),
            *(("skip_connect", 2), ("avg_pool_3x3", 0)),
        ],
        reduce_concat=[2, 3, 4, 5],
    ),
    "DARTS_V2": Genotype(
        normal=[
            *(("sep_conv_3x3", 0), ("sep_conv_3x3", 1)),
            *(("sep_conv_3x3", 0), ("sep_conv_3x3", 1)),
            *(("sep_conv_3x3", 1), ("skip_connect", 0)),
            *(("skip_connect", 0), ("dil_conv_3x3", 2)),
        ],
        normal_concat=[2, 3, 4, 5],
        reduce=[
            *(("max_pool_3x3", 0), ("max_pool_3x3", 1)),
            *(("skip_connect", 2), ("max_pool_3x3", 1)),
            *(("max_pool_3x3", 0), ("skip_connect", 2)),
            *(("skip_connect", 2), ("max_pool_3x3", 1)),
        ],
        reduce_concat=[2, 3, 4, 5],
    ),
}


def edges(pairs):
    """The edges of a genotype's cell as (node, operation, source node), whichever form they have there."""
    return [(pair[2] if len(pair) > 2 else 2 + place // 2, pair[0], pair[1]) for place, pair in enumerate(pairs)]


def num_nodes(pairs):
    """The number of intermediate nodes of a genotype's cell."""
    return max((node for node, *_ in edges(pairs)), default=1) - 1


def pairs_of(edges):
    """The inverse of `edges`: pairs if each node has two of them, in the nodes' order, else triples."""
    if [node for node, *_ in edges] == [2 + place // 2 for place in range(len(edges))] and not len(edges) % 2:
        return [(operation, source) for _, operation, source in edges]
    return [(operation, source, node) for node, operation, source in edges]


def check(genotype, operations=None):
    """Checks that both cells of a genotype can be built.

    Args:
        genotype: `Genotype`.
        operations: names of the operations there are; None leaves the names unchecked.

    Raises:
        ValueError: an operation does not exist, an edge leaves a node that is not there yet, a node has not two edges,
            or a node to concatenate is missing. Says which.
    """
    for kind, pairs, concat in (("normal", *genotype[:2]), ("reduce", *genotype[2:])):
        triples = any(len(pair) > 2 for pair in pairs)
        if not pairs or (len(pairs) % 2 and not triples):
            raise ValueError(f"{kind} has {len(pairs)} (operation, node) pairs: expected two for every node.")
        if triples and any(len(pair) < 3 for pair in pairs):
            raise ValueError(f"{kind} has edges of two and of three items: expected (operation, source, node) for all.")
        known = {node for node, *_ in edges(pairs)} | {0, 1}
        for node, name, source in edges(pairs):
            if operations is not None and name not in operations:
                raise ValueError(f"{kind} names the operation {name!r}: expected one of {', '.join(operations)}.")
            if node < 2 or node > MOST:
                raise ValueError(f"{kind} has an edge into node {node}: expected one of 2 to {MOST}.")
            if not 0 <= source < node:
                raise ValueError(f"{kind} feeds node {node} from node {source}: expected one of 0 to {node - 1}.")
            if source not in known:
                raise ValueError(f"{kind} feeds node {node} from node {source}: expected a node that an edge reaches.")
        # The inputs of a reduction cell are larger than its nodes.
        first, last = (0 if kind == "normal" else 2), 1 + num_nodes(pairs)
        if not concat or any(not first <= node <= last or node not in known for node in concat):
            raise ValueError(f"{kind}_concat is {list(concat)}: expected some of the nodes {first} to {last}.")


def from_fields(fields):
    """A `Genotype` from what its JSON or its text holds, a dict of lists.

    Raises:
        ValueError: it holds something else.
    """
    if not isinstance(fields, dict) or set(fields) != set(Genotype._fields):
        raise ValueError(f"Not a genotype: expected the fields {', '.join(Genotype._fields)}.")
    for key, value in fields.items():
        items = value if isinstance(value, list | tuple | range) and not value[MOST:] else [None]
        well = is_node if key.endswith("concat") else _is_pair
        if not all(well(item) for item in items):
            raise ValueError("Not a genotype: expected lists of (operation, node), and of nodes to concatenate.")
    return Genotype(
        **{key: list(map(tuple if key in ("normal", "reduce") else int, value)) for key, value in fields.items()}
    )


def text_of_nodes(nodes):
    """A list of nodes as Python has it, `range(2, 6)` where that says it."""
    nodes = list(nodes)
    if nodes and nodes == list(range(nodes[0], nodes[0] + len(nodes))):
        return f"range({nodes[0]}, {nodes[-1] + 1})"
    return str(nodes)


def is_node(value):
    """Whether a value is the number of a node."""
    return type(value) is int


def _is_pair(value):
    if not isinstance(value, list | tuple) or len(value) not in (2, 3) or not isinstance(value[0], str):
        return False
    return 0 < len(value[0]) <= 100 and value[0].isprintable() and all(map(is_node, value[1:]))


def node_name(index):
    """What the figures of the paper call a node of a cell: its inputs c(k-2) and c(k-1), then 0, 1, ..."""
    return ("c(k-2)", "c(k-1)")[index] if index < 2 else str(index - 2)


def change(before, after):
    """How a genotype differs from the one before it, in a few words: the edges that are new, by cell.

    Args:
        before, after: `Genotype`s of as many nodes.
    """

    parts = []
    for kind, old, new in (("normal", before.normal, after.normal), ("reduce", before.reduce, after.reduce)):
        added = sorted(set(edges(new)) - set(edges(old)))
        if len(added) == 1:
            ((node, name, source),) = added
            parts.append(f"{kind}: {name} from {node_name(source)} to {node_name(node)}")
        elif added:
            parts.append(f"{kind}: {len(added)} edges")
    return f"new in {', '.join(parts)}" if parts else "genotype unchanged"


def every_edge(nodes, inputs=2):
    """The edges of a cell each of whose nodes is fed by all before it.

    Args:
        nodes: number of intermediate nodes.
        inputs: number of inputs of the cell.

    Returns:
        (node, source) pairs by node, then by source; nodes are counted from the inputs on.
    """
    return tuple((node, source) for node in range(inputs, inputs + nodes) for source in range(node))


def kept(pairs, primitives, rows=None):
    """Where in the alphas of a cell the operations are that its genotype keeps.

    Args:
        pairs: the edges of a genotype's cell.
        primitives: names of the operations.
        rows: the (node, source) of each row; by default those of `every_edge`.

    Returns:
        list of (edge, operation), int, one of each pair; the operation of "none" is None.

    Raises:
        ValueError: an edge or an operation is none of these.
    """
    rows = list(every_edge(num_nodes(pairs)) if rows is None else rows)
    return [
        (rows.index((node, source)), None if name == "none" else primitives.index(name))
        for node, name, source in edges(pairs)
    ]
