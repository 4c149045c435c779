"""What the commands that make a run directory share: the flags of data and output, and what they do."""

import contextlib
import datetime
import json
import os
import pathlib
import runpy
import sys

from absl import flags

from darts_tf import __version__, commands, workers
from darts_tf.files import write
from darts_tf.workers import ALONE

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

FLAGS = flags.FLAGS
FILES = (
    *("config.json", "history.csv", "report.html", "alphas.npz", "genotype.json"),
    *("model.keras", "metrics.json", "predictions.npz", "trials.csv"),
)
# A run may go on with other values of these.
MAY_CHANGE = (
    *("output", "overwrite", "resume", "checkpoint_every", "tensorboard", "max_trials", "worker_timeout"),
    *("data_dir", "stream", "strategy", "cpu_devices", "jit_compile", "steps_per_execution"),
)

with commands.topic("Data"):
    flags.DEFINE_string(
        "dataset",
        "digits",
        "digits, a folder with one folder of images per class (or folders train and test of them), a .npz file with "
        "x_train, y_train, x_test and y_test, or a tensorflow-datasets name such as cifar10.",
    )
    flags.DEFINE_boolean(
        "stream",
        False,
        "Leave the images of a folder on disk: they are read again in every epoch. For sets that do not "
        "fit into memory; the result is the same.",
    )
    flags.DEFINE_string("data_dir", None, "Where tensorflow-datasets keeps its data. Default: its own.")
    flags.DEFINE_integer("image_size", None, "Resize images to this many pixels. Default: as they are.", lower_bound=8)
    flags.DEFINE_integer(
        "crop_padding", None, "Pixels that a random crop may shift by. Default: an eighth of the height.", lower_bound=0
    )
    flags.DEFINE_boolean("flip", None, "Mirror half of the images. Default: yes in colour, no in grey.")
    flags.DEFINE_integer(
        "cutout_length", 16, "Height and width of the hole that --cutout makes, in pixels.", lower_bound=1
    )

with commands.topic("Optimisation"):
    flags.DEFINE_float("momentum", 0.9, "Of the weights' SGD.", lower_bound=0, upper_bound=1)
    flags.DEFINE_float("grad_clip", 5.0, "Largest norm of the weights' gradient.", lower_bound=1e-9)

with commands.topic("Run directory"):
    flags.DEFINE_string("output", None, "Run directory. Default: runs/COMMAND-DATASET-TIME.")
    flags.DEFINE_boolean("overwrite", False, "Replace a run that --output already holds.")
    flags.DEFINE_boolean(
        "resume", False, "Go on with the run in --output; without this flag that is done, too, if there is one."
    )
    flags.DEFINE_integer(
        "checkpoint_every",
        200,
        "Steps from one checkpoint to the next within an epoch; 0 for one per epoch.",
        lower_bound=0,
    )
    flags.DEFINE_boolean("tensorboard", False, "Write what TensorBoard shows to the run directory, after each epoch.")
    flags.DEFINE_integer("seed", 0, "Seed of weights, splits, shuffling and augmentation.", lower_bound=0)
    flags.DEFINE_string("operations", None, "A Python file that registers operations of your own.")

with commands.topic("Devices"):
    flags.DEFINE_enum(
        "strategy",
        "auto",
        ["auto", "none", "mirrored", "multi_worker"],
        "mirrored: all GPUs of this machine, each with its part of every batch; auto: that, if there are several; "
        "multi_worker: all GPUs of the machines that the environment variable TF_CONFIG lists.",
    )
    flags.DEFINE_boolean("sync_batch_norm", False, "Batch norms take the statistics of all replicas. Slow to start.")
    flags.DEFINE_integer("cpu_devices", 1, "Devices to make of the CPU, to try --strategy=mirrored.", lower_bound=1)
    flags.DEFINE_enum(
        "precision",
        "float32",
        ["float32", "bfloat16", "float16"],
        "What images and kernels are computed in. Weights, alpha, statistics and finite differences stay float32. The "
        "others are for GPUs; on CPUs they are slower.",
    )
    flags.DEFINE_boolean("jit_compile", False, "Compile the step with XLA. For GPUs; on CPUs it is far slower.")
    flags.DEFINE_integer("steps_per_execution", 1, "Steps to run without a look at them, as in Keras.", lower_bound=1)


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


def this_worker():
    """This process's `Worker`: the only one, unless --strategy=multi_worker."""
    if FLAGS.strategy != "multi_worker":
        return ALONE
    try:
        worker, addresses = workers.from_environment()
    except ValueError as error:
        raise commands.UsageError(f"--strategy=multi_worker: {error}") from None
    if not FLAGS.output or FLAGS.overwrite:
        wrong = "--overwrite" if FLAGS.overwrite else "no --output"
        message = f"--strategy=multi_worker with {wrong}: expected an --output to go on in when a machine comes back."
        raise commands.UsageError(message)
    where = ", ".join(addresses)
    commands.say(f"Worker {worker.index} of {worker.count} ({where}), waits for the others.")
    return worker


