"""What evolution leaves in a run directory, generation by generation. What networks are worth is made up here."""

import types

import pytest

from darts_tf.data.tasks import ImageClassification
from darts_tf.methods import one_shot
from darts_tf.runs import deciding, rundirectory
from darts_tf.runs.budget import Budget
from darts_tf.runs.configurations import SearchConfig
from darts_tf.spaces.chain.description import Description, Stage
from darts_tf.spaces.chain.space import DescribedChain

SPACE = DescribedChain(Description((Stage(4, ("identity", "mb3_k3"), 2),), 4, 1, 8).to_json())
TASK = ImageClassification((8, 8, 1), 3, None)


class Worth:
    """In place of `one_shot.Inherited`; the more identities, the better."""

    def __init__(self, *arguments, **options):
        pass

    def __call__(self, mixture):
        return float(mixture["layers"][:, 0].sum()) / 4, 1.0

    def restore(self):
        pass


@pytest.fixture
def evolve(monkeypatch, tmp_path):
    monkeypatch.setattr(one_shot, "Inherited", Worth)
    monkeypatch.setattr(deciding, "recalibration", lambda *arguments: [])
    candidates = {name: table.mask for name, table in SPACE.choices.items()}
    search = types.SimpleNamespace(network=types.SimpleNamespace(candidates=candidates))

    def run(generations, saved):
        config = SearchConfig(population=2, generations=generations, selection="evolution")
        networks = types.SimpleNamespace(config=config, space=SPACE, task=TASK, strategy=None)
        networks.costs, networks.budget = SPACE.costs(TASK), Budget(SPACE, {}, {})
        batches = types.SimpleNamespace(held_out=[])
        return deciding.evolved(search, networks, None, batches, tmp_path, saved)

    return run


def test_what_evolution_leaves(evolve, tmp_path):
    seen = []

    def saved():
        found = rundirectory.evolution(tmp_path)
        seen.append(([network["generation"] for network in found["networks"]], found["ended"]))

    evolve(1, saved)
    assert seen == [([1, 1], False), ([1, 1], True)]
    # It goes on for more generations, until all four networks are known.
    best = evolve(9, saved)
    assert best.names == ("identity", "identity")
    generations, ended = seen[-1]
    assert len(generations) == 4 and ended and not any(other for _, other in seen[2:-1])
    networks = rundirectory.evolution(tmp_path)["networks"]
    assert len({network["architecture"] for network in networks}) == 4
    first = max(networks, key=lambda network: network["result"])
    assert first["architecture"] == str(best) and first["result"] == 0.5
    assert SPACE.costs(TASK)(best).items() <= first.items()
