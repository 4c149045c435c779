"""Tables: from rows to columns and labels, and from those to batches of vectors."""

import dataclasses
import difflib
import re

import numpy as np

from darts_tf.data import columns as columns_of
from darts_tf.data import datasets, folders
from darts_tf.data.columns import TYPES, Column
from darts_tf.data.folders import DataError
from darts_tf.data.names import column_name
from darts_tf.data.rows import listed, read, text_of
from darts_tf.data.tasks import TableClassification, TableRegression

MISSING = {"", "na", "n/a", "nan", "null", "none", "?", "-", "#n/a", "<na>"}  # of all but categories, in any case
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
INFINITE = re.compile(r"[+-]?inf(inity)?", re.I)
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
DATE = re.compile(r"\d{4}[-/](0[1-9]|1[0-2])[-/](0[1-9]|[12]\d|3[01])([ T][0-2]\d:[0-5]\d(:[0-5]\d(\.\d+)?)?Z?)?")
BOOLEANS = {"true": 1.0, "false": 0.0}
IS = {
    "number": NUMBER.fullmatch,
    "boolean": lambda text: text.lower() in BOOLEANS,
    "date": DATE.fullmatch,
    "category": lambda text: True,
}
LEFT_OUT = "none"  # in place of a type
CLASSES = 20  # a label of so many different whole numbers, at most, is one of classes
TEST = 0.2  # the part of the rows to test on


@dataclasses.dataclass
class Table(datasets.Samples):
    """Rows of a table, as vectors and their labels.

    x_train: (n, width) float32, what `columns.encoder` makes of the columns of the training rows.
    y_train: (n,), int32 indices into `class_names`, or float32, (label - mean) / deviation of the training rows.
    columns: tuple of `Column`.
    test: {name: array (m,)}, the columns of the test rows as models take them.
    y_test: (m,), int32 indices, or float32 labels as they are in the table.
    label: name of the column of the labels.
    class_names: list of texts; None for a label that is a number.
    label_scale: mean and deviation of such a label; None for classes.

    Example:
        data = tables.load("table.csv", label="price")
        batches, steps, valid = data.batches(batch_size=32)
        for x, y in batches().take(steps): ...
    """

    x_train: np.ndarray
    y_train: np.ndarray
    columns: tuple
    test: dict
    y_test: np.ndarray
    label: str
    class_names: list | None = None
    label_scale: tuple | None = None

    items = "rows"

    @property
    def train_samples(self):
        return self.x_train

    @property
    def task(self):
        """What is asked of these rows, a `darts_tf.data.tasks.Task`."""
        shape = self.x_train.shape[1:]
        if self.class_names is None:
            return TableRegression(shape, 1, label_scale=self.label_scale)
        return TableClassification(shape, len(self.class_names))

    def description(self):
        """What config.json keeps of the data, a dict."""
        label = {"class_names": self.class_names} if self.class_names else {"label_scale": list(self.label_scale)}
        return {"columns": {one.name: one.to_config() for one in self.columns}, "label": self.label, **label}

    def in_words(self):
        """The rows in a few words."""
        what = f"{len(self.class_names)} classes" if self.class_names else "a number"
        return f"{len(self.y_train):,} rows of {len(self.columns):,} columns, label {self.label}: {what}"

    def complete(self, model):
        """The model that takes columns and gives labels as they are in the table, of one that takes vectors.

        Args:
            model: a functional Keras model from (batch, width) to logits, or to (batch, 1), standardised labels.

        Returns:
            Functional `keras.Model` from {name: (batch,)} to logits, or to labels (batch, 1).
        """
        import keras

        encoder = columns_of.encoder(self.columns)
        outputs = model(encoder.output)
        if self.class_names is None:
            mean, std = self.label_scale
            outputs = keras.layers.Rescaling(std, mean, dtype="float32", name="label-in-units")(outputs)
        return keras.Model(encoder.input, outputs, name="table")


