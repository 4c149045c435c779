"""What happens to images on their way into a network, one batch or one encoded file at a time."""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from darts_tf.data.images import decoded
from darts_tf.devices.cluster import ALONE


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What happens to training images on the fly, in this order.

    Keras's layers of the same names are not used here: they draw from a state of their own, not from a seed that a run
    which goes on can give them again. Besides `keras.layers.RandAugment` changes all images of a batch alike, and
    computes every operation of every batch as a whole; the alpha of `keras.layers.CutMix` is drawn, too.

    padding: pixels of black on every side before the crop to the original size.
    flip: whether half of the images are mirrored left to right.
    randaugment: how many of `OPERATIONS` change each image (Cubuk et al., 2020); pixels are from 0 to 255.
    magnitude: how much, from 0 to `MOST`.
    cutout: height and width of the square whose pixels become the mean (DeVries & Taylor, 2017); 0 for none.
    mixup: alpha of the Beta distribution of the share that an image has, beside another one (Zhang et al., 2018); 0 for
        none.
    cutmix: the same of the part of an image that is not covered by a part of another one (Yun et al., 2019). With both,
        half of the batches are mixed in the one way, and half in the other.
    """

    padding: int = 0
    flip: bool = False
    cutout: int = 0
    randaugment: int = 0
    magnitude: float = 9.0
    mixup: float = 0.0
    cutmix: float = 0.0

    @property
    def mixes(self):
        """Whether images are of several classes, see `mixed`."""
        return bool(self.mixup or self.cutmix)

    def __call__(self, x, seed, mean, worker=ALONE):
        """Augments a batch.

        Args:
            x: images (batch, height, width, depth) of any type, not normalised; of anything else if nothing happens.
            seed: (2,) integers; the same seed does the same.
            mean: (depth,), what fills a hole.
            worker: `Worker` that has x, its share of a batch. An image is augmented the same whichever worker has it.

        Returns:
            float32 images like x.
        """
        if not (self.padding or self.flip or self.cutout or self.randaugment):
            return tf.cast(x, tf.float32)
        batch, height, width = tf.unstack(tf.shape(x)[:3])

        def draw(shape, key, **options):  # for the whole batch
            shape, seed_of_key = [*shape, worker.count * batch], tf.random.fold_in(seed, key)
            return tf.random.stateless_uniform(shape, seed_of_key, **options)[..., worker.index :: worker.count]

        if self.padding:
            p = self.padding
            x = tf.pad(x, [[0, 0], [p, p], [p, p], [0, 0]])
            corner = draw([2], 0, maxval=2 * p + 1, dtype=tf.int32)
            x = tf.gather(x, corner[0][:, None] + tf.range(height), axis=1, batch_dims=1)
            x = tf.gather(x, corner[1][:, None] + tf.range(width), axis=2, batch_dims=1)
        if self.flip:
            x = tf.where(draw([], 1)[:, None, None, None] < 0.5, x[:, :, ::-1], x)
        x = tf.cast(x, tf.float32)
        for number in range(self.randaugment):
            chosen = draw([], 4 + 2 * number, maxval=len(OPERATIONS), dtype=tf.int32)
            x = _operation(x, chosen, draw([], 5 + 2 * number) < 0.5, self.magnitude / MOST)
        if not self.cutout:
            return x

        def outside(size, key):
            centre = draw([], key, maxval=size, dtype=tf.int32)[:, None]
            start, pixels = centre - self.cutout // 2, tf.range(size)
            return (pixels < start) | (pixels >= start + self.cutout)

        rows, columns = outside(height, 2), outside(width, 3)
        return tf.where((rows[:, :, None] | columns[:, None, :])[..., None], x, mean)

    def mixed(self, x, y, classes, seed):
        """Mixes each image of a batch with the one before it, and their labels alike.

        Args:
            x: float32 (batch, height, width, depth).
            y: (batch,) integers, below `classes`.
            classes: how many.
            seed: (2,) integers; the same seed does the same, also to the share of another worker.

        Returns:
            Images like x, and float32 (batch, classes), how much of each class they are.
        """
        seed = tf.random.fold_in(seed, 1000)
        y, (height, width) = tf.one_hot(y, classes), tf.unstack(tf.shape(x)[1:3])
        way, *places = tf.unstack(tf.random.stateless_uniform([3], tf.random.fold_in(seed, 0)))

        def share(alpha):  # the Beta distribution is that of a part of two Gamma distributions
            drawn = tf.random.stateless_gamma([2], tf.random.fold_in(seed, 1), alpha, dtype=tf.float64)
            return tf.cast(tf.math.divide_no_nan(drawn[0], drawn[0] + drawn[1]), tf.float32)

        def blended(x, y):
            part = share(self.mixup)
            return tuple(part * own + (1 - part) * tf.roll(own, 1, 0) for own in (x, y))

        def covered(x, y):
            side = tf.sqrt(1 - share(self.cutmix))
            inside, part = [], 1.0
            for size, place in zip((height, width), places, strict=True):
                length = tf.cast(size, tf.float32)
                centre, half = tf.cast(place * length, tf.int32), tf.cast(side * length, tf.int32) // 2
                pixels = tf.range(size)
                inside.append((pixels >= centre - half) & (pixels < centre + half))
                part *= tf.reduce_mean(tf.cast(inside[-1], tf.float32))
            hole = (inside[0][:, None] & inside[1])[:, :, None]
            return tf.where(hole, tf.roll(x, 1, 0), x), (1 - part) * y + part * tf.roll(y, 1, 0)

        if not (self.mixup and self.cutmix):
            return (blended if self.mixup else covered)(x, y)
        return tf.cond(way < 0.5, lambda: blended(x, y), lambda: covered(x, y))


MOST = 30
# Those of appendix A of the paper of AutoAugment, but for two that mix images (Cubuk et al., 2019).
OPERATIONS = ("identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color")
OPERATIONS += ("contrast", "sharpness", "posterize", "solarize", "autocontrast", "equalize")
GREY = 127.0  # of what lies outside of an image


def _operation(x, chosen, backwards, strength):
    """What one of `OPERATIONS` makes of each image.

    Ranges are those of `torchvision.transforms.RandAugment`, the operations those of Pillow.

    Args:
        x: float32 (batch, height, width, depth), from 0 to 255.
        chosen: int32 (batch,), places in `OPERATIONS`.
        backwards: bool (batch,), which way to shear, translate or rotate, and whether to weaken colours.
        strength: from 0 to 1.
    """
    sign = tf.where(backwards, -1.0, 1.0)

    def of(name, value=1.0):  # (batch,), 0 of images of which another operation is chosen
        return tf.where(tf.equal(chosen, OPERATIONS.index(name)), value, 0.0)

    height, width = tf.unstack(tf.cast(tf.shape(x)[1:3], tf.float32))
    angle = of("rotate", strength * math.pi / 6) * sign
    cos, sin = tf.cos(angle), tf.sin(angle)
    # About the middle: a pixel of the result at (column, row) is that of the image at `across` and `down` of it.
    across = [cos, sin + of("shear_x", 0.3 * strength) * sign]
    down = [of("shear_y", 0.3 * strength) * sign - sin, cos]
    middle, shift = ((width - 1) / 2, (height - 1) / 2), 150 / 331 * strength * sign
    moved = of("translate_x") * shift * width, of("translate_y") * shift * height
    across, down = (
        [*line, middle[place] - line[0] * middle[0] - line[1] * middle[1] + moved[place]]
        for place, line in enumerate((across, down))
    )
    zeros = tf.zeros_like(angle)
    transforms = tf.stack([*across, *down, zeros, zeros], 1)
    options = {"interpolation": "BILINEAR", "fill_mode": "CONSTANT", "fill_value": GREY}
    x = tf.raw_ops.ImageProjectiveTransformV3(images=x, transforms=transforms, output_shape=tf.shape(x)[1:3], **options)

    def alike(values):  # (batch,) as images can be multiplied by
        return values[:, None, None, None]

    factor = 1 + 0.9 * strength * sign
    grey = tf.image.rgb_to_grayscale(x) if x.shape[-1] == 3 else tf.reduce_mean(x, -1, keepdims=True)
    plain = {
        "brightness": tf.zeros_like(x),
        "color": tf.broadcast_to(grey, tf.shape(x)),
        "contrast": tf.broadcast_to(tf.reduce_mean(grey, [1, 2], keepdims=True), tf.shape(x)),
        "sharpness": _smooth(x),
    }
    low, high = (reduced(x, [1, 2], keepdims=True) for reduced in (tf.reduce_min, tf.reduce_max))
    step = 2.0 ** round(strength * 4)
    results = {name: tf.clip_by_value(other + alike(factor) * (x - other), 0, 255) for name, other in plain.items()}
    results["posterize"] = tf.floor(x / step) * step
    results["solarize"] = tf.where(x < 255 * (1 - strength), x, 255 - x)
    results["autocontrast"] = tf.where(high > low, (x - low) * tf.math.divide_no_nan(255.0, high - low), x)
    results["equalize"] = _equalized(x)
    for name, result in results.items():
        x = tf.where(alike(of(name)) > 0, result, x)
    return x


def _smooth(x):
    """Each pixel's mean with its neighbours, the pixel counting five times; those at the edge stay as they are."""
    kernel = np.ones((3, 3), np.float32)
    kernel[1, 1] = 5
    kernel = tf.tile(kernel[:, :, None, None] / kernel.sum(), [1, 1, x.shape[-1], 1])
    inner = tf.nn.depthwise_conv2d(x, kernel, [1] * 4, "VALID")
    edge = [[0, 0], [1, 1], [1, 1], [0, 0]]
    return tf.where(tf.pad(tf.ones_like(inner), edge) > 0, tf.pad(inner, edge), x)


