"""Multilayer perceptrons: the supernet, the networks, exact costs, and pruning while they are searched."""

import itertools
import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from darts_tf import SearchConfig, TrainConfig, run_search, run_training, spaces
from darts_tf.cli.messages import UsageError
from darts_tf.costs import counts, tables
from darts_tf.data.tasks import ImageClassification
from darts_tf.devices import tflite
from darts_tf.methods import darts
from darts_tf.methods.one_shot import Inherited, one_hot
from darts_tf.methods.optimizers import SGD
from darts_tf.reports import drawing, report
from darts_tf.runs import inheritance, phases, rundirectory
from darts_tf.runs.budget import Budget
from darts_tf.spaces import MLP

VECTORS = ImageClassification((6,), 3)
TEXT = "mlp:12:tanh*0.5,relu+,none,gelu*0.25+"
SPACE = MLP(4, 12)


def supernet_of(space, task=VECTORS, **options):
    network = space.supernet(task, **options)
    network.build((None, *task.input_shape))
    random = np.random.default_rng(0)
    for variable in network.variables:
        if "alphas" not in variable.path:
            variable.assign(random.uniform(0.2, 1, variable.shape))
    return network


def copied(supernet, architecture, network):
    """Gives a network the supernet's weights: of ordered units the first."""
    layers = {layer.name: layer for layer in network.layers}
    for row, hidden in enumerate(supernet.hidden):
        if f"hidden{row}" not in layers:
            continue
        mean, variance = np.array(hidden.moving) if hidden.batch_norm else (None, None)
        own = [[hidden.kernel], [*hidden.affine, mean, variance]]
        if not hidden.batch_norm:
            own = [[hidden.kernel, *hidden.affine]]
        for layer, values in zip((layers[f"hidden{row}"], layers.get(f"hidden{row}_norm")), own, strict=False):
            shapes = [weight.shape for weight in layer.weights]
            layer.set_weights([np.array(v)[tuple(map(slice, shape))] for v, shape in zip(values, shapes, strict=True)])
    kernel, bias = supernet.classifier.get_weights()
    layers["classifier"].set_weights([kernel[: layers["classifier"].kernel.shape[0]], bias])


@pytest.mark.parametrize("text", [TEXT, "mlp:12,no_batch_norm:swish,gelu*0.5+,tanh*0.25,identity*0.75+"])
def test_the_supernet_holds_every_network(text):
    """With one candidate in each row it computes what the network computes, with the first of the units."""
    found = spaces.read(text)
    space = MLP(4, 12, batch_norm=found.space.batch_norm)
    supernet, x = supernet_of(space), np.random.default_rng(1).normal(size=(5, 6)).astype("float32")
    network = space.network(found, VECTORS)
    copied(supernet, found, network)
    mixture = one_hot(space.choices, space.picks(found))
    np.testing.assert_allclose(supernet(x, mixture=mixture), network(x), rtol=2e-5, atol=2e-5)
    larger = space.network(found, ImageClassification((2, 3, 1), 3, ((0.5,), (0.25,))), units=24, dropout=0.5)
    assert larger.get_layer("hidden0").units == 2 * network.get_layer("hidden0").units
    drops = [layer for layer in larger.layers if isinstance(layer, keras.layers.Dropout)]
    assert len(drops) == sum(connection != "none" for connection, *_ in found.layers)
    again = keras.models.model_from_json(larger.to_json())
    assert [layer.name for layer in again.layers] == [layer.name for layer in larger.layers]
    lite = Interpreter(model_content=tflite.of_model(network))
    lite.allocate_tensors()
    lite.set_tensor(lite.get_input_details()[0]["index"], x[:1])
    lite.invoke()
    np.testing.assert_allclose(lite.get_tensor(lite.get_output_details()[0]["index"]), network(x[:1]), rtol=1e-4)


def test_one_product_of_matrices_for_each_layer():
    supernet = supernet_of(SPACE)
    graph = tf.function(lambda x: supernet(x, training=True)).get_concrete_function(tf.zeros([7, 6])).graph
    products = [op for op in graph.get_operations() if "MatMul" in op.type and op.outputs[0].shape[0] == 7]
    assert len(products) == 5


