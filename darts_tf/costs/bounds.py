"""The strongest choice within bounds on its costs: dynamic programming over what rows may choose."""

import dataclasses
import functools

import numpy as np

from darts_tf.costs.tables import PEAK

MOST = 20_000  # partial choices that are kept
WEAKEST = 1e-30  # strengths below count like it


@dataclasses.dataclass
class Front:
    """Some choices of the same rows, none of which is both weaker and dearer than another.

    Attributes:
        costs: float64 array (choices, costs).
        values: float64 array (choices,), the sum of the logarithms of strengths.
        chosen: list of nested tuples, see `picks`.
    """

    costs: np.ndarray
    values: np.ndarray
    chosen: list

    @classmethod
    def of(cls, options, count):
        """Of a list of (costs, value, pick), of `count` costs each; a pick is (table, row, candidate), or None."""
        costs, values, picks = zip(*options, strict=True) if options else ((), (), ())
        return cls(np.array(costs, np.float64).reshape(len(options), count), np.array(values, np.float64), list(picks))

    def within(self, bounds):
        """Without what is beyond bounds, an array (costs,), or no better than another."""
        fits = np.flatnonzero((self.costs <= bounds).all(1))
        order = fits[np.lexsort((*self.costs[fits].T, -self.values[fits]))]  # the strongest first
        if not bounds.size:
            order = order[:1]
        if bounds.size == 1:
            best = np.minimum.accumulate(self.costs[order, 0])
            order = order[np.concatenate([[True], self.costs[order[1:], 0] < best[:-1]])] if order.size else order
        if order.size > MOST:
            order = order[_spread(self.costs[order] / np.maximum(bounds, 1e-300))]
        return Front(self.costs[order], self.values[order], [self.chosen[place] for place in order])

    def __add__(self, other):
        """Both choices."""
        values = (self.values[:, None] + other.values[None]).reshape(-1)
        costs = (self.costs[:, None] + other.costs[None]).reshape(values.size, self.costs.shape[1])
        return Front(costs, values, _Pairs(self.chosen, other.chosen))

    def __or__(self, other):
        """One of both choices."""
        return Front(
            np.concatenate([self.costs, other.costs]),
            np.concatenate([self.values, other.values]),
            [*self.chosen, *other.chosen],
        )

    def best(self):
        """The picks of the strongest choice, a list of (table, row, candidate).

        Raises:
            ValueError: there is none.
        """
        if not self.values.size:
            raise ValueError("nothing is within the bound.")
        return sorted(_flat(self.chosen[int(self.values.argmax())]))


