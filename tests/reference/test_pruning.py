"""P-DARTS: which candidates stay after each stage, and the genotype of the last."""

import json

import numpy as np
import pytest

from darts_tf.methods import pruning, relaxations, selections
from darts_tf.spaces.base import Choices, every_row
from darts_tf.spaces.cells.space import CELLS, CellSpace

SOFTMAX = relaxations.Softmax()


@pytest.fixture(scope="module")
def stored(pdarts_file):
    return np.load(pdarts_file), json.loads(pdarts_file.with_suffix(".json").read_text())


def spread(compact, candidates, left=0.0):
    """Values of the candidates that rows have, (rows, kept), as (rows, all)."""
    whole = np.full(candidates.shape, left)
    whole[candidates] = np.ravel(compact)
    return whole


def nodes_of(edges):
    return next(nodes for nodes in range(1, 20) if nodes * (nodes + 3) // 2 == edges)


def test_stages(stored):
    arrays, expected = stored
    cases, _, edges, _ = arrays["stages/alphas0"].shape
    space = CellSpace(nodes_of(edges), tuple(expected["op_names"]))
    assert cases == len(expected["cases"])
    count = next(n for n in range(1, 100) if f"stages/alphas{n}" not in arrays.files)
    limits = 0
    for place, case in enumerate(expected["cases"]):
        candidates = {kind: table.mask for kind, table in space.choices.items()}
        for stage in range(count):
            strengths = {}
            for index, kind in enumerate(CELLS):
                alphas = spread(arrays[f"stages/alphas{stage}"][place, index], candidates[kind], relaxations.NEVER)
                strengths[kind] = SOFTMAX.strengths(alphas)
                probabilities = spread(arrays[f"stages/probs{stage}"][place, index], candidates[kind])
                assert np.abs(strengths[kind] - probabilities).max() < 1e-9
                strengths[kind] = probabilities  # between which rounding may decide
            before = candidates
            after = {kind: np.array(case[f"switches_{kind}_after"][stage], bool) for kind in CELLS}
            keep = int(after["normal"][0].sum())
            candidates = pruning.narrowed(strengths, before, space.choices, keep, never_first=stage == count - 1)
            for kind in CELLS:
                assert (candidates[kind] == after[kind]).all(), (place, stage, kind)
        genotype = space.decide(strengths, selections.get("max_skips", max_skips=None))
        assert json.loads(genotype.to_json()) == case["genotype"]
        for limit, limited in case["limited"].items():
            found = space.decide(strengths, selections.get("max_skips", max_skips=int(limit)))
            assert json.loads(found.to_json()) == limited, (place, limit)
            limits += 1
    assert limits


def test_smallest(stored):
    arrays, expected = stored
    rows = arrays["functions/probs"]
    (number,) = {row.size for row in rows}
    names = [f"candidate{place}" for place in range(number)]

    def dropped(row, count, never=(), never_first=False):
        choices = {"rows": Choices("Rows", ("row",), tuple(names), (((0,), 1),), frozenset(never))}
        there = {"rows": np.ones((1, number), bool)}
        kept = pruning.narrowed({"rows": row[None]}, there, choices, number - count, never_first)["rows"][0]
        return set(np.flatnonzero(~kept).tolist())

    functions = expected["functions"]
    for count, all_rows in functions["get_min_k"].items():
        for row, theirs in zip(rows, all_rows, strict=True):
            assert dropped(row, int(count)) == set(theirs)
    for kind, never in (("with_none", names[:1]), ("without_none", ())):
        for row, theirs in zip(rows, functions["get_min_k_no_zero"][kind], strict=True):
            assert dropped(row, len(theirs), never, never_first=True) == set(theirs)


def test_pruning_of_drnas(losses_file):
    arrays = np.load(losses_file)
    alphas = arrays["drnas/prune/alphas"]
    rows, number = alphas.shape
    choices = {
        "cell": every_row(
            "Cell", [f"row{row}" for row in range(rows)], [f"candidate{place}" for place in range(number)]
        )
    }
    candidates = {"cell": np.ones(alphas.shape, bool)}
    for stage in range(2):
        prefix = f"drnas/prune/{stage}"
        keep = int(arrays[f"{prefix}/keep"])
        candidates = pruning.narrowed({"cell": alphas.astype(np.float64)}, candidates, choices, keep)
        assert (candidates["cell"] == arrays[f"{prefix}/mask"]).all()
        weights = SOFTMAX.strengths(np.where(candidates["cell"], alphas, relaxations.NEVER))
        expected = arrays[f"{prefix}/softmax"]
        assert np.abs(weights - expected).max() / expected.max() < 1e-9
