"""What the networks of a space cost, as tables that say what each choice adds."""

import dataclasses
import functools
import string

import numpy as np

ADDED = ("parameters", "multiply_adds", "model_bytes", "int8_model_bytes")  # of a network the sum of its parts
PEAK = "activation_bytes"  # of a network the largest of its parts
LATENCY = "latency_ms"
FILE = {"model_bytes": 7600, "int8_model_bytes": 8500}  # bytes of a TFLite file beside those of its layers
COSTS = (*ADDED, PEAK, LATENCY)


def in_words(number, item=None):
    """A number of multiply-adds, "4,416" or "1.8 million per image"; "unknown" of None."""
    if number is None:
        return "unknown"
    return (f"{number:,.0f}" if number < 1e5 else f"{number / 1e6:,.1f} million") + (f" per {item}" if item else "")


@dataclasses.dataclass(frozen=True)
class Table:
    """One cost of all networks of a space.

    Attributes:
        cost: its name.
        fixed: number, what all networks have in common.
        rows: {names of tables of choices: float64 array}: what each choice adds. Of ("layers",) the array is (rows,
            candidates); of ("layers", "widths") it is (rows, candidates, widths), for choices of the same row in both.
            A space whose costs depend on more than that has more axes behind, and computes them itself.
    """

    cost: str
    fixed: float
    rows: dict

    @property
    def unit(self):
        """What the cost is divided by where it enters a loss: a thousand of what is counted, or a microsecond."""
        return 1e-3 if self.cost == LATENCY else 1e3

    @property
    def _join(self):
        return np.maximum if self.cost == PEAK else np.add

    def of(self, picks):
        """The cost of picks, {table: list of (row, candidate)}."""
        total = self.fixed
        for names, array in self.rows.items():
            for place in _places(names, picks):
                total = self._join(total, array[place])
        return float(total)

    def without(self, left_out, cost=0.0):
        """A `Table` where what is left out costs something else.

        Args:
            left_out: {table of choices: bool array (rows, candidates)}.
            cost: what that costs.
        """
        rows = {}
        for names, array in self.rows.items():
            masks = [
                np.expand_dims(left_out[name], [1 + other for other in range(len(names)) if other != axis])
                for axis, name in enumerate(names)
            ]
            mask = functools.reduce(np.logical_or, masks, np.bool_(False))
            rows[names] = np.where(mask.reshape(*mask.shape, *[1] * (array.ndim - mask.ndim)), cost, array)
        return dataclasses.replace(self, rows=rows)

    def to_config(self):
        """What `Table.from_config` makes it of again, a dict that JSON can hold."""
        return {
            "cost": self.cost,
            "fixed": float(self.fixed),
            "rows": [[list(names), array.tolist()] for names, array in self.rows.items()],
        }

    @classmethod
    def from_config(cls, config):
        rows = {tuple(names): np.array(array, np.float64) for names, array in config["rows"]}
        return cls(config["cost"], config["fixed"], rows)


class Costs:
    """What the networks of a space cost: the sum of what their parts do.

    Args:
        space: `darts_tf.spaces.base.SearchSpace`.
        fixed: list of the parts that all networks have, see `darts_tf.ops.parts.Part`.
        rows: {names of tables of choices: object array of lists of parts}, see `Table`; None where a candidate is
            not one of the row's.

    Attributes:
        latency: `darts_tf.costs.latency.LatencyTable`, or None as long as latencies are not known.

    Call arguments:
        architecture: of the space.

    Returns:
        dict of its `parameters` and `multiply_adds`, ints; the latter is None if it is not known.
    """

    def __init__(self, space, fixed, rows):
        self.space, self.fixed, self.rows = space, list(fixed), rows
        self.latency = None
        self._known = {}

    def __call__(self, architecture):
        return {name: self.of(architecture, name) for name in ("parameters", "multiply_adds")}

    def of(self, architecture, cost):
        """One cost of an architecture, a number; None if it is not known."""
        parts = self.computed(architecture) if cost == LATENCY else self.parts_of(architecture)
        numbers = [self.number(part, cost) for part in parts]
        numbers.append(self._of_all(cost))
        return None if None in numbers else (max if cost == PEAK else sum)(numbers)

    def number(self, part, cost):
        """What a part costs, None if it is not known.

        Raises:
            ValueError: it is not in the table of latencies.
        """
        if cost == LATENCY:
            return None if self.latency is None else self.latency.of(part)
        known = self._known.setdefault(part, {})
        if cost not in known:
            known |= {PEAK: part.activations()} if cost == PEAK else part.counts()
        return known[cost]

    def parts_of(self, architecture):
        """The parts of the network of an architecture, a list."""
        picks, found = self.space.picks(architecture), list(self.fixed)
        for names, array in self.rows.items():
            for place in _places(names, picks):
                found += array[place]
        return found

    def computed(self, architecture):
        """Those of its parts that an interpreter computes, a list: all that have results of their own."""
        return self.parts_of(architecture)

    def all_parts(self):
        """Each part of any network of the space once, a list."""
        own = [part for array in self.rows.values() for parts in array.flat for part in parts or ()]
        return list(dict.fromkeys([*self.fixed, *own]))

    def table(self, cost):
        """The `Table` of a cost.

        Args:
            cost: one of `COSTS`.

        Raises:
            ValueError: the cost of a part is not known; says which.
        """

        def total(parts):
            numbers = [self.number(part, cost) for part in parts or ()]
            if None in numbers:
                raise ValueError(f"{cost} of {parts[numbers.index(None)]} is not known.")
            return float((max if cost == PEAK else sum)(numbers, **({"default": 0} if cost == PEAK else {})))

        rows = {names: np.vectorize(total, [np.float64])(array) for names, array in self.rows.items()}
        return Table(cost, total(self.fixed) + self._of_all(cost), rows)

    def _of_all(self, cost):
        """What every network costs beside its parts."""
        return self.latency.fixed if cost == LATENCY and self.latency else FILE.get(cost, 0)


