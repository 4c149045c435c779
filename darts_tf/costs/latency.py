"""Latency tables: what parts of networks take on a device, in a JSON file. This file needs no TensorFlow."""

import dataclasses
import json
import math
import os

import numpy as np

EXPECTED = "expected a file of python -m darts_tf.latency."


class TableError(ValueError):
    """A file is no latency table, or lacks what is asked for; says what is expected."""


@dataclasses.dataclass(frozen=True)
class LatencyTable:
    """What parts of networks take on a device, for one input.

    Attributes:
        device: dict of texts and numbers: processor, threads, versions, runtime.
        milliseconds: {text of a `darts_tf.ops.parts.Part`: number}, each measured alone.
        overhead: milliseconds of a call that does nothing, which are in each of those.
        fit: (factor, offset) of what whole networks take: factor * the sum of the parts + offset, in milliseconds.
        networks: list of [sum of the parts, what it takes as a whole] of networks that were measured.
    """

    device: dict
    milliseconds: dict
    overhead: float = 0.0
    fit: tuple = (1.0, 0.0)
    networks: list = dataclasses.field(default_factory=list)

    def of(self, part):
        """Milliseconds that a part adds to a network.

        Raises:
            TableError: it was not measured.
        """
        name = str(part)
        if name not in self.milliseconds:
            raise TableError(f"it has nothing about {name}; expected one that was measured for these sizes of images.")
        return self.fit[0] * max(self.milliseconds[name] - self.overhead, 0.0)

    @property
    def fixed(self):
        """Milliseconds that every network takes beside its parts."""
        return self.fit[1]

    def to_json(self):
        """JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=1)


def from_json(text):
    """The `LatencyTable` that a text is.

    Raises:
        TableError: it is none.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        raise TableError(f"it is no JSON; {EXPECTED}") from None
    names = {field.name for field in dataclasses.fields(LatencyTable)}
    if not isinstance(fields, dict) or not {"device", "milliseconds"} <= set(fields) <= names:
        raise TableError(f"it has other fields than {', '.join(sorted(names))}; {EXPECTED}")
    measured, fit = fields["milliseconds"], fields.get("fit", (1.0, 0.0))
    if not isinstance(measured, dict) or not measured or not isinstance(fields["device"], dict):
        raise TableError(f"it has no milliseconds; {EXPECTED}")
    for name, value in measured.items():
        if not _is_number(value) or value < 0:
            raise TableError(f"{name} takes {value!r} milliseconds: expected a number of at least 0.")
    if not isinstance(fit, list | tuple) or len(fit) != 2 or not all(map(_is_number, fit)) or fit[0] <= 0:
        raise TableError(f"fit is {fit!r}: expected a factor above 0 and an offset.")
    overhead = fields.get("overhead", 0.0)
    if not _is_number(overhead) or overhead < 0:
        raise TableError(f"overhead is {overhead!r}: expected a number of at least 0.")
    networks = fields.get("networks", [])
    pairs = isinstance(networks, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in networks)
    if not pairs or not all(_is_number(value) and value >= 0 for pair in networks for value in pair):
        raise TableError(f"networks is no list of pairs of numbers of at least 0; {EXPECTED}")
    return LatencyTable(fields["device"], measured, overhead, tuple(fit), networks)


def fitted(networks):
    """The factor and the offset that make the relative errors of networks smallest (least squares).

    Neither is negative. With fewer than two networks they are 1 and 0.

    Args:
        networks: list of (sum of the parts, what it takes as a whole).
    """
    sums, real = np.array([pair for pair in networks if min(pair) > 0], np.float64).reshape(-1, 2).T
    if len(sums) < 2:
        return 1.0, 0.0
    (factor, offset), *_ = np.linalg.lstsq(np.stack([sums / real, 1 / real], 1), np.ones(len(real)), rcond=None)
    if offset < 0 or factor <= 0:
        factor, offset = ((sums / real).sum() / ((sums / real) ** 2).sum()), 0.0
    return float(factor), float(offset)


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read(path):
    """The `LatencyTable` in a file.

    Raises:
        TableError: it is none.
        OSError: it cannot be read.
    """
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe, for example, might never end
        raise TableError(f"it is no file; {EXPECTED}")
    with open(path, "rb") as file:
        return from_json(file.read().decode("utf-8", "replace"))
