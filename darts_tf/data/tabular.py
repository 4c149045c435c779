"""What a model of a table is worth on test rows."""

import keras
import numpy as np
import tensorflow as tf

from darts_tf.costs.counts import multiply_adds, parameters
from darts_tf.data import columns as columns_of

MATRIX = 100  # classes


@keras.saving.register_keras_serializable("darts_tf")
class MeanAbsoluteError(keras.metrics.Mean):
    """The mean of |label - prediction|, in the unit of the table.

    Args:
        scale: what an error is multiplied by: the deviation of labels that are standardised.
        name, dtype: as of any metric.

    Example:
        error = MeanAbsoluteError(scale=12.5)
        error.update_state(y, predicted)  # (batch,), (batch, 1)
        error.result()
    """

    def __init__(self, scale=1.0, name="mean_absolute_error", dtype=None):
        super().__init__(name, dtype)
        self.scale = scale

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Adds labels (batch,) or (batch, 1), and predictions (batch, 1)."""
        y_true, y_pred = (keras.ops.reshape(keras.ops.cast(y, self.dtype), [-1]) for y in (y_true, y_pred))
        super().update_state(self.scale * keras.ops.abs(y_true - y_pred), sample_weight)

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}


def measure(task, model, data):
    """What a model is worth.

    Args:
        task: `darts_tf.data.tasks.Task` of the data.
        model: a Keras model from columns to logits, or to labels as they are in the table, (batch, 1).
        data: `darts_tf.data.tables.Table`.

    Returns:
        Results, a dict: "test_rows", "parameters" that are trained, `multiply_adds` for a row, and

        of classes "accuracy"; "auc", the area under the ROC curve of the second of two classes, of more the mean of
        each against the others, None if the test rows lack a class; "per_class", the accuracy of each class that has
        test rows; and "confusion", lists of how many rows of each class are taken for which, empty for
        more than `MATRIX` classes;
        of numbers "mean_absolute_error", "root_mean_squared_error" and "r2", the part of the variance of the test rows
        that is explained.

        And arrays, a dict: "labels" and "predicted", (n,), and of classes "probability", (n,), of the latter.
    """
    outputs = columns_of.in_batches(model, data.columns, data.test).astype(np.float64)
    network = columns_of.network_of(model)
    sizes = {"parameters": parameters(network), "multiply_adds": multiply_adds(network)}
    of = _classes if data.class_names else _numbers
    results, arrays = of(outputs, np.asarray(data.y_test), data.class_names)
    return {**results, "test_rows": len(data.y_test), **sizes}, arrays


def _classes(logits, labels, class_names):
    probabilities = tf.nn.softmax(logits).numpy()
    predicted = np.nan_to_num(probabilities, nan=-1).argmax(1)
    count = len(class_names)
    confusion = np.bincount(labels * count + predicted, minlength=count * count).reshape(count, count)
    areas = [_area(probabilities[:, place], labels == place) for place in range(1 if count == 2 else 0, count)]
    rows = confusion.sum(1)
    results = {
        "accuracy": float((predicted == labels).mean()),
        "auc": None if None in areas else float(np.mean(areas)),
        "per_class": {
            name: float(confusion[place, place] / rows[place]) for place, name in enumerate(class_names) if rows[place]
        },
        "confusion": confusion.tolist() if count <= MATRIX else [],
    }
    probability = probabilities[np.arange(len(labels)), predicted]
    return results, {"labels": labels, "predicted": predicted, "probability": probability}


def _area(scores, right):
    """The area under the ROC curve: the part of the pairs of one and another that are in order, ties count half."""
    positive, negative = int(right.sum()), int((~right).sum())
    if not positive or not negative or not np.isfinite(scores).all():
        return None
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return float((ranks[right].sum() - positive * (positive + 1) / 2) / (positive * negative))


def _numbers(predicted, labels, _):
    predicted, labels = predicted[:, 0], labels.astype(np.float64)
    error = predicted - labels
    variance = labels.var()
    results = {
        "mean_absolute_error": float(np.abs(error).mean()),
        "root_mean_squared_error": float(np.sqrt(np.square(error).mean())),
        "r2": float(1 - np.square(error).mean() / variance) if variance else 0.0,
    }
    return results, {"labels": labels, "predicted": predicted}


def table(results):
    """The results as lines of text."""
    rows = f"of {results['test_rows']:,} rows"
    if "accuracy" in results:
        weakest = sorted(results["per_class"].items(), key=lambda item: item[1])[:3]
        area = "" if results["auc"] is None else f" (area under the ROC curve: {results['auc']:.3f})"
        lines = {
            "test accuracy": f"{results['accuracy']:.2%} {rows}{area}",
            "weakest classes": ", ".join(f"{name} {accuracy:.2%}" for name, accuracy in weakest),
        }
    else:
        lines = {
            "test error": f"{results['mean_absolute_error']:,.4g}, mean absolute, {rows}",
            "root mean square": f"{results['root_mean_squared_error']:,.4g}",
            "R²": f"{results['r2']:.3f}",
        }
    lines["parameters"] = f"{results['parameters']:,}"
    lines["multiply-adds"] = "unknown" if results["multiply_adds"] is None else f"{results['multiply_adds']:,} per row"
    return "\n".join(f"{name:<17}{value}" for name, value in lines.items())