def load(
    name,
    label=None,
    types=None,
    test=None,
    seed=0,
    data_dir=None,
    known=None,
    tell=lambda line: None,
    warn=lambda line: None,
):
    """Reads a table.

    Args:
        name: a .csv or .tsv file in UTF-8 with the names of the columns in its first line; a .parquet file, which takes
            pandas; a .npz file, of arrays (n,) by the names of columns, or of a matrix x (n, columns) and y (n,), or of
            x_train, y_train, x_test and y_test; or a name that tensorflow-datasets knows.
        label: name of the column of the labels; of a matrix by default y.
        types: {name: type}, see `darts_tf.data.columns`, in place of those that are inferred, also of the label: of
            numbers it is one to predict, of categories it is one of classes. "none" leaves a column out.
        test: a second file, of the rows to test on. By default every fifth row, by `seed`: of classes every fifth of
            each.
        seed: int, of the rows to test on.
        data_dir: where tensorflow-datasets keeps its data; None is its own default.
        known: what the description of a `Table` says, for a model of that: columns, and the classes of the same label,
            are its own; the label may be another one.
        tell, warn: called with lines for the user: the types that were found, what was left out and why.

    Returns:
        `Table`.

    Raises:
        DataError: there is no such data or it cannot be used.
    """
    rows, held_out, names = read(name, test, data_dir)
    label = column_name(label) if label else "y" if "y" in rows.values else None
    if label is None:
        raise DataError(f"no --label: expected the column to predict, one of {listed(list(rows.values))}.")
    types = {column_name(column): kind for column, kind in (types or {}).items()}
    for column in (label, *types):
        _check_there(column, rows, "--label" if column == label else "--columns")
    for column, kind in types.items():
        if kind not in (*TYPES, LEFT_OUT):
            raise DataError(f"--columns={column}:{kind}: expected one of {', '.join((*TYPES, LEFT_OUT))}.")
    known_classes = None
    if known and label == known["label"]:
        known_classes = known.get("class_names")
        kind = "category" if known_classes else "number"
    else:
        kind = types.get(label) or _type_of_label(rows, label)
    if kind not in ("number", "category"):
        raise DataError(f"--columns={label}:{kind}: expected number or category, since it is the label.")
    parts = [rows] if held_out is None else [rows, held_out]
    parts = [_with_labels(part, label, kind, tell) for part in parts]
    labels = [_converted(label, kind, part) for part in parts]
    class_names = None
    if kind == "category":
        class_names = known_classes or _class_names(labels[0], names.get(label))
        labels = [_indices(values, class_names, label, part) for values, part in zip(labels, parts, strict=True)]
    if held_out is None:
        test_rows = _test_rows(labels[0], class_names, seed)
        parts = [parts[0].part(~test_rows), parts[0].part(test_rows)]
        labels = [labels[0][~test_rows], labels[0][test_rows]]
    if known:
        if label in known["columns"]:
            raise DataError(f"the label {label} is a column that the model takes: expected another label.")
        columns = [Column.from_config(column, config) for column, config in known["columns"].items()]
        for column in columns:
            _check_there(column.name, parts[0], "the model")
        found = {column.name: column.type for column in columns}
    else:
        found = {column: types.get(column) for column in parts[0].values if column != label}
        found = {column: kind or _type(column, rows) for column, kind in found.items() if kind != LEFT_OUT}
    values = {column: _converted(column, kind, parts[0]) for column, kind in found.items()}
    if not known:
        columns = _columns(found, values, types, warn)
        tell(_in_words(columns, values, label, class_names))
    for column in columns:
        _check_there(column.name, parts[1], "the test part")
    x = columns_of.in_batches(columns_of.encoder(columns), columns, values)
    test = {column.name: _converted(column.name, column.type, parts[1]) for column in columns}
    y, y_test, scale = *labels, None
    if class_names is None:
        if len(y) and y.min() == y.max():
            raise DataError(f"the label {label} is {y[0]:g} in all rows: expected different numbers.")
        scale = float(y.mean(dtype=np.float64)), float(y.std(dtype=np.float64))
        y = ((y.astype(np.float64) - scale[0]) / scale[1]).astype(np.float32)
    return Table(x, y, tuple(columns), test, y_test, label, class_names, scale)


def _check_there(name, rows, what):
    """Raises DataError if there is no such column; offers the nearest name."""
    if name in rows.values:
        return
    nearest = difflib.get_close_matches(name.lower(), [column.lower() for column in rows.values], 1, 0.5)
    meant = [column for column in rows.values if column.lower() in nearest]
    expected = f"did you mean {meant[0]}?" if meant else f"expected one of {listed(list(rows.values))}."
    raise DataError(f"no column {name} ({what}): {expected}")


