"""Where batches get their images from: an array, or files that are decoded and resized when they are needed."""

import collections
import concurrent.futures
import copy
import io
import os
import re
import warnings

import numpy as np
import tensorflow as tf
from PIL import Image

from darts_tf.data.folders import DataError

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")
READABLE = "PNG, JPEG, BMP, GIF or WebP"
GREY = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "F"}  # Pillow's modes
UNREADABLE = "is not a readable image"
CHUNK = 1 << 24  # bytes
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Images:
    """Images of one size, of which a part can be chosen without a copy.

    Attributes:
        shape: (n, height, width, depth).
        dtype: of the pixels, as of numpy.
    """

    def __init__(self, shape, dtype):
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self._places = np.arange(shape[0], dtype=np.int32)

    @property
    def ndim(self):
        return len(self.shape)

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, chosen):
        """Those at some places: indices, or a slice."""
        part = copy.copy(self)
        part._places = self._places[chosen]
        part.shape = (len(part._places), *self.shape[1:])
        return part

    def reader(self):
        """Function of places, an integer tensor (batch,) -> the images there, for graphs and outside of them.

        If a file cannot be read the graph fails with an error from which `lost_file` tells the file.
        """
        raise NotImplementedError

    def chunks(self):
        """All images in order, as arrays of some of them each."""
        size = max(1, min(256, CHUNK // max(1, int(np.prod(self.shape[1:])) * self.dtype.itemsize)))
        try:
            yield from tf.data.Dataset.range(len(self)).batch(size).map(self.reader()).prefetch(1).as_numpy_iterator()
        except tf.errors.InvalidArgumentError as error:
            file = lost_file(error)
            if file is None:
                raise
            raise DataError(f"{file} {UNREADABLE}: expected {READABLE}.") from None

    def array(self, progress=lambda chunks: chunks):
        """All of them as an array; `progress` is given the chunks and yields them, see `messages.progress`."""
        check_memory(int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize, "--stream, a smaller --image_size")
        result, done = np.empty(self.shape, self.dtype), 0
        for chunk in progress(self.chunks()):
            result[done : done + len(chunk)] = chunk
            done += len(chunk)
        return result


class InMemory(Images):
    """Images of an array (n, height, width, depth), which must not change any more."""

    def __init__(self, array):
        super().__init__(array.shape, array.dtype)
        with tf.device("CPU"):
            self._array = tf.convert_to_tensor(array)

    def reader(self):
        with tf.device("CPU"):
            places = tf.constant(self._places)
        return lambda chosen: tf.gather(self._array, tf.gather(places, chosen))


class OnDisk(Images):
    """Images in files, uint8.

    Transparency is dropped, grey images among colour ones become colour, of moving ones the first picture counts.

    Args:
        files: paths, a list of texts.
        size: height and width to resize them to, with antialiasing; None if all have one size, which stays.
        tell: called with a line for the user.
        progress: as `darts_tf.cli.messages.progress`.

    Raises:
        DataError: a file is no image.
    """

    def __init__(self, files, size=None, tell=lambda line: None, progress=lambda parts, *_: parts):
        sizes, coloured = collections.Counter(), False
        for headers in progress(_headers(files), len(files), "Looking at images"):
            for found, is_coloured in headers:
                sizes[found] += 1
                coloured |= is_coloured
        smallest, largest = (choose(sizes, key=lambda found: found[0] * found[1]) for choose in (min, max))
        if len(sizes) > 1:
            default = "" if size else " (--image_size)"
            size = size or (32, 32)
            texts = ["x".join(map(str, each)) for each in (smallest, largest, size)]
            tell(f"Images of {len(sizes):,} sizes, {texts[0]} to {texts[1]}, are resized to {texts[2]}{default}.")
        size = tuple(size or smallest)
        super().__init__((len(files), *size, 3 if coloured else 1), np.uint8)
        self._resized = {size} != set(sizes)
        with tf.device("CPU"):
            self._files = tf.constant([os.fsencode(file) for file in files])

    def fitted(self, image_shape):
        """The same images in another size and depth; only grey images can change their depth."""
        other = copy.copy(self)
        other.shape = (len(self), *image_shape)
        other._resized = self._resized or self.shape[1:3] != other.shape[1:3]
        return other

    def reader(self):
        height, width, depth = self.shape[1:]
        with tf.device("CPU"):
            places = tf.constant(self._places)

        def read(file):
            image = decoded(tf.io.read_file(file))
            if self._resized:
                image = tf.image.resize(image, [height, width], antialias=True)
                image = tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)
            colours = tf.where(tf.shape(image)[-1] < 3, 1, 3)  # the rest is transparency
            return tf.gather(image, tf.minimum(tf.range(depth), colours - 1), axis=-1)

        def images(chosen):
            files = tf.gather(self._files, tf.gather(places, chosen))
            return each(read, files, (files,), tf.TensorSpec([height, width, depth], tf.uint8))

        return images


def of(images):
    """An array of images, or `Images`, as `Images`."""
    return images if isinstance(images, Images) else InMemory(images)


def check_memory(size, instead):
    """Raises DataError if so many bytes are not free; `instead` says what would need less, as far as that is known."""
    try:
        with open("/proc/meminfo") as file:
            free = 1024 * int(next(line.split()[1] for line in file if line.startswith("MemAvailable")))
    except (OSError, StopIteration):  # not Linux
        return
    if size > free:
        raise DataError(f"it takes {size / 1e9:,.1f} GB of memory, {free / 1e9:,.1f} GB are free: expected {instead}.")


def moments(chunks):
    """Mean and standard deviation per channel, float64, of images in arrays (some, height, width, depth)."""
    count, mean, squares = 0, 0.0, 0.0
    for chunk in chunks:  # joined as by Chan, Golub & LeVeque (1979)
        pixels = chunk.reshape(-1, chunk.shape[-1]).astype(np.float64)
        own = pixels.mean(axis=0)
        pixels -= own
        total = count + len(pixels)
        squares = squares + np.square(pixels, out=pixels).sum(axis=0) + (own - mean) ** 2 * count * len(pixels) / total
        mean = mean + (own - mean) * len(pixels) / total
        count = total
    return mean, np.sqrt(squares / count)


def each(function, names, elements, result):
    """Applies a function to each element of a batch; if it fails, the error names the element.

    Args:
        function: of single elements -> a tensor, which decodes, resizes and the like.
        names: (batch,) strings.
        elements: tuple of tensors (batch, ...), the function's arguments.
        result: `tf.TensorSpec` of what it returns.

    Returns:
        (batch, ...), the results.

    Raises:
        tf.errors.InvalidArgumentError: it failed; `lost_file` knows the name.
    """
    count = tf.size(names, tf.int64)

    def numbered(place, element):
        return place, tf.ensure_shape(function(*element), result.shape)

    done = tf.data.Dataset.from_tensor_slices(elements).enumerate()
    done = done.map(numbered, num_parallel_calls=CORES).ignore_errors()
    nothing = tf.data.Dataset.from_tensors((tf.constant(-1, tf.int64), tf.zeros(result.shape, result.dtype)))
    places, results = nothing.concatenate(done).batch(count + 1).get_single_element()
    # Results keep their order, so the first gap is where the places and those of a whole batch differ.
    lost = tf.reduce_sum(tf.cast(tf.equal(places[1:], tf.range(tf.size(places, tf.int64) - 1)), tf.int32))
    name = tf.gather(names, tf.minimum(lost, tf.size(names) - 1))
    complete = tf.equal(tf.size(places, tf.int64), count + 1)
    with tf.control_dependencies([tf.debugging.Assert(complete, [tf.strings.join([name, " ", UNREADABLE])])]):
        return tf.identity(results[1:])


def lost_file(error):
    """The name of the element that made `each` fail, from TensorFlow's error; None for other errors."""
    found = re.search(rf"assertion failed: \[(.*) {UNREADABLE}\]", str(error), re.DOTALL)
    return found and found[1]


def decoded(encoded, channels=0):
    """An image from a file's bytes.

    Args:
        encoded: scalar string, a JPEG, PNG, GIF, BMP or WebP file.
        channels: 3 for colour; 0 for what is in the file: 1 to 4, the second or fourth of which is transparency.

    Returns:
        uint8 (height, width, channels); as it is stored, which an orientation in EXIF data does not change.
    """
    known = tf.io.is_jpeg(encoded)
    for start in (b"\x89PNG", b"GIF8"):
        known |= tf.equal(tf.strings.substr(encoded, 0, len(start)), start)
    # TensorFlow crashes on WebP that moves, and takes the palette of a BMP for grey.
    image = tf.cond(
        known,
        lambda: tf.io.decode_image(encoded, channels, expand_animations=False),
        lambda: tf.numpy_function(lambda content: _by_pillow(content, channels), [encoded], tf.uint8, stateful=False),
    )
    return tf.ensure_shape(image, [None, None, channels or None])


def _by_pillow(encoded, channels):
    encoded = np.asarray(encoded, object).item()  # outside of graphs it comes in an array
    with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
        grey = image.mode in GREY and not channels
        pixels = np.asarray(image.convert("L" if grey else "RGB"))
    return pixels[..., None] if grey else pixels


def _headers(files, size=256):
    """Lists of ((height, width), whether it is in colour) of some files at a time, in order."""

    def look(file):
        try:
            with Image.open(file, formats=FORMATS) as image:
                return (image.height, image.width), image.format == "GIF" or image.mode not in GREY
        except Exception as error:  # of every kind, by what a damaged file makes Pillow do
            reason = "" if "cannot identify" in str(error) else f" ({error})"
            raise DataError(f"{file} {UNREADABLE}{reason}: expected {READABLE}.") from None

    with warnings.catch_warnings(), concurrent.futures.ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore")  # of large photos, which are within the limit, and of odd metadata
        parts = (files[i : i + size] for i in range(0, len(files), size))
        yield from pool.map(lambda part: [look(file) for file in part], parts)
