"""What each exported form of a model is worth: size, agreement with Keras, latency."""

import functools

import numpy as np
import tensorflow as tf

from darts_tf.cli import messages
from darts_tf.data.text import END
from darts_tf.devices import runner
from export import classifier, language, tabular

BATCHES = (1, 32)
ROUNDS = dict(zip(BATCHES, (10, 5), strict=True))  # in which forms take turns


class Images:
    """Images on which forms of a classifier are compared.

    Args:
        model: `classifier.Classifier`.
        images: (n, height, width, depth) float32, 0 to 255.
        labels: (n,) integers, what they show; None if that is not known.
    """

    def __init__(self, model, images, labels=None):
        self.model, self.images, self.labels = model, images, labels
        self._expected = model.probabilities(images)

    @property
    def keras(self):
        """The Keras model as a function, as `saved_model` and `tflite` are."""
        return self.model.probabilities

    def saved_model(self, path):
        """A SavedModel as a function from images to probabilities."""
        return saved_model(path)

    def tflite(self, content):
        """A TFLite model, as bytes, as such a function."""
        return TFLite(content)

    def measure(self, run):
        """How far a form, such a function, agrees with Keras, and how often it is right if that is known, a dict."""
        found = probabilities(run, self.images)
        right = {} if self.labels is None else {"accuracy": float((found.argmax(1) == self.labels).mean())}
        difference, same = agreement(found, self._expected)
        return {**right, "max_difference": difference, "agreement": same}

    def inputs(self):
        """What such a function takes, a list of arrays."""
        return [self.images]

    def example(self, version):
        """What a SavedModel makes of an image: its class, the class it is taken for and the probability of that."""
        if self.labels is None:
            return None
        return self.model.labels[self.labels[0]], *classifier.ask(version, self.images[0])


class Rows:
    """Rows of a table on which forms of a model are compared.

    Args:
        model: `tabular.TableModel`.
        columns: {name: array (n,)}, as the model takes them.
        labels: (n,) integers, or numbers, what is right; None if that is not known.
    """

    def __init__(self, model, columns, labels=None):
        self.model, self.labels = model, labels
        self._names = list(columns)
        encoded = model.encode(columns) if model.width else np.zeros((len(next(iter(columns.values()))), 0), np.float32)
        self._inputs = [encoded, *columns.values()]
        self._expected = model.scores(columns)

    def _columns(self, arrays):
        return dict(zip(self._names, arrays, strict=True))

    @property
    def keras(self):
        """The Keras model as a function, as `saved_model` and `tflite` are."""
        return lambda encoded, *columns: self.model.scores(self._columns(columns))

    def saved_model(self, path):
        """A SavedModel as a function from vectors and columns, the latter of which it takes, to what it says."""
        signature = _signature(path)
        called = self.model.arguments

        def run(encoded, *columns):
            given = {called[n]: tf.constant(column) for n, column in self._columns(columns).items()}
            answer = signature(**given)
            return answer["prediction"].numpy()[:, None] if self.model.is_number else answer["probabilities"].numpy()

        return run

    def tflite(self, content):
        """A TFLite model, as bytes, as such a function, which needs the vectors alone."""
        return TFLite(content)

    def measure(self, run):
        """How far a form, such a function, agrees with Keras, a dict."""
        found = run(*self._inputs)
        measured = {"max_difference": float(np.abs(found - self._expected).max())}
        if not self.model.is_number:
            measured["agreement"] = float((found.argmax(1) == self._expected.argmax(1)).mean())
        return measured

    def inputs(self):
        """What such a function takes, a list of arrays."""
        return self._inputs

    def example(self, version):
        """What a SavedModel makes of a row: what is right, what it says, and the probability of a class, or None."""
        if self.labels is None:
            return None
        row = {name: column[:1] for name, column in self._columns(self._inputs[1:]).items()}
        right = float(self.labels[0]) if self.model.is_number else self.model.labels[self.labels[0]]
        return right, *tabular.ask(version, row)


