"""The paper's space: which operation is on which edge of a normal cell and of a reduction cell (section 2.1)."""

import dataclasses
import itertools

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


@register_space("darts")
@dataclasses.dataclass(frozen=True)
class CellSpace(SearchSpace):
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

    @property
    def choices(self):
        rows, groups = [], []
        for node in range(2, 2 + self.nodes):  # edges are numbered by target node, then by source
            groups.append((tuple(range(len(rows), len(rows) + node)), 2))
            rows += [f"{node_name(source)} → {node_name(node)}" for source in range(node)]
        never = frozenset(["none"])
        return {
            name: Choices(title, tuple(rows), self.primitives, tuple(groups), never) for name, title in CELLS.items()
        }

    def supernet(self, task, relaxation="softmax", init_channels=16, layers=8, sync_batch_norm=False):
        """The stack of cells of mixed operations, see `networks.SearchNetwork`."""
        from darts_tf.spaces.cells.networks import SearchNetwork

        return SearchNetwork(
            init_channels,
            layers,
            task.outputs,
            self.nodes,
            self.primitives,
            sync_batch_norm=sync_batch_norm,
            relaxation=relaxation,
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
        """The stack of a genotype's cells, see `networks.cifar_network` and `networks.imagenet_network`.

        Args:
            architecture: `Genotype`.
            task: `darts_tf.data.tasks.Task` on images.
            network: "cifar" or "imagenet".
            init_channels, layers, auxiliary: as there.
            auxiliary_weight: what the loss of the auxiliary head counts.
            drop_path_prob: whether there are layers that drop edges, above 0.
        """
        from darts_tf.spaces.cells import networks

        build = {"cifar": networks.cifar_network, "imagenet": networks.imagenet_network}[network]
        made = build(
            architecture,
            init_channels,
            layers,
            task.outputs,
            task.input_shape,
            auxiliary=auxiliary,
            drop_path=drop_path_prob > 0,
            normalization=task.normalization,
        )
        made.auxiliary_weight = auxiliary_weight
        return made

    def decode(self, picks):
        pairs = {name: self._pairs(picks[name], table) for name, table in self.choices.items()}
        concat = list(range(2, 2 + self.nodes))
        return Genotype(pairs["normal"], concat, pairs["reduce"], concat)

    def _pairs(self, picks, table):
        """The (operation, source) pairs of picks, node by node; of each node the stronger edge comes first.

        A node that keeps fewer edges has "none" on some of the others.
        """
        pairs = []
        for rows, keep in table.groups:
            own = [(table.candidates[candidate], row - rows[0]) for row, candidate in picks if row in rows]
            free = [source for source in range(len(rows)) if source not in dict(map(reversed, own))]
            pairs += [*own, *(("none", source) for source in free[: keep - len(own)])]
        return pairs

    def picks(self, architecture):
        kept = {name: genotypes.kept(getattr(architecture, name), self.primitives) for name in CELLS}
        return {name: [pick for pick in picks if pick[1] is not None] for name, picks in kept.items()}

    def check(self, architecture):
        genotypes.check(architecture)

    @classmethod
    def from_fields(cls, fields):
        return genotypes.from_fields(fields)

    def change(self, before, after):
        return genotypes.change(before, after)

    def pictures(self, architecture, names=None):
        names = names or [name for name, _ in (*architecture.normal, *architecture.reduce)]
        return [CellPicture(cell, architecture, names, self.primitives) for cell in CELLS]

    def costs(self, task, init_channels=36, layers=20):
        """As of any space, without building each network: every edge adds what its operation has."""
        from darts_tf.spaces.cells.costs import CellCosts

        return CellCosts(init_channels, layers, task.outputs, task.input_shape)

    def declare(self, hp):
        """For each node of both cells a choice of two distinct inputs, and of an operation on each.

        `normal_0_inputs` is "c(k-2) c(k-1)", say, `normal_0_operation1` the operation on the first of them. What a
        genotype says beyond that is fixed, and no oracle draws it: the order of the two edges of each node, and which
        nodes make the result.
        """
        candidates = [name for name in self.primitives if name != "none"]
        for kind in CELLS:
            for node in range(self.nodes):
                pairs = itertools.combinations(range(node + 2), 2)
                hp.Choice(f"{kind}_{node}_inputs", [" ".join(map(node_name, pair)) for pair in pairs])
                for place in (1, 2):
                    hp.Choice(f"{kind}_{node}_operation{place}", candidates)
            hp.Fixed(f"{kind}_order", "<" * self.nodes)
            hp.Fixed(f"{kind}_concat", " ".join(node_name(node) for node in range(2, 2 + self.nodes)))
        return self.architecture_of(hp)

    def architecture_of(self, hp):
        values, fields = hp.values, {}
        index = {node_name(node): node for node in range(2 + len(values["normal_order"]))}
        for kind in CELLS:
            pairs = []
            for node, order in enumerate(values[f"{kind}_order"]):
                inputs = values[f"{kind}_{node}_inputs"].split()
                edges = [
                    (values[f"{kind}_{node}_operation{place}"], index[name]) for place, name in enumerate(inputs, 1)
                ]
                pairs += edges if order == "<" else edges[::-1]
            fields[kind] = pairs
            fields[f"{kind}_concat"] = [index[name] for name in values[f"{kind}_concat"].split()]
        return Genotype(**fields)

    def values(self, architecture):
        genotypes.check(architecture, [name for name in self.primitives if name != "none"])
        nodes = len(architecture.normal) // 2
        if len(architecture.reduce) != 2 * nodes:
            other = len(architecture.reduce) // 2
            raise ValueError(f"the cells have {nodes} and {other} nodes: expected as many in both.")
        if nodes != self.nodes:
            raise ValueError(f"the cells have {nodes} nodes: expected {self.nodes}.")
        values = {}
        for kind in CELLS:
            order = ""
            for node in range(nodes):
                edges = getattr(architecture, kind)[2 * node : 2 * node + 2]
                sources = [source for _, source in edges]
                if sources[0] == sources[1]:
                    name = node_name(sources[0])
                    raise ValueError(f"{kind} feeds node {node} from {name} twice: expected two distinct inputs.")
                order += "<" if sources[0] < sources[1] else ">"
                values[f"{kind}_{node}_inputs"] = " ".join(map(node_name, sorted(sources)))
                for place, (name, _) in enumerate(sorted(edges, key=lambda edge: edge[1]), 1):
                    values[f"{kind}_{node}_operation{place}"] = name
            values[f"{kind}_order"] = order
            values[f"{kind}_concat"] = " ".join(map(node_name, getattr(architecture, f"{kind}_concat")))
        return values