@pytest.mark.parametrize(
    "relaxation", ["sigmoid", "gumbel_soft", "gumbel_hard", "uniform", "binary_gates", "path_dropout", "dirichlet"]
)
def test_every_relaxation(relaxation):
    supernet = supernet_of(MLP(2, 4), relaxation=relaxation)
    search = darts.DARTS(supernet)
    loss = VECTORS.loss()
    search.compile(optimizer="sgd", arch_optimizer="adam", loss=loss)
    x, y = tf.random.stateless_normal([8, 6], [0, 1]), tf.range(8) % 3
    weights, alphas = (
        [tf.convert_to_tensor(v) for v in some] for some in (supernet.weight_variables, supernet.arch_variables)
    )
    draw = tf.constant([1, 2]) if supernet.is_sampled else None
    with tf.GradientTape() as tape:
        tape.watch([weights, alphas])
        value, _ = search._loss_at(weights, alphas, (x, y), False, draw, "alpha")
    assert np.isfinite(value)
    moved = [g is not None and np.abs(g).max() > 0 for g in tape.gradient(value, alphas)]
    assert all(moved) == supernet.relaxation.learns


def test_what_is_pruned_is_smaller_and_computes_the_same():
    left = {
        "connections": np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [1, 1, 1]], bool),
        "activations": np.array([[1, 1, 1, 1, 1], [0, 1, 0, 0, 1], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]], bool),
        "widths": np.array([[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1], [0, 1, 0, 0]], bool),
    }
    assert SPACE.left(left) == {"layer 1": 6, "layer 2": 9, "layer 3": 0, "layer 4": 6}
    searches = []
    for candidates in (None, left):
        search = darts.DARTS(supernet_of(SPACE, candidates=candidates))
        search.compile(optimizer=SGD(momentum=0.9), loss=VECTORS.loss())
        search.create_variables(tf.zeros([4, 6]), tf.zeros([4], tf.int32))
        searches.append(search)
    before, search = searches
    inheritance.inherit(search, before)
    shapes = [tuple(layer.kernel.shape) for layer in search.network.hidden if layer]
    assert shapes == [(6, 6), (6, 9), (9, 6)] and search.network.classifier.kernel.shape == (9, 3)
    x = tf.random.stateless_normal([8, 6], [0, 1])
    mixture = {name: left[name] / left[name].sum(-1, keepdims=True) for name in left}
    mixture = {name: tf.constant(weights, "float32") for name, weights in mixture.items()}
    np.testing.assert_allclose(search.network(x, mixture=mixture), before.network(x, mixture=mixture), rtol=1e-5)
    saved = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(search.network))
    assert saved.space == SPACE and [bool(layer) for layer in saved.hidden] == [True, True, False, True]


def test_texts_and_pictures():
    found = spaces.read(TEXT)
    assert str(found) == TEXT and found.space.layers == 4 and found.space.units == 12
    assert json.loads(found.to_json()) == {"space": "mlp", "architecture": TEXT}
    assert spaces.read("mlp:9,no_batch_norm:selu").space.batch_norm is False
    assert drawing.png(found).startswith(b"\x89PNG")
    picture, chosen = drawing.svg(found), (6, 12, 3)
    assert all(
        f"{name}, {units} units" in picture for name, units in zip(("tanh", "relu", "gelu"), chosen, strict=True)
    )
    for text, message in (
        ("mlp:x:relu", "expected the units of the widest layer and the layers"),
        ("mlp:12", "expected the units of the widest layer"),
        ("mlp:12,plain:relu", "expected the units of the widest layer"),
        ("mlp:0:relu", "units=0: expected 1 to 100,000"),
        ("mlp:12:relu*a", "expected a width such as relu.0.5"),
        ("mlp:12:relu*2", "expected numbers above 0, up to 1"),
        ("mlp:12:none,relu", "'none' on layer 1: expected one of dense"),
        ("mlp:12:relu+,relu", "'residual' on layer 1: expected one of dense"),
        ("mlp:12:" + ",".join(["relu"] * 101), "layers=101: expected 1 to 100 hidden layers"),
    ):
        with pytest.raises(ValueError, match=message):
            spaces.read(text)
    for values, message in (
        ({"primitives": ()}, "expected activations, each once"),
        ({"primitives": ("relu", "relu")}, "expected activations, each once"),
        ({"widths": ("0.5",)}, "expected numbers above 0, up to 1, and 1"),
    ):
        with pytest.raises(ValueError, match=message):
            MLP(**values)
    with pytest.raises(ValueError, match="conv: no such activation; expected tanh, relu"):
        MLP.check_primitive("conv")