def _equalized(x):
    """Images whose values are as even as can be from 0 to 255, channel by channel."""
    shape = tf.shape(x)
    rows = tf.cast(tf.reshape(tf.transpose(x, [0, 3, 1, 2]), [shape[0] * shape[3], -1]), tf.int32)
    counts = tf.math.bincount(rows, minlength=256, maxlength=256, axis=-1)
    last = tf.reduce_max(tf.where(counts > 0, tf.range(256), 0), 1, keepdims=True)
    step = (tf.shape(rows)[1] - tf.gather(counts, last, batch_dims=1)) // 255
    before = tf.cumsum(counts, 1, exclusive=True)
    table = tf.where(step > 0, tf.minimum((before + step // 2) // tf.maximum(step, 1), 255), tf.range(256))
    found = tf.reshape(tf.gather(tf.cast(table, x.dtype), rows, batch_dims=1), tf.gather(shape, [0, 3, 1, 2]))
    return tf.transpose(found, [0, 2, 3, 1])


def random_part(encoded, size, seed):
    """A random part of an image, resized: 8 to 100% of its area, of 3:4 to 4:3 (Szegedy et al., 2015).

    Args:
        encoded: scalar string, a JPEG, PNG, GIF, BMP or WebP file.
        size: (height, width) of the result.
        seed: (2,) integers.

    Returns:
        float32 (height, width, 3), from 0 to 255.
    """
    jpeg = tf.io.is_jpeg(encoded)  # of which a part can be decoded alone
    shape = tf.cond(jpeg, lambda: tf.io.extract_jpeg_shape(encoded), lambda: tf.shape(decoded(encoded, 3)))
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape, tf.zeros([1, 0, 4]), seed, 0.0, (3 / 4, 4 / 3), (0.08, 1.0), 10, use_image_if_no_bounding_boxes=True
    )
    part = tf.cond(
        jpeg,
        lambda: tf.io.decode_and_crop_jpeg(encoded, tf.concat([begin[:2], extent[:2]], 0), channels=3),
        lambda: tf.slice(decoded(encoded, 3), begin, extent),
    )
    return tf.ensure_shape(tf.image.resize(part, size, antialias=True), (*size, 3))


def middle_part(encoded, size):
    """The middle of an image, 224 of 256 parts of its shorter side, resized; arguments and result as above."""
    image = decoded(encoded, 3)
    height, width = tf.unstack(tf.shape(image)[:2])
    side = tf.maximum(1, tf.minimum(height, width) * 224 // 256)
    part = tf.image.resize_with_crop_or_pad(image, side, side)
    return tf.ensure_shape(tf.image.resize(part, size, antialias=True), (*size, 3))


def jittered(image, seed):
    """Random brightness, contrast and saturation, each from 0.6 to 1.4 times, and a hue shifted by up to 0.2.

    Args:
        image: float32 (height, width, 3), from 0 to 255.
        seed: (2,) integers.
    """
    brightness, contrast, saturation, hue = (tf.random.fold_in(seed, i) for i in range(4))
    image = tf.clip_by_value(image / 255 * tf.random.stateless_uniform([], brightness, 0.6, 1.4), 0, 1)
    image = tf.image.stateless_random_contrast(image, 0.6, 1.4, contrast)
    image = tf.image.stateless_random_saturation(tf.clip_by_value(image, 0, 1), 0.6, 1.4, saturation)
    image = tf.image.stateless_random_hue(tf.clip_by_value(image, 0, 1), 0.2, hue)
    return 255 * tf.clip_by_value(image, 0, 1)
