"""Searches genotypes with keras-tuner: every trial trains the network of one for a few epochs.

Evolution on the digits that come with the package:

    python -m darts_tf.tune --oracle=evolution --max_trials=30

Around what a DARTS search has found, first its genotype, then samples of softmax(alpha):

    python -m darts_tf.tune --oracle=darts --search_run=runs/a --dataset=photos/ --image_size=32

DARTS itself, once per seed, each search followed by a training:

    python -m darts_tf.tune --repeat_search=4 --search_flags="--unrolled" --train_flags="--epochs=20"

The best by validation accuracy becomes genotype.json; trials.csv has all of them, report.html shows them. On several
machines: the same command, and keras-tuner's KERASTUNER_TUNER_ID ("chief" for one, which gives out the trials),
KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT; all of them write to the same --output.
"""

import contextlib
import io
import json
import os
import shlex
import shutil
import signal
import sys
import time

from absl import flags

from darts_tf.cli import commands
from darts_tf.devices.cluster import ALONE, LostError, Wait, Worker, check_name, check_port, port_of
from darts_tf.runs import common as runs
from darts_tf.runs import recipes, rundirectory
from darts_tf.tuner import processes

FLAGS = flags.FLAGS
ORACLES = ("random", "bayesian", "hyperband", "grid", "evolution", "reinforce", "pso", "darts")
SMALL = recipes.SMALL

with commands.topic("What to try"):
    flags.DEFINE_enum("oracle", "evolution", ORACLES, "How the next genotype is chosen.")
    flags.DEFINE_integer("max_trials", 20, "Trials, at most. Hyperband decides that itself.", lower_bound=1)
    flags.DEFINE_string("search_run", None, "For --oracle=darts: the run directory of a search.")
    flags.DEFINE_float("temperature", 1.0, "For --oracle=darts: above 1 for more variety.", lower_bound=1e-3)
    flags.DEFINE_integer("nodes", 4, "Intermediate nodes of a cell.", lower_bound=1)
    flags.DEFINE_list(
        "primitives", None, "Operations to choose from, comma-separated. Default: those of the paper but none."
    )
    flags.DEFINE_integer(
        "repeat_search", None, "Instead of all this: so many DARTS searches, with seeds from 0.", lower_bound=1
    )
    flags.DEFINE_string("search_flags", "", "For --repeat_search: more flags of darts_tf.search.")
    flags.DEFINE_string("train_flags", "", "For --repeat_search: more flags of darts_tf.train.")

with commands.topic("Training of a trial"):
    flags.DEFINE_integer("epochs", 10, "Epochs; with hyperband, of the trials that get most.", lower_bound=1)
    flags.DEFINE_integer("batch_size", 32, "Images per batch.", lower_bound=1)
    flags.DEFINE_float("train_portion", 0.8, "Part of the training images to train on; the rest validates.")
    flags.DEFINE_integer("init_channels", SMALL["init_channels"], "Channels of the first cell.", lower_bound=2)
    flags.DEFINE_integer("layers", SMALL["layers"], "Cells.", lower_bound=1)
    flags.DEFINE_float("learning_rate", 0.025, "Per step, at the start of a cosine to 0.", lower_bound=0)
    flags.DEFINE_float("weight_decay", 3e-4, "L2 decay of the weights.", lower_bound=0)
    flags.DEFINE_float(
        "drop_path_prob", 0.0, "Drop path: the rate grows from 0 to this.", lower_bound=0, upper_bound=0.9
    )

for _name in (
    *("dataset", "data_dir", "stream", "image_size", "crop_padding", "flip", "operations"),
    *("output", "overwrite", "resume", "seed", "strategy", "cpu_devices", "precision", "worker_timeout"),
):
    flags.declare_key_flag(_name)


