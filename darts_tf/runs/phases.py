"""The networks of a search: its stages, which candidates are left in each epoch, what changes from epoch to epoch."""

import dataclasses
import functools
import inspect
import itertools
import json
import math

import numpy as np

from darts_tf.cli.messages import UsageError
from darts_tf.costs import forms
from darts_tf.devices.cluster import ALONE
from darts_tf.methods import guards, pruning, relaxations, schedules, selections
from darts_tf.runs import budget, rundirectory, sizes
from darts_tf.runs.budget import Budget, table_of
from darts_tf.spaces.base import checked_candidates, strengths_of


@dataclasses.dataclass(frozen=True)
class Stage:
    """Epochs of a search whose network has as many cells, and as many candidates at the most.

    Attributes:
        first, end: epochs, from 0; `end` is the first of the next stage.
        keep: candidates on each row; None for all.
        layers, partial_channels: sizes of the network; None for those of the configuration.
        dropout: after skips, at its beginning.
        anew: whether its network begins anew; else it goes on with the weights of the one before.
    """

    first: int
    end: int
    keep: int | None = None
    layers: int | None = None
    partial_channels: int | None = None
    dropout: float = 0.0
    anew: bool = False

    def sizes(self):
        """The sizes that are not the configuration's, a dict."""
        values = {"layers": self.layers, "partial_channels": self.partial_channels}
        return {name: value for name, value in values.items() if value is not None}


# Flags that ask for parts of a supernet, and the argument that each becomes.
PARTS = {
    "partial_channels": "partial_channels",
    "recompute": "recompute",
    "edge_normalization": "edge_normalization",
    "auxiliary_skip": "auxiliary_skip",
    "sync_batch_norm": "sync_batch_norm",
    "stage_dropout": "skip_dropout",
    "stage_partial_channels": "partial_channels",
    "stage_layers": "layers",
    "stages": "candidates",
    "prune_below": "candidates",
}
EVOLUTION = ("population", "generations", "recalibration_images", "from_supernet")
LISTS = ("stage_layers", "stage_dropout", "stage_partial_channels")


