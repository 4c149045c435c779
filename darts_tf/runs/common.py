"""What the commands that make a run directory share: the flags of data and output, and what they do."""

import contextlib
import datetime
import errno
import json
import os
import pathlib
import runpy
import sys

from absl import flags

from darts_tf import __version__
from darts_tf.cli import commands
from darts_tf.cli.files import write
from darts_tf.devices import cluster
from darts_tf.devices.cluster import ALONE
from darts_tf.runs import rundirectory

FLAGS = flags.FLAGS
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
    flags.DEFINE_integer(
        "image_size", None, "Resize images to this many pixels. Default: as they are.", lower_bound=8, upper_bound=8192
    )
    flags.DEFINE_integer(
        "crop_padding",
        None,
        "Pixels that a random crop may shift by. Default: an eighth of the height.",
        lower_bound=0,
        upper_bound=8192,
    )
    flags.DEFINE_boolean("flip", None, "Mirror half of the images. Default: yes in colour, no in grey.")
    flags.DEFINE_integer(
        "cutout_length",
        16,
        "Height and width of the hole that --cutout makes, in pixels.",
        lower_bound=1,
        upper_bound=8192,
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
    flags.DEFINE_integer(
        "seed", 0, "Seed of weights, splits, shuffling and augmentation.", lower_bound=0, upper_bound=2**32 - 1
    )
    flags.DEFINE_string("operations", None, "A Python file that registers operations of your own.")

with commands.topic("Devices"):
    flags.DEFINE_enum(
        "strategy",
        "auto",
        ["auto", "none", "mirrored", "multi_worker"],
        "mirrored: all GPUs of this machine, each with its part of every batch; auto: that, if there are several; "
        "multi_worker: all GPUs of the machines that the environment variable TF_CONFIG lists.",
    )
    flags.DEFINE_float(
        "worker_timeout",
        600.0,
        "On several machines: seconds of silence after which another one counts as lost; who can do nothing without it "
        "ends.",
        lower_bound=0.1,
        upper_bound=86400,
    )
    flags.DEFINE_boolean("sync_batch_norm", False, "Batch norms take the statistics of all replicas. Slow to start.")
    flags.DEFINE_integer(
        "cpu_devices", 1, "Devices to make of the CPU, to try --strategy=mirrored.", lower_bound=1, upper_bound=1024
    )
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
        worker, addresses = cluster.from_environment()
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
        inputs: names of flags whose files it must not hold, and whose folders it must not be.
        worker: `Worker`; only the chief looks.
    """
    if FLAGS.resume and FLAGS.overwrite:
        raise commands.UsageError("--resume and --overwrite given: expected one of them.")
    name = pathlib.Path(FLAGS.dataset).stem[:50]
    time = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    output = pathlib.Path(FLAGS.output or f"runs/{command}-{name}-{time}")
    if not worker.is_chief:
        take_over(saved_configuration(output) or {})
        return output
    with writing_to(output):
        for name in inputs:
            path = FLAGS[name].value or ""
            place = pathlib.Path(path).resolve() if path and os.path.exists(path) else None
            if place and output.resolve() in (place, place.parent):
                raise commands.UsageError(f"--output={output}: --{name}={path} is in it; expected another folder.")
        config = check_place(output, command)
    if config is None and FLAGS.resume:
        raise commands.UsageError(f"--output={output}: it holds no run to --resume; expected one with config.json.")
    for name, value in (config or {}).items():
        if name in FLAGS and not FLAGS[name].using_default_value and name not in MAY_CHANGE:
            check_same(f"the run in {output}", f"--{name}", FLAGS[name].value, value)
    take_over(config or {})
    return output


@contextlib.contextmanager
def writing_to(output):
    """Turns what the file system has against a directory into a UsageError; a full disk is another matter."""
    try:
        yield
    except OSError as error:
        if error.errno in commands.NO_SPACE:
            raise
        reason = error.strerror or str(error)
        raise commands.UsageError(f"--output={output}: {reason}; expected a folder to write to.") from None
    except ValueError as error:  # a name that no file can have
        raise commands.UsageError(f"--output={str(output)!a}: {error}; expected a folder to write to.") from None


def check_place(output, command):
    """Looks whether a run can begin or go on in a directory.

    Returns:
        The configuration of the run that is to go on there; None if one is to begin.

    Raises:
        commands.UsageError: there is something that the run may not replace, or a run that cannot go on.
        OSError: it cannot be looked into.
    """
    if not look(output):
        return None
    try:
        config = rundirectory.configuration(output)
        there = config["command"] if config else None
        if config is None and not is_free(output):
            why = "it holds files that are of no run" if FLAGS.overwrite else "it already holds files"
            raise commands.UsageError(f"--output={output}: {why}; expected a new name.")
        if config is None:
            return None
        if FLAGS.overwrite:
            rundirectory.check_kinds(output, there)
            for name in set(rundirectory.FILES[command]) - set(rundirectory.FILES[there]):
                if os.path.lexists(output / name):
                    wrong = f"its {name} is not of the run of {there} there"
                    raise commands.UsageError(f"--output={output}: {wrong}; expected another folder.")
            return None
        if there != command:
            wrong = f"it holds a run of {there}, not of {command}; expected a new name, or --overwrite."
            raise commands.UsageError(f"--output={output}: {wrong}")
        rundirectory.check_files(output, config)
        return config
    except rundirectory.DamageError as error:
        raise commands.UsageError(f"--output={output}: {error}; expected a whole run, or a new name.") from None


def check_evaluation():
    """The directory for the results of an evaluation, or None; raises UsageError if there are files in it.

    With --overwrite the results of an evaluation may be in it, and nothing else.
    """
    if not FLAGS.output:
        return None
    output = pathlib.Path(FLAGS.output)
    wrong = f"--output={output}: it already holds files; expected a new name for the results of --evaluate."
    with writing_to(output):
        look(output)
        there = {path.name for path in output.iterdir()} if output.exists() else set()
        try:
            if there and not (FLAGS.overwrite and there == {"metrics.json"} and rundirectory.metrics(output)):
                raise commands.UsageError(wrong)
        except rundirectory.DamageError:
            raise commands.UsageError(wrong) from None
    return output


def look(output):
    """Whether there is a folder of this name; raises UsageError or OSError where none can be or be written to."""
    try:
        os.lstat(output)
    except FileNotFoundError:
        check_writable(next(parent for parent in output.absolute().parents if parent.exists()))
        return False
    output.stat()  # of what a link leads to
    if not output.is_dir():
        raise commands.UsageError(f"--output={output}: it is a file; expected a folder or a new name.")
    check_writable(output)
    return True


def check_writable(folder):
    """Raises OSError for a folder in which nothing can be made."""
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"{folder} cannot be written to")


def take_over(config):
    """Gives flags that were not given the values of a configuration."""
    for name, value in config.items():
        if name in FLAGS and FLAGS[name].using_default_value and name not in ("output", "resume", "overwrite"):
            FLAGS[name].value = value


def saved_configuration(output):
    """What config.json of a run says; None if there is none."""
    try:
        return rundirectory.configuration(output)
    except rundirectory.DamageError as error:
        raise commands.UsageError(f"--output={output}: {error}; expected a whole run, or a new name.") from None


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


def is_free(output):
    """Whether there is nothing in a folder but what a run that was killed at its very beginning leaves."""
    return set(output.iterdir()) <= set(rundirectory.left_over(output))


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
        from darts_tf.devices import replicas

        chiefs = json.loads(replicas.from_chief(strategy, json.dumps(config).encode()))
        compare(f"the run of the chief, {output},", ours, chiefs)
    if not worker.is_chief:
        return
    with writing_to(output):
        output.mkdir(parents=True, exist_ok=True)
        rundirectory.lock(output)
        saved = check_place(output, command)  # again, since it may have changed before it was locked
        for left in rundirectory.left_over(output):
            left.unlink()
        if saved:
            compare(f"the run in {output}", ours, saved)
            changed = saved | {name: ours[name] for name in MAY_CHANGE if name in ours}
            write(output / "config.json", json.dumps(changed, indent=2) + "\n")
            return
        there = rundirectory.configuration(output)
        for left in rundirectory.results(output, there["command"]) if there else ():
            left.unlink()
        config["versions"] = {"darts_tf": __version__, "tensorflow": tf.__version__, "keras": keras.__version__}
        write(output / "config.json", json.dumps(config, indent=2) + "\n")


def load_data(image_shape=None, random_parts=False):
    """The dataset that the flags name, made to fit `image_shape` (height, width, depth) if that is given.

    With `random_parts` it is one of `streams`, for the recipe of ImageNet.
    """
    from darts_tf.data import datasets, streams

    if not FLAGS.dataset.strip():
        raise commands.UsageError("--dataset=: expected digits, a folder, a .npz file, or a name such as cifar10.")
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
    except OSError as error:
        if error.errno in commands.NO_SPACE:
            raise
        reason = error.strerror or str(error)
        raise commands.UsageError(f"--dataset={FLAGS.dataset}: {reason}; expected data that can be read.") from error


def import_operations(channels=None):
    """Runs the file of --operations, and computes each operation that it registers on images of so many channels."""
    if not FLAGS.operations:
        return
    from darts_tf.ops import operations

    try:
        with operations.registering() as added:
            runpy.run_path(FLAGS.operations)
        for name in added:
            operations.check(name, channels or 16)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # it may call sys.exit
        reason = error if isinstance(error, operations.OperationError) else f"{type(error).__name__}: {error}"
        raise commands.UsageError(f"--operations={FLAGS.operations}: {reason}") from error


def check_primitives(names, known):
    """Raises UsageError unless the names of --primitives are different ones of those that are known."""
    for name in names:
        if name not in known:
            raise commands.UsageError(f"--primitives={name}: no such operation; expected some of {', '.join(known)}.")
        if names.count(name) > 1:
            raise commands.UsageError(f"--primitives={','.join(names)}: {name} is there twice; expected it once.")


def start_tensorflow():
    """Starts TensorFlow as the flags say.

    Returns:
        The `tf.distribute.Strategy` to make models under.
    """
    commands.say("Starting TensorFlow ...")
    from darts_tf.devices import runtime

    runtime.configure(cpu_devices=FLAGS.cpu_devices, precision=FLAGS.precision, start=FLAGS.strategy != "multi_worker")
    from darts_tf.devices import replicas

    if FLAGS.strategy != "multi_worker":
        with runtime.quiet():
            return replicas.strategy(FLAGS.strategy)
    import tensorflow as tf

    worker, addresses = cluster.from_environment()
    del addresses[worker.index]
    try:
        with cluster.ended_by_wait(addresses, FLAGS.worker_timeout), runtime.quiet(show_errors=False):
            return replicas.strategy(FLAGS.strategy)
    except (tf.errors.UnknownError, tf.errors.InvalidArgumentError) as error:
        reason = " ".join(str(error).split())[:500]
        raise SystemExit(f"error: --strategy=multi_worker: TensorFlow cannot begin: {reason}") from None


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
