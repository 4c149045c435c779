import itertools

import numpy as np
import pytest

from darts_tf import spaces
from darts_tf.costs import bounds
from darts_tf.costs.tables import Table


@pytest.mark.parametrize("most", [40, 100_000])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_of_several_bounds(count, most, monkeypatch):
    """What is within all of them is found, also where few partial choices are kept; the strongest where many are."""
    monkeypatch.setattr(bounds, "MOST", most)
    space, random = spaces.of({"space": "nas-bench-201"}), np.random.default_rng(count)
    ((name, choices),) = space.choices.items()
    every = np.array(list(itertools.product(range(len(choices.candidates)), repeat=len(choices.rows))))
    for tightness in (0.0, 0.1, 0.5):
        rows = [random.random(choices.mask.shape) for _ in range(count)]
        strengths = random.random(choices.mask.shape)
        costs, values = (
            np.array([[array[np.arange(len(path)), path].sum() for path in every] for array in some])
            for some in (rows, [np.log(strengths)])
        )
        # At the tightest nothing else is within the bounds than what is cheapest, all costs together.
        cheapest = costs.sum(0).argmin()
        limits = (1 - tightness) * costs[:, cheapest] + tightness * costs.max(1) + 1e-9
        fits = (costs <= limits[:, None]).all(0)
        tables = [Table(f"cost {place}", 0.0, {(name,): array}) for place, array in enumerate(rows)]
        found = space.picks(space.within({name: strengths}, tables, list(limits)))
        path = [candidate for _, candidate in sorted(found[name])]
        place = int((every == path).all(1).argmax())
        assert fits[place]
        if most > 1000:
            assert values[0, place] == pytest.approx(values[0, fits].max())
