"""Times inference in each format: `python -m benchmarks.inference` prints one JSON line per format and batch size.

The network is DARTS_V2 at the size of the paper's CIFAR-10 network, with random weights, unless --model names a .keras
file. milliseconds is the median of a call.
"""

import json
import tempfile

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "A .keras file to measure instead.")
flags.DEFINE_string("arch", "DARTS_V2", "The genotype.")
flags.DEFINE_integer("init_channels", 36, "Channels of the first cell.", lower_bound=2)
flags.DEFINE_integer("layers", 20, "Cells.", lower_bound=1)
flags.DEFINE_float("seconds", 3.0, "How long to measure each, about.", lower_bound=0)


def main(_):
    from darts_tf import spaces
    from darts_tf.devices import runtime

    runtime.configure(training=False)
    import numpy as np

    from darts_tf.spaces.cells import networks
    from export import classifier, comparison, savedmodel, tflite

    if FLAGS.model:
        model = classifier.load(FLAGS.model)
    else:
        statistics = [125.0] * 3, [60.0] * 3
        genotype = spaces.read(FLAGS.arch)
        network = networks.cifar_network(genotype, FLAGS.init_channels, FLAGS.layers, normalization=statistics)
        model = classifier.Classifier(network, [str(label) for label in range(10)])
    images = np.random.default_rng(0).uniform(0, 255, (32, *model.image_shape)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        formats = {"Keras predict": model.probabilities}
        formats["SavedModel"] = comparison.saved_model(savedmodel.export(model, f"{folder}/model"))
        content = tflite.convert(model)
        formats |= {f"TFLite, {threads} threads": comparison.tflite(content, threads) for threads in (1, 2)}
        content = tflite.convert(model, "int8", images)
        formats |= {f"TFLite int8, {threads} threads": comparison.tflite(content, threads) for threads in (1, 2)}
        for name, run in formats.items():
            for batch in comparison.BATCHES:
                seconds = comparison.latency(run, [images], batch, FLAGS.seconds)
                print(json.dumps({"format": name, "batch": batch, "milliseconds": round(1e3 * seconds, 2)}), flush=True)


if __name__ == "__main__":
    app.run(main)
