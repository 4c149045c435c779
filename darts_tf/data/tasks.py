"""What is asked of the data: the loss, what is measured, and the one number by which results are compared.

This file needs no TensorFlow before a loss or a metric is made.
"""

import dataclasses
import math

import numpy as np

from darts_tf.cli.registry import Registry


@dataclasses.dataclass(frozen=True)
class Headline:
    """The metric by which results are compared.

    Attributes:
        name: what Keras logs it as, "accuracy"; on validation data that is "val_accuracy".
        direction: "max" or "min", which is better.
        form: "percent", or "number".
        log: whether a logarithmic axis shows it best.
    """

    name: str
    direction: str = "max"
    form: str = "number"
    log: bool = False

    def text(self, value):
        """A value in words."""
        return f"{value:.2%}" if self.form == "percent" else f"{value:.4g}"

    def error(self, value):
        """How far a value is from the best one, of a part of 1; else itself: the smaller the better."""
        return 1 - value if self.direction == "max" else value

    def best_first(self, value):
        """A key to sort values by, the best first; what is no number comes last."""
        number = math.nan if value is None else value
        if not math.isfinite(number):
            return math.inf
        return -number if self.direction == "max" else number


@dataclasses.dataclass(frozen=True)
class Task:
    """What a model is to do; a subclass says what the loss and the metrics are.

    Attributes:
        input_shape: of one input, without the batch.
        outputs: how many numbers the model gives for one input: classes.
        normalization: mean and standard deviation of the inputs per channel, for models that take them as they are in
            files; None for inputs that are normalised before.
        name: what config.json calls the task.
        headline: `Headline`.
        keeps_best: whether what counts is the model of the epoch with the best validation, not of the last.
        item: what multiply-adds are counted for.
    """

    input_shape: tuple
    outputs: int
    normalization: tuple | None = None

    name = None
    headline = None
    keeps_best = False
    item = None

    def loss(self, label_smoothing=0.0):
        """The loss, for `compile`, of labels and logits."""
        raise NotImplementedError

    def metrics(self):
        """New Keras metrics, for `compile`; the headline's is one of them."""
        raise NotImplementedError

    def score(self, labels, outputs):
        """The headline metric of each of a batch, a tensor (batch,), whose mean it is."""
        raise NotImplementedError

    def plain(self):
        """The loss and metrics with which a trained model is saved, as of `compile`: those that Keras knows."""
        import keras

        return keras.losses.SparseCategoricalCrossentropy(from_logits=True), ["accuracy"]

    def example(self, size=2):
        """A batch of so many inputs and their labels, (x, y), as a training's are, to try a model with."""
        raise NotImplementedError

    def measure(self, model, data):
        """What a trained model is worth on test data.

        Args:
            model: a Keras model.
            data: the dataset.

        Returns:
            Results, a dict that JSON can hold, for metrics.json; and arrays for predictions.npz, a dict.
        """
        raise NotImplementedError

    @classmethod
    def table(cls, results):
        """Results of `measure` as lines of text."""
        raise NotImplementedError

    @classmethod
    def figures(cls, results):
        """Those results that stand at the top of a report, (what it is, in words) pairs of texts."""
        raise NotImplementedError

    @classmethod
    def facts(cls, description):
        """What a report says of the data, {what it is: text}; `description` as of a dataset's `description()`."""
        raise NotImplementedError

    @classmethod
    def check(cls, description, results=None, arrays=None):
        """Raises an exception if a description is of no data of this task, or results or arrays are of no `measure`."""
        raise NotImplementedError


def _expect(condition, what):
    if not condition:
        raise ValueError(f"expected {what}")


def _expect_numbers(results, *names):
    _expect(all(type(results[name]) in (int, float) for name in names), "numbers")


def _is_list(value, kind):
    return isinstance(value, list) and all(type(item) is kind for item in value)


_tasks = Registry("task", Task)
register_task, get = _tasks.register, _tasks.kind


def right(labels, logits):
    """1 for each of a batch that is right, else 0, int32 (batch,)."""
    import tensorflow as tf

    return tf.cast(tf.equal(tf.argmax(logits, -1), tf.cast(tf.reshape(labels, [-1]), tf.int64)), tf.int32)


def is_mixture(labels, logits):
    """Whether labels are how much of each class something is, like logits, and not one class each."""
    return len(labels.shape) == 2 and labels.shape[-1] == logits.shape[-1] > 1


