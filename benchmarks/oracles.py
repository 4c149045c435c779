"""Compares ways to search at equal time, on Fashion-MNIST: `python -m benchmarks.oracles`, 40 minutes on 2 cores.

Every way gets --seconds to search in, building, tracing and validation included: oracles for trials, a short training
of a genotype each, and DARTS for one search. Then the network of the best genotype (by validation accuracy; of DARTS,
of its last epoch) is trained in the same way for all, and measured on test images. Prints a JSON line per search, and
one per way at the end.

The images are those of Debian's package dataset-fashion-mnist, or a .npz file of the same format as --dataset takes.
"""

import collections
import contextlib
import json
import math
import statistics
import sys
import tempfile
import time

from absl import app, flags

from benchmarks import searches

FLAGS = flags.FLAGS
METHODS = ["random", "evolution", "reinforce", "darts"]
flags.DEFINE_list("methods", METHODS, "Ways to search.")
flags.DEFINE_integer("seeds", 3, "Searches of each way, with seeds from 1.", lower_bound=1)
flags.DEFINE_float("seconds", 150.0, "Time for a search.", lower_bound=1)
flags.DEFINE_string("dataset", "/usr/share/datasets/fashion-mnist", "Folder of the IDX files, or a .npz file.")
flags.DEFINE_integer("train_images", 4000, "Training images; every fifth validates.", lower_bound=100)
flags.DEFINE_integer("image_size", 14, "Height and width that they are resized to.", lower_bound=8)
flags.DEFINE_integer("init_channels", 8, "Channels of the first cell, of all networks.", lower_bound=2)
flags.DEFINE_integer("layers", 3, "Cells, of all networks.", lower_bound=3)
flags.DEFINE_integer("nodes", 2, "Intermediate nodes of a cell.", lower_bound=1)
flags.DEFINE_integer("epochs", 2, "Of a trial.", lower_bound=1)
flags.DEFINE_integer("final_epochs", 15, "Of the last training.", lower_bound=1)
BATCH_SIZE = 64


def main(_):
    from darts_tf.devices import runtime

    runtime.configure()
    data = load()
    accuracies = collections.defaultdict(list)
    for seed in range(1, FLAGS.seeds + 1):
        for method in FLAGS.methods:
            begun = time.monotonic()
            with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as folder:
                genotype, tried = darts(data, seed) if method == "darts" else trials(method, data, seed, folder)
            seconds = time.monotonic() - begun
            accuracy = final(genotype, data)
            accuracies[method].append(accuracy)
            line = {"method": method, "seed": seed, "search_seconds": round(seconds, 1), **tried}
            print(json.dumps({**line, "test_accuracy": round(accuracy, 4), "genotype": str(genotype)}), flush=True)
    for method, found in accuracies.items():
        deviation = statistics.stdev(found) if len(found) > 1 else None
        print(
            json.dumps({"method": method, "mean": statistics.mean(found), "deviation": deviation, "seeds": len(found)})
        )


def load():
    """A `Dataset` of the flags."""
    from darts_tf.data import datasets

    if FLAGS.dataset.endswith(".npz"):
        data = datasets.load(FLAGS.dataset, FLAGS.image_size)
    else:
        arrays = searches.idx(FLAGS.dataset)
        x, y = (arrays[name][: FLAGS.train_images] for name in ("x_train", "y_train"))
        data = datasets.Dataset(x, y, arrays["x_test"], arrays["y_test"], [str(label) for label in range(10)])
        data = data.fitted((FLAGS.image_size, FLAGS.image_size, 1))
    return data


def hypermodel(data):
    from darts_tf.tuner import GenotypeHyperModel

    network = {"nodes": FLAGS.nodes, "channels": FLAGS.init_channels, "layers": FLAGS.layers}
    return GenotypeHyperModel(data.image_shape, 10, **network, normalization=data.statistics())


