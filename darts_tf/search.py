"""Searches a neural network cell for image classification with DARTS.

Without flags it searches on the 8x8 digits that come with the package, in a few minutes on a laptop:

    python -m darts_tf.search

The search of the paper, second order, on CIFAR-10 (a day on a GPU of 2018):

    python -m darts_tf.search --dataset=cifar10 --unrolled --output=runs/cifar10

On your own images, in one folder per class:

    python -m darts_tf.search --dataset=photos/ --image_size=32 --epochs=25

The run directory gets report.html, config.json, history.csv, alphas.npz and genotype.json, after every epoch.
"""

import sys

from absl import flags

from darts_tf.cli import commands
from darts_tf.reports import report
from darts_tf.runs import common as runs
from darts_tf.runs import fitting, recipes

FLAGS = flags.FLAGS

# Where a default is None, it is the one of `recipes`.
flags.adopt_module_key_flags(runs)
with commands.topic("Search"):
    flags.DEFINE_boolean("unrolled", False, "Second order: alpha looks one training step ahead. 2.5 times the time.")
    flags.DEFINE_integer("epochs", 50, "Epochs.", lower_bound=1, upper_bound=1_000_000)
    flags.DEFINE_integer("batch_size", None, "Images per batch. Default: 64; digits 32.", lower_bound=1)
    flags.DEFINE_float("train_portion", 0.5, "Part of the training images for the weights; the rest is for alpha.")

with commands.topic("Supernet"):
    flags.DEFINE_integer(
        "init_channels", None, "Channels of the first cell. Default: 16; digits 8.", lower_bound=2, upper_bound=8192
    )
    flags.DEFINE_integer("layers", None, "Cells. Default: 8; digits 5.", lower_bound=3, upper_bound=1000)
    flags.DEFINE_integer("nodes", 4, "Intermediate nodes of a cell.", lower_bound=1, upper_bound=100)
    flags.DEFINE_list("primitives", None, "Candidate operations, comma-separated. Default: the eight of the paper.")

with commands.topic("Optimisation"):
    flags.DEFINE_float("learning_rate", None, "Of the weights, at the start, per step. Default: 0.025.", lower_bound=0)
    flags.DEFINE_float(
        "learning_rate_min", None, "Of the weights, at the end of the cosine. Default: 0.001.", lower_bound=0
    )
    flags.DEFINE_float("weight_decay", 3e-4, "L2 decay of the weights.", lower_bound=0)
    flags.DEFINE_float("arch_learning_rate", None, "Of alpha's Adam. Default: 3e-4; digits 3e-3.", lower_bound=0)
    flags.DEFINE_float("arch_weight_decay", 1e-3, "L2 decay of alpha.", lower_bound=0)

with commands.topic("Data"):
    flags.DEFINE_boolean("cutout", False, "Cut a square hole into training images.")


def main(_):
    worker = runs.this_worker()
    output = runs.directory("search", ["operations"], worker)
    check_flags()
    strategy = runs.start_tensorflow()
    data = runs.load_data()
    search, batches, steps, valid, config = prepare(data, strategy, worker)
    runs.start(output, "search", config, data, strategy, worker)
    checkpoints = fitting.restore(search, output, steps, config["epochs"], worker)

    from darts_tf.reports import callbacks as reporting
    from darts_tf.runs import callbacks

    rate, last, epochs = config["learning_rate"], config["learning_rate_min"], config["epochs"]
    nan = callbacks.StopOnNaN()
    used = [callbacks.cosine_schedule(rate, last, epochs), nan]
    if not worker.is_chief:
        fitting.fit(search, batches, steps, epochs, valid, used, checkpoints)
        return
    commands.say(f"Searching on {runs.describe(data)}; results go to {output}/")
    record = callbacks.SearchRecord(output, checkpoints.done // steps, derived_sizes(data))
    used += [record, reporting.Report(output)]
    if FLAGS.tensorboard:
        used += [reporting.tensorboard(output), reporting.SearchBoard(output)]
    fitting.fit(search, batches, steps, epochs, valid, used, checkpoints, note=lambda: record.change)
    nan.exit_if_stopped(f"what {output}/ has of the epochs before")
    record.write_genotype()
    report.write_report(output)
    commands.result(
        f"\n{record.genotype}\n\nSaved in {output}/: genotype.json, report.html",
        output=output,
        genotype=record.genotype._asdict(),
        **record.last(),
    )


def derived_sizes(data):
    """The sizes of the networks that darts_tf.train would make of genotypes for these images."""
    from darts_tf.spaces.cells.costs import CellCosts

    recipe = recipes.TRAINING[recipes.training(len(data.y_train))]
    return CellCosts(recipe["init_channels"], recipe["layers"], len(data.class_names), data.image_shape)


def check_flags():
    """Raises UsageError for what can be seen without the data."""
    if not 0 < FLAGS.train_portion < 1:
        raise commands.UsageError(f"--train_portion={FLAGS.train_portion}: expected a number between 0 and 1.")
    if FLAGS.init_channels and FLAGS.init_channels % 2:
        raise commands.UsageError(f"--init_channels={FLAGS.init_channels}: expected an even number.")


def prepare(data, strategy, worker):
    """Model, batches and configuration of the search, from the flags, for the replicas of a strategy.

    Returns:
        The compiled `DARTS`, with all its variables; training batches as a function of the steps that are done, steps
        per epoch, and validation batches, as Keras wants them; and the configuration as a dict.
    """
    import keras

    from darts_tf import DARTS, PRIMITIVES, SearchNetwork
    from darts_tf.data import datasets
    from darts_tf.devices import replicas
    from darts_tf.methods.optimizers import SGD, Adam
    from darts_tf.ops import operations

    height, width, depth = data.image_shape
    defaults = {"flip": depth > 1, "crop_padding": min(height, width) // 8}
    defaults |= recipes.SEARCH_DIGITS if FLAGS.dataset == "digits" else recipes.SEARCH
    config = runs.configuration(sys.modules[__name__], defaults)
    config["primitives"] = config["primitives"] or list(PRIMITIVES)

    runs.import_operations(config["init_channels"])
    runs.check_primitives(config["primitives"], operations.operation_names())
    if set(config["primitives"]) == {"none"}:
        raise commands.UsageError("--primitives=none: expected at least one operation besides none.")

    keras.utils.set_random_seed(config["seed"])
    augmentation = datasets.Augmentation(
        config["crop_padding"], config["flip"], config["cutout_length"] if config["cutout"] else 0
    )
    try:
        batches, steps, valid = datasets.search_batches(
            data, config["batch_size"], config["train_portion"], augmentation, config["seed"], worker
        )
    except datasets.DataError as error:
        raise commands.UsageError(f"--batch_size={config['batch_size']}: {error}") from error

    runs.check_batch_size(config["batch_size"], strategy)
    with strategy.scope():
        network = SearchNetwork(
            config["init_channels"],
            config["layers"],
            len(data.class_names),
            config["nodes"],
            config["primitives"],
            sync_batch_norm=config["sync_batch_norm"],
        )
        search = DARTS(network, unrolled=config["unrolled"])
        search.compile(
            optimizer=SGD(
                config["learning_rate"],
                momentum=config["momentum"],
                l2=config["weight_decay"],
                global_clipnorm=config["grad_clip"],
                loss_scale=config["precision"] == "float16",
            ),
            arch_optimizer=Adam(config["arch_learning_rate"], l2=config["arch_weight_decay"]),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            jit_compile=config["jit_compile"],
        )
    train, _ = batches().element_spec
    search.create_variables(*train)

    def feed(start):
        return replicas.feed(strategy, batches(start), worker)

    return search, feed, steps, replicas.feed(strategy, valid, worker), config


if __name__ == "__main__":
    commands.run(fitting.rejoining(main))