def test_costs_of_every_architecture():
    """Tables say exactly what each network of a small space costs; the dynamic programs find what a list does."""
    space = MLP(3, 8, ("relu", "tanh"), ("0.25", "0.75", "1"))
    costs, choices = space.costs(VECTORS), space.choices
    names = ("parameters", "multiply_adds", tables.PEAK)
    found = {name: costs.table(name) for name in names}
    rows = [(name, row, np.flatnonzero(table.mask[row])) for name, table in choices.items() for row in range(3)]
    random = np.random.default_rng(0)
    strengths = {name: random.dirichlet(np.ones(table.mask.shape[1]), 3) for name, table in choices.items()}
    strengths["connections"] = strengths["connections"] * choices["connections"].mask
    strengths["connections"] /= strengths["connections"].sum(-1, keepdims=True)
    values, weights, worth, built = {name: [] for name in names}, [], [], 0
    for places in itertools.product(*(own for *_, own in rows)):
        picks = {name: [] for name in choices}
        for (name, row, _), candidate in zip(rows, places, strict=True):
            picks[name].append((row, int(candidate)))
        weights.append(np.prod([strengths[name][pick] for name, own in picks.items() for pick in own]))
        architecture = space.decode(picks)
        likeliest = np.log([strengths["connections"][pick] for pick in picks["connections"]]).sum()
        for name in ("activations", "widths"):
            there = [pick for pick, one in zip(picks[name], architecture.chosen[name], strict=True) if one]
            likeliest += sum(np.log(strengths[name][pick] / strengths[name][pick[0]].max()) for pick in there)
        worth.append(likeliest)
        for name in names:
            values[name].append(space.cost_of(found[name], picks))
        if random.random() < 0.006:
            network = space.network(architecture, VECTORS)
            exact = {**counts.of(network), tables.PEAK: counts.activations(network)}
            assert {name: costs.of(architecture, name) for name in names} == exact
            built += 1
    assert built > 10
    for name in ("parameters", "multiply_adds"):
        mixture = {table: tf.constant(one, "float64") for table, one in strengths.items()}
        assert float(space.expected(found[name], mixture)) == pytest.approx(np.dot(values[name], weights))
    for name in names:
        assert space.cheapest(found[name]) == min(values[name])
        most = np.quantile(values[name], 0.3)
        fits = np.array(values[name]) <= most
        best = space.within(strengths, [found[name]], [most])
        assert space.cost_of(found[name], space.picks(best)) <= most
        chosen = sum(np.log(strengths["connections"][pick]) for pick in space.picks(best)["connections"])
        for table in ("activations", "widths"):
            for row, one in enumerate(best.chosen[table]):
                if one is not None:
                    own = strengths[table][row]
                    chosen += np.log(own[choices[table].candidates.index(one)] / own.max())
        assert chosen == pytest.approx(np.array(worth)[fits].max())
    only = space.costs(VECTORS).all_parts()
    assert len({str(part) for part in only}) == len(only)


FLAGS = {"space": "mlp", "layers": 3, "units": 8, "epochs": 4, "batch_size": 128, "primitives": ["relu", "tanh"]}
FLAGS |= {"arch_learning_rate": 0.3, "prune_below": 0.2, "prune_patience": 2, "max_parameters": 300}


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    """A search that is pruned, whose networks are bounded."""
    folder = tmp_path_factory.mktemp("mlp") / "run"
    return run_search(SearchConfig(**FLAGS, output=str(folder)), verbose=0)


def test_a_search_shrinks(search):
    space = search.genotype.space
    assert space == MLP(3, 8, ("relu", "tanh")) and search.budget[0]["expected"] <= 300
    history = rundirectory.alphas(search.directory, space.choices)
    left = phases.candidates_of(search.config, space, history)
    sizes = [sum(mask.sum() for mask in one.values()) for one in left]
    assert sizes[0] == sizes[1] > sizes[-1]  # it waits for two epochs
    units = [space.left(one) for one in left]
    assert sum(units[-1].values()) < sum(units[0].values()) == 24
    content = report.contents(search.directory)
    assert [content["layers"][f"layer {row}"][-1] for row in (1, 2, 3)] == list(units[-2].values())
    assert "Units left of each layer" in (search.directory / "report.html").read_text()
    known = dict(content["config"])
    assert known["--units"] == "8" and known["--batch_norm"] == "yes" and "--dropout" not in known
    assert "units are left" in content["pictures"][0]["edges"][-1]


