"""Image classification data: from a name, a folder or a file to images, and from images to batches."""

import dataclasses
import functools
import math
import pathlib
import zipfile

import numpy as np
import tensorflow as tf

from darts_tf.data import folders
from darts_tf.data import images as sources
from darts_tf.data.augmentation import Augmentation
from darts_tf.data.folders import DataError
from darts_tf.data.names import EXPECTED, is_folder
from darts_tf.data.tasks import ImageClassification
from darts_tf.devices.cluster import ALONE

DIGITS = pathlib.Path(__file__).with_name("digits.npz")
NO_AUGMENTATION = Augmentation()
SMALLEST = 8  # pixels, since two reduction cells must leave something
PIXELS = ("uint8", "int8", "uint16", "int16", "int32", "int64", "float16", "float32", "float64")
MOST_CLASSES = 1_000_000
KEYS = ("x_train", "y_train", "x_test", "y_test")


class Labelled:
    """What is said of images with labels, wherever they are kept."""

    @property
    def task(self):
        """What is asked of these images, `darts_tf.data.tasks.ImageClassification`."""
        return ImageClassification(self.image_shape, len(self.class_names), self.statistics())

    def complete(self, model):
        """The model that takes images as they are in files, of one that takes those of `batches`: the same."""
        return model

    def description(self):
        """What config.json keeps of the data, a dict."""
        mean, std = self.statistics()
        return {
            "image_shape": self.image_shape,
            "class_names": self.class_names,
            "mean": mean.tolist(),
            "std": std.tolist(),
        }

    def in_words(self):
        """The images in a few words."""
        height, width, depth = self.image_shape
        colour = {1: "grey", 3: "colour"}.get(depth, f"{depth}-channel")
        return f"{len(self.y_train):,} {colour} {height}x{width} images of {len(self.class_names)} classes"


class Samples:
    """What is said of samples with labels, all of them in memory or on disk: parts and batches of them.

    A subclass has y_train, (n,), and

    train_samples: (n, ...), an array, or `images.Images`.
    items: what samples are called, "images".
    """

    items = None

    def statistics(self):
        """Mean and standard deviation to normalise by, of the last axis."""
        return 0.0, 1.0

    def batches(self, batch_size, augmentation=NO_AUGMENTATION, seed=0, train_portion=1.0, worker=ALONE, devices=1):
        """Batches to train on, not normalised.

        Args:
            batch_size, augmentation, seed, worker: as in `training_batches`.
            train_portion: part of the samples to train on, up to 1; the rest is for validation.
            devices: as in `evaluation_batches`.

        Returns:
            The batches as a function, see `training_batches`, the number of steps in an epoch, and a `tf.data.Dataset`
            of the samples for validation, None if there are none.

        Raises:
            DataError: there are too few samples for a batch.
        """
        order = np.random.default_rng(seed).permutation(len(self.y_train))
        chosen, rest = np.split(order, [round(train_portion * len(order))])
        if batch_size > len(chosen):
            raise DataError(f"there are {len(chosen)} {self.items} to train on: expected at most that.")
        x, y = self.train_samples, self.y_train
        # Without a hole there is no need to know the mean.
        statistics = self.statistics() if augmentation.cutout else (0.0, 1.0)
        classes = len(self.class_names) if augmentation.mixes else None
        train = training_batches(
            x[chosen], y[chosen], batch_size, statistics, augmentation, seed, worker, normalized=False, classes=classes
        )
        valid = None
        if len(rest):
            valid = evaluation_batches(x[rest], y[rest], batch_size, worker=worker, devices=devices)
        return train, len(chosen) // batch_size, valid

    def search_batches(
        self, batch_size, augmentation=NO_AUGMENTATION, seed=0, train_portion=0.5, worker=ALONE, devices=1
    ):
        """Splits the training samples between weights and alphas (section 3.1 of the paper).

        Args:
            batch_size: samples in each of the two batches of a step.
            train_portion: the part of the samples for the weights, between 0 and 1.
            augmentation: `Augmentation` of images, for both.
            seed: int.
            worker: as in `training_batches`.
            devices: as in `evaluation_batches`.

        Returns:
            The batches as a function, see `training_batches`, of pairs ((x, y), (x_valid, y_valid)), the number of
            steps in an epoch, and a `tf.data.Dataset` of the samples for alpha, for evaluation.

        Raises:
            DataError: a part is smaller than a batch.
        """
        order = np.random.default_rng(seed).permutation(len(self.y_train))
        parts = np.split(order, [int(train_portion * len(order))])
        smallest = min(len(part) for part in parts)
        if batch_size > smallest:
            raise DataError(
                f"a batch of {batch_size} is larger than a split of the data ({len(parts[0])} {self.items} for the "
                f"weights, {len(parts[1])} for alpha): expected at most {smallest}."
            )
        statistics = self.statistics()
        splits = [(self.train_samples[part], self.y_train[part]) for part in parts]
        weights, alphas = (
            training_batches(*split, batch_size, statistics, augmentation, 2 * seed + i, worker)
            for i, split in enumerate(splits)
        )
        valid = evaluation_batches(*splits[1], batch_size, statistics, worker, devices)

        def batches(start=0):
            return tf.data.Dataset.zip(weights(start), alphas(start))

        return batches, len(parts[0]) // batch_size, valid


