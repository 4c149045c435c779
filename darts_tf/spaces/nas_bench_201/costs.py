"""What networks of NAS-Bench-201's cells cost: the parts of their edges, and all that is no edge."""

import math

from darts_tf.costs import tables
from darts_tf.ops import operations, parts
from darts_tf.spaces.cells.costs import with_own_results
from darts_tf.spaces.nas_bench_201 import networks


class Costs201(tables.Costs):
    """The costs of the networks of cells of NAS-Bench-201, see `costs`."""

    def computed(self, architecture):
        edges, rows = list(self.space.edges()), self.rows["cell",]
        picks = self.space.picks(architecture)["cell"]
        made = [(edges[row][0], rows[row, place], edges[row][1]) for row, place in picks]
        return [*self.fixed, *(part for _, parts, _ in with_own_results(self, made) for part in parts)]


def costs(space, task, channels, layers):
    """The `Costs201` of a space; arguments are those of `NasBench201.costs`."""
    (*size, depth), (table,) = task.input_shape, space.choices.values()
    stages, inputs = operations.stem(affine=True), channels
    fixed = [parts.of_stages(f"stem of {len(stages)} to {channels}", stages, channels, (*size, depth))]
    targets, shapes = [node for node, _ in space.edges()], []
    for width, reduction in networks.stack(channels, layers):
        if reduction:
            outer, size = size, [-(-length // 2) for length in size]
            for name, stages in networks.residual_stages().items():
                shape = (*size, width) if name == "conv_b" else (*outer, inputs)
                fixed.append(parts.of_stages(f"{name} to {width}", stages, width, shape))
            fixed.append(parts.joined("Add", 2, (*size, width)))
        else:
            shapes.append((*size, width))
            reach = [targets.count(node) for node in set(targets)]
            fixed += [parts.joined("Add", count, shapes[-1]) for count in reach if count > 1]
        inputs = width
    fixed.append(parts.of_stages("batch norm and relu", networks.LAST, inputs, (*size, inputs)))
    fixed.append(parts.classifier((*size, inputs), task.outputs))

    def entry(row, place):
        name, found = table.candidates[place], []
        if not table.mask[row, place]:
            return None
        for shape in shapes:
            made = operations.make_operation(name, shape[-1], 1, affine=True)
            if made != []:
                beside = 4 * math.prod(shape) * (space.nodes - 1)  # bytes of other nodes
                found.append(parts.of_stages(f"{name} to {shape[-1]}, stride 1", made, shape[-1], shape, beside))
        return found

    rows = tables.array_of((len(table.rows), len(table.candidates)), entry)
    return Costs201(space, fixed, {("cell",): rows})
