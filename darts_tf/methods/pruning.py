"""Fewer candidates as the search goes on: stage by stage (P-DARTS, DrNAS), or as soon as one is weak.

Which rows have which candidates is {table: bool array (rows, candidates)}, as `darts_tf.spaces.models.Supernet` takes
it. This file needs no TensorFlow.
"""

import numpy as np


def narrowed(strengths, candidates, choices, keep, never_first=False):
    """Which candidates stay when each row keeps so many: its strongest.

        narrowed(network.strengths(), network.candidates, space.choices, keep=5)

    Between the stages of P-DARTS 5 and then 3 of 8 stay (section 3.2 there), of DrNAS the same (section 3.3). Of equals
    the last stays.

    Args:
        strengths: {table: array (rows, candidates)}.
        candidates: {table: bool array (rows, candidates)}, those there are.
        choices: {table: `darts_tf.spaces.base.Choices`}.
        keep: how many stay on a row, at least 1. Rows that have fewer keep them all.
        never_first: whether candidates that no architecture has, "none", leave before all others, as after the last
            stage of P-DARTS.

    Returns:
        {table: bool array}. Each row keeps at least one that an architecture can have.

    Raises:
        ValueError: nothing would stay.
    """
    if keep < 1:
        raise ValueError(f"keep={keep}: expected at least 1 candidate on each row.")
    result = {}
    for name, table in choices.items():
        never = np.array([candidate in table.never for candidate in table.candidates])
        kept = np.zeros_like(candidates[name])
        for row, (own, there) in enumerate(zip(np.asarray(strengths[name]), candidates[name], strict=True)):
            order = np.lexsort((own, ~never | (not never_first), there))[-keep:]  # the last key counts most
            can_win = there & ~never
            if not can_win[order].any():
                order[0] = np.where(can_win, own, -np.inf).argmax()
            kept[row, order] = True
        kept &= candidates[name]
        result[name] = kept
    return result


def pruned(strengths, candidates, choices, least):
    """Which candidates stay when those whose share of their row is below `least` leave.

    Args:
        strengths, candidates, choices: as of `narrowed`.
        least: share, from 0 to 1; the shares of a row are its strengths over their sum.

    Returns:
        {table: bool array}. The strongest of a row stays, and the strongest that an architecture can have.

    Raises:
        ValueError: `least` is no share.
    """
    if not 0 <= least <= 1:
        raise ValueError(f"least={least}: expected a share, from 0 to 1.")
    result = {}
    for name, table in choices.items():
        never = np.array([candidate in table.never for candidate in table.candidates])
        own = np.where(candidates[name], strengths[name], 0.0)
        shares = own / np.maximum(own.sum(-1, keepdims=True), np.finfo(np.float64).tiny)
        kept = candidates[name] & (shares >= least)
        rows = np.arange(len(own))
        for some in (candidates[name], candidates[name] & ~never):
            kept[rows, np.where(some, own, -np.inf).argmax(-1)] = True
        result[name] = kept
    return result
