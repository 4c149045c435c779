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
import dataclasses
import io
import json
import os
import shlex
import shutil
import signal
import sys
import time

from darts_tf import spaces
from darts_tf.cli import commands, messages
from darts_tf.cli.configuration import option
from darts_tf.cli.messages import RunError, UsageError
from darts_tf.devices.cluster import ALONE, LostError, Wait, Worker, check_name, check_port, port_of
from darts_tf.runs import recipes, rundirectory, sizes, starting
from darts_tf.runs.configurations import SHARED, WeightsConfig

ORACLES = ("random", "bayesian", "hyperband", "grid", "evolution", "reinforce", "pso", "darts")
SMALL = recipes.SMALL
# What --repeat_search has a use for: what it gives to searches and trainings, and its own flags.
REPEATED = (*SHARED, "output", "overwrite", "resume", "strategy", "worker_timeout")
REPEATED += ("repeat_search", "search_flags", "train_flags")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TuneConfig(WeightsConfig):
    """What `python -m darts_tf.tune` is asked for: each argument is a flag, whose meaning --help tells.

    Raises:
        UsageError: a value is out of range; a `ValueError`.
    """

    oracle: str = option("evolution", "How the next genotype is chosen.", topic="What to try", values=ORACLES)
    max_trials: int = option(20, "Trials, at most. Hyperband decides that itself.", topic="What to try", least=1)
    search_run: str | None = option(None, "For --oracle=darts: the run directory of a search.", topic="What to try")
    temperature: float = option(1.0, "For --oracle=darts: above 1 for more variety.", topic="What to try", least=1e-3)
    space: str = option(
        "darts",
        "What is tried: darts, the cells of the paper; s1 to s4, in which DARTS fails; nas-bench-201; chain, mobile "
        "blocks that suit the images, and chains of papers, see docs/chain.md; mlp, multilayer perceptrons; recurrent, "
        "cells of language models; one of your own; or a .json or .py file that describes cells or a chain, see "
        "docs/spaces.md.",
        topic="What to try",
    )
    nodes: int | None = option(
        None, "Intermediate nodes of a cell. Default: 4; recurrent 8.", topic="What to try", least=1
    )
    primitives: list | None = option(
        None, "Operations to choose from, comma-separated. Default: those of the paper but none.", topic="What to try"
    )
    widths: list | None = option(
        None, "Of chains and mlp: the widths of a layer to choose from: 0.5,0.75,1. Default: 1.", topic="What to try"
    )
    batch_norm: bool | None = option(
        None, "Of mlp: a batch norm before the activations of each layer. Default: yes.", topic="What to try"
    )
    repeat_search: int | None = option(
        None, "Instead of all this: so many DARTS searches, with seeds from 0.", topic="What to try", least=1
    )
    search_flags: str = option("", "For --repeat_search: more flags of darts_tf.search.", topic="What to try")
    train_flags: str = option("", "For --repeat_search: more flags of darts_tf.train.", topic="What to try")
    epochs: int = option(
        10, "Epochs; with hyperband, of the trials that get most.", topic="Training of a trial", least=1
    )
    batch_size: int = option(
        32, "Images, or rows of text or of a table, per batch.", topic="Training of a trial", least=1
    )
    train_portion: float = option(
        0.8, "Part of the training images to train on; the rest validates.", topic="Training of a trial"
    )
    init_channels: int = option(
        SMALL["init_channels"],
        "Channels of the first cell, or of the stem of a chain.",
        topic="Training of a trial",
        least=2,
    )
    layers: int = option(
        SMALL["layers"], "Cells; of mlp hidden layers at the most.", topic="Training of a trial", least=1
    )
    learning_rate: float = option(
        0.025,
        "Per step, at the start of a cosine to 0; of text by default 20, to the end.",
        topic="Training of a trial",
        least=0,
    )
    weight_decay: float = option(
        3e-4, "L2 decay of the weights; of text by default 8e-7.", topic="Training of a trial", least=0
    )
    drop_path_prob: float = option(
        0.0, "Drop path: the rate grows from 0 to this.", topic="Training of a trial", least=0, most=0.9
    )

    @property
    def _kinds(self):
        space = self.space
        if self.repeat_search:
            space = flags_in(self, "search_flags").get("space") or "darts"
        elif self.oracle == "darts":
            with contextlib.suppress(rundirectory.DamageError):  # which is told later
                space = (rundirectory.configuration(self.search_run or "") or {}).get("space") or space
        return spaces.kind(space).kinds

    def begun(self):
        if self.kind != "text":
            config = self.of_table()
            kind = spaces.kind(config.space)
            own = {field.name: field.default for field in dataclasses.fields(kind)} if kind.name else {}
            own = {name: value for name, value in own.items() if getattr(self, name, None) is not None} | kind.sizes
            return config.taken_over({name: value for name, value in own.items() if value is not None})
        return self.taken_over(recipes.SMALL_TEXT | {"epochs": self.epochs, "dataset": "topics"})

    def check(self):
        """Raises UsageError for what can be seen without TensorFlow."""
        if not 0 < self.train_portion < 1:
            raise UsageError(f"--train_portion={self.train_portion}: expected a number between 0 and 1.")
        if self.strategy == "multi_worker":
            raise UsageError(
                "--strategy=multi_worker: expected another; on several machines each runs trials of its own, see "
                "--help."
            )
        if self.init_channels % 2:
            raise UsageError(f"--init_channels={self.init_channels}: expected an even number.")
        if self.oracle == "darts" and not self.repeat_search and not self.search_run:
            raise UsageError("--oracle=darts: expected --search_run, the run directory of a search, too.")
        if self.primitives == []:
            raise UsageError("--primitives=: expected at least one operation.")
        if "none" in (self.primitives or []):
            raise UsageError("--primitives=none: expected operations that do something.")
        self._check_purpose()
        if self.repeat_search:
            from darts_tf.tuner import processes

            for command, more in (("search", ("seed",)), ("train", ())):
                name = f"{command}_flags"
                values = {**shared_flags(self), **flags_in(self, name)}
                try:
                    processes.check(command, values, more)
                except ValueError as error:
                    raise UsageError(f"--{name}={getattr(self, name)}: {error}") from None

    def _check_purpose(self):
        """Raises UsageError for flags that have no effect."""
        if self.repeat_search:
            for name in sorted(self.given - set(REPEATED)):
                value = getattr(self, name)
                raise UsageError(
                    f"--{name}={value}: with --repeat_search, expected in --search_flags or --train_flags."
                )
            return
        for name in ("search_flags", "train_flags"):
            if getattr(self, name):
                raise UsageError(f"--{name}={getattr(self, name)}: expected together with --repeat_search.")
        for name in ("search_run", "temperature"):
            if self.oracle != "darts" and name in self.given:
                raise UsageError(f"--{name}={getattr(self, name)}: expected together with --oracle=darts.")

    @property
    def limit(self):
        """How many trials there will be at most; None if only the oracle knows."""
        return self.repeat_search or (None if self.oracle == "hyperband" else self.max_trials)


