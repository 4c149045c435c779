"""Searches a neural network cell for image classification with DARTS.

Without flags it searches on the 8x8 digits that come with the package, in a few minutes on a laptop:

    python -m darts_tf.search

The search of the paper, second order, on CIFAR-10 (a day on a GPU of 2018):

    python -m darts_tf.search --dataset=cifar10 --unrolled --output=runs/cifar10

On your own images, in one folder per class:

    python -m darts_tf.search --dataset=photos/ --image_size=32 --epochs=25

The run directory gets config.json, history.csv, alphas.npz and genotype.json; the genotype is also printed.
"""

import datetime
import json
import pathlib
import shutil
import sys

from absl import flags

from darts_tf import __version__, commands
from darts_tf.files import write

FLAGS = flags.FLAGS

# Where a default is None, it is the dataset's: the paper's, or a small one for the digits.
PAPER = {
    "init_channels": 16,
    "layers": 8,
    "batch_size": 64,
    "learning_rate": 0.025,
    "learning_rate_min": 0.001,
    "arch_learning_rate": 3e-4,
    "crop_padding": 4,
    "flip": True,
    "image_size": None,
}
DIGITS = {
    **PAPER,
    "init_channels": 8,
    "layers": 5,
    "batch_size": 32,
    "arch_learning_rate": 3e-3,
    "crop_padding": 1,
    "flip": False,
}

flags.DEFINE_string(
    "dataset",
    "digits",
    "digits, a folder with one folder of images per class, a .npz file with x_train, y_train, x_test and y_test, or a "
    "tensorflow-datasets name such as cifar10.",
)
flags.DEFINE_string("data_dir", None, "Where tensorflow-datasets keeps its data. Default: its own.")
flags.DEFINE_integer("image_size", None, "Resize images to this many pixels. Default: as they are.", lower_bound=8)
flags.DEFINE_string("output", None, "Run directory. Default: runs/search-DATASET-TIME.")
flags.DEFINE_boolean("overwrite", False, "Replace a run that --output already holds.")
flags.DEFINE_integer("seed", 0, "Seed of weights, splits, shuffling and augmentation.", lower_bound=0)

flags.DEFINE_boolean("unrolled", False, "Second order: alpha looks one training step ahead. 2.5 times the time.")
flags.DEFINE_integer("epochs", 50, "Epochs.", lower_bound=1)
flags.DEFINE_integer("batch_size", None, "Images per batch. Default: 64; digits 32.", lower_bound=1)
flags.DEFINE_float("train_portion", 0.5, "Part of the training images for the weights; the rest is for alpha.")

flags.DEFINE_integer("init_channels", None, "Channels of the first cell. Default: 16; digits 8.", lower_bound=2)
flags.DEFINE_integer("layers", None, "Cells. Default: 8; digits 5.", lower_bound=3)
flags.DEFINE_integer("nodes", 4, "Intermediate nodes of a cell.", lower_bound=1)
flags.DEFINE_list("primitives", None, "Candidate operations, comma-separated. Default: the eight of the paper.")
flags.DEFINE_string("operations", None, "A Python file that registers operations of your own for --primitives.")

flags.DEFINE_float("learning_rate", None, "Of the weights, at the start. Default: 0.025.", lower_bound=0)
flags.DEFINE_float(
    "learning_rate_min", None, "Of the weights, at the end of the cosine. Default: 0.001.", lower_bound=0
)
flags.DEFINE_float("momentum", 0.9, "Of the weights' SGD.", lower_bound=0, upper_bound=1)
flags.DEFINE_float("weight_decay", 3e-4, "L2 decay of the weights.", lower_bound=0)
flags.DEFINE_float("grad_clip", 5.0, "Largest norm of the weights' gradient.", lower_bound=1e-9)
flags.DEFINE_float("arch_learning_rate", None, "Of alpha's Adam. Default: 3e-4; digits 3e-3.", lower_bound=0)
flags.DEFINE_float("arch_weight_decay", 1e-3, "L2 decay of alpha.", lower_bound=0)

flags.DEFINE_integer(
    "crop_padding", None, "Pixels that a random crop may shift by. Default: 4; digits 1.", lower_bound=0
)
flags.DEFINE_boolean("flip", None, "Mirror half of the images. Default: yes in colour, no in grey.")
flags.DEFINE_boolean("cutout", False, "Cut a square hole into training images.")
flags.DEFINE_integer("cutout_length", 16, "Height and width of that hole, in pixels.", lower_bound=1)


def main(_):
    check_flags()
    output = run_directory("search")
    print("Starting TensorFlow ...", file=sys.stderr)
    from darts_tf import runtime

    runtime.configure()
    data = load_data()
    search, batches, steps, valid, config = prepare(data)

    import keras

    from darts_tf import callbacks

    replace_directory(output)
    write(output / "config.json", json.dumps(config, indent=2) + "\n")
    print(f"Searching on {describe(data)}; results go to {output}/")
    record = callbacks.SearchRecord(output, announce)
    nan = callbacks.StopOnNaN()
    search.fit(
        batches,
        steps_per_epoch=steps,
        epochs=config["epochs"],
        validation_data=valid,
        callbacks=[
            callbacks.cosine_schedule(config["learning_rate"], config["learning_rate_min"], config["epochs"]),
            keras.callbacks.ProgbarLogger(),  # finishes its line before the genotype is announced
            nan,
            record,
        ],
        shuffle=False,
    )
    if nan.epoch:
        kept = (
            f"the genotype of epoch {nan.epoch - 1} is in {output}/genotype.json" if record.genotype else "no genotype"
        )
        print(
            f"error: the loss became NaN in epoch {nan.epoch}; kept: {kept}. Try a lower --learning_rate.",
            file=sys.stderr,
        )
        sys.exit(1)
    print(f"\n{record.genotype}\n\nSaved in {output}/genotype.json")


