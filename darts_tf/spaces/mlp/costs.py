"""What perceptrons cost: of each layer what its width and that of its input say.

A table has two arrays. `LAYERS` is (rows, connections, activations, widths, width of the input), where the input of the
first row is that of the network, whatever its width; `LAST`, (width of the input,), is of the linear layer behind the
last hidden one. Widths grow, so that a sum is as wide as the later of two of them.
"""

import dataclasses
import functools
import operator

import keras
import numpy as np

from darts_tf.costs import counts, tables
from darts_tf.costs.tables import PEAK
from darts_tf.ops.parts import Part
from darts_tf.spaces.mlp.space import CONNECTIONS, DENSE, NONE, RESIDUAL

LAYERS, LAST = ("connections", "activations", "widths"), ()


@dataclasses.dataclass(frozen=True)
class Dense(Part):
    """A `Part` that is a product of matrices and what follows on it, whose size need not be counted in a graph.

    Args:
        units: columns of its matrix.
        parameters: numbers that it has beside the matrix.
    """

    units: int = dataclasses.field(default=0, compare=False)
    parameters: int = dataclasses.field(default=0, compare=False)

    def counts(self):
        products = self.shapes[0][0] * self.units
        found = {name: size_of(products, self.units, 1) for name, size_of in counts.BYTES.items()}
        return found | {"parameters": products + self.parameters, "multiply_adds": products}


class Costs(tables.Costs):
    """The costs of the networks of a space.

    Args:
        space: `MLP`.
        task: `darts_tf.data.tasks.Task`.
        units: of the widest layer; by default the space's.
    """

    def __init__(self, space, task, units=None):
        widths = [space.units_of(width, units) for width in space.widths]
        first = int(np.prod(task.input_shape))

        def layer(row, connection, activation, width, source):
            if not space.choices["connections"].mask[row, connection]:
                return None
            if CONNECTIONS[connection] == NONE:
                return []
            inputs = widths[source] if row else first
            is_sum = CONNECTIONS[connection] == RESIDUAL
            return [of_layer(inputs, widths[width], space.primitives[activation], is_sum, space.batch_norm)]

        def last(source):
            return [of_classifier(widths[source], task.outputs)]

        shape = space.layers, len(CONNECTIONS), len(space.primitives), len(widths), len(widths)
        super().__init__(
            space, [], {LAYERS: tables.array_of(shape, layer), LAST: tables.array_of((len(widths),), last)}
        )

    def parts_of(self, architecture):
        return [part for names, place in places(self.space.picks(architecture)) for part in self.rows[names][place]]


def of_layer(inputs, units, activation, residual, batch_norm):
    """The `Part` of a hidden layer; arguments are those of `networks.hidden`."""

    def layers(x):
        from darts_tf.spaces.mlp.networks import hidden

        return hidden(x, units, activation, residual, batch_norm)

    name = f"dense to {units}, {'batch norm, ' if batch_norm else ''}{activation}{', added' if residual else ''}"
    return Dense(name, ((inputs,),), layers, units=units, parameters=units * (2 if batch_norm else 1))


def of_classifier(inputs, outputs):
    """The `Part` of the linear layer behind the last hidden one."""
    return Dense(
        f"dense to {outputs}", ((inputs,),), lambda x: keras.layers.Dense(outputs)(x), units=outputs, parameters=outputs
    )


def after(connection, source, width):
    """How wide the result of a layer is: the place of that among the widths.

    Args:
        connection: its name.
        source, width: places of the width of its input, and of its own.
    """
    return {DENSE: width, RESIDUAL: max(source, width), NONE: source}[connection]


def places(picks):
    """(names of an array, place in it) of all that picks have, the hidden layers first."""
    chosen, source, found = {name: dict(rows) for name, rows in picks.items()}, 0, []
    for row in sorted(chosen["connections"]):
        connection, activation, width = (chosen[name][row] for name in LAYERS)
        found.append((LAYERS, (row, connection, activation, width, source)))
        source = after(CONNECTIONS[connection], source, width)
    return [*found, (LAST, (source,))]


