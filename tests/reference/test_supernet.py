import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from original import assign, relative_error, supernet_tensors

from darts_tf.methods.darts import DARTS, gradient
from darts_tf.methods.optimizers import SGD, Adam
from darts_tf.private.keras import place_of
from darts_tf.spaces.cells.networks import SearchNetwork
from darts_tf.spaces.cells.space import PRIMITIVES

EXACT = {"float64": 1e-9, "float32": 1e-4}
AFTER_DIFFERENCES = {"float64": 1e-6, "float32": 1e-4}


class Case:
    """The original's arrays and our search, at the same weights, alphas and momentum buffers."""

    def __init__(self, path, dtype):
        self.arrays = np.load(path)
        names = [name.removeprefix("w/") for name in self.arrays.files if name.startswith("w/")]
        edges, operations = self.arrays["alphas_normal"].shape
        assert operations == len(PRIMITIVES)
        nodes = next(n for n in range(1, 20) if n * (n + 3) // 2 == edges)
        network = SearchNetwork(
            channels=self.arrays["w/stem.0.weight"].shape[0] // 3,
            layers=1 + max(int(name.split(".")[1]) for name in names if name.startswith("cells.")),
            num_classes=self.arrays["w/classifier.weight"].shape[0],
            nodes=nodes,
        )
        self.train = self._batch("train", dtype)
        self.valid = self._batch("valid", dtype)
        self.search = DARTS(network, unrolled=True)
        self.search.compile(
            optimizer=SGD(
                0.025, momentum=0.9, l2=3e-4, global_clipnorm=5.0, loss_scale=network.compute_dtype == "float16"
            ),
            arch_optimizer=Adam(3e-4, beta_1=0.5, beta_2=0.999, epsilon=1e-8, l2=1e-3),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        self.search.create_variables(*self.train)
        self.tensors = supernet_tensors(network, names)

    def reset(self):
        """Puts weights, alphas and momentum buffers where the original's were."""
        names, network = list(self.tensors), self.search.network
        assign(self.tensors, {name: self.arrays[f"w/{name}"] for name in names})
        optimizer = self.search.optimizer
        assign(
            self.tensors,
            {name: self.arrays[f"momentum/{name}"] for name in names},
            lambda variable: optimizer.momentums[place_of(variable, optimizer)],
        )
        for kind, alpha in network.alphas.items():
            alpha.assign(self.arrays[f"alphas_{kind}"])

    def _batch(self, split, dtype):
        x = tf.constant(self.arrays[f"x_{split}"].transpose(0, 2, 3, 1), dtype)
        return x, tf.constant(self.arrays[f"y_{split}"])

    def weights_error(self, prefix, values):
        """Largest relative error of the tensors stored under a prefix, given values of all weight variables."""
        variables = self.search.network.weight_variables
        values = {id(variable): value for variable, value in zip(variables, values, strict=True)}
        stored = [name for name in self.arrays.files if name.startswith(prefix)]
        assert stored
        errors = []
        for name in stored:
            tensor = self.tensors[name.removeprefix(prefix)]
            errors.append(relative_error(tensor.of(values[id(tensor.variable)]), self.arrays[name]))
        return max(errors)

    def alphas_error(self, prefix, values):
        return max(
            relative_error(value, self.arrays[f"{prefix}{kind}"])
            for kind, value in zip(("normal", "reduce"), values, strict=True)
        )


@pytest.fixture(scope="module")
def made(supernet_file, dtype):
    return Case(supernet_file, dtype)


@pytest.fixture
def case(made):
    made.reset()
    return made


def test_logits(case, dtype):
    logits = tf.function(case.search.network)(case.train[0], training=True)
    assert relative_error(logits, case.arrays["logits_train"]) < EXACT[dtype]


@pytest.mark.parametrize("split", ["train", "valid"])
def test_loss(case, dtype, split):
    loss = tf.function(case.search.loss_at)(*case.search.values(), getattr(case, split))
    assert relative_error(loss, case.arrays[f"loss_{split}"]) < EXACT[dtype]


def test_first_order(case, dtype):
    dalphas = tf.function(functools.partial(case.search.alpha_gradient, unrolled=False))(case.train, case.valid)
    assert case.alphas_error("first/dalphas_", dalphas) < EXACT[dtype]


@pytest.mark.slow
def test_virtual_step(case, dtype):
    search = case.search

    @tf.function
    def virtual_step():
        weights, alphas = search.values()
        ahead = search.virtual_step(gradient(search.loss_at, weights, alphas, case.train, of="weights"))
        return ahead, search.loss_at(ahead, alphas, case.valid)

    ahead, loss = virtual_step()
    assert case.weights_error("unrolled/w/", ahead) < EXACT[dtype]
    assert relative_error(loss, case.arrays["unrolled/loss_valid"]) < EXACT[dtype]


@pytest.mark.slow
def test_second_order(case, dtype):
    dalphas = tf.function(case.search.alpha_gradient)(case.train, case.valid)
    assert case.alphas_error("second/dalphas_", dalphas) < AFTER_DIFFERENCES[dtype]


def test_step(case, dtype):
    search, arrays = case.search, case.arrays
    logs = tf.function(search.train_step)((case.train, case.valid))
    assert case.alphas_error("after/alphas_", search.network.arch_variables) < AFTER_DIFFERENCES[dtype]
    assert relative_error(logs["loss"], arrays["after/loss_train"]) < AFTER_DIFFERENCES[dtype]
    assert case.weights_error("after/w/", search.network.weight_variables) < AFTER_DIFFERENCES[dtype]


@pytest.mark.soak
@pytest.mark.parametrize(
    "policy, distances", [("mixed_bfloat16", (0.25, 0.75)), ("mixed_float16", (0.1, 0.45))], ids=["bfloat16", "float16"]
)
def test_low_precision(supernet_file, policy, distances):
    """How far the architecture gradient is from the original's, first and second order.

    Rounding nothing but the weights and images of this network moves its first order gradient by 0.12 and 0.04. The
    second order in bfloat16 depends on the kernels: it is off by 0.48 with oneDNN on AVX-512, by 0.69 without oneDNN;
    where its finite differences are not of exact losses it is noise.
    """
    keras.config.set_dtype_policy(policy)
    try:
        case = Case(supernet_file, "float32")
    finally:
        keras.config.set_dtype_policy("float32")
    case.reset()
    search, found = case.search, []
    if policy == "mixed_float16":
        search.optimizer._scale.assign(1024.0)  # where a search of this network would be after a few steps

    def distance(dalphas, order):
        ours = np.concatenate([np.ravel(d) for d in dalphas])
        theirs = np.concatenate([np.ravel(case.arrays[f"{order}/dalphas_{kind}"]) for kind in ("normal", "reduce")])
        return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)

    for order, unrolled in (("first", False), ("second", True)):
        step = tf.function(functools.partial(search.alpha_gradient, unrolled=unrolled))
        found.append(distance(step(case.train, case.valid), order))
    assert found[0] < distances[0] and found[1] < distances[1], found


@pytest.mark.slow
def test_gradient_norm_after_the_alpha_step(case, dtype):
    search, arrays = case.search, case.arrays
    for kind, alpha in search.network.alphas.items():
        alpha.assign(arrays[f"after/alphas_{kind}"])

    @tf.function
    def norm():
        return tf.linalg.global_norm(gradient(search.loss_at, *search.values(), case.train, of="weights"))

    assert relative_error(norm(), arrays["after/grad_norm"]) < AFTER_DIFFERENCES[dtype]
