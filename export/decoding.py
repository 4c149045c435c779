"""Image files as pixels inside a graph, of ops that every server has: PNG, JPEG, GIF and BMP, up to a size."""

import tensorflow as tf

DEPTHS = (1, 3, 4)  # grey, colour, colour with transparency
MAX_PIXELS = 1 << 26  # 8192 x 8192


def decode(encoded, image_shape, max_pixels=MAX_PIXELS):
    """The pixels of an image file, the same as in training, see `darts_tf.data.images`.

    Of a GIF only the first frame is looked at. No memory is taken for pixels before it is known how many they are.

    Args:
        encoded: string scalar, the content of the file.
        image_shape: (height, width, depth) of the result, depth one of `DEPTHS`.
        max_pixels: the largest width x height, where the height counts at least as that of the result; images of the
            size of the result are always read.

    Returns:
        (height, width, depth) float32, whole numbers from 0 to 255.

    Raises:
        tf.errors.InvalidArgumentError: when it is run, the file is in another format, damaged or has too many pixels.
    """
    height, width, depth = image_shape
    encoded, *size = _first_frame(encoded)
    rows, columns = tf.unstack(tf.cast(size, tf.float64))  # as integers their product could overflow
    held = tf.maximum(rows, tf.cast(height, tf.float64)) * columns  # pixels, since rows are resized before columns
    small = (rows > 0) & (columns > 0) & (held <= max(max_pixels, height * width))
    with tf.control_dependencies([tf.debugging.Assert(small, ["image of unknown or too large size", rows, columns])]):
        image = _pixels(tf.identity(encoded), depth)
    image = tf.image.resize(tf.ensure_shape(image, [None, None, depth]), [height, width], antialias=True)
    return tf.clip_by_value(tf.round(image), 0.0, 255.0)


def _pixels(encoded, depth):
    """(height, width, depth) uint8."""

    def read(channels):
        image = tf.ensure_shape(tf.io.decode_image(encoded, channels, expand_animations=False), [None, None, None])
        if channels:
            return image
        return tf.cond(_starts(encoded, b"BM"), lambda: _with_colours_of_bmp(encoded, image), lambda: image)

    def converted():
        image = read(0)  # as in training: 1 or 2 channels are grey, 3 or 4 colour, an even number has transparency last
        channels = tf.shape(image)[-1]
        grey = channels < 3
        if depth == 1:
            return tf.cond(grey, lambda: image[..., :1], lambda: tf.image.rgb_to_grayscale(image[..., :3]))
        colour = tf.cond(grey, lambda: tf.repeat(image[..., :1], 3, axis=-1), lambda: image[..., :3])
        if depth == 3:
            return colour
        opaque = tf.fill(tf.shape(image[..., :1]), tf.constant(255, tf.uint8))
        alpha = tf.cond(tf.equal(channels % 2, 0), lambda: image[..., -1:], lambda: opaque)
        return tf.concat([colour, alpha], axis=-1)

    if depth != 1:
        return converted()
    # How grey a colour is the libraries of these two formats say, which do not know what CMYK is in grey.
    jpeg = tf.cond(tf.io.is_jpeg(encoded), lambda: tf.io.extract_jpeg_shape(encoded)[2] < 4, lambda: False)
    return tf.cond(jpeg | _starts(encoded, b"\x89PNG"), lambda: read(1), converted)


def _with_colours_of_bmp(encoded, image):
    """A decoded BMP in its colours: if it has one channel, that holds indices into the table of colours in the file."""
    head = _bytes(encoded, 1 << 12)  # in which every table ends
    begin, end = 14 + _number(head[14:18]), _number(head[10:14])
    table = tf.concat([head[begin:end], tf.zeros([1024], tf.uint8)], axis=0)[:1024]
    colours = tf.reshape(table, [256, 4])[:, 2::-1]  # blue comes first
    return tf.cond(
        tf.equal(tf.shape(image)[-1], 1), lambda: tf.gather(colours, tf.cast(image[..., 0], tf.int32)), lambda: image
    )


def _first_frame(encoded):
    """The file, without further frames if it is a GIF, and its height and width, 0 if they are not known."""

    def jpeg():
        shape = tf.io.extract_jpeg_shape(encoded)
        return encoded, tf.cast(shape[0], tf.int64), tf.cast(shape[1], tf.int64)

    def png():
        data = _bytes(encoded, 24)
        return encoded, _number(data[20:24], big=True), _number(data[16:20], big=True)

    def bmp():
        data = _bytes(encoded, 26)
        height = _number(data[22:26])
        return encoded, tf.minimum(height, (1 << 32) - height), _number(data[18:22])  # negative: from top to bottom

    def unknown():
        return encoded, tf.constant(0, tf.int64), tf.constant(0, tf.int64)

    formats = [
        (tf.io.is_jpeg(encoded), jpeg),
        (_starts(encoded, b"\x89PNG"), png),
        (_starts(encoded, b"GIF8"), lambda: _first_frame_of_gif(encoded)),
        (_starts(encoded, b"BM"), bmp),
    ]
    return tf.case(formats, unknown)


def _first_frame_of_gif(encoded):
    """As `_first_frame`. A GIF is images and extensions; what both hold ends in parts of up to 255 bytes each."""
    size = tf.strings.length(encoded)
    data = _bytes(encoded, size + 32)
    between, extension, image, whole, broken = range(5)  # where in the file

    def at(place):
        return tf.cast(data[place], tf.int32)

    def colours(flags):  # bytes of the table that follows
        return tf.where(flags < 128, 0, 3 * tf.bitwise.left_shift(2, flags % 8))

    def step(steps, place, inside, frame):
        byte, begins = at(place), tf.equal(inside, between)
        image_begins = begins & tf.equal(byte, 0x2C)
        kind = tf.where(image_begins, image, tf.where(tf.equal(byte, 0x21), extension, broken))
        ended = tf.where(tf.equal(inside, image), whole, between)
        head = tf.where(image_begins, 11 + colours(at(place + 9)), 2)
        return (
            steps + 1,
            place + tf.where(begins, head, 1 + byte),
            tf.where(begins, kind, tf.where(tf.equal(byte, 0), ended, inside)),
            tf.where(image_begins, place, frame),
        )

    limit = 10_000 + size // 64  # of steps; only a file that was made for it needs more

    def goes_on(steps, place, inside, frame):
        return (inside < whole) & (place < size) & (steps < limit)

    start = 13 + colours(at(10))
    steps, place, inside, frame = tf.while_loop(goes_on, step, (0, start, between, 0))
    known = tf.cast((frame > 0) & (steps < limit), tf.int64)
    width, height = (known * _number(data[frame + first : frame + first + 2]) for first in (5, 7))
    cut = tf.strings.join([tf.strings.substr(encoded, 0, tf.minimum(place, size)), b";"])
    return tf.where(tf.equal(inside, whole), cut, encoded), height, width


def _starts(encoded, magic):
    return tf.equal(tf.strings.substr(encoded, 0, len(magic)), magic)


def _bytes(encoded, count):
    """The first bytes, uint8, followed by zeros if there are fewer."""
    return tf.io.decode_raw(tf.strings.join([tf.strings.substr(encoded, 0, count), b"\0" * 64]), tf.uint8)[:count]


def _number(data, big=False):
    """Bytes as an unsigned number, int64."""
    data = tf.cast(data[::-1] if big else data, tf.int64)
    return tf.reduce_sum(data * 256 ** tf.range(tf.size(data, tf.int64)))
