"""Images, or text, typical of what a model will be asked: for the comparison of the formats, and for int8."""

import contextlib
import sys

import numpy as np

from darts_tf.cli import messages
from darts_tf.cli.messages import UsageError
from darts_tf.data import datasets, streams, tables, text
from darts_tf.data import images as sources
from darts_tf.data.augmentation import Augmentation
from darts_tf.data.names import is_folder, is_imagenet
from export import tabular
from export.labels import beside

COMPARED = 1000  # images, at most
COMPARED_TOKENS = 4096


def load(config, classifier):
    """The dataset that a configuration names, or else that of the run that made the model.

    Args:
        config: `run.ExportConfig`.
        classifier: `classifier.Classifier`.

    Returns:
        `darts_tf.data.datasets.Dataset` or `darts_tf.data.streams.Stream` of images as the model takes them; None if
        none was named, or that of the run is gone.

    Raises:
        UsageError: there is no such data, or it does not fit the model.
    """
    run = beside(config.model)
    name = config.dataset or run.get("dataset")
    wanted = config.dataset or "int8" in (config.quantize or [])
    if not name:
        if wanted:
            raise UsageError("--quantize=int8: it learns ranges from images; expected --dataset, too.")
        return None
    random_parts = is_imagenet(name) or (not config.dataset and run.get("recipe") == "imagenet")
    where = name, classifier.image_shape[:2], config.data_dir or run.get("data_dir")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # tensorflow-datasets has much to say
            if random_parts:
                data = streams.load(*where, messages.say)
            else:  # a few images are enough, so those in files stay there
                data = datasets.load(*where, is_folder(name), messages.say, messages.progress)
        data = data.fitted(classifier.image_shape)
        if len(data.class_names) != len(classifier.labels):
            raise datasets.DataError(f"it has {len(data.class_names)} classes: the model has {len(classifier.labels)}.")
        return data
    except datasets.DataError as error:
        if wanted:
            raise UsageError(f"--dataset={name}: {error}") from None
        messages.say(f"Without --dataset={name}, of the run that made the model: {error}")
        return None


def test_images(data, classifier):
    """Test images of a dataset, `COMPARED` at most, and their labels; random images and None without a dataset.

    Returns:
        (n, height, width, depth) float32, 0 to 255, and (n,) integers.
    """
    if data is None:
        messages.say("No --dataset: comparing on random images.")
        return np.random.default_rng(0).integers(0, 256, (64, *classifier.image_shape)).astype(np.float32), None
    if isinstance(data, streams.Stream):
        images, labels = zip(*data.test_batches().unbatch().take(COMPARED).as_numpy_iterator(), strict=True)
        return np.stack(images), np.stack(labels)
    if isinstance(data.x_train, np.ndarray):
        least, most = data.x_train.min(), data.x_train.max()
        if least < 0 or not 1 < most <= 255:
            messages.warn(
                f"the images of --dataset go from {least:g} to {most:g} and those in files from 0 to 255: the model "
                "will take the latter for something else, unless a Rescaling layer in it expects them."
            )
    chosen = np.random.default_rng(0).permutation(len(data.y_test))[:COMPARED]
    return _array(data.x_test, chosen), data.y_test[chosen]


def training_images(data, count):
    """Training images of a dataset, `count` at most, in random order; (n, height, width, depth) float32."""
    if not isinstance(data, streams.Stream):
        return _array(data.x_train, np.random.default_rng(1).permutation(len(data.y_train))[:count])
    batches, *_ = data.batches(min(count, len(data.y_train)), Augmentation())
    images, _ = next(iter(batches()))
    return images.numpy()


def test_rows(config, model):
    """Test rows of the table that a configuration names, or else of the run that made a model; `COMPARED` at most.

    Args:
        config: `run.ExportConfig`.
        model: `tabular.TableModel`.

    Returns:
        {name: array (n,)}, the columns as the model takes them, and (n,) integers or numbers, the labels; random
        numbers and None, since no table was named or that of the run is gone.

    Raises:
        UsageError: there is no such table.
    """
    run = tabular.beside(config.model)
    saved = run.get("config", {})
    name = config.dataset or saved.get("dataset")
    if not name or not model.columns:
        messages.say("No --dataset with the config.json of the model's run beside it: comparing on random rows.")
        return tabular.random_rows(model), None
    where = config.data_dir or saved.get("data_dir")
    test = None if config.dataset else saved.get("test_table")
    try:
        known = {"test": test, "seed": saved.get("test_seed", 0), "data_dir": where, "known": run["description"]}
        with contextlib.redirect_stdout(sys.stderr):
            data = tables.load(name, run["label"], **known)
        chosen = np.random.default_rng(0).permutation(len(data.y_test))[:COMPARED]
        return {column: values[chosen] for column, values in data.test.items()}, data.y_test[chosen]
    except (datasets.DataError, OSError) as error:
        if config.dataset:
            raise UsageError(f"--dataset={name}: {error}") from None
        messages.say(f"Without --dataset={name}, of the run that made the model: {error}")
        return tabular.random_rows(model), None


def test_tokens(config, model):
    """Test text of the dataset that a configuration names, or else of the run that made a language model.

    Args:
        config: `run.ExportConfig`.
        model: `language.LanguageModel`.

    Returns:
        (n,) int32, numbers of the model's tokens, the first `COMPARED_TOKENS` of the text; and whether they are random,
        since no text was named or that of the run is gone.

    Raises:
        UsageError: there is no such text.
    """
    run = beside(config.model, "vocabulary")
    name = config.dataset or run.get("dataset")
    if not name:
        messages.say("No --dataset: comparing on random tokens.")
    else:
        where = config.data_dir or run.get("data_dir")
        try:
            with contextlib.redirect_stdout(sys.stderr):
                data = text.load(name, model.tokens, model.vocabulary, where, messages.say, messages.progress)
            return data.test[:COMPARED_TOKENS], False
        except datasets.DataError as error:
            if config.dataset:
                raise UsageError(f"--dataset={name}: {error}") from None
            messages.say(f"Without --dataset={name}, of the run that made the model: {error}")
    return np.random.default_rng(0).integers(0, len(model.vocabulary), 256, np.int32), True


def _array(images, chosen):
    try:
        return sources.of(images)[chosen].array().astype("float32")
    except datasets.DataError as error:
        raise UsageError(f"--dataset: {error}") from None
