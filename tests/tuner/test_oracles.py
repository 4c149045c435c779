"""The oracles on problems with a known answer."""

import json
import pathlib
import subprocess
import sys

import keras_tuner
import numpy as np
import planted
import pytest
from scipy.stats import mannwhitneyu

from darts_tf.methods import guards
from darts_tf.methods.relaxations import Softmax
from darts_tf.private.keras_tuner import retry_queue
from darts_tf.runs import phases
from darts_tf.spaces.cells import genotypes
from darts_tf.spaces.cells.space import CellSpace
from darts_tf.tuner import DARTSOracle, GridOracle, ParticleSwarmOracle, RegularizedEvolutionOracle, ReinforceOracle
from darts_tf.tuner.reinforce import Controller
from darts_tf.tuner.space import OPERATIONS, genotype_of, hyperparameters_of

HERE = pathlib.Path(__file__).parent
TRIALS, SEEDS = 80, range(1, 21)
SOFTMAX = Softmax()

OURS = {
    "evolution": lambda **more: RegularizedEvolutionOracle(planted.objective(), population_size=15, **more),
    "evolution, proportional, crossover": lambda **more: RegularizedEvolutionOracle(
        planted.objective(), population_size=15, selection="proportional", crossover=0.5, **more
    ),
    "reinforce": lambda **more: ReinforceOracle(planted.objective(), **more),
    "particle swarm": lambda **more: ParticleSwarmOracle(planted.objective(), **more),
    "grid": lambda **more: GridOracle(planted.objective(), **more),
}


@pytest.fixture(scope="module")
def random_search(tmp_path_factory):
    folder = tmp_path_factory.mktemp("random")
    return [best_of(keras_tuner.oracles.RandomSearchOracle, seed, folder / str(seed)) for seed in SEEDS]


def best_of(make, seed, folder, objective=None):
    more = {"objective": planted.objective()} if make is keras_tuner.oracles.RandomSearchOracle else {}
    oracle = make(max_trials=TRIALS, seed=seed, hyperparameters=planted.hyperparameters(), **more)
    return planted.run(oracle, planted.table(seed), TRIALS, folder)[-1]


@pytest.mark.soak
@pytest.mark.parametrize("name", ["evolution", "reinforce", "particle swarm"])
def test_it_learns(name, random_search, tmp_path):
    found = [best_of(OURS[name], seed, tmp_path / str(seed)) for seed in SEEDS]
    p = mannwhitneyu(found, random_search, alternative="greater").pvalue
    for title, scores in (("random", random_search), (name, found)):
        print(f"{title:36} {np.mean(scores):.4f} ± {np.std(scores):.4f}  optimum {np.mean(np.equal(scores, 1)):.0%}")
    print(f"p = {p:.2g}")
    assert p < 0.01


@pytest.mark.parametrize("name", OURS)
def test_several_trials_in_flight_and_an_objective_to_minimise(name, tmp_path):
    oracle = OURS[name](max_trials=40, seed=1, hyperparameters=planted.hyperparameters())
    oracle.objective = keras_tuner.Objective("score", "min")
    scores = -planted.table(1)
    assert planted.run(oracle, -scores, 40, tmp_path, workers=4).shape == (40,)
    assert oracle.get_best_trials()[0].score == min(trial.score for trial in oracle.trials.values())
    assert len({str(trial.hyperparameters.values) for trial in oracle.trials.values()}) == 40


