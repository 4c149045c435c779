"""Times the input pipeline alone: `python -m benchmarks.input_pipeline` prints one JSON line.

Batches of both splits with crop, flip and cutout, from made-up images in memory, as `darts_tf.search` reads them.
`pairs_per_second` bounds the steps per second of a search from above; compare with `benchmarks.search_step`.
"""

import json
import time

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_integer("batch_size", 64, "Images in each of the two batches.", lower_bound=1)
flags.DEFINE_integer("image_size", 32, "Height and width of the images.", lower_bound=8)
flags.DEFINE_integer("images", 50000, "Images in memory.", lower_bound=2)
flags.DEFINE_integer("steps", 300, "Timed pairs of batches.", lower_bound=1)


def main(_):
    from darts_tf.devices import runtime

    runtime.configure()
    import numpy as np

    from darts_tf.data import datasets

    size = FLAGS.image_size
    x = np.random.default_rng(0).integers(0, 256, (FLAGS.images, size, size, 3), np.uint8)
    y = np.arange(FLAGS.images) % 10
    data = datasets.Dataset(x, y, x[:10], y[:10], [str(label) for label in range(10)])
    everything = datasets.Augmentation(padding=4, flip=True, cutout=16)
    batches, _, _ = data.search_batches(FLAGS.batch_size, augmentation=everything)
    iterator = iter(batches())
    for _ in range(10):
        next(iterator)
    began = time.perf_counter()
    for _ in range(FLAGS.steps):
        next(iterator)
    seconds = time.perf_counter() - began
    result = {
        "batch_size": FLAGS.batch_size,
        "image_size": size,
        "pairs_per_second": round(FLAGS.steps / seconds, 1),
        "images_per_second": round(2 * FLAGS.batch_size * FLAGS.steps / seconds),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    app.run(main)