def train(model, hp, data, epochs, portion):
    """Trains the network of hyperparameters; returns it and its last validation accuracy."""
    from darts_tf.data import datasets

    augmentation = datasets.Augmentation(FLAGS.image_size // 8, True)
    batches, steps, valid = data.batches(BATCH_SIZE, augmentation, seed=0, train_portion=portion)
    network = model.build(hp)
    fitted = model.fit(
        hp, network, batches(), steps_per_epoch=steps, epochs=epochs, validation_data=valid, shuffle=False
    )
    return network, fitted.history.get("val_accuracy", [math.nan])[-1]


def trials(method, data, seed, folder):
    """Trials of an oracle until the time is over, as a tuner of keras-tuner makes them.

    The last one is begun only if it will end in time. Returns the best genotype, and a dict of the number of trials.
    """
    import keras
    import keras_tuner

    from darts_tf import tuner

    kinds = {
        "random": keras_tuner.oracles.RandomSearchOracle,
        "evolution": lambda *arguments, **more: tuner.RegularizedEvolutionOracle(
            *arguments, population_size=8, tournament_size=3, **more
        ),
        "reinforce": tuner.ReinforceOracle,
    }
    model, space, begun = hypermodel(data), keras_tuner.HyperParameters(), time.monotonic()
    model.build(space)
    objective = keras_tuner.Objective("val_accuracy", "max")
    oracle = kinds[method](objective, 10_000, seed=seed, hyperparameters=space)
    oracle._set_project_dir(folder, "trials")
    oracle.verbose = 0
    number = 0
    while not number or (time.monotonic() - begun) * (number + 1) / number < FLAGS.seconds:
        keras.utils.clear_session()
        keras.utils.set_random_seed(seed)
        trial = oracle.create_trial("tuner0")
        _, accuracy = train(model, trial.hyperparameters, data, FLAGS.epochs, portion=0.8)
        oracle.update_trial(trial.trial_id, {"val_accuracy": accuracy})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
        number += 1
    best = oracle.get_best_trials()[0]
    return tuner.genotype_of(best.hyperparameters), {"trials": number, "val_accuracy": round(best.score, 4)}


def darts(data, seed):
    """A first order search until the time is over, its learning rate a cosine of the time that is gone."""
    import keras

    from darts_tf import DARTS, SearchNetwork
    from darts_tf.data import datasets
    from darts_tf.methods.optimizers import SGD, Adam

    begun = time.monotonic()
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    augmentation = datasets.Augmentation(FLAGS.image_size // 8, True)
    batches, steps, _ = data.search_batches(BATCH_SIZE, augmentation, seed)

    class Budget(keras.callbacks.Callback):
        epochs = 0

        def on_epoch_begin(self, epoch, logs=None):
            gone = min(1.0, (time.monotonic() - begun) / FLAGS.seconds)
            self.model.optimizer.learning_rate = 0.001 + 0.024 * (1 + math.cos(math.pi * gone)) / 2
            self._at = time.monotonic()

        def on_epoch_end(self, epoch, logs=None):
            self.epochs = epoch + 1
            now = time.monotonic()
            self.model.stop_training = now + (now - self._at if epoch else 0) > begun + FLAGS.seconds

    search = DARTS(SearchNetwork(FLAGS.init_channels, FLAGS.layers, 10, FLAGS.nodes))
    search.compile(
        optimizer=SGD(0.025, momentum=0.9, l2=3e-4, global_clipnorm=5.0),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        arch_optimizer=Adam(3e-3, l2=1e-3),
        jit_compile=False,
    )
    (x, y), _ = batches().element_spec
    search.create_variables(x, y)
    budget = Budget()
    search.fit(batches(), steps_per_epoch=steps, epochs=10_000, callbacks=[budget], verbose=0, shuffle=False)
    return search.genotype(), {"epochs": budget.epochs}


def final(genotype, data):
    """Test accuracy of the network of a genotype, trained on all training images."""
    import keras

    from darts_tf.data import classification
    from darts_tf.tuner import hyperparameters_of

    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    model = hypermodel(data)
    network, _ = train(model, hyperparameters_of(genotype), data, FLAGS.final_epochs, portion=1.0)
    predictions = classification.predict(network, data.test_batches(500))
    return float((predictions.ranks <= 1).mean())


if __name__ == "__main__":
    app.run(main)
