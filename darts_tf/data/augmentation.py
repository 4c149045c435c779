"""What happens to images on their way into a network, one batch or one encoded file at a time."""

import dataclasses

import tensorflow as tf

from darts_tf.data.images import decoded
from darts_tf.devices.cluster import ALONE


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What happens to a training image on the fly: a random crop after padding, a mirror image, a hole.

    padding: pixels of black on every side before the crop to the original size.
    flip: whether half of the images are mirrored left to right.
    cutout: height and width of the square whose pixels become the mean (DeVries & Taylor, 2017); 0 for none.
    """

    padding: int = 0
    flip: bool = False
    cutout: int = 0

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
        if self == Augmentation():
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
        if not self.cutout:
            return x

        def outside(size, key):
            centre = draw([], key, maxval=size, dtype=tf.int32)[:, None]
            start, pixels = centre - self.cutout // 2, tf.range(size)
            return (pixels < start) | (pixels >= start + self.cutout)

        rows, columns = outside(height, 2), outside(width, 3)
        return tf.where((rows[:, :, None] | columns[:, None, :])[..., None], x, mean)


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
