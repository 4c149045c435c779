"""Times the search step: `python -m benchmarks.search_step [--unrolled]` prints one JSON line.

step_seconds        median over --steps steps, after the first
first_step_seconds  from the start of the process until the first step is done
peak_memory_mb      largest resident set of the process
"""

import itertools
import json
import os
import resource
import statistics
import sys
import time

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_boolean("unrolled", False, "Second order.")
flags.DEFINE_integer("init_channels", 16, "Channels of the first cell.", lower_bound=1)
flags.DEFINE_integer("layers", 8, "Cells.", lower_bound=3)
flags.DEFINE_integer("batch_size", 16, "Images in each of the two batches.", lower_bound=1)
flags.DEFINE_integer("image_size", 32, "Height and width of the images.", lower_bound=8)
flags.DEFINE_integer("steps", 10, "Timed steps.", lower_bound=1)


def process_start():
    """Seconds since the epoch when this process started."""
    try:
        with open("/proc/self/stat") as stat, open("/proc/uptime") as uptime:
            ticks = int(stat.read().rpartition(")")[2].split()[19])
            return time.time() - float(uptime.read().split()[0]) + ticks / os.sysconf("SC_CLK_TCK")
    except OSError:  # not Linux: leaves out the start of the interpreter
        return IMPORTED


IMPORTED = time.time()


def main(_):
    from darts_tf import runtime

    runtime.configure()
    import keras
    import tensorflow as tf

    from darts_tf import DARTS, SearchNetwork
    from darts_tf.optimizers import SGD, Adam

    search = DARTS(SearchNetwork(FLAGS.init_channels, FLAGS.layers), unrolled=FLAGS.unrolled)
    search.compile(
        optimizer=SGD(global_clipnorm=5.0),
        arch_optimizer=Adam(),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    size = FLAGS.image_size
    x = tf.random.stateless_normal([FLAGS.batch_size, size, size, 3], seed=[0, 0])
    y = tf.random.stateless_uniform([FLAGS.batch_size], seed=[0, 1], maxval=10, dtype=tf.int32)

    ends = []
    end_of_step = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: ends.append(time.time()))
    batches = tf.data.Dataset.from_tensors(((x, y), (x, y))).repeat(1 + FLAGS.steps)
    search.fit(batches, callbacks=[end_of_step], verbose=0, shuffle=False)

    steps = [end - start for start, end in itertools.pairwise(ends)]
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    names = ("unrolled", "init_channels", "layers", "batch_size", "image_size", "steps")
    result = {
        **{name: FLAGS[name].value for name in names},
        "step_seconds": round(statistics.median(steps), 4),
        "first_step_seconds": round(ends[0] - process_start(), 2),
        "peak_memory_mb": round(kilobytes / 1024),
        "images_per_second": round(FLAGS.batch_size / statistics.median(steps), 2),
        "device": (tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("CPU"))[0].device_type,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    app.run(main)