def main(_):
    role = place_among_machines()
    output = runs.directory("tune", ["operations", "search_run"], ALONE if role != "worker" else Worker(1, 2))
    check_flags()
    if role != "worker":
        check_trials(output)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    strategy = runs.start_tensorflow()
    runs.import_operations(FLAGS.init_channels)
    data = runs.load_data()
    config = configuration(data)
    batches = None if config["repeat_search"] else make_batches(data, config, strategy)
    if role == "worker":
        wait_for_chief(output, config)
    else:
        runs.start(output, "tune", config, data, strategy)  # which locks it
        if FLAGS.overwrite and (output / "trials").exists():
            shutil.rmtree(output / "trials")
    commands.say(f"Trials on {runs.describe(data)}; results go to {output}/")
    with contextlib.redirect_stdout(sys.stderr if FLAGS.verbose else io.StringIO()):  # what keras-tuner prints
        try:
            record = run_trials(role, output, data, strategy, config, batches)
        except LostError as error:
            raise SystemExit(f"error: {error} To go on: the same command.") from None
    if role == "worker":
        return
    best = record.best()
    if not best:
        raise SystemExit(f"error: no trial ended well, {len(record.rows)} failed; see what they said above.")
    limit = config["repeat_search"] or (config["oracle"] != "hyperband" and config["max_trials"])
    if limit and len(record.rows) < limit:
        why = f"{config['oracle']} finds no genotype that was not tried yet"
        commands.warn(f"{len(record.rows)} trials instead of {limit}: {why}.")
    saved = f"Saved in {output}/: genotype.json, trials.csv, report.html"
    commands.result(
        f"\n{record.table()}\n\n{best['genotype']}\n\n{saved}", output=output, trials=len(record.rows), **best
    )


def run_trials(role, output, data, strategy, config, batches):
    """Runs the trials that are left, or a chief's server that gives them out.

    Returns:
        `tuner.record.Record` of them; it knows nothing in a worker.

    Raises:
        LostError: the other processes are gone.
    """
    from darts_tf.tuner import machines
    from darts_tf.tuner.record import Record

    try:
        record = Record(output, data, config)
        tuner = (repeated_searches if FLAGS.repeat_search else tuner_of_genotypes)(
            output, strategy, config, record, data
        )
        if role != "worker":
            record.write(tuner.oracle)
    except rundirectory.DamageError as error:
        raise commands.UsageError(f"--output={output}: {error}; expected a whole run, or a new name.") from None
    tuner.timeout, tuner.tell = FLAGS.worker_timeout, commands.say
    if role == "worker":
        commands.say(f"Asking the chief at {chief_address()} for trials.")
        limit = config["repeat_search"] or (config["oracle"] != "hyperband" and config["max_trials"])
        machines.be_patient(tuner.oracle, FLAGS.worker_timeout, commands.say, lambda: limit and ended(output) >= limit)
        try:
            search(tuner, config, output, batches)
        except machines.OverError:
            commands.say(f"The chief is gone, since all {limit} trials in {output}/ have ended.")
        return record
    record.follow(tuner.oracle)
    if role == "chief":
        watch = machines.Watch(tuner.oracle, FLAGS.worker_timeout, commands.warn)
        if not watch.is_done():
            tuner.save()
            try:
                serve(watch)
            except (KeyboardInterrupt, SystemExit):
                commands.say(f"\nStopped. To go on: the same command with --output={output} --resume")
                raise
    else:
        search(tuner, config, output, batches)
    record.write(tuner.oracle)
    return record


def ended(output):
    """The number of trials that have ended."""
    try:
        return len(rundirectory.trials(output) or [])
    except rundirectory.DamageError:
        return 0


def chief_address():
    return ":".join(os.environ[f"KERASTUNER_ORACLE_{part}"] for part in ("IP", "PORT"))


def serve(watch):
    """Runs the chief's server until all is done, nobody asks any more, or there is a problem in its oracle."""
    expected = "expected workers of this command, with the same KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT."
    wait = Wait(f"workers that ask {chief_address()} for trials", FLAGS.worker_timeout, commands.say, expected)
    with watch.serving(chief_address()):
        while not watch.is_over() and not watch.problems:
            time.sleep(0.5)
            wait.again(watch.heard)
            try:
                wait.check()
            except LostError:
                if not watch.is_done():
                    raise
                break
    if watch.problems and isinstance(watch.problems[0], OSError):
        raise watch.problems[0]
    if watch.problems:
        raise SystemExit(f"error: {type(watch.problems[0]).__name__}: {watch.problems[0]}")


