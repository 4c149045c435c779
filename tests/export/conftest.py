import keras
import numpy as np
import pytest
import tensorflow as tf
from small_language_model import CHARACTERS, WORDS, step_of

from darts_tf.data import datasets
from export import classifier, comparison, language


@pytest.fixture(scope="session", autouse=True)
def short_latencies():
    """Of few calls."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "ROUNDS", {1: 2, 32: 1})
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


@pytest.fixture(scope="session", params=["words", "characters"])
def spoken(request):
    """An untrained language model, of words and of characters."""
    keras.utils.set_random_seed(0)
    vocabulary = {"words": WORDS, "characters": CHARACTERS}[request.param]
    return language.LanguageModel(step_of(len(vocabulary)), vocabulary, request.param)


@pytest.fixture(scope="session")
def spoken_by_keras():
    """Function from a language model and a text to what `serving_text` returns: by Keras, a token after the other."""

    def ask(model, text, top_k=3):
        numbers, state, likelihood = model.encode(text), np.zeros((1, model.units), np.float32), 0.0
        for place, number in enumerate([model.numbers["<eos>"], *numbers]):
            log_probabilities, state = model.step(np.array([number], np.int32), state)
            if place < len(numbers):
                likelihood += float(log_probabilities[0, numbers[place]])
        best = np.argsort(-log_probabilities[0], kind="stable")[:top_k]
        pairs = [(model.vocabulary[number], float(np.exp(log_probabilities[0, number]))) for number in best]
        return likelihood, len(numbers), pairs

    return ask