def _places(names, picks):
    """Where what was picked is in the array of `names`, see `Table`; a row may have several candidates."""
    others = [dict(picks[name]) for name in names[1:]]
    return [(row, candidate, *(chosen[row] for chosen in others)) for row, candidate in picks[names[0]]]


def array_of(shape, entry):
    """An object array for `Costs`: `entry`, a function of a row and a candidate of each table, makes what it holds."""
    array = np.empty(shape, object)
    for place in np.ndindex(*shape):
        array[place] = entry(*place)
    return array


def expected(table, choices, mixture, shares=None):
    """The cost of candidates that count as a mixture says.

    Rows that compete count as much of one as they are strong, so that those of a group count as much together as rows
    of it stay: what discretisation drops costs nothing in the end. Candidates that no architecture has cost nothing,
    and the others on their row count for them.

    Args:
        table: `Table`.
        choices: {table: `darts_tf.spaces.base.Choices`}.
        mixture: {table: tensor (rows, candidates)}.
        shares: {table: tensor (rows,)}, what rows that compete count; by default the mixture says it.

    Returns:
        Scalar tensor of the mixture's type, that can be differentiated.
    """
    import tensorflow as tf

    counted = {}
    for name, one in choices.items():
        own = tf.convert_to_tensor(mixture[name])
        if all(keep == len(rows) for rows, keep in one.groups) and not one.never:
            counted[name] = own
            continue
        own *= tf.constant([float(other not in one.never) for other in one.candidates], own.dtype)
        strength = tf.reduce_max(own, -1) if shares is None else tf.cast(shares[name], own.dtype)
        own = tf.math.divide_no_nan(own, tf.reduce_sum(own, -1, keepdims=True))
        stay = [None] * len(one.rows)
        for rows, keep in one.groups:
            among = tf.gather(strength, rows)
            part = keep * tf.math.divide_no_nan(among, tf.reduce_sum(among))
            part = tf.minimum(part, 1) if keep < len(rows) else tf.ones_like(part)
            for place, row in enumerate(rows):
                stay[row] = part[place]
        counted[name] = own * tf.stack(stay)[:, None]
    dtype = next(iter(counted.values())).dtype
    total = tf.cast(table.fixed, dtype)
    for names, array in table.rows.items():
        letters = string.ascii_lowercase[: len(names)]
        each = ",".join(f"z{letter}" for letter in letters)
        rows = tf.einsum(f"{each},z{letters}->z", *(counted[name] for name in names), tf.constant(array, dtype))
        total = tf.maximum(total, tf.reduce_max(rows)) if table.cost == PEAK else total + tf.reduce_sum(rows)
    return total


def least(table, choices):
    """The least that a network costs, a float; arguments as of `expected`."""
    total = table.fixed
    for names, array in table.rows.items():
        of, *others = (choices[name] for name in names)
        inner = array.reshape(*array.shape[:2], -1).min(-1) if others else array
        rows = np.where(of.can_win, inner, np.inf).min(-1)
        for group, keep in of.groups:
            smallest = np.sort(rows[list(group)])[:keep]
            total = max(total, smallest.max()) if table.cost == PEAK else total + smallest.sum()
    return float(total)
