"""Times the search step: `python -m benchmarks.search_step [--unrolled]` prints one JSON line, see `timing`."""

import json

from absl import app, flags

from benchmarks import timing

FLAGS = flags.FLAGS
flags.DEFINE_boolean("unrolled", False, "Second order.")
flags.DEFINE_integer("init_channels", 16, "Channels of the first cell.", lower_bound=1)
flags.DEFINE_integer("layers", 8, "Cells.", lower_bound=3)
flags.DEFINE_integer("batch_size", 16, "Images in each of the two batches.", lower_bound=1)
flags.DEFINE_integer("image_size", 32, "Height and width of the images.", lower_bound=8)
flags.DEFINE_enum("precision", "float32", ["float32", "bfloat16", "float16"], "What images are computed in.")
flags.DEFINE_boolean("jit_compile", False, "Compile the step with XLA.")
flags.DEFINE_integer("steps", 10, "Timed steps.", lower_bound=1)


def main(_):
    from darts_tf.devices import runtime

    runtime.configure(precision=FLAGS.precision)
    print(json.dumps(timing.time_steps(make(), batch(FLAGS.batch_size), FLAGS.steps, settings())))


def settings():
    names = ("unrolled", "precision", "jit_compile", "init_channels", "layers", "batch_size", "image_size", "steps")
    return {name: FLAGS[name].value for name in names}


def make():
    """The search of the flags, compiled."""
    import keras

    from darts_tf import DARTS, SearchNetwork
    from darts_tf.methods.optimizers import SGD, Adam

    search = DARTS(SearchNetwork(FLAGS.init_channels, FLAGS.layers), unrolled=FLAGS.unrolled)
    search.compile(
        optimizer=SGD(global_clipnorm=5.0, loss_scale=FLAGS.precision == "float16"),
        arch_optimizer=Adam(),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=FLAGS.jit_compile,
    )
    return search


def batch(images):
    """A pair of batches of noise."""
    import tensorflow as tf

    x = tf.random.stateless_normal([images, FLAGS.image_size, FLAGS.image_size, 3], seed=[0, 0])
    y = tf.random.stateless_uniform([images], seed=[0, 1], maxval=10, dtype=tf.int32)
    return (x, y), (x, y)


if __name__ == "__main__":
    app.run(main)
