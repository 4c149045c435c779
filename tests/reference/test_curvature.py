"""RobustDARTS: the Hessian of the validation loss in alpha."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from original import assign, layers_of, relative_error

from darts_tf.methods.curvature import Curvature
from darts_tf.methods.darts import DARTS
from darts_tf.methods.optimizers import SGD, Adam
from darts_tf.spaces.cells.networks import SearchNetwork
from darts_tf.spaces.cells.pytorch import layer_and_weight
from darts_tf.spaces.cells.space import CELLS, PRIMITIVES

EXACT = {"float64": 1e-9, "float32": 1e-4}
L2 = 1e-3


class Case:
    """The original's arrays and our search, whose edges have the candidates of the original's."""

    def __init__(self, arrays, dtype):
        self.arrays = arrays
        channels, nodes, layers, classes, *_ = (int(size) for size in arrays["sizes"])
        lists = {"normal": arrays["primitives_normal"].tolist(), "reduce": arrays["primitives_reduct"].tolist()}
        primitives = [name for name in PRIMITIVES if any(name in row for rows in lists.values() for row in rows)]
        self.place = {kind: [[primitives.index(name) for name in row] for row in lists[kind]] for kind in CELLS}
        candidates = {kind: np.zeros((len(lists[kind]), len(primitives)), bool) for kind in CELLS}
        for kind in CELLS:
            for row, own in enumerate(self.place[kind]):
                candidates[kind][row, own] = True
        network = SearchNetwork(channels, layers, classes, nodes, primitives, candidates=candidates)
        self.search = DARTS(network)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.search.compile(SGD(), loss, arch_optimizer=Adam(l2=L2))
        self.batch = tf.constant(arrays["x"].transpose(0, 2, 3, 1), dtype), tf.constant(arrays["y"])
        self.search.create_variables(*self.batch)

        tensors, named = layers_of(network), {}
        for name in arrays:
            if name.startswith("w/"):
                layer, weight = layer_and_weight(name.removeprefix("w/"))
                named[name.removeprefix("w/")] = tensors[self._ours(layer), weight]
        assign(named, {name: arrays[f"w/{name}"] for name in named})
        for kind, alpha in network.alphas.items():
            alpha.assign(self._spread(arrays[f"alphas_{kind}"], kind))

    def _ours(self, layer):
        """The name of a layer, whose candidates are counted on each edge, in our count."""
        found = re.match(r"cell(\d+)_edge(\d+)_candidate(\d+)(.*)", layer)
        if not found:
            return layer
        cell, edge, candidate = (int(number) for number in found.groups()[:3])
        kind = "reduce" if self.search.network.cells[cell].reduction else "normal"
        return f"cell{cell}_edge{edge}_candidate{self.place[kind][edge][candidate]}{found[4]}"

    def _spread(self, alphas, kind):
        whole = np.zeros(self.search.network.alphas[kind].shape)
        np.put_along_axis(whole, np.array(self.place[kind]), alphas, -1)
        return whole

    def product(self, curvature, vector):
        """The Hessian times a vector of the original's alphas, of all of ours."""
        return curvature._products(self.batch, tf.constant(self.flat(vector), self.batch[0].dtype)).numpy()

    def flat(self, vector):
        """A vector of all of the original's alphas as one of all of ours."""
        sizes = [self.arrays[f"alphas_{kind}"].shape for kind in CELLS]
        parts = np.split(vector, [np.prod(sizes[0])])
        return np.concatenate(
            [np.ravel(self._spread(p.reshape(s), k)) for p, s, k in zip(parts, sizes, CELLS, strict=True)]
        )


def cases(path):
    arrays = np.load(path)
    kinds = sorted({name.split("/")[1] for name in arrays.files if name.startswith("hessian/")})
    assert kinds
    for kind in kinds:
        prefix = f"hessian/{kind}/"
        yield {name.removeprefix(prefix): arrays[name] for name in arrays.files if name.startswith(prefix)}


@pytest.mark.slow
def test_hessian(robust_file, dtype):
    for arrays in cases(robust_file):
        case = Case(arrays, dtype)
        search = case.search
        assert relative_error(search.network(case.batch[0], training=True), arrays["logits"]) < EXACT[dtype]
        assert relative_error(search.loss_at(*search.values(), case.batch), arrays["loss"]) < EXACT[dtype]
        first = search.alpha_gradient(case.batch, case.batch)
        decayed = [d + L2 * a.numpy() for d, a in zip(first, search.network.arch_variables, strict=True)]
        assert relative_error(np.concatenate([np.ravel(d) for d in decayed]), case.flat(arrays["g"])) < EXACT[dtype]

        curvature = Curvature(search)
        products = [case.product(curvature, unit) for unit in np.eye(len(arrays["g"]))]
        assert relative_error(products, [case.flat(row) for row in arrays["H"]]) < EXACT[dtype]
        value = curvature(*case.batch)
        assert relative_error(value, arrays["dominant"]) < EXACT[dtype]
        assert curvature(*case.batch) == value
        assert curvature._products.experimental_get_tracing_count() == 1
