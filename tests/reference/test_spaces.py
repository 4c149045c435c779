"""The spaces of RobustDARTS, and what GDAS does in NAS-Bench-201's."""

import json

import numpy as np
import pytest
import tensorflow as tf
from original import assign, relative_error, to_images
from test_nas_bench_201 import TOLERANCE, cell_tensors, gradient_errors, network_tensors, part, trained

from darts_tf import spaces
from darts_tf.methods import relaxations
from darts_tf.spaces.cells.cell import rows_by_source
from darts_tf.spaces.nas_bench_201.networks import SearchCell201, SearchNetwork201
from darts_tf.spaces.nas_bench_201.space import NasBench201


def test_the_spaces_of_robust_darts(robust_file):
    theirs = json.loads(robust_file.with_suffix(".json").read_text())["spaces"]
    for name in ("s1", "s2", "s3", "s4"):
        space = spaces.of({"space": name})
        for kind, lists in theirs[name].items():
            assert list(map(list, space.edges(kind).values())) == lists
            assert [space.choices[kind].mask[row].sum() for row in range(len(lists))] == list(map(len, lists))


@pytest.mark.parametrize("name, relaxation", [("gdas", "gumbel_hard"), ("gdas_v1", "gumbel_hard_v1")])
def test_a_cell_that_draws(gdas_file, dtype, name, relaxation):
    arrays, relaxation = dict(np.load(gdas_file)), relaxations.get(relaxation)
    case = part(arrays, "cell201/")
    x, dy = (to_images(case[key], dtype) for key in ("x", "dy"))
    nodes = 1 + max(int(key.split("<-")[0].removeprefix("w/edges.")) for key in case if key.startswith("w/")) - 1
    cell = SearchCell201(tuple(arrays["op_names_nasbench201"].tolist()), x.shape[-1], nodes)
    cell.build([x.shape])
    tensors = cell_tensors(cell)
    assign(tensors, part(case, "w/"))
    alphas, noise = (
        tf.constant(case["alphas"], dtype),
        tf.constant(-np.log(case["exponential"].astype(np.float64)), dtype),
    )
    options = {"drawn": True, "others": relaxation.others}

    @tf.function
    def run():
        with tf.GradientTape() as tape:
            tape.watch([x, alphas])
            weights = relaxation(alphas, noise, float(case["tau"]))
            tape.watch(weights)
            y = cell([x], rows_by_source(weights, cell.edges), training=True, **options)
        variables = [variable.value for variable in cell.trainable_variables]
        return y, weights, *tape.gradient(y, [x, weights, alphas, variables], dy, unconnected_gradients="zero")

    y, weights, dx, dweights, dalphas, gradients = run()
    assert np.argmax(weights, 1).tolist() == case["index"].tolist()
    errors = {
        "y": relative_error(y, to_images(case[f"{name}/y"])),
        "dx": relative_error(dx, to_images(case[f"{name}/dx"])),
        "dhardwts": relative_error(tf.convert_to_tensor(dweights), case[f"{name}/dhardwts"]),
        "dalphas": relative_error(dalphas, case[f"{name}/dalphas"]),
        **gradient_errors(tensors, cell.trainable_variables, gradients, part(case, f"{name}/grad/")),
    }
    assert max(errors.values()) < TOLERANCE[dtype], errors


class Given(type(relaxations.get("gumbel_hard"))):
    """GDAS with noise that is given."""

    name = "gumbel_hard"

    def __init__(self, noise, temperature):
        self.given, self.first = noise, temperature

    def __call__(self, alpha, noise=None, temperature=1.0):
        return super().__call__(alpha, tf.cast(self.given, alpha.dtype), self.first)


def test_a_network_that_draws(gdas_file, dtype):
    arrays = dict(np.load(gdas_file))
    case = part(arrays, "net201/")
    noise = -np.log(case["exponential"].astype(np.float64))
    cells = 1 + max(int(key.split(".")[1]) for key in case if key.startswith("w/cells."))
    channels, classes = case["w/stem.0.weight"].shape[0], len(case["w/classifier.bias"])
    relaxation = Given(noise, float(arrays["cell201/tau"]))
    network = SearchNetwork201(channels, (cells - 2) // 3, classes, relaxation=relaxation)
    x = to_images(case["x"], dtype)
    network.build(x.shape)
    tensors = network_tensors(network)
    assert set(tensors) == set(part(case, "w/"))
    assign(tensors, part(case, "w/"))
    network.alphas["cell"].assign(case["arch_parameters"])
    logits, loss, gradients = trained(network, x, tf.constant(case["y"]))
    by_variable = dict(zip(map(id, network.trainable_variables), gradients, strict=True))
    errors = {
        "logits": relative_error(logits, case["logits"]),
        "loss": relative_error(loss, case["loss"]),
        "dalphas": relative_error(by_variable[id(network.alphas["cell"])], case["dalphas"]),
        **gradient_errors(tensors, network.trainable_variables, gradients, part(case, "grad/")),
    }
    assert max(errors.values()) < TOLERANCE[dtype], errors


def test_the_strongest_are_the_cell(gdas_file):
    arrays = np.load(gdas_file)
    space = NasBench201(primitives=tuple(arrays["op_names_nasbench201"].tolist()))
    for alphas, text in zip(arrays["genotype201/alphas"], arrays["genotype201/string"], strict=True):
        assert str(space.decide({"cell": relaxations.Softmax().strengths(alphas)})) == text