def main(config):
    """The command."""
    role = place_among_machines(config)
    output, config = starting.directory(
        config, "tune", ["operations", "search_run"], ALONE if role != "worker" else Worker(1, 2)
    )
    config.check()
    if role != "worker":
        check_trials(output, config)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with starting.tensorflow(config) as strategy:
        starting.import_operations(config)
        data = starting.load_data(config)
        space, config = completed(config, data)
        batches = None if config.repeat_search else make_batches(data, config, strategy)
        with contextlib.ExitStack() as stack:
            if role == "worker":
                wait_for_chief(output, config)
            else:
                more = space.adapted() if space else {}
                present = stack.enter_context(starting.started(output, "tune", config, data, strategy, **more))
                if config.overwrite and (output / "trials").exists():
                    shutil.rmtree(output / "trials")
            messages.say(f"Trials on {data.in_words()}; results go to {output}/")
            # What keras-tuner prints:
            stack.enter_context(contextlib.redirect_stdout(sys.stderr if messages.verbosity() else io.StringIO()))
            try:
                present = None if role == "worker" else present
                record = run_trials(role, output, data, strategy, config, space, batches, present)
            except LostError as error:
                raise RunError(f"{error} To go on: the same command.") from None
    if role == "worker":
        return
    best = record.best()
    if not best:
        raise RunError(f"no trial ended well, {len(record.rows)} failed; see what they said above.")
    if config.limit and len(record.rows) < config.limit:
        why = f"{config.oracle} finds no genotype that was not tried yet"
        messages.warn(f"{len(record.rows)} trials instead of {config.limit}: {why}.")
    saved = f"Saved in {output}/: genotype.json, trials.csv, report.html"
    messages.result(
        f"\n{record.table()}\n\n{best['genotype']}\n\n{saved}", output=output, trials=len(record.rows), **best
    )


