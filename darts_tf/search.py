"""Searches a neural network cell for images or text, or a perceptron for tables, with DARTS.

Without flags it searches on the 8x8 digits that come with the package, in a few minutes on a laptop:

    python -m darts_tf.search

The search of the paper, second order, on CIFAR-10 (a day on a GPU of 2018):

    python -m darts_tf.search --dataset=cifar10 --unrolled --output=runs/cifar10

On your own images, in one folder per class:

    python -m darts_tf.search --dataset=photos/ --image_size=32 --epochs=25

A chain of mobile blocks, by evolution over a supernet, and another one in the same supernet:

    python -m darts_tf.search --space=chain --method=spos --dataset=photos/ --image_size=64 --output=runs/chain
    python -m darts_tf.search --from_supernet=runs/chain --max_multiply_adds=20e6

A recurrent cell for language models, on the text of Python's help or on a text of your own:

    python -m darts_tf.search --space=recurrent
    python -m darts_tf.search --space=recurrent --dataset=books/

A perceptron for the rows of a table:

    python -m darts_tf.search --dataset=docs/rents.csv --label=rent

The run directory gets report.html, config.json, history.csv, alphas.npz and genotype.json, after every epoch.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import NamedTuple

from darts_tf.cli import commands, messages
from darts_tf.cli.messages import UsageError
from darts_tf.costs import forms, latency, tables
from darts_tf.methods import penalties, perturbations, relaxations, selections
from darts_tf.reports import report
from darts_tf.runs import budget, deciding, fitting, front, phases, recipes, rundirectory, sizes, starting
from darts_tf.runs.configurations import SearchConfig


@dataclasses.dataclass(frozen=True)
class Search:
    """A search that has ended.

    Attributes:
        directory: path of its run directory.
        genotype: what it has found, a `Genotype` or an architecture of another space.
        history: a dict per epoch, as in history.csv.
        config: its `SearchConfig`, with the values that were used.
        budget: of each cost that is bounded a dict of "cost", "most" and "expected", what the network has.
        front: of each network of `front`, the cheapest first, a dict of "architecture", "result" and costs.
    """

    directory: pathlib.Path
    genotype: object
    history: list
    config: SearchConfig
    budget: list
    front: list


def run_search(config=None, verbose=1):
    """Searches from the data to a genotype, as `python -m darts_tf.search` does.

        search = darts_tf.run_search(darts_tf.SearchConfig(dataset="digits", epochs=3))
        darts_tf.run_training(darts_tf.TrainConfig(arch=str(search.genotype)))

    TensorFlow is set up for a search if it has not begun yet (one thread within an operation on CPUs). Interrupted, the
    search writes a checkpoint first; with the same `output` it goes on.

    Args:
        config: `SearchConfig`; by default the digits that come with the package.
        verbose: what stderr gets, as in Keras: 0 warnings, 1 a bar for the epoch on a terminal, 2 a line per epoch.

    Returns:
        `Search`; None in a worker that is not the chief.

    Raises:
        UsageError: the configuration asks for something that cannot be; a `ValueError`.
        RunError: the loss became NaN, an image that is read on the way is gone, memory does not suffice, or the GPU has
            no deterministic kernel of an operation.
        KeyboardInterrupt: it was interrupted.
    """
    with messages.spoken(verbose), fitting.interruptible():
        return _search(config or SearchConfig())


def _search(config):
    worker = starting.this_worker(config)
    output, config = starting.directory(config, "search", ["operations", "from_supernet", "latency_table"], worker)
    config.check()
    with starting.tensorflow(config) as strategy:
        data = starting.load_data(config)
        space, config = completed(config, data)
        batches = make_batches(data, config, strategy, worker)
        samples = 0 if config.kind == "text" else len(data.y_train)
        costs = budget.derived_costs(space, data.task, config, samples)
        costs.latency = latency_table(config)
        bounded = budget.Budget.of(config, space, costs, data.task, samples)
        phases.check_logarithms(config, space, costs)
        if config.front:
            budget.table_of(costs, budget.main_cost(config), space, f"--front={config.front}")
        place = pathlib.Path(config.from_supernet or output)
        with starting.started(output, "search", config, data, strategy, worker, **space.adapted()) as present:
            networks = phases.Networks(
                *(config, space, data.task, strategy, worker, place, batches.spec, costs, bounded)
            )
            if worker.is_chief:
                bounded.write(output)
            search, checkpoints = fitting.restore(
                lambda done: networks.at(max(done - 1, 0) // batches.steps),
                *(place, config, batches.steps, present, strategy, worker, space),
            )
            if config.from_supernet and checkpoints.done < config.epochs * batches.steps:
                raise UsageError(
                    f"--from_supernet={config.from_supernet}: the search there has not ended; end it first."
                )
            return _fit(search, networks, data, batches, checkpoints, output)


def _fit(search, networks, data, batches, checkpoints, output):
    from darts_tf.reports import callbacks as reporting
    from darts_tf.runs import callbacks

    config, steps, worker = networks.config, batches.steps, checkpoints.worker
    nan, space = callbacks.StopOnNaN(), networks.space
    by_length = starting.rate_by_length(data, config, "search", checkpoints)
    used, note, stopped = [nan], lambda: "", lambda: False
    record = None
    if networks.budget.bounds and not config.cost_form and relaxations.get(config.relaxation).learns:
        rows = functools.partial(networks.told, lambda: record.rows)
        used.append(callbacks.Ascent(networks.budget, rows, config.warmup_epochs, config.epochs))
    if worker.is_chief:
        messages.say(f"Searching on {data.in_words()}; results go to {output}/")
        selection = selections.configured(config.to_dict())
        done = 0 if config.from_supernet else checkpoints.done // steps
        record = callbacks.SearchRecord(output, space, done, selection, networks.costs, networks.budget)
        guard = callbacks.EarlyStop(record, functools.partial(phases.stop_of, config, space))
        if config.curvature_every:
            used.append(callbacks.Sharpness(batches.first(), config.curvature_every, config.epochs))
        used += [record, guard, reporting.Report(output)]
        note, stopped = lambda: record.change, lambda: guard.stop
        if config.tensorboard:
            used += [reporting.tensorboard(output), reporting.SearchBoard(output, record)]
    while checkpoints.done < config.epochs * steps and not stopped() and not nan.epoch:
        search, until = networks.advanced(search, checkpoints.done // steps)
        now = [*networks.schedule(search), *by_length, *used]
        headline = data.task.headline
        fitting.fit(search, batches.feed, steps, config, batches.valid, now, checkpoints, headline, note, until)
    if not worker.is_chief:
        return None
    nan.raise_if_stopped(f"what {output}/ has of the epochs before")
    if guard.stop:
        record.go_back(guard.stop.epoch)
        messages.say(f"Ended after epoch {guard.stop.noticed + 1}; the result is that of epoch {guard.stop.epoch + 1}.")
    if selection.by_network:
        evolved = functools.partial(deciding.evolved, saved=functools.partial(report.write_report, output))
        decide = {"perturbation": deciding.projected, "evolution": evolved}[selection.name]
        record.genotype = decide(search, networks, data, batches, output)
    empty = [name for name, picks in space.picks(record.genotype).items() if not picks]
    if empty:
        messages.warn(
            f"{' and '.join(empty)}: nothing was chosen; --threshold={config.threshold} is above all strengths."
        )
    record.write_genotype()
    networks.budget.write(output, record.genotype)
    several = front.find(search, networks, data, batches, output) if config.front else []
    report.write_report(output)
    bounded = networks.budget.found(record.genotype)
    return Search(output, record.genotype, rundirectory.history(output) or [], config, bounded, several)


def latency_table(config):
    """The `LatencyTable` that a configuration names; None if it names none."""
    if not config.latency_table:
        if config.max_latency_ms is not None or config.cost == tables.LATENCY:
            asked = (
                "--cost=latency_ms" if config.max_latency_ms is None else f"--max_latency_ms={config.max_latency_ms:g}"
            )
            raise UsageError(f"{asked} without --latency_table: expected a file of python -m darts_tf.latency.")
        return None
    try:
        return latency.read(config.latency_table)
    except (OSError, latency.TableError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"--latency_table={config.latency_table}: {reason}") from None


def completed(config, data):
    """The space of a search, and its configuration with the values that follow from the data.

    Raises:
        UsageError: parts of it do not go together.
    """
    recipe = recipes.SEARCH_DIGITS if config.dataset == "digits" else recipes.SEARCH
    starting.import_operations(config.completed(recipe))
    config = config.completed(starting.data_defaults(config, data))
    if config.kind != "text":
        config = config.completed(recipe | starting.space_sizes(config))
        config = starting.fitted_batches(config, data, min(config.train_portion, 1 - config.train_portion))
    space, config = starting.search_space(config, data.task)
    starting.check_data_flags(config)
    starting.check_cutout(config, data)
    sizes.check_given(config, space, space.supernet)
    for name, least in space.least.items():
        if getattr(config, name) < least:
            raise UsageError(f"--{name}={getattr(config, name)}: expected at least {least} with --space={space.name}.")
    try:
        relaxations.get(config.relaxation), selections.configured(config.to_dict())
        for registry, name in (
            (penalties, config.penalty),
            (perturbations, config.perturbation),
            (forms, config.cost_form),
        ):
            if name is not None:
                registry.get(name)
    except ValueError as error:
        raise UsageError(f"--{error}") from None
    phases.check(config, space)
    return space, config


class Batches(NamedTuple):
    """What a search is fed with.

    Attributes:
        feed: function of the steps that are done -> training batches, for Keras.
        steps: in an epoch.
        valid: batches to validate on, for Keras.
        spec: of the weights' part of a training batch.
        first: function without arguments -> alpha's part of the first batch, (x, y).
        held_out: what `valid` is made of, a `tf.data.Dataset`.
    """

    feed: Callable
    steps: int
    valid: object
    spec: tuple
    first: Callable
    held_out: object


def make_batches(data, config, strategy, worker):
    """The `Batches` of a search, for the replicas of a strategy; raises UsageError if there is too little data."""
    from darts_tf.devices import replicas

    batches, steps, valid = starting.batches_of(data.search_batches, config, strategy, worker)
    return Batches(
        lambda done: replicas.feed(strategy, batches(done), worker),
        steps,
        replicas.feed(strategy, valid, worker),
        batches().element_spec[0],
        lambda: next(iter(batches()))[1],
        valid,
    )


def main(config):
    """The command."""
    search = run_search(config, messages.verbosity())
    if search is None:
        return
    last = {name: value for row in search.history[-1:] for name, value in row.items() if name != "genotype"}
    lines = budget.in_words(search.budget)
    if search.front:
        headline = rundirectory.task(rundirectory.configuration(search.directory)).headline
        lines += ["", *front.in_words(search.front, budget.main_cost(search.config), headline)]
    bounded = "".join(f"{line}\n" for line in lines)
    messages.result(
        f"\n{search.genotype}\n{bounded}\nSaved in {search.directory}/: genotype.json, report.html",
        output=search.directory,
        genotype=dict(search.genotype.items()),
        budget=search.budget,
        front=search.front,
        **last,
    )


if __name__ == "__main__":
    commands.run(fitting.rejoining(main), SearchConfig)