def _spread(costs):
    """Places of at most `MOST` choices: of each cell of a grid, as fine as that allows, the first and the cheapest.

    The one whose sum of costs is the least of all is among them, so that what is within the bounds is not lost.

    Args:
        costs: array (choices, costs), as parts of their bounds.
    """
    size, cheapest = costs.shape[1], np.argsort(costs.sum(1), kind="stable")
    bits = min(16, 60 // size)
    places = np.floor(np.clip(costs, 0, 1) * (2**bits - 1)).astype(np.int64)
    # Bits of all costs in turn, so that the beginning of a cell's is a coarser cell.
    cells = np.zeros(len(costs), np.int64)
    for bit in range(bits - 1, -1, -1):
        for axis in range(size):
            cells = 2 * cells + (places[:, axis] >> bit & 1)
    order = np.argsort(cells, kind="stable")
    apart = np.frexp((cells[order[1:]] ^ cells[order[:-1]]).astype(np.float64))[1]  # bits from the first that differs
    groups = 1 + np.array([(apart > size * coarser).sum() for coarser in range(bits + 1)])
    begins = np.concatenate([[0], 1 + np.flatnonzero(apart > size * int((2 * groups <= MOST).argmax()))])
    ranks = np.empty_like(cheapest)
    ranks[cheapest] = np.arange(len(costs))
    first = np.minimum.reduceat(order, begins)
    return np.union1d(first, cheapest[np.minimum.reduceat(ranks[order], begins)])


class _Pairs:
    """All pairs of two lists, made when they are asked for."""

    def __init__(self, first, second):
        self._first, self._second = first, second

    def __getitem__(self, place):
        first, second = divmod(int(place), len(self._second))
        return self._first[first], self._second[second]


def _flat(chosen):
    found, left = [], [chosen]
    while left:
        one = left.pop()
        if one is None:
            continue
        if isinstance(one[0], str):
            found.append(one)
        else:
            left += one
    return found


class Options:
    """What the rows of a space may choose, with strengths and costs.

    Args:
        choices: {table: `darts_tf.spaces.base.Choices`}.
        strengths: {table: array (rows, candidates)}.
        tables: list of `darts_tf.costs.tables.Table`, of the same space.
        bounds: list of numbers, the most of each cost.

    Attributes:
        bounds: array of those that are sums, less what is fixed.
    """

    def __init__(self, choices, strengths, tables, bounds):
        self.choices = choices
        self._values = {
            name: np.log(np.maximum(np.where(one.can_win, strengths[name], 0), WEAKEST))
            for name, one in choices.items()
        }
        pairs = list(zip(tables, bounds, strict=True))
        self._peaks = [(table, bound) for table, bound in pairs if table.cost == PEAK]
        self._sums = [table for table, _ in pairs if table.cost != PEAK]
        self._too_large = any(table.fixed > bound for table, bound in self._peaks)
        self.bounds = np.array([bound - table.fixed for table, bound in pairs if table.cost != PEAK], np.float64)
        self._joint = {name: names for table in tables for names in table.rows for name in names}
        first = {names[0] for names in self._joint.values()}
        self.tables = [name for name in choices if name in first or name not in self._joint]

    @property
    def nothing(self):
        """The choice of no rows."""
        return Front.of([] if self._too_large else [(np.zeros(len(self._sums)), 0.0, None)], len(self._sums))

    def of_row(self, name, row, relative=False, only=None):
        """The `Front` of a row, with those of the same place in tables whose costs depend on it.

        Args:
            name: of the table, one of `tables`.
            row: its number.
            relative: whether the strongest candidate has the value 0, so that rows that are left out lose nothing.
            only: the number of the only candidate; by default any.
        """
        names, found = self._joint.get(name, (name,)), []
        masks = [self.choices[other].can_win[row] for other in names]
        for place in np.ndindex(*(mask.size for mask in masks)):
            if only not in (None, place[0]) or not all(mask[one] for mask, one in zip(masks, place, strict=True)):
                continue
            picks = [(other, row, one) for other, one in zip(names, place, strict=True)]
            found.append((sum(self.value(*pick, relative) for pick in picks), picks, names, (row, *place)))
        return self.front(found)

    def value(self, name, row, candidate, relative=False):
        """The logarithm of the strength of a candidate; `relative` to that of the strongest of its row."""
        values = self._values[name][row]
        return values[candidate] - (values.max() if relative else 0)

    def front(self, some):
        """The `Front` of some choices.

        Args:
            some: list of (value, list of (table, row, candidate), names, place): what each costs is at the place in the
                arrays of these names, see `darts_tf.costs.tables.Table`.
        """
        found = []
        for value, picks, names, place in some:
            if any(names in table.rows and table.rows[names][place] > bound for table, bound in self._peaks):
                continue
            costs = [table.rows[names][place] if names in table.rows else 0.0 for table in self._sums]
            found.append((costs, value, functools.reduce(lambda nested, pick: (nested, pick), picks, None)))
        return Front.of(found, len(self._sums)).within(self.bounds)

    def of_group(self, name, rows, keep):
        """The `Front` of rows that compete, so many of which stay."""
        if keep >= len(rows):
            total = self.nothing
            for row in rows:
                total = (total + self.of_row(name, row)).within(self.bounds)
            return total
        kept = [self.nothing, *[None] * keep]
        for row in rows:
            own = self.of_row(name, row)
            for count in range(keep, 0, -1):
                if kept[count - 1] is not None:
                    more = (kept[count - 1] + own).within(self.bounds)
                    kept[count] = more if kept[count] is None else (kept[count] | more).within(self.bounds)
        return kept[keep]

    def ordered(self, picks):
        """{table: list of (row, candidate)} of a list of (table, row, candidate); in each group the strongest first."""
        found = {}
        for name, one in self.choices.items():
            chosen = {row: candidate for table, row, candidate in picks if table == name}
            found[name] = []
            for rows, _ in one.groups:
                own = [(row, chosen[row]) for row in rows if row in chosen]
                found[name] += sorted(own, key=lambda pick, name=name: -self._values[name][pick])
        return found


def strongest(options):
    """The picks of the strongest choice within bounds, {table: list of (row, candidate)}, see `Options.ordered`.

    The product of the strengths of all that is chosen is largest, which without bounds is the same as that each row
    that stays has its strongest candidate, and the strongest rows of a group stay.

    Args:
        options: `Options`.

    Raises:
        ValueError: nothing is within the bounds.
    """
    total = options.nothing
    for name in options.tables:
        for rows, keep in options.choices[name].groups:
            total = (total + options.of_group(name, rows, keep)).within(options.bounds)
    return options.ordered(total.best())
