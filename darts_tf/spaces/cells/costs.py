"""What networks of cells cost: the parts of their edges, and all that is no edge."""

import math

from darts_tf.costs import tables
from darts_tf.ops import operations, parts
from darts_tf.spaces.cells import cell, genotypes, networks


class CellCosts(tables.Costs):
    """The costs of the networks of genotypes, see `derived.cifar_network`.

    Of the inputs of a cell only those are prepared that an edge leaves; tables have what all networks of the space do
    that use both.

    Args:
        space: `Cells`.
        channels, layers, num_classes, image_shape: of `derived.cifar_network`.
        network: "cifar", or "imagenet" for `derived.imagenet_network`.

    Call arguments:
        genotype: `genotypes.Genotype`, every node of which leads to the result of its cell; of any space of cells.
    """

    def __init__(self, space, channels, layers, num_classes, image_shape, network="cifar"):
        self._channels, self._layers, self._classes, self._parts = channels, layers, num_classes, {}
        self._stems, self._inputs = _stems(network, channels, image_shape)
        self._nodes, nodes, rows = space.nodes, list(range(2, 2 + space.nodes)), {}
        for kind, table in space.choices.items():
            edges, reduction = list(space.edges(kind)), kind == "reduce"

            def entry(row, place, table=table, edges=edges, reduction=reduction):
                name = table.candidates[place]
                return self._of_edge(name, edges[row][1] < 2, reduction) if table.mask[row, place] else None

            rows[kind,] = tables.array_of((len(table.rows), len(table.candidates)), entry)
        cells = {}
        for kind, table in space.choices.items():
            edges = list(space.edges(kind))
            stay = [edges[row] for group, keep in table.groups for row in group[:keep]]
            cells[kind] = [(node, None, source) for node, source in stay], nodes
        super().__init__(space, self._without_edges(cells, every_input=True), rows)

    def parts_of(self, architecture):
        return self._parts_of(architecture, lambda edges: edges)

    def computed(self, architecture):
        return self._parts_of(architecture, lambda edges: with_own_results(self, edges))

    def _parts_of(self, architecture, some):
        """The parts of a network, of whose edges only some count: `some` is a function of those of a cell."""
        cells = {
            kind: (genotypes.edges(pairs), list(concat))
            for kind, pairs, concat in (
                ("normal", architecture.normal, architecture.normal_concat),
                ("reduce", architecture.reduce, architecture.reduce_concat),
            )
        }
        found = self._without_edges(cells)
        for kind, (edges, _) in cells.items():
            own = [(node, self._of_edge(name, source < 2, kind == "reduce"), source) for node, name, source in edges]
            for _, made, _ in some(own):
                found += made
        return found

    def _beside(self, inside, channels):
        """About how many bytes are in memory beside an edge: a cell's result, inputs and nodes, and other edges."""
        return 4 * math.prod(inside) * channels * (2 * self._nodes + 4)

    def _cells(self):
        """Of each cell its channels, whether it is a reduction, and the size of images before and in it."""
        *size, _ = self._inputs[-1]
        for width, reduction in networks.stack(self._channels, self._layers):
            inside = tuple(-(-side // 2) for side in size) if reduction else tuple(size)
            yield width, reduction, tuple(size), inside
            size = inside

    def _of_edge(self, name, from_input, in_reduction):
        """The parts of an operation in all cells of a kind together, on an edge from an input of the cell or a node."""
        known = name, from_input, in_reduction
        if known not in self._parts:
            found, stride = [], cell.edge_stride(0 if from_input else 2, in_reduction)
            for channels, reduction, size, inside in self._cells():
                made = operations.make_operation(name, channels, stride, affine=True)
                if reduction == in_reduction and made != []:
                    shape = *(size if from_input else inside), channels
                    said, beside = f"{name} to {channels}, stride {stride}", self._beside(inside, channels)
                    found.append(parts.of_stages(said, made, channels, shape, beside))
            self._parts[known] = found
        return self._parts[known]

    def _without_edges(self, cells, every_input=False):
        """The parts of all that is no edge.

        Args:
            cells: {kind: (edges, nodes that make the result)}, of (node, name, source).
            every_input: whether both inputs of each cell are prepared, whatever edges leave.
        """
        found, results, halves = list(self._stems), list(self._inputs), len(self._stems) > 1
        for channels, reduction, _, inside in self._cells():
            edges, concat = cells["reduce" if reduction else "normal"]
            for place, stages in enumerate(cell.preprocessing(halves, affine=True)):
                if every_input or place in {source for *_, source in edges}:
                    name = f"{'halving' if halves and not place else 'conv 1x1'} to {channels}"
                    found.append(parts.of_stages(name, stages, channels, results[place - 2]))
            for node in {node for node, *_ in edges}:
                reach = sum(target == node for target, *_ in edges)
                if reach > 1:
                    found.append(parts.joined("Add", reach, (*inside, channels)))
            if len(concat) > 1:
                found.append(parts.joined("Concatenate", len(concat), (*inside, channels)))
            results.append((*inside, len(concat) * channels))
            halves = reduction
        return [*found, parts.classifier(results[-1], self._classes)]


def with_own_results(costs, edges):
    """The edges of a cell without those whose results are the same as those of others before them.

    They are of operations without weights, such as poolings, of equal images; an interpreter computes them once.

    Args:
        costs: `darts_tf.costs.tables.Costs`, which knows what has weights.
        edges: list of (node, list of parts, source), by node; without parts it is the identity.

    Returns:
        A list.
    """
    sums, found = {}, {}  # of each node what it is the sum of; {result: edge}

    def image(node):
        terms = sums.get(node, [("input", node)])
        return terms[0] if len(terms) == 1 else tuple(sorted(terms, key=repr))

    for place, (node, made, source) in enumerate(edges):
        has_weights = any(costs.number(part, "parameters") != 0 for part in made)
        result = ("edge", place) if has_weights else (*map(str, made), image(source)) if made else image(source)
        found.setdefault(result, (node, made, source))
        sums.setdefault(node, []).append(result)
    return list(found.values())


def _stems(network, channels, image_shape):
    """The parts of what is before the cells, and the shapes of the first cell's inputs, two lists."""
    found, shapes = [], [tuple(image_shape)]
    for stages, width in networks.stems(network, channels):
        found.append(parts.of_stages(f"stem of {len(stages)} to {width}", stages, width, shapes[-1]))
        shapes.append((*operations.result_of(stages, shapes[-1][:2]), width))
    return found, shapes[-2:] if network == "imagenet" else shapes[-1:] * 2
