"""Tables: from a name or a file to columns and labels, and from those to batches of vectors."""

import csv
import dataclasses
import difflib
import io
import pathlib
import re

import numpy as np
import tensorflow as tf

from darts_tf.data import columns as columns_of
from darts_tf.data import datasets, folders
from darts_tf.data.columns import TYPES, Column
from darts_tf.data.folders import DataError
from darts_tf.data.images import check_memory
from darts_tf.data.names import column_name
from darts_tf.data.tasks import TableClassification, TableRegression

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "|"}
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
NEEDED = 20  # bytes of memory for a byte of a CSV file, about
CLASSES = 20  # a label of so many different whole numbers, at most, is one of classes
TEST = 0.2  # the part of the rows to test on
NAMED = 12  # columns, at most, in a line for the user
EXPECTED = "a .csv, .tsv, .parquet or .npz file, or a name from tensorflow-datasets"


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
            outputs = keras.layers.Rescaling(std, mean, dtype="float32", name="label")(outputs)
        return keras.Model(encoder.input, outputs, name="table")


@dataclasses.dataclass
class Rows:
    """A table as it was read.

    values: {name: array (n,)}: of numbers, bools or dates (datetime64), or of texts as objects.
    lines: (n,) int, the line of each row in a text file; None of another kind of file.
    """

    values: dict
    lines: np.ndarray | None = None

    def __len__(self):
        return len(next(iter(self.values.values())))

    def where(self, row):
        """Where a row is, in words."""
        return f"row {row + 1}" if self.lines is None else f"line {self.lines[row]}"

    def part(self, chosen):
        """Those rows, by a mask."""
        lines = None if self.lines is None else self.lines[chosen]
        return Rows({name: values[chosen] for name, values in self.values.items()}, lines)


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
    rows, held_out, names = _read_both(name, test, data_dir)
    label = column_name(label) if label else "y" if "y" in rows.values else None
    if label is None:
        raise DataError(f"no --label: expected the column to predict, one of {_listed(list(rows.values))}.")
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
    expected = f"did you mean {meant[0]}?" if meant else f"expected one of {_listed(list(rows.values))}."
    raise DataError(f"no column {name} ({what}): {expected}")


def _listed(names):
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED:,} more" if len(names) > NAMED else "")


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
            f"the column {name} has decimal commas, {next(iter(sorted(different)))!r}: expected decimal points, or "
            f"--columns={name}:category."
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
        return values if values.dtype.kind == "O" else np.array([_text(value) for value in values.tolist()], object)
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


def _text(value):
    """A value of an array as a category: whole numbers without a point, no text for what is missing."""
    if isinstance(value, float):
        return "" if value != value else str(int(value)) if value.is_integer() else str(value)
    return "" if value is None else str(value)


def _with_labels(rows, label, kind, tell):
    """The rows that have a label."""
    values = rows.values[label]
    missing = values == "" if kind == "category" and values.dtype.kind == "O" else _is_missing(values)
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
            raise DataError(f"the label {label} is {value!r} in {where}: expected one of {_listed(class_names)}.")
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
            lines.append(f"  {several + ':':<12}{_listed(shown)}")
    what = f"{len(class_names):,} classes, {_listed(class_names)}" if class_names else "a number"
    return "\n".join(["Columns:", *lines, f"  {'label:':<12}{label}, {what}"])


def _read(name, data_dir):
    """`Rows` to train on, those to test on or None, and the names of classes of columns that have some, a dict."""
    path = pathlib.Path(name)
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv", ".parquet", ".npz"):
        if not path.is_file():
            raise DataError("no such file." if not path.exists() else "it is no file: expected a table.")
        if not path.stat().st_size:
            raise DataError("the file is empty: expected names of columns, and rows.")
        if suffix == ".npz":
            return *_from_npz(path), {}
        values, lines = (_from_parquet(path), None) if suffix == ".parquet" else _from_csv(path)
        return _checked(values, lines), None, {}
    if path.is_absolute() or path.exists() or name.startswith((".", "~")):
        raise DataError(f"it is no table: expected {EXPECTED}.")
    return _from_tfds(name, data_dir)