class Classification(Task):
    """Which of the classes something is of; labels are integers (batch,).

    Its loss and its metrics also take labels (batch, classes), how much of each class something is, see
    `darts_tf.data.augmentation.Augmentation.mixed`; right is then the class of which it is most.
    """

    headline = Headline("accuracy", "max", "percent")

    def loss(self, label_smoothing=0.0):
        import keras

        class CrossEntropy(keras.losses.SparseCategoricalCrossentropy):
            def call(self, y_true, y_pred):
                if not is_mixture(y_true, y_pred):
                    if not label_smoothing:
                        return super().call(y_true, y_pred)
                    y_true = keras.ops.one_hot(keras.ops.reshape(y_true, [-1]), y_pred.shape[-1])
                smoothed = {"from_logits": True, "label_smoothing": label_smoothing}
                return keras.losses.categorical_crossentropy(y_true, y_pred, **smoothed)

        return CrossEntropy(from_logits=True)

    def metrics(self):
        import keras

        class Accuracy(keras.metrics.SparseCategoricalAccuracy):
            def update_state(self, y_true, y_pred, sample_weight=None):
                y_true = keras.ops.argmax(y_true, -1) if is_mixture(y_true, y_pred) else y_true
                return super().update_state(y_true, y_pred, sample_weight)

        return [Accuracy(name="accuracy")]

    def score(self, labels, outputs):
        return right(labels, outputs)

    def example(self, size=2):
        import tensorflow as tf

        return tf.random.stateless_uniform([size, *self.input_shape], [0, 0]), tf.zeros([size], tf.int32)


@register_task("image_classification")
class ImageClassification(Classification):
    """Which of the classes an image is of."""

    item = "image"

    def measure(self, model, data):
        from darts_tf.data import classification

        predictions = classification.predict(model, data.test_batches())
        return classification.evaluate(model, predictions, data.class_names), predictions._asdict()

    @classmethod
    def table(cls, results):
        from darts_tf.data import classification

        return classification.table(results)

    @classmethod
    def figures(cls, results):
        images = f"of {results['test_images']:,} test images"
        return [(images, f"{results['top1']:.2%}"), ("top 5", f"{results['top5']:.2%}")]

    @classmethod
    def facts(cls, description):
        height, width, depth = description["image_shape"]
        return {"images": f"{height}x{width}x{depth}", "classes": str(len(description["class_names"]))}

    @classmethod
    def check(cls, description, results=None, arrays=None):
        shape, names = description.get("image_shape"), description.get("class_names")
        _expect(_is_list(shape, int) and len(shape) == 3 and _is_list(names, str), "image_shape and class_names")
        if results is not None:
            _expect(isinstance(results["per_class"], dict), "results by class")
            _expect_numbers(results, "top1", "top5", "test_images")
        if arrays is not None:
            labels, predicted, worst = arrays["labels"], arrays["predicted"], arrays["worst"]
            images = arrays["worst_images"]
            _expect(labels.shape == predicted.shape == arrays["probability"].shape, "arrays of one length")
            _expect(arrays["probability"].dtype.kind == "f" and images.dtype == np.uint8, "probabilities and images")
            _expect(images.ndim == 4 and worst.shape == images.shape[:1] and images.shape[-1] > 0, "an image for each")
            for places, limit in ((labels, len(names)), (predicted, len(names)), (worst, len(labels))):
                _expect(places.ndim == 1 and places.dtype.kind in "iu", "whole numbers")
                _expect(((places >= 0) & (places < limit)).all(), f"numbers below {limit}")


@register_task("language_model")
class LanguageModel(Task):
    """Which token of a vocabulary comes next; labels are the next tokens, one for each."""

    headline = Headline("perplexity", "min", "number", log=True)
    keeps_best = True
    item = "token"

    def loss(self, label_smoothing=0.0):
        import keras

        plain = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        if not label_smoothing:
            return plain

        def smoothed(y, logits):
            everywhere = keras.ops.logsumexp(logits, axis=-1) - keras.ops.mean(logits, axis=-1)
            return (1 - label_smoothing) * plain(y, logits) + label_smoothing * keras.ops.mean(everywhere)

        return smoothed

    def metrics(self):
        from darts_tf.data import language

        return [language.Perplexity()]

    def example(self, size=2):
        import tensorflow as tf

        text = tf.random.stateless_uniform([size, 4], [0, 0], maxval=self.outputs, dtype=tf.int32)
        return {"tokens": text[:, :-1], "begins": tf.ones([size], tf.bool)}, text[:, 1:]

    def measure(self, model, data):
        from darts_tf.data import language

        return language.evaluate(model, data)

    @classmethod
    def table(cls, results):
        from darts_tf.data import language

        return language.table(results)

    @classmethod
    def figures(cls, results):
        token = results["tokens"].removesuffix("s")
        of = f"perplexity of {results['test_tokens']:,} test {results['tokens']}"
        return [(of, f"{results['perplexity']:,.2f}"), (f"bits per {token}", f"{results['bits_per_token']:.3f}")]

    @classmethod
    def facts(cls, description):
        return {"tokens": description["tokens"], "vocabulary": f"{len(description['vocabulary']):,}"}

    @classmethod
    def check(cls, description, results=None, arrays=None):
        known = description.get("tokens") in ("words", "characters") and _is_list(description.get("vocabulary"), str)
        _expect(known, "tokens and vocabulary")
        if results is not None:
            _expect(isinstance(results["by_rank"], dict), "results by rank")
            _expect_numbers(results, "perplexity", "bits_per_token", "validation_perplexity", "test_tokens")
            _expect(isinstance(results["tokens"], str), "what tokens are")
        if arrays is not None:
            shapes = {arrays[name].shape for name in ("rank", "tokens", "cross_entropy")}
            _expect(len(shapes) == 1 and len(shapes.pop()) == 1, "arrays of one length")


