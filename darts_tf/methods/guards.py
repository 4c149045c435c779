"""Guards: when a search should stop, and to which epoch it should go back.

Each is a function of what was recorded of the epochs so far and can be asked again at any time: nothing is remembered
between two calls. This file needs no TensorFlow.
"""

import math
from typing import NamedTuple

import numpy as np

START = 0.2  # the part of a search before which RobustDARTS does not go back, 10 of its 50 epochs


class Stop(NamedTuple):
    """That a search should stop.

    Attributes:
        epoch: whose architecture is the result.
        noticed: the epoch after which that can be told.
    """

    epoch: int
    noticed: int


def local_averages(epochs, eigenvalues, total, window=5, frequency=2):
    """The moving average of the dominant eigenvalue, and the epochs that its values belong to.

    Args, Raises: as of `sharpness`.

    Returns:
        list of averages, and {epoch: the epoch in the middle of the window that ends with it, -1 if there is none yet}.
        After the last epoch of the search the windows shrink, so that there are as many averages as eigenvalues.
    """
    least = math.ceil(window / 2)
    averages, middles, start = [], {}, 0
    for count, epoch in enumerate(epochs, 1):
        if epoch == total - 1 and count >= least:
            averages += [float(np.mean(eigenvalues[start + i : start + window + 1])) for i in range(least)]
        elif count < least:
            middles[epoch] = -1
        else:
            start = max(count - window, 0)
            averages.append(float(np.mean(eigenvalues[start:count])))
            start += count >= window
            middles[epoch] = epoch - frequency * (window // 2)
    return averages, middles


def sharpness(epochs, eigenvalues, total, window=5, frequency=2, factor=1.3, start=10, delta=4):
    """Stops where the validation loss gets sharp in alpha (section 4.3 of RobustDARTS, its `EVLocalAvg`).

    The mean of the last `window` eigenvalues is compared with the one `delta` eigenvalues earlier.

    Args:
        epochs: of the eigenvalues, ascending: every `frequency`-th and the last.
        eigenvalues: largest of the Hessian of the validation loss in alpha, after each of these epochs.
        total: epochs of the whole search.
        window: how many eigenvalues are averaged.
        frequency: epochs between two eigenvalues.
        factor: above which growth the search stops.
        start: the first epoch that may be the result.
        delta: how many eigenvalues earlier the other average is.

    Returns:
        `Stop`, or None: the search goes on.

    Raises:
        ValueError: an argument is out of range.
    """
    for name, value, least in (("window", window, 1), ("frequency", frequency, 1), ("delta", delta, 1)):
        if value < least:
            raise ValueError(f"{name}={value}: expected at least {least}.")
    if not factor > 0:
        raise ValueError(f"factor={factor}: expected a number above 0.")
    averages, middles = local_averages(epochs, eigenvalues, total, window, frequency)
    first = math.ceil(window / 2) - 1  # the place of the first eigenvalue that has an average
    for place, epoch in enumerate(epochs):
        if epoch == total - 1:
            break
        earlier = middles[epoch] - frequency * delta
        current = place - first
        if earlier >= start and averages[current] / averages[current - delta] > factor:
            return Stop(earlier, epoch)
    return None


def many_skips(epochs, picks, choices, least=2, start=0, skip="skip_connect"):
    """Stops where the normal cell, the first table of a space, has many skips (criterion 1 of DARTS+).

    Args:
        epochs: of the architectures, ascending.
        picks: of each of them, {table: list of (row, candidate)}, see `SearchSpace.picks`.
        choices: {table: `darts_tf.spaces.base.Choices`}.
        least: how many skips stop it.
        start: the first epoch that may be the result.
        skip: the name of the candidate.

    Returns:
        `Stop`, or None: the search goes on.
    """
    name, table = next(iter(choices.items()))
    for epoch, kept in zip(epochs, picks, strict=True):
        skips = sum(table.candidates[candidate] == skip for _, candidate in kept[name])
        if epoch >= start and skips >= least:
            return Stop(epoch, epoch)
    return None


def stable_ranking(epochs, strengths, choices, stable=10, ignored=("none", "skip_connect")):
    """Stops where the order of the candidates of all rows has not changed for some epochs (criterion 1* of DARTS+).

    Args:
        epochs: of the strengths, ascending.
        strengths: of each of them, {table: array (rows, candidates)}.
        choices: {table: `darts_tf.spaces.base.Choices`}.
        stable: for how many epochs.
        ignored: names of candidates that are not ranked. Rows with fewer than two others have no order.

    Returns:
        `Stop`, or None: the search goes on.

    Raises:
        ValueError: `stable` is out of range.
    """
    if stable < 1:
        raise ValueError(f"stable={stable}: expected at least 1 epoch.")

    def ranking(tables):
        orders = []
        for name, table in choices.items():
            ranked = [place for place, candidate in enumerate(table.candidates) if candidate not in ignored]
            orders.append(np.argsort(-np.asarray(tables[name])[:, ranked], axis=-1, kind="stable").tobytes())
        return orders

    since, before = None, None
    for epoch, tables in zip(epochs, strengths, strict=True):
        current = ranking(tables)
        if current != before:
            since, before = epoch, current
        elif epoch - since >= stable:
            return Stop(epoch, epoch)
    return None
