"""What networks of densely connected blocks cost, before and after their path is decided (section 3.3 of DenseNAS)."""

import itertools
import operator

import tensorflow as tf

from darts_tf.costs import tables
from darts_tf.costs.tables import PEAK
from darts_tf.ops import operations, parts
from darts_tf.spaces.chain.costs import of_block
from darts_tf.spaces.densenas.blocks import EPSILON, ends, sized


class Costs(tables.Costs):
    """The costs of the networks of a space.

    Args:
        space: `DenseNAS`.
        task: `darts_tf.data.tasks.Task` on images.
        init_channels: of the first block; by default the graph's.
    """

    def __init__(self, space, task, init_channels=None):
        (*size, depth), strides = task.input_shape, space.blocks.strides_for(min(task.input_shape[:2]))
        graph, stem_stride = sized(space.blocks, init_channels, strides)
        made, choices = ends(graph, stem_stride), space.choices
        stages, channels = made["stem"]
        fixed = [parts.of_stages(f"stem to {channels}, stride {stem_stride}, relu6", stages, channels, (*size, depth))]
        size = operations.result_of(stages, size)
        first = parts.of_stages("mb1_k3 without activation", made["first"][0], channels, (*size, channels))
        fixed += [first, parts.joined("Add", 2, (*size, channels))]
        images = [size]
        for target in range(1, graph.blocks):
            source = graph.sources(target)[0]
            step = graph.stride(source, target)
            images.append(tuple(-(-length // step) for length in images[source]))

        def head(row, place):
            source, target = graph.heads_of[row]
            shape = *images[source], graph.channels[source]
            name = graph.heads[place]
            return of_block(name, graph.channels[target], graph.stride(source, target), shape, epsilon=EPSILON)

        def layer(row, place):
            number, _ = graph.layers_of[row]
            shape = *images[number], graph.channels[number]
            return of_block(graph.stack[place], graph.channels[number], 1, shape, epsilon=EPSILON)

        def way(row, place):
            if row + 1 + place != graph.blocks - 1 or not choices["routing"].mask[row, place]:
                return []
            stages, width = made["last"]
            last = parts.of_stages(f"head to {width}, relu6", stages, width, (*images[row], graph.channels[row]))
            return [last, parts.classifier((*images[row], width), task.outputs)]

        entries = {"routing": way, "heads": head, "stack": layer}
        rows = {(name,): tables.array_of(choices[name].mask.shape, entry) for name, entry in entries.items()}
        super().__init__(space, fixed, rows)

    def parts_of(self, architecture):
        picks = {name: dict(rows) for name, rows in self.space.picks(architecture).items()}
        found = list(self.fixed)
        for name, row in on_path(self.space.blocks, architecture.numbers):
            found += self.rows[name,][row, picks[name][row]]
        return found


def on_path(graph, numbers):
    """[(table, row)] of all that a path chooses, see `Path.numbers`."""
    edges, found = graph.heads_of, []
    for source, target in itertools.pairwise(numbers):
        found.append(("routing", source))
        found += [("heads", edges.index((source, target)))] if (source, target) in edges else []
        found += [("stack", row) for row, (number, _) in enumerate(graph.layers_of) if number == target]
    return found


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
    rows = {name: tf.reduce_sum(one, -1) for name, one in weighted.items()}

    def join(source, ways):
        shares = mixture["routing"][source, : len(ways)]
        return rows["routing"][source] + tf.reduce_sum(shares * tf.stack([way for _, _, way in ways]))

    return tf.constant(constant, dtype) + backwards(graph, lambda *at: rows[at[0]][at[1]], join, tf.zeros([], dtype))


def cheapest(graph, table):
    """The least that a network costs, a float; arguments are those of `DenseNAS.least`."""
    of = {name: rows.min(-1) for (name,), rows in table.rows.items()}

    add = max if table.cost == PEAK else operator.add

    def join(source, ways):
        return min(add(table.rows["routing",][source, place], way) for place, _, way in ways)

    return float(add(table.fixed, backwards(graph, lambda *at: of[at[0]][at[1]], join, 0.0, add)))


def likeliest(graph, options):
    """The likeliest path within bounds, and its operations, a list of (table, row, candidate).

    Args:
        graph: `graph.Graph`.
        options: `darts_tf.costs.bounds.Options`.
    """

    def join(source, ways):
        total = None
        for place, _, way in ways:
            one = (options.of_row("routing", source, only=place) + way).within(options.bounds)
            total = one if total is None else (total | one).within(options.bounds)
        return total

    def row(name, number):
        return options.of_row(name, number, relative=True)

    return backwards(graph, row, join, options.nothing, lambda *both: operator.add(*both).within(options.bounds)).best()


def backwards(graph, row, join, nothing, add=operator.add):
    """What is to come after the first block, found from the last block on.

    Args:
        graph: `graph.Graph`.
        row: function of "heads" or "stack" and the number of a row -> what it costs.
        join: function of a block and a list of (place among its targets, target, what is to come from there on) -> what
            is to come after the block.
        nothing: what is to come after the last block; it can be added.
        add: what makes one of what two rows cost.
    """
    edges, after = {edge: place for place, edge in enumerate(graph.heads_of)}, {graph.blocks - 1: nothing}
    for source in reversed(range(graph.blocks - 1)):
        ways = []
        for place, target in enumerate(graph.targets(source)):
            total = after[target]
            rows = [("heads", edges[source, target])] if (source, target) in edges else []
            rows += [("stack", number) for number, (of, _) in enumerate(graph.layers_of) if of == target]
            for at in rows:
                total = add(total, row(*at))
            ways.append((place, target, total))
        after[source] = join(source, ways)
    return after[0]
