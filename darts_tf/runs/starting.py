"""How a run begins or goes on: its directory, its place among other processes, TensorFlow, its data."""

import contextlib
import dataclasses
import datetime
import errno
import json
import os
import pathlib
import runpy
import sys

from darts_tf import __version__, spaces
from darts_tf.cli import messages
from darts_tf.cli.files import write, writing_to
from darts_tf.cli.messages import NO_SPACE, UsageError
from darts_tf.devices import cluster
from darts_tf.devices.cluster import ALONE
from darts_tf.runs import recipes, rundirectory, sizes

FOLDER = "a folder to write to"  # what is expected of --output
LEAST_STEPS = 4  # of an epoch of a small table


def this_worker(config):
    """This process's `Worker`: the only one, unless the strategy is multi_worker."""
    if config.strategy != "multi_worker":
        return ALONE
    try:
        worker, addresses = cluster.from_environment()
    except ValueError as error:
        raise UsageError(f"--strategy=multi_worker: {error}") from None
    if not config.output or config.overwrite:
        wrong = "--overwrite" if config.overwrite else "no --output"
        message = f"--strategy=multi_worker with {wrong}: expected an --output to go on in when a machine comes back."
        raise UsageError(message)
    where = ", ".join(addresses)
    messages.say(f"Worker {worker.index} of {worker.count} ({where}), waits for the others.")
    return worker


def directory(config, command, inputs=(), worker=ALONE):
    """The run directory.

    Args:
        config: a configuration.
        command: part of the directory's default name.
        inputs: names of fields that name files or folders to read; these must not be in the run directory, or be it.
        worker: `Worker`; only the chief looks.

    Returns:
        The directory, a path, and the configuration, where what was not given has the values of the run that the
        directory holds, if it holds one.
    """
    if config.resume and config.overwrite:
        raise UsageError("--resume and --overwrite given: expected one of them.")
    name = pathlib.Path(config.begun().dataset).stem[:50]
    time = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    output = pathlib.Path(config.output or f"runs/{command}-{name}-{time}")
    if not worker.is_chief:
        return output, _taken_over(config, saved_configuration(output))
    with writing_to(output, FOLDER):
        for name in inputs:
            path = getattr(config, name) or ""
            place = pathlib.Path(path).resolve() if path and os.path.exists(path) else None
            if place and output.resolve() in (place, place.parent):
                raise UsageError(f"--output={output}: --{name}={path} is in it; expected another folder.")
        saved = check_place(output, command, config)
    if saved is None and config.resume:
        raise UsageError(f"--output={output}: it holds no run to --resume; expected one with config.json.")
    for name, value in (saved or {}).items():
        if name in config.given and name not in config.MAY_CHANGE:
            given = space_spec(config) if name == "space" else getattr(config, name)
            check_same(f"the run in {output}", f"--{name}", given, value)
    return output, _taken_over(config, saved)


def _taken_over(config, saved):
    """A configuration with what a run's config.json says, but for where it is and whether it goes on.

    Without one it is that of a run that begins.
    """
    if not saved:
        return config.begun()
    return config.taken_over({n: v for n, v in saved.items() if n not in ("output", "resume", "overwrite")})


def check_place(output, command, config):
    """Checks that a run can begin or go on in a directory.

    Args:
        output: the directory.
        command: which it is.
        config: its configuration, which says whether a run there is to be replaced.

    Returns:
        The configuration of the run that is to go on there, a dict; None if one is to begin.

    Raises:
        UsageError: there is something that the run may not replace, or a run that cannot go on.
        OSError: it cannot be looked into.
    """
    if not look(output):
        return None
    try:
        saved = rundirectory.configuration(output)
        there = saved["command"] if saved else None
        if saved is None and not is_free(output):
            why = "it holds files that are of no run" if config.overwrite else "it already holds files"
            raise UsageError(f"--output={output}: {why}; expected a new name.")
        if saved is None:
            return None
        if config.overwrite:
            rundirectory.check_kinds(output, there)
            for name in set(rundirectory.FILES[command]) - set(rundirectory.FILES[there]):
                if os.path.lexists(output / name):
                    wrong = f"its {name} is not of the run of {there} there"
                    raise UsageError(f"--output={output}: {wrong}; expected another folder.")
            return None
        if there != command:
            wrong = f"it holds a run of {there}, not of {command}; expected a new name, or --overwrite."
            raise UsageError(f"--output={output}: {wrong}")
        rundirectory.check_files(output, saved, dataclasses.fields(config))
        return saved
    except rundirectory.DamageError as error:
        raise UsageError(f"--output={output}: {error}; expected a whole run, or a new name.") from None