def wait_for_chief(output, config):
    """Returns when the run directory is there.

    Raises:
        commands.UsageError: it is of another configuration.
        SystemExit: it did not appear in time.
    """
    expected = "expected the chief to be started, with an --output that all machines share."
    wait = Wait(f"the chief to start in {output}/", FLAGS.worker_timeout, commands.say, expected)
    try:
        while not (output / "config.json").exists():
            wait.sleep()
    except LostError as error:
        raise SystemExit(f"error: {error}") from None
    ours, chiefs = json.loads(json.dumps(config)), runs.saved_configuration(output)
    runs.compare(f"the run of the chief, {output},", ours, chiefs)


def place_among_machines():
    """Raises UsageError for what is wrong with keras-tuner's variables; returns "alone", "chief" or "worker"."""
    names = [f"KERASTUNER_{name}" for name in ("TUNER_ID", "ORACLE_IP", "ORACLE_PORT")]
    missing = [name for name in names if name not in os.environ]
    if len(missing) == len(names):
        return "alone"
    if missing:
        raise commands.UsageError(f"{missing[0]} is not set: expected all of {', '.join(names)}, or none.")
    identity, host, port = (os.environ[name] for name in names)
    if not identity.strip() or not identity.isprintable():
        raise commands.UsageError(f"{names[0]}={identity}: expected chief, or another name for each worker.")
    role = "chief" if "chief" in identity else "worker"
    try:
        number = port_of(port)
    except ValueError as error:
        raise commands.UsageError(f"{names[2]}={port}: {error}; expected one that is free on the chief.") from None
    try:
        if not host.strip():
            raise ValueError("it is empty")
        check_name(host)
        if role == "chief":
            check_port(host, number)
    except ValueError as error:
        expected = "expected an address of this machine and a free port" if role == "chief" else "expected the chief's"
        raise commands.UsageError(f"{names[1]}={host}: {error}; {expected}.") from None
    if not FLAGS.output:
        raise commands.UsageError("no --output: expected one that all machines share.")
    if role == "worker" and FLAGS.overwrite:
        raise commands.UsageError("--overwrite: expected of the chief alone, who writes to --output.")
    return role


def check_trials(output):
    """Raises UsageError if what is in the run directory could not go on with these flags."""
    if not (output / "config.json").exists():
        return
    trials = list(output.glob("trials/trial_*"))
    if FLAGS.overwrite:
        if trials and runs.saved_configuration(output)["command"] != "tune":
            wrong = "its trials are not of the run that is there"
            raise commands.UsageError(f"--output={output}: {wrong}; expected another folder.")
        return
    if not (output / "trials" / "oracle.json").exists() and (trials or ended(output)):
        wrong = "its trials/oracle.json is gone, so it cannot go on"
        raise commands.UsageError(f"--output={output}: {wrong}; expected a whole run, or a new name.")
    done = max(len(trials), ended(output))
    if done > FLAGS.max_trials and FLAGS.oracle != "hyperband" and not FLAGS.repeat_search:
        wrong = f"the run in {output} has {done} trials already"
        raise commands.UsageError(f"--max_trials={FLAGS.max_trials}: {wrong}; expected at least as many.")


def check_flags():
    """Raises UsageError for what can be seen without TensorFlow."""
    if not 0 < FLAGS.train_portion < 1:
        raise commands.UsageError(f"--train_portion={FLAGS.train_portion}: expected a number between 0 and 1.")
    if FLAGS.strategy == "multi_worker":
        raise commands.UsageError(
            "--strategy=multi_worker: expected another; on several machines each runs trials of its own, see --help."
        )
    if FLAGS.init_channels % 2:
        raise commands.UsageError(f"--init_channels={FLAGS.init_channels}: expected an even number.")
    if FLAGS.oracle == "darts" and not FLAGS.repeat_search and not FLAGS.search_run:
        raise commands.UsageError("--oracle=darts: expected --search_run, the run directory of a search, too.")
    if FLAGS.primitives == []:
        raise commands.UsageError("--primitives=: expected at least one operation.")
    if "none" in (FLAGS.primitives or []):
        raise commands.UsageError("--primitives=none: expected operations that do something.")
    check_purpose()
    if FLAGS.repeat_search:
        for command, more in (("search", ("seed",)), ("train", ())):
            name = f"{command}_flags"
            values = {**shared_flags(), **flags_in(name)}
            try:
                processes.check(command, values, more)
            except ValueError as error:
                raise commands.UsageError(f"--{name}={FLAGS[name].value}: {error}") from None