def _is_missing(values):
    """(n,) bool."""
    if values.dtype.kind == "O":
        known = {text: text.lower() in MISSING for text in set(values.tolist())}
        return np.fromiter(map(known.__getitem__, values.tolist()), bool, len(values))
    if values.dtype.kind in "fM":
        return np.isnat(values) if values.dtype.kind == "M" else np.isnan(values)
    return np.zeros(len(values), bool)


def _type(name, rows):
    """The type of a column.

    Raises:
        DataError: it is of several.
    """
    values = rows.values[name]
    if values.dtype.kind != "O":
        return {"b": "boolean", "M": "date"}.get(values.dtype.kind, "number")
    present = values[~_is_missing(values)]
    different = set(present.tolist())
    if any(INFINITE.fullmatch(text) for text in different) and all(
        NUMBER.fullmatch(text) or INFINITE.fullmatch(text) for text in different
    ):
        return "number"  # which will say so
    for kind in ("number", "boolean", "date"):
        fits = {text for text in different if IS[kind](text)}
        count = sum(text in fits for text in present.tolist())
        if not count or 2 * count < len(present):
            continue
        if count == len(present):
            return kind
        row = next(row for row in np.flatnonzero(~_is_missing(values)) if values[row] not in fits)
        raise DataError(
            f"the column {name} is of mixed types: {values[row]!r} in {rows.where(row)}, where {count:,} of "
            f"{len(present):,} rows have a {kind}; expected one type, or --columns={name}:category."
        )
    if different and all(DECIMAL_COMMA.fullmatch(text) or NUMBER.fullmatch(text) for text in different):
        raise DataError(
            f"the column {name} has decimal commas, {next(iter(sorted(different)))!r}: expected decimal points and "
            f"no separators of thousands, or --columns={name}:category."
        )
    return "category"


def _type_of_label(rows, label):
    """ "number" for one to predict, "category" for classes."""
    kind, values = _type(label, rows), rows.values[label]
    if kind in ("boolean", "category"):
        return "category"
    if kind == "date":
        raise DataError(f"the label {label} is a date: expected classes or numbers.")
    if values.dtype.kind == "O":
        values = np.array([float(text) for text in values[~_is_missing(values)]])
    different = np.unique(values[np.isfinite(values)] if values.dtype.kind == "f" else values)
    return "category" if len(different) <= CLASSES and (different == np.rint(different)).all() else "number"


def _converted(name, kind, rows):
    """A column as a model takes it: float32, NaN for what is missing, or texts, "" for that.

    Raises:
        DataError: a value is none of the type, or infinite.
    """
    values = rows.values[name]
    if kind == "category":
        return values if values.dtype.kind == "O" else np.array([text_of(value) for value in values.tolist()], object)
    if kind == "date":
        if values.dtype.kind == "M":
            texts = np.datetime_as_string(values.astype("M8[s]"))
            values = np.where(np.isnat(values), "", texts).astype(object)
        elif values.dtype.kind != "O":
            raise DataError(f"the column {name} has numbers: expected dates, YYYY-MM-DD.")
    missing = _is_missing(values)
    if values.dtype.kind == "O":
        texts = values.tolist()
        fits = {text: bool(IS[kind](text)) for text in set(texts)}
        for row, text in enumerate(texts):
            if not missing[row] and not fits[text]:
                infinite = kind == "number" and INFINITE.fullmatch(text)
                wrong = "is infinite" if infinite else f"is no {kind}"
                expected = "finite numbers" if infinite else "YYYY-MM-DD" if kind == "date" else f"{kind}s"
                raise DataError(
                    f"the column {name} has {text!r} in {rows.where(row)}, which {wrong}: expected {expected}."
                )
        if kind == "date":
            return np.where(missing, "", values)
        number = BOOLEANS.get if kind == "boolean" else float
        values = np.array([np.nan if gone else number(text.lower()) for text, gone in zip(texts, missing, strict=True)])
    with np.errstate(over="ignore"):
        numbers = values.astype(np.float32)
    infinite = np.flatnonzero(np.isinf(numbers))
    if len(infinite):
        row = infinite[0]
        raise DataError(
            f"the column {name} has {values[row]!s} in {rows.where(row)}: expected finite numbers, as float32."
        )
    return numbers


