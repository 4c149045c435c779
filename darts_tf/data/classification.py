"""What a trained classifier is worth on test images."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from darts_tf.costs.counts import multiply_adds, parameters
from darts_tf.costs.tables import in_words


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
        probabilities = scores if is_probability else tf.nn.softmax(scores).numpy()
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


def table(metrics):
    """The metrics as lines of text."""
    weakest = sorted(metrics["per_class"].items(), key=lambda item: item[1])[:3]
    rows = {
        "test accuracy": f"{metrics['top1']:.2%} of {metrics['test_images']:,} images (top 5: {metrics['top5']:.2%})",
        "weakest classes": ", ".join(f"{name} {accuracy:.2%}" for name, accuracy in weakest),
        "parameters": f"{metrics['parameters']:,}",
        "multiply-adds": in_words(metrics["multiply_adds"], "image"),
    }
    return "\n".join(f"{name:<17}{value}" for name, value in rows.items())