def _read_both(name, test, data_dir):
    """As `_read`, with a second file as the rows to test on if there is one."""
    rows, held_out, names = _read(name, data_dir)
    if not test:
        return rows, held_out, names
    if held_out is not None:
        raise DataError(f"it has rows to test on: expected no --test_table={test}.")
    try:
        held_out, more, _ = _read(test, data_dir)
    except OSError as error:
        raise DataError(f"--test_table={test}: {error.strerror or error}; expected a file.") from None
    except DataError as error:
        raise DataError(f"--test_table={test}: {error}") from None
    if more is not None:
        raise DataError(f"--test_table={test}: it has parts for training and for testing; expected one table.")
    return rows, held_out, names


def _checked(values, lines=None):
    """`Rows` of {name in the file: array}, whose names are those of models."""
    names, found = {}, {}
    for place, (name, array) in enumerate(values.items(), 1):
        short = column_name(name, place)
        if short in found:
            raise DataError(f"the columns {names[short]} and {name} are both called {short}: expected different names.")
        names[short], found[short] = name, array
    rows = Rows(found, lines)
    if len(found) < 2 or not len(rows):
        what = f"{len(found)} column{'' if len(found) == 1 else 's'} and {len(rows) if found else 0:,} rows"
        raise DataError(f"{what}: expected a label and other columns, and rows.")
    return rows


def _from_csv(path):
    """{name: array of texts}, and the line of each row."""
    check_memory(NEEDED * path.stat().st_size, "a smaller table")
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError("it is UTF-16: expected UTF-8.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"byte {content[error.start]:#04x} in line {line} is not UTF-8: expected that encoding, which "
            "iconv -f latin1 -t utf-8 makes of most others."
        ) from None
    if "\0" in text:
        raise DataError(f"line {text.count(chr(10), 0, text.index(chr(0))) + 1} has a zero byte: expected text.")
    first = text.lstrip("\r\n").split("\n", 1)[0].strip("\r")
    separator = max(SEPARATORS, key=first.count)
    if not first.count(separator):
        known = ", ".join(SEPARATORS.values())
        raise DataError(f"its first line, {first[:80]!r}, is one column: expected columns separated by {known}.")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    names, found, lines, before = None, [], [], 0
    try:
        for row in reader:
            begins, before = before + 1, reader.line_num
            if not row:
                continue
            if names is None:
                names = [name.strip() for name in row]
                continue
            if len(row) != len(names):
                raise DataError(f"line {begins} has {len(row)} values, the first line {len(names)}: expected as many.")
            found.append(row)
            lines.append(begins)
    except csv.Error as error:
        raise DataError(
            f"line {max(reader.line_num, 1)}: {error}; expected values with quotes around them, or none."
        ) from None
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"two columns called {twice!r} in its first line: expected another name for each.")
    if not found:
        raise DataError("it has names of columns and no rows: expected rows.")
    values = {}
    for name, column in zip(names, zip(*found, strict=True), strict=True):
        values[name] = np.empty(len(column), object)
        values[name][:] = [text.strip() for text in column]
    return values, np.array(lines)


def _from_parquet(path):
    """{name: array}."""
    try:
        import pandas
    except ImportError:
        raise DataError("it takes pandas to read it: pip install pandas pyarrow, or expected a .csv file.") from None
    try:
        frame = pandas.read_parquet(path)
    except ImportError as error:
        raise DataError(
            f"{' '.join(str(error).split())[:200]}; expected pip install pyarrow, or a .csv file."
        ) from None
    except Exception as error:  # of every kind: the file may be anything
        raise DataError(f"not a readable .parquet file ({' '.join(str(error).split())[:200]}).") from None
    return {str(name): _plain(frame[name].to_numpy(), name) for name in frame.columns}


