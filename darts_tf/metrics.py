"""What a trained classifier is worth: accuracies, parameters, multiply-adds."""

import math
import re
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from darts_tf import cells, genotypes, networks, operations


class Predictions(NamedTuple):
    """What a classifier makes of a test set.

    Attributes:
        labels, predicted: (images,), int: the right classes, and those it takes for the likeliest.
        probability: (images,), what it gives to the latter.
        ranks: (images,), how many classes score at least as high as the right one.
        worst: (few,), indices of the images that it gives the right class the least probability, the worst first.
        worst_images: (few, height, width, depth), uint8, these images.
    """

    labels: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray
    ranks: np.ndarray
    worst: np.ndarray
    worst_images: np.ndarray


def predict(model, batches, few=24):
    """Runs a classifier on a test set.

    Args:
        model: a Keras model from images to scores (batch, classes), logits or probabilities.
        batches: iterable of images (batch, height, width, depth), as the model expects them, and labels (batch,), int.
        few: number of images to keep.

    Returns:
        `Predictions`.
    """
    parts, worst, done = [], [], 0
    for x, y in batches:
        scores, y = np.asarray(model.predict_on_batch(x), np.float64), np.asarray(y)
        rows = np.arange(len(y))
        # A tie is no success, and neither is NaN.
        ranks = (~(scores < scores[rows, y][:, None])).sum(axis=1)
        is_probability = (scores >= 0).all() and np.allclose(scores.sum(1), 1, atol=1e-3)
        probabilities = scores if is_probability else genotypes.softmax(scores)
        predicted = scores.argmax(1)
        parts.append((y, predicted, probabilities[rows, predicted], ranks))
        right = np.nan_to_num(probabilities[rows, y], nan=-1)
        for row in np.argsort(right, kind="stable")[:few]:
            if predicted[row] != y[row]:
                worst.append((right[row], done + row, np.asarray(x[row])))
        worst = sorted(worst, key=lambda item: item[:2])[:few]
        done += len(y)
    images = np.array([image for _, _, image in worst])
    scale = 255 if images.size and images.max() <= 1 else 1
    pixels = np.clip(np.rint(np.nan_to_num(images) * scale), 0, 255).astype(np.uint8)
    return Predictions(*map(np.concatenate, zip(*parts, strict=True)), np.array([i for _, i, _ in worst], int), pixels)


def evaluate(model, predictions, class_names):
    """What a classifier is worth.

    Args:
        model: a Keras model.
        predictions: its `Predictions`.
        class_names: what the labels stand for.

    Returns:
        dict: "top1" and "top5" accuracy, "per_class", the top-1 accuracy of each class that has test images,
        "test_images", "parameters" that are trained, and `multiply_adds` for one image. Accuracies lie between 0 and 1.
    """
    ranks, labels = predictions.ranks, predictions.labels
    return {
        "top1": float((ranks <= 1).mean()),
        "top5": float((ranks <= 5).mean()),
        "test_images": len(labels),
        "parameters": parameters(model),
        "multiply_adds": multiply_adds(model),
        "per_class": {
            name: float((ranks[labels == label] <= 1).mean())
            for label, name in enumerate(class_names)
            if (labels == label).any()
        },
    }


def parameters(model):
    """Number of trainable parameters."""
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def multiply_adds(model):
    """Multiplications of one image in convolutions and products of matrices, as the paper counts them.

    They are counted in the graph that TensorFlow makes of the model, layers that are used twice twice. Where an image
    is padded, a kernel counts as a whole.

    Args:
        model: a Keras model with inputs.

    Returns:
        int; None if it cannot be told: images may have any size, it depends on a loop or a branch, or the model cannot
        be traced.
    """
    try:
        inputs = [tf.TensorSpec([x.shape[0] or 1, *x.shape[1:]], x.dtype) for x in model.inputs]
        call = tf.function(lambda *x: model(x if len(x) > 1 else x[0], training=False), autograph=False)
        return _products(call.get_concrete_function(*inputs).graph) // inputs[0].shape[0]
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
    """Each number in the result is made of a kernel, of that many axes."""
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
    return _products(op.graph._get_function(op.get_attr("f").name).graph)


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


class Sizes:
    """How large the networks of genotypes are, without building each: every edge adds what its operation has.

    Args: of `networks.cifar_network`.

    Call arguments:
        genotype: `genotypes.Genotype`, every node of which leads to the result of its cell.

    Returns:
        dict of `parameters` and `multiply_adds` of its network, as of the functions above; the latter may be None.
    """

    def __init__(self, channels, layers, num_classes, image_shape):
        self._arguments = channels, layers, num_classes, tuple(image_shape)
        self._known = {}

    def __call__(self, genotype):
        normal, reduce = genotype.normal, genotype.reduce
        nodes = len(normal) // 2, len(reduce) // 2, tuple(genotype.normal_concat), tuple(genotype.reduce_concat)
        total = self._once(self._without_edges, *nodes)
        for reduction, pairs in ((False, normal), (True, reduce)):
            for name, source in pairs:
                total = total + self._once(self._edge, name, reduction, source < 2)
        return {"parameters": int(total[0]), "multiply_adds": None if np.isnan(total[1]) else int(total[1])}

    def _once(self, function, *arguments):
        if arguments not in self._known:
            self._known[arguments] = function(*arguments)
        return self._known[arguments]

    def _without_edges(self, normal_nodes, reduce_nodes, normal_concat, reduce_concat):
        normal, reduce = ([("none", 0), ("none", 1)] * nodes for nodes in (normal_nodes, reduce_nodes))
        genotype = genotypes.Genotype(normal, list(normal_concat), reduce, list(reduce_concat))
        return _counts(networks.cifar_network(genotype, *self._arguments))

    def _edge(self, name, in_reduction, from_input):
        """What an operation has in all cells of a kind together, on an edge from an input of the cell or a node."""
        channels, layers, _, (*size, _) = self._arguments
        inputs, outputs = [], []
        for index, (cell_channels, reduction) in enumerate(networks.stack(channels, layers)):
            inside = [-(-side // 2) for side in size] if reduction else size
            if reduction == in_reduction:
                images = keras.Input((*(size if from_input else inside), cell_channels))
                stride = cells.edge_stride(0 if from_input else 2, reduction)
                made = operations.make_operation(name, cell_channels, stride, affine=True)
                inputs.append(images)
                outputs.append(operations.layers(made, images, cell_channels, f"edge{index}"))
            size = inside
        return _counts(keras.Model(inputs, outputs)) if inputs else np.zeros(2)


def _counts(model):
    """Both numbers, NaN if one is not known."""
    return np.array([parameters(model), multiply_adds(model)], float)


def table(metrics):
    """The metrics as lines of text."""
    weakest = sorted(metrics["per_class"].items(), key=lambda item: item[1])[:3]
    rows = {
        "test accuracy": f"{metrics['top1']:.2%} of {metrics['test_images']:,} images (top 5: {metrics['top5']:.2%})",
        "weakest classes": ", ".join(f"{name} {accuracy:.2%}" for name, accuracy in weakest),
        "parameters": f"{metrics['parameters']:,}",
        "multiply-adds": "unknown",
    }
    if metrics["multiply_adds"] is not None:
        rows["multiply-adds"] = f"{metrics['multiply_adds'] / 1e6:,.1f} million per image"
    return "\n".join(f"{name:<17}{value}" for name, value in rows.items())