@dataclasses.dataclass
class Dataset(Labelled, Samples):
    """Images of one size.

    x_train, x_test: (n, height, width, depth), integers or floats: arrays, which must not change any more, or
        `images.OnDisk`.
    y_train, y_test: (n,) int32, indices into `class_names`.

    Raises:
        DataError: shapes or types are others, there are NaNs, images smaller than 8x8, or fewer than 2 classes.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: list

    items = "images"

    def __post_init__(self):
        folders.check_class_names(self.class_names)
        self.x_train, self.x_test = (x[..., None] if x.ndim == 3 else x for x in (self.x_train, self.x_test))
        self.x_train, self.x_test = (
            x if x.dtype.isnative else x.astype(x.dtype.newbyteorder("=")) for x in (self.x_train, self.x_test)
        )
        self.y_train, self.y_test = (_labels(y, len(self.class_names)) for y in (self.y_train, self.y_test))
        for split, x, y in (("train", self.x_train, self.y_train), ("test", self.x_test, self.y_test)):
            if x.ndim != 4 or x.dtype.name not in PIXELS or not x.shape[-1]:
                expected = f"expected images (n, height, width[, depth]) of {', '.join(PIXELS)}"
                raise DataError(f"x_{split} is {x.dtype}{list(x.shape)}: {expected}.")
            if len(x) != len(y) or not len(x):
                raise DataError(
                    f"{len(x)} images but {len(y)} labels in the {split} split: expected as many, and some."
                )
            if min(x.shape[1:3]) < SMALLEST:
                size = f"{x.shape[1]}x{x.shape[2]}"
                raise DataError(f"the images are {size}: expected at least {SMALLEST}x{SMALLEST} pixels.")
            if x.dtype.kind == "f" and not all(_is_finite(chunk) for chunk in sources.of(x).chunks()):
                raise DataError(f"x_{split} holds NaN or infinite values: expected finite ones, as float32.")
        if self.x_train.shape[1:] != self.x_test.shape[1:]:
            raise DataError(
                f"{self.x_train.shape[1:]} in training and {self.x_test.shape[1:]} in test: expected one shape."
            )

    @functools.cached_property
    def train_samples(self):
        """x_train as `images.Images`."""
        return sources.of(self.x_train)

    @property
    def has_bytes(self):
        """Whether pixels are from 0 to 255."""
        return self.train_samples.dtype == np.uint8

    @functools.cached_property
    def _statistics(self):
        return sources.moments(self.train_samples.chunks())

    def read(self, progress):
        """Reads all images once, so that a file on disk that is damaged is known, and keeps the statistics.

        Args:
            progress: as `darts_tf.cli.messages.progress`.

        Raises:
            DataError: a file cannot be read, and which.
        """
        self._statistics = sources.moments(
            progress(self.train_samples.chunks(), len(self.train_samples), "Reading images")
        )
        for _ in progress(sources.of(self.x_test).chunks(), len(self.x_test), "Reading test images"):
            pass

    @property
    def image_shape(self):
        """(height, width, depth)."""
        return self.x_train.shape[1:]

    def statistics(self):
        """Mean and standard deviation of the training images, per channel of depth: two float32 arrays."""
        mean, std = self._statistics
        return mean.astype(np.float32), np.maximum(std, 1e-6).astype(np.float32)

    def test_batches(self, batch_size=128):
        """The test images once, in order, not normalised, as a `tf.data.Dataset` of (x, y)."""
        return evaluation_batches(self.x_test, self.y_test, batch_size)

    def fitted(self, image_shape):
        """The same images resized to (height, width), grey ones with as many equal channels as (..., depth) says.

        Raises:
            DataError: they have another depth and are not grey.
        """
        height, width, depth = image_shape
        if self.image_shape[-1] not in (1, depth):
            raise DataError(f"its images have {self.image_shape[-1]} channels: the model expects {depth}.")

        def fit(x):
            if isinstance(x, sources.OnDisk):
                return x.fitted(image_shape)
            x = x if x.shape[1:3] == (height, width) else _resized(x, height, width)
            return x if x.shape[-1] == depth else np.repeat(x, depth, axis=-1)

        return dataclasses.replace(self, x_train=fit(self.x_train), x_test=fit(self.x_test))


def _labels(y, classes):
    """Labels as (n,) int32."""
    y = np.asarray(y)
    if y.dtype.kind not in "iu":
        raise DataError(f"labels are {y.dtype}: expected integers from 0.")
    if y.ndim not in (1, 2) or y.shape[1:] not in ((), (1,)):
        raise DataError(f"labels are {list(y.shape)}: expected one integer per image, (n,) or (n, 1).")
    if y.min(initial=0) < 0 or y.max(initial=0) >= classes:
        wrong = y.min() if y.min() < 0 else y.max()
        raise DataError(f"a label is {wrong}: expected integers from 0 to {classes - 1}, one per class.")
    return y.reshape(-1).astype(np.int32)


def _is_finite(x):
    with np.errstate(over="ignore"):
        return np.isfinite(x.astype(np.float32)).all()


def load(
    name,
    image_size=None,
    data_dir=None,
    stream=False,
    tell=lambda line: None,
    progress=lambda chunks, total, what: chunks,
):
    """Reads a dataset.

    Args:
        name: "digits" (ships with the package), a folder of images (see `folders.image_files`), a `.npz` file with
            x_train, y_train, x_test, y_test and, if the classes have names, class_names, or a name that
            tensorflow-datasets knows. Where there is no test split, every fifth image of a class becomes one.
        image_size: height and width to resize to, one number or two; None leaves the images as they are, or makes
            those of a folder 32x32 if they differ.
        data_dir: where tensorflow-datasets keeps its data; None is its own default.
        stream: whether the images of a folder stay on disk; the batches are the same, bit for bit. See `Dataset.read`.
        tell: called with lines for the user: what was left out or resized.
        progress: as `darts_tf.cli.messages.progress`.

    Returns:
        `Dataset`.

    Raises:
        DataError: there is no such data or it cannot be used.
    """
    if isinstance(image_size, int):
        image_size = image_size, image_size
    if is_folder(name):
        return _from_folder(pathlib.Path(name), image_size, stream, tell, progress)
    if stream:
        raise DataError("images stay on disk with --stream: expected a folder with one folder of images per class.")
    if name == "digits":
        with np.load(DIGITS) as arrays:
            # Their pixels go from 0 to 16; elsewhere, in PNG files for example, from 0 to 255.
            images, labels = np.rint(arrays["images"] * (255 / 16)).astype(np.uint8), arrays["labels"]
        data = _split(images, labels, [str(digit) for digit in range(10)])
    elif name.endswith(".npz"):
        data = _from_npz(pathlib.Path(name))
    else:
        data = _from_tfds(name, data_dir)
    return data.fitted((*image_size, data.image_shape[-1])) if image_size else data


def _split(images, labels, class_names):
    test = folders.every_fifth(labels)
    return Dataset(images[~test], labels[~test], images[test], labels[test], class_names)


def _resized(images, height, width):
    size = np.array([height, width], np.int32)
    result = np.empty((len(images), height, width, images.shape[-1]), images.dtype)
    for i in range(0, len(images), 256):
        result[i : i + 256] = _like(_resize(images[i : i + 256], size).numpy(), images.dtype)
    return result


@functools.partial(tf.function, autograph=False, reduce_retracing=True)  # one for all sizes, so that few are traced
def _resize(images, size):
    return tf.image.resize(images, size, antialias=True)


def _like(images, dtype):
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        return np.clip(np.rint(images), limits.min, limits.max).astype(dtype)
    return images.astype(dtype)


def _from_npz(path):
    expected = f"expected a .npz with {', '.join(KEYS)}"
    if not path.is_file():  # a pipe, for example, might never end
        raise DataError(f"no such file: {expected}.")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            missing = [key for key in KEYS if key not in members]
            if missing:
                raise DataError(f"no {', '.join(missing)} in the file: {expected}.")
            names = [key for key in (*KEYS, "class_names") if key in members]
            for name in names:
                _check_member(archive, members[name], name)
        sources.check_memory(sum(members[name].file_size for name in names), "images of fewer pixels, or fewer")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in names}
    except DataError:
        raise
    except Exception as error:  # of every kind: zip, its compressions, numpy, memory
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"not a readable .npz file ({reason}): {expected}.") from None
    labels = [arrays[name] for name in ("y_train", "y_test")]
    most = max((int(y.max()) for y in labels if y.size and y.dtype.kind in "iu"), default=0)
    class_names = arrays.pop("class_names", None)
    if class_names is None:
        if most >= MOST_CLASSES:
            raise DataError(f"a label is {most}: expected integers from 0, one per class, below {MOST_CLASSES:,}.")
        return Dataset(**arrays, class_names=[str(label) for label in range(most + 1)])
    if class_names.dtype.kind not in "SU" or class_names.ndim != 1 or len(class_names) <= most:
        shape = f"{class_names.dtype}{list(class_names.shape)}"
        raise DataError(f"class_names are {shape}: expected at least {most + 1} texts, one per class.")
    try:
        class_names = [n.decode() if isinstance(n, bytes) else n for n in class_names.tolist()]
    except UnicodeDecodeError as error:
        raise DataError(f"class_names: {error}; expected texts.") from None
    return Dataset(**arrays, class_names=class_names)


def _check_member(archive, info, name):
    """Raises DataError if an array of an archive is of objects, or not as large as it says, before it is read."""
    if info.flag_bits & 1:
        raise DataError("the file is encrypted: expected one without a password.")
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if read is None:
            raise DataError(f"{name} has named fields: expected an array of numbers.")
        shape, _, dtype = read(file)
        start = file.tell()
    if dtype.hasobject:
        raise DataError(f"{name} is an array of Python objects: expected one of numbers.")
    promised = start + math.prod(shape) * dtype.itemsize
    if promised != info.file_size:
        raise DataError(f"{name} says that it is {dtype}{list(shape)}: expected as much as there is in the file.")


def _from_folder(folder, image_size, stream, tell, progress):
    found = folders.image_files(folder)
    for note in found.notes:
        tell(note)
    images = sources.OnDisk(found.files, image_size, tell, progress)
    x_train, x_test = images[np.flatnonzero(~found.test)], images[np.flatnonzero(found.test)]
    data = Dataset(x_train, found.labels[~found.test], x_test, found.labels[found.test], found.class_names)
    if stream:
        return data
    arrays = {
        "x_train": x_train.array(lambda chunks: progress(chunks, len(x_train), "Reading images")),
        "x_test": x_test.array(lambda chunks: progress(chunks, len(x_test), "Reading test images")),
    }
    return dataclasses.replace(data, **arrays)


def prepared_builder(
    name, data_dir, needed=("image", "label"), expected=f"{EXPECTED}, such as cifar10 or fashion_mnist"
):
    """A `tfds.core.DatasetBuilder` whose data is on this machine now.

    Args:
        name: of the dataset.
        data_dir: where tensorflow-datasets keeps its data; None is its own default.
        needed: names of what examples must have.
        expected: what else would be accepted, the end of a message.

    Raises:
        DataError: there is no such dataset, or it could not be prepared.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        raise DataError(f"no such dataset: expected {expected}.") from error
    except Exception as error:  # of every kind, for versions and options that it does not know
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise DataError(f"tensorflow-datasets does not know it ({reason[:200]}): expected {expected}.") from error
    try:
        builder.download_and_prepare()
    except Exception as error:  # of every kind: network, disk, checksums
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"tensorflow-datasets could not prepare it: {reason}") from error
    features = builder.info.features
    if not set(needed) <= set(features):
        raise DataError(f"it holds {', '.join(features)}: expected a dataset of {' and '.join(needed)}.")
    return builder