def check_evaluation(config):
    """The directory for the results of an evaluation, or None; raises UsageError if there are files in it.

    With --overwrite the results of an evaluation may be in it, and nothing else.
    """
    if not config.output:
        return None
    output = pathlib.Path(config.output)
    wrong = f"--output={output}: it already holds files; expected a new name for the results of --evaluate."
    with writing_to(output, FOLDER):
        look(output)
        there = {path.name for path in output.iterdir()} if output.exists() else set()
        try:
            if there and not (config.overwrite and there == {"metrics.json"} and rundirectory.metrics(output)):
                raise UsageError(wrong)
        except rundirectory.DamageError:
            raise UsageError(wrong) from None
    return output


def look(output):
    """Whether a folder exists; raises UsageError or OSError if it cannot be made, or written to."""
    try:
        os.lstat(output)
    except FileNotFoundError:
        check_writable(next(parent for parent in output.absolute().parents if parent.exists()))
        return False
    output.stat()  # of what a link leads to
    if not output.is_dir():
        raise UsageError(f"--output={output}: it is a file; expected a folder or a new name.")
    check_writable(output)
    return True


def check_writable(folder):
    """Raises OSError if nothing can be made in a folder."""
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"{folder} cannot be written to")


def saved_configuration(output):
    """What config.json of a run says; None if there is none."""
    try:
        return rundirectory.configuration(output)
    except rundirectory.DamageError as error:
        raise UsageError(f"--output={output}: {error}; expected a whole run, or a new name.") from None


def check_same(run, name, value, saved):
    """Raises UsageError if a run, described by some words, has another value."""
    if value != saved:
        raise UsageError(f"{name}={value}: {run} has {saved}; expected that, another --output, or --overwrite.")