class _OfTable(Task):
    """What is asked of the rows of a table, vectors."""

    item = "row"

    def measure(self, model, data):
        from darts_tf.data import tabular

        return tabular.measure(self, model, data)

    @classmethod
    def table(cls, results):
        from darts_tf.data import tabular

        return tabular.table(results)

    @classmethod
    def check(cls, description, results=None, arrays=None):
        columns = description.get("columns")
        _expect(isinstance(columns, dict) and columns and isinstance(description.get("label"), str), "columns, a label")
        if results is not None:
            _expect_numbers(results, "test_rows")
        if arrays is not None:
            labels, predicted = arrays["labels"], arrays["predicted"]
            _expect(labels.shape == predicted.shape and labels.ndim == 1, "arrays of one length")


@register_task("table_classification")
class TableClassification(_OfTable, Classification):
    """Which of the classes a row is of."""

    @classmethod
    def figures(cls, results):
        figures = [(f"of {results['test_rows']:,} test rows", f"{results['accuracy']:.2%}")]
        return figures + ([("area under the ROC curve", f"{results['auc']:.3f}")] if results["auc"] is not None else [])

    @classmethod
    def facts(cls, description):
        return {"columns": f"{len(description['columns']):,}", "classes": str(len(description["class_names"]))}

    @classmethod
    def check(cls, description, results=None, arrays=None):
        super().check(description, results, arrays)
        names = description.get("class_names")
        _expect(_is_list(names, str), "class_names")
        if results is not None:
            _expect(
                isinstance(results["per_class"], dict) and isinstance(results["confusion"], list), "results by class"
            )
            _expect_numbers(results, "accuracy", *(["auc"] if results["auc"] is not None else []))
        if arrays is not None:
            for places in (arrays["labels"], arrays["predicted"]):
                _expect(places.dtype.kind in "iu", "whole numbers")
                _expect(((places >= 0) & (places < len(names))).all(), f"numbers below {len(names)}")


@register_task("table_regression")
@dataclasses.dataclass(frozen=True)
class TableRegression(_OfTable):
    """A number for a row; labels are float32 (batch,), standardised.

    Attributes:
        label_scale: mean and deviation of the labels of the training rows, as they are in the table.
    """

    label_scale: tuple = (0.0, 1.0)

    headline = Headline("mean_absolute_error", "min")

    def loss(self, label_smoothing=0.0):
        import keras

        if label_smoothing:
            raise ValueError(f"label_smooth={label_smoothing}: expected none with a label that is a number.")
        return keras.losses.MeanSquaredError()

    def metrics(self):
        from darts_tf.data import tabular

        return [tabular.MeanAbsoluteError(self.label_scale[1])]

    def score(self, labels, outputs):
        import tensorflow as tf

        return self.label_scale[1] * tf.abs(tf.reshape(labels, [-1]) - tf.reshape(outputs, [-1]))

    def plain(self):
        import keras

        return keras.losses.MeanSquaredError(), ["mean_absolute_error"]

    def example(self, size=2):
        import tensorflow as tf

        return tf.random.stateless_uniform([size, *self.input_shape], [0, 0]), tf.zeros([size])

    @classmethod
    def figures(cls, results):
        error = f"mean absolute error of {results['test_rows']:,} test rows"
        return [(error, f"{results['mean_absolute_error']:,.4g}"), ("R² of the test rows", f"{results['r2']:.3f}")]

    @classmethod
    def facts(cls, description):
        return {"columns": f"{len(description['columns']):,}", "label": description["label"]}

    @classmethod
    def check(cls, description, results=None, arrays=None):
        super().check(description, results, arrays)
        _expect(_is_list(description.get("label_scale"), float), "label_scale")
        if results is not None:
            _expect_numbers(results, "mean_absolute_error", "r2")
        if arrays is not None:
            numbers = arrays["labels"], arrays["predicted"]
            _expect(all(n.dtype.kind == "f" and np.isfinite(n).all() for n in numbers), "finite numbers")
