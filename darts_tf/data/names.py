"""What the name of a dataset stands for, as far as that can be said without TensorFlow."""

import os
import re
import zipfile

import numpy as np

from darts_tf.data.folders import DataError

EXPECTED = "digits, a folder with one folder of images per class, a .npz file, or a name from tensorflow-datasets"
# What layers and operations of the models of tables are called, which a column may not be.
_TAKEN = re.compile(
    r"(encoded|functional|cast|where|is_?finite|logical_not|zeros_like|relu|split|add|subtract|greater_equal"
    r"|get_item)(_\d+)?"
)
TABLES = (".csv", ".tsv", ".parquet")  # suffixes of files that are tables


def is_folder(name):
    """Whether a dataset is a folder, not a name.

    Raises:
        DataError: it is neither.
    """
    if not name.strip():
        raise DataError(f"expected {EXPECTED}.")
    return name != "digits" and os.path.isdir(name)


def is_imagenet(name):
    """Whether a dataset is ImageNet, as tensorflow-datasets calls it, in any version."""
    return name.startswith("imagenet2012") and not os.path.exists(name)


def is_table(name, label=None):
    """Whether a dataset is a table: a file of one, or anything of which a column is the label.

    Args:
        name: of the dataset.
        label: name of the column with the labels, if one was given.
    """
    return bool(label) or name.lower().endswith(TABLES) or (name.endswith(".npz") and _is_matrix(name))


def _is_matrix(path):
    """Whether the inputs in a .npz file are rows of numbers, not images; what cannot be read is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in ("x_train.npy", "x.npy") if name in archive.namelist())
            with archive.open(name) as file:
                version = np.lib.format.read_magic(file)
                read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                shape, *_ = read[version](file)
        return len(shape) == 2
    except Exception:  # of every kind: the file may be anything
        return False


def column_name(text, place=0):
    """What a column is called in models: its name, in which `_` stands for all but letters, digits and `_`.

    Names that the models have for something else get `_column` behind them.

    Args:
        text: the name in the table.
        place: of the column, for a name without any letter or digit.
    """
    name = re.sub(r"\W+", "_", text).strip("_") or f"column_{place}"
    name += "_column" if _TAKEN.fullmatch(name) else ""
    return f"_{name}" if name[0].isdigit() else name