def run_trials(role, output, data, strategy, config, space, batches, present):
    """Runs the trials that are left, or a chief's server that gives them out.

    Returns:
        `tuner.record.Record` of them; it knows nothing in a worker.

    Raises:
        LostError: the other processes are gone.
    """
    from darts_tf.tuner import machines
    from darts_tf.tuner.record import Record

    try:
        record = Record(output, data, config, space)
        make = repeated_searches if config.repeat_search else tuner_of_genotypes
        tuner = make(output, strategy, config, space, record, data)
        if role != "worker":
            record.write(tuner.oracle)
    except rundirectory.DamageError as error:
        raise UsageError(f"--output={output}: {error}; expected a whole run, or a new name.") from None
    tuner.timeout, tuner.tell = config.worker_timeout, messages.say
    if role == "worker":
        messages.say(f"Asking the chief at {chief_address()} for trials.")
        limit, metric = config.limit, record.metric
        is_over = lambda: limit and ended(output, metric) >= limit  # noqa: E731
        machines.be_patient(tuner.oracle, config.worker_timeout, messages.say, is_over)
        try:
            search(tuner, config, output, batches)
        except machines.OverError:
            messages.say(f"The chief is gone, since all {limit} trials in {output}/ have ended.")
        return record
    record.follow(tuner.oracle, present)
    if role == "chief":
        watch = machines.Watch(tuner.oracle, config.worker_timeout, messages.warn)
        if not watch.is_done():
            tuner.save()
            try:
                serve(watch, config.worker_timeout)
            except (KeyboardInterrupt, SystemExit):
                messages.say(f"\nStopped. To go on: the same command with --output={output} --resume")
                raise
    else:
        search(tuner, config, output, batches)
    record.write(tuner.oracle)
    return record


def ended(output, metric):
    """The number of trials that have ended; `metric` is the name of the column of results."""
    try:
        return len(rundirectory.trials(output, metric) or [])
    except rundirectory.DamageError:
        return 0


def chief_address():
    return ":".join(os.environ[f"KERASTUNER_ORACLE_{part}"] for part in ("IP", "PORT"))


def serve(watch, timeout):
    """Runs the chief's server until all is done, nobody asks any more, or there is a problem in its oracle."""
    expected = "expected workers of this command, with the same KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT."
    wait = Wait(f"workers that ask {chief_address()} for trials", timeout, messages.say, expected)
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
        raise RunError(f"{type(watch.problems[0]).__name__}: {watch.problems[0]}")


def wait_for_chief(output, config):
    """Returns when the run directory is there.

    Raises:
        UsageError: it is of another configuration.
        RunError: it did not appear in time.
    """
    expected = "expected the chief to be started, with an --output that all machines share."
    wait = Wait(f"the chief to start in {output}/", config.worker_timeout, messages.say, expected)
    try:
        while not (output / "config.json").exists():
            wait.sleep()
    except LostError as error:
        raise RunError(str(error)) from None
    ours, chiefs = json.loads(json.dumps(config.to_dict())), starting.saved_configuration(output)
    starting.compare(f"the run of the chief, {output},", ours, chiefs, config)


