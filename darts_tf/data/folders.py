"""Folders of images: which files there are, of which class each is, and which ones are for testing."""

import collections
import os
import pathlib
import stat
import unicodedata
from typing import NamedTuple

import numpy as np
from PIL import features

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", *([".webp"] if features.check("webp") else []))
TRAINING = ("train", "training")
TESTING = ("test", "testing")
VALIDATION = ("val", "valid", "validation", "eval")
SHAPE = "one folder of images per class, or folders train and test of such folders"


class DataError(ValueError):
    """The data cannot be used; the message says what is wrong and what would be accepted."""


class Listing(NamedTuple):
    """The images of a folder.

    Attributes:
        files: their paths, a list of n texts.
        labels: (n,) int32, indices into `class_names`.
        test: (n,) bool, whether each is for testing.
        class_names: the names of the classes' folders, sorted.
        notes: lines for the user: what was left out.
    """

    files: list
    labels: np.ndarray
    test: np.ndarray
    class_names: list
    notes: list


def image_files(folder):
    """Finds the images of a folder with one folder per class, or of folders for training and testing of that kind.

    Those are called train or training, and test, testing, val, valid, validation or eval, in upper or lower case. Where
    there are folders to test and to validate on, the former count. Hidden files and folders are left out.

    Args:
        folder: `pathlib.Path`.

    Returns:
        `Listing`. Without a folder for testing every fifth image of a class is for that.

    Raises:
        DataError: the folder has another structure, or only one part of a split, or files that cannot be read.
    """
    names = _entries(folder)[0]
    train, held_out, left_out = _splits(folder, names)
    notes = [f"{folder / name}: not used; {folder / held_out} is for testing." for name in left_out]
    skipped = collections.Counter()
    if train is None:
        files, labels, class_names = _class_files(folder, skipped)
        test = every_fifth(labels)
        if not test.any():
            raise DataError("fewer than 5 images in each class, of which every fifth is for testing: expected more.")
        untested = [class_names[label] for label in np.setdiff1d(labels, labels[test])]
        if untested:
            notes.append(f"{_named(untested, 'class', 'classes')}: fewer than 5 images, none of which is for testing.")
    else:
        files, labels, class_names = _class_files(folder / train, skipped)
        test_files, test_labels, test_names = _class_files(folder / held_out, skipped)
        if test_names != class_names:
            odd = sorted(set(test_names) ^ set(class_names))
            raise DataError(f"{train} and {held_out} differ in the class {odd[0]}: expected the same folders.")
        test = np.repeat([False, True], [len(files), len(test_files)])
        files, labels = files + test_files, np.concatenate([labels, test_labels])
    if skipped:
        kinds = ", ".join(f"{count:,} {suffix or 'without a suffix'}" for suffix, count in skipped.most_common(5))
        notes.append(f"Files that are not used, of other kinds or outside of the classes' folders: {kinds}.")
    return Listing(files, labels, test, class_names, notes)


def every_fifth(labels):
    """(n,) bool: the images to test on if there is no test split, of each label every fifth in order."""
    order = np.argsort(labels, kind="stable")
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    place = np.empty(len(labels), int)
    place[order] = np.arange(len(labels)) - np.repeat(starts, counts)
    return place % 5 == 4


def check_class_names(names):
    """Raises DataError unless there are two class names or more, each of one line and different from the others."""
    if len(names) < 2:
        raise DataError(f"only the class {', '.join(names)}: expected at least 2 classes.")
    for name in names:
        if not name or {unicodedata.category(character) for character in name} & {"Cc", "Cs", "Zl", "Zp"}:
            raise DataError(f"the class {name!a}: expected a name without line breaks and control characters.")
    if len(set(names)) < len(names):
        name, _ = collections.Counter(names).most_common(1)[0]
        raise DataError(f"two classes called {name}: expected another name for each.")