def check_purpose():
    """Raises UsageError for flags that have no effect."""
    ours = {flag.name for flag in FLAGS.get_key_flags_for_module(sys.modules[__name__])}
    for flag in FLAGS.flags_by_module_dict()[runs.__name__]:
        if flag.name not in ours and not flag.using_default_value:
            raise commands.UsageError(f"--{flag.name}={flag.value}: expected flags of darts_tf.tune, see --help.")
    if FLAGS.repeat_search:
        used = (
            "dataset",
            "data_dir",
            "stream",
            "image_size",
            "operations",
            "output",
            "overwrite",
            "resume",
            "strategy",
        )
        used += ("repeat_search", "search_flags", "train_flags", "worker_timeout")
        for name in sorted(ours - set(used)):
            if not FLAGS[name].using_default_value:
                raise commands.UsageError(
                    f"--{name}={FLAGS[name].value}: with --repeat_search, expected in --search_flags or --train_flags."
                )
        return
    for name in ("search_flags", "train_flags"):
        if FLAGS[name].value:
            raise commands.UsageError(f"--{name}={FLAGS[name].value}: expected together with --repeat_search.")
    for name in ("search_run", "temperature"):
        if FLAGS.oracle != "darts" and not FLAGS[name].using_default_value:
            raise commands.UsageError(f"--{name}={FLAGS[name].value}: expected together with --oracle=darts.")