def place_among_machines(config):
    """Raises UsageError for what is wrong with keras-tuner's variables; returns "alone", "chief" or "worker"."""
    names = [f"KERASTUNER_{name}" for name in ("TUNER_ID", "ORACLE_IP", "ORACLE_PORT")]
    missing = [name for name in names if name not in os.environ]
    if len(missing) == len(names):
        return "alone"
    if missing:
        raise UsageError(f"{missing[0]} is not set: expected all of {', '.join(names)}, or none.")
    identity, host, port = (os.environ[name] for name in names)
    if not identity.strip() or not identity.isprintable():
        raise UsageError(f"{names[0]}={identity}: expected chief, or another name for each worker.")
    role = "chief" if "chief" in identity else "worker"
    try:
        number = port_of(port)
    except ValueError as error:
        raise UsageError(f"{names[2]}={port}: {error}; expected one that is free on the chief.") from None
    try:
        if not host.strip():
            raise ValueError("it is empty")
        check_name(host)
        if role == "chief":
            check_port(host, number)
    except ValueError as error:
        expected = "expected an address of this machine and a free port" if role == "chief" else "expected the chief's"
        raise UsageError(f"{names[1]}={host}: {error}; {expected}.") from None
    if not config.output:
        raise UsageError("no --output: expected one that all machines share.")
    if role == "worker" and config.overwrite:
        raise UsageError("--overwrite: expected of the chief alone, who writes to --output.")
    return role


def check_trials(output, config):
    """Raises UsageError if what is in the run directory could not go on with these flags."""
    if not (output / "config.json").exists():
        return
    trials = list(output.glob("trials/trial_*"))
    if config.overwrite:
        if trials and starting.saved_configuration(output)["command"] != "tune":
            wrong = "its trials are not of the run that is there"
            raise UsageError(f"--output={output}: {wrong}; expected another folder.")
        return
    done = ended(output, f"val_{rundirectory.task(starting.saved_configuration(output)).headline.name}")
    if not (output / "trials" / "oracle.json").exists() and (trials or done):
        wrong = "its trials/oracle.json is gone, so it cannot go on"
        raise UsageError(f"--output={output}: {wrong}; expected a whole run, or a new name.")
    done = max(len(trials), done)
    if config.limit and done > config.limit and not config.repeat_search:
        wrong = f"the run in {output} has {done} trials already"
        raise UsageError(f"--max_trials={config.max_trials}: {wrong}; expected at least as many.")


def completed(config, data):
    """The space, and the configuration, completed; with --oracle=darts the space is the one of the search."""
    starting.check_data_flags(config)
    config = config.completed(starting.data_defaults(config, data))
    config = starting.fitted_batches(config, data, config.train_portion)
    if config.repeat_search:
        return None, config
    if config.oracle == "darts":
        from darts_tf.tuner import sampling

        try:
            _, space, *_ = sampling.read(config.search_run)
        except ValueError as error:
            raise UsageError(f"--search_run={config.search_run}: {error}") from None
        own = {"space": space.spec}
        for field in dataclasses.fields(space):
            own[field.name] = getattr(space, field.name)
        if "primitives" in own:
            own["primitives"] = [name for name in own["primitives"] if name != "none"]
        for name in own.keys() & config.given:
            starting.check_same(f"the search in {config.search_run}", f"--{name}", getattr(config, name), own[name])
        known = {field.name for field in dataclasses.fields(config)}
        return space, config.replace(**{name: value for name, value in own.items() if name in known})
    space, config = starting.search_space(config, data.task)
    if config.primitives is not None:
        config = config.replace(primitives=[name for name in config.primitives if name != "none"])
    sizes.check_given(config, space, space.network)
    return space, config


def objective(headline):
    """keras-tuner's objective: the headline metric on validation data."""
    import keras_tuner

    return keras_tuner.Objective(f"val_{headline.name}", headline.direction)


def make_batches(data, config, strategy):
    """Training batches as a function, steps per epoch, and validation batches."""
    if config.kind != "text":
        portion, images = config.train_portion, len(data.y_train)
        chosen = round(portion * images)
        if not 0 < chosen < images:
            wrong = f"of {images} {data.items} that leaves {chosen} to train on and {images - chosen} to validate"
            raise UsageError(f"--train_portion={portion}: {wrong}; expected some of both.")
    return starting.batches_of(data.batches, config, strategy, ALONE)


