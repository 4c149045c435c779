"""Selections: how a search decides in the end, from strengths to one candidate on each row that stays."""

import numpy as np

from darts_tf.cli.registry import Registry


class Selection:
    """What every selection is: a function of one table of strengths.

    Attributes:
        name: what `register_selection` calls it.
    """

    name = None

    def __call__(self, strengths, choices):
        """Decides.

        Args:
            strengths: array (rows, candidates), of `Relaxation.strengths`.
            choices: `darts_tf.spaces.base.Choices` of the table: which rows compete, and which candidates never win.

        Returns:
            list of (row, candidate), int, one for each row that stays: group by group, in a group the strongest first.
        """
        raise NotImplementedError


_selections = Registry("selection", Selection)
register_selection, names, get = _selections.register, _selections.names, _selections.get


@register_selection("strongest")
class Strongest(Selection):
    """Keeps the strongest candidate on the strongest rows of every group (section 2.4 of DARTS).

    The strength of a row is that of its strongest candidate.
    """

    def __call__(self, strengths, choices):
        allowed = [place for place, name in enumerate(choices.candidates) if name not in choices.never]
        strengths, kept = np.asarray(strengths)[:, allowed], []
        for rows, keep in choices.groups:
            own = strengths[list(rows)]
            for place in np.argsort(-own.max(axis=1), kind="stable")[:keep]:
                kept.append((int(rows[place]), allowed[int(own[place].argmax())]))
        return kept
