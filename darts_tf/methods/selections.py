"""Selections: how a search decides in the end, from strengths to one candidate on each row that stays.

Each is an object; `--selection` names it: `get("max_skips", max_skips=3)`.
"""

import contextlib
import inspect

import numpy as np

from darts_tf.cli.registry import Registry
from darts_tf.costs.tables import Table


class Selection:
    """What every selection is: a function of one table of strengths.

    Attributes:
        name: what `register_selection` calls it.
    """

    name = None
    by_network = False  # whether what networks are worth decides at the end of the search, see `darts_tf.runs.deciding`

    def __call__(self, strengths, choices):
        """Decides in one table.

        Args:
            strengths: array (rows, candidates), of `Relaxation.strengths`.
            choices: `darts_tf.spaces.base.Choices` of the table: which rows compete, and which candidates never win.

        Returns:
            list of (row, candidate), int, one for each row that stays: group by group, in a group the strongest first.
        """
        raise NotImplementedError

    def decide(self, strengths, choices):
        """Decides in all tables of a space, by default in each for itself.

        Args:
            strengths: {table: array (rows, candidates)}.
            choices: {table: `Choices`}.

        Returns:
            {table: list of (row, candidate)}.
        """
        return {name: self(strengths[name], table) for name, table in choices.items()}

    def within(self, space, strengths, costs, most):
        """What it decides where costs are bounded; arguments, result and errors as of `SearchSpace.within`."""
        return space.within(strengths, costs, most)


_selections = Registry("selection", Selection)
register_selection, names, get = _selections.register, _selections.names, _selections.get


def _of_candidates(strengths, choices):
    """The strengths of candidates that can win; those of others are -inf."""
    return np.where(choices.can_win, strengths, -np.inf)


@register_selection("strongest")
class Strongest(Selection):
    """Keeps the strongest candidate on the strongest rows of every group (section 2.4 of DARTS).

    The strength of a row is that of its strongest candidate. Of equals the first wins.
    """

    def __call__(self, strengths, choices):
        strengths, kept = _of_candidates(strengths, choices), []
        for rows, keep in choices.groups:
            own = strengths[list(rows)]
            for place in np.argsort(-own.max(axis=1), kind="stable")[:keep]:
                kept.append((int(rows[place]), int(own[place].argmax())))
        return kept


@register_selection("threshold")
class Threshold(Strongest):
    """As `strongest`, without rows that are weaker than a threshold (section 3.2 of FairDARTS).

    Args:
        threshold: the least strength.
    """

    def __init__(self, threshold=0.85):
        self.threshold = threshold

    def __call__(self, strengths, choices):
        return self._reached(super().__call__(strengths, choices), strengths)

    def within(self, space, strengths, costs, most):
        """As of every selection; what will be left out costs nothing."""
        weak = {name: np.asarray(own) < self.threshold for name, own in strengths.items()}
        costs = [table.without(weak) for table in costs]
        picks = space.picks(super().within(space, strengths, costs, most))
        return space.decode({name: self._reached(own, strengths[name]) for name, own in picks.items()})

    def _reached(self, picks, strengths):
        return [pick for pick in picks if np.asarray(strengths)[pick] >= self.threshold]


@register_selection("threshold_edges")
class ThresholdEdges(Selection):
    """Keeps all candidates that reach a threshold, at most so many of a row; rows do not compete (FairDARTS).

    Row by row, the strongest of a row last.

    Args:
        threshold: the least strength.
        most: candidates of a row.
    """

    def __init__(self, threshold=0.85, most=2):
        self.threshold, self.most = threshold, most

    def __call__(self, strengths, choices):
        return [
            (row, int(candidate))
            for row, own in enumerate(_of_candidates(strengths, choices))
            for candidate in np.argsort(own, kind="stable")[-self.most :]
            if own[candidate] >= self.threshold
        ]

    def within(self, space, strengths, costs, most):
        """As of every selection: the strongest candidates first, each that is within the bounds with those before."""
        picks = self.decide(strengths, space.choices)
        best = sorted(
            ((name, pick) for name, own in picks.items() for pick in own),
            key=lambda one: -np.asarray(strengths[one[0]])[one[1]],
        )
        kept = {name: [] for name in picks}
        for name, pick in best:
            more = kept | {name: [*kept[name], pick]}
            if all(space.cost_of(table, more) <= bound for table, bound in zip(costs, most, strict=True)):
                kept = more
        return space.decode({name: [pick for pick in own if pick in kept[name]] for name, own in picks.items()})


