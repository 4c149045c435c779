"""Times inference in each format: `python -m benchmarks.inference` prints one JSON line per format and batch size.

    python -m benchmarks.inference
    python -m benchmarks.inference --model=runs/digits/train/model.keras
    python -m benchmarks.inference --spaces=chain,densenas,nas-bench-201

The network is DARTS_V2 at the size of the paper's CIFAR-10 network, with random weights, unless --model names a .keras
file, or --spaces search spaces, of each of which a random network is taken. milliseconds is the median of a call; the
formats take turns.
"""

import json
import tempfile

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "A .keras file to measure instead.")
flags.DEFINE_list("spaces", [], "Spaces to measure random networks of instead, TFLite only.")
flags.DEFINE_string("arch", "DARTS_V2", "The genotype.")
flags.DEFINE_integer("init_channels", 36, "Channels of the first cell.", lower_bound=2)
flags.DEFINE_integer("layers", 20, "Cells.", lower_bound=1)


def main(_):
    from darts_tf.devices import runtime

    runtime.configure(training=False)
    from darts_tf import spaces
    from darts_tf.data.tasks import ImageClassification
    from export import classifier

    task = ImageClassification((32, 32, 3), 10, ([125.0] * 3, [60.0] * 3))
    if FLAGS.model:
        measure(classifier.load(FLAGS.model))
        return
    for name in FLAGS.spaces:
        space = spaces.of({"space": name}).fitted(task)
        network = space.network(drawn(space), task, **recipe(space))
        measure(classifier.Classifier(network, list("0123456789")), tflite_only=True, space=name)
    if not FLAGS.spaces:
        genotype = spaces.read(FLAGS.arch)
        sizes = {"init_channels": FLAGS.init_channels, "layers": FLAGS.layers}
        network = genotype.space.network(genotype, task, **sizes)
        measure(classifier.Classifier(network, list("0123456789")))


def drawn(space):
    """A random architecture."""
    import numpy as np

    random = np.random.default_rng(0)
    return space.decide({name: random.random(table.mask.shape) for name, table in space.choices.items()})


def recipe(space):
    """The sizes of what `darts_tf.train` makes of architectures of a space."""
    from darts_tf.runs import recipes, sizes

    return sizes.of(space.network, recipes.SMALL | space.sizes)


def measure(model, tflite_only=False, **what):
    """Prints the lines of a `classifier.Classifier`."""
    import numpy as np

    from export import comparison, savedmodel, tflite

    images = np.random.default_rng(0).uniform(0, 255, (32, *model.image_shape)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        formats = {}
        if not tflite_only:
            formats = {"Keras predict": model.probabilities}
            formats["SavedModel"] = comparison.saved_model(savedmodel.export(model, f"{folder}/model"))
        for name, quantize in (("TFLite", "none"), ("TFLite int8", "int8")):
            content = tflite.convert(model, quantize, images)
            formats |= {f"{name}, {threads} threads": comparison.TFLite(content, threads) for threads in (1, 2)}
        for batch in comparison.BATCHES:
            for name, seconds in comparison.latencies(formats, [images], batch).items():
                line = what | {"format": name, "batch": batch, "milliseconds": round(1e3 * seconds, 3)}
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    app.run(main)
