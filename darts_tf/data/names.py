"""What the name of a dataset stands for, as far as that can be said without TensorFlow."""

import os

from darts_tf.data.folders import DataError

EXPECTED = "digits, a folder with one folder of images per class, a .npz file, or a name from tensorflow-datasets"


def is_folder(name):
    """Whether a dataset is a folder, not a name.

    Raises:
        DataError: it is neither.
    """
    if not name.strip():
        raise DataError(f"expected {EXPECTED}.")
    return name != "digits" and os.path.isdir(name)


def is_imagenet(name):
    """Whether a dataset is ImageNet, as tensorflow-datasets calls it, in any version."""
    return name.startswith("imagenet2012") and not os.path.exists(name)
