"""How a command sets TensorFlow up: quietly, with memory growth on GPUs, and with threads that suit a supernet."""

import contextlib
import os
import sys
import tempfile

from absl import logging

USUAL = {"disable_meta_optimizer": False, "layout_optimizer": True}  # what TensorFlow has if nothing is said


def configure(
    training=True,
    cpu_devices=1,
    precision="float32",
    start=True,
    within=False,
    tf32=True,
    threads=None,
    deterministic=False,
):
    """Imports and configures TensorFlow; call it before the first tensor is made.

    On CPUs, many small kernels want to run beside each other and not to be split: one thread within an operation, one
    operation per core. For `training` there, the passes of TensorFlow's graph optimiser take longer than they save; on
    GPUs that is true of the one that turns images to another order of axes.

    Args:
        training: whether this is for training.
        cpu_devices: logical devices to make of the CPU.
        precision: "float32", "bfloat16" or "float16", what Keras layers compute in.
        start: whether to start the devices, too; a strategy for several machines wants to do that itself.
        within: whether operations are few and large, so that all cores are to be within each of them.
        tf32: whether GPUs may multiply float32 by 10 bits of its fraction, too few for finite differences.
        threads: how many compute on the CPU; None for what is said above.
        deterministic: whether GPUs, too, are to compute the same bits each time.

    Returns:
        A function without arguments: Keras's dtype policy, TensorFlow's options of the graph optimiser, `tf32` and
        `deterministic` become what they were before.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.set_verbosity(logging.ERROR)  # of tensorflow-datasets
    with quiet():
        import keras
        import tensorflow as tf

        from darts_tf.private import tensorflow as private

        gpus = tf.config.list_physical_devices("GPU")
        back = _state("layout_optimizer" if gpus else "disable_meta_optimizer")
        if not tf32:
            tf.config.experimental.enable_tensor_float_32_execution(False)
        if deterministic:
            private.set_deterministic(True)
        keras.config.set_dtype_policy(precision if precision == "float32" else f"mixed_{precision}")
        with contextlib.suppress(RuntimeError):  # TensorFlow has begun already, in a notebook say: it stays as it is
            tf.config.threading.set_intra_op_parallelism_threads(threads or (_cores() if within else 1))
            tf.config.threading.set_inter_op_parallelism_threads(threads or _cores())
            if cpu_devices > 1:
                device = tf.config.list_physical_devices("CPU")[0]
                parts = [tf.config.LogicalDeviceConfiguration() for _ in range(cpu_devices)]
                tf.config.set_logical_device_configuration(device, parts)
            for gpu in gpus:
                tf.config.experimental.set_memory_growth(gpu, True)
        slow = {"layout_optimizer": not training} if gpus else {"disable_meta_optimizer": training}
        tf.config.optimizer.set_experimental_options(slow)
        if start:
            tf.zeros([])  # with what the devices have to say
    return back


@contextlib.contextmanager
def configured(**options):
    """As `configure`, for a block; afterwards what it has changed is as before, but for threads and devices."""
    back = configure(**options)
    try:
        yield
    finally:
        back()


def _state(option):
    """A function without arguments that brings back what `configure` changes; `option` is of the graph optimiser."""
    import keras
    import tensorflow as tf

    from darts_tf.private import tensorflow as private

    policy = keras.config.dtype_policy()
    options = {option: tf.config.optimizer.get_experimental_options().get(option, USUAL[option])}
    tf32, deterministic = tf.config.experimental.tensor_float_32_execution_enabled(), private.is_deterministic()

    def back():
        keras.config.set_dtype_policy(policy)
        tf.config.optimizer.set_experimental_options(options)
        tf.config.experimental.enable_tensor_float_32_execution(tf32)
        private.set_deterministic(deterministic)

    return back


def _cores():
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def traced(model):
    """A functional Keras model in inference as one graph function of its inputs; of open batches of one input.

    Args:
        model: `keras.Model`.

    Returns:
        `tf.ConcreteFunction`.
    """
    import tensorflow as tf

    specs = [tf.TensorSpec([x.shape[0] or 1, *x.shape[1:]], x.dtype) for x in model.inputs]
    call = tf.function(lambda *x: model(x if len(x) > 1 else x[0], training=False), autograph=False)
    return call.get_concrete_function(*specs)


@contextlib.contextmanager
def quiet(show_errors=True):
    """Keeps what native code writes to stderr, and shows it only if something fails and `show_errors`."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
        terminal = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            if show_errors:
                with contextlib.suppress(OSError):  # a terminal that is gone
                    os.write(terminal, kept.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