def check_flags():
    """Raises UsageError for what can be seen without the data."""
    if not 0 < FLAGS.train_portion < 1:
        raise commands.UsageError(f"--train_portion={FLAGS.train_portion}: expected a number between 0 and 1.")
    if FLAGS.init_channels and FLAGS.init_channels % 2:
        raise commands.UsageError(f"--init_channels={FLAGS.init_channels}: expected an even number.")


def run_directory(kind):
    """The run directory, which does not exist yet unless it is to be overwritten."""
    name = pathlib.Path(FLAGS.dataset).stem
    time = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    output = pathlib.Path(FLAGS.output or f"runs/{kind}-{name}-{time}")
    if output.exists() and not output.is_dir():
        raise commands.UsageError(f"--output={output}: it is a file; expected a folder or a new name.")
    if output.is_dir() and any(output.iterdir()) and not FLAGS.overwrite:
        raise commands.UsageError(f"--output={output}: it already holds files; expected a new name, or --overwrite.")
    return output


def replace_directory(output):
    """Makes the empty run directory. Only a folder that holds a run is ever replaced."""
    if output.is_dir() and any(output.iterdir()):
        if not (output / "config.json").exists():
            raise commands.UsageError(f"--output={output}: it holds files but no run; expected a run to overwrite.")
        shutil.rmtree(output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise commands.UsageError(f"--output={output}: {error.strerror}; expected a place to write to.") from None


def load_data():
    from darts_tf import datasets

    try:
        return datasets.load(FLAGS.dataset, FLAGS.image_size, FLAGS.data_dir)
    except datasets.DataError as error:
        raise commands.UsageError(f"--dataset={FLAGS.dataset}: {error}") from error


def prepare(data):
    """Model, batches and configuration of the search, from the flags.

    Returns:
        The compiled `DARTS`, training batches, steps per epoch, validation batches, and the configuration as a dict.
    """
    import keras
    import tensorflow as tf

    from darts_tf import DARTS, PRIMITIVES, SearchNetwork, datasets, operations
    from darts_tf.optimizers import SGD, Adam

    defaults = DIGITS if FLAGS.dataset == "digits" else PAPER | {"flip": data.image_shape[-1] > 1}
    config = {flag.name: flag.value for flag in FLAGS.get_flags_for_module(sys.modules[__name__])}
    config |= {name: value for name, value in defaults.items() if config[name] is None}
    config["primitives"] = config["primitives"] or list(PRIMITIVES)

    if config["operations"]:
        import_operations(config["operations"])
    known = operations.operation_names()
    for name in config["primitives"]:
        if name not in known:
            raise commands.UsageError(f"--primitives={name}: no such operation; expected some of {', '.join(known)}.")
    if set(config["primitives"]) == {"none"}:
        raise commands.UsageError("--primitives=none: expected at least one operation besides none.")

    keras.utils.set_random_seed(config["seed"])
    augmentation = datasets.Augmentation(
        config["crop_padding"], config["flip"], config["cutout_length"] if config["cutout"] else 0
    )
    try:
        batches, steps, valid = datasets.search_batches(
            data, config["batch_size"], config["train_portion"], augmentation, config["seed"]
        )
    except datasets.DataError as error:
        raise commands.UsageError(f"--batch_size={config['batch_size']}: {error}") from error

    network = SearchNetwork(
        config["init_channels"], config["layers"], len(data.class_names), config["nodes"], config["primitives"]
    )
    search = DARTS(network, unrolled=config["unrolled"])
    search.compile(
        optimizer=SGD(
            config["learning_rate"],
            momentum=config["momentum"],
            l2=config["weight_decay"],
            global_clipnorm=config["grad_clip"],
        ),
        arch_optimizer=Adam(config["arch_learning_rate"], l2=config["arch_weight_decay"]),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    mean, std = data.statistics()
    config["data"] = {
        "image_shape": data.image_shape,
        "class_names": data.class_names,
        "mean": mean.tolist(),
        "std": std.tolist(),
    }
    config["versions"] = {"darts_tf": __version__, "tensorflow": tf.__version__, "keras": keras.__version__}
    return search, batches, steps, valid, config


def import_operations(path):
    import runpy

    try:
        runpy.run_path(path)
    except Exception as error:
        raise commands.UsageError(f"--operations={path}: {type(error).__name__}: {error}") from error


def describe(data):
    height, width, depth = data.image_shape
    colour = {1: "grey", 3: "colour"}.get(depth, f"{depth}-channel")
    return f"{len(data.y_train)} {colour} {height}x{width} images of {len(data.class_names)} classes"


def announce(epoch, genotype, before):
    """Prints a cell a line after an epoch, or that nothing changed."""
    for kind in ("normal", "reduce"):
        pairs = getattr(genotype, kind)
        if before and pairs == getattr(before, kind):
            print(f"  {kind}: unchanged")
            continue
        nodes = [pairs[i : i + 2] for i in range(0, len(pairs), 2)]
        text = "; ".join(
            f"{node} = " + " + ".join(f"{name}({source})" for name, source in pair)
            for node, pair in enumerate(nodes, 2)
        )
        print(f"  {kind}: {text}")


if __name__ == "__main__":
    commands.run(main)
