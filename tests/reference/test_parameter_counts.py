import json
import math
import re

import pytest

from darts_tf.networks import SearchNetwork


def test_supernet(request):
    path = request.config.getoption("reference") / "parameter_counts.json"
    if not path.exists():
        pytest.skip(f"no {path}")
    counts = {name: count for name, count in json.loads(path.read_text()).items() if name.startswith("supernet")}
    assert counts
    for name, count in counts.items():
        channels, layers = map(int, re.fullmatch(r"supernet_C(\d+)_L(\d+)", name).groups())
        network = SearchNetwork(channels, layers)
        network.build((None, 32, 32, 3))
        assert sum(math.prod(variable.shape) for variable in network.weight_variables) == count
