"""What chains cost: the parts of their layers."""

from darts_tf.costs import tables
from darts_tf.ops import operations, parts
from darts_tf.ops.parts import Part
from darts_tf.spaces.chain.blocks import block, ends


def costs(space, task, init_channels=None):
    """The `darts_tf.costs.tables.Costs` of a space of chains.

    Args:
        space: `Chains`.
        task: `darts_tf.data.tasks.Task` on images.
        init_channels: channels of the stem; by default the description's.
    """
    description = space.described(init_channels)
    made, (*size, depth) = ends(description), task.input_shape
    stages, channels = made["stem"]
    fixed = [parts.of_stages(f"stem to {channels}, {_of_stem(description)}", stages, channels, (*size, depth))]
    size, sizes = operations.result_of(stages, size), []
    names, layers = space.choices["layers"].candidates, description.layers()
    for layer in layers:
        sizes.append(size)
        size = tuple(-(-length // layer.stride) for length in size)
    stages, channels = made["head"]
    head = f"head to {channels}, {description.activation}"
    fixed.append(parts.of_stages(head, stages, channels, (*size, layers[-1].outputs)))
    fixed.append(parts.classifier((*size, channels), task.outputs, description.bias))
    searched = len(space.widths) > 1

    def entry(row, place, width=-1):
        layer, name = layers[row], names[place]
        if name not in layer.candidates:
            return None
        shape = *sizes[row], layer.inputs
        return of_block(
            name, layer.outputs, layer.stride, shape, description.activation, width=float(space.widths[width])
        )

    shape = len(layers), len(names), *([len(space.widths)] if searched else [])
    of = ("layers", "widths") if searched else ("layers",)
    return tables.Costs(space, fixed, {of: tables.array_of(shape, entry)})


def _of_stem(description):
    return f"stride {description.stem_stride}, {description.activation}"


def of_block(name, outputs, stride, shape, activation="relu6", **options):
    """The parts of a block: one, or none where it does nothing.

    Args:
        name, outputs, stride, activation, options: of `blocks.block`.
        shape: (height, width, channels) of its images.
    """
    own = block(name, shape[-1], outputs, stride, activation, **options)
    ways = tuple((stages, channels, shape[-1] // (1 + own.splits)) for stages, channels in own.operations().values())
    if not ways:
        return []
    width = options.get("width", 1.0)
    said = f"{name} to {outputs}, stride {stride}, {activation}{'' if width == 1 else f', width {width:g}'}"
    return [Part(said, (tuple(shape),), lambda x: own.layers(x, "block"), ways)]
