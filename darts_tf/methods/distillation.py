"""Knowledge distillation: a network learns what a trained one, its teacher, makes of the same inputs."""

import keras
import tensorflow as tf

SURE = 1e-3  # how much probabilities may differ from a sum of 1


class Distillation(keras.losses.Loss):
    """How far a network's probabilities are from its teacher's (Hinton et al., 2015).

    T^2 * KL(softmax(teacher / T) || softmax(network / T)): both are softened by the temperature T, and gradients are as
    large as those of labels, whatever it is (section 2.1).

    Args:
        temperature: T.

    Call arguments:
        y_true, y_pred: logits (batch, classes) of the teacher and of the network.

    Example:
        Distillation(4.0)(teacher(x, training=False), network(x, training=True))
    """

    def __init__(self, temperature=1.0, name="distillation", **kwargs):
        super().__init__(name=name, **kwargs)
        self.temperature = temperature

    def call(self, y_true, y_pred):
        theirs, ours = (tf.nn.log_softmax(tf.cast(y, "float32") / self.temperature) for y in (y_true, y_pred))
        return self.temperature**2 * tf.reduce_sum(tf.exp(theirs) * (theirs - ours), -1)

    def get_config(self):
        return {**super().get_config(), "temperature": self.temperature}


def gives_probabilities(outputs):
    """Whether what a classifier gives, (batch, classes), are probabilities, not logits."""
    outputs = tf.cast(outputs, "float32")
    return bool(tf.reduce_all(outputs >= 0) & tf.reduce_all(tf.abs(tf.reduce_sum(outputs, -1) - 1) < SURE))


def distil(network, teacher, weight=0.5, temperature=4.0, probabilities=False):
    """Makes a compiled network learn from a teacher, too: its loss is (1 - weight) * own + weight * `Distillation`.

    What an auxiliary head learns stays as it is. The teacher sees what the network sees in training, and is no part of
    the network: nothing of it is saved or trained. Call it under the strategy of both.

    Args:
        network: a compiled `keras.Model` from images to logits, or one whose first output these are and whose
            `compute_loss` takes them alone if `training` is False, as those with an auxiliary head.
        teacher: a `keras.Model` from the same images to as many classes.
        weight: of what the teacher says, from 0 to 1.
        temperature: see `Distillation`.
        probabilities: whether the teacher gives them, not logits, see `gives_probabilities`.
    """
    of_labels, of_teacher = network.compute_loss, Distillation(temperature)

    def compute_loss(x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = of_labels(x, y, y_pred, sample_weight, training)
        if not training:
            return loss
        outputs = tf.cast(tf.stop_gradient(teacher(x, training=False)), "float32")
        outputs = tf.math.log(tf.maximum(outputs, 1e-30)) if probabilities else outputs
        own = of_labels(x, y, y_pred, sample_weight, training=False)
        return loss + weight * (of_teacher(outputs, tf.nest.flatten(y_pred)[0]) - own)

    teacher.trainable = False
    network.compute_loss = compute_loss