def _with_labels(rows, label, kind, tell):
    """The rows that have a label."""
    values = rows.values[label]
    missing = _is_missing(values)
    if kind == "category" and values.dtype.kind == "O":
        present = set(values[~missing].tolist())
        if not all(IS["number"](text) or IS["boolean"](text) for text in present):
            missing = values == ""  # "NA" may be the name of a class, but not of a number
    if missing.all():
        raise DataError(f"no row has a {label}, which is the label: expected some.")
    if missing.any():
        tell(f"{missing.sum():,} rows are left out, which have no {label}.")
    return rows.part(~missing) if missing.any() else rows


def _class_names(values, names=None):
    """The classes of a label, sorted: numbers by size."""
    found = set(values.tolist())
    if names:
        return names
    numeric = all(NUMBER.fullmatch(text) for text in found)
    found = sorted(found, key=lambda text: (float(text), text) if numeric else text)
    folders.check_class_names(found)
    return found


def _indices(values, class_names, label, rows):
    """Classes as (n,) int32."""
    places = {name: place for place, name in enumerate(class_names)}
    for row, value in enumerate(values.tolist()):
        if value not in places:
            where = rows.where(row)
            raise DataError(f"the label {label} is {value!r} in {where}: expected one of {listed(class_names)}.")
    return np.fromiter(map(places.__getitem__, values.tolist()), np.int32, len(values))


def _test_rows(labels, class_names, seed):
    """(n,) bool: a fifth of the rows, of classes a fifth of each; of a class of two rows or more one at least."""
    order = np.random.default_rng(seed).permutation(len(labels))
    test = np.zeros(len(labels), bool)
    groups = [order] if class_names is None else [order[labels[order] == y] for y in range(len(class_names))]
    for rows in groups:
        count = max(round(TEST * len(rows)), 1) if len(rows) > 1 else 0
        test[rows[:count]] = True
    if not test.any():
        raise DataError(f"{len(labels)} rows, of which a fifth is for testing: expected more.")
    return test


def _columns(types, values, chosen, warn):
    """The `Column`s of the training part that say something; of the others the user is warned."""
    columns = []
    for name, kind in types.items():
        if name not in chosen and kind == "number" and _is_number_of_row(name, values[name]):
            warn(f"the column {name} numbers the rows: it is left out; --columns={name}:number keeps it.")
            continue
        try:
            columns.append(Column.of(name, kind, values[name]))
        except ValueError as error:
            warn(f"the column {name} {error}: it is left out.")
    if not columns:
        raise DataError("no column says anything about the label: expected columns of different values.")
    return columns


def _is_number_of_row(name, values):
    """Whether numbers tell rows apart: all are whole and different, and without a gap or called an id."""
    known = values[~np.isnan(values)].astype(np.float64)
    if len(known) < len(values) or len(known) < 3 or (known != np.rint(known)).any():
        return False
    called = re.search(r"(^|_)(id|index|nr|no|key|uid|uuid)$", name.lower()) or name.endswith(("Id", "ID"))
    if len(np.unique(known)) < len(known):
        return False
    steps = np.diff(known)
    # Some rows may be missing, which are for testing.
    in_order = (steps > 0).all() and known[-1] - known[0] < 2 * len(known)
    return bool(called or (in_order and len(known) > 20))


def _in_words(columns, values, label, class_names):
    """The columns by type, with what they lack, a line for each type."""
    lines = []
    for kind, several in (
        ("number", "numbers"),
        ("boolean", "booleans"),
        ("date", "dates"),
        ("category", "categories"),
    ):
        shown = []
        for column in (one for one in columns if one.type == kind):
            own = values[column.name]
            missing = (own == "").sum() if own.dtype.kind == "O" else np.isnan(own).sum()
            notes = []
            if kind == "category":
                different = len(set(own.tolist()))
                kept = len(column.categories)
                notes.append(f"{kept:,}" if kept == different else f"{kept:,} of {different:,}")
            notes += [f"{missing:,} missing"] if missing else []
            shown.append(f"{column.name} ({'; '.join(notes)})" if notes else column.name)
        if shown:
            lines.append(f"  {several + ':':<12}{listed(shown)}")
    what = f"{len(class_names):,} classes, {listed(class_names)}" if class_names else "a number"
    return "\n".join(["Columns:", *lines, f"  {'label:':<12}{label}, {what}"])
