"""Times the training step of a derived network: `python -m benchmarks.train_step` prints one JSON line.

Takes the flags of `darts_tf.train`; without them it is DARTS_V2 at the size of the paper's CIFAR-10 network, with
auxiliary head and drop path. See `benchmarks.timing` for what is measured.
"""

import json

from absl import app, flags

from benchmarks import timing
from darts_tf import spaces, train

FLAGS = flags.FLAGS
flags.DEFINE_integer("steps", 5, "Timed steps.", lower_bound=1)


def main(_):
    from darts_tf.devices import runtime

    runtime.configure()
    import numpy as np

    from darts_tf.data import datasets

    draw, size = np.random.default_rng(0), FLAGS.image_size
    x, y = draw.integers(0, 256, (256, size, size, 3), np.uint8), draw.integers(0, 10, 256)
    data = datasets.Dataset(x, y, x[:10], y[:10], [str(label) for label in range(10)])
    config = train.configuration(data)
    network = train.prepare(None, spaces.read(FLAGS.arch), data, config)
    batch = x[: config["batch_size"]].astype("float32"), y[: config["batch_size"]]
    names = ("arch", "init_channels", "layers", "auxiliary", "drop_path_prob", "batch_size", "image_size", "steps")
    settings = {name: config.get(name, FLAGS[name].value) for name in names}
    print(json.dumps(timing.time_steps(network, batch, FLAGS.steps, settings)))


if __name__ == "__main__":
    FLAGS.set_default("arch", "DARTS_V2")
    FLAGS.set_default("recipe", "cifar")
    FLAGS.set_default("image_size", 32)
    app.run(main)