def compare(run, ours, saved, config):
    """Raises UsageError if a run has another configuration.

    Args:
        run: described by some words.
        ours, saved: config.json as this run would write it and as it is there, dicts.
        config: the configuration. A field that the file of an older run lacks has its default.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    for name, value in ours.items():
        if name not in config.MAY_CHANGE and (name in saved or name in defaults):
            check_same(run, name, value, saved.get(name, defaults.get(name)))


def is_free(output):
    """Whether a folder is empty, but for temporary files of a run that was killed when it began."""
    return set(output.iterdir()) <= set(rundirectory.left_over(output))


@contextlib.contextmanager
def started(output, command, config, data, strategy, worker=ALONE, **more):
    """Makes the run directory, or takes the one that is there, for the block; no other run can be in it meanwhile.

    With --overwrite, the files of the run that is there are removed first.

    Args:
        output: the directory; only the chief writes there.
        command: which it is.
        config: its configuration, completed; it is written to config.json, or compared with what is there, and with
            what the other workers have.
        data: the dataset.
        strategy: of the run.
        worker: `Worker`.
        **more: what else config.json says.

    Yields:
        Function that makes the directory again if it is gone, see `rundirectory.Lock.presence`.
    """
    import keras
    import tensorflow as tf

    ours = {**config.to_dict(), **more, "command": command, "task": data.task.name, "data": data.description()}
    ours = json.loads(json.dumps(ours))
    if worker.count > 1:
        from darts_tf.devices import replicas

        chiefs = json.loads(replicas.from_chief(strategy, json.dumps(ours).encode()))
        compare(f"the run of the chief, {output},", ours, chiefs, config)
    if not worker.is_chief:
        yield lambda: None
        return
    with writing_to(output, FOLDER):
        output.mkdir(parents=True, exist_ok=True)
        lock = rundirectory.Lock(output)
    try:
        with writing_to(output, FOLDER):
            saved = check_place(output, command, config)  # again, since it may have changed before it was locked
            for left in rundirectory.left_over(output):
                left.unlink()
            if saved:
                compare(f"the run in {output}", ours, saved, config)
                changed = saved | {name: ours[name] for name in config.MAY_CHANGE if name in ours}
                write(output / "config.json", json.dumps(changed, indent=2) + "\n")
            else:
                there = rundirectory.configuration(output)
                for left in rundirectory.results(output, there["command"]) if there else ():
                    left.unlink()
                versions = {"darts_tf": __version__, "tensorflow": tf.__version__, "keras": keras.__version__}
                write(output / "config.json", json.dumps({**ours, "versions": versions}, indent=2) + "\n")
        yield lock.presence()
    finally:
        lock.release()


def load_data(config, image_shape=None, random_parts=False, vocabulary=None, table=None):
    """The dataset that a configuration names, made to fit a model if that is given.

    Args:
        config: a configuration.
        image_shape: of the model, (height, width, depth).
        random_parts: whether it is one of `darts_tf.data.streams`, for the recipe of ImageNet.
        vocabulary: of the model, a list of texts.
        table: of the model, what the description of a `darts_tf.data.tables.Table` says.
    """
    from darts_tf.data import datasets, streams, tables, text

    if not config.dataset.strip():
        raise UsageError("--dataset=: expected digits, a folder, a .npz file, or a name such as cifar10.")
    if config.kind == "images" and text.is_text(config.dataset):
        raise UsageError(f"--dataset={config.dataset}: it is text, the network is one of images; expected images.")
    size = image_shape[:2] if image_shape else config.image_size
    try:
        with contextlib.redirect_stdout(sys.stderr):  # tensorflow-datasets has much to say
            if config.kind == "table":
                return tables.load(
                    *(config.dataset, config.label, types_of(config), config.test_table, config.test_seed),
                    *(config.data_dir, table, messages.say, messages.warn),
                )
            if config.kind == "text":
                return text.load(
                    *(config.dataset, config.tokens, vocabulary or config.vocabulary),
                    *(config.data_dir, messages.say, messages.progress),
                )
            if random_parts:
                data = streams.load(config.dataset, size, config.data_dir, messages.say)
            else:
                data = datasets.load(
                    config.dataset, size, config.data_dir, config.stream, messages.say, messages.progress
                )
        data = data.fitted(image_shape) if image_shape else data
        if config.stream and not random_parts:
            data.read(messages.progress)
        return data
    except datasets.DataError as error:
        raise UsageError(f"--dataset={config.dataset}: {error}") from error
    except OSError as error:
        if error.errno in NO_SPACE:
            raise
        reason = error.strerror or str(error)
        raise UsageError(f"--dataset={config.dataset}: {reason}; expected data that can be read.") from error


def types_of(config):
    """The types of --columns, {name: type}.

    Raises:
        UsageError: it says something else.
    """
    found = {}
    for text in config.columns or []:
        name, colon, kind = text.strip().rpartition(":")
        if not colon or not name:
            raise UsageError(f"--columns={text}: expected NAME:TYPE, such as age:number.")
        found[name] = kind
    return found


def check_data_flags(config):
    """Raises UsageError for a flag that was given and means nothing to the kind of data."""
    for name in recipes.flags_without(config.kind):
        if name in config.given:
            other = "a table" if config.kind == "table" else config.kind
            raise UsageError(f"--{name}={getattr(config, name)}: expected none with {other}.")
    if config.kind == "text":
        config.check_text()


def check_cutout(config, data):
    """Raises UsageError for holes as large as the images."""
    if config.kind == "images" and config.cutout and config.cutout_length >= min(data.image_shape[:2]):
        height, width = data.image_shape[:2]
        wrong = f"--cutout_length={config.cutout_length}: the images have {height}x{width} pixels"
        raise UsageError(f"{wrong}; expected less, such as {max(min(height, width) // 2, 1)}.")


def data_defaults(config, data):
    """Defaults of flags that follow from the data, a dict."""
    if config.kind != "images":
        return {}
    height, width, depth = data.image_shape
    return {"flip": depth > 1, "crop_padding": min(height, width) // 8}


def fitted_batches(config, data, portion):
    """The configuration; of a small table its batches are such that an epoch has some, unless a size was given.

    Args:
        config: with its batch size and all that it is of data.
        data: the dataset.
        portion: of its samples, that which an epoch sees.
    """
    if config.kind != "table" or "batch_size" in config.given:
        return config
    most = int(portion * len(data.y_train)) // LEAST_STEPS
    return config.replace(batch_size=max(2, min(config.batch_size, most)))  # of one sample a batch norm makes zeros


def batches_of(make, config, strategy, worker):
    """What a method of a dataset makes of a configuration: batches, steps in an epoch, batches to validate on.

    Raises:
        UsageError: there is too little data.
    """
    from darts_tf.data import datasets

    cutout = config.cutout_length if getattr(config, "cutout", False) else 0  # which trials lack
    own = ("randaugment", "magnitude", "mixup", "cutmix") if hasattr(config, "mixup") else ()  # which trainings have
    values = {
        **config.to_dict(),
        "augmentation": datasets.Augmentation(
            config.crop_padding or 0, bool(config.flip), cutout, **{name: getattr(config, name) for name in own}
        ),
        "worker": worker,
        "devices": strategy.num_replicas_in_sync,
    }
    check_batch_size(config.batch_size, strategy)
    try:
        return make(config.batch_size, **sizes.of(make, values))
    except datasets.DataError as error:
        raise UsageError(f"--batch_size={config.batch_size}: {error}") from None


def rate_by_length(data, config, vary, checkpoints):
    """The callback that follows the length of segments of text, in a list; empty for images."""
    if config.kind != "text":
        return []
    from darts_tf.runs import callbacks

    return [callbacks.RateByLength(data.segments(config.batch_size, config.bptt, vary, config.seed).scale, checkpoints)]


def import_operations(config):
    """Runs the file of --operations, and computes each operation that it registers once."""
    if not config.operations:
        return
    from darts_tf.ops import operations

    try:
        with operations.registering() as added:
            runpy.run_path(config.operations)
        for name in added:
            operations.check(name, getattr(config, "init_channels", None) or 16)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # it may call sys.exit
        reason = error if isinstance(error, operations.OperationError) else f"{type(error).__name__}: {error}"
        raise UsageError(f"--operations={config.operations}: {reason}") from error


def space_spec(config):
    """What config.json keeps of --space: of a file what it says, as the space of it says that, else its name.

    Raises:
        UsageError: it is a file that cannot be read, or does not describe a space.
    """
    try:
        spec = spaces.spec_of(config.space)
        return spaces.of({"space": spec}).spec if spaces.is_description(spec) else spec
    except ValueError as error:
        raise UsageError(f"--space={config.space}: {error}") from None
    except OSError as error:
        raise UsageError(f"--space={config.space}: {error.strerror}; expected a file that can be read.") from None


def search_space(config, task=None):
    """The space that a configuration names, and the configuration, with the values of the space where it had None.

    Args:
        config: a configuration.
        task: of the data that the space is to fit; None if that is not known.

    Raises:
        UsageError: there is no such space, or it cannot have these values, or not for such data.
    """
    from darts_tf.ops import operations

    values = {**config.to_dict(), "space": space_spec(config)}
    try:
        kind = spaces.get(values["space"])
    except ValueError:
        expected = (
            f"expected one of {', '.join(spaces.names())}, or a .json or .py file that describes cells or a chain"
        )
        raise UsageError(f"--space={config.space}: {expected}.") from None
    fields = {field.name for field in dataclasses.fields(kind)}
    if "primitives" in fields:
        check_primitives(config.primitives or (), kind)
    check_kind(config, f"--space={config.space}", kind)
    try:
        space = spaces.of(values)
        space = space if task is None else space.fitted(task)
    except ValueError as error:
        raise UsageError(f"--space={config.space}: {error}") from None
    if spaces.is_description(values["space"]):
        known = operations.operation_names()
        for name in getattr(space, "primitives", ()):
            if name not in known:
                raise UsageError(f"--space={config.space}: no operation {name!r}; expected some of {', '.join(known)}.")
    own = {name: getattr(space, name) for name in fields & set(values)}
    return space, config.replace(space=values["space"], **own)


def check_kind(config, flag, space):
    """Raises UsageError if the networks of a space, or of a class of spaces, are not of a configuration's data."""
    if config.kind not in space.kinds:
        wrong = f"its networks are of {' or '.join(space.kinds)}, {config.dataset} is a {config.kind}"
        raise UsageError(f"{flag}: {wrong}; expected one of the space {spaces.TABLE}.")


