"""DARTS-PT: which candidates and edges stay, and how good the network is without each of them."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from original import assign, relative_error, supernet_tensors

from darts_tf.methods.darts import DARTS
from darts_tf.methods.optimizers import SGD, Adam
from darts_tf.methods.projection import Evaluation, Projection
from darts_tf.spaces.cells.networks import SearchNetwork
from darts_tf.spaces.cells.space import CELLS, PRIMITIVES, CellSpace

EXACT = {"float64": 1e-9, "float32": 1e-4}


def nodes_of(edges):
    return next(nodes for nodes in range(1, 20) if nodes * (nodes + 3) // 2 == edges)


def choices_of(space):
    """The tables of a space of theirs, lists of the operations of each edge, and where in them each of these is."""
    tables, places = {}, {}
    known = [*PRIMITIVES, "noise"]
    for kind, rows in space.items():
        names = [name for name in known if any(name in row for row in rows)]
        places[kind] = [[names.index(name) for name in row] for row in rows]
        allowed = [[name in row for name in names] for row in rows]
        like = CellSpace(nodes_of(len(rows))).choices[kind]
        tables[kind] = like._replace(candidates=tuple(names), allowed=tuple(map(tuple, allowed)))
    return tables, places


def test_decisions(dartspt_file):
    stored = json.loads(dartspt_file.with_suffix(".json").read_text())
    assert stored["cases"]
    for case in stored["cases"]:
        choices, places = choices_of(stored["spaces"][case["space"]])
        sign = 1 if case["crit"] == "acc" else -1
        calls = []

        def score(name, row, candidate, case=case, places=places, sign=sign, calls=calls):
            if candidate is None:
                calls.append([name, "edge", row])
                return sign * case["edge_table"][name][row]
            own = places[name][row].index(candidate)
            calls.append([name, "op", row, own])
            return sign * case["op_table"][name][row][own]

        groups = {name: [1 + node for node in order] for name, order in case["node_order"].items()}
        options = {"rows": case["edge_order"], "groups": groups}
        projection = Projection(choices, **options)
        rounds = 0
        while not projection.done:
            projection.decide(score)
            rounds += 1
            projection = Projection(choices, **options, decisions=json.loads(json.dumps(projection.decisions)))
        assert rounds == projection.rounds
        for name in choices:
            chosen = [
                [made["row"], places[name][made["row"]].index(made["candidate"])]
                for made in projection.decisions
                if made["table"] == name and "row" in made
            ]
            assert chosen == case["chosen"][name]
            kept = {
                str(made["group"] - 1): made["rows"]
                for made in projection.decisions
                if made["table"] == name and "group" in made
            }
            assert kept == case["topology"][name]
        if "calls" in case:  # each edge is asked about once
            expected = [call for place, call in enumerate(case["calls"]) if call not in case["calls"][:place]]
            assert calls == expected
        names = next(iter(choices.values())).candidates
        pairs = genotype(choices, projection)
        for name in choices:
            assert pairs[name] == case["genotype"][name], (case["space"], names)


def genotype(choices, projection):
    from darts_tf.methods import selections

    pairs = {}
    for name, picks in selections.get("strongest").decide(projection.strengths(), choices).items():
        table = choices[name]
        start = {row: rows[0] for rows, _ in table.groups for row in rows}
        pairs[name] = [[table.candidates[candidate], row - start[row]] for row, candidate in picks]
    return pairs


class Case:
    def __init__(self, path, dtype):
        self.arrays = np.load(path)
        names = [name.removeprefix("w/") for name in self.arrays.files if name.startswith("w/")]
        channels, layers, classes, _, _, batches = (int(size) for size in self.arrays["sizes"])
        edges, _ = self.arrays["alphas_normal"].shape
        primitives = self.arrays["op_names"].tolist()
        network = SearchNetwork(channels, layers, classes, nodes_of(edges), primitives)
        self.search = DARTS(network)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.search.compile(SGD(), loss, arch_optimizer=Adam())
        self.batches = [
            (
                tf.constant(self.arrays[f"batch{place}/x"].transpose(0, 2, 3, 1), dtype),
                tf.constant(self.arrays[f"batch{place}/y"]),
            )
            for place in range(batches)
        ]
        self.search.create_variables(*self.batches[0])
        assign(supernet_tensors(network, names), {name: self.arrays[f"w/{name}"] for name in names})
        for kind, alpha in network.alphas.items():
            alpha.assign(self.arrays[f"alphas_{kind}"])
        self.weights = {kind: tensor.numpy() for kind, tensor in network.mixture().items()}
        self.evaluation = Evaluation(self.search, self.batches)
        self.projection = Projection(network.space.choices)


@pytest.mark.slow
def test_network_without_candidates(dartspt_file, dtype):
    case = Case(dartspt_file, dtype)
    arrays, projection, evaluation, exact = case.arrays, case.projection, case.evaluation, EXACT[dtype]
    before = [variable.numpy() for variable in case.search.network.non_trainable_variables]

    def check(prefix, without=(), place=()):
        losses, correct = [], []
        for one in without:
            loss, right, images = evaluation(projection.mixture(case.weights, one))
            assert images == arrays["images"]
            losses.append(loss)
            correct.append(right)
        assert relative_error(losses, np.ravel(arrays[f"{prefix}/loss"])) < exact, prefix
        assert np.array_equal(correct, np.ravel(arrays[f"{prefix}/correct"])), prefix

    def decided(kind, chosen):
        return [{"table": kind, "row": int(row), "candidate": int(candidate)} for row, candidate in chosen]

    check("base", [None])
    for kind in CELLS:
        rows, candidates = arrays[f"op/{kind}/loss"].shape
        check(f"op/{kind}", [(kind, row, candidate) for row in range(rows) for candidate in range(candidates)])
        check(f"edge_all_soft/{kind}", [(kind, row, None) for row in range(rows)])

    projection.decisions = [made for kind in CELLS for made in decided(kind, arrays["after/projected"])]
    check("after", [None])
    for kind in CELLS:
        assert relative_error(projection.mixture(case.weights)[kind], arrays[f"after/{kind}/weights"]) < exact
        edge, candidates = int(arrays["after/edge"]), len(arrays[f"after/{kind}/loss"])
        check(f"after/{kind}", [(kind, edge, candidate) for candidate in range(candidates)])
    after = [variable.numpy() for variable in case.search.network.non_trainable_variables]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.slow
def test_topology(dartspt_file, dtype):
    case = Case(dartspt_file, dtype)
    arrays, images = case.arrays, int(case.arrays["images"])
    decisions = [
        {"table": kind, "row": row, "candidate": int(candidate)}
        for kind in CELLS
        for row, candidate in enumerate(arrays[f"topology/{kind}/ops"])
    ]
    order = [1 + int(node) for node in arrays["topology/node_order"]]
    choices = case.search.network.space.choices
    projection = Projection(choices, groups=dict.fromkeys(CELLS, order), decisions=decisions)
    criteria = dict(text.split("=") for text in arrays["topology/criterion"].tolist())
    stored = {kind: {} for kind in CELLS}
    for kind in CELLS:
        for _, edge, accuracy, loss in arrays[f"topology/{kind}/node_edge_acc_loss"]:
            stored[kind][int(edge)] = accuracy, loss
    seen = []

    def score(kind, row, candidate):
        loss, correct, _ = case.evaluation(projection.mixture(case.weights, (kind, row, candidate)))
        accuracy, expected = stored[kind][row]
        assert abs(loss - expected) < EXACT[dtype] * expected, (kind, row)
        assert round(accuracy / 100 * images) == correct
        seen.append((kind, row))
        return correct if criteria[kind] == "acc" else -loss

    while not projection.done:
        projection.decide(score)
    assert sorted(seen) == sorted((kind, row) for kind in CELLS for row in stored[kind])
    for kind in CELLS:
        kept = [made["rows"] for made in projection.decisions if made["table"] == kind and "group" in made]
        assert np.array_equal(kept, arrays[f"topology/{kind}/kept"])
    found = case.search.network.space.decide(projection.strengths())
    expected = json.loads(str(arrays["topology/genotype"]))
    assert json.loads(found.to_json()) == expected