@register_selection("perturbation")
class ByPerturbation(Strongest):
    """As `strongest` while the search goes on; at its end `darts_tf.methods.projection` decides (DARTS-PT)."""

    by_network = True


@register_selection("evolution")
class ByEvolution(Strongest):
    """As `strongest` while the search goes on; at its end `darts_tf.methods.evolution` decides."""

    by_network = True


@register_selection("strongest_pairs")
class StrongestPairs(Selection):
    """Keeps the strongest candidates of every group, two of which may be on one row (GDAS, in the space of NASNet).

    Of equals the first wins: by rows, then by candidates.
    """

    def __call__(self, strengths, choices):
        strengths, kept = _of_candidates(strengths, choices), []
        for rows, keep in choices.groups:
            own = strengths[list(rows)]
            for place in np.argsort(-own, axis=None, kind="stable")[:keep]:
                row, candidate = divmod(int(place), own.shape[1])
                kept.append((int(rows[row]), candidate))
        return kept


@register_selection("max_skips")
class MaxSkips(Selection):
    """Keeps at most so many skip connections in the normal cell (section 3.3 of P-DARTS), the first table of a space.

    While there are more, the weakest of them is left out of the competition and all rows are chosen anew. Of equals the
    last wins, and rows are in their order. Where a row has nothing but skip connections one of them may have to stay.

    Args:
        max_skips: how many may stay, None for any number.
        skip: the name of the candidate.
    """

    def __init__(self, max_skips=2, skip="skip_connect"):
        self.max_skips, self.skip = max_skips, skip

    def decide(self, strengths, choices):
        limited, *_ = choices
        return {
            name: self(strengths[name], table) if name == limited else self._strongest(strengths[name], table)
            for name, table in choices.items()
        }

    def within(self, space, strengths, costs, most):
        """As of every selection; the number of skips is one more cost, unless nothing is within that, too."""
        limited, one = next(iter(space.choices.items()))
        if self.max_skips is not None and self.skip in one.candidates:
            is_skip = np.tile(np.array(one.candidates) == self.skip, (len(one.rows), 1))
            skips = Table("skips", 0.0, {(limited,): is_skip.astype(np.float64)})
            with contextlib.suppress(ValueError):
                return space.within(strengths, [*costs, skips], [*most, self.max_skips])
        return space.within(strengths, costs, most)

    def __call__(self, strengths, choices):
        strengths = np.array(strengths, np.float64)
        skip = choices.candidates.index(self.skip) if self.skip in choices.candidates else None
        while True:
            kept = self._strongest(strengths, choices)
            skips = [row for row, candidate in kept if candidate == skip]
            left = [row for row in skips if strengths[row, skip] > 0]
            if self.max_skips is None or len(skips) <= self.max_skips or not left:
                return kept
            strengths[min(left, key=lambda row: (strengths[row, skip], row)), skip] = 0

    @staticmethod
    def _strongest(strengths, choices):
        strengths, kept = _of_candidates(strengths, choices), []
        last = strengths.shape[1] - 1
        for rows, keep in choices.groups:
            own = strengths[list(rows)].max(axis=1)
            for place in sorted(np.argsort(own, kind="stable")[-keep:]):
                row = int(rows[place])
                kept.append((row, last - int(strengths[row, ::-1].argmax())))
        return kept


def configured(values):
    """The selection of a configuration, a dict: "selection" is its name, its arguments have their own names.

    Raises:
        ValueError: there is none of this name.
    """
    name = values.get("selection") or "strongest"
    takes = inspect.signature(_selections.kind(name)).parameters
    return get(name, **{key: values[key] for key in takes if values.get(key) is not None})
