"""What networks of densely connected blocks cost, before and after their path is decided (section 3.3 of DenseNAS)."""

import itertools

import numpy as np
import tensorflow as tf

from darts_tf.spaces.chain.blocks import block
from darts_tf.spaces.chain.costs import COSTS, stage_counts
from darts_tf.spaces.densenas.blocks import ends, sized


class Costs:
    """The costs of the networks of a space; arguments are those of `chain.costs.Costs`, the space is a `DenseNAS`.

    Attributes:
        graph: `graph.Graph`, of the widths and strides that are counted.
        fixed: {cost: number}, what all networks have in common.
        tables: {cost: {table: float64 array}}, see `chained`.
    """

    def __init__(self, space, task, init_channels=None):
        pixels = min(task.input_shape[:2])
        self._space, strides = space, space.blocks.strides_for(pixels)
        graph, stem_stride = sized(space.blocks, init_channels, strides)
        made, size = ends(graph, stem_stride), task.input_shape[:2]
        stem, size = stage_counts(*made["stem"], task.input_shape[2], size)
        first, size = stage_counts(*made["first"], graph.channels[0], size)
        classifier = np.array([graph.channels[-1] + 1, graph.channels[-1]]) * task.outputs
        tables = {name: np.zeros((2, *table.mask.shape)) for name, table in space.choices.items()}
        images = [size]
        for target in range(1, graph.blocks):
            source = graph.sources(target)[0]
            images.append([-(-length // graph.stride(source, target)) for length in images[source]])

        def counted(name, inputs, outputs, stride, size):
            own = block(name, inputs, outputs, stride)
            return sum((stage_counts(*part, inputs, size)[0] for part in own.operations().values()), np.zeros(2))

        for row, (source, target) in enumerate(graph.heads_of):
            shape = graph.channels[source], graph.channels[target], graph.stride(source, target), images[source]
            tables["heads"][:, row] = np.transpose([counted(name, *shape) for name in graph.heads])
        for row, (number, _) in enumerate(graph.layers_of):
            shape = graph.channels[number], graph.channels[number], 1, images[number]
            tables["stack"][:, row] = np.transpose([counted(name, *shape) for name in graph.stack])
        for source in graph.sources(graph.blocks - 1):
            last, _ = stage_counts(*made["last"], graph.channels[source], images[source])
            tables["routing"][:, source, graph.blocks - 2 - source] = last
        self.graph = graph
        self.fixed = dict(zip(COSTS, (stem + first + classifier).tolist(), strict=True))
        self.tables = {cost: {name: both[place] for name, both in tables.items()} for place, cost in enumerate(COSTS)}

    def __call__(self, architecture):
        """{"parameters": ..., "multiply_adds": ...} of an architecture."""
        picks = {name: dict(rows) for name, rows in self._space.picks(architecture).items()}
        graph, found = self.graph, {}
        for cost, tables in self.tables.items():
            total, path = self.fixed[cost], architecture.numbers
            for source, target in itertools.pairwise(path):
                total += tables["routing"][source, target - source - 1]
                rows = [("heads", row) for row, edge in enumerate(graph.heads_of) if edge == (source, target)]
                rows += [("stack", row) for row, (number, _) in enumerate(graph.layers_of) if number == target]
                total += sum(tables[name][row, picks[name][row]] for name, row in rows)
            found[cost] = int(total)
        return found

    def least(self, cost):
        """The least that a network of the space costs."""
        tables = {name: table.min(-1) for name, table in self.tables[cost].items()}
        graph, after = self.graph, {self.graph.blocks - 1: 0.0}
        for source in reversed(range(graph.blocks - 1)):
            ways = []
            for target in graph.targets(source):
                way = self.tables[cost]["routing"][source, target - source - 1] + after[target]
                way += sum(tables["heads"][r] for r, edge in enumerate(graph.heads_of) if edge == (source, target))
                ways.append(way + sum(tables["stack"][r] for r, (b, _) in enumerate(graph.layers_of) if b == target))
            after[source] = min(ways)
        return self.fixed[cost] + after[0]

    def expected(self, cost, mixture):
        """The cost of a mixture, see `chained`.

        Args:
            cost: its name.
            mixture: {table: tensor (rows, candidates)}.
        """
        return chained(self.graph, (self.fixed[cost], self.tables[cost]), mixture)


def chained(graph, cost, mixture):
    """The chained estimate: from the last block to the first, what is to come after each (equations 7 and 8).

    Args:
        graph: `graph.Graph`.
        cost: (constant, {table: array}), with `routing` (blocks - 1, most targets): what the way from a block to the
            target at a place costs beside the target's head and layers, such as the 1x1 convolution of the last
            block; `heads` (heads, operations), and `stack` (layers, operations).
        mixture: {table: tensor}, of the same shapes: probabilities of the targets of each block, weights of the
            operations.

    Returns:
        Scalar tensor, that can be differentiated with respect to the mixture.
    """
    constant, tables = cost
    mixture = {name: tf.convert_to_tensor(table) for name, table in mixture.items()}
    dtype = mixture["routing"].dtype
    weighted = {name: tf.constant(table, dtype) * mixture[name] for name, table in tables.items()}
    ways, heads, layers = (tf.reduce_sum(weighted[name], -1) for name in ("routing", "heads", "stack"))
    edges, nothing = {edge: row for row, edge in enumerate(graph.heads_of)}, tf.zeros([], dtype)
    after = {graph.blocks - 1: nothing}
    for source in reversed(range(graph.blocks - 1)):
        costs = []
        for target in graph.targets(source):
            head = heads[edges[source, target]] if (source, target) in edges else nothing
            own = [row for row, (of, _) in enumerate(graph.layers_of) if of == target]
            costs.append(head + sum(layers[row] for row in own) + after[target])
        shares = mixture["routing"][source, : len(costs)]
        after[source] = ways[source] + tf.reduce_sum(shares * tf.stack(costs))
    return tf.constant(constant, dtype) + after[0]
