import json

import numpy as np

from darts_tf.methods.relaxations import Softmax
from darts_tf.spaces.cells.space import CellSpace

SOFTMAX = Softmax()


def test_discretisation(discretize_file):
    alphas = np.load(discretize_file)["alphas"]
    expected = json.loads(discretize_file.with_suffix(".json").read_text())
    assert len(alphas) == len(expected) > 0
    for (normal, reduce), genotype in zip(alphas, expected, strict=True):
        found = CellSpace().decide({"normal": SOFTMAX.strengths(normal), "reduce": SOFTMAX.strengths(reduce)})
        assert json.loads(found.to_json()) == genotype
