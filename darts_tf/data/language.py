"""What a language model is worth on a text."""

import math

import keras
import numpy as np
import tensorflow as tf

from darts_tf.costs.counts import multiply_adds, parameters
from darts_tf.costs.tables import in_words
from darts_tf.data.text import ROWS, UNKNOWN, laid


@keras.saving.register_keras_serializable("darts_tf")
class Perplexity(keras.metrics.Mean):
    """exp of the mean cross entropy per token, with the natural logarithm; infinite where that is too large.

    Every token counts the same, however many there are in a batch.

    Args:
        name: as of any metric.
        dtype: as of any metric.

    Example:
        perplexity = Perplexity()
        perplexity.update_state(y, logits)  # (rows, steps) integers, (rows, steps, vocabulary)
        perplexity.result()
    """

    def __init__(self, name="perplexity", dtype=None):
        super().__init__(name, dtype)

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Adds tokens: `y_true` (...), integers, and their logits (..., vocabulary); weights are (...)."""
        logits = keras.ops.cast(y_pred, self.dtype)
        losses = keras.ops.sparse_categorical_crossentropy(y_true, logits, from_logits=True)
        if sample_weight is not None:
            weights = keras.ops.broadcast_to(keras.ops.cast(sample_weight, self.dtype), keras.ops.shape(losses))
            sample_weight = keras.ops.reshape(weights, [-1])
        super().update_state(keras.ops.reshape(losses, [-1]), sample_weight)

    def result(self):
        return keras.ops.exp(super().result())


def cross_entropies(model, tokens, rows=ROWS):
    """The cross entropy of each token of a text but for the first of each row, in nats.

    The state is zero where a row begins and carried to its end: it is never cut into segments.

    Args:
        model: one step, a Keras model with inputs "tokens" (batch,) int and "state" (batch, units), and a dict of
            outputs "logits" (batch, vocabulary) and "state".
        tokens: (n,) int32.
        rows: into how many the text is laid, side by side; fewer where it is shorter. One row is the whole text without
            a break; 10, as of the original's validation, are several times as fast, and differ in 9 of its beginnings.

    Returns:
        The tokens and their cross entropies, two arrays (rows, n // rows - 1), int32 and float32.
    """
    text = laid(tokens, max(1, min(rows, len(tokens) // 2)))
    inputs = {tensor.name: tensor for tensor in model.inputs}
    state = inputs["state"]
    columns, steps = tf.constant(text.T), text.shape[1] - 1

    @tf.function(autograph=False)
    def run():
        def step(i, state, losses):
            outputs = model({"tokens": columns[i], "state": state}, training=False)
            logits = tf.cast(outputs["logits"], tf.float32)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(columns[i + 1], logits)
            return i + 1, outputs["state"], losses.write(i, loss)

        losses = tf.TensorArray(tf.float32, steps, element_shape=[len(text)])
        start = tf.constant(0), tf.zeros([len(text), state.shape[-1]], state.dtype), losses
        return tf.while_loop(lambda i, *_: i < steps, step, start)[-1].stack()

    return text[:, 1:], run().numpy().T


def evaluate(model, data):
    """What a language model is worth.

    Args:
        model: as in `cross_entropies`.
        data: `darts_tf.data.text.Text` of the model's vocabulary.

    Returns:
        Results, a dict: "perplexity" and "bits_per_token" of the text for testing, of which "test_tokens" are
        predicted; "validation_perplexity"; "tokens", words or characters; "unknown", the part of the tokens that are
        <unk>; "by_rank", {"1 to 10": perplexity, ...}, of the tokens of these ranks in the vocabulary, whose first are
        the most frequent, as far as the test has some; "parameters" that are trained, and `multiply_adds` for a token.
        And arrays, a dict: "rank", "tokens" and "cross_entropy", each (classes,), of the classes of "by_rank": the last
        rank of each, how many tokens of the test it has, and their mean cross entropy in nats.
    """
    tokens, losses = (values.ravel() for values in cross_entropies(model, data.test))
    valid = cross_entropies(model, data.valid)[1].mean(dtype=np.float64)
    mean = losses.mean(dtype=np.float64)
    last = 10 ** np.arange(1, 1 + len(str(len(data.vocabulary) - 1)))
    of = np.searchsorted(last, tokens + 1)
    counts = np.bincount(of, minlength=len(last))
    sums = np.bincount(of, losses.astype(np.float64), len(last))
    there = counts > 0
    arrays = {
        "rank": np.minimum(last, len(data.vocabulary))[there],
        "tokens": counts[there],
        "cross_entropy": (sums / np.maximum(counts, 1))[there],
    }
    first = np.where(last > 10, last // 10 + 1, 1)[there]
    names = [f"{a:,} to {b:,}" for a, b in zip(first, arrays["rank"], strict=True)]
    results = {
        "perplexity": _exp(mean),
        "bits_per_token": float(mean / math.log(2)),
        "validation_perplexity": _exp(valid),
        "test_tokens": len(losses),
        "tokens": data.tokens,
        "unknown": float((tokens == data.vocabulary.index(UNKNOWN)).mean()),
        "parameters": parameters(model),
        "multiply_adds": multiply_adds(model),
        "by_rank": dict(zip(names, map(_exp, arrays["cross_entropy"]), strict=True)),
    }
    return results, arrays


def _exp(value):
    with np.errstate(over="ignore"):
        return float(np.exp(value))


def table(results):
    """The results as lines of text."""
    tokens = results["tokens"]
    token = tokens.removesuffix("s")
    by_rank = [f"{name}: {perplexity:,.2f}" for name, perplexity in results["by_rank"].items()]
    count = f"{results['test_tokens']:,} {tokens} ({results['bits_per_token']:.3f} bits per {token}"
    rows = {
        "test perplexity": f"{results['perplexity']:,.2f} of {count}, {results['unknown']:.1%} are {UNKNOWN})",
        "by frequency": "; ".join(by_rank),
        "validation": f"{results['validation_perplexity']:,.2f}",
        "parameters": f"{results['parameters']:,}",
        "multiply-adds": in_words(results["multiply_adds"], token),
    }
    return "\n".join(f"{name:<17}{value}" for name, value in rows.items())