def _from_tfds(name, data_dir):
    builder = prepared_builder(name, data_dir)
    features = builder.info.features
    if None in features["image"].shape:
        raise DataError(
            "its images differ in size: expected one size, a folder of images, or darts_tf.train --recipe=imagenet."
        )
    class_names = list(features["label"].names)

    def arrays(split):
        whole = builder.as_dataset(split=split, batch_size=-1)
        return whole["image"].numpy(), whole["label"].numpy()

    test = held_out_split(builder)
    return Dataset(*arrays("train"), *arrays(test), class_names) if test else _split(*arrays("train"), class_names)


def held_out_split(builder):
    """The name of the split of a prepared builder to test on, one that has labels; None if there is none.

    Raises:
        DataError: there is no split to train on.
    """
    if "train" not in builder.info.splits:
        raise DataError(f"its splits are {', '.join(builder.info.splits)}: expected train, and test or validation.")

    def has_labels(split):  # where they are kept back they are -1
        some = builder.as_dataset(split=split).take(100)
        return min((int(example["label"]) for example in some), default=-1) >= 0

    return next((name for name in ("test", "validation") if name in builder.info.splits and has_labels(name)), None)


def training_batches(
    images,
    labels,
    batch_size,
    statistics,
    augmentation=NO_AUGMENTATION,
    seed=0,
    worker=ALONE,
    normalized=True,
    classes=None,
):
    """Endless shuffled batches; every epoch drops the images that do not fill a batch.

    All that is random is drawn from (seed, epoch, place in the epoch).

    Args:
        images, labels: array (n, height, width, depth), or `images.Images`, or (n, ...) that is not augmented, and
            array (n,).
        batch_size: images in a batch, at most n; a multiple of the number of workers.
        statistics: mean and standard deviation per channel, see `Dataset.statistics`.
        augmentation: `Augmentation`.
        seed: int.
        worker: `Worker`, whose share of each batch this is to be. All together they make the batches of one alone.
        normalized: whether to subtract the mean and divide by the standard deviation.
        classes: how many there are, of an augmentation that mixes images.

    Returns:
        Function of the number of batches that a run has seen already -> endless `tf.data.Dataset` of those that follow,
        x (batch, height, width, depth) float32 and y (batch,) int32; of mixed images y (batch, classes) float32.
    """
    images = sources.of(images)
    read = images.reader()
    with tf.device("CPU"):
        labels = tf.constant(labels)
    mean, std = statistics

    def epoch(number, done):
        order = tf.random.experimental.stateless_shuffle(tf.range(len(labels)), seed=tf.stack([seed, number]))
        places = tf.data.Dataset.from_tensor_slices(order).batch(batch_size, drop_remainder=True).enumerate()
        return places.skip(done).map(lambda batch, chosen: (number, batch, chosen))

    def fetch(number, batch, chosen):
        own = tf.random.fold_in(tf.random.fold_in(tf.stack([tf.constant(seed, tf.int64), 0]), number), batch)
        chosen = worker.share(chosen)
        x, y = augmentation(read(chosen), own, mean, worker), tf.gather(labels, chosen)
        x, y = augmentation.mixed(x, y, classes, own) if augmentation.mixes else (x, y)
        x = (x - mean) / std if normalized else x
        return tf.ensure_shape(x, [*chosen.shape, *images.shape[1:]]), y

    def batches(start=0):
        places = from_step(epoch, start, len(labels) // batch_size)
        return places.map(fetch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

    return batches


def from_step(epoch, start, steps):
    """Endless examples from a step of training on.

    Args:
        epoch: function of an epoch's number, an int64 scalar, and of steps to leave out -> `tf.data.Dataset`.
        start: steps to leave out at the beginning.
        steps: steps in an epoch.
    """
    first, done = divmod(start, steps)
    rest = tf.data.Dataset.counter(start=first + 1).flat_map(lambda number: epoch(number, 0))
    return epoch(tf.constant(first, tf.int64), done).concatenate(rest)


def evaluation_batches(images, labels, batch_size, statistics=(0.0, 1.0), worker=ALONE, devices=1):
    """All images once, float32, normalised if statistics are given; else as `training_batches`.

    There are as few batches of at most `batch_size` images as possible, all of about the same size, so that each
    device of each worker gets its share of each. Where some would get none, batches are larger: convolutions of oneDNN
    (TensorFlow 2.21, x86) fail on no images.

    Args:
        devices: how many devices of all workers share the batches.

    Raises:
        DataError: there are fewer images than devices.
    """
    mean, std = statistics
    least = devices // worker.count  # images in a batch of this worker
    share = len(labels) // worker.count
    if share < least:
        raise DataError(f"{len(labels)} images to validate on are fewer than {devices} devices: expected one for each.")
    steps = -(-len(labels) // batch_size)
    if share // steps < least:
        steps = share // least
    read = worker.share(sources.of(images)).reader()
    with tf.device("CPU"):
        labels = tf.constant(worker.share(labels))

    def fetch(step):
        begin, end = (tf.cast(i * len(labels) // steps, tf.int32) for i in (step, step + 1))
        return (tf.cast(read(tf.range(begin, end)), tf.float32) - mean) / std, labels[begin:end]

    return tf.data.Dataset.range(steps).map(fetch).prefetch(tf.data.AUTOTUNE)
