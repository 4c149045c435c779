"""The names and layouts of the original code's weights, for our variables."""

import dataclasses

import numpy as np

from darts_tf.cells import num_edges, targets
from darts_tf.stages import BatchNorm, Conv, Depthwise, FactorizedReduce


@dataclasses.dataclass
class Tensor:
    """One tensor of the original: which part of which variable of ours it is."""

    variable: object
    kind: str  # "conv", "dense" or "vector"
    edge: int = 0
    edges: int = 1

    def of(self, value):
        """Cuts the tensor out of a value of the whole variable, in the original's layout."""
        value = np.asarray(value)[self._part()]
        return value.transpose({"conv": (3, 2, 0, 1), "depthwise": (2, 3, 0, 1), "dense": (1, 0)}.get(self.kind, (0,)))

    def write(self, whole, value):
        """Writes the tensor into a value of the whole variable."""
        axes = {"conv": (2, 3, 1, 0), "depthwise": (2, 3, 0, 1), "dense": (1, 0)}.get(self.kind, (0,))
        whole[self._part()] = value.transpose(axes)

    def _part(self):
        axis = {"conv": 3, "depthwise": 2, "dense": 1, "vector": 0}[self.kind]
        width = self.variable.shape[axis] // self.edges
        return (slice(None),) * axis + (slice(self.edge * width, (self.edge + 1) * width),)


def stage_tensors(stages, variables, edge=0, edges=1, prefix=""):
    """{name: Tensor} of one operation on one edge; a stage's place in the list is its place in the original."""
    found = {}
    for place, (stage, owned) in enumerate(zip(stages, variables, strict=True)):
        if isinstance(stage, FactorizedReduce):
            for name, variable in zip(("conv_1", "conv_2"), owned, strict=True):
                found[f"{name}.weight"] = Tensor(variable, "conv", edge, edges)
        elif isinstance(stage, (Conv, Depthwise)):
            kind = "conv" if isinstance(stage, Conv) else "depthwise"
            found[f"{prefix}{place}.weight"] = Tensor(owned[0], kind, edge, edges)
        elif isinstance(stage, BatchNorm) and stage.affine:
            name = "bn" if any(isinstance(other, FactorizedReduce) for other in stages) else f"{prefix}{place}"
            found[f"{name}.weight"] = Tensor(owned[0], "vector", edge, edges)
            found[f"{name}.bias"] = Tensor(owned[1], "vector", edge, edges)
    return found


def operation_tensors(operation, edge=0, prefix="op."):
    return stage_tensors(operation.stages, operation.variables_by_stage, edge, operation.groups, prefix)


def supernet_tensors(network):
    """{name: Tensor} of all weights of a `SearchNetwork`."""
    found = {f"stem.{name}": tensor for name, tensor in operation_tensors(network.stem, prefix="").items()}
    for c, cell in enumerate(network.cells):
        for p, operation in enumerate(cell.preprocess):
            for name, tensor in operation_tensors(operation).items():
                found[f"cells.{c}.preprocess{p}.{name}"] = tensor
        for source, mixed_op in enumerate(cell.mixed_ops):
            for place, node in enumerate(targets(source, cell.nodes)):
                edge = num_edges(node) + source
                for index, operation in mixed_op.grouped.items():
                    for name, tensor in operation_tensors(operation, place).items():
                        found[f"cells.{c}._ops.{edge}._ops.{index}.{name}"] = tensor
    found["classifier.weight"] = Tensor(network.classifier.kernel, "dense")
    found["classifier.bias"] = Tensor(network.classifier.bias, "vector")
    return found


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