def directory(command, inputs=(), worker=ALONE):
    """The run directory; if it holds a run already, flags that were not given get that run's values.

    Args:
        command: part of its default name.
        inputs: names of flags whose files it must not hold.
        worker: `Worker`; only the chief looks.
    """
    name = pathlib.Path(FLAGS.dataset).stem
    time = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    output = pathlib.Path(FLAGS.output or f"runs/{command}-{name}-{time}")
    config = saved_configuration(output)
    if not worker.is_chief:
        take_over(config or {})
        return output
    if output.exists() and not output.is_dir():
        raise commands.UsageError(f"--output={output}: it is a file; expected a folder or a new name.")
    for name in inputs:
        path = pathlib.Path(FLAGS[name].value or "")
        if path.is_file() and path.resolve().parent == output.resolve():
            raise commands.UsageError(f"--output={output}: --{name}={path} is in it; expected another folder.")
    if config is None and FLAGS.resume:
        raise commands.UsageError(f"--output={output}: it holds no run to --resume; expected one with config.json.")
    if config is None and is_occupied(output):
        raise commands.UsageError(f"--output={output}: it already holds files; expected a new name, or --overwrite.")
    if config and config.get("command") != command:
        raise commands.UsageError(
            f"--output={output}: it holds a run of {config.get('command')}, not of {command}; expected a new name, or "
            "--overwrite."
        )
    for name, value in (config or {}).items():
        if name in FLAGS and not FLAGS[name].using_default_value and name not in MAY_CHANGE:
            check_same(f"the run in {output}", f"--{name}", FLAGS[name].value, value)
    take_over(config or {})
    return output


def take_over(config):
    """Gives flags that were not given the values of a configuration."""
    for name, value in config.items():
        if name in FLAGS and FLAGS[name].using_default_value and name not in ("output", "resume", "overwrite"):
            FLAGS[name].value = value


def saved_configuration(output):
    """What config.json of a run that is to go on says; None if there is none."""
    try:
        return None if FLAGS.overwrite else json.loads((output / "config.json").read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        raise commands.UsageError(
            f"--output={output}: its config.json cannot be read; expected a new name, or --overwrite."
        ) from None


def check_same(run, name, value, saved):
    """Raises UsageError if a run, described by some words, has another value."""
    if value != saved:
        raise commands.UsageError(
            f"{name}={value}: {run} has {saved}; expected that, another --output, or --overwrite."
        )


def compare(run, config, saved):
    """Raises UsageError if a run has another configuration."""
    for name, value in config.items():
        if name not in MAY_CHANGE:
            check_same(run, name, value, saved.get(name))


def is_occupied(output):
    """Whether a folder has something in it that is to be kept."""
    return not FLAGS.overwrite and output.is_dir() and any(output.iterdir())


def start(output, command, config, data, strategy, worker=ALONE):
    """Makes the run directory or goes on in it; of a run to be overwritten what runs write is removed first.

    Args:
        output: the directory; only the chief writes there.
        command: which it is.
        config: dict, from the flags. It is completed and written to config.json, or compared with what is there, and
            with what the other workers have.
        data: the dataset.
        strategy: of the run.
        worker: `Worker`.
    """
    import keras
    import tensorflow as tf

    mean, std = data.statistics()
    config["command"] = command
    config["data"] = {
        "image_shape": data.image_shape,
        "class_names": data.class_names,
        "mean": mean.tolist(),
        "std": std.tolist(),
    }
    ours = json.loads(json.dumps(config))
    if worker.count > 1:
        from darts_tf import replicas

        chiefs = json.loads(replicas.from_chief(strategy, json.dumps(config).encode()))
        compare(f"the run of the chief, {output},", ours, chiefs)
    if not worker.is_chief:
        return
    make(output)
    lock(output)
    saved = saved_configuration(output)
    if saved is None and is_occupied(output):
        raise commands.UsageError(f"--output={output}: it holds files now; expected a new name.")
    for left in [*output.glob(".[0-9]*"), *output.glob("*/.[0-9]*")]:  # of a process that was killed
        left.unlink()
    if saved:
        compare(f"the run in {output}", ours, saved)
        changed = saved | {name: ours[name] for name in MAY_CHANGE if name in ours}
        write(output / "config.json", json.dumps(changed, indent=2) + "\n")
        return
    for name in FILES:
        (output / name).unlink(missing_ok=True)
    for left in [*output.glob("checkpoints/*.npz"), *output.glob("tensorboard/*/events.out.tfevents.*")]:
        left.unlink()
    config["versions"] = {"darts_tf": __version__, "tensorflow": tf.__version__, "keras": keras.__version__}
    write(output / "config.json", json.dumps(config, indent=2) + "\n")


def lock(output):
    """Keeps other processes out of a run directory until this one ends, however it ends."""
    if fcntl is None:
        return
    folder = os.open(output, os.O_RDONLY)  # open as long as this process lives
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise commands.UsageError(
            f"--output={output}: another process is at work in it; expected another folder, or its end."
        ) from None
    except OSError:  # a file system without locks
        os.close(folder)


def make(output):
    """Makes a folder if it is not there."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise commands.UsageError(f"--output={output}: {error.strerror}; expected a place to write to.") from None


def load_data(image_shape=None, random_parts=False):
    """The dataset that the flags name, made to fit `image_shape` (height, width, depth) if that is given.

    With `random_parts` it is one of `streams`, for the recipe of ImageNet.
    """
    from darts_tf import datasets, streams

    size = image_shape[:2] if image_shape else FLAGS.image_size
    try:
        with contextlib.redirect_stdout(sys.stderr):  # tensorflow-datasets has much to say
            if random_parts:
                data = streams.load(FLAGS.dataset, size, FLAGS.data_dir, commands.say)
            else:
                data = datasets.load(FLAGS.dataset, size, FLAGS.data_dir, FLAGS.stream, commands.say, commands.progress)
        data = data.fitted(image_shape) if image_shape else data
        if FLAGS.stream and not random_parts:
            data.read(commands.progress)
        return data
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
    commands.say("Starting TensorFlow ...")
    from darts_tf import runtime

    runtime.configure(cpu_devices=FLAGS.cpu_devices, precision=FLAGS.precision, start=FLAGS.strategy != "multi_worker")
    from darts_tf import replicas

    with runtime.quiet():
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
