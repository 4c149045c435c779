"""The evolutionary search of Single Path One-Shot, draw by draw."""

import json

import numpy as np
import pytest

from darts_tf.methods.evolution import Evolution


class Replayed:
    """A random source that gives what the original drew, [n, value] of randint(n), [0, value] of random_sample()."""

    def __init__(self, draws):
        self.draws = draws
        self.place = 0

    def _next(self, kind):
        expected, value = self.draws[self.place]
        assert expected == kind, self.place
        self.place += 1
        return value

    def randint(self, n):
        return self._next(n)

    def random_sample(self):
        return self._next(0)


@pytest.mark.parametrize("replayed", [True, False])
def test_a_search(spos_file, replayed):
    stored = json.loads(spos_file.with_suffix(".json").read_text())
    extra, tables = np.array(stored["flops_extra"]), stored["error_tables"]
    layers, number = extra.shape
    assert stored["runs"]

    def of(path, table):
        return sum(row[candidate] for row, candidate in zip(table, path, strict=True))

    def flops(path):
        return stored["flops_all_zero"] + of(path, extra)

    def score(path):
        return of(path, tables["top1"]) // 64 / 512, of(path, tables["top5"]) / 32768

    for run in stored["runs"]:
        parameters = run["parameters"]
        random = Replayed(run["draws"]) if replayed else np.random.RandomState(run["seed"])
        search = Evolution(
            [range(number)] * layers,
            population=parameters["population_num"],
            parents=parameters["select_num"],
            generations=parameters["max_epochs"] + 1,  # the original evaluates another one, which decides nothing
            mutations=parameters["mutation_num"],
            crossovers=parameters["crossover_num"],
            mutation_prob=parameters["m_prob"],
            feasible=lambda path, run=run: flops(path) <= run["parameters"]["flops_limit"],
            random=random,
        )

        def texts(paths):
            return ["".join(map(str, path)) for path in paths]

        for population in run["populations"]:
            paths = search.ask()
            assert texts(paths) == population
            search.tell({path: score(path) for path in paths})
        last = search.ask()
        assert texts(last) == run["last_candidates"]
        for count, expected in ((parameters["select_num"], run["top_select"]), (50, run["top_50"])):
            assert texts(path for path, _ in search.top(count)) == expected
        search.tell({path: score(path) for path in last})
        assert search.ask() == []
        assert set(texts(search.scores)) == set(run["evaluated"])
        for path, error in search.scores.items():
            expected = run["evaluated"]["".join(map(str, path))]
            assert list(error) == expected["err"] and flops(path) == expected["flops"]
        assert not replayed or random.place == len(run["draws"])
