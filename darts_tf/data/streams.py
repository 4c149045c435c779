"""The recipe for ImageNet, whose images stay on disk: they are read, cut and augmented while training goes on.

This is the original's pipeline for ImageNet: a random part of the image resized to 224x224, mirrored and
changed in colour; for testing the middle of the image.
"""

import dataclasses
import os
import pathlib

import numpy as np
import tensorflow as tf

from darts_tf.data import datasets, folders, images
from darts_tf.data.augmentation import jittered, middle_part, random_part
from darts_tf.data.names import is_folder
from darts_tf.devices.cluster import ALONE

# Of the pixels of ImageNet, from 0 to 255.
MEAN = 255 * np.array([0.485, 0.456, 0.406], np.float32)
STD = 255 * np.array([0.229, 0.224, 0.225], np.float32)
BUFFER = 10_000  # examples to shuffle at a time where they can only be read in order


@dataclasses.dataclass
class Stream(datasets.Labelled):
    """Encoded colour images; offers what `datasets.Dataset` offers for training.

    train: function of an epoch, a seed and a `Worker` -> `tf.data.Dataset` of (encoded image, label, what it is called)
        in that epoch's order, of the worker's share.
    test: function -> the same of the test images.
    y_train: as long as there are training images.
    class_names: what the labels stand for.
    image_shape: (height, width, 3) of what comes out.
    """

    train: object
    test: object
    y_train: range
    class_names: list
    image_shape: tuple = (224, 224, 3)

    has_bytes = True

    def __post_init__(self):
        folders.check_class_names(self.class_names)

    def statistics(self):
        """Mean and standard deviation of ImageNet's pixels per channel: two float32 arrays."""
        return MEAN, STD

    def fitted(self, image_shape):
        """The same images in another size.

        Raises:
            DataError: they are to have another depth.
        """
        if image_shape[-1] != 3:
            raise datasets.DataError(f"its images have 3 channels: the model expects {image_shape[-1]}.")
        return dataclasses.replace(self, image_shape=tuple(image_shape))

    def batches(
        self, batch_size, augmentation=datasets.NO_AUGMENTATION, seed=0, train_portion=1.0, worker=ALONE, devices=1
    ):
        """As `Dataset.batches`; a random part of the image takes the place of the padded crop."""
        if train_portion < 1:
            raise datasets.DataError("images that are streamed cannot be split.")
        if batch_size > len(self.y_train):
            raise datasets.DataError(f"there are {len(self.y_train)} images to train on: expected at most that.")
        augmentation = dataclasses.replace(augmentation, padding=0)

        steps = len(self.y_train) // batch_size

        def cut(number, batch):
            def one(index, encoded):
                index = index * worker.count + worker.index  # among the images of all workers
                own = tf.random.fold_in(tf.random.fold_in(tf.stack([tf.constant(seed, tf.int64), 1]), number), index)
                return jittered(random_part(encoded, self.image_shape[:2], own), own)

            index, (encoded, labels, names) = batch
            return images.each(one, names, (index, encoded), self._spec), labels

        def epoch(number, done):
            size = batch_size // worker.count
            examples = self.train(number, seed, worker).enumerate().skip(done * size).take((steps - done) * size)
            batches = examples.batch(size, drop_remainder=True).enumerate(done)
            return batches.map(lambda batch, examples: (number, batch, examples))

        def augment(number, batch, examples):
            x, y = cut(number, examples)
            own = tf.random.fold_in(tf.random.fold_in(tf.stack([tf.constant(seed, tf.int64), 2]), number), batch)
            x = augmentation(x, own, MEAN, worker)
            return augmentation.mixed(x, y, len(self.class_names), own) if augmentation.mixes else (x, y)

        def batches(start=0):
            made = datasets.from_step(epoch, start, steps).map(augment, num_parallel_calls=tf.data.AUTOTUNE)
            return made.prefetch(tf.data.AUTOTUNE)

        return batches, steps, None

    def test_batches(self, batch_size=128):
        """As `Dataset.test_batches`: of each image the middle, 224 of 256 parts of its shorter side."""

        def middle(encoded, labels, names):
            def one(encoded):
                return middle_part(encoded, self.image_shape[:2])

            return images.each(one, names, (encoded,), self._spec), labels

        return self.test().batch(batch_size).map(middle, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

    @property
    def _spec(self):
        return tf.TensorSpec(self.image_shape, tf.float32)


def load(name, image_size=None, data_dir=None, tell=lambda line: None):
    """As `datasets.load`, for a folder of images or a name that tensorflow-datasets knows.

    Raises:
        DataError: there is no such data or it cannot be used.
    """
    folder = is_folder(name)
    if name == "digits" or (name.endswith(".npz") and not folder):
        raise datasets.DataError("images stay on disk here: expected a folder, or a name from tensorflow-datasets.")
    if isinstance(image_size, int):
        image_size = image_size, image_size
    stream = _from_folder(pathlib.Path(name), tell) if folder else _from_tfds(name, data_dir)
    return stream.fitted((*image_size, 3)) if image_size else stream


def _from_folder(folder, tell):
    found = folders.image_files(folder)
    for note in found.notes:
        tell(note)
    with tf.device("CPU"):
        train_numbers, test_numbers = tf.constant(np.flatnonzero(~found.test)), tf.constant(np.flatnonzero(found.test))
        files, labels = tf.constant([os.fsencode(file) for file in found.files]), tf.constant(found.labels)

    def read(chosen):
        def example(i):
            file = tf.gather(files, i)
            return tf.io.read_file(file), tf.gather(labels, i), file

        return chosen.map(example, tf.data.AUTOTUNE)

    def train_examples(epoch, seed, worker):
        order = tf.random.experimental.stateless_shuffle(train_numbers, tf.stack([seed, epoch]))
        return read(tf.data.Dataset.from_tensor_slices(worker.share(order)))

    def test_examples():
        return read(tf.data.Dataset.from_tensor_slices(test_numbers))

    return Stream(train_examples, test_examples, range(len(train_numbers)), found.class_names)


def _from_tfds(name, data_dir):
    import tensorflow_datasets as tfds

    builder = datasets.prepared_builder(name, data_dir)
    held_out = datasets.held_out_split(builder)
    if held_out is None:
        splits = ", ".join(builder.info.splits)
        raise datasets.DataError(f"its splits are {splits}: expected train and, with labels, test or validation.")

    def read(split):
        examples = builder.as_dataset(split=split, decoders={"image": tfds.decode.SkipDecoding()})
        named = examples.enumerate()
        return named.map(
            lambda place, example: (
                example["image"],
                tf.cast(example["label"], tf.int32),
                tf.strings.join([f"{name}, image ", tf.strings.as_string(place), f" of {split},"]),
            )
        )

    examples = read("train")
    count = builder.info.splits["train"].num_examples

    def train_examples(epoch, seed, worker):
        own = tf.stack([tf.constant(seed, tf.int64), epoch])

        def shuffled(window, *examples):
            order = tf.range(tf.size(examples[1]))
            order = tf.random.experimental.stateless_shuffle(order, tf.random.fold_in(own, window))
            return tf.data.Dataset.from_tensor_slices(tuple(tf.gather(values, order) for values in examples))

        start = tf.random.stateless_uniform([], own, maxval=min(BUFFER, count), dtype=tf.int64)
        rotated = examples.skip(start).concatenate(examples.take(start))
        windows = rotated.batch(BUFFER).enumerate()
        return windows.flat_map(lambda window, batch: shuffled(window, *batch)).shard(worker.count, worker.index)

    return Stream(train_examples, lambda: read(held_out), range(count), list(builder.info.features["label"].names))
