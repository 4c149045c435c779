"""How large a Keras model is: parameters, multiply-adds, bytes of its files and of its activations."""

import collections
import math
import re

import keras

from darts_tf.costs import tables
from darts_tf.devices import runtime
from darts_tf.private.keras import producer
from darts_tf.private.tensorflow import called_graph

FLOAT = 4  # bytes
SCALE = 12  # bytes of the scale and the zero point of a channel, which int8 has for kernels and for offsets
# Of TFLite files, beside numbers: bytes of each layer. What a whole file has beside that is in `tables.FILE`.
LAYER = {"model_bytes": 370, "int8_model_bytes": 560}
# Of int8 files, bytes of layers without weights: an average pooling becomes a depthwise convolution there. A ReLU is a
# part of the convolution before it, unless others want that one's result, too: then it is a pooling of single pixels.
BESIDE = {"average": 560, "relu": 300, "join": 150}
# Bytes of so many numbers in kernels and in offsets of so many layers with weights.
BYTES = {
    "model_bytes": lambda kernels, offsets, layers: FLOAT * (kernels + offsets) + LAYER["model_bytes"] * layers,
    "int8_model_bytes": lambda kernels, offsets, layers: (
        kernels + (FLOAT + 2 * SCALE) * offsets + LAYER["int8_model_bytes"] * layers
    ),
}


def of(model):
    """{"parameters": ..., "multiply_adds": ...} of a Keras model, see the functions below."""
    return {"parameters": parameters(model), "multiply_adds": multiply_adds(model)}


def added(model):
    """As `of`, also the bytes of its TFLite files, `model_bytes` and `int8_model_bytes`."""
    return {**of(model), **{name: model_bytes(model, name) for name in BYTES}}


def model_bytes(model, kind="model_bytes"):
    """About how many bytes the TFLite file of a functional Keras model of images has.

    Batch norms become part of the convolutions before them.

    Args:
        model: the model.
        kind: "model_bytes" for float32, or "int8_model_bytes".
    """
    offsets = layers = 0
    for *_, inputs, outputs in (weight.shape for weight in model.trainable_variables if len(weight.shape) > 1):
        offsets += outputs if outputs > 1 else inputs  # which of depthwise convolutions is 1
        layers += 1
    kernels = sum(math.prod(weight.shape) for weight in model.trainable_variables if len(weight.shape) > 1)
    beside = _beside(model) if kind == "int8_model_bytes" else 0
    return tables.FILE[kind] + BYTES[kind](kernels, offsets, layers) + beside


def _beside(model):
    """What layers without weights have in the int8 file of a functional model, see `BESIDE`."""
    seen = collections.Counter(id(x) for layer in model.operations for x in keras.tree.flatten(layer.input))
    total = 0
    for layer in model.operations:
        if isinstance(layer, keras.layers.AveragePooling2D):
            total += BESIDE["average"] if layer.pool_size != (1, 1) else 0
        elif isinstance(layer, (keras.layers.Add, keras.layers.Concatenate)):
            total += BESIDE["join"]
        elif isinstance(layer, keras.layers.ReLU):
            joins = isinstance(producer(layer.input), keras.layers.BatchNormalization)
            total += 0 if joins and seen[id(layer.input)] == 1 else BESIDE["relu"]
    return total


