import json

import numpy as np

from darts_tf.ops.operations import PRIMITIVES
from darts_tf.spaces.cells import genotypes


def test_discretisation(discretize_file):
    alphas = np.load(discretize_file)["alphas"]
    expected = json.loads(discretize_file.with_suffix(".json").read_text())
    assert len(alphas) == len(expected) > 0
    for (normal, reduce), genotype in zip(alphas, expected, strict=True):
        found = genotypes.derive(genotypes.softmax(normal), genotypes.softmax(reduce), PRIMITIVES)
        assert json.loads(found.to_json()) == genotype
