"""Times the reading of folders of images: `python -m benchmarks.loading` prints one JSON line.

It makes small JPEGs and large photos in a temporary folder and reads each set in a process of its own, with and without
a resize, into memory and (`stream`) as a training does that leaves them on disk. `peak_memory_mb` is what the process
needs beyond what it had when TensorFlow had started, `cpu_seconds` what all of its threads took together.
"""

import concurrent.futures
import json
import multiprocessing
import pathlib
import tempfile
import time

import numpy as np
from absl import app, flags
from PIL import Image

FLAGS = flags.FLAGS
flags.DEFINE_integer("images", 12_000, "Small images, of 32x32.", lower_bound=20)
flags.DEFINE_integer("photos", 40, "Large images, of 4000x3000.", lower_bound=20)
flags.DEFINE_integer("image_size", 48, "Height and width to resize to.", lower_bound=8)


def make(folder, count, width, height):
    """Writes a set of two classes."""
    random = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"class{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (height // 64 + 4, width // 64 + 4, 3), np.uint8))
        coarse.resize((width, height)).save(path, quality=85)


def read(folder, image_size, stream):
    """Seconds, seconds of all cores together, and megabytes that reading a set takes."""
    import resource

    from darts_tf.devices import runtime

    runtime.configure()
    from darts_tf.data import datasets

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, cpu = time.perf_counter(), time.process_time()
    data = datasets.load(str(folder), image_size, stream=stream)
    if stream:
        data.read(lambda chunks, *_: chunks)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return seconds, cpu, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def measured(folder, count, image_size, stream=False):
    """The same as results, of a fresh process."""
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        seconds, cpu, memory = pool.submit(read, folder, image_size, stream).result()
    rate = {"images_per_second": round(count / seconds, 1), "cpu_seconds": round(cpu, 2)}
    return {**rate, "peak_memory_mb": round(memory)}


def main(_):
    with tempfile.TemporaryDirectory() as root:
        small, large = pathlib.Path(root, "small"), pathlib.Path(root, "large")
        make(small, FLAGS.images, 32, 32)
        make(large, FLAGS.photos, 4000, 3000)
        size = FLAGS.image_size
        result = {
            "image_size": size,
            "small": measured(small, FLAGS.images, None),
            "small_resized": measured(small, FLAGS.images, size),
            "small_streamed": measured(small, FLAGS.images, size, stream=True),
            "photos_resized": measured(large, FLAGS.photos, size),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    app.run(main)
