"""Replicas of a model on several devices: how many there are and how their tensors are averaged.

Keras scales the loss of a replica by 1 / count() and its optimizers add gradients up over the replicas, which gives the
gradient of the mean.
"""

import tensorflow as tf


def strategy(name):
    """A distribution strategy by name.

    Args:
        name: "none", "mirrored" (all GPUs of this machine, or without one all logical CPU devices) or "auto", which is
            mirrored where there is more than one GPU.

    Returns:
        `tf.distribute.Strategy`. A process may make only one: their exchanges get mixed up.
    """
    gpus = tf.config.list_logical_devices("GPU")
    if name == "mirrored" or (name == "auto" and len(gpus) > 1):
        return tf.distribute.MirroredStrategy([device.name for device in gpus or tf.config.list_logical_devices("CPU")])
    return tf.distribute.get_strategy()


def count():
    """Number of replicas that train together, 1 outside of a distribution strategy."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def average(tensors):
    """The mean of each tensor (a nested structure of them) over the replicas, the same on all."""
    return _reduced(tf.distribute.ReduceOp.MEAN, tensors)


def add(tensors):
    """The sum of each tensor over the replicas, the same on all."""
    return _reduced(tf.distribute.ReduceOp.SUM, tensors)


def _reduced(operation, tensors):
    context = tf.distribute.get_replica_context()
    return tensors if count() == 1 or context is None else context.all_reduce(operation, tensors)
