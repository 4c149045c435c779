"""Replicas of a model on several devices: how many there are and how their tensors are averaged.

Keras scales the loss of a replica by 1 / count() and its optimizers add gradients up over the replicas, which gives the
gradient of the mean.
"""

import numpy as np
import tensorflow as tf


class _MultiWorker(tf.distribute.MultiWorkerMirroredStrategy):
    def reduce(self, reduce_op, value, axis):
        # Keras 3 asks for the mean of its scalar logs along their first axis.
        return super().reduce(reduce_op, value, axis if value.shape.rank else None)


def strategy(name):
    """A distribution strategy by name.

    Args:
        name: "none", "mirrored" (all GPUs of this machine, or without one all logical CPU devices), "auto", which is
            mirrored where there is more than one GPU, or "multi_worker" (all GPUs of all machines in TF_CONFIG), which
            waits for them and has to be made before TensorFlow has done anything.

    Returns:
        `tf.distribute.Strategy`. A process may make only one: their exchanges get mixed up.
    """
    if name == "multi_worker":
        return _MultiWorker()
    gpus = tf.config.list_logical_devices("GPU")
    if name == "mirrored" or (name == "auto" and len(gpus) > 1):
        return tf.distribute.MirroredStrategy([device.name for device in gpus or tf.config.list_logical_devices("CPU")])
    return tf.distribute.get_strategy()


def feed(strategy, batches, worker):
    """What Keras is to be given for a `tf.data.Dataset`, so that its batches are on the devices when they are needed.

    Args:
        strategy: as made above.
        batches: `tf.data.Dataset`; of a job on several machines, this worker's share of every batch.
        worker: `workers.Worker`.

    Returns:
        `tf.data.Dataset` or `tf.distribute.DistributedDataset`.
    """
    if worker.count > 1:
        here = strategy.num_replicas_in_sync // worker.count
        return strategy.distribute_datasets_from_function(lambda _: split(batches, here))
    gpus = tf.config.list_logical_devices("GPU")
    if gpus and strategy.num_replicas_in_sync == 1:
        return batches.apply(tf.data.experimental.prefetch_to_device(gpus[0].name))
    return batches  # a strategy for several devices does it itself


def split(batches, parts):
    """A `tf.data.Dataset` of `parts` parts of each batch, one after the other."""
    if parts == 1:
        return batches

    def part(batch, index):
        def own(tensor):
            size = tensor.shape[0] and tensor.shape[0] // parts
            return tf.ensure_shape(tensor[index::parts], [size, *tensor.shape[1:]])

        return tf.nest.map_structure(own, batch)

    return batches.flat_map(lambda *batch: tf.data.Dataset.range(parts).map(lambda index: part(batch, index)))


def from_chief(strategy, values):
    """The chief's values, on all workers of a job on several machines; all have to call this.

    Args:
        strategy: of the job.
        values: list of arrays, of the same shapes and types on all workers.

    Returns:
        List of arrays.
    """

    def tell():
        mine = tf.distribute.get_replica_context().replica_id_in_sync_group
        # What cannot be added up over a network goes as a wider type, and a zero of the others changes nothing.
        wide = [
            tf.cast(value, tf.int64 if value.dtype.is_integer else value.dtype) for value in map(tf.constant, values)
        ]
        return add([tf.where(tf.equal(mine, 0), value, tf.zeros_like(value)) for value in wide])

    told = strategy.run(tf.function(tell))
    told = [strategy.experimental_local_results(value)[0].numpy() for value in told]
    return [new.astype(np.asarray(old).dtype) for old, new in zip(values, told, strict=True)]


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
