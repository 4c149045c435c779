"""The paper's space: which operation is on which edge of a normal cell and of a reduction cell (section 2.1)."""

import dataclasses
import itertools
from typing import ClassVar

from darts_tf.spaces.base import Choices, SearchSpace, register_space
from darts_tf.spaces.cells import genotypes
from darts_tf.spaces.cells.genotypes import Genotype, node_name
from darts_tf.spaces.cells.picture import TITLES as CELLS
from darts_tf.spaces.cells.picture import CellPicture

# Section 3.1 of the paper, in the order of the original code.
PRIMITIVES = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)


class Cells(SearchSpace):
    """Two cells of intermediate nodes, each of which keeps some of the edges that reach it, one operation on each.

    A subclass has, as fields or otherwise:

    Attributes:
        nodes: intermediate nodes of a cell.
        primitives: names of all candidate operations.
        keep: edges that a node keeps, of those that reach it; all if there are fewer.
    """

    keep = 2
    least: ClassVar = {"layers": 3}  # two of which are reduction cells
    leaves_out: ClassVar = True

    def edges(self, kind):
        """{(node, source): names of the candidates}: the edges of a cell, "normal" or "reduce", by node and source.

        Nodes 0 and 1 are the inputs of the cell.
        """
        return dict.fromkeys(genotypes.every_edge(self.nodes), self.primitives)

    @property
    def choices(self):
        return {kind: self._table(kind, title) for kind, title in CELLS.items()}

    def _table(self, kind, title):
        edges = self.edges(kind)
        rows = [f"{node_name(source)} → {node_name(node)}" for node, source in edges]
        groups = []
        for node in range(2, 2 + self.nodes):
            own = tuple(row for row, (target, _) in enumerate(edges) if target == node)
            groups.append((own, min(self.keep, len(own))))
        allowed = tuple(tuple(name in names for name in self.primitives) for names in edges.values())
        never = frozenset(["none"] if "none" in self.primitives else [])
        allowed = None if all(map(all, allowed)) else allowed
        return Choices(title, tuple(rows), tuple(self.primitives), tuple(groups), never, allowed)

    def supernet_class(self):
        """The class of what is searched, `networks.SearchNetwork` or a subclass."""
        from darts_tf.spaces.cells.networks import SearchNetwork

        return SearchNetwork

    def supernet(
        self,
        task,
        relaxation="softmax",
        init_channels=16,
        layers=8,
        sync_batch_norm=False,
        candidates=None,
        edge_normalization=False,
        partial_channels=1,
        auxiliary_skip=False,
        skip_dropout=False,
        recompute=False,
    ):
        """The stack of cells of mixed operations, see `networks.SearchNetwork`."""
        return self.supernet_class()(
            init_channels,
            layers,
            task.outputs,
            sync_batch_norm=sync_batch_norm,
            relaxation=relaxation,
            space=self,
            candidates=candidates,
            edge_normalization=edge_normalization,
            partial_channels=partial_channels,
            auxiliary_skip=auxiliary_skip,
            skip_dropout=skip_dropout,
            recompute=recompute,
        )

    def network(
        self,
        architecture,
        task,
        network="cifar",
        init_channels=36,
        layers=20,
        auxiliary=False,
        auxiliary_weight=0.4,
        drop_path_prob=0.0,
    ):
        """The stack of a genotype's cells, see `derived.cifar_network` and `derived.imagenet_network`.

        Args:
            architecture: `Genotype`.
            task: `darts_tf.data.tasks.Task` on images.
            network: "cifar" or "imagenet".
            init_channels, layers, auxiliary: as there.
            auxiliary_weight: what the loss of the auxiliary head counts.
            drop_path_prob: whether there are layers that drop edges, above 0.
        """
        from darts_tf.spaces.cells import derived

        sizes = _sizes(architecture, task, init_channels, layers, auxiliary, drop_path_prob)
        made = derived.BUILDERS[network](**sizes)
        made.auxiliary_weight = auxiliary_weight
        return made

    def trained_network(self, architecture, task, network="cifar", auxiliary_weight=0.4, **sizes):
        """The same as it is trained, see `trained.TrainedNetwork`; arguments are those of `network`."""
        from darts_tf.spaces.cells.trained import TrainedNetwork

        sizes = _sizes(architecture, task, **sizes)
        return TrainedNetwork(**sizes, network=network, auxiliary_weight=auxiliary_weight)

    def decode(self, picks):
        """A `Genotype`.

        Of the edges of each node the one that was picked first, the stronger, comes first. A node for which fewer were
        picked than it keeps has "none" on some of the others.
        """
        concat, fields = list(range(2, 2 + self.nodes)), {}
        for kind, table in self.choices.items():
            edges, kept = list(self.edges(kind)), []
            for rows, keep in table.groups:
                own = [(row, table.candidates[candidate]) for row, candidate in picks[kind] if row in rows]
                free = [row for row in rows if row not in dict(own)]
                own += [(row, "none") for row in free[: max(keep - len(own), 0)]]
                kept += [(edges[row][0], name, edges[row][1]) for row, name in own]
            fields |= {kind: genotypes.pairs_of(kept), f"{kind}_concat": concat}
        return Genotype(**fields)

    def picks(self, architecture):
        kept = {kind: genotypes.kept(getattr(architecture, kind), self.primitives, self.edges(kind)) for kind in CELLS}
        return {kind: [pick for pick in picks if pick[1] is not None] for kind, picks in kept.items()}

    def check(self, architecture):
        genotypes.check(architecture)

    @classmethod
    def from_fields(cls, fields):
        return genotypes.from_fields(fields)

    def change(self, before, after):
        return genotypes.change(before, after)

    def pictures(self, architecture, names=None):
        names = names or [name for name, *_ in (*architecture.normal, *architecture.reduce)]
        return [CellPicture(cell, architecture, names, self) for cell in CELLS]

    def costs(self, task, network="cifar", init_channels=36, layers=20):
        """As of any space, without building each network: every edge adds what its operation has."""
        from darts_tf.spaces.cells.costs import CellCosts

        return CellCosts(self, init_channels, layers, task.outputs, task.input_shape, network)

    def declare(self, hp):
        """For each node of both cells a choice of two distinct inputs, and of an operation on each.

        `normal_0_inputs` is "c(k-2) c(k-1)", say, `normal_0_operation1` the operation on the first of them. Where the
        edges of a node have candidates of their own, `normal_0_c(k-2)` is the operation on that edge. What a genotype
        says beyond that is fixed, and no oracle draws it: the order of the two edges of each node, and which nodes make
        the result. A space whose nodes keep other numbers of edges is declared as any space.
        """
        if not self._has_pairs:
            return super().declare(hp)
        for kind in CELLS:
            for node in range(self.nodes):
                edges = self._operations(kind, node)
                alike = len(set(edges.values())) == 1
                pairs = {" ".join(map(node_name, pair)): pair for pair in itertools.combinations(edges, 2)}
                inputs = f"{kind}_{node}_inputs"
                hp.Choice(inputs, list(pairs))
                for place in (1, 2) if alike else ():
                    hp.Choice(f"{kind}_{node}_operation{place}", list(next(iter(edges.values()))))
                for source, names in edges.items() if not alike else ():
                    with hp.conditional_scope(inputs, [text for text, pair in pairs.items() if source in pair]):
                        hp.Choice(f"{kind}_{node}_{node_name(source)}", list(names))
            hp.Fixed(f"{kind}_order", "<" * self.nodes)
            hp.Fixed(f"{kind}_concat", " ".join(node_name(node) for node in range(2, 2 + self.nodes)))
        return self.architecture_of(hp)

    @property
    def _has_pairs(self):
        return all(keep == 2 for table in self.choices.values() for _, keep in table.groups)

    def _operations(self, kind, node):
        """{source: names of the operations} of the edges into the intermediate node at a place."""
        return {
            source: tuple(name for name in names if name != "none")
            for (target, source), names in self.edges(kind).items()
            if target == node + 2
        }

    def architecture_of(self, hp):
        if not self._has_pairs:
            return super().architecture_of(hp)
        values, fields = hp.values, {}
        index = {node_name(node): node for node in range(2 + len(values["normal_order"]))}
        for kind in CELLS:
            pairs = []
            for node, order in enumerate(values[f"{kind}_order"]):
                edges = []
                for place, name in enumerate(values[f"{kind}_{node}_inputs"].split(), 1):
                    shared = f"{kind}_{node}_operation{place}"
                    edges.append((values[shared if shared in values else f"{kind}_{node}_{name}"], index[name]))
                pairs += edges if order == "<" else edges[::-1]
            fields[kind] = pairs
            fields[f"{kind}_concat"] = [index[name] for name in values[f"{kind}_concat"].split()]
        return Genotype(**fields)

    def values(self, architecture):
        genotypes.check(architecture, [name for name in self.primitives if name != "none"])
        nodes, other = (genotypes.num_nodes(getattr(architecture, kind)) for kind in CELLS)
        if other != nodes:
            raise ValueError(f"the cells have {nodes} and {other} nodes: expected as many in both.")
        if nodes != self.nodes:
            raise ValueError(f"the cells have {nodes} nodes: expected {self.nodes}.")
        values = {}
        for kind in CELLS:
            edges = genotypes.edges(getattr(architecture, kind))
            for node in range(nodes):
                there = self._operations(kind, node)
                own = [(source, name) for target, name, source in edges if target == node + 2]
                for source, name in own:
                    where = f"{kind} has {name!r} on {node_name(source)} → {node_name(node + 2)}"
                    if source not in there:
                        raise ValueError(f"{where}: expected an edge from {', '.join(map(node_name, there))}.")
                    if name not in there[source]:
                        raise ValueError(f"{where}: expected one of {', '.join(there[source])}.")
                if len({source for source, _ in own}) < len(own):
                    name = node_name(own[0][0])
                    raise ValueError(f"{kind} feeds node {node} from {name} twice: expected two distinct inputs.")
                if self._has_pairs:
                    values |= self._values(kind, node, own)
            if self._has_pairs:
                values[f"{kind}_order"] = "".join(values.pop(f"{kind}_{node}_order") for node in range(nodes))
                values[f"{kind}_concat"] = " ".join(map(node_name, getattr(architecture, f"{kind}_concat")))
        return values if self._has_pairs else super().values(architecture)

    def _values(self, kind, node, own):
        """What `declare` declares for a node with these (source, operation)."""
        if len(own) != 2:
            raise ValueError(f"{kind} has {len(own)} edges into node {node}: expected two.")
        alike = len(set(self._operations(kind, node).values())) == 1
        values = {f"{kind}_{node}_inputs": " ".join(node_name(source) for source, _ in sorted(own))}
        for place, (source, name) in enumerate(sorted(own), 1):
            values[f"{kind}_{node}_operation{place}" if alike else f"{kind}_{node}_{node_name(source)}"] = name
        return values | {f"{kind}_{node}_order": "<" if own == sorted(own) else ">"}


@register_space("darts")
@dataclasses.dataclass(frozen=True)
class CellSpace(Cells):
    """Two cells of `nodes` intermediate nodes; each node keeps two of the edges that reach it, one operation on each.

    Args:
        nodes: intermediate nodes of a cell, at least 1.
        primitives: names of the candidate operations, at least one of them other than "none".

    Raises:
        ValueError: an argument is out of range.
    """

    nodes: int = 4
    primitives: tuple = PRIMITIVES

    PUBLISHED = genotypes.PUBLISHED

    def __post_init__(self):
        if self.nodes != int(self.nodes) or self.nodes < 1:
            raise ValueError(f"nodes={self.nodes}: expected at least 1 intermediate node.")
        object.__setattr__(self, "primitives", tuple(self.primitives))
        if not set(self.primitives) - {"none"}:
            raise ValueError(f"primitives={list(self.primitives)}: expected at least one operation other than none.")
        if len(set(self.primitives)) < len(self.primitives):
            raise ValueError(f"primitives={list(self.primitives)}: expected each operation once.")


def _sizes(architecture, task, init_channels=36, layers=20, auxiliary=False, drop_path_prob=0.0):
    """Arguments of the networks of a genotype, a dict."""
    return {
        "genotype": architecture,
        "channels": init_channels,
        "layers": layers,
        "num_classes": task.outputs,
        "image_shape": task.input_shape,
        "auxiliary": auxiliary,
        "drop_path": drop_path_prob > 0,
        "normalization": task.normalization,
    }
