import json

import numpy as np

from darts_tf.methods import relaxations, selections
from darts_tf.spaces.cells.space import CELLS, CellSpace


def nodes_of(edges):
    return next(nodes for nodes in range(1, 20) if nodes * (nodes + 3) // 2 == edges)


def test_thresholds(losses_file):
    """FairDARTS."""
    arrays, sigmoid = np.load(losses_file), relaxations.get("sigmoid")
    alphas = arrays["fair/parse/alphas"].astype(np.float64)
    space = CellSpace(nodes_of(alphas.shape[2]), tuple(arrays["fair/op_names"].tolist()))
    for case, text in zip(alphas, arrays["fair/parse/json"], strict=True):
        strengths = {kind: sigmoid.strengths(alpha) for kind, alpha in zip(CELLS, case, strict=True)}
        for method, expected in json.loads(str(text)).items():
            method, _, threshold = method.partition("/")
            for kind, theirs in zip(CELLS, expected, strict=True):
                table = space.choices[kind]
                name = {"threshold_edge": "threshold_edges", "threshold_sparse": "threshold"}.get(method, "strongest")
                picks = selections.configured({"selection": name, "threshold": float(threshold)})(
                    strengths[kind], table
                )
                node = {row: (2 + place, row - rows[0]) for place, (rows, _) in enumerate(table.groups) for row in rows}
                ours = [[table.candidates[candidate], *node[row]] for row, candidate in picks]
                theirs = [[name, *more] for name, *more in theirs]
                assert [pair if len(theirs[0]) == 3 else [pair[0], pair[2]] for pair in ours] == theirs


def test_two_largest_pairs(gdas_file):
    """GDAS in the space of NASNet."""
    arrays = np.load(gdas_file)
    alphas = arrays["genotype_nasnet/alphas"]
    space = CellSpace(nodes_of(alphas.shape[2]), tuple(arrays["op_names_nasnet"].tolist()))
    for case, text in zip(alphas, arrays["genotype_nasnet/json"], strict=True):
        strengths = {k: relaxations.Softmax().strengths(alpha) for k, alpha in zip(CELLS, case, strict=True)}
        found = space.decide(strengths, "strongest_pairs")
        expected = json.loads(str(text))
        for kind in CELLS:
            assert [list(pair) for pair in getattr(found, kind)] == [pair for node in expected[kind] for pair in node]
            assert list(getattr(found, f"{kind}_concat")) == expected[f"{kind}_concat"]
