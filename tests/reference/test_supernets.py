"""Supernets, cells and mixed operations of GDAS, PC-DARTS, P-DARTS, FairDARTS and DARTS-."""

import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from original import assign, by_original_name, operation_tensors, relative_error, supernet_tensors

from darts_tf.methods import relaxations
from darts_tf.ops import kernels
from darts_tf.ops.mixed_op import MixedOp
from darts_tf.spaces.cells.cell import SearchCell, rows_by_source, rows_from
from darts_tf.spaces.cells.networks import SearchNetwork
from darts_tf.spaces.cells.space import PRIMITIVES, CellSpace

CLOSE = 1e-9


pytestmark = pytest.mark.usefixtures("float64")


def nhwc(array):
    return tf.constant(array.transpose(0, 2, 3, 1), tf.float64)


def under(arrays, prefix):
    return {name.removeprefix(prefix): arrays[name] for name in arrays.files if name.startswith(prefix)}


def nodes_of(edges):
    return next(n for n in range(1, 20) if n * (n + 3) // 2 == edges)


def check_network(network, found, renamed=lambda name: name, masks=None, mixture_of=None):
    """Compares logits, loss and gradients of a supernet with those found."""
    names = [name.removeprefix("w/") for name in found if name.startswith("w/")]
    network.build((None, *found["x"].shape[2:], found["x"].shape[1]))
    tensors = supernet_tensors(network, [renamed(name) for name in names])
    assign(tensors, {renamed(name): found[f"w/{name}"] for name in names})
    for kind, alpha in network.alphas.items():
        value = np.zeros(alpha.shape)
        value[np.ones(alpha.shape, bool) if masks is None else masks[kind]] = found[f"alphas_{kind}"].ravel()
        alpha.assign(value)
    for kind, beta in network.betas.items():
        beta.assign(found[f"betas_{kind}"])
    weights, arch = network.weight_variables, network.arch_variables

    @tf.function
    def compute(x, y):
        with tf.GradientTape() as tape:
            options = {} if mixture_of is None else {"mixture": mixture_of(network)}
            logits = network(x, training=True, **options)
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True))
        sources = [[variable.value for variable in own] for own in (weights, arch)]
        return logits, loss, tape.gradient(loss, sources, unconnected_gradients="zero")

    logits, loss, (dweights, darch) = compute(nhwc(found["x"]), found["y"])
    assert relative_error(logits, found["logits"]) < CLOSE
    assert relative_error(loss, found["loss"]) < CLOSE
    for variable, gradient in zip(arch, darch, strict=True):
        part, kind = variable.name.split("_")
        gradient = tf.convert_to_tensor(gradient)
        gradient = gradient if masks is None else gradient[masks[kind]]
        expected = found[f"d{part}_{kind}"]
        assert relative_error(np.reshape(gradient, expected.shape), expected) < CLOSE
    values = {id(variable): gradient for variable, gradient in zip(weights, dweights, strict=True)}
    stored = [name.removeprefix("grad/") for name in found if name.startswith("grad/")]
    assert stored
    for name in stored:
        tensor = tensors[renamed(name)]
        assert relative_error(tensor.of(values[id(tensor.variable)]), found[f"grad/{name}"]) < CLOSE, name


def check_mixed(mixed, found, weights, apply=None, extra=()):
    """Compares one edge's mixed operation, its gradients too; `extra` are weights that follow those found."""
    x, dy, weights = nhwc(found["x"]), nhwc(found["dy"]), tf.constant(weights, tf.float64)
    mixed.build((None, None, None, mixed.channels))
    tensors = {}
    for index, operation in mixed.grouped.items():
        tensors |= operation_tensors(operation, f"candidate{index}")
    names = [name.removeprefix("param/") for name in found if name.startswith("param/")]
    tensors = by_original_name(
        {(f"edge_{layer}", weight): tensor for (layer, weight), tensor in tensors.items()},
        [f"edge.{name.replace('auxiliary_op', f'_ops.{len(mixed.primitives) - 1}')}" for name in names],
    )
    tensors = dict(zip(names, tensors.values(), strict=True))
    assign(tensors, {name: found[f"param/{name}"] for name in names})
    apply = apply or (lambda x, weights: mixed(x, weights, training=True))
    with tf.GradientTape() as tape:
        tape.watch([x, weights])
        y = apply(x, tf.concat([weights, tf.constant(extra, tf.float64)], 0)[None])
        loss = tf.reduce_sum(y * dy)
    variables = mixed.trainable_variables
    dx, dweights, dvariables = tape.gradient(
        loss, [x, weights, [variable.value for variable in variables]], unconnected_gradients="zero"
    )
    assert relative_error(y, found["y"].transpose(0, 2, 3, 1)) < CLOSE
    assert relative_error(dx, found["dx"].transpose(0, 2, 3, 1)) < CLOSE
    values = {id(variable): gradient for variable, gradient in zip(variables, dvariables, strict=True)}
    for name in found:
        if name.startswith("grad/"):
            tensor = tensors[name.removeprefix("grad/")]
            assert relative_error(tensor.of(values[id(tensor.variable)]), found[name]) < CLOSE, name
    return dweights


