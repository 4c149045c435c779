import json

import keras
import keras_tuner
import numpy as np
import planted
import pytest

from darts_tf.data import datasets, text
from darts_tf.methods.relaxations import Softmax
from darts_tf.runs import rundirectory
from darts_tf.spaces import CellSpace, RecurrentSpace
from darts_tf.spaces.cells import genotypes
from darts_tf.spaces.cells.genotypes import PUBLISHED, Genotype
from darts_tf.tuner import (
    DARTSOracle,
    GenotypeHyperModel,
    genotype_of,
    hyperparameters_of,
)
from darts_tf.tuner.space import OPERATIONS


def random_genotype(random):
    """Any genotype with two distinct inputs per node: its edges in any order, any nodes in its result."""
    nodes, fields = random.integers(1, 7), {}
    for kind in ("normal", "reduce"):
        pairs = []
        for node in range(2, 2 + nodes):
            sources = random.choice(node, 2, replace=False)
            pairs += [(OPERATIONS[random.integers(len(OPERATIONS))], int(source)) for source in sources]
        first = 0 if kind == "normal" else 2
        concat = random.permutation(np.arange(first, 2 + nodes))[: random.integers(1, nodes + 1)]
        fields |= {kind: pairs, f"{kind}_concat": concat.tolist()}
    return Genotype(**fields)