def activations(model):
    """The most bytes of float32 images that are in memory at the same time, for one image.

    Layers are computed in the model's order; what no later one needs is dropped, and layers that see each number alone
    write their result where their input was.

    Args:
        model: a functional Keras model.

    Returns:
        int; None if a size is not known.
    """
    in_place = (
        *(keras.layers.Activation, keras.layers.ReLU, keras.layers.BatchNormalization, keras.layers.Dropout),
        *(keras.layers.GaussianNoise, keras.layers.Normalization, keras.layers.Rescaling),
        *(keras.layers.Reshape, keras.layers.Flatten),
    )
    computed = [(op, keras.tree.flatten(op.input), keras.tree.flatten(op.output)) for op in model.operations]
    if any(None in x.shape[1:] for _, _, results in computed for x in results):
        return None
    last, ends = {}, {id(x) for x in keras.tree.flatten(model.outputs)}
    for place, (_, images, _) in enumerate(computed):
        last |= {id(x): place for x in images}
    live, peak = {}, 0
    for place, (op, images, results) in enumerate(computed):
        done = {id(x) for x in images if last[id(x)] == place and id(x) not in ends}
        sizes = {id(x): FLOAT * math.prod(x.shape[1:]) for x in results}
        if isinstance(op, in_place) and done:
            live = {key: size for key, size in live.items() if key not in done}
        live |= sizes
        peak = max(peak, sum(live.values()))
        live = {key: size for key, size in live.items() if key not in done or key in sizes}
    return peak


def parameters(model):
    """Number of trainable parameters."""
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def multiply_adds(model):
    """Multiplications of one image in convolutions and products of matrices, as the paper counts them.

    They are counted in the graph that TensorFlow makes of the model: a layer that is used twice counts twice. Products
    with padding count, too.

    Args:
        model: a Keras model with inputs.

    Returns:
        int; None if it cannot be told: images may have any size, it depends on a loop or a branch, or the model cannot
        be traced.
    """
    try:
        return _products(runtime.traced(model).graph) // (model.inputs[0].shape[0] or 1)
    except Exception:  # of every kind: the model may be anybody's
        return None


def _products(graph):
    """Multiplications in all operations of a graph; ValueError if they are not known."""
    return sum(_PRODUCTS.get(op.type, _other)(op) for op in graph.get_operations())


def _size(tensor):
    if not tensor.shape.is_fully_defined():
        raise ValueError(f"{tensor.name} has no fixed size.")
    return tensor.shape.num_elements()


def _convolution(op, kernel_axes):
    """Each number in the result takes a multiplication per weight of a kernel, its first `kernel_axes` axes."""
    result = op.outputs[0]
    for after in ("Squeeze", "BatchToSpaceND"):  # a dilated convolution drops what it has padded
        kept = [consumer for consumer in result.consumers() if consumer.type == after]
        result = kept[0].outputs[0] if kept else result
    return _size(result) * math.prod(op.inputs[1].shape[:kernel_axes])


def _transposed_convolution(op):
    _, kernel, images = op.inputs
    return _size(images) * math.prod(kernel.shape[:-1])


def _matrix_product(op):
    transposed = op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x")
    return _size(op.outputs[0]) * op.inputs[0].shape[-2 if transposed else -1]


def _einsum(op):
    if len(op.inputs) < 2:
        return 0
    sizes = {}
    for labels, tensor in zip(op.get_attr("equation").decode().split("->")[0].split(","), op.inputs, strict=True):
        _size(tensor)
        before, dots, after = labels.partition("...")
        hidden = len(tensor.shape) - len(before + after)
        names = [*before, *(range(-hidden, 0) if dots else ()), *after]
        for name, size in zip(names, tensor.shape, strict=True):
            sizes[name] = max(size, sizes.get(name, 0))
    return math.prod(sizes.values())


def _other(op):
    names = {attribute.type for attribute in op.op_def.attr}
    if "func" in names or "list(func)" in names or re.search("Conv|MatMul|Einsum|RNN|LSTM|GRU|PyFunc|Xla", op.type):
        raise ValueError(f"nothing is known about {op.type}.")
    return 0


def _call(op):
    return _products(called_graph(op))


_PRODUCTS = {
    "Conv2D": lambda op: _convolution(op, 3),
    "Conv3D": lambda op: _convolution(op, 4),
    "DepthwiseConv2dNative": lambda op: _convolution(op, 2),
    "Conv2DBackpropInput": _transposed_convolution,
    "Conv3DBackpropInputV2": _transposed_convolution,
    "MatMul": _matrix_product,
    "BatchMatMulV2": _matrix_product,
    "Einsum": _einsum,
    "PartitionedCall": _call,
    "StatefulPartitionedCall": _call,
}
