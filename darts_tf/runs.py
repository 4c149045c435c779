"""What the commands that make a run directory share: the flags of data and output, and what they do."""

import datetime
import json
import pathlib
import runpy
import sys

from absl import flags

from darts_tf import __version__, commands
from darts_tf.files import write

FLAGS = flags.FLAGS
FILES = ("config.json", "history.csv", "alphas.npz", "genotype.json", "model.keras", "metrics.json")

flags.DEFINE_string(
    "dataset",
    "digits",
    "digits, a folder with one folder of images per class (or folders train and test of them), a .npz file with "
    "x_train, y_train, x_test and y_test, or a tensorflow-datasets name such as cifar10.",
)
flags.DEFINE_string("data_dir", None, "Where tensorflow-datasets keeps its data. Default: its own.")
flags.DEFINE_integer("image_size", None, "Resize images to this many pixels. Default: as they are.", lower_bound=8)
flags.DEFINE_string("output", None, "Run directory. Default: runs/COMMAND-DATASET-TIME.")
flags.DEFINE_boolean("overwrite", False, "Replace a run that --output already holds.")
flags.DEFINE_integer("seed", 0, "Seed of weights, splits, shuffling and augmentation.", lower_bound=0)
flags.DEFINE_string("operations", None, "A Python file that registers operations of your own.")

flags.DEFINE_enum(
    "strategy",
    "auto",
    ["auto", "none", "mirrored"],
    "mirrored: all GPUs of this machine, each with its part of every batch; auto: that, if there are several.",
)
flags.DEFINE_boolean("sync_batch_norm", False, "Batch norms take the statistics of all replicas. Slow to start.")
flags.DEFINE_integer("cpu_devices", 1, "Devices to make of the CPU, to try --strategy=mirrored.", lower_bound=1)

flags.DEFINE_boolean("jit_compile", False, "Compile the step with XLA. For GPUs; on CPUs it is far slower.")

flags.DEFINE_integer(
    "crop_padding", None, "Pixels that a random crop may shift by. Default: an eighth of the height.", lower_bound=0
)
flags.DEFINE_boolean("flip", None, "Mirror half of the images. Default: yes in colour, no in grey.")
flags.DEFINE_integer("cutout_length", 16, "Height and width of the hole that --cutout makes, in pixels.", lower_bound=1)
flags.DEFINE_float("momentum", 0.9, "Of the weights' SGD.", lower_bound=0, upper_bound=1)
flags.DEFINE_float("grad_clip", 5.0, "Largest norm of the weights' gradient.", lower_bound=1e-9)


def configuration(module, defaults):
    """The values of a command's flags, and of those of this file; where one is None, that of `defaults`.

    Args:
        module: the command's module.
        defaults: {flag: value}.

    Returns:
        dict.
    """
    config = {flag.name: flag.value for flag in FLAGS.get_key_flags_for_module(module)}
    return config | {name: value for name, value in defaults.items() if config[name] is None}


def directory(command, inputs=()):
    """The run directory, which does not exist yet unless it is to be overwritten.

    Args:
        command: part of its default name.
        inputs: names of flags whose files it must not hold.
    """
    name = pathlib.Path(FLAGS.dataset).stem
    time = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    output = pathlib.Path(FLAGS.output or f"runs/{command}-{name}-{time}")
    if output.exists() and not output.is_dir():
        raise commands.UsageError(f"--output={output}: it is a file; expected a folder or a new name.")
    if output.is_dir() and any(output.iterdir()) and not FLAGS.overwrite:
        raise commands.UsageError(f"--output={output}: it already holds files; expected a new name, or --overwrite.")
    for name in inputs:
        path = pathlib.Path(FLAGS[name].value or "")
        if path.is_file() and path.resolve().parent == output.resolve():
            raise commands.UsageError(f"--output={output}: --{name}={path} is in it; expected another folder.")
    return output


def start(output, config, data):
    """Makes the run directory, empty but for config.json; of a run to be overwritten what runs write is removed."""
    import keras
    import tensorflow as tf

    make(output)
    if any(output.iterdir()):
        if not FLAGS.overwrite:
            raise commands.UsageError(f"--output={output}: it holds files now; expected a new name.")
        for name in FILES:
            (output / name).unlink(missing_ok=True)
    mean, std = data.statistics()
    config["data"] = {
        "image_shape": data.image_shape,
        "class_names": data.class_names,
        "mean": mean.tolist(),
        "std": std.tolist(),
    }
    config["versions"] = {"darts_tf": __version__, "tensorflow": tf.__version__, "keras": keras.__version__}
    write(output / "config.json", json.dumps(config, indent=2) + "\n")


def make(output):
    """Makes a folder if it is not there."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise commands.UsageError(f"--output={output}: {error.strerror}; expected a place to write to.") from None


def load_data(image_shape=None, streamed=False):
    """The dataset that the flags name, made to fit `image_shape` (height, width, depth) if that is given.

    With `streamed` it stays on disk.
    """
    from darts_tf import datasets, streams

    size = image_shape[:2] if image_shape else FLAGS.image_size
    try:
        data = (streams if streamed else datasets).load(FLAGS.dataset, size, FLAGS.data_dir)
        return data.fitted(image_shape) if image_shape else data
    except datasets.DataError as error:
        raise commands.UsageError(f"--dataset={FLAGS.dataset}: {error}") from error


def import_operations():
    """Runs the file of --operations."""
    if not FLAGS.operations:
        return
    try:
        runpy.run_path(FLAGS.operations)
    except Exception as error:
        raise commands.UsageError(f"--operations={FLAGS.operations}: {type(error).__name__}: {error}") from error


def start_tensorflow():
    """Starts TensorFlow as the flags say.

    Returns:
        The `tf.distribute.Strategy` to make models under.
    """
    print("Starting TensorFlow ...", file=sys.stderr)
    from darts_tf import runtime

    runtime.configure(cpu_devices=FLAGS.cpu_devices)
    from darts_tf import replicas

    return replicas.strategy(FLAGS.strategy)


def check_batch_size(batch_size, strategy):
    """Raises UsageError for a batch that cannot be divided among the replicas."""
    count = strategy.num_replicas_in_sync
    if batch_size % count:
        raise commands.UsageError(f"--batch_size={batch_size}: expected a multiple of {count}, one part per device.")


def describe(data):
    """A dataset in a few words."""
    height, width, depth = data.image_shape
    colour = {1: "grey", 3: "colour"}.get(depth, f"{depth}-channel")
    return f"{len(data.y_train):,} {colour} {height}x{width} images of {len(data.class_names)} classes"