def stages_of(config):
    """The stages of a `SearchConfig`, a list; one where none are asked for.

    Raises:
        UsageError: what they are asked for makes no sense.
    """
    if not config.stages:
        for name in LISTS:
            if getattr(config, name):
                value = ",".join(getattr(config, name))
                raise UsageError(f"--{name}={value} without --stages: expected both.")
        return [Stage(0, config.epochs)]
    keep = _numbers(config, "stages", int, 1)
    if any(later >= earlier for earlier, later in itertools.pairwise(keep)):
        raise UsageError(f"--stages={','.join(config.stages)}: expected fewer candidates in each stage.")
    if config.epochs < len(keep):
        raise UsageError(f"--epochs={config.epochs}: expected one at least for each of the {len(keep)} --stages.")
    layers = _numbers(config, "stage_layers", int, 3, len(keep))
    dropout = _numbers(config, "stage_dropout", float, 0, len(keep))
    partial = _numbers(config, "stage_partial_channels", int, 1, len(keep))
    if any(rate >= 1 for rate in dropout):
        raise UsageError(f"--stage_dropout={','.join(config.stage_dropout)}: expected numbers below 1.")
    ends = [config.epochs * (place + 1) // len(keep) for place in range(len(keep))]
    return [
        Stage(
            ([0, *ends])[place],
            ends[place],
            keep[place] if place else None,
            layers[place] if layers else None,
            partial[place] if partial else None,
            dropout[place] if dropout else 0.0,
            bool(layers) and place > 0,
        )
        for place in range(len(keep))
    ]


def check_logarithms(config, space, costs):
    """Raises UsageError if --cost_form takes the logarithm of what is not above 1."""
    if not config.cost_form or not forms.get(config.cost_form).takes_log:
        return
    cost = budget.main_cost(config)
    table = table_of(costs, cost, space, f"--cost_form={config.cost_form}")
    compared = config.cost_reference or budget.asked(config).get(cost) or math.inf
    lowest = min(space.cheapest(table), compared)
    if lowest <= table.unit:
        raise UsageError(
            f"--cost_form={config.cost_form}: expected add_linear; {cost} of {lowest:g} are among those it takes the "
            f"logarithm of, in units of {table.unit:g}."
        )


def check(config, space):
    """Raises UsageError if the parts of a search do not go together; `config` is complete."""
    plan, relaxation = stages_of(config), relaxations.get(config.relaxation)
    if config.unrolled and not relaxation.second_order:
        raise UsageError(
            f"--unrolled with --relaxation={config.relaxation}: expected --nounrolled; what is drawn does not change "
            "with the weights, so that there is no second order."
        )
    if config.difference != "central" and not config.unrolled:
        raise UsageError(f"--difference={config.difference}: expected --unrolled with it.")
    if config.curvature_every and not relaxation.second_order:
        raise UsageError(
            f"--curvature_every={config.curvature_every} with --relaxation={config.relaxation}: expected a relaxation "
            "whose weights are smooth."
        )
    if config.jit_compile and relaxation.paths("weights") is not None:
        raise UsageError(
            f"--jit_compile with --relaxation={config.relaxation}: expected --nojit_compile; what is computed changes "
            "from step to step."
        )
    for flag, part, has in (
        ("temperature", "relaxation", getattr(relaxation, "temperature", None)),
        ("temperature_min", "relaxation", getattr(relaxation, "temperature", None)),
        ("temperature_schedule", "relaxation", getattr(relaxation, "temperature", None)),
        ("temperature", "temperature_schedule", config.temperature_schedule != "constant"),
        ("penalty_weight", "penalty", config.penalty),
        ("perturbation_size", "perturbation", config.perturbation),
        ("cost", "cost_form", config.cost_form or config.front),
        ("cost_weight", "cost_form", config.cost_form),
        ("cost_reference", "cost_form", config.cost_form and forms.get(config.cost_form).compares),
        ("max_skips", "selection", config.selection == "max_skips"),
        ("threshold", "selection", config.selection.startswith("threshold")),
        ("tuning_epochs", "selection", config.selection == "perturbation"),
        *((name, "selection", config.selection == "evolution") for name in EVOLUTION),
    ):
        if flag in config.given and not has:
            value, asked = getattr(config, flag), getattr(config, part)
            raise UsageError(f"--{flag}={value}: --{part}={asked} has no such number; expected another --{part}.")
    if config.cost_form and not relaxation.learns:
        raise UsageError(
            f"{_who(config, 'cost_form')}--cost_form={config.cost_form}: expected a relaxation that trains alpha."
        )
    if "latency_table" in config.given and not (config.max_latency_ms or config.front or config.cost_form):
        raise UsageError(
            f"--latency_table={config.latency_table}: expected --max_latency_ms, --front or --cost_form with it."
        )
    if config.selection == "perturbation" and relaxation.hard:
        raise UsageError(
            f"--relaxation={config.relaxation} with --selection=perturbation: expected one that mixes all candidates."
        )
    if not relaxation.learns:
        for name in ("stages", "prune_below", "penalty"):
            if getattr(config, name):
                raise UsageError(
                    f"--{name} with --relaxation={config.relaxation}: expected none; alpha is not trained."
                )
    if config.front and (config.kind == "text" or config.selection == "perturbation"):
        raise UsageError(
            f"--front={config.front}: expected a space of images or tables, and another selection than perturbation; "
            f"the space is {space.name}, the selection {config.selection}."
        )
    if not relaxation.learns and config.selection != "evolution":
        raise UsageError(
            f"--relaxation={config.relaxation} with --selection={config.selection}: expected --selection=evolution; "
            "alpha is not trained."
        )
    if relaxation.paths("alpha") not in (None, 1) and not space.has_paths:
        raise UsageError(
            f"--relaxation={config.relaxation}: in the space {space.name} a row computes one candidate or "
            "all; expected another."
        )
    compete = any(keep < len(rows) for table in space.choices.values() for rows, keep in table.groups)
    if config.selection == "evolution" and (config.kind == "text" or compete):
        raise UsageError(
            f"{_who(config, 'selection')}--selection=evolution: expected a space of images or tables whose rows do not "
            f"compete, such as chain; {space.name} is none."
        )
    takes = inspect.signature(space.supernet).parameters
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    for flag, name in PARTS.items():
        asked = getattr(config, flag)
        if asked != defaults[flag] and name not in takes:
            asked = ",".join(asked) if isinstance(asked, list) else asked
            raise UsageError(f"{_who(config, flag)}--{flag}={asked}: the space {space.name} has no such part.")
    if config.selection.startswith("threshold") and not space.leaves_out:
        raise UsageError(
            f"--selection={config.selection}: in the space {space.name} no row can be left out; expected another."
        )
    has_skips = "skip_connect" in next(iter(space.choices.values())).candidates
    for flag, value in (("selection", "max_skips"), ("early_stop", "skips")):
        if getattr(config, flag) == value and flag in config.given and not has_skips:
            raise UsageError(
                f"--{flag}={value}: nothing in the space {space.name} is a skip_connect; expected another."
            )
    for stage in plan:
        parts = stage.partial_channels or config.partial_channels
        if config.init_channels and config.init_channels % parts:
            raise UsageError(
                f"--partial_channels={parts}: expected a divisor of --init_channels={config.init_channels}."
            )
        epochs = stage.end - stage.first
        if config.warmup_epochs and config.warmup_epochs >= epochs:
            raise UsageError(f"--warmup_epochs={config.warmup_epochs}: expected fewer than the {epochs} of a stage.")


def _who(config, flag):
    """The beginning of a message about a flag: who asks for it, if it was not given."""
    return "" if flag in config.given else f"--method={config.method} has "


def _numbers(config, name, kind, least, count=None):
    """The numbers that a flag lists; [] if it is not given."""
    texts = getattr(config, name) or []
    what = "whole numbers" if kind is int else "numbers"
    try:
        numbers = [kind(text) for text in texts]
    except ValueError:
        numbers = [least - 1]
    if any(not number >= least for number in numbers):
        raise UsageError(f"--{name}={','.join(texts)}: expected {what} of at least {least}, comma-separated.")
    if texts and count is not None and len(texts) != count:
        raise UsageError(f"--{name}={','.join(texts)}: expected as many numbers as --stages, {count}.")
    return numbers


def stage_at(plan, epoch):
    """The stage that an epoch, from 0, belongs to."""
    return next(stage for stage in reversed(plan) if stage.first <= epoch)


def candidates_of(config, space, history):
    """Which candidates are left in each epoch.

    Args:
        config: `SearchConfig`.
        space: its space.
        history: list of ({table: alphas}, {table: betas}) after 0, 1, ... epochs.

    Returns:
        list of {table: bool array (rows, candidates)}: of the epoch that follows each of them.
    """
    relaxation, choices = relaxations.get(config.relaxation), space.choices
    keep = {stage.first: stage.keep for stage in stages_of(config)[1:]}
    left = [checked_candidates(space)]
    for done in range(1, len(history)):
        now = left[-1]
        if done in keep or config.prune_below:
            strengths = strengths_of(space, relaxation, *history[done], now)
        if done in keep:
            now = pruning.narrowed(strengths, now, choices, keep[done])
        elif config.prune_below and done >= config.prune_patience:
            some = [
                strengths_of(space, relaxation, *one, now) for one in history[done + 1 - config.prune_patience : done]
            ]
            kept = [pruning.pruned(one, now, choices, config.prune_below) for one in (*some, strengths)]
            now = {name: np.any([one[name] for one in kept], 0) for name in now}
        left.append(now)
    return left


def strengths_by_epoch(config, space, history):
    """What decided after 0, 1, ... epochs, a list of {table: array (rows, candidates)}; arguments as above."""
    relaxation, left = relaxations.get(config.relaxation), candidates_of(config, space, history)
    return [strengths_of(space, relaxation, *alphas, left[max(epoch - 1, 0)]) for epoch, alphas in enumerate(history)]


def stop_of(config, space, rows, history):
    """Whether a search has to end early, and where: `guards.Stop`, epochs from 0; None if it goes on.

    Args:
        config: `SearchConfig`.
        space: its space.
        rows: of history.csv, dicts.
        history: as of `candidates_of`.
    """
    epochs = [row["epoch"] - 1 for row in rows]
    if config.early_stop == "curvature":
        seen = [(row["epoch"] - 1, row["eigenvalue"]) for row in rows if row.get("eigenvalue") is not None]
        start = round(guards.START * config.epochs)
        times, values = zip(*seen, strict=True) if seen else ((), ())
        return guards.sharpness(times, values, config.epochs, frequency=config.curvature_every, start=start)
    if config.early_stop and len(history) > len(rows):
        strengths = strengths_by_epoch(config, space, history)[1 : 1 + len(rows)]
        # Those in which alpha has moved, in each stage.
        plan, still = stages_of(config), config.warmup_epochs + (config.early_stop == "skips")
        moved = [place for place, epoch in enumerate(epochs) if epoch - stage_at(plan, epoch).first >= still]
        epochs, strengths = [epochs[place] for place in moved], [strengths[place] for place in moved]
        if config.early_stop == "ranking":
            return guards.stable_ranking(epochs, strengths, space.choices)
        selection = selections.configured(config.to_dict())
        picks = [selection.decide(tables, space.choices) for tables in strengths]
        return guards.many_skips(epochs, picks, space.choices, start=config.warmup_epochs + 1)
    return None


def scheduled(config, search, plan):
    """What changes from epoch to epoch: {name: (variable, function of the epoch from 0 -> number)}."""
    found, network = {}, search.network

    def follow(name, variable, schedule, first, last):
        found[name] = variable, lambda epoch: schedules.value(schedule, epoch, config.epochs, first, last)

    if getattr(network, "temperature", None) is not None:
        first, last = network.relaxation.temperature
        first = first if config.temperature is None else config.temperature
        last = last if config.temperature_min is None else config.temperature_min
        schedule = config.temperature_schedule or network.relaxation.schedule
        follow("temperature", network.temperature, schedule, first, last)
    if search.penalty:
        weight = search.penalty.weight if config.penalty_weight is None else config.penalty_weight
        follow("penalty_weight", search.penalty_weight, search.penalty.schedule, 0.0, weight)
    if search.perturbation:
        size = search.perturbation.size if config.perturbation_size is None else config.perturbation_size
        first = min(search.perturbation.first_size, size)
        follow("perturbation_size", search.perturbation_size, search.perturbation.schedule, first, size)
    if getattr(network, "auxiliary_skip", False):
        follow("auxiliary_rate", network.auxiliary_rate, "linear", 1.0, 0.0)
    if getattr(network, "skip_dropout", None) is not None:

        def dropout(epoch):
            stage = stage_at(plan, epoch)
            done, epochs = epoch - stage.first, stage.end - stage.first
            return schedules.skip_dropout(done, epochs, stage.dropout, config.warmup_epochs)

        found["skip_dropout"] = network.skip_dropout, dropout
    return found


class Networks:
    """Makes the compiled `DARTS` of each epoch of a search.

    Args:
        config: `SearchConfig`, complete.
        space: its space.
        task: of the data.
        strategy: `tf.distribute.Strategy`.
        worker: `Worker`; the chief reads what the run directory says of the alphas, and tells the others.
        output: the run directory.
        batch: the spec of a training batch.
        costs: `darts_tf.costs.tables.Costs` of what is found; needed where they count, or are bounded.
        budget: `Budget`; by default without bounds.

    Raises:
        UsageError: the stages make no sense, or a part does not go with another.
    """

    def __init__(self, config, space, task, strategy, worker=ALONE, output=None, batch=None, costs=None, budget=None):
        self.config, self.space, self.task, self.strategy = config, space, task, strategy
        self.worker, self.output, self.batch = worker, output, batch
        self.plan = stages_of(config)
        self.costs, self.budget = costs, budget or Budget(space, {}, {})
        self._made = None  # stage and candidates of the last one

    @functools.cached_property
    def main_table(self):
        """The `Table` of the cost in which the networks of --front differ."""
        return table_of(self.costs, budget.main_cost(self.config), self.space, f"--front={self.config.front}")

    def at(self, epoch):
        """The `DARTS` of an epoch, from 0, as it is when it is new."""
        import keras

        stage, left = stage_at(self.plan, epoch), self._left(epoch)
        keras.utils.set_random_seed((self.config.seed + self.plan.index(stage)) % 2**32)
        with self.strategy.scope():
            search = self._compiled(stage, left)
        search.create_variables(*self.batch)
        self._made = stage, left
        return search

    def advanced(self, search, epoch):
        """The search for an epoch, and the epoch until which it is that of.

        Args:
            search: the last one that was made; returned if its network is that of the epoch.
            epoch: from 0; the run directory has the alphas of all epochs before.
        """
        stage, left = stage_at(self.plan, epoch), self._left(epoch)
        before, candidates = self._made
        if stage != before or any((left[name] != candidates[name]).any() for name in left):
            old, search = search, self.at(epoch)
            if not stage.anew or stage == before:
                from darts_tf.runs import inheritance

                inheritance.inherit(search, old)
        moves = stage.first + self.config.warmup_epochs
        search.alpha_moves = epoch >= moves and search.network.relaxation.learns
        ends = [stage.end, self.config.epochs, *([epoch + 1] if self.config.prune_below else [])]
        return search, min([*ends, *([moves] if epoch < moves else [])])

    def schedule(self, search):
        """The Keras callbacks that set what changes from epoch to epoch, a list; the learning rate first."""
        import keras

        from darts_tf.runs import callbacks

        config = self.config
        restarts = any(stage.anew for stage in self.plan)

        def rate(epoch, _):
            stage = stage_at(self.plan, epoch)
            first, end = (stage.first, stage.end) if restarts else (0, config.epochs)
            return callbacks.cosine(config.learning_rate, config.learning_rate_min, epoch - first, end - first)

        values = scheduled(config, search, self.plan)
        return [keras.callbacks.LearningRateScheduler(rate), *([callbacks.Scheduled(values)] if values else [])]

    def _left(self, epoch):
        """The candidates of an epoch, on every worker."""
        config = self.config
        if len(self.plan) == 1 and not config.prune_below:
            return checked_candidates(self.space)

        def left():
            history = rundirectory.alphas(self.output, self.space.choices) or []
            found = candidates_of(config, self.space, history[: epoch + 1])[-1]
            return {name: mask.tolist() for name, mask in found.items()}

        return {name: np.array(mask, bool) for name, mask in self.told(left).items()}

    def told(self, known):
        """What the chief knows, on every worker.

        Args:
            known: function without arguments, which the chief calls, -> what JSON can hold.
        """
        if self.worker.count == 1:
            return known()
        from darts_tf.devices import replicas

        content = json.dumps(known()).encode() if self.worker.is_chief else b""
        return json.loads(replicas.from_chief(self.strategy, content))

    def _compiled(self, stage, left):
        config, supernet = self.config, self.space.supernet
        values = {**config.to_dict(), **stage.sizes()}
        values["skip_dropout"] = any(one.dropout for one in self.plan)
        if len(self.plan) > 1 or config.prune_below:
            values["candidates"] = left
        values["limits"] = [(table, self.budget.bounds[cost]) for cost, table in self.budget.tables.items()]
        try:
            network = supernet(self.task, config.relaxation, **sizes.of(supernet, values))
            costs = self._counted(network) if network.relaxation.learns else ()
            return self.compiled(network, config.unrolled, config.penalty, config.perturbation, costs)
        except ValueError as error:
            raise UsageError(f"--method={config.method}: {error}") from None

    def _counted(self, network):
        """The costs that count in alpha's loss, a list of `forms.Cost`."""
        config, bounds = self.config, self.budget.bounds
        if not config.cost_form:
            return [
                forms.Cost(table, forms.get("add_linear", weight=0.0, reference=bounds[cost] / table.unit))
                for cost, table in self.budget.tables.items()
            ]
        cost = budget.main_cost(config)
        table = table_of(self.costs, cost, self.space, f"--cost_form={config.cost_form}")
        reference = config.cost_reference and config.cost_reference / table.unit
        if reference is None and cost in bounds:
            reference = bounds[cost] / table.unit
        if reference is None:
            alike = {name: mask / mask.sum(-1, keepdims=True) for name, mask in network.candidates.items()}
            reference = float(network.cost(table, alike))
        return [forms.Cost(table, forms.get(config.cost_form, weight=config.cost_weight, reference=reference))]

    def compiled(self, network, unrolled=False, penalty=None, perturbation=None, costs=()):
        """A `DARTS` of a network, with the optimizers that the configuration says; arguments are those of `DARTS`."""
        from darts_tf.methods.darts import DARTS
        from darts_tf.methods.optimizers import SGD, Adam

        config = self.config
        clipnorm = config.grad_clip if config.clip_virtual_step else None
        search = DARTS(network, unrolled, penalty, perturbation, config.seed, clipnorm, costs, config.difference)
        search.compile(
            optimizer=SGD(
                config.learning_rate,
                momentum=config.momentum,
                nesterov=config.nesterov,
                l2=config.weight_decay,
                global_clipnorm=config.grad_clip,
                loss_scale=config.precision == "float16",
            ),
            arch_optimizer=Adam(config.arch_learning_rate, beta_1=config.arch_beta_1, l2=config.arch_weight_decay),
            loss=self.task.loss(),
            metrics=self.task.metrics(),
            jit_compile=config.jit_compile,
        )
        return search