def of_picks(table, picks):
    """The cost of picks, a float."""
    join = max if table.cost == PEAK else operator.add
    return float(functools.reduce(join, (table.rows[names][place] for names, place in places(picks)), table.fixed))


def expected(table, mixture):
    """The cost of candidates that count as a mixture says, whose rows count as if they were chosen independently.

    From layer to layer it follows how likely the input has each width.

    Args:
        table: `darts_tf.costs.tables.Table`.
        mixture: {table: tensor (rows, candidates)}.

    Returns:
        Scalar tensor of the mixture's type, that can be differentiated.
    """
    import tensorflow as tf

    parts = {}
    for name in LAYERS:
        own = tf.convert_to_tensor(mixture[name])
        parts[name] = tf.unstack(tf.math.divide_no_nan(own, tf.reduce_sum(own, -1, keepdims=True)))
    rows, last = (tf.constant(table.rows[names], parts["widths"][0].dtype) for names in (LAYERS, LAST))
    count = rows.shape[-1]
    wider = np.zeros([count] * 3)  # of two widths that of their sum
    for one, other in np.ndindex(count, count):
        wider[one, other, max(one, other)] = 1
    source, total = tf.one_hot(0, count, dtype=rows.dtype), tf.cast(table.fixed, rows.dtype)
    join = tf.maximum if table.cost == PEAK else tf.add
    for array, connections, activations, widths in zip(tf.unstack(rows), *parts.values(), strict=True):
        total = join(total, tf.einsum("cawi,i,c,a,w->", array, source, connections, activations, widths))
        summed = tf.einsum("iwo,i,w->o", tf.constant(wider, rows.dtype), source, widths)
        of = {DENSE: widths, RESIDUAL: summed, NONE: source}
        source = tf.add_n([connections[place] * of[name] for place, name in enumerate(CONNECTIONS)])
    return join(total, tf.reduce_sum(source * last))


def cheapest(table, connections):
    """The least that a network costs, a float.

    Args:
        table: `darts_tf.costs.tables.Table`.
        connections: bool array (rows, connections), those that there are.
    """
    join = max if table.cost == PEAK else operator.add
    rows, last = (table.rows[names] for names in (LAYERS, LAST))
    best = {0: table.fixed}  # by the width of what is there so far
    for array, allowed in zip(rows, connections, strict=True):
        following = {}
        for source, cost in best.items():
            for connection, width in np.ndindex(array.shape[0], array.shape[2]):
                if allowed[connection]:
                    place = after(CONNECTIONS[connection], source, width)
                    value = join(cost, array[connection, :, width, source].min())
                    following[place] = min(value, following.get(place, np.inf))
        best = following
    return float(min(join(cost, last[source]) for source, cost in best.items()))


def strongest(options):
    """The picks of the strongest choice within bounds, {table: list of (row, candidate)}.

    From layer to layer the best choices are kept for each width that the result may have. A layer that is not there
    loses nothing by its activation and its width.

    Args:
        options: `darts_tf.costs.bounds.Options`.

    Raises:
        ValueError: nothing is within the bounds.
    """
    choices = options.choices
    numbers = [range(len(choices[name].candidates)) for name in LAYERS]
    best = {0: options.nothing}
    for row in range(len(choices["connections"].rows)):
        following = {}

        def entry(source, connection, activation, width, row=row):
            picks = [(name, row, one) for name, one in zip(LAYERS, (connection, activation, width), strict=True)]
            value = options.value(*picks[0])
            if CONNECTIONS[connection] != NONE:
                value += sum(options.value(*pick, relative=True) for pick in picks[1:])
            return value, picks, LAYERS, (row, connection, activation, width, source)

        for source, front in best.items():
            for connection in np.flatnonzero(choices["connections"].can_win[row]):
                for width in numbers[2]:
                    own = [entry(source, int(connection), one, width) for one in numbers[1]]
                    total = (front + options.front(own)).within(options.bounds)
                    place = after(CONNECTIONS[connection], source, width)
                    if place in following:
                        total = (following[place] | total).within(options.bounds)
                    following[place] = total
        best = following
    ends = [front + options.front([(0.0, [], LAST, (source,))]) for source, front in best.items()]
    return options.ordered(functools.reduce(operator.or_, ends).within(options.bounds).best())