def _splits(folder, names):
    """The names of the folders to train and to test on, and of those left out; None, None and [] without a split."""
    train, testing, validation = (
        [name for name in names if name.lower() in kind] for kind in (TRAINING, TESTING, VALIDATION)
    )
    for several in (train, testing, validation):
        if len(several) > 1:
            raise DataError(f"folders {several[0]} and {several[1]}: expected one of them.")
    held_out = testing + validation
    of_classes = [name for name in train + held_out if _entries(folder / name)[0]]
    if not held_out and not set(train) & set(of_classes):
        return None, None, []  # `train` may be a class of vehicles
    if not train:
        raise DataError(f"its folder {held_out[0]} has none to train on beside it: expected {SHAPE}.")
    if train[0] not in of_classes:
        raise DataError(f"its folder {train[0]} has no folders of classes in it: expected {SHAPE}.")
    usable = [name for name in held_out if name in of_classes]
    if not usable:
        wrong = f"its folder {train[0]} has none for testing beside it"
        if held_out:
            wrong = f"its folder {held_out[0]} has no folders of classes in it"
        raise DataError(f"{wrong}: expected {SHAPE}; with {folder / train[0]} every fifth image is for testing.")
    return train[0], usable[0], [name for name in names if name not in (train[0], usable[0])]


def _entries(folder):
    """Sorted names of the folders, and of the files, in a folder; hidden ones left out."""
    try:
        with os.scandir(folder) as entries:
            found = [(entry.name, os.path.isdir(entry.path)) for entry in entries if entry.name[0] != "."]
    except OSError as error:
        raise DataError(f"{folder} cannot be listed ({error.strerror}): expected a folder of images.") from None
    return tuple(sorted(name for name, is_folder in found if is_folder == wanted) for wanted in (True, False))


def _class_files(folder, skipped):
    """Files, labels and class names of a folder of classes; counts by suffix what else there is."""
    names, outside = _entries(folder)
    expected = "expected one folder of images per class, at least 2"
    if not names:
        raise DataError(f"no folders in it: {expected}.")
    skipped.update(pathlib.Path(name).suffix.lower() for name in outside)
    inside = [_images(folder / name, skipped) for name in names]
    empty = [name for name, files in zip(names, inside, strict=True) if not files]
    if empty:
        raise DataError(f"no images in its folder {empty[0]}: expected {', '.join(SUFFIXES)} files.")
    if len(names) < 2:
        raise DataError(f"only the folder {names[0]}: {expected}.")
    # Names of files are UTF-8, whatever the locale says.
    names = [os.fsencode(name).decode(errors="surrogateescape") for name in names]
    check_class_names(names)
    labels = np.repeat(np.arange(len(names), dtype=np.int32), [len(files) for files in inside])
    return [file for files in inside for file in files], labels, names


def _images(folder, skipped):
    """The images in a folder and its subfolders; each folder is listed once, even if links lead to it again."""
    files, seen, left = [], set(), [str(folder)]
    while left:
        place = left.pop()
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        folders, inside = _entries(place)
        left += [os.path.join(place, name) for name in folders]
        for name in inside:
            suffix = pathlib.Path(name).suffix.lower()
            if suffix in SUFFIXES:
                files.append(os.path.join(place, name))
                _check_file(files[-1])
            else:
                skipped[suffix] += 1
    return sorted(files, key=lambda file: file.split(os.sep))


def _check_file(path):
    """Raises DataError for what would never end or is not there: pipes, devices, links to nothing."""
    try:
        if stat.S_ISREG(os.stat(path).st_mode):
            return
        wrong = "is no file but a pipe, a socket or a device"
    except OSError as error:
        wrong = f"cannot be read ({error.strerror})"
    raise DataError(f"{path} {wrong}: expected an image.")


def _named(names, singular, plural):
    """Some names in words, of which there may be many."""
    if len(names) == 1:
        return f"The {singular} {names[0]}"
    return f"{len(names):,} {plural} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
