"""What a trained classifier is worth: accuracies, parameters, multiply-adds."""

import math

import keras
import numpy as np


def evaluate(model, batches, class_names):
    """Measures a classifier on a test set.

    Args:
        model: a Keras model from images to scores (batch, classes), logits or probabilities.
        batches: iterable of images (batch, height, width, depth), as the model expects them, and labels (batch,), int.
        class_names: what the labels stand for.

    Returns:
        dict: "top1" and "top5" accuracy, "per_class", the top-1 accuracy of each class that has test images,
        "test_images", "parameters" that are trained, and `multiply_adds` for one image. Accuracies lie between 0 and 1.
    """
    ranks, labels = [], []
    for x, y in batches:
        scores, y = model.predict_on_batch(x), np.asarray(y)
        # How many classes score at least as high as the right one: a tie is no success, and neither is NaN.
        ranks.append((~(scores < scores[np.arange(len(y)), y][:, None])).sum(axis=1))
        labels.append(y)
    ranks, labels = np.concatenate(ranks), np.concatenate(labels)
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
