"""What is asked of the data: the loss, what is measured, and the one number by which results are compared.

This file needs no TensorFlow before a loss or a metric is made.
"""

import dataclasses
import math

from darts_tf.cli.registry import Registry


@dataclasses.dataclass(frozen=True)
class Headline:
    """The metric by which results are compared.

    Attributes:
        name: what Keras logs it as, "accuracy"; on validation data that is "val_accuracy".
        direction: "max" or "min", which is better.
        form: "percent", or "number".
    """

    name: str
    direction: str = "max"
    form: str = "number"

    def text(self, value):
        """A value in words."""
        return f"{value:.2%}" if self.form == "percent" else f"{value:.4g}"

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
    """

    input_shape: tuple
    outputs: int
    normalization: tuple | None = None

    name = None
    headline = None

    def loss(self, label_smoothing=0.0):
        """The loss, for `compile`, of labels and logits."""
        raise NotImplementedError

    def metrics(self):
        """New Keras metrics, for `compile`; the headline's is one of them."""
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


_tasks = Registry("task", Task)
register_task, get = _tasks.register, _tasks.kind


@register_task("image_classification")
class ImageClassification(Task):
    """Which of the classes an image is of; labels are integers."""

    headline = Headline("accuracy", "max", "percent")

    def loss(self, label_smoothing=0.0):
        import keras

        if not label_smoothing:
            return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

        def smoothed(y, logits):
            y = keras.ops.one_hot(keras.ops.reshape(y, [-1]), logits.shape[-1])
            return keras.losses.categorical_crossentropy(y, logits, from_logits=True, label_smoothing=label_smoothing)

        return smoothed

    def metrics(self):
        import keras

        return [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]

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


@register_task("language_model")
class LanguageModel(Task):
    """Which token of a vocabulary comes next; labels are the next tokens, one for each."""

    headline = Headline("perplexity", "min", "number")

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
