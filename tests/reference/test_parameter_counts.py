import json
import math
import re

import pytest

from darts_tf.spaces.cells.derived import cifar_network, imagenet_network
from darts_tf.spaces.cells.genotypes import PUBLISHED
from darts_tf.spaces.cells.networks import SearchNetwork


@pytest.fixture
def counts(request):
    path = request.config.getoption("reference") / "parameter_counts.json"
    if not path.exists():
        pytest.skip(f"no {path}")
    return json.loads(path.read_text())


def count(variables):
    return sum(math.prod(variable.shape) for variable in variables)


def test_supernet(counts):
    sizes = {name: expected for name, expected in counts.items() if name.startswith("supernet")}
    assert sizes
    for name, expected in sizes.items():
        channels, layers = map(int, re.fullmatch(r"supernet_C(\d+)_L(\d+)", name).groups())
        network = SearchNetwork(channels, layers)
        network.build((None, 32, 32, 3))
        assert count(network.weight_variables) == expected


@pytest.mark.parametrize("name", PUBLISHED)
def test_derived(counts, name):
    if name not in counts:
        pytest.skip(f"no counts of {name}")
    for size, expected in counts[name].items():
        kind, channels, layers, auxiliary = re.fullmatch(r"([a-z]+)_C(\d+)_L(\d+)(_with_auxiliary)?", size).groups()
        build = {"cifar": cifar_network, "imagenet": imagenet_network}[kind]
        network = build(PUBLISHED[name], int(channels), int(layers), auxiliary=bool(auxiliary))
        assert count(network.trainable_variables) == expected
