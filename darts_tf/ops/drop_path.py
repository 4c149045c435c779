"""Drop path: edges of a network that are left out now and then while it is trained."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("darts_tf")
class DropPath(keras.layers.Layer):
    """Drops an edge for some of the images of a training batch (Larsson et al., 2017).

    As `keras.layers.Dropout(rate, noise_shape=(None, 1, 1, 1))`, with a rate that may change without a new trace.

    Attributes:
        rate: scalar variable, probability that an image is dropped, 0 at first. What is left is divided by 1 - rate.

    Call arguments:
        x: (batch, height, width, channels).
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator()

    def build(self, input_shape):
        self.rate = self.add_weight(shape=(), initializer="zeros", trainable=False, autocast=False, name="rate")
        self.built = True

    def kept(self, shape):
        """What is drawn: 0 for what is dropped, 1 / (1 - rate) for what is not, a tensor of a shape."""
        keep = 1 - tf.convert_to_tensor(self.rate)
        drawn = keras.random.uniform(shape, dtype=keep.dtype, seed=self.seed_generator)
        return tf.floor(drawn + keep) / keep

    def call(self, x, training=False):
        return x * tf.cast(self.kept((tf.shape(x)[0], 1, 1, 1)), x.dtype) if training else x
