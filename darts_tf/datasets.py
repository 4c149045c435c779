"""Image classification data: from a name, a folder or a file to arrays, and from arrays to batches."""

import concurrent.futures
import dataclasses
import pathlib
import zipfile

import numpy as np
import tensorflow as tf

from darts_tf.augmentation import Augmentation
from darts_tf.workers import ALONE

DIGITS = pathlib.Path(__file__).parent / "data" / "digits.npz"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")
NO_AUGMENTATION = Augmentation()
SMALLEST = 8  # pixels, since two reduction cells must leave something


class DataError(ValueError):
    """The data cannot be used; the message says what is wrong and what would be accepted."""


@dataclasses.dataclass
class Dataset:
    """Images in memory, of one size.

    x_train, x_test: (n, height, width, depth), uint8 or float.
    y_train, y_test: (n,) int32, indices into `class_names`.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: list

    def __post_init__(self):
        self.x_train, self.x_test = (x[..., None] if x.ndim == 3 else x for x in (self.x_train, self.x_test))
        self.y_train, self.y_test = (np.asarray(y).reshape(-1).astype(np.int32) for y in (self.y_train, self.y_test))
        for split, x, y in (("train", self.x_train, self.y_train), ("test", self.x_test, self.y_test)):
            if x.ndim != 4 or not np.issubdtype(x.dtype, np.number):
                raise DataError(f"x_{split} is {x.dtype}{list(x.shape)}: expected images (n, height, width[, depth]).")
            if len(x) != len(y) or not len(x):
                raise DataError(
                    f"{len(x)} images but {len(y)} labels in the {split} split: expected as many, and some."
                )
            if min(x.shape[1:3]) < SMALLEST:
                size = f"{x.shape[1]}x{x.shape[2]}"
                raise DataError(f"the images are {size}: expected at least {SMALLEST}x{SMALLEST} pixels.")
            if not np.isfinite(x).all():
                raise DataError(f"x_{split} holds NaN or infinite values: expected finite ones.")
        if self.x_train.shape[1:] != self.x_test.shape[1:]:
            raise DataError(
                f"{self.x_train.shape[1:]} in training and {self.x_test.shape[1:]} in test: expected one shape."
            )
        if len(self.class_names) < 2:
            raise DataError(f"only the class {self.class_names[0]}: expected at least 2 classes.")

    @property
    def image_shape(self):
        """(height, width, depth)."""
        return self.x_train.shape[1:]

    def statistics(self):
        """Mean and standard deviation of the training images, per channel of depth: two float32 arrays."""
        x = self.x_train.reshape(-1, self.x_train.shape[-1])
        mean, std = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
        return mean.astype(np.float32), np.maximum(std, 1e-6).astype(np.float32)

    def batches(self, batch_size, augmentation, seed=0, portion=1.0, worker=ALONE):
        """Batches to train on, not normalised.

        Args:
            batch_size, augmentation, seed, worker: as in `training_batches`.
            portion: part of the images to train on, up to 1; the rest is for validation.

        Returns:
            The batches as a function, see `training_batches`, the number of steps in an epoch, and a `tf.data.Dataset`
            of the images for validation, None if there are none.

        Raises:
            DataError: there are too few images for a batch.
        """
        order = np.random.default_rng(seed).permutation(len(self.y_train))
        chosen, rest = np.split(order, [round(portion * len(order))])
        if batch_size > len(chosen):
            raise DataError(f"there are {len(chosen)} images to train on: expected at most that.")
        x, y = self.x_train, self.y_train
        train = training_batches(
            x[chosen], y[chosen], batch_size, self.statistics(), augmentation, seed, worker, normalized=False
        )
        valid = evaluation_batches(x[rest], y[rest], batch_size, worker=worker) if len(rest) else None
        return train, len(chosen) // batch_size, valid

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
            x = x if x.shape[1:3] == (height, width) else _resized(x, height, width)
            return x if x.shape[-1] == depth else np.repeat(x, depth, axis=-1)

        return dataclasses.replace(self, x_train=fit(self.x_train), x_test=fit(self.x_test))


def load(name, image_size=None, data_dir=None):
    """Reads a dataset.

    Args:
        name: "digits" (ships with the package), a folder with one folder of images per class, a `.npz` file with
            x_train, y_train, x_test, y_test, or a name that tensorflow-datasets knows. Where there is no test split,
            every fifth image of a class becomes one.
        image_size: height and width to resize to, one number or two; None leaves the images as they are.
        data_dir: where tensorflow-datasets keeps its data; None is its own default.

    Returns:
        `Dataset`.

    Raises:
        DataError: there is no such data or it cannot be used.
    """
    path = pathlib.Path(name)
    if isinstance(image_size, int):
        image_size = image_size, image_size
    if name == "digits":
        with np.load(DIGITS) as arrays:
            # Their pixels go from 0 to 16; elsewhere, in PNG files for example, from 0 to 255.
            images, labels = np.rint(arrays["images"] * (255 / 16)).astype(np.uint8), arrays["labels"]
        data = _split(images, labels, _every_fifth(labels), [str(digit) for digit in range(10)])
    elif path.is_dir():
        return _from_folder(path, image_size)
    elif path.suffix == ".npz":
        data = _from_npz(path)
    else:
        data = _from_tfds(name, data_dir)
    return data.fitted((*image_size, data.image_shape[-1])) if image_size else data


def _every_fifth(labels):
    test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        test[np.flatnonzero(labels == label)[4::5]] = True
    return test


def _split(images, labels, test, class_names):
    return Dataset(images[~test], labels[~test], images[test], labels[test], class_names)


def _resized(images, height, width):
    resize = tf.function(lambda x: tf.image.resize(x, [height, width], antialias=True))
    parts = [resize(images[i : i + 256]).numpy() for i in range(0, len(images), 256)]
    return _like(np.concatenate(parts), images.dtype)


def _like(images, dtype):
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        return np.clip(np.rint(images), limits.min, limits.max).astype(dtype)
    return images.astype(dtype)


def _from_npz(path):
    keys = ("x_train", "y_train", "x_test", "y_test")
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in keys if key not in file.files]
            if missing:
                raise DataError(f"no {', '.join(missing)} in the file: expected {', '.join(keys)}.")
            arrays = {key: file[key] for key in keys}
    except FileNotFoundError:
        raise DataError("no such file: expected a .npz with " + ", ".join(keys) + ".") from None
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"not a readable .npz file ({error}): expected {', '.join(keys)}.") from None
    labels = np.concatenate([arrays["y_train"].reshape(-1), arrays["y_test"].reshape(-1)])
    if not np.issubdtype(labels.dtype, np.integer) or labels.min(initial=0) < 0:
        raise DataError(f"labels are {labels.dtype}, from {labels.min()}: expected integers from 0.")
    return Dataset(**arrays, class_names=[str(label) for label in range(labels.max(initial=0) + 1)])


def image_files(folder):
    """Finds the images of a folder with one folder per class, or of folders train and test (or val...) of that kind.

    Args:
        folder: `pathlib.Path`.

    Returns:
        Paths (n,), labels (n,) int, whether each is a test image (n,) bool, and the class names. Without a test folder
        every fifth image of a class is one.

    Raises:
        DataError: the folder is otherwise.
    """
    if (folder / "train").is_dir():
        for name in ("test", "val", "valid", "validation"):
            if any(entry.is_dir() for entry in folder.glob(f"{name}/*")):
                files, labels, class_names = _class_files(folder / "train")
                test_files, test_labels, test_names = _class_files(folder / name)
                if test_names != class_names:
                    odd = sorted(set(test_names) ^ set(class_names))
                    raise DataError(f"train and {name} differ in the class {odd[0]}: expected the same folders.")
                test = np.repeat([False, True], [len(files), len(test_files)])
                return np.concatenate([files, test_files]), np.concatenate([labels, test_labels]), test, class_names
    files, labels, class_names = _class_files(folder)
    test = _every_fifth(labels)
    if not test.any():
        raise DataError("fewer than 5 images in each class, of which every fifth is for testing: expected more.")
    return files, labels, test, class_names


def _class_files(folder):
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    files = [
        [file for file in sorted(entry.rglob("*")) if file.suffix.lower() in IMAGE_SUFFIXES and file.name[0] != "."]
        for entry in classes
    ]
    expected = "expected one folder of images per class, at least 2"
    if not classes:
        raise DataError(f"no folders in it: {expected}.")
    empty = [entry.name for entry, inside in zip(classes, files, strict=True) if not inside]
    if empty:
        raise DataError(f"no images in its folder {empty[0]}: expected {', '.join(IMAGE_SUFFIXES)} files.")
    if len(classes) < 2:
        raise DataError(f"only the folder {classes[0].name}: {expected}.")
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), [len(inside) for inside in files])
    return np.array([str(file) for inside in files for file in inside]), labels, [entry.name for entry in classes]


def _from_folder(folder, image_size):
    files, labels, test, class_names = image_files(folder)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        images = list(pool.map(_read_image, files))
    depth = max(image.shape[-1] for image in images)
    images = [np.repeat(image, depth, axis=-1) if image.shape[-1] < depth else image for image in images]
    if len({image.shape for image in images}) > 1 and not image_size:
        image_size = 32, 32
    if image_size:
        images = np.concatenate([_resized(image[None], *image_size) for image in images])
    return _split(np.asarray(images), labels, test, class_names)


def _read_image(file):
    """Decodes to (height, width, 1 or 3) uint8."""
    try:
        image = tf.io.decode_image(tf.io.read_file(str(file)), expand_animations=False).numpy()
    except (tf.errors.OpError, OSError):
        raise DataError(f"{file} is not a readable image: expected PNG, JPEG, BMP or GIF.") from None
    return image[..., :3] if image.shape[-1] > 2 else image[..., :1]


def prepared_builder(name, data_dir):
    """A `tfds.core.DatasetBuilder` of images and labels whose data is on this machine now.

    Raises:
        DataError: there is no such dataset, or it could not be prepared.
    """
    import tensorflow_datasets as tfds

    expected = "digits, a folder with one folder of images per class, a .npz file, or a name from tensorflow-datasets"
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        raise DataError(f"no such dataset: expected {expected}, such as cifar10 or fashion_mnist.") from error
    try:
        builder.download_and_prepare()
    except Exception as error:  # of every kind: network, disk, checksums
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"tensorflow-datasets could not prepare it: {reason}") from error
    features = builder.info.features
    if not {"image", "label"} <= set(features):
        raise DataError(f"it holds {', '.join(features)}: expected a dataset of image and label.")
    return builder


def _from_tfds(name, data_dir):
    builder = prepared_builder(name, data_dir)
    features = builder.info.features
    if None in features["image"].shape:
        raise DataError("its images differ in size: expected one size, a folder of images, or --recipe=imagenet.")
    class_names = list(features["label"].names)
    arrays = {}
    for split in ("train", "test", "validation"):
        if split in builder.info.splits:
            whole = builder.as_dataset(split=split, batch_size=-1)
            arrays[split] = whole["image"].numpy(), whole["label"].numpy()
    test = arrays.get("test") or arrays.get("validation")
    if test is None:
        images, labels = arrays["train"]
        return _split(images, labels, _every_fifth(labels), class_names)
    return Dataset(*arrays["train"], *test, class_names)


def training_batches(
    images,
    labels,
    batch_size,
    statistics,
    augmentation=NO_AUGMENTATION,
    seed=0,
    worker=ALONE,
    normalized=True,
):
    """Endless shuffled batches; every epoch drops the images that do not fill a batch.

    All that is random is drawn from (seed, epoch, place in the epoch).

    Args:
        images, labels: arrays (n, height, width, depth) and (n,).
        batch_size: images in a batch, at most n; a multiple of the number of workers.
        statistics: mean and standard deviation per channel, see `Dataset.statistics`.
        augmentation: `Augmentation`.
        seed: int.
        worker: `Worker`, whose share of each batch this is to be. All together they make the batches of one alone.
        normalized: whether to subtract the mean and divide by the standard deviation.

    Returns:
        Function of the number of batches that a run has seen already -> endless `tf.data.Dataset` of those that follow,
        x (batch, height, width, depth) float32 and y (batch,) int32.
    """
    with tf.device("CPU"):
        images, labels = tf.constant(images), tf.constant(labels)
    mean, std = statistics

    def epoch(number, done):
        order = tf.random.experimental.stateless_shuffle(tf.range(len(labels)), seed=tf.stack([seed, number]))
        places = tf.data.Dataset.from_tensor_slices(order).batch(batch_size, drop_remainder=True).enumerate()
        return places.skip(done).map(lambda batch, chosen: (number, batch, chosen))

    def fetch(number, batch, chosen):
        own = tf.random.fold_in(tf.random.fold_in(tf.stack([tf.constant(seed, tf.int64), 0]), number), batch)
        chosen = worker.share(chosen)
        x = augmentation(tf.gather(images, chosen), own, mean, worker)
        x = (x - mean) / std if normalized else x
        return tf.ensure_shape(x, [*chosen.shape, *images.shape[1:]]), tf.gather(labels, chosen)

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


def evaluation_batches(images, labels, batch_size, statistics=(0.0, 1.0), worker=ALONE):
    """All images once, float32, normalised if statistics are given; else as `training_batches`.

    There are as few batches of at most `batch_size` images as possible, all of about the same size, so that each
    device of each worker gets its share of each.
    """
    mean, std = statistics
    steps = -(-len(labels) // batch_size)
    with tf.device("CPU"):
        images, labels = (tf.constant(worker.share(values)) for values in (images, labels))

    def fetch(step):
        begin, end = (tf.cast(i * len(labels) // steps, tf.int32) for i in (step, step + 1))
        return (tf.cast(images[begin:end], tf.float32) - mean) / std, labels[begin:end]

    return tf.data.Dataset.range(steps).map(fetch).prefetch(tf.data.AUTOTUNE)


def search_batches(data, batch_size, train_portion=0.5, augmentation=NO_AUGMENTATION, seed=0, worker=ALONE):
    """Splits the training images between weights and alphas (section 3.1 of the paper).

    Args:
        data: `Dataset`.
        batch_size: images in each of the two batches of a step.
        train_portion: the part of the images for the weights, between 0 and 1.
        augmentation: `Augmentation`, for both.
        seed: int.
        worker: as in `training_batches`.

    Returns:
        The batches as a function, see `training_batches`, of pairs ((x, y), (x_valid, y_valid)), the number of steps in
        an epoch, and a `tf.data.Dataset` of the images for alpha, for evaluation.

    Raises:
        DataError: a part is smaller than a batch.
    """
    order = np.random.default_rng(seed).permutation(len(data.y_train))
    parts = np.split(order, [int(train_portion * len(order))])
    smallest = min(len(part) for part in parts)
    if batch_size > smallest:
        raise DataError(
            f"a batch of {batch_size} is larger than a split of the data ({len(parts[0])} images for the weights, "
            f"{len(parts[1])} for alpha): expected at most {smallest}."
        )
    statistics = data.statistics()
    weights, alphas = (
        training_batches(
            data.x_train[part], data.y_train[part], batch_size, statistics, augmentation, 2 * seed + i, worker
        )
        for i, part in enumerate(parts)
    )
    valid = evaluation_batches(data.x_train[parts[1]], data.y_train[parts[1]], batch_size, statistics, worker)

    def batches(start=0):
        return tf.data.Dataset.zip(weights(start), alphas(start))

    return batches, len(parts[0]) // batch_size, valid
