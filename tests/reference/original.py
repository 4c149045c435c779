"""The names and layouts of the original code's weights, for our variables."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from darts_tf.ops.stages import BatchNorm, Conv, Depthwise, FactorizedReduce
from darts_tf.spaces.cells.cell import rows_from
from darts_tf.spaces.cells.pytorch import layer_and_weight, to_keras_layout


@dataclasses.dataclass
class Tensor:
    """One tensor of the original: which part of which variable of ours it is."""

    variable: object
    kind: str  # "conv", "depthwise", "dense" or "vector"
    edge: int = 0
    edges: int = 1

    def of(self, value):
        """Cuts the tensor out of a value of the whole variable, in the original's layout."""
        value = np.asarray(value)[self._part()]
        return value.transpose({"conv": (3, 2, 0, 1), "depthwise": (2, 3, 0, 1), "dense": (1, 0)}.get(self.kind, (0,)))

    def write(self, whole, value):
        """Writes the tensor into a value of the whole variable."""
        whole[self._part()] = to_keras_layout(value, depthwise=self.kind == "depthwise")

    def _part(self):
        axis = {"conv": 3, "depthwise": 2, "dense": 1, "vector": 0}[self.kind]
        width = self.variable.shape[axis] // self.edges
        return (slice(None),) * axis + (slice(self.edge * width, (self.edge + 1) * width),)


def operation_tensors(operation, name, edge=0):
    """{(layer, weight): Tensor} of one edge of an operation called `name`, as `pytorch.layer_and_weight` gives them."""
    found = {}
    for place, (stage, owned) in enumerate(zip(operation.stages, operation.variables_by_stage, strict=True)):
        layer = f"{name}_{place}"
        if isinstance(stage, FactorizedReduce):
            for conv, variable in zip(("conv_1", "conv_2"), owned, strict=True):
                found[f"{layer}_{conv}", "weight"] = Tensor(variable, "conv", edge, operation.groups)
        elif isinstance(stage, (Conv, Depthwise)):
            kind = "conv" if isinstance(stage, Conv) else "depthwise"
            found[layer, "weight"] = Tensor(owned[0], kind, edge, operation.groups)
            if len(owned) > 1:
                found[layer, "bias"] = Tensor(owned[1], "vector", edge, operation.groups)
        elif isinstance(stage, BatchNorm) and stage.affine:
            found[layer, "weight"] = Tensor(owned[0], "vector", edge, operation.groups)
            found[layer, "bias"] = Tensor(owned[1], "vector", edge, operation.groups)
    return found


def by_stage(layer, prefix, edge=0):
    """{name: Tensor} of one edge of an operation, or of a dense layer, whose names are PREFIX + PLACE.WEIGHT there."""
    if isinstance(layer, keras.layers.Dense):
        return {f"{prefix}weight": Tensor(layer.kernel, "dense"), f"{prefix}bias": Tensor(layer.bias, "vector")}
    tensors = operation_tensors(layer, "", edge)
    return {f"{prefix}{place.removeprefix('_')}.{weight}": tensor for (place, weight), tensor in tensors.items()}


def to_images(array, dtype="float64"):
    """An array (batch, channels, height, width) as a tensor of images."""
    return tf.constant(array.transpose(0, 2, 3, 1), dtype)


def supernet_tensors(network, names):
    """{name: Tensor} of the weights of a `SearchNetwork`, for the original's names."""
    return by_original_name(layers_of(network), names)


def layers_of(network):
    """{(layer, weight): Tensor} of the weights of a `SearchNetwork`, as `pytorch.layer_and_weight` gives them."""
    found = operation_tensors(network.stem, "stem")
    for c, cell in enumerate(network.cells):
        for p, operation in enumerate(cell.preprocess):
            found |= operation_tensors(operation, f"cell{c}_preprocess{p}")
        for source, mixed_op in cell.mixed_ops.items():
            for place, edge in enumerate(rows_from(source, cell.edges)):
                for index, operation in mixed_op.grouped.items():
                    if mixed_op.candidates[place, index]:
                        own = mixed_op.candidates[:place, index].sum()
                        found |= operation_tensors(operation, f"cell{c}_edge{edge}_candidate{index}", own)
    found["classifier", "weight"] = Tensor(network.classifier.kernel, "dense")
    found["classifier", "bias"] = Tensor(network.classifier.bias, "vector")
    return found


def by_original_name(tensors, names):
    """Gives tensors the original's names; each has one."""
    named = {name: tensors[layer_and_weight(name)] for name in names}
    assert len(named) == len(tensors)
    return named


def assign(tensors, arrays, variable_of=lambda variable: variable):
    """Sets the variables behind `tensors` to the original's arrays; `variable_of` may name others of the same shape."""
    wholes = {}
    for name, tensor in tensors.items():
        _, whole = wholes.setdefault(id(tensor.variable), (tensor.variable, np.zeros(tensor.variable.shape)))
        tensor.write(whole, arrays[name])
    for variable, whole in wholes.values():
        variable_of(variable).assign(whole)


def relative_error(ours, reference):
    """max |ours - reference| / max |reference|."""
    ours, reference = np.asarray(ours), np.asarray(reference)
    assert ours.shape == reference.shape, (ours.shape, reference.shape)
    return np.abs(ours - reference).max() / max(np.abs(reference).max(), np.finfo(np.float64).tiny)
