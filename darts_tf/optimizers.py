"""The optimizers of the paper, see `darts_tf.methods.optimizers`."""

from darts_tf.methods.optimizers import SGD, Adam

__all__ = ["SGD", "Adam"]