class Text:
    """A text on which forms of a language model are compared, in rows beside each other.

    Args:
        model: `language.LanguageModel`.
        tokens: (n,) int32, the numbers of at least 2 tokens.
        drawn: whether they are random, not a text.
    """

    def __init__(self, model, tokens, drawn=False):
        self.model, self.drawn = model, drawn
        rows = min(BATCHES[-1], len(tokens) // 2)
        columns = len(tokens) // rows
        self.tokens = np.reshape(tokens[: rows * columns], (rows, columns)).astype(np.int32)

    @property
    def keras(self):
        """The Keras model as a function, as `saved_model` and `tflite` are."""
        return self.model.step

    def saved_model(self, path):
        """A SavedModel as a function from tokens and state to log-probabilities and the next state."""
        signature = _signature(path)
        return lambda tokens, state: _stepped(signature(tokens=tf.constant(tokens), state=tf.constant(state)))

    def tflite(self, content):
        """A TFLite model, as bytes, as such a function."""
        interpreter = _interpreter(content)
        signature = interpreter.get_signature_runner()
        return lambda tokens, state: _stepped(signature(tokens=tokens, state=state))

    def measure(self, run):
        """How far a form, such a function, agrees with Keras, a dict.

        The difference and the agreement are those of steps from the same states, since a small difference may grow from
        step to step, whatever the form; the perplexity is that of the form by itself.
        """
        before = state = self._zeros()
        difference = same = cost = 0.0
        for tokens, following in zip(self.tokens.T[:-1], self.tokens.T[1:], strict=True):
            found, _ = run(tokens, before)
            expected, before = self.model.step(tokens, before)
            difference = max(difference, float(np.abs(np.exp(found) - np.exp(expected)).max()))
            same += (found.argmax(1) == expected.argmax(1)).sum()
            found, state = run(tokens, state)
            cost -= np.take_along_axis(found, following[:, None], 1).sum(dtype=np.float64)
        count = self.tokens[:, 1:].size
        return {
            "perplexity": float(np.exp(cost / count)),
            "max_difference": difference,
            "agreement": float(same / count),
        }

    def inputs(self):
        """What such a function takes, a list of arrays."""
        return [self.tokens[:, 0], self._zeros()]

    def example(self, version):
        """How a SavedModel goes on after a piece of the text: that, the likeliest token and its probability."""
        if self.drawn:
            return None
        first = self.tokens.ravel()[: 8 if self.model.tokens == "words" else 40]
        text = self.model.join(number for number in first if number != self.model.numbers[END])
        return text, *language.ask(version, text)

    def _zeros(self):
        return np.zeros((len(self.tokens), self.model.units), np.float32)


def saved_model(path):
    """A SavedModel as a function from images to probabilities, both numpy."""
    signature = _signature(path)
    return lambda images: signature(images=tf.constant(images, tf.float32))["probabilities"].numpy()


def _signature(path):
    """The default signature of a SavedModel."""
    loaded = tf.saved_model.load(str(path))
    signature = loaded.signatures["serving_default"]

    def run(loaded=loaded, **inputs):  # the signature does not keep the model alive
        return signature(**inputs)

    return run


def _stepped(outputs):
    """What the signature of a language model has returned, as arrays in order."""
    return np.asarray(outputs["log_probabilities"]), np.asarray(outputs["state"])


class TFLite:
    """A TFLite model as a function from images, or vectors, to probabilities, both numpy.

    Args:
        content: bytes.
        threads: that compute it.
    """

    def __init__(self, content, threads=1):
        self._interpreter = _interpreter(content, threads)
        (self._given,) = self._interpreter.get_input_details()
        (self._result,) = self._interpreter.get_output_details()

    def __call__(self, images, *others):
        self.prepared(images)()
        y = self._interpreter.get_tensor(self._result["index"])
        scale, zero = self._result["quantization"]
        return (y.astype(np.float32) - zero) * scale if scale else y

    def prepared(self, images, *others):
        """A function without arguments that computes these images; it is of use until other ones are given."""
        from darts_tf.devices import runtime

        if self._interpreter.get_input_details()[0]["shape"][0] != len(images):
            with runtime.quiet():
                self._interpreter.resize_tensor_input(self._given["index"], images.shape)
                self._interpreter.allocate_tensors()
        self._interpreter.set_tensor(self._given["index"], quantized(images, self._given))
        return self._interpreter.invoke


def _interpreter(content, threads=1):
    from ai_edge_litert.interpreter import Interpreter

    from darts_tf.devices import runtime

    with runtime.quiet():
        interpreter = Interpreter(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()
    return interpreter


def quantized(images, details):
    """Images in the type of a TFLite input."""
    scale, zero = details["quantization"]
    if not scale:
        return images.astype(np.float32)
    limits = np.iinfo(details["dtype"])
    return np.clip(np.rint(images / scale + zero), limits.min, limits.max).astype(details["dtype"])


def probabilities(run, images):
    """What a function from images to probabilities makes of any number of images."""
    return np.concatenate([run(images[i : i + BATCHES[-1]]) for i in range(0, len(images), BATCHES[-1])])


def agreement(found, expected):
    """The largest difference from expected probabilities, and the part of the images with the same first class."""
    return float(np.abs(found - expected).max()), float((found.argmax(1) == expected.argmax(1)).mean())


def latencies(forms, inputs, batch):
    """Median seconds of forms of a model for a batch of inputs.

    They take turns, so that what else happens on the machine is the same for all. Of a TFLite model, except of text, it
    is what the interpreter takes, without Python's conversion of numbers, as in tables of `darts_tf.latency`.

    Args:
        forms: {name: function}.
        inputs: list of arrays, what such a function takes, of any number of rows.
        batch: how many rows they are to have, one of `BATCHES`.

    Returns:
        {name: seconds}.
    """
    inputs = [np.resize(array, (batch, *array.shape[1:])) for array in inputs]

    def prepared(run):
        return run.prepared(*inputs) if isinstance(run, TFLite) else lambda: run(*inputs)

    told = functools.partial(messages.each, what=f"Measuring batches of {batch}")
    return runner.measure({name: prepared(run) for name, run in forms.items()}, ROUNDS[batch], told)


def rows(forms, sizes, sample):
    """The lines of the table, a list of dicts.

    Args:
        forms: {name: function}.
        sizes: {name: bytes}.
        sample: `Images`, `Rows` or `Text`.
    """
    seconds = {f"latency_{batch}": latencies(forms, sample.inputs(), batch) for batch in BATCHES}
    return [
        {"format": name, "bytes": sizes[name], **sample.measure(run), **{key: of[name] for key, of in seconds.items()}}
        for name, run in forms.items()
    ]


def table(rows):
    """The lines as text."""
    columns = {
        "format": ("format", str),
        "bytes": ("size", lambda value: f"{value / 1e6:.2f} MB"),
        "perplexity": ("perplexity", lambda value: f"{value:.4g}"),
        "accuracy": ("accuracy", lambda value: f"{value:.1%}"),
        "max_difference": ("max. difference", lambda value: f"{value:.1e}"),
        "agreement": ("same token" if "perplexity" in rows[0] else "same class", lambda value: f"{value:.1%}"),
        **{f"latency_{batch}": (f"ms, batch {batch}", lambda value: f"{1e3 * value:.2f}") for batch in BATCHES},
    }
    cells = [[columns[name][0] for name in rows[0]]]
    return _aligned([*cells, *([columns[name][1](value) for name, value in entry.items()] for entry in rows)])


def budget_table(rows):
    """The lines of `Export.budget` as text."""

    def shown(value):
        return "not measured" if value is None else f"{value:,.4g}" if value < 1e4 else f"{value:,.0f}"

    cells = [["budget", "at most", "expected", "exported"]]
    return _aligned(
        [*cells, *([row["cost"], *(shown(row[name]) for name in ("most", "expected", "exported"))] for row in rows)]
    )


def _aligned(cells):
    """A table of texts, its first column to the left."""
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in cells]
    return "\n".join("  ".join(line) for line in lines)