def test_pcdarts_network(pcdarts_file):
    arrays = np.load(pcdarts_file)
    divisor, channels, steps, layers, classes, *_ = (int(n) for n in arrays["sizes"])
    network = SearchNetwork(
        channels, layers, classes, steps, arrays["op_names"], edge_normalization=True, partial_channels=divisor
    )
    check_network(network, under(arrays, "net/"))
    for kind, shares in network.edge_weights().items():
        assert relative_error(shares, arrays[f"net/edge_weights_{kind}"]) < CLOSE


@pytest.mark.parametrize("stride", [1, 2])
def test_pcdarts_mixed_operation(pcdarts_file, stride):
    arrays = np.load(pcdarts_file)
    divisor = int(arrays["sizes"][0])
    found = under(arrays, f"mixedop/stride{stride}/")
    channels = found["x"].shape[1]
    mixed = MixedOp(arrays["op_names"], channels // divisor, 1, stride)

    def apply(x, weights):
        part, rest = tf.split(x, [channels // divisor, -1], -1)
        rest = tf.nn.max_pool2d(rest, 2, 2, "SAME") if stride == 2 else rest
        return kernels.shuffle(tf.concat([mixed(part, weights, training=True), rest], -1), divisor)

    dweights = check_mixed(mixed, found, found["weights"], apply)
    assert relative_error(dweights, found["dweights"]) < CLOSE


def test_pcdarts_shuffle(pcdarts_file):
    arrays = np.load(pcdarts_file)
    x, y = nhwc(arrays["shuffle/x"]), nhwc(arrays["shuffle/y"])
    groups = int(arrays["shuffle/groups"])
    with tf.GradientTape() as tape:
        tape.watch(x)
        shuffled = kernels.shuffle(x, groups)
        loss = tf.reduce_sum(shuffled * y)
    np.testing.assert_array_equal(shuffled, y)
    np.testing.assert_array_equal(tape.gradient(loss, x), x)


def test_pcdarts_genotypes(pcdarts_file):
    arrays = np.load(pcdarts_file)
    alphas, betas = arrays["genotype/alphas"], arrays["genotype/betas"]
    space = CellSpace(nodes_of(alphas.shape[2]), tuple(str(name) for name in arrays["op_names"]))
    network = SearchNetwork(4, 3, 3, space=space, edge_normalization=True)
    network.build((None, 8, 8, 3))
    for alpha, beta, text in zip(alphas, betas, arrays["genotype/json"], strict=True):
        for place, kind in enumerate(("normal", "reduce")):
            network.alphas[kind].assign(alpha[place])
            network.betas[kind].assign(beta[place])
        genotype, theirs = network.genotype(), json.loads(str(text))
        for kind in ("normal", "reduce"):
            assert [tuple(pair) for pair in theirs[kind]] == [tuple(pair) for pair in getattr(genotype, kind)]


class Undecided(CellSpace):
    """The paper's space where "none" may be all that is left of an edge."""

    @property
    def choices(self):
        return {name: table._replace(never=frozenset()) for name, table in super().choices.items()}


@pytest.mark.parametrize("case", ["five", "three", "one"])
def test_pdarts_supernet(pdarts_file, case):
    arrays = np.load(pdarts_file)
    channels, layers, classes, *_ = (int(n) for n in arrays["sizes"])
    found = under(arrays, f"supernet/{case}/")
    masks = {kind: found[f"switches_{kind}"].astype(bool) for kind in ("normal", "reduce")}
    network = SearchNetwork(channels, layers, classes, space=Undecided(int(found["steps"])), candidates=masks)
    reductions = [index for index, cell in enumerate(network.cells) if cell.reduction]

    def renamed(name):
        match = re.match(r"cells\.(\d+)\.cell_ops\.(\d+)\.m_ops\.(\d+)\.(.*)", name)
        if not match:
            return name
        cell, edge, kept = (int(number) for number in match.groups()[:3])
        mask = masks["reduce" if cell in reductions else "normal"][edge]
        return f"cells.{cell}._ops.{edge}._ops.{np.flatnonzero(mask)[kept]}.{match[4]}"

    def over_edges(network):
        alphas = {kind: tf.convert_to_tensor(alpha) for kind, alpha in network.alphas.items()}
        return {
            kind: tf.scatter_nd(np.argwhere(masks[kind]), tf.nn.softmax(alpha[masks[kind]]), alpha.shape)
            for kind, alpha in alphas.items()
        }

    check_network(network, found, renamed, masks, over_edges if case == "one" else None)


@pytest.mark.parametrize("stride", [1, 2])
def test_fair_darts_mixed_operation(losses_file, stride):
    found = under(np.load(losses_file), f"fair/mixedop/stride{stride}/")
    names = [name for name in PRIMITIVES if name != "none"]
    alphas = tf.constant(found["alphas"], tf.float64)
    mixed = MixedOp(names, found["x"].shape[1], 1, stride)
    weights = tf.sigmoid(alphas)
    dweights = check_mixed(mixed, found, weights)
    assert relative_error(dweights * weights * (1 - weights), found["dalphas"]) < CLOSE


@pytest.mark.parametrize("stride", [1, 2])
def test_darts_minus_mixed_operation(losses_file, stride):
    arrays = np.load(losses_file)
    found = under(arrays, f"darts_minus/skip/stride{stride}/")
    names = [str(name) for name in arrays["darts_minus/op_names"]]
    mixed = MixedOp([*names, "skip_connect"], found["x"].shape[1], 1, stride)
    dweights = check_mixed(mixed, found, found["weights"], extra=[float(arrays["darts_minus/rate"])])
    assert relative_error(dweights, found["dweights"]) < CLOSE


NASNET = {  # names of operations in the original's space
    "dua_sepc_3x3": "sep_conv_3x3",
    "dua_sepc_5x5": "sep_conv_5x5",
    "dil_sepc_3x3": "dil_conv_3x3",
    "dil_sepc_5x5": "dil_conv_5x5",
}


class WithoutPoolNorm(SearchCell):
    pool_norm = False


@pytest.mark.parametrize("case", ["normal", "reduce", "after_reduce"])
def test_gdas_cell(gdas_file, case):
    """Without the weights that are not drawn as numbers, which they have in the other space only.

    Biases of convolutions are left out: a batch norm right after them takes them out, too.
    """
    arrays = np.load(gdas_file)
    found = under(arrays, f"cellnasnet/{case}/")
    nodes = int(arrays["cellnasnet/steps"])
    names = [NASNET.get(str(name), str(name)) for name in arrays["op_names_nasnet"]]
    cell = WithoutPoolNorm(
        names, found["dy"].shape[1] // nodes, nodes, reduction=case == "reduce", reduction_prev=case == "after_reduce"
    )
    s0, s1, dy = (nhwc(found[name]) for name in ("s0", "s1", "dy"))
    cell.build([s0.shape, s1.shape])
    tensors = {}
    for place, operation in enumerate(cell.preprocess):
        tensors |= operation_tensors(operation, f"preprocess{place}")
    for source, mixed in cell.mixed_ops.items():
        for place, row in enumerate(rows_from(source, cell.edges)):
            node = cell.edges[row][0] - 2
            for index, operation in mixed.grouped.items():
                tensors |= operation_tensors(operation, f"{node}<-{source}.{index}", place)

    def tensor_of(name):
        """The tensor of ours for a name such as edges.0<-1._ops.2.op_a.op.1.weight."""
        match = re.match(r"edges\.(\d+<-\d+)\._ops\.(\d+)\.(.*)\.weight", name)
        layer, rest = (f"{match[1]}.{match[2]}", match[3]) if match else name.removesuffix(".weight").split(".", 1)
        if rest.startswith("convs"):
            return tensors[f"{layer}_1_conv_{int(rest[-1]) + 1}", "weight"]
        return tensors[f"{layer}_{int(rest.rsplit('.', 1)[-1]) + (4 if rest.startswith('op_b') else 0)}", "weight"]

    for name, array in found.items():
        if name.startswith("w/") and name.endswith("weight"):
            tensor = tensor_of(name.removeprefix("w/"))
            whole = np.array(tensor.variable)
            tensor.write(whole, array)
            tensor.variable.assign(whole)

    relaxation, alphas = relaxations.get("gumbel_hard_v1"), tf.constant(found["alphas"], tf.float64)
    noise = tf.constant(-np.log(found["exponential"].astype(np.float64)))
    variables = cell.trainable_variables

    @tf.function
    def compute(s0, s1, alphas):
        with tf.GradientTape() as tape:
            tape.watch([s0, s1, alphas])
            weights = relaxation(alphas, noise, arrays["cell201/tau"])
            y = cell([s0, s1], rows_by_source(weights, cell.edges), training=True, drawn=True)
            loss = tf.reduce_sum(y * dy)
        sources = [s0, s1, alphas, [variable.value for variable in variables]]
        return weights, y, tape.gradient(loss, sources, unconnected_gradients="zero")

    weights, y, (ds0, ds1, dalphas, dvariables) = compute(s0, s1, alphas)
    assert np.array_equal(np.argmax(weights, 1), found["index"])
    assert relative_error(y, found["y"].transpose(0, 2, 3, 1)) < CLOSE
    assert relative_error(ds0, found["ds0"].transpose(0, 2, 3, 1)) < CLOSE
    assert relative_error(ds1, found["ds1"].transpose(0, 2, 3, 1)) < CLOSE
    assert relative_error(dalphas, found["dalphas"]) < CLOSE
    values = {id(variable): gradient for variable, gradient in zip(variables, dvariables, strict=True)}
    for name in found:
        if name.startswith("grad/"):
            tensor = tensor_of(name.removeprefix("grad/"))
            assert relative_error(tensor.of(values[id(tensor.variable)]), found[name]) < CLOSE, name
