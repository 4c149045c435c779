"""Image sets too large for memory: files are read, cut to size and augmented while training goes on.

This is the original's pipeline for ImageNet: a random part of the image resized to 224x224, mirrored and
changed in colour; for testing the middle of the image.
"""

import dataclasses
import pathlib

import numpy as np
import tensorflow as tf

from darts_tf import datasets
from darts_tf.augmentation import jittered, middle_part, random_part
from darts_tf.workers import ALONE

# Of the pixels of ImageNet, from 0 to 255.
MEAN = 255 * np.array([0.485, 0.456, 0.406], np.float32)
STD = 255 * np.array([0.229, 0.224, 0.225], np.float32)
BUFFER = 10_000  # examples to shuffle at a time where they can only be read in order


@dataclasses.dataclass
class Stream:
    """Encoded colour images; offers what `datasets.Dataset` offers for training.

    train: function of an epoch, a seed and a `Worker` -> `tf.data.Dataset` of (encoded image, label) in that epoch's
        order, of the worker's share.
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

    def batches(self, batch_size, augmentation, seed=0, portion=1.0, worker=ALONE):
        """As `Dataset.batches`; a random part of the image takes the place of the padded crop."""
        if portion < 1:
            raise datasets.DataError("images that are streamed cannot be split.")
        if batch_size > len(self.y_train):
            raise datasets.DataError(f"there are {len(self.y_train)} images to train on: expected at most that.")
        augmentation = dataclasses.replace(augmentation, padding=0)

        steps = len(self.y_train) // batch_size

        def cut(number, index, encoded, label):
            index = index * worker.count + worker.index  # among the images of all workers
            own = tf.random.fold_in(tf.random.fold_in(tf.stack([tf.constant(seed, tf.int64), 1]), number), index)
            return jittered(random_part(encoded, self.image_shape[:2], own), own), label

        def epoch(number, done):
            size = batch_size // worker.count
            examples = self.train(number, seed, worker).enumerate().skip(done * size).take((steps - done) * size)
            examples = examples.map(lambda index, example: (number, index, *example))
            batches = examples.map(cut, num_parallel_calls=tf.data.AUTOTUNE).batch(size, drop_remainder=True)
            return batches.enumerate(done).map(lambda batch, example: (number, batch, *example))

        def augment(number, batch, x, y):
            own = tf.random.fold_in(tf.random.fold_in(tf.stack([tf.constant(seed, tf.int64), 2]), number), batch)
            return augmentation(x, own, MEAN, worker), y

        def batches(start=0):
            images = datasets.from_step(epoch, start, steps).map(augment, num_parallel_calls=tf.data.AUTOTUNE)
            return images.prefetch(tf.data.AUTOTUNE)

        return batches, steps, None

    def test_batches(self, batch_size=128):
        """As `Dataset.test_batches`: of each image the middle, 224 of 256 parts of its shorter side."""

        def middle(encoded, label):
            return middle_part(encoded, self.image_shape[:2]), label

        return self.test().map(middle, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size).prefetch(tf.data.AUTOTUNE)


def load(name, image_size=None, data_dir=None):
    """As `datasets.load`, for a folder of images or a name that tensorflow-datasets knows.

    Raises:
        DataError: there is no such data or it cannot be used.
    """
    path = pathlib.Path(name)
    if name == "digits" or path.suffix == ".npz":
        raise datasets.DataError("images stay on disk here: expected a folder, or a name from tensorflow-datasets.")
    if isinstance(image_size, int):
        image_size = image_size, image_size
    stream = _from_folder(path) if path.is_dir() else _from_tfds(name, data_dir)
    return stream.fitted((*image_size, 3)) if image_size else stream


def _from_folder(folder):
    files, labels, test, class_names = datasets.image_files(folder)
    with tf.device("CPU"):
        train_numbers, test_numbers = tf.constant(np.flatnonzero(~test)), tf.constant(np.flatnonzero(test))
        files, labels = tf.constant(files), tf.constant(labels)

    def read(chosen):
        return chosen.map(lambda i: (tf.io.read_file(tf.gather(files, i)), tf.gather(labels, i)), tf.data.AUTOTUNE)

    def train_examples(epoch, seed, worker):
        order = tf.random.experimental.stateless_shuffle(train_numbers, tf.stack([seed, epoch]))
        return read(tf.data.Dataset.from_tensor_slices(worker.share(order)))

    def test_examples():
        return read(tf.data.Dataset.from_tensor_slices(test_numbers))

    return Stream(train_examples, test_examples, range(len(train_numbers)), class_names)


def _from_tfds(name, data_dir):
    import tensorflow_datasets as tfds

    builder = datasets.prepared_builder(name, data_dir)
    held_out = next((split for split in ("test", "validation") if split in builder.info.splits), None)
    if "train" not in builder.info.splits or held_out is None:
        raise datasets.DataError(f"its splits are {', '.join(builder.info.splits)}: expected train and validation.")

    def read(split, **options):
        examples = builder.as_dataset(split=split, decoders={"image": tfds.decode.SkipDecoding()}, **options)
        return examples.map(lambda example: (example["image"], tf.cast(example["label"], tf.int32)))

    examples = read("train")
    count = builder.info.splits["train"].num_examples

    def train_examples(epoch, seed, worker):
        own = tf.stack([tf.constant(seed, tf.int64), epoch])

        def shuffled(window, images, labels):
            order = tf.range(tf.size(labels))
            order = tf.random.experimental.stateless_shuffle(order, tf.random.fold_in(own, window))
            return tf.data.Dataset.from_tensor_slices((tf.gather(images, order), tf.gather(labels, order)))

        start = tf.random.stateless_uniform([], own, maxval=min(BUFFER, count), dtype=tf.int64)
        rotated = examples.skip(start).concatenate(examples.take(start))
        windows = rotated.batch(BUFFER).enumerate()
        return windows.flat_map(lambda window, batch: shuffled(window, *batch)).shard(worker.count, worker.index)

    return Stream(train_examples, lambda: read(held_out), range(count), list(builder.info.features["label"].names))
