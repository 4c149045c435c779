import keras
import numpy as np
import pytest
import tensorflow as tf

from darts_tf.data import datasets
from export import classifier, comparison


@pytest.fixture(scope="session", autouse=True)
def short_latencies():
    """Of few calls."""
    latency = comparison.latency
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "latency", lambda *arguments: latency(*arguments, seconds=0.05))
        yield


@pytest.fixture(scope="session")
def small():
    """An untrained classifier of images of the digits."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Rescaling(1 / 16), keras.layers.Flatten(), keras.layers.Dense(10)]
    return classifier.Classifier(keras.Sequential([keras.Input((8, 8, 1)), *layers]), [f"digit {n}" for n in range(10)])


@pytest.fixture(scope="session")
def images():
    return datasets.load("digits").x_test.astype(np.float32)


@pytest.fixture(scope="session")
def png():
    """Function from an image to a file."""
    return lambda image: tf.io.encode_png(image.astype(np.uint8)).numpy()