def space_sizes(config):
    """The defaults of sizes that the space of a configuration has in place of the recipes', a dict."""
    spec = space_spec(config)
    return spaces.get(spec).sizes if spaces.is_known(spec) else {}


def check_primitives(names, kind):
    """Raises UsageError if a name of --primitives is none that a class of spaces knows, or is there twice."""
    for name in names:
        try:
            kind.check_primitive(name)
        except ValueError as error:
            raise UsageError(f"--primitives={error}") from None
        if names.count(name) > 1:
            raise UsageError(f"--primitives={','.join(names)}: {name} is there twice; expected it once.")


@contextlib.contextmanager
def tensorflow(config):
    """Starts TensorFlow as a configuration says, where it has not been started yet.

    Yields:
        The `tf.distribute.Strategy` to make models under. The dtype policy is the configuration's inside.
    """
    messages.say("Starting TensorFlow ...")
    from darts_tf.devices import runtime

    with runtime.configured(
        cpu_devices=config.cpu_devices,
        precision=config.precision,
        start=config.strategy != "multi_worker",
        within=config.kind == "text",  # products of matrices want all cores at once
        tf32=not getattr(config, "unrolled", False),
        deterministic=getattr(config, "deterministic", False),
    ):
        yield _strategy(config)


def _strategy(config):
    from darts_tf.devices import replicas, runtime

    if config.strategy != "multi_worker":
        with runtime.quiet():
            return replicas.strategy(config.strategy)
    import tensorflow as tf

    worker, addresses = cluster.from_environment()
    del addresses[worker.index]
    try:
        with cluster.ended_by_wait(addresses, config.worker_timeout), runtime.quiet(show_errors=False):
            return replicas.strategy(config.strategy)
    except (tf.errors.UnknownError, tf.errors.InvalidArgumentError) as error:
        reason = " ".join(str(error).split())[:500]
        raise messages.RunError(f"--strategy=multi_worker: TensorFlow cannot begin: {reason}") from None


def check_batch_size(batch_size, strategy):
    """Raises UsageError for a batch that cannot be divided among the replicas."""
    count = strategy.num_replicas_in_sync
    if batch_size % count:
        raise UsageError(f"--batch_size={batch_size}: expected a multiple of {count}, one part per device.")
