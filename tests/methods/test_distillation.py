"""What a teacher adds to the loss of a network."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax, softmax

from darts_tf.data.tasks import ImageClassification
from darts_tf.methods import distillation
from darts_tf.spaces.cells.derived import AuxiliaryModel

X = np.random.default_rng(0).normal(size=(6, 8, 8, 3)).astype(np.float32)
Y = np.array([0, 1, 2, 0, 1, 2])


def classifier(activation=None, heads=1):
    inputs = keras.Input((8, 8, 3))
    flat = keras.layers.Flatten()(inputs)
    outputs = [keras.layers.Dense(3, activation)(flat) for _ in range(heads)]
    return AuxiliaryModel(inputs, outputs) if heads > 1 else keras.Model(inputs, outputs[0])


def cross_entropy(logits):
    return -np.mean(log_softmax(logits, 1)[np.arange(6), Y])


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("activation", [None, "softmax"])
def test_the_loss_is_that_of_labels_and_of_the_teacher(heads, activation):
    keras.utils.set_random_seed(0)
    network, teacher = classifier(heads=heads), classifier(activation)
    network.compile("sgd", ImageClassification((8, 8, 3), 3).loss(), jit_compile=False)
    probabilities = distillation.gives_probabilities(teacher(X))
    assert probabilities == (activation == "softmax")
    distillation.distil(network, teacher, 0.3, 4.0, probabilities)
    outputs = network(X, training=True)
    logits, *auxiliary = (output.numpy() for output in tf.nest.flatten(outputs))
    theirs = np.log(teacher(X)) if probabilities else teacher(X).numpy()
    divergence = (softmax(theirs / 4, 1) * (log_softmax(theirs / 4, 1) - log_softmax(logits / 4, 1))).sum(1).mean()
    expected = 0.7 * cross_entropy(logits) + 0.3 * 16 * divergence + sum(0.4 * cross_entropy(one) for one in auxiliary)
    assert float(network.compute_loss(X, Y, outputs, training=True)) == pytest.approx(expected, rel=1e-4)
    assert float(network.compute_loss(X, Y, outputs, training=False)) == pytest.approx(cross_entropy(logits), rel=1e-4)
    before = [variable.numpy() for variable in teacher.variables]
    network.fit(X, Y, batch_size=6, verbose=0)
    np.testing.assert_equal([variable.numpy() for variable in teacher.variables], before)
    assert len(network.variables) == 2 * heads  # the teacher is not among them


def test_gradients_do_not_shrink_with_the_temperature():
    """Section 2.1: those of the divergence do with the square, which the loss is multiplied by."""
    theirs, ours = (tf.constant(np.random.default_rng(seed).normal(size=(4, 3))) for seed in (0, 1))
    sizes = []
    for temperature in (10.0, 100.0):
        with tf.GradientTape() as tape:
            tape.watch(ours)
            loss = distillation.Distillation(temperature)(theirs, ours)
        sizes.append(float(tf.norm(tape.gradient(loss, ours))))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)
    loss = distillation.Distillation.from_config(distillation.Distillation(3.0).get_config())
    assert loss.temperature == 3.0