def _plain(values, name):
    """An array of a column (n,): numbers, bools, dates, or texts as objects.

    Raises:
        DataError: it is of something else.
    """
    if values.ndim != 1:
        raise DataError(f"the column {name} is {list(values.shape)}: expected one value in each row.")
    if values.dtype.kind in "SUO":
        present = [value for value in values.tolist() if value is not None and value == value]
        if values.dtype.kind == "O" and present and all(type(value) is bool for value in present):
            return np.array([np.nan if value not in (True, False) else float(value) for value in values.tolist()])
        if values.dtype.kind == "O" and not all(isinstance(value, str | bytes) for value in present):
            try:
                return np.array([np.nan if value is None else float(value) for value in values.tolist()])
            except (TypeError, ValueError):
                raise DataError(f"the column {name} is of mixed types: expected texts, or numbers.") from None
        found = np.empty(len(values), object)
        try:
            found[:] = [value.decode() if isinstance(value, bytes) else _text(value) for value in values.tolist()]
        except UnicodeDecodeError:
            raise DataError(f"the column {name} is not UTF-8: expected texts in that encoding.") from None
        found[:] = [text.strip() for text in found]
        return found
    if values.dtype.kind not in "biufM":
        raise DataError(f"the column {name} is of {values.dtype}: expected numbers, bools, dates or texts.")
    return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))


def _from_npz(path):
    """`Rows` to train on, and those to test on or None."""
    try:
        with np.load(path, allow_pickle=False) as file:
            check_memory(sum(info.file_size for info in file.zip.infolist()), "a smaller table")
            arrays = {name: file[name] for name in file.files}
    except DataError:
        raise
    except Exception as error:  # of every kind: zip, its compressions, numpy, memory
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"not a readable .npz file ({reason}): expected arrays of columns, or a matrix x.") from None
    parts = [("x_train", "y_train"), ("x_test", "y_test")] if "x_train" in arrays else [("x", "y")]
    parts = [names for names in parts if names[0] in arrays and arrays[names[0]].ndim == 2]
    if not parts:
        return _of_arrays(arrays), None
    found = []
    for x, y in parts:
        if y not in arrays:
            raise DataError(f"no {y} in the file: expected the labels of {x}.")
        found.append(_of_arrays({x: arrays[x], "y": arrays[y].reshape(len(arrays[y]), -1)[:, 0]}, "x"))
    return found[0], found[1] if len(found) > 1 else None


def _of_arrays(arrays, called=None):
    """`Rows` of arrays (n,) or (n, m), whose m columns are called after it and numbered."""
    if len({len(array) for array in arrays.values() if array.ndim}) > 1 or not all(a.ndim for a in arrays.values()):
        sizes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        raise DataError(f"arrays of other lengths, {_listed(sizes.split(', '))}: expected a value for each row.")
    values = {}
    for name, array in arrays.items():
        if array.ndim == 2:
            values |= {f"{called or name}{place}": _plain(column, name) for place, column in enumerate(array.T)}
        else:
            values[name] = _plain(array, name)
    return _checked(values)


def _from_tfds(name, data_dir):
    builder = datasets.prepared_builder(name, data_dir, (), EXPECTED)
    splits = builder.info.splits
    if "train" not in splits:
        raise DataError(f"its splits are {', '.join(splits)}: expected train, and perhaps test.")
    names = {}

    def rows(split):
        whole = builder.as_dataset(split=split, batch_size=-1)
        arrays = {}
        for path, values, feature in _flat(whole, builder.info.features):
            short = path[-1] if path[-1] not in arrays else "_".join(path)
            if values.ndim > 2 or (values.ndim == 2 and values.shape[1] > 10_000):
                raise DataError(f"its {short} is {list(values.shape)}: expected numbers, texts or classes.")
            if getattr(feature, "names", None):
                names[column_name(short)] = list(feature.names)
                values = np.array(["" if y < 0 else feature.names[y] for y in values.tolist()], object)
            arrays[short] = values
        return _of_arrays(arrays)

    try:
        train = rows("train")
        test = next((rows(split) for split in ("test", "validation") if split in splits), None)
    except tf.errors.OpError as error:
        raise DataError(f"its examples cannot be made a table: {error.message[:200]}") from None
    return train, test, names


def _flat(values, features, path=()):
    """(path, array, feature) of what examples have, a nested dict."""
    for name in features:
        if isinstance(values[name], dict):
            yield from _flat(values[name], features[name], (*path, name))
        elif hasattr(values[name], "numpy") and not isinstance(values[name], tf.RaggedTensor):
            yield (*path, name), values[name].numpy(), features[name]
        else:
            raise DataError(f"its {name} are of many lengths: expected numbers, texts or classes.")
