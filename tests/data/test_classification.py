import numpy as np
import pytest

from darts_tf.data import classification


def test_unknown_multiply_adds_in_words():
    found = {"top1": 1, "top5": 1, "test_images": 1, "parameters": 1, "multiply_adds": None, "per_class": {}}
    assert "unknown" in classification.table(found)


class Fixed:
    """Scores instead of a model."""

    trainable_variables, layers = (), ()

    def predict_on_batch(self, x):
        return x


def evaluate(batches):
    return classification.evaluate(Fixed(), classification.predict(Fixed(), batches), list("abcdefg"))


def test_accuracies():
    scores = np.array([[3, 2, 1, 0, -1, -2, 9], [0, 1, 2, 3, 4, 5, 6], [1, 1, 1, 1, 1, 1, 1], [np.nan] * 7])
    labels = np.array([0, 1, 2, 3])
    found = evaluate([(scores[:3], labels[:3]), (scores[3:], labels[3:])])
    assert (found["top1"], found["top5"], found["test_images"]) == (0, 0.25, 4)
    found = evaluate([(scores[:3], np.array([6, 6, 0]))])
    assert found["top1"] == 2 / 3 and found["per_class"] == {"a": 0, "g": 1}
    assert "66.67% of 3 images" in classification.table(found) and "a 0.00%, g 100.00%" in classification.table(found)


class Scores(Fixed):
    """Of three classes, from the first three pixels."""

    def predict_on_batch(self, x):
        return x.reshape(len(x), -1)[:, :3]


@pytest.mark.parametrize("scale", [1, 100])
def test_predictions_and_the_worst_of_them(scale):
    right = [[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.6, 0.3, 0.1], [0.9, 0.09, 0.01]]
    scores = np.array(right) if scale == 1 else scale + np.log(right)
    images, labels = scores.reshape(4, 1, 3, 1), np.array([0, 1, 1, 2])
    batches = [(images[:2], labels[:2]), (images[2:], labels[2:])]
    found = classification.predict(Scores(), batches)
    assert found.predicted.tolist() == [0, 1, 0, 0] and found.ranks.tolist() == [1, 1, 2, 3]
    np.testing.assert_allclose(found.probability, [0.8, 0.5, 0.6, 0.9])
    assert found.worst.tolist() == [3, 2]
    np.testing.assert_array_equal(found.worst_images, np.rint((255 if scale == 1 else 1) * images[[3, 2]]))
    assert classification.predict(Scores(), batches, few=1).worst.tolist() == [3]
    assert classification.predict(Scores(), batches[:1]).worst_images.size == 0
