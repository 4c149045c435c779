"""Schedules: how a number goes from its first value to its last, epoch by epoch.

`--penalty`, `--perturbation`, temperatures and the rate of the auxiliary skip follow one each, by name.
"""

import math


def constant(epoch, epochs, first, last):
    """The last value, from the start."""
    return last


def linear(epoch, epochs, first, last):
    """By the same amount each epoch; the epoch after the last would have the last value.

    Of the weight of beta decay, 0 to 50 (section 3.3 of beta-DARTS), the size of perturbations, 0.03 to 0.3
    (SmoothDARTS), the temperature of SNAS and the rate of the auxiliary skip, 1 to 0 (section 4.1 of DARTS-).
    """
    return first + (last - first) * epoch / epochs


def linear_to_last(epoch, epochs, first, last):
    """As `linear`, and the last epoch has the last value. Of the temperature of GDAS, 10 to 0.1 (its section 4.1)."""
    return linear(epoch, max(epochs - 1, 1), first, last)


def cosine(epoch, epochs, first, last):
    """Along half a wave of the cosine, slow at both ends (DARTS-)."""
    return last + (first - last) * (1 + math.cos(math.pi * epoch / epochs)) / 2


def slow_cosine(epoch, epochs, first, last):
    """Along a quarter of a wave of the cosine, slow at the start (DARTS-)."""
    return last + (first - last) * math.cos(math.pi / 2 * epoch / epochs)


def exponential(epoch, epochs, first, last):
    """By the same factor each epoch; both values are above 0."""
    return first * (last / first) ** (epoch / epochs)


SCHEDULES = {
    schedule.__name__: schedule for schedule in (constant, linear, linear_to_last, cosine, slow_cosine, exponential)
}


def names():
    """All names, a list."""
    return list(SCHEDULES)


def value(name, epoch, epochs, first, last, start=0, stop=None):
    """The number of an epoch.

        value("linear", 25, 50, 1.0, 0.0)    # 0.5

    Args:
        name: one of `names()`.
        epoch: 0 is the first.
        epochs: how many there are, at least 1.
        first, last: the values between which it goes.
        start: the last epoch of the first value; from there the schedule is that of the epochs that are left.
        stop: the epoch whose value all later ones have; None if there is none.

    Raises:
        ValueError: there is no such schedule.
    """
    if name not in SCHEDULES:
        raise ValueError(f"schedule={name}: expected one of {', '.join(SCHEDULES)}.")
    elapsed = max(epoch if stop is None else min(epoch, stop), start) - start
    return SCHEDULES[name](elapsed, max(epochs - start, 1), first, last)


def skip_dropout(epoch, epochs, rate, still=10):
    """Which part of an identity skip's numbers is dropped (section 3.3 of P-DARTS).

    It falls linearly while alpha stands still, then again from its start, by a factor of exp(-0.2) each epoch.

    Args:
        epoch, epochs: of the stage.
        rate: float, where it starts.
        still: epochs before alpha moves.
    """
    return rate * (epochs - epoch - 1) / epochs if epoch < still else rate * math.exp(-0.2 * (epoch - still))
