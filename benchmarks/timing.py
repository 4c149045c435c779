"""What benchmarks of a training step share: how they measure it and how they say so."""

import itertools
import os
import resource
import statistics
import sys
import time

IMPORTED = time.time()


def process_start():
    """Seconds since the epoch when this process started."""
    try:
        with open("/proc/self/stat") as stat, open("/proc/uptime") as uptime:
            ticks = int(stat.read().rpartition(")")[2].split()[19])
            return time.time() - float(uptime.read().split()[0]) + ticks / os.sysconf("SC_CLK_TCK")
    except OSError:  # not Linux: leaves out the start of the interpreter
        return IMPORTED


def peak_memory_mb():
    """The largest resident set of this process until now."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return round(kilobytes / 1024)


def time_steps(model, batch, steps, settings, feed=lambda batches: batches):
    """Runs `fit` on one batch again and again.

    The result is a dict of the settings and

    step_seconds            median over `steps` steps, after the first
    step_cpu_seconds        the same of the time that all cores were busy with it
    first_step_seconds      from the start of the process until the first step is done
    first_step_cpu_seconds  the same of the time that all cores were busy with it
    peak_memory_mb          largest resident set of the process
    gpu_memory_mb           the most memory that tensors had on the GPU, if there is one

    Args:
        model: a compiled Keras model.
        batch: what its train step takes.
        steps: int.
        settings: dict, with "batch_size", the images of a step.
        feed: function of a `tf.data.Dataset` of the batch -> what Keras is to be given.
    """
    import keras
    import tensorflow as tf

    ends, cpu = [], []

    def end_step(batch, logs):
        float(logs["loss"])  # a GPU may be steps behind
        ends.append(time.time())
        cpu.append(time.process_time())

    end_of_step = keras.callbacks.LambdaCallback(on_train_batch_end=end_step)
    batches = tf.data.Dataset.from_tensors(batch).repeat(1 + steps)
    model.fit(feed(batches), callbacks=[end_of_step], verbose=0, shuffle=False)

    gpus = tf.config.list_physical_devices("GPU")
    gpu = gpus and {
        "device": tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU"),
        "gpu_memory_mb": round(tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20),
    }
    seconds, cpu_seconds = ([end - start for start, end in itertools.pairwise(times)] for times in (ends, cpu))
    return {
        **settings,
        "step_seconds": round(statistics.median(seconds), 4),
        "step_cpu_seconds": round(statistics.median(cpu_seconds), 4),
        "first_step_seconds": round(ends[0] - process_start(), 2),
        "first_step_cpu_seconds": round(cpu[0], 2),
        "peak_memory_mb": peak_memory_mb(),
        "images_per_second": round(settings["batch_size"] / statistics.median(seconds), 2),
        **(gpu or {"device": "CPU"}),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }
