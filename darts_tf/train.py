"""Trains the network of a genotype, from scratch, and measures it on test images that training has not seen.

What a search found on the digits that come with the package, in a few minutes on a laptop:

    python -m darts_tf.train --arch=runs/a/genotype.json

The network of the paper on CIFAR-10 (its recipe: 600 epochs, more than a day on a GPU of 2018):

    python -m darts_tf.train --arch=DARTS_V2 --dataset=cifar10 --output=runs/cifar10

A trained model on other data, measured, or trained on for other classes:

    python -m darts_tf.train --evaluate=runs/b/model.keras --dataset=photos/
    python -m darts_tf.train --init_from=runs/b/model.keras --dataset=photos/ --epochs=20

The run directory gets report.html, config.json, history.csv, model.keras (a plain Keras model, from pixels to logits),
metrics.json and predictions.npz.
"""

import json
import sys

import numpy as np
from absl import flags

from darts_tf.cli import commands, files
from darts_tf.reports import report
from darts_tf.runs import common as runs
from darts_tf.runs import fitting, recipes
from darts_tf.spaces.cells import genotypes

FLAGS = flags.FLAGS

flags.adopt_module_key_flags(runs)
with commands.topic("What to train"):
    flags.DEFINE_string(
        "arch",
        None,
        "The genotype: a run's genotype.json, NASNet, AmoebaNet, DARTS_V1, DARTS_V2, or Genotype(...) text.",
    )
    flags.DEFINE_string(
        "init_from", None, "Start from this trained .keras model, whatever its architecture, not --arch."
    )
    flags.DEFINE_string("evaluate", None, "Train nothing: measure this .keras model on the test images of --dataset.")
    flags.DEFINE_enum(
        "recipe",
        None,
        list(recipes.TRAINING),
        "Defaults of the flags that have none here. Default: imagenet for imagenet2012, cifar from 10,000 images on, "
        "else small. With imagenet, images stay on disk and random parts of them are resized to 224x224.",
    )
    flags.DEFINE_integer("epochs", None, "Epochs. Default: the recipe's.", lower_bound=1, upper_bound=1_000_000)
    flags.DEFINE_integer("batch_size", None, "Images per batch. Default: the recipe's.", lower_bound=1)
    flags.DEFINE_float("train_portion", 1.0, "Part of the training images to train on; the rest validates each epoch.")

with commands.topic("Network"):
    flags.DEFINE_enum(
        "network",
        None,
        ["cifar", "imagenet"],
        "imagenet makes images 8 times smaller before the cells. Default: the recipe's.",
    )
    flags.DEFINE_integer(
        "init_channels", None, "Channels of the first cell. Default: the recipe's.", lower_bound=2, upper_bound=8192
    )
    flags.DEFINE_integer("layers", None, "Cells. Default: the recipe's.", lower_bound=1, upper_bound=1000)
    flags.DEFINE_boolean(
        "auxiliary", None, "Train with an auxiliary head at two thirds of the depth. Default: the recipe's."
    )
    flags.DEFINE_float("auxiliary_weight", 0.4, "What its loss counts.", lower_bound=0)
    flags.DEFINE_float(
        "drop_path_prob",
        None,
        "Drop path: the rate grows from 0 to this. Default: the recipe's.",
        lower_bound=0,
        upper_bound=0.9,
    )

with commands.topic("Optimisation"):
    flags.DEFINE_float("learning_rate", None, "At the start, per step. Default: the recipe's.", lower_bound=0)
    flags.DEFINE_float("learning_rate_min", 0.0, "At the end of the cosine.", lower_bound=0)
    flags.DEFINE_float(
        "gamma",
        None,
        "Multiplies the learning rate after each epoch; 0 for a cosine. Default: the recipe's.",
        lower_bound=0,
    )
    flags.DEFINE_float("weight_decay", None, "L2 decay of the weights. Default: the recipe's.", lower_bound=0)
    flags.DEFINE_float("label_smooth", None, "Label smoothing. Default: the recipe's.", lower_bound=0, upper_bound=0.9)

with commands.topic("Data"):
    flags.DEFINE_boolean("cutout", None, "Cut a square hole into training images. Default: the recipe's.")


def main(_):
    worker = runs.this_worker()
    output = None
    if FLAGS.evaluate:
        runs.check_evaluation()
    else:
        output = runs.directory("train", ["arch", "init_from", "operations"], worker)
    check_flags()
    genotype = read_genotype() if FLAGS.arch else None
    strategy = runs.start_tensorflow()
    runs.import_operations(FLAGS.init_channels)
    if FLAGS.evaluate:
        return evaluate()

    from darts_tf.data import classification
    from darts_tf.spaces.cells import networks

    with strategy.scope():
        pretrained = load_model(FLAGS.init_from, "init_from") if FLAGS.init_from else None
    data = load_data(pretrained)
    config = configuration(data)
    batches, steps, valid = make_batches(data, config, strategy, worker)
    runs.check_batch_size(config["batch_size"], strategy)
    with strategy.scope():
        network = prepare(pretrained, genotype, data, config)
    if genotype:
        config["genotype"] = str(genotype)
    runs.start(output, "train", config, data, strategy, worker)
    checkpoints = fitting.restore(network, output, steps, config["epochs"], worker)
    if worker.is_chief:
        commands.say(f"Training on {runs.describe(data)}; results go to {output}/")
    history = fit(network, batches, steps, valid, config, checkpoints, output)
    if not worker.is_chief:
        return

    synchronize_batch_norms(network, False)
    model = networks.inference_model(network)
    checkpoints.before_save()
    files.save_model(model, output / "model.keras")
    with fitting.ending_on_lost_files():
        predictions = classification.predict(model, data.test_batches())
    results = classification.evaluate(model, predictions, data.class_names)
    files.write(output / "metrics.json", json.dumps(results, indent=2) + "\n")
    with files.replacing(output / "predictions.npz") as beside, beside.open("wb") as file:
        np.savez_compressed(file, **predictions._asdict())
    report.write_report(output)
    saved = f"Saved {output}/model.keras, metrics.json and report.html"
    commands.result(f"\n{classification.table(results)}\n\n{saved}", output=output, **history.last(), **results)


def check_flags():
    """Raises UsageError for what can be seen without TensorFlow."""
    given = [name for name in ("arch", "init_from", "evaluate") if getattr(FLAGS, name)]
    if len(given) != 1:
        what = f"--{' and --'.join(given)}" if given else "nothing"
        raise commands.UsageError(f"{what} given: expected one of --arch, --init_from and --evaluate, see --help.")
    if not 0 < FLAGS.train_portion <= 1:
        raise commands.UsageError(f"--train_portion={FLAGS.train_portion}: expected a number above 0, at most 1.")
    if FLAGS.train_portion < 1 and takes_random_parts():
        raise commands.UsageError(f"--train_portion={FLAGS.train_portion}: expected 1 with --recipe=imagenet.")
    if FLAGS.init_from:
        for name in ("network", "init_channels", "layers", "auxiliary", "drop_path_prob"):
            if getattr(FLAGS, name):
                value = getattr(FLAGS, name)
                raise commands.UsageError(f"--{name}={value}: expected none, --init_from has an architecture already.")


def read_genotype():
    try:
        return genotypes.read(FLAGS.arch)
    except (OSError, ValueError) as error:
        raise commands.UsageError(f"--arch={FLAGS.arch}: {error}") from None


def load_model(path, flag):
    """An image classifier of one image size from a `.keras` file."""
    try:
        model = files.load_model(path)
    except ValueError as error:
        raise commands.UsageError(f"--{flag}={path}: {error}") from None
    if None in model.input_shape[1:]:
        raise commands.UsageError(f"--{flag}={path}: expected a model of one image size, not {model.input_shape}.")
    return model


def evaluate():
    """Measures the model of --evaluate and prints the result; with --output, writes metrics.json there, too."""
    from darts_tf.data import classification

    model = load_model(FLAGS.evaluate, "evaluate")
    data = load_data(model)
    if len(data.class_names) != model.output_shape[-1]:
        raise commands.UsageError(
            f"--evaluate={FLAGS.evaluate}: it knows {model.output_shape[-1]} classes, {FLAGS.dataset} has "
            f"{len(data.class_names)}; expected as many."
        )
    with fitting.ending_on_lost_files():
        predictions = classification.predict(model, data.test_batches())
    results = classification.evaluate(model, predictions, data.class_names)
    if FLAGS.output:
        output = runs.check_evaluation()  # again, since something may be there now
        with runs.writing_to(output):
            output.mkdir(parents=True, exist_ok=True)
            files.write(output / "metrics.json", json.dumps(results, indent=2) + "\n")
    commands.result(classification.table(results), **results)


def takes_random_parts():
    """Whether the images are ImageNet's or treated like them, as `streams` does."""
    return FLAGS.recipe == "imagenet" or recipes.is_imagenet(FLAGS.dataset)


def load_data(model):
    """The dataset, made to fit a model if there is one."""
    return runs.load_data(model and model.input_shape[1:], takes_random_parts())


def configuration(data):
    """The flags, completed by the recipe."""
    usual = "imagenet" if recipes.is_imagenet(FLAGS.dataset) else recipes.training(len(data.y_train))
    recipe = FLAGS.recipe or usual
    defaults = recipes.TRAINING[recipe] | {"recipe": recipe, "crop_padding": min(data.image_shape[:2]) // 8}
    if data.image_shape[-1] == 1:
        defaults["flip"] = False
    if FLAGS.init_from:
        defaults |= {"network": None, "init_channels": None, "layers": None, "auxiliary": False, "drop_path_prob": 0.0}
    return runs.configuration(sys.modules[__name__], defaults)


def make_batches(data, config, strategy, worker):
    """Training batches as a function of the steps that are done, steps per epoch, and validation batches or None."""
    from darts_tf.data import datasets
    from darts_tf.devices import replicas

    augmentation = datasets.Augmentation(
        config["crop_padding"], config["flip"], config["cutout_length"] if config["cutout"] else 0
    )
    try:
        batches, steps, valid = data.batches(
            config["batch_size"], augmentation, config["seed"], config["train_portion"], worker
        )
    except datasets.DataError as error:
        raise commands.UsageError(f"--batch_size={config['batch_size']}: {error}") from None

    def feed(start):
        return replicas.feed(strategy, batches(start), worker)

    return feed, steps, valid and replicas.feed(strategy, valid, worker)


def prepare(pretrained, genotype, data, config):
    """The network to train, compiled."""
    import keras

    from darts_tf.methods.optimizers import SGD
    from darts_tf.spaces.cells import networks

    keras.utils.set_random_seed(config["seed"])
    classes = len(data.class_names)
    if pretrained:
        try:
            network = networks.with_new_classes(pretrained, classes, data.statistics())
        except ValueError as error:
            raise commands.UsageError(f"--init_from={FLAGS.init_from}: {error}") from None
    else:
        build = {"cifar": networks.cifar_network, "imagenet": networks.imagenet_network}[config["network"]]
        try:
            network = build(
                genotype,
                config["init_channels"],
                config["layers"],
                classes,
                data.image_shape,
                auxiliary=config["auxiliary"],
                drop_path=config["drop_path_prob"] > 0,
                normalization=data.statistics(),
            )
        except ValueError as error:
            raise commands.UsageError(f"--arch={FLAGS.arch}: {error}") from None
        network.auxiliary_weight = config["auxiliary_weight"]
    network.compile(
        SGD(
            config["learning_rate"],
            momentum=config["momentum"],
            l2=config["weight_decay"],
            global_clipnorm=config["grad_clip"],
            loss_scale=config["precision"] == "float16",
        ),
        loss=cross_entropy(config["label_smooth"]),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        jit_compile=config["jit_compile"],
        auto_scale_loss=False,  # SGD does it
    )
    synchronize_batch_norms(network, config["sync_batch_norm"])
    create_variables(network)
    return network


def create_variables(network):
    """Creates those of the optimizer and the metrics; a step that does so is traced twice."""
    import tensorflow as tf

    network.optimizer.build(network.trainable_variables)
    logits = tf.nest.map_structure(lambda output: tf.zeros([1, *output.shape[1:]]), network.output)
    batch = None, tf.zeros([1], tf.int32), logits
    network.compute_loss(*batch)
    network.compute_metrics(*batch)
    network.reset_metrics()


def synchronize_batch_norms(network, synchronized):
    """Whether batch norms take the statistics of all replicas while training."""
    import keras

    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = synchronized


def cross_entropy(label_smoothing):
    """Loss of integer labels and logits, for Keras."""
    import keras

    if not label_smoothing:
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def smoothed(y, logits):
        y = keras.ops.one_hot(keras.ops.reshape(y, [-1]), logits.shape[-1])
        return keras.losses.categorical_crossentropy(y, logits, from_logits=True, label_smoothing=label_smoothing)

    return smoothed


def fit(network, batches, steps, valid, config, checkpoints, output):
    from darts_tf.reports import callbacks as reporting
    from darts_tf.runs import callbacks

    rate, epochs = config["learning_rate"], config["epochs"]
    schedule = (
        callbacks.exponential_schedule(rate, config["gamma"])
        if config["gamma"]
        else callbacks.cosine_schedule(rate, config["learning_rate_min"], epochs)
    )
    nan, history = callbacks.StopOnNaN(), None
    used = [schedule, callbacks.DropPathSchedule(config["drop_path_prob"], epochs), nan]
    if checkpoints.worker.is_chief:
        history = callbacks.History(output, checkpoints.done // steps)
        used += [history, reporting.Report(output)]
        used += [reporting.tensorboard(output)] if FLAGS.tensorboard else []
    fitting.fit(network, batches, steps, epochs, valid, used, checkpoints)
    nan.exit_if_stopped(f"what {output}/ has of the epochs before")
    return history


if __name__ == "__main__":
    commands.run(fitting.rejoining(main))
