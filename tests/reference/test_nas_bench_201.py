"""Cells and networks of NAS-Bench-201, texts and numbers of its cells."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from original import assign, by_stage, relative_error, to_images

from darts_tf.costs import counts
from darts_tf.data.tasks import ImageClassification
from darts_tf.methods.relaxations import Softmax
from darts_tf.spaces.cells.cell import rows_by_source, rows_from
from darts_tf.spaces.nas_bench_201.networks import ResidualBlock, SearchCell201, SearchNetwork201
from darts_tf.spaces.nas_bench_201.space import NasBench201

TOLERANCE = {"float64": 1e-9, "float32": 1e-4}


@pytest.fixture(scope="module")
def arrays(nasbench201_file):
    with np.load(nasbench201_file) as file:
        return dict(file)


def part(arrays, prefix):
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def cell_tensors(cell, prefix=""):
    """{name in the original: Tensor} of a search cell."""
    found = {}
    for source, mixed_op in cell.mixed_ops.items():
        for place, row in enumerate(rows_from(source, cell.edges)):
            edge = "{}<-{}".format(*cell.edges[row])
            for index, operation in mixed_op.grouped.items():
                found |= by_stage(operation, f"{prefix}edges.{edge}.{index}.op.", place)
    return found


def network_tensors(network):
    found = by_stage(network.stem, "stem.") | by_stage(network.last, "lastact.")
    found |= by_stage(network.classifier, "classifier.")
    for place, cell in enumerate(network.cells):
        if isinstance(cell, ResidualBlock):
            found |= by_stage(cell.conv_a, f"cells.{place}.conv_a.op.") | by_stage(
                cell.conv_b, f"cells.{place}.conv_b.op."
            )
            found |= by_stage(cell.downsample, f"cells.{place}.downsample.")
        else:
            found |= cell_tensors(cell, f"cells.{place}.")
    return found


def gradient_errors(tensors, variables, gradients, expected):
    by_variable = {id(variable): gradient for variable, gradient in zip(variables, gradients, strict=True)}
    return {
        name: relative_error(tensors[name].of(by_variable[id(tensors[name].variable)]), value)
        for name, value in expected.items()
    }


def trained(network, x, y):
    """Logits in training, the loss, and its gradients with respect to the trainable variables."""

    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def run():
        with tf.GradientTape() as tape:
            logits = network(x, training=True)
            loss = cross_entropy(y, logits)
        return logits, loss, tape.gradient(loss, [variable.value for variable in network.trainable_variables])

    return run()


@pytest.mark.parametrize("kind", ["plain", "affine"])
def test_a_search_cell(arrays, dtype, kind):
    case, primitives = part(arrays, f"cell/{kind}/"), tuple(arrays["op_names"].tolist())
    x, dy = (to_images(case[name], dtype) for name in ("x", "dy"))
    nodes = int(arrays["sizes"][-1]) - 1
    assert arrays["cell/edges"].tolist() == ["{}<-{}".format(*edge) for edge in NasBench201(nodes).edges()]
    cell = SearchCell201(primitives, x.shape[-1], nodes, affine=kind == "affine")
    cell.build([x.shape])
    tensors = cell_tensors(cell)
    assert set(tensors) == set(part(case, "w/"))
    assign(tensors, part(case, "w/"))
    alphas, variables = tf.constant(case["alphas"], dtype), cell.trainable_variables

    @tf.function
    def run():
        with tf.GradientTape() as tape:
            tape.watch([x, alphas])
            y = cell([x], rows_by_source(tf.nn.softmax(alphas), cell.edges), training=True)
        return y, *tape.gradient(y, [x, alphas, [variable.value for variable in variables]], dy)

    y, dx, dalphas, gradients = run()
    errors = {
        "y": relative_error(y, to_images(case["y"])),
        "dx": relative_error(dx, to_images(case["dx"])),
        "dalphas": relative_error(dalphas, case["dalphas"]),
        **gradient_errors(tensors, variables, gradients, part(case, "grad/")),
    }
    assert max(errors.values()) < TOLERANCE[dtype], errors


def test_the_search_network(arrays, dtype):
    case, (channels, layers, _, _, classes, _) = part(arrays, "search/"), arrays["sizes"].tolist()
    x, y = to_images(case["x"], dtype), tf.constant(case["y"])
    network = SearchNetwork201(channels, layers, classes)
    network.build(x.shape)
    assign(network_tensors(network), part(case, "w/"))
    assert set(network_tensors(network)) == set(part(case, "w/"))
    network.alphas["cell"].assign(case["alphas"])
    variables = network.trainable_variables
    logits, loss, gradients = trained(network, x, y)
    expected = part(case, "grad/") | {"alphas": case["dalphas"]}
    by_variable = dict(zip(map(id, variables), gradients, strict=True))
    errors = {
        "logits": relative_error(logits, case["logits"]),
        "loss": relative_error(loss, case["loss"]),
        "dalphas": relative_error(by_variable[id(network.alphas["cell"])], expected.pop("alphas")),
    }
    errors |= gradient_errors(network_tensors(network), variables, gradients, expected)
    assert max(errors.values()) < TOLERANCE[dtype], errors
    assert str(network.genotype()) == str(case["genotype"])


def layer_tensors(network):
    """{name in the original: variable} of a derived network."""
    kinds = {"kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"}
    kinds |= {"moving_mean": "running_mean", "moving_variance": "running_var"}
    found = {}
    for layer in network.layers:
        name = layer.name
        for pattern, there in (
            (r"^(stem|last|classifier)_(\d)$", r"\1.\2"),
            (r"^last\.", "lastact."),
            (r"^cell(\d+)_edge(\d+)_(\d)$", r"cells.\1.layers.\2.op.\3"),
            (r"^cell(\d+)_(conv_.)_(\d)$", r"cells.\1.\2.op.\3"),
            (r"^cell(\d+)_downsample_(\d)$", r"cells.\1.downsample.\2"),
        ):
            name = re.sub(pattern, there, name)
        found |= {f"{name}.{kinds[v.name]}": v for v in layer.variables if v.name in kinds}
    return found


def original_layout(value):
    value = np.asarray(value)
    return value.transpose({4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[value.ndim])


def test_derived_networks(arrays, dtype):
    channels, layers, _, _, classes, _ = arrays["sizes"].tolist()
    for number, text in enumerate(arrays["derived/strings"]):
        case, structure = part(arrays, f"derived/{number}/"), NasBench201.from_notation(str(text))
        assert structure.index == arrays["derived/index"][number]
        x, y = to_images(case["x"], dtype), tf.constant(case["y"])
        task = ImageClassification(tuple(x.shape[1:]), classes)
        network = structure.space.network(structure, task, channels, layers)
        tensors, state = layer_tensors(network), part(case, "state/")
        assert set(tensors) == set(state)
        for name, variable in tensors.items():
            layout = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[state[name].ndim]
            variable.assign(state[name].transpose(layout))
        assert counts.parameters(network) == case["params"]
        assert structure.space.costs(task, channels, layers)(structure)["parameters"] == case["params"]
        features = keras.Model(network.inputs, network.get_layer("pooling").output)
        errors = {"features": relative_error(features(x), case["eval/features"])}
        errors["eval"] = relative_error(network(x), case["eval/logits"])
        variables = network.trainable_variables

        logits, loss, gradients = trained(network, x, y)
        errors |= {
            "train": relative_error(logits, case["train/logits"]),
            "loss": relative_error(loss, case["train/loss"]),
        }
        by_variable = dict(zip(map(id, variables), gradients, strict=True))
        for name, value in part(case, "train/grad/").items():
            errors[name] = relative_error(original_layout(by_variable[id(tensors[name])]), value)
        for name, value in part(case, "after/").items():
            if name.endswith("running_var"):  # Keras keeps the variance of the batch, PyTorch n / (n - 1) times it
                value = keras_variance(name, state[name], value, x.shape, layers)
            errors[f"after {name}"] = relative_error(tensors[name], value)
        assert max(errors.values()) < TOLERANCE[dtype], (text, {k: v for k, v in errors.items() if v > 1e-10})


def keras_variance(name, before, after, shape, layers):
    """What Keras makes of a moving variance that PyTorch makes `after` of."""
    cell = int(name.split(".")[1]) if name.startswith("cells.") else 0
    halved = 2 if name.startswith("lastact") else (cell + 1) // (layers + 1)
    count = shape[0] * (shape[1] // 2**halved) * (shape[2] // 2**halved)
    before = np.asarray(before, np.float64)
    return 0.9 * before + (after - 0.9 * before) * (count - 1) / count


def test_alphas_become_cells(arrays):
    space = NasBench201(primitives=tuple(arrays["op_names"].tolist()))
    for alphas, text, index in zip(
        arrays["genotype/alphas"], arrays["genotype/strings"], arrays["genotype/index"], strict=True
    ):
        found = space.decide({"cell": Softmax().strengths(alphas)})
        assert str(found) == text and found.index == index


def test_cells_that_compute_the_same(arrays):
    case = part(arrays, "unique/")
    for place, text in enumerate(case["strings"]):
        structure = NasBench201.from_notation(str(text))
        assert structure.index == case["index"][place]
        assert structure.is_connected == bool(case["valid"][place])
        for zero in (None, False, True):
            assert structure.unique(zero) == case[f"consider_zero_{zero}".lower()][place]
        assert structure.unique() == case["unique_csv"][place]


def test_numbers_of_cells(arrays):
    for index, text in zip(arrays["table/index"], arrays["table/strings"], strict=True):
        assert NasBench201.from_notation(str(text)).index == index


def test_costs(arrays):
    costs = NasBench201().costs(ImageClassification((32, 32, 3), 10))
    for text, parameters, mflops in zip(
        arrays["full/strings"], arrays["full/params"], arrays["full/mflops"], strict=True
    ):
        found = costs(NasBench201.from_notation(str(text)))
        assert found["parameters"] == parameters
        # They count the additions of the classifier's bias.
        assert np.isclose((found["multiply_adds"] + 10) / 1e6, mflops, rtol=1e-9)
