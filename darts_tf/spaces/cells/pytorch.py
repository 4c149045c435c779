"""Weights of the original PyTorch code, and where they are in networks of this package."""

import pathlib
import re

import numpy as np

from darts_tf.cli import files

# The original's mean and standard deviation of CIFAR-10's pixels, from 0 to 1.
CIFAR = (0.49139968, 0.48215827, 0.44653124), (0.24703233, 0.24348505, 0.26158768)

# From the name of a module there to that of a layer here.
_RENAMED = (
    (r"^cells\.(\d+)\.", r"cell\1_"),
    (r"^(cell\d+_)_ops\.(\d+)", r"\1edge\2"),
    (r"\._ops\.(\d+)", r".candidate\1"),  # of the supernet
    (r"^auxiliary_head\.(features\.)?", "auxiliary."),
    (r"\.(conv_[12])$", r".1.\1"),  # a factorized reduce: ReLU, two convolutions, batch norm
    (r"\.bn$", ".2"),
    (r"\.op\.", "."),
    (r"\.", "_"),
)


class CheckpointError(ValueError):
    """The checkpoint does not fit the network; the message says which tensor does not."""


def layer_and_weight(tensor):
    """Which layer, and which weight of it, a tensor of the original becomes.

    Args:
        tensor: name in the original's state dict, such as "cells.0.preprocess0.op.1.weight".

    Returns:
        The layer's name, such as "cell0_preprocess0_1", and "weight", "bias", "running_mean" or "running_var".
    """
    layer, _, weight = tensor.rpartition(".")
    for pattern, name in _RENAMED:
        layer = re.sub(pattern, name, layer)
    return layer, weight


def to_keras_layout(array, depthwise=False):
    """Transposes (outputs, inputs, height, width) to (height, width, inputs, outputs), (outputs, inputs) likewise.

    With `depthwise`, (channels, 1, height, width) becomes (height, width, channels, 1).
    """
    return array.transpose((2, 3, 0, 1) if depthwise else {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[array.ndim])


def set_weights(network, genotype, state):
    """Sets the weights of a derived network to those of the original.

    Args:
        network: of `cifar_network` or `imagenet_network`; without an auxiliary head that of the checkpoint is left out.
        genotype: its `Genotype`.
        state: {name in the original: array}.

    Raises:
        CheckpointError: a tensor is missing, has another shape or belongs to no layer; the network is unchanged.
    """
    layers = {layer.name: layer for layer in network.layers}
    values, left = {}, {id(variable): variable for layer in network.layers for variable in _variables(layer).values()}
    for name, array in state.items():
        layer_name, weight = layer_and_weight(name)
        if weight == "num_batches_tracked" or _is_unused(layer_name, layers, genotype):
            continue
        variable = _variables(layers[layer_name]).get(weight) if layer_name in layers else None
        if variable is None:
            raise CheckpointError(f"it has a tensor {name} {array.shape}, the network has no such weight.")
        depthwise = type(layers[layer_name]).__name__ == "DepthwiseConv2D"
        shape = to_original_shape(tuple(variable.shape), depthwise)
        if array.shape != shape:
            raise CheckpointError(f"its tensor {name} is {tuple(array.shape)}, the network expects {shape}.")
        if left.pop(id(variable), None) is None:
            raise CheckpointError(f"it has two tensors for {variable.path} of the network: {name} is one.")
        values[id(variable)] = variable, to_keras_layout(np.asarray(array), depthwise)
    for variable in left.values():
        raise CheckpointError(f"it has no tensor for {variable.path} {tuple(variable.shape)} of the network.")
    for variable, value in values.values():
        variable.assign(value)


def to_original_shape(shape, depthwise=False):
    """The inverse of `to_keras_layout`, of a shape."""
    if len(shape) == 4:
        height, width, inputs, outputs = shape
        return (inputs, 1, height, width) if depthwise else (outputs, inputs, height, width)
    return shape[::-1]


def _variables(layer):
    """{name in the original: variable} of a layer."""
    names = {"kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"}
    names |= {"moving_mean": "running_mean", "moving_variance": "running_var"}
    return {names[variable.name]: variable for variable in layer.variables if variable.name in names}


def _is_unused(layer, layers, genotype):
    """Whether a layer has no place in the network: it is of an auxiliary head, or of a node that leads nowhere."""
    if layer.startswith("auxiliary_"):
        return "auxiliary_classifier" not in layers
    edge = re.match(r"(cell\d+)_edge(\d+)_", layer)
    if not edge or int(edge[2]) >= max(len(genotype.normal), len(genotype.reduce)):
        return False
    return f"{edge[1]}_node{2 + int(edge[2]) // 2}" not in layers


def network_for(state, genotype):
    """An untrained network of the size of a checkpoint, that takes pixels from 0 to 255.

    Raises:
        CheckpointError: the checkpoint is not of a derived convolutional network.
    """
    from darts_tf.data import streams
    from darts_tf.spaces.cells import derived

    cells = {int(match[1]) for match in (re.match(r"cells\.([0-9]{1,6})\.", name) for name in state) if match}
    large = "stem0.0.weight" in state
    first, last = ("stem0.0.weight", "stem0.3.weight") if large else ("stem.0.weight", "stem.0.weight")
    needed = {first: 4, last: 4, "classifier.bias": 1}
    missing = [name for name in needed if name not in state]
    missing += [f"cells.{number}" for number in range(1 + max(cells, default=0)) if number not in cells]
    if missing:
        raise CheckpointError(f"it has no tensor {missing[0]}: expected a derived network.")
    for name, rank in needed.items():
        if state[name].ndim != rank:
            raise CheckpointError(f"its tensor {name} is {state[name].shape}: expected {rank} dimensions.")
    stem, classes, depth = state[last].shape[0], state["classifier.bias"].shape[0], state[first].shape[1]
    if depth > 3 or stem < (1 if large else 3):
        raise CheckpointError(f"its tensors {first} and {last} are for {depth} channels and {stem}: expected images.")
    statistics = (streams.MEAN, streams.STD) if large else 255 * np.array(CIFAR)
    size = 224 if large else 32
    return (derived.imagenet_network if large else derived.cifar_network)(
        genotype,
        channels=stem if large else stem // 3,
        layers=1 + max(cells),
        num_classes=classes,
        image_shape=(size, size, depth),
        normalization=[values[:depth] for values in statistics],
    )


def read(path):
    """Reads a checkpoint.

    Returns:
        {name: array}, without what torch wrapped around it.

    Raises:
        CheckpointError: the file cannot be read, or holds something else.
        ImportError: torch is needed and not installed.
    """
    path = pathlib.Path(path)
    try:
        files.check_unpacked(path)
    except ValueError as error:
        raise CheckpointError(error) from None
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                state = dict(arrays)
        else:
            import torch

            state = torch.load(path, map_location="cpu", weights_only=True)
            state = state.get("state_dict", state)
            state = {name: tensor.detach().float().numpy() for name, tensor in state.items()}
        state = {name.removeprefix("module."): array for name, array in state.items()}
    except ImportError:
        raise
    except Exception as error:  # of every kind: pickle, zip, torch
        raise CheckpointError(f"not a readable state dict ({type(error).__name__}).") from error
    for name, array in state.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
            raise CheckpointError(
                f"its tensor {name} is {getattr(array, 'dtype', type(array).__name__)}: expected numbers."
            )
        if not array.size or not np.isfinite(array.astype(np.float32)).all():
            raise CheckpointError(f"its tensor {name} {array.shape} is empty or holds NaN or infinite numbers.")
    return state
