"""What a search is fitted to, as batches: arrays or a `tf.data.Dataset` for the weights, others for alpha.

As in Keras a sample is (x, y) or (x, y, sample_weight), each of which may be nested: a tuple, a list or a dict.
"""

import math

import keras
import numpy as np
import tensorflow as tf


def pairs(data, arch_data, batch_size=32, shuffle=True):
    """Pairs of batches, one for the weights and one for alpha.

    Args:
        data: what the weights are trained on: arrays (see `checked`) or a `tf.data.Dataset` of batches.
        arch_data: the same for alpha, which begins again as often as needed.
        batch_size: int, samples in a batch of arrays; the last one of `data` has what is left.
        shuffle: whether arrays are in another order in each pass; or "batch", the samples of each batch only.

    Returns:
        `tf.data.Dataset` of ((x, y[, sample_weight]), (x, y[, sample_weight])), as long as `data`.
    """
    if not isinstance(data, tf.data.Dataset):
        data = batches(data, batch_size, shuffle)
    if isinstance(arch_data, tf.data.Dataset):
        arch_data = arch_data.repeat()
    else:
        arch_data = batches(arch_data, batch_size, shuffle, repeat=True)
    return tf.data.Dataset.zip(data, arch_data)


def batches(data, batch_size, shuffle=False, repeat=False):
    """A `tf.data.Dataset` of batches of arrays.

    Args:
        data: arrays, see `checked`.
        batch_size, shuffle: see `pairs`.
        repeat: whether to go on for ever; then each batch has `batch_size` samples.
    """
    with tf.device("CPU"):
        data = keras.tree.lists_to_tuples(keras.tree.map_structure(_tensor, data))
    samples = tf.data.Dataset.range(size(data))
    if shuffle and shuffle != "batch":
        samples = samples.shuffle(size(data))
    if repeat:
        samples = samples.repeat()
    chosen = samples.batch(batch_size)
    if shuffle == "batch":
        chosen = chosen.map(tf.random.shuffle)

    def batch(places):
        return tf.nest.map_structure(lambda tensor: tf.gather(tensor, places), data)

    return chosen.map(batch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def _tensor(array):
    """A tensor; floats are of Keras's type, as in `keras.Model.fit`."""
    tensor = array if tf.is_tensor(array) else tf.convert_to_tensor(np.asarray(array))
    return tf.cast(tensor, keras.config.floatx()) if tensor.dtype.is_floating else tensor


def checked(name, data):
    """Arrays (x, y) or (x, y, sample_weight), or a `tf.data.Dataset`, which stays as it is.

    Args:
        name: what they are called in errors.
        data: a tuple or list, whose sample_weight may be None; arrays are NumPy's, tensors or pandas'.

    Raises:
        ValueError: it is something else, or arrays are of different numbers of samples.
    """
    if isinstance(data, tf.data.Dataset):
        return data
    if not isinstance(data, tuple | list) or len(data) not in (2, 3):
        raise ValueError(
            f"{name}: a {type(data).__name__}, expected (x, y), (x, y, sample_weight) or a tf.data.Dataset."
        )
    if data[1] is not None:
        data = keras.utils.pack_x_y_sample_weight(*data)
    for part in keras.tree.flatten(data):
        if not getattr(part, "shape", ()):
            kind = "keras.utils.PyDataset" if isinstance(part, keras.utils.PyDataset) else type(part).__name__
            raise ValueError(
                f"{name}: a {kind}, expected arrays of samples, or a tf.data.Dataset of batches, which "
                "tf.data.Dataset.from_generator makes of others."
            )
    sizes = {int(part.shape[0]) for part in keras.tree.flatten(data)}
    if len(sizes) > 1:
        found = " and ".join(map(str, sorted(sizes)))
        raise ValueError(f"{name}: {found} samples, expected as many in x, y and sample_weight.")
    return data


def size(data):
    """Number of samples of arrays."""
    return int(keras.tree.flatten(data)[0].shape[0])


def split(data, portion, name):
    """The first samples of arrays and the last ones.

    Args:
        data: arrays, see `checked`.
        portion: float, the part that is to be the last.
        name: what it is called in errors.

    Returns:
        Two of what `data` is.

    Raises:
        ValueError: the portion is not between 0 and 1, or there are too few samples for two parts.
    """
    if not 0 < portion < 1:
        raise ValueError(f"{name}={portion}: expected a number between 0 and 1.")
    count = size(data)
    first = math.floor(count * (1 - portion))
    if first in (0, count):
        raise ValueError(f"{name}={portion} of {count} samples leaves one part without any: expected more samples.")
    return (
        keras.tree.map_structure(lambda array: array[:first], data),
        keras.tree.map_structure(lambda array: array[first:], data),
    )


def class_weighted(batches, class_weight):
    """Pairs of batches with sample weights, as `class_weight` of `keras.Model.fit`.

    Args:
        batches: `tf.data.Dataset` of pairs of batches (x, y).
        class_weight: dict from classes, integers, to numbers; the other classes weigh 1. Labels with a last dimension
            of more than 1 are one-hot.

    Raises:
        ValueError: there are sample weights, too, or the labels are not one tensor.
    """
    for batch in batches.element_spec:
        if len(batch) > 2:
            raise ValueError("class_weight and sample_weight: expected one of them.")
        if tf.nest.is_nested(batch[1]):
            raise ValueError("class_weight with labels for several outputs: expected sample_weight.")
    first_other = max(class_weight, default=-1) + 1
    table = tf.constant([class_weight.get(label, 1.0) for label in range(first_other + 1)], keras.config.floatx())

    def weighted(x, y):
        labels = tf.cast(tf.round(y) if y.dtype.is_floating else y, tf.int32)
        if y.shape.rank > 1:
            labels = tf.squeeze(labels, -1) if y.shape[-1] == 1 else tf.argmax(y, -1, tf.int32)
        return x, y, tf.gather(table, tf.minimum(labels, first_other))

    return batches.map(lambda train, valid: (weighted(*train), weighted(*valid)), tf.data.AUTOTUNE)
