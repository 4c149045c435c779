"""Columns of a table: their types, and what Keras makes of them before a network sees them.

A column is a `number`, a `boolean`, a `date` or a `category`. A model takes numbers and booleans as float32, of which
NaN is a missing value, and dates and categories as strings, of which "" is one. A network takes all of them as one
vector, in which each column has some places:

- A number, boolean or date has one, (value - mean) / deviation of the training rows, or 0 if it is missing. If training
  rows lack it, it has one more: whether it is missing. A date counts as years since 2000, of 12 months of 31 days.
- A category has one for each category: whether it is that one. If training rows lack it, "" is one of them. What is
  none of them is 0 everywhere.
"""

import collections
import dataclasses

import keras
import numpy as np
import tensorflow as tf

from darts_tf.cli.files import ENCODED

TYPES = ("number", "boolean", "date", "category")
MOST_CATEGORIES = 256
EPOCH = 2000  # the year that dates count from
# Of YYYY-MM-DD HH:MM:SS: the first place of each part, how many digits it has, and how many make a year.
PARTS = ((0, 4, 1), (5, 2, 12), (8, 2, 12 * 31), (11, 2, 12 * 31 * 24), (14, 2, 12 * 31 * 1440))
PARTS += ((17, 2, 12 * 31 * 86400),)


@dataclasses.dataclass(frozen=True)
class Column:
    """A column as a model takes it.

    Attributes:
        name: a text of letters, digits and `_`.
        type: one of `TYPES`.
        missing: whether rows of the training part lack it.
        mean, std: of the training part, of all types but categories.
        categories: texts, of a category: those that the training part has at least twice, the most frequent
            `MOST_CATEGORIES` of them, sorted.

    Example:
        column = Column.of("age", "number", np.array([41, np.nan], np.float32))
    """

    name: str
    type: str
    missing: bool = False
    mean: float = 0.0
    std: float = 1.0
    categories: tuple = ()

    @classmethod
    def of(cls, name, type, values):
        """The column of values of the training part, float32 or strings as a model takes them.

        Raises:
            ValueError: it says nothing; the message, which follows its name, says why.
        """
        if type == "category":
            counts = collections.Counter(values.tolist())
            missing, present = counts.pop("", 0), len(counts)
            if not counts:
                raise ValueError("is empty")
            if len(counts) + bool(missing) == 1:
                raise ValueError("has one value only")
            common = sorted(counts, key=lambda text: (-counts[text], text))[:MOST_CATEGORIES]
            common = [text for text in common if counts[text] > 1]
            if not common:
                different = "almost every" if present < len(values) - missing else "every"
                raise ValueError(f"has another value in {different} row, as names and numbers of customers have")
            return cls(name, type, missing > 0, categories=tuple(sorted(common + [""] * (missing > 0))))
        numbers = _date_numbers(values) if type == "date" else values.astype(np.float64)
        known = numbers[np.isfinite(numbers)]
        if not len(known):
            raise ValueError("is empty")
        missing, constant = len(known) < len(numbers), known.min() == known.max()
        if constant and not missing:
            raise ValueError("has one value only")
        return cls(name, type, missing, float(known.mean()), 1.0 if constant else float(known.std()))

    @property
    def dtype(self):
        """Of what a model takes, "float32" or "string"."""
        return "float32" if self.type in ("number", "boolean") else "string"

    @property
    def width(self):
        """How many places of the vector it has."""
        return len(self.categories) if self.type == "category" else 1 + self.missing

    def places(self):
        """What its places in the vector are, a dict for each."""
        if self.type == "category":
            return [{"column": self.name, "type": "category", "is": category} for category in self.categories]
        value = {"column": self.name, "type": self.type, "mean": self.mean, "std": self.std}
        return [value] + [{"column": self.name, "type": self.type, "is": "missing"}] * self.missing

    def to_config(self):
        """A dict that JSON can hold, of all but the name."""
        own = ("type", "missing", "categories") if self.type == "category" else ("type", "missing", "mean", "std")
        return {name: list(v) if isinstance(v := getattr(self, name), tuple) else v for name in own}

    @classmethod
    def from_config(cls, name, config):
        """The inverse of `to_config`.

        Raises:
            ValueError, TypeError: it is of no column.
        """
        column = cls(name, **{**config, "categories": tuple(config.get("categories", ()))})
        texts = (name, *column.categories)
        numbers = column.mean, column.std
        well = column.type in TYPES and all(isinstance(text, str) for text in texts) and column.width
        if not well or not all(type(number) in (int, float) for number in numbers) or type(column.missing) is not bool:
            raise ValueError(f"{name} is no column.")
        return column

    def encoded(self, value, prefix):
        """Its places of the vector.

        Args:
            value: `keras.KerasTensor` (batch,), what a model takes.
            prefix: what the names of layers begin with.

        Returns:
            `keras.KerasTensor` (batch, width), float32.
        """
        layers, ops = keras.layers, keras.ops
        if self.type == "category":
            others = "[UNK]"  # what Keras calls them, which is no category
            while others in self.categories:
                others += "]"
            options = {"oov_token": others, "output_mode": "one_hot", "dtype": "float32", "name": f"{prefix}_category"}
            lookup = layers.StringLookup(vocabulary=list(self.categories), **options)
            return lookup(value)[:, 1:]  # the first one is what is none of them
        if self.type == "date":
            value, known = _date(value, prefix)
        else:
            value = layers.Reshape((1,), dtype="float32", name=f"{prefix}_number")(value)
            known = ops.isfinite(value)
        # Other than a Normalization this has no least deviation.
        centred = layers.Rescaling(1.0, -self.mean, dtype="float32", name=f"{prefix}_centred")(value)
        normalized = layers.Rescaling(1 / self.std, dtype="float32", name=f"{prefix}_normalized")(centred)
        normalized = ops.where(known, normalized, ops.zeros_like(normalized))
        if not self.missing:
            return normalized
        missing = ops.cast(ops.logical_not(known), "float32")
        return layers.Concatenate(dtype="float32", name=f"{prefix}_or_missing")([normalized, missing])