def test_it_goes_on_bit_for_bit(search, tmp_path):
    shutil.copytree(search.directory, tmp_path / "parts")
    for file in sorted((tmp_path / "parts" / "checkpoints").iterdir())[1:]:
        file.unlink()
    run_search(SearchConfig(**FLAGS, output=str(tmp_path / "parts")), verbose=0)
    for name in ("alphas.npz", "genotype.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (search.directory / name).read_bytes()


def test_what_it_has_found_is_trained(search, tmp_path):
    flags = {"arch": str(search.directory / "genotype.json"), "epochs": 1, "output": str(tmp_path / "run")}
    training = run_training(TrainConfig(**flags), verbose=0)
    assert training.config.dropout == 0 and training.config.batch_size == MLP.training["batch_size"]
    assert training.results["parameters"] == search.budget[0]["expected"]
    assert training.model.input_shape == (None, 8, 8, 1)
    assert not set(dict(report.contents(training.directory)["config"])) & {"--layers", "--dropouth"}
    for name in ("layers", "init_channels"):
        with pytest.raises(UsageError, match=f"--{name}=4: the space mlp has no such size"):
            run_training(TrainConfig(**{**flags, name: 4, "output": str(tmp_path / name)}), verbose=0)


def test_evolution_finds_a_network(tmp_path):
    flags = {"space": "mlp", "layers": 2, "units": 8, "epochs": 1, "method": "spos", "batch_size": 128}
    flags |= {"population": 4, "generations": 1, "recalibration_images": 128, "max_multiply_adds": 700}
    found = run_search(SearchConfig(**flags, output=str(tmp_path / "run")), verbose=0)
    assert found.budget[0]["expected"] <= 700
    rows = json.loads((tmp_path / "run" / "evolution.json").read_text())["networks"]
    assert len(rows) == 4 and len({row["loss"] for row in rows}) > 1


def test_statistics_are_computed_anew_for_each_network():
    supernet = supernet_of(MLP(2, 4), relaxation="uniform")
    search = darts.DARTS(supernet)
    search.compile(optimizer="sgd", loss=VECTORS.loss())
    search.create_variables(tf.zeros([4, 6]), tf.zeros([4], tf.int32))
    batch = tf.random.stateless_normal([16, 6], [0, 1]), tf.range(16) % 3
    before = [np.array(layer.moving) for layer in supernet.hidden]
    worth = Inherited(search, [batch], [batch])
    picks = MLP(2, 4).picks(spaces.read("mlp:4:relu,tanh*0.5"))
    worth(one_hot(MLP(2, 4).choices, picks))
    mean, _ = np.array(supernet.hidden[0].moving)
    np.testing.assert_allclose(mean, np.mean(batch[0] @ supernet.hidden[0].kernel, 0), rtol=1e-4, atol=1e-5)
    worth.restore()
    for layer, values in zip(supernet.hidden, before, strict=True):
        np.testing.assert_array_equal(layer.moving, values)


def test_flags_that_mean_something_to_perceptrons_only():
    config = SearchConfig(space="mlp").begun()
    assert config.learning_rate == MLP.searching["learning_rate"] and config.relaxation == "softmax"
    assert SearchConfig(space="mlp", method="gdas", dataset="photos/").begun().epochs == MLP.searching["epochs"]
    with pytest.raises(UsageError, match="--batch_norm=False: the space nas-bench-201 has no such size"):
        run_search(SearchConfig(space="nas-bench-201", batch_norm=False), verbose=0)
    with pytest.raises(UsageError, match=r"--dropout=0\.5: the space mlp has no such size"):
        run_search(SearchConfig(space="mlp", dropout=0.5), verbose=0)


def test_what_is_left_can_be_within_bounds():
    space = MLP(3, 8, ("relu", "tanh"), ("0.5", "1"))
    table = space.costs(VECTORS).table("parameters")
    budget = Budget(space, {"parameters": table}, {"parameters": 60})
    left = {name: one.mask for name, one in space.choices.items()}
    assert budget.possible(left)
    wide = left | {"widths": np.array([[False, True]] * 3)}
    assert not budget.possible(wide)
    assert budget.possible(left | {"activations": np.array([[False, True]] * 3)})
    deep = np.array([[True, False, False]] + 2 * [[True, True, False]])
    assert not budget.possible(left | {"connections": deep})
