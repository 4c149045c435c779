"""Replicas of a model on several devices: how many there are and how their tensors are averaged.

Keras scales the loss of a replica by 1 / count() and its optimizers add gradients up over the replicas, which gives the
gradient of the mean.
"""

import numpy as np
import tensorflow as tf


class _ForKeras:
    """As Keras 3 wants a strategy.

    It asks for means of whole batches, to see their shapes, though the replicas' parts of a batch may differ in size.
    """

    def reduce(self, reduce_op, value, axis):
        if tf.nest.is_nested(value):
            return tf.nest.map_structure(lambda part: self.experimental_local_results(part)[0], value)
        return super().reduce(reduce_op, value, axis)


class _Mirrored(_ForKeras, tf.distribute.MirroredStrategy):
    pass


class _MultiWorker(_ForKeras, tf.distribute.MultiWorkerMirroredStrategy):
    def reduce(self, reduce_op, value, axis):
        scalar = not tf.nest.is_nested(value) and not value.shape.rank  # Keras asks for their mean along an axis
        return super().reduce(reduce_op, value, None if scalar else axis)


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
        return _Mirrored([device.name for device in gpus or tf.config.list_logical_devices("CPU")])
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
    here = strategy.num_replicas_in_sync // worker.count
    if here > 1 or worker.count > 1:  # the strategy's own parts of small batches may leave a device without images
        return strategy.distribute_datasets_from_function(lambda _: split(batches, here))
    gpus = tf.config.list_logical_devices("GPU")
    return batches.apply(tf.data.experimental.prefetch_to_device(gpus[0].name)) if gpus else batches


def split(batches, parts):
    """A `tf.data.Dataset` of `parts` parts of each batch, one after the other."""
    if parts == 1:
        return batches

    def part(batch, index):
        def own(tensor):
            size, rest = divmod(tensor.shape[0] or 1, parts)
            return tf.ensure_shape(tensor[index::parts], [None if rest else size, *tensor.shape[1:]])

        return tf.nest.map_structure(own, batch)

    return batches.flat_map(lambda *batch: tf.data.Dataset.range(parts).map(lambda index: part(batch, index)))


def executions(model, count):
    """A `train_function` for a compiled Keras model that runs several steps at once.

    Keras's own always runs `steps_per_execution` steps: with endless batches, beyond the end of an epoch.

    Args:
        model: a Keras model of some strategy.
        count: function without arguments -> how many steps to run now.
    """
    strategy = model.distribute_strategy
    step = tf.function(model.train_step, reduce_retracing=True, jit_compile=model.jit_compile, autograph=False)

    def run(iterator):
        logs = strategy.run(step, args=(next(iterator),))
        return tf.nest.map_structure(lambda value: strategy.experimental_local_results(value)[0], logs)

    @tf.function(reduce_retracing=True, autograph=False)
    def several(iterator, steps):
        return tf.while_loop(
            lambda done, _: done < steps, lambda done, _: (done + 1, run(iterator)), (tf.constant(1), run(iterator))
        )[1]

    return lambda iterator: several(iterator, tf.constant(count()))


def statistics(model):
    """The variables of a Keras model that training moves, but not by gradients: statistics of batch norms."""
    return [variable for variable in model.non_trainable_variables if variable.dtype.startswith("float")]


def averaging_statistics(model):
    """Function without arguments that gives all replicas the same moving statistics, the mean of theirs.

    Batch norms that are not synchronised see their own part of each batch, so each replica has its own statistics.

    Args:
        model: a Keras model of some strategy.
    """
    strategy = model.distribute_strategy
    moving = statistics(model)
    if strategy.num_replicas_in_sync == 1 or not moving:
        return lambda: None

    def agree():
        values = [tf.identity(variable) for variable in moving]  # which are on this replica's device
        for variable, mean in zip(moving, average(values), strict=True):
            variable.assign(mean)

    return tf.function(lambda: strategy.run(agree), autograph=False)


def from_chief(strategy, content):
    """The chief's bytes, on all workers of a job on several machines; all of them have to call this.

    Args:
        strategy: of the job.
        content: bytes; what the other workers give is not looked at.
    """

    def tell(values):
        values = tf.constant(values)

        def told():
            is_chief = tf.equal(tf.distribute.get_replica_context().replica_id_in_sync_group, 0)
            return add(tf.where(is_chief, values, tf.zeros_like(values)))

        return strategy.experimental_local_results(strategy.run(told))[0].numpy()

    (length,) = tell([np.int64(len(content))])
    words = np.frombuffer(content[:length].ljust(-(-length // 8) * 8, b"\0"), np.int64)
    return tell(words).tobytes()[:length]


def count():
    """Number of replicas that train together, 1 outside of a distribution strategy."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def average(tensors):
    """The mean of each tensor (a nested structure of them) over the replicas, the same on all."""
    return _reduced(tf.distribute.ReduceOp.MEAN, tensors)


def add(tensors):
    """The sum of each tensor over the replicas, the same on all."""
    return _reduced(tf.distribute.ReduceOp.SUM, tensors)


def gather(tensor):
    """The tensors of all replicas, (replicas, ...), the same on all."""
    context = tf.distribute.get_replica_context()
    if count() == 1 or context is None:  # Keras calls models out of all replicas, to see their shapes
        return tensor[None]
    place = tf.one_hot(context.replica_id_in_sync_group, count(), dtype=tensor.dtype)
    return add(tf.tensordot(place, tensor, 0))  # tf.distribute's own gather wants the same shapes in all graphs


def _reduced(operation, tensors):
    context = tf.distribute.get_replica_context()
    return tensors if count() == 1 or context is None else context.all_reduce(operation, tensors)