def _date(text, prefix):
    """A date as a number, and whether there is one, two `keras.KerasTensor` (batch, 1), of strings (batch,)."""
    layers, ops = keras.layers, keras.ops
    length = PARTS[-1][0] + PARTS[-1][1]
    letters = layers.TextVectorization(
        standardize=None,
        split="character",
        output_sequence_length=length,
        vocabulary=list("0123456789"),
        name=f"{prefix}_letters",
    )
    digits = ops.relu(ops.cast(letters(text), "float32") - 2.0)  # 0 and 1 stand for no letter and for other ones
    kernel = np.zeros((length, 2), np.float32)  # of the year, and of the part of it
    for first, count, of_year in PARTS:
        kernel[first : first + count, int(of_year > 1)] = 10.0 ** np.arange(count - 1, -1, -1) / of_year
    parts = layers.Dense(2, trainable=False, dtype="float32", name=f"{prefix}_years")
    year, rest = ops.split(parts(digits), 2, axis=1)
    parts.set_weights([kernel, np.array([0, -1 / 12 - 1 / (12 * 31)], np.float32)])
    return (year - float(EPOCH)) + rest, year >= 1


def _date_numbers(texts):
    """Dates as numbers, float64 (n,), NaN where there is none."""
    text = keras.Input((), dtype="string")
    number, known = keras.Model(text, _date(text, "date"))(tf.constant(texts.astype(object)))
    return np.where(known, number, np.nan)[:, 0].astype(np.float64)


def encoder(columns):
    """The Keras model from columns to the vector that a network takes.

    Args:
        columns: of `Column`.

    Returns:
        Functional `keras.Model` of standard layers and operations of Keras, from {name: (batch,)} to (batch, width)
        float32.
    """
    inputs = {column.name: keras.Input((), dtype=column.dtype, name=column.name) for column in columns}
    parts = []
    for place, column in enumerate(columns):
        name = f"_{column.name}" if column.name.isascii() else ""  # as names of operations have to be
        parts.append(column.encoded(inputs[column.name], f"column{place}{name}"))
    return keras.Model(inputs, keras.layers.Concatenate(dtype="float32", name=ENCODED)(parts), name="columns")


def tensors(columns, values):
    """Columns as a model takes them: {name: tensor (n,)}, of {name: array}."""
    return {column.name: tf.constant(values[column.name], column.dtype) for column in columns}


def in_batches(model, columns, values, size=4096):
    """What a model makes of rows, an array.

    Args:
        model: a Keras model that takes columns.
        columns: of `Column`.
        values: {name: array (n,)}.
        size: rows at a time.
    """
    count = len(values[columns[0].name])

    @tf.function(autograph=False, reduce_retracing=True)
    def run(rows):
        return model(rows, training=False)

    with tf.device("CPU"):
        rows = tensors(columns, values)
    parts = [run({name: tensor[i : i + size] for name, tensor in rows.items()}) for i in range(0, count, size)]
    return np.concatenate([part.numpy() for part in parts])


def network_of(model):
    """The network within a model that takes columns: what follows the vector, without what makes it the label.

    Raises:
        ValueError: the model has another form.
    """
    found = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    if len(found) != 1 or ENCODED not in {layer.name for layer in model.layers}:
        raise ValueError("expected a model of a table that darts_tf.train has saved.")
    return found[0]