def test_genotypes_and_hyperparameters_are_inverse():
    random = np.random.default_rng(0)
    for genotype in [PUBLISHED["DARTS_V1"], PUBLISHED["DARTS_V2"], *(random_genotype(random) for _ in range(300))]:
        hp = hyperparameters_of(genotype)
        assert genotype_of(hp) == genotype
        # The values are of the space, and what else is known of it comes from nowhere else.
        again = keras_tuner.HyperParameters.from_config(hp.get_config())
        assert genotype_of(again) == genotype and CellSpace(len(genotype.normal) // 2).declare(again) == genotype
        for choice in hp.space:
            assert hp.values[choice.name] in choice.values
        assert hyperparameters_of(genotype_of(again)).values == hp.values


@pytest.mark.parametrize(
    "genotype, message",
    [
        (PUBLISHED["NASNet"], "normal feeds node 1 from c.k-2. twice: expected two distinct inputs"),
        (PUBLISHED["AmoebaNet"], "reduce names the operation 'sep_conv_7x7': expected one of max_pool_3x3"),
        (Genotype([("skip_connect", 0), ("skip_connect", 2)], [2], [], []), "normal feeds node 2 from node 2"),
        (
            Genotype([("skip_connect", 0), ("skip_connect", 1)], [2], [("skip_connect", i % 2) for i in range(4)], [2]),
            "the cells have 1 and 2 nodes",
        ),
    ],
)
def test_what_is_not_in_the_space(genotype, message):
    primitives = [*OPERATIONS, "sep_conv_7x7"] if "distinct" in message else OPERATIONS
    with pytest.raises(ValueError, match=message):
        hyperparameters_of(genotype, primitives)


def space(nodes):
    hp = keras_tuner.HyperParameters()
    CellSpace(nodes).declare(hp)
    return hp


def test_recurrent_genotypes_and_hyperparameters_are_inverse():
    space, hp = RecurrentSpace(), keras_tuner.HyperParameters()
    for name in ("DARTS_V1", "DARTS_V2"):
        genotype = RecurrentSpace.PUBLISHED[name]
        hp = hyperparameters_of(genotype, space=space)
        again = genotype_of(keras_tuner.HyperParameters.from_config(hp.get_config()), space)
        assert [*again.recurrent] == [*genotype.recurrent] and list(again.concat) == genotype.concat
    assert len(hp.values) == 8 + 7  # the first node has one source alone
    with pytest.raises(ValueError, match="the cell has 11 nodes: expected 8"):
        hyperparameters_of(RecurrentSpace.PUBLISHED["ENAS"], space=space)


@pytest.mark.parametrize("name", planted.ORACLES)
def test_all_that_an_oracle_draws_is_a_recurrent_genotype(name, tmp_path):
    space, hp, seen = RecurrentSpace(4), keras_tuner.HyperParameters(), set()
    space.declare(hp)
    oracle = planted.ORACLES[name](keras_tuner.Objective("score", "min"), 12, seed=1, hyperparameters=hp)
    oracle._set_project_dir(tmp_path, "trials")
    oracle.verbose = 0
    for number in range(12):
        trial = oracle.create_trial("tuner0")
        if trial.status == "STOPPED":  # hyperband has a plan of its own
            break
        genotype = genotype_of(trial.hyperparameters, space)
        space.check(genotype)
        assert genotype_of(hyperparameters_of(genotype, space=space), space) == genotype
        seen.add(str(genotype))
        oracle.update_trial(trial.trial_id, {"score": number % 5})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
    assert len(seen) >= (6 if name == "hyperband" else 12)


def test_a_search_of_recurrent_cells_is_sampled(tmp_path):
    space = RecurrentSpace(3)
    alphas = np.random.default_rng(0).normal(size=(2, *space.choices["recurrent"].mask.shape))
    history = [({"recurrent": alpha}, {}) for alpha in alphas]
    (tmp_path / "alphas.npz").write_bytes(rundirectory.to_alphas(history, space.choices))
    data = {"tokens": "words", "vocabulary": ["a", "<unk>", "<eos>"]}
    config = {"command": "search", "versions": {}, "task": "language_model", "data": data, "space": "recurrent"}
    (tmp_path / "config.json").write_text(json.dumps(config | {"nodes": 3}))
    hp = keras_tuner.HyperParameters()
    space.declare(hp)
    oracle = DARTSOracle(keras_tuner.Objective("score", "min"), 4, tmp_path, hyperparameters=hp)
    oracle._set_project_dir(tmp_path, "trials")
    oracle.verbose = 0
    found = [genotype_of(oracle.create_trial(f"tuner{number}").hyperparameters, space) for number in range(4)]
    assert found[0] == space.decide({"recurrent": Softmax().strengths(alphas[-1])})
    assert len(set(map(str, found))) == 4


def test_language_models_of_genotypes_are_trained():
    tokens = np.random.default_rng(0).integers(0, 5, 400).astype(np.int32)
    data = text.Text(tokens, tokens[:100], tokens[:100], ["<unk>", "<eos>", "a", "b", "c"])
    batches, steps, valid = data.batches(4, bptt=8)
    model = GenotypeHyperModel(
        space=RecurrentSpace(1),
        task=data.task,
        sizes={"units": [3, 4], "batch_size": 4, "dropout": 0.0},
        learning_rate=0.5,
        momentum=0.0,
        grad_clip=0.25,
        seed=0,
    )
    hp = keras_tuner.HyperParameters()
    model.build(hp)
    assert sorted(choice.name for choice in hp.space) == ["recurrent_0", "units"]
    hp.values |= {"units": 4, "recurrent_0": "relu"}
    network = model.build(hp)
    assert network.units == 4 and network.genotype.recurrent == [("relu", 0)] and network.dropout.output == 0
    assert network.optimizer.momentum == 0 and network.optimizer.global_clipnorm == 0.25
    history = model.fit(hp, network, batches(), steps_per_epoch=steps, validation_data=valid, epochs=2, shuffle=False)
    assert float(network.optimizer.learning_rate) == 0.5
    assert np.isfinite(history.history["val_perplexity"]).all() and min(history.history["val_perplexity"]) < 10


@pytest.mark.parametrize("name", planted.ORACLES)
def test_all_that_an_oracle_draws_is_a_genotype(name, tmp_path):
    oracle = planted.ORACLES[name](keras_tuner.Objective("score", "max"), 25, seed=1, hyperparameters=space(3))
    oracle._set_project_dir(tmp_path, "trials")
    oracle.verbose = 0
    seen = set()
    for number in range(25):
        trial = oracle.create_trial("tuner0")
        if trial.status == "STOPPED":  # hyperband has a plan of its own
            break
        genotype = genotype_of(trial.hyperparameters)
        genotypes.check(genotype, OPERATIONS)
        for pairs in (genotype.normal, genotype.reduce):
            assert len(pairs) == 6 and all(one[1] < two[1] for one, two in zip(pairs[::2], pairs[1::2], strict=True))
        assert genotype_of(hyperparameters_of(genotype)) == genotype
        seen.add(str(genotype))
        oracle.update_trial(trial.trial_id, {"score": number % 7})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
    assert len(seen) >= (12 if name == "hyperband" else 25)


def test_a_loss_that_becomes_nan_is_a_failure():
    model = GenotypeHyperModel((8, 8, 1), 10, nodes=1, channels=2, layers=1, learning_rate=1e30)
    hp = keras_tuner.HyperParameters()
    data = datasets.load("digits")
    x, y = data.x_train[:64].astype("float32"), data.y_train[:64]
    with pytest.raises(keras_tuner.errors.FailedTrialError, match=r"the loss .*became NaN in epoch 1"):
        model.fit(hp, model.build(hp), x, y, epochs=2, validation_data=(x, y))


def test_what_else_can_be_tuned():
    model = GenotypeHyperModel((8, 8, 1), 10, nodes=1, channels=[2, 4], layers=[1, 3], learning_rate=(1e-3, 1e-1))
    hp = keras_tuner.HyperParameters()
    model.build(hp)
    tuned = [choice.name for choice in hp.space if "_" not in choice.name or choice.name == "learning_rate"]
    assert sorted(tuned) == ["channels", "layers", "learning_rate"]
    hp.values |= {"channels": 4, "layers": 3, "learning_rate": 0.01}
    network = model.build(hp)
    assert network.output_shape == (None, 10) and float(network.optimizer.learning_rate) == pytest.approx(0.01)
    kernels = [
        layer.kernel.shape[-1] for layer in network.inference_model().layers if isinstance(layer, keras.layers.Conv2D)
    ]
    assert max(kernels) == 16  # two reductions of 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hyperband", "reinforce"])
def test_tuners_of_keras_tuner_run_on_the_space(name, tmp_path):
    data = datasets.load("digits")
    model = GenotypeHyperModel((8, 8, 1), 10, nodes=1, channels=4, layers=1, normalization=data.statistics())
    places = {"directory": tmp_path, "project_name": "digits"}
    objective = keras_tuner.Objective("val_accuracy", "max")
    if name == "hyperband":
        tuner = keras_tuner.Hyperband(model, objective, max_epochs=2, seed=1, **places)
    else:
        tuner = keras_tuner.Tuner(planted.ORACLES[name](objective, 3, seed=1), model, **places)
    x, y = data.x_train.astype("float32"), data.y_train
    tuner.search(x[:800], y[:800], validation_data=(x[800:], y[800:]), epochs=2, batch_size=32, verbose=0)
    best = tuner.oracle.get_best_trials()[0]
    assert best.score > 0.2 and all(trial.status == "COMPLETED" for trial in tuner.oracle.trials.values())
    network = tuner.get_best_models()[0]
    results = network.evaluate(x[800:], y[800:], verbose=0, return_dict=True)
    assert results["accuracy"] == pytest.approx(best.score, abs=1e-6)