def configuration(data):
    """The flags, completed; with --oracle=darts the space is the one of the search."""
    from darts_tf.ops import operations

    if FLAGS.oracle == "darts" and not FLAGS.repeat_search:
        from darts_tf.tuner import sampling

        try:
            alphas, names = sampling.read(FLAGS.search_run)
        except ValueError as error:
            raise commands.UsageError(f"--search_run={FLAGS.search_run}: {error}") from None
        edges = len(alphas["normal"])
        nodes = next(nodes for nodes in range(1, edges) if nodes * (nodes + 3) // 2 >= edges)
        for name, value in (("nodes", nodes), ("primitives", [name for name in names if name != "none"])):
            if not FLAGS[name].using_default_value and FLAGS[name].value != value:
                runs.check_same(f"the search in {FLAGS.search_run}", f"--{name}", FLAGS[name].value, value)
            FLAGS[name].value = value
    config = runs.configuration(
        sys.modules[__name__],
        {
            "primitives": [name for name in operations.PRIMITIVES if name != "none"],
            "flip": data.image_shape[-1] > 1,
            "crop_padding": min(data.image_shape[:2]) // 8,
        },
    )
    runs.check_primitives(config["primitives"], operations.operation_names()[1:])
    return config


def objective():
    import keras_tuner

    return keras_tuner.Objective("val_accuracy", "max")


def make_batches(data, config, strategy):
    """Training batches, steps per epoch, and validation batches."""
    from darts_tf.data import datasets

    portion, images = config["train_portion"], len(data.y_train)
    chosen = round(portion * images)
    if not 0 < chosen < images:
        wrong = f"of {images} images that leaves {chosen} to train on and {images - chosen} to validate"
        raise commands.UsageError(f"--train_portion={portion}: {wrong}; expected some of both.")
    runs.check_batch_size(config["batch_size"], strategy)
    augmentation = datasets.Augmentation(config["crop_padding"], config["flip"])
    try:
        batches, steps, valid = data.batches(config["batch_size"], augmentation, config["seed"], portion)
    except datasets.DataError as error:
        raise commands.UsageError(f"--batch_size={config['batch_size']}: {error}") from None
    return batches, steps, valid


def tuner_of_genotypes(output, strategy, config, record, data):
    """The tuner of --oracle: every trial trains the network of a genotype."""
    import keras_tuner

    from darts_tf import tuner
    from darts_tf.tuner import machines
    from darts_tf.tuner.oracle import durable

    class Tuner(machines.Reporting, keras_tuner.Tuner):
        pass

    class Hyperband(machines.Reporting, keras_tuner.Hyperband):
        def __init__(self, *args, **kwargs):
            keras_tuner.Tuner.__init__(self, *args, **kwargs)  # with an oracle that is there already

    model = tuner.GenotypeHyperModel(
        data.image_shape,
        len(data.class_names),
        **{name: config[name] for name in ("nodes", "primitives", "layers", "learning_rate", "drop_path_prob")},
        channels=config["init_channels"],
        weight_decay=config["weight_decay"],
        normalization=data.statistics(),
        seed=config["seed"],
    )
    shared = {"objective": objective(), "seed": config["seed"] + 1, "max_consecutive_failed_trials": None}
    places = {"directory": output, "project_name": "trials"}
    if strategy.num_replicas_in_sync > 1:
        places["distribution_strategy"] = strategy
    if config["oracle"] == "hyperband":
        oracle = keras_tuner.oracles.HyperbandOracle(max_epochs=config["epochs"], **shared)
        return Hyperband(durable(oracle, record.restored, commands.warn), model, **places)
    limit = config["max_trials"]
    kind, more = {
        "random": (keras_tuner.oracles.RandomSearchOracle, {}),
        "bayesian": (keras_tuner.oracles.BayesianOptimizationOracle, {}),
        "grid": (tuner.GridOracle, {}),
        "evolution": (tuner.RegularizedEvolutionOracle, {"population_size": max(2, min(20, limit // 3))}),
        "reinforce": (tuner.ReinforceOracle, {}),
        "pso": (tuner.ParticleSwarmOracle, {"particles": max(1, min(10, limit // 3))}),
        "darts": (tuner.DARTSOracle, {"run": config["search_run"], "temperature": config["temperature"]}),
    }[config["oracle"]]
    oracle = kind(max_trials=limit, **shared, **more)
    return Tuner(durable(oracle, record.restored, commands.warn), model, **places)


def shared_flags():
    """{flag: value} that searches and trainings are given."""
    values = {name: FLAGS[name].value for name in ("dataset", "data_dir", "stream", "image_size", "operations")}
    return {name: value for name, value in values.items() if value is not None}


def repeated_searches(output, strategy, config, record, data):
    """The tuner of --repeat_search: every trial is a DARTS search."""
    import keras_tuner

    from darts_tf import tuner
    from darts_tf.tuner.oracle import durable

    hyperparameters = keras_tuner.HyperParameters()
    hyperparameters.Choice("seed", list(range(config["repeat_search"])))
    oracle = tuner.GridOracle(objective(), config["repeat_search"], seed=1, hyperparameters=hyperparameters)
    durable(oracle, record.restored, commands.warn)
    given = [{**shared_flags(), **flags_in(name)} for name in ("search_flags", "train_flags")]
    try:
        return tuner.DARTSTuner(oracle, *given, tell=commands.say, directory=output, project_name="trials")
    except rundirectory.DamageError:
        raise
    except ValueError as error:
        raise commands.UsageError(str(error)) from None


def flags_in(name):
    """{flag: value} of the command line that a flag has as its value; None for flags without one."""
    found = {}
    try:
        words = shlex.split(FLAGS[name].value)
    except ValueError as error:
        raise commands.UsageError(
            f"--{name}={FLAGS[name].value}: {error}; expected flags as on a command line."
        ) from None
    for word in words:
        flag, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not flag:
            raise commands.UsageError(f"--{name}={word}: expected flags, such as --epochs=20.")
        found[flag] = value if equals else None
    return found


def search(tuner, config, output, batches):
    """Runs the trials that are left."""
    import keras_tuner

    try:
        tuner.oracle.verbose = 0
        if config["repeat_search"]:
            tuner.search(verbose=0)
            return
        train, steps, valid = batches
        tuner.search(
            train(),
            steps_per_epoch=steps,
            epochs=config["epochs"],
            planned_epochs=config["epochs"],
            validation_data=valid,
            fit_verbose=FLAGS.verbose if FLAGS.verbose != 1 or sys.stderr.isatty() else 0,
            shuffle=False,
        )
    except (KeyboardInterrupt, SystemExit):
        commands.say(f"\nStopped. To go on: the same command with --output={output} --resume")
        raise
    except keras_tuner.errors.FatalValueError as error:
        raise commands.UsageError(str(error)) from None


if __name__ == "__main__":
    commands.run(main)