def tuner_of_genotypes(output, strategy, config, space, record, data):
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
        space=space,
        task=data.task,
        sizes=sizes.of(space.network, config.to_dict()),
        learning_rate=config.learning_rate,
        drop_path_prob=config.drop_path_prob,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
        grad_clip=config.grad_clip,
        seed=config.seed,
    )
    shared = {
        "objective": objective(data.task.headline),
        "seed": config.seed + 1,
        "max_consecutive_failed_trials": None,
    }
    places = {"directory": output, "project_name": "trials"}
    if strategy.num_replicas_in_sync > 1:
        places["distribution_strategy"] = strategy
    if config.oracle == "hyperband":
        oracle = keras_tuner.oracles.HyperbandOracle(max_epochs=config.epochs, **shared)
        return Hyperband(durable(oracle, record.restored, messages.warn), model, **places)
    limit = config.max_trials
    kind, more = {
        "random": (keras_tuner.oracles.RandomSearchOracle, {}),
        "bayesian": (keras_tuner.oracles.BayesianOptimizationOracle, {}),
        "grid": (tuner.GridOracle, {}),
        "evolution": (tuner.RegularizedEvolutionOracle, {"population_size": max(2, min(20, limit // 3))}),
        "reinforce": (tuner.ReinforceOracle, {}),
        "pso": (tuner.ParticleSwarmOracle, {"particles": max(1, min(10, limit // 3))}),
        "darts": (tuner.DARTSOracle, {"run": config.search_run, "temperature": config.temperature}),
    }[config.oracle]
    oracle = kind(max_trials=limit, **shared, **more)
    return Tuner(durable(oracle, record.restored, messages.warn), model, **places)


def shared_flags(config):
    """{flag: value} that searches and trainings are given."""
    others = recipes.flags_without(config.kind)
    values = {name: getattr(config, name) for name in SHARED if name not in others}
    return {name: value for name, value in values.items() if value is not None}


def repeated_searches(output, strategy, config, space, record, data):
    """The tuner of --repeat_search: every trial is a DARTS search."""
    import keras_tuner

    from darts_tf import tuner
    from darts_tf.tuner.oracle import durable

    hyperparameters = keras_tuner.HyperParameters()
    hyperparameters.Choice("seed", list(range(config.repeat_search)))
    oracle = tuner.GridOracle(
        objective(data.task.headline), config.repeat_search, seed=1, hyperparameters=hyperparameters
    )
    durable(oracle, record.restored, messages.warn)
    given = [{**shared_flags(config), **flags_in(config, name)} for name in ("search_flags", "train_flags")]
    try:
        return tuner.DARTSTuner(oracle, *given, tell=messages.say, directory=output, project_name="trials")
    except rundirectory.DamageError:
        raise
    except ValueError as error:
        raise UsageError(str(error)) from None


def flags_in(config, name):
    """The flags that are the value of --search_flags, for example, as {flag: value}; None for flags without a value."""
    found = {}
    try:
        words = shlex.split(getattr(config, name))
    except ValueError as error:
        raise UsageError(f"--{name}={getattr(config, name)}: {error}; expected flags as on a command line.") from None
    for word in words:
        flag, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not flag:
            raise UsageError(f"--{name}={word}: expected flags, such as --epochs=20.")
        found[flag] = value if equals else None
    return found


def search(tuner, config, output, batches):
    """Runs the trials that are left."""
    import keras_tuner

    try:
        tuner.oracle.verbose = 0
        if config.repeat_search:
            tuner.search(verbose=0)
            return
        train, steps, valid = batches
        tuner.search(
            train(),
            steps_per_epoch=steps,
            epochs=config.epochs,
            planned_epochs=config.epochs,
            validation_data=valid,
            fit_verbose=messages.verbosity() if messages.verbosity() != 1 or sys.stderr.isatty() else 0,
            shuffle=False,
        )
    except (KeyboardInterrupt, SystemExit):
        messages.say(f"\nStopped. To go on: the same command with --output={output} --resume")
        raise
    except keras_tuner.errors.FatalValueError as error:
        raise UsageError(str(error)) from None


if __name__ == "__main__":
    commands.run(main, TuneConfig)
