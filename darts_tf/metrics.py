"""What a trained classifier is worth: accuracies, parameters, multiply-adds."""

import math
from typing import NamedTuple

import keras
import numpy as np

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
    """Multiplications of one image by weights of convolutions and dense layers, as the paper counts them.

    Args:
        model: a functional or sequential Keras model.

    Returns:
        int; None if the size of an image is open somewhere in the model.
    """
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            inside = multiply_adds(layer)
            if inside is None:
                return None
            total += inside
        elif isinstance(layer, keras.layers.Dense):
            total += math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:-1])
        elif isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)):
            if None in layer.output.shape[1:3]:
                return None
            places = math.prod(layer.output.shape[1:3])
            total += places * sum(math.prod(weight.shape) for weight in layer.weights if len(weight.shape) == 4)
    return total


class Sizes:
    """How large the networks of genotypes are, without building each: every edge adds what its operation has.

    Args: of `networks.cifar_network`.

    Call arguments:
        genotype: `genotypes.Genotype`, every node of which leads to the result of its cell.

    Returns:
        dict of `parameters` and `multiply_adds` of its network, as of the functions above.
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
        return {"parameters": int(total[0]), "multiply_adds": int(total[1])}

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
        total = np.zeros(2, np.int64)
        for cell_channels, reduction in networks.stack(channels, layers):
            inside = [-(-side // 2) for side in size] if reduction else size
            if reduction == in_reduction:
                images = keras.Input((*(size if from_input else inside), cell_channels))
                stride = cells.edge_stride(0 if from_input else 2, reduction)
                made = operations.make_operation(name, cell_channels, stride, affine=True)
                total += _counts(keras.Model(images, operations.layers(made, images, cell_channels, "edge")))
            size = inside
        return total


def _counts(model):
    return np.array([parameters(model), multiply_adds(model)], np.int64)


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
