"""The rows of a table, as files and tensorflow-datasets have them: arrays by the names of columns."""

import csv
import dataclasses
import datetime
import io
import os
import pathlib
import re

import numpy as np
import tensorflow as tf

from darts_tf.data import datasets
from darts_tf.data.folders import DataError
from darts_tf.data.images import check_memory
from darts_tf.data.names import column_name

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "|"}
NEEDED = 20  # bytes of memory for a byte of a CSV file, about
NAMED = 12  # columns, at most, in a line for the user
EXPECTED = "a .csv, .tsv, .parquet or .npz file, or a name from tensorflow-datasets"


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


def read(name, test, data_dir):
    """Reads a table.

    Args:
        name: of a dataset, see `darts_tf.data.tables.load`.
        test: a second file, of the rows to test on; None if there is none.
        data_dir: where tensorflow-datasets keeps its data; None is its own default.

    Returns:
        `Rows` to train on, those to test on or None, and {column: list of texts}, the names of the classes of columns
        that have some.

    Raises:
        DataError: there is no such table, or it cannot be used.
    """
    rows, held_out, names = _read_one(name, data_dir)
    if not test:
        return rows, held_out, names
    if held_out is not None:
        raise DataError(f"it has rows to test on: expected no --test_table={test}.")
    try:
        held_out, more, _ = _read_one(test, data_dir)
    except OSError as error:
        raise DataError(f"--test_table={test}: {error.strerror or error}; expected a file.") from None
    except DataError as error:
        raise DataError(f"--test_table={test}: {error}") from None
    if more is not None:
        raise DataError(f"--test_table={test}: it has parts for training and for testing; expected one table.")
    return rows, held_out, names


def listed(names):
    """Names in a few words, `NAMED` of them at most."""
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED:,} more" if len(names) > NAMED else "")


def text_of(value):
    """A value of an array as a category: whole numbers without a point, no text for what is missing."""
    if isinstance(value, float):
        return "" if value != value else str(int(value)) if value.is_integer() else str(value)
    return "" if value is None else str(value)


def _read_one(name, data_dir):
    """`Rows` to train on, those to test on or None, and the names of classes of columns that have some, a dict."""
    path = pathlib.Path(name)
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv", ".parquet", ".npz"):
        if not os.path.isfile(path):
            raise DataError("no such file." if not os.path.exists(path) else "it is no file: expected a table.")
        if not path.stat().st_size:
            raise DataError("the file is empty: expected names of columns, and rows.")
        if suffix == ".npz":
            return *_from_npz(path), {}
        values, lines = (_from_parquet(path), None) if suffix == ".parquet" else _from_csv(path)
        return _checked(values, lines), None, {}
    if path.is_absolute() or os.path.exists(path) or name.startswith((".", "~")):
        raise DataError(f"it is no table: expected {EXPECTED}.")
    return _from_tfds(name, data_dir)


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
    outside = re.sub(r'"[^"]*"', "", first)
    separator = max(SEPARATORS, key=outside.count)
    if not outside.count(separator):
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
    columns = {str(name): frame[name] for name in frame.columns}
    # pandas has several values for what is missing; None stands for all of them here.
    objects = {name: one.dtype.kind == "O" or not isinstance(one.dtype, np.dtype) for name, one in columns.items()}
    return {
        name: _plain((one.astype(object).where(one.notna(), None) if objects[name] else one).to_numpy(), name)
        for name, one in columns.items()
    }


def _plain(values, name):
    """An array of a column (n,): numbers, bools, dates, or texts as objects.

    Raises:
        DataError: it is of something else.
    """
    if values.ndim != 1:
        raise DataError(f"the column {name} is {list(values.shape)}: expected one value in each row.")
    if values.dtype.kind in "SUO":
        if any(isinstance(value, np.ndarray | list | dict) for value in values.tolist()):
            raise DataError(f"the column {name} has lists: expected one value in each row.")
        present = [value for value in values.tolist() if value is not None and value == value]
        if values.dtype.kind == "O" and present and all(type(value) is datetime.date for value in present):
            return values.astype("datetime64[D]")
        if values.dtype.kind == "O" and present and all(type(value) is bool for value in present):
            return np.array([np.nan if value not in (True, False) else float(value) for value in values.tolist()])
        if values.dtype.kind == "O" and not all(isinstance(value, str | bytes) for value in present):
            try:
                return np.array([np.nan if value is None else float(value) for value in values.tolist()])
            except (TypeError, ValueError):
                raise DataError(f"the column {name} is of mixed types: expected texts, or numbers.") from None
        found = np.empty(len(values), object)
        try:
            found[:] = [value.decode() if isinstance(value, bytes) else text_of(value) for value in values.tolist()]
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
        if arrays[y].shape not in ((len(arrays[x]),), (len(arrays[x]), 1)):
            expected = f"expected a label for each of {len(arrays[x]):,} rows, (rows,) or (rows, 1)"
            raise DataError(f"{y} is {list(arrays[y].shape)}: {expected}.")
        found.append(_of_arrays({x: arrays[x], "y": arrays[y].reshape(-1)}, "x"))
    return found[0], found[1] if len(found) > 1 else None


def _of_arrays(arrays, called=None):
    """`Rows` of arrays (n,) or (n, m), whose m columns are called after it and numbered."""
    if len({len(array) for array in arrays.values() if array.ndim}) > 1 or not all(a.ndim for a in arrays.values()):
        sizes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        raise DataError(f"arrays of other lengths, {listed(sizes.split(', '))}: expected a value for each row.")
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