CONTINUED = """
import json, sys
sys.path[:0] = {path!r}
from darts_tf.devices import runtime
runtime.configure()
import planted, test_oracles
oracle = test_oracles.OURS[{name!r}](max_trials=60, seed=3, hyperparameters=planted.hyperparameters())
oracle._set_project_dir({folder!r}, "trials")
oracle.reload()
planted.run(oracle, planted.table(3), 20, {folder!r})
print(json.dumps([oracle.trials[trial].hyperparameters.values for trial in oracle.start_order]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", OURS)
def test_it_goes_on_in_another_process(name, tmp_path):
    whole, part = (OURS[name](max_trials=60, seed=3, hyperparameters=planted.hyperparameters()) for _ in range(2))
    planted.run(whole, planted.table(3), 40, tmp_path / "whole")
    planted.run(part, planted.table(3), 20, tmp_path / "part")
    program = CONTINUED.format(path=[str(HERE), *sys.path], name=name, folder=str(tmp_path / "part"))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = [whole.trials[trial].hyperparameters.values for trial in whole.start_order]
    assert json.loads(done.stdout) == expected and len(expected) == 40


def test_choices_that_depend_on_others(tmp_path):
    hp = keras_tuner.HyperParameters()
    hp.Choice("kind", ["a", "b"])
    with hp.conditional_scope("kind", ["b"]):
        hp.Choice("only_b", [1, 2, 3])
    hp.Float("rate", 0.1, 0.9)
    hp.Boolean("flag")
    for name, make in OURS.items():
        oracle = make(max_trials=30, seed=1, hyperparameters=hp.copy())
        oracle._set_project_dir(tmp_path, name)
        oracle.verbose = 0
        for _ in range(30):
            trial = oracle.create_trial("tuner0")
            values = trial.hyperparameters.values
            assert ("only_b" in values) == (values["kind"] == "b") and 0.1 <= values["rate"] <= 0.9
            oracle.update_trial(trial.trial_id, {"score": values.get("only_b", 0) + values["flag"]})
            trial.status = "COMPLETED"
            oracle.end_trial(trial)
        assert len({str(trial.hyperparameters.values) for trial in oracle.trials.values()}) == 30, name


def test_a_particle_keeps_a_part_of_its_velocity(tmp_path):
    values = planted.hyperparameters()
    oracle = ParticleSwarmOracle(
        planted.objective(), 10, particles=1, inertia=0.5, cognitive=0, social=0, seed=1, hyperparameters=values
    )
    planted.run(oracle, planted.table(1), 1, tmp_path)
    state = oracle.get_state()
    state["swarm"][0] |= {
        "position": {"c0": [0.25] * 4},
        "velocity": {"c0": [0.2, -0.2, 0.0, 0.0]},
    }
    oracle.set_state(state)
    planted.run(oracle, planted.table(1), 1, tmp_path)
    (particle,) = oracle.get_state()["swarm"]
    np.testing.assert_allclose(particle["velocity"]["c0"], [0.1, -0.1, 0, 0])
    np.testing.assert_allclose(particle["position"]["c0"], [0.35, 0.15, 0.25, 0.25])


def test_more_trials_than_were_planned(tmp_path):
    first = ParticleSwarmOracle(planted.objective(), 10, particles=3, seed=1, hyperparameters=planted.hyperparameters())
    planted.run(first, planted.table(1), 10, tmp_path)
    more = ParticleSwarmOracle(planted.objective(), 30, particles=7, seed=1, hyperparameters=planted.hyperparameters())
    more._set_project_dir(tmp_path, "trials")
    more.reload()
    assert len(planted.run(more, planted.table(1), 20, tmp_path)) == 20


def test_a_small_space_is_exhausted(tmp_path):
    hp = keras_tuner.HyperParameters()
    hp.Choice("a", [1, 2])
    hp.Choice("b", [1, 2])
    for name, make in OURS.items():
        oracle = make(max_trials=30, seed=1, hyperparameters=hp.copy())
        oracle._set_project_dir(tmp_path, name)
        oracle.verbose = 0
        while (trial := oracle.create_trial("tuner0")).status == "RUNNING":
            oracle.update_trial(trial.trial_id, {"score": 1.0})
            trial.status = "COMPLETED"
            oracle.end_trial(trial)
        assert trial.status == "STOPPED" and len(oracle.trials) == 4, name


def test_a_child_differs_in_one_value_from_one_of_the_youngest(tmp_path):
    oracle = RegularizedEvolutionOracle(
        planted.objective(), 60, population_size=5, seed=1, hyperparameters=planted.hyperparameters()
    )
    planted.run(oracle, planted.table(0), 60, tmp_path)
    values = [oracle.trials[trial].hyperparameters.values for trial in oracle.start_order]
    assert oracle.population == oracle.end_order[-5:]
    distances = [
        min(sum(child[name] != parent[name] for name in child) for parent in values[place - 5 : place])
        for place, child in enumerate(values)
        if place >= 5
    ]
    assert np.mean(np.equal(distances, 1)) > 0.9  # those whose mutants had all been tried differ in two


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"population_size": 1}, "population_size=1, tournament_size=5: expected at least 2 and 1"),
        ({"selection": "best"}, "selection='best': expected 'tournament' or 'proportional'"),
        ({"crossover": 2}, "crossover=2: expected a number from 0 to 1"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        RegularizedEvolutionOracle("val_accuracy", **arguments)


def test_the_controller_makes_good_decisions_likelier():
    controller = Controller([3, 4, 2], 8, 0.01, seed=0)

    def probability(decisions):
        logs = controller._log_probabilities(lambda place, _: np.int32(decisions[place]))
        return float(np.exp(sum(log[decision] for (log, _), decision in zip(logs, decisions, strict=True))))

    good, bad = [2, 1, 0], [0, 3, 1]
    before = probability(good), probability(bad)
    for _ in range(5):
        controller.reinforce(good, [True] * 3, 1.0, 0.0)
        controller.reinforce(bad, [True] * 3, -1.0, 0.0)
    assert probability(good) > 1.5 * before[0] and probability(bad) < before[1] / 1.5
    drawn = [tuple(controller.sample([0, draw])) for draw in range(400)]
    assert np.mean([decisions == tuple(good) for decisions in drawn]) == pytest.approx(probability(good), abs=0.07)
    peaked = probability(good)
    for _ in range(40):
        controller.reinforce(good, [True] * 3, 0.0, 1.0)  # nothing but entropy
    assert probability(good) < peaked


def drawn(folder, trials, nodes=2, **more):
    hp = keras_tuner.HyperParameters()
    CellSpace(nodes).declare(hp)
    hp.Choice("other", [1, 2, 3])
    oracle = DARTSOracle("val_accuracy", trials, run=folder, seed=1, hyperparameters=hp, **more)
    oracle.objective = planted.objective()
    oracle._set_project_dir(folder, f"trials{len(list(folder.iterdir()))}")
    oracle.verbose = 0
    found = []
    for number in range(trials):
        trial = oracle.create_trial(f"tuner{number}")
        assert trial.hyperparameters.values["other"] == 1
        found.append(genotype_of(trial.hyperparameters))
    return found


def in_order(pairs):
    return [pair for place in range(0, len(pairs), 2) for pair in sorted(pairs[place : place + 2], key=lambda p: p[1])]


def test_the_first_sample_is_the_result_of_the_search(tmp_path, monkeypatch):
    _, names = planted.search_run(tmp_path)
    space = CellSpace(2, names)

    def first():
        return drawn(tmp_path, 1)[0]

    with np.load(tmp_path / "alphas.npz") as arrays:
        earlier = {kind: SOFTMAX.strengths(arrays[kind][1]) for kind in ("normal", "reduce")}
    ended = first()
    monkeypatch.setattr(phases, "stop_of", lambda *arguments: guards.Stop(0, 1))  # back to the first epoch of two
    assert first().normal == in_order(space.decide(earlier).normal) != ended.normal
    other = space.decide({kind: -strengths for kind, strengths in earlier.items()})
    (tmp_path / "genotype.json").write_text(other.to_json())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "selection": "perturbation"}))
    assert first().normal == in_order(other.normal)


def test_samples_of_a_search(tmp_path):
    alphas, names = planted.search_run(tmp_path)
    weights = [SOFTMAX.strengths(alpha) for alpha in alphas]
    best = CellSpace(2, names).decide(dict(zip(("normal", "reduce"), weights, strict=True)))
    found = drawn(tmp_path, 300)
    assert found[0].normal == in_order(best.normal) and found[0].reduce == in_order(best.reduce)
    assert len(set(map(str, found))) == 300
    for genotype in found:
        genotypes.check(genotype, OPERATIONS)
        hyperparameters_of(genotype)
    # Into node 0 lead two edges, both of which are kept: their operations are drawn by their weights alone.
    shares = weights[0][0][1:] / weights[0][0][1:].sum()
    counted = np.array([sum(genotype.normal[0][0] == name for genotype in found[1:]) for name in OPERATIONS]) / 299
    np.testing.assert_allclose(counted, shares, atol=0.12)
    cold, hot = (drawn(tmp_path, 30, temperature=temperature) for temperature in (0.3, 30.0))

    def likeness(genotype):
        return len(set(enumerate(genotype.normal)) & set(enumerate(found[0].normal)))

    assert np.mean([likeness(g) for g in cold]) > np.mean([likeness(g) for g in hot]) + 0.5


def test_samples_go_on_where_they_were(tmp_path):
    planted.search_run(tmp_path)
    hp = keras_tuner.HyperParameters()
    CellSpace(2).declare(hp)

    def draws(number, reload, name):
        oracle = DARTSOracle(planted.objective(), 20, run=tmp_path, seed=1, hyperparameters=hp.copy())
        oracle._set_project_dir(tmp_path, name)
        oracle.verbose = 0
        if reload:
            oracle.reload()
            retry_queue(oracle).clear()
        return [oracle.create_trial(f"{reload} {n}").hyperparameters.values for n in range(number)]

    whole = draws(12, False, "whole")
    assert draws(5, False, "part") + draws(7, True, "part") == whole


def test_samples_are_better_than_random_ones(tmp_path):
    """The planted objective is what the alphas say, but for noise of the same size."""
    alphas, names = planted.search_run(tmp_path)
    found = {"darts": [], "random": []}
    for seed in SEEDS:
        truth = alphas + 2 * np.random.default_rng(seed).normal(size=alphas.shape)

        def score(genotype, truth=truth):
            places = [genotypes.kept(pairs, names) for pairs in (genotype.normal, genotype.reduce)]
            return sum(truth[kind][place] for kind in range(2) for place in places[kind])

        hp = keras_tuner.HyperParameters()
        CellSpace(2).declare(hp)
        for name, oracle in (
            ("darts", DARTSOracle(planted.objective(), 10, run=tmp_path, seed=seed, hyperparameters=hp.copy())),
            ("random", keras_tuner.oracles.RandomSearchOracle(planted.objective(), 10, seed, hp.copy())),
        ):
            oracle._set_project_dir(tmp_path, f"{name}{seed}")
            oracle.verbose = 0
            scores = [score(genotype_of(oracle.create_trial(f"tuner{n}").hyperparameters)) for n in range(10)]
            found[name].append(max(scores))
    p = mannwhitneyu(found["darts"], found["random"], alternative="greater").pvalue
    print({name: f"{np.mean(scores):.2f} ± {np.std(scores):.2f}" for name, scores in found.items()}, f"p = {p:.2g}")
    assert p < 0.01


def test_searches_that_do_not_fit(tmp_path):
    with pytest.raises(ValueError, match="expected the run directory of a search, with alphas"):
        DARTSOracle("val_accuracy", run=tmp_path)
    planted.search_run(tmp_path, nodes=3)
    with pytest.raises(ValueError, match="the space has not: expected one of as many nodes"):
        drawn(tmp_path, 1, nodes=2)
    with pytest.raises(ValueError, match="temperature=0: expected a number above 0"):
        DARTSOracle("val_accuracy", run=tmp_path, temperature=0)
