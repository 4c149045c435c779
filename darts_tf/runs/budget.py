"""What the network that a search finds may cost: the bounds that were asked for, and how the search keeps to them."""

import json
import math
import os
import pathlib

import numpy as np

from darts_tf.cli import files
from darts_tf.cli.messages import UsageError
from darts_tf.costs.tables import LATENCY, Table
from darts_tf.data.names import is_imagenet
from darts_tf.methods import selections
from darts_tf.runs import recipes, rundirectory, sizes

# Flags, and the costs that they bound.
BOUNDS = {
    "max_parameters": "parameters",
    "max_multiply_adds": "multiply_adds",
    "max_bytes": "model_bytes",
    "max_int8_bytes": "int8_model_bytes",
    "max_latency_ms": "latency_ms",
}
FLAGS = {cost: f"--{flag}" for flag, cost in BOUNDS.items()}
DERIVED = ("network", "init_channels", "layers", "units")  # flags that say how large a network is that is put to use
ASCENT = 1.0  # how much the weight of a cost grows in a search that is never within its bound


def asked(config):
    """{cost: the most of it} of a `SearchConfig`."""
    return {cost: getattr(config, flag) for flag, cost in BOUNDS.items() if getattr(config, flag) is not None}


def main_cost(config):
    """The cost that counts where no bound says which."""
    usual = LATENCY if config.latency_table else "multiply_adds"
    return config.cost or next(iter(asked(config)), usual)


def derived_costs(space, task, config, samples):
    """The costs of the networks that darts_tf.train would make of architectures.

    Where the space has no size of its own for them they are as large as the supernet.

    Args:
        space: of the search.
        task: of the data.
        config: `SearchConfig`, complete.
        samples: to train with.
    """
    return space.costs(task, **derived_sizes(space, config, samples, space.costs))


def derived_sizes(space, config, samples, method):
    """The sizes of the networks that darts_tf.train would make, which a method of the space takes, a dict."""
    recipe = recipes.SMALL_TEXT if "text" in space.kinds else recipes.TRAINING[recipes.training(samples)]
    if is_imagenet(config.dataset):
        recipe = recipes.TRAINING["imagenet"]
    own = {name: getattr(config, name) if size is None else size for name, size in space.sizes.items()}
    values = {name: value for name, value in (recipe | own).items() if name in DERIVED}
    return sizes.of(method, values)


def dimensions(space, task, values):
    """What the networks of a space take and give, and how large they are, a dict.

    Args:
        space: the space.
        task: of the data.
        values: dict, that has the sizes, of flags.
    """
    return {"inputs": list(task.input_shape), "outputs": task.outputs, **sizes.of(space.network, values)}


class Budget:
    """Bounds on costs.

    Args:
        space: of the search.
        tables: {cost: `darts_tf.costs.tables.Table`}.
        bounds: {cost: the most of it}.
        device: whose latency is bounded, a dict, see `darts_tf.costs.latency.LatencyTable`; None for nobody's.
        networks: `dimensions` of those whose costs these are; None if they are not known.
    """

    def __init__(self, space, tables, bounds, device=None, networks=None):
        self.space, self.tables, self.bounds = space, tables, bounds
        self.device, self.networks = device, networks

    @classmethod
    def of(cls, config, space, costs, task, samples):
        """That of a search.

        Args:
            config: `SearchConfig`, complete.
            space: its space.
            costs: `darts_tf.costs.tables.Costs` of that.
            task, samples: as of `derived_costs`.

        Raises:
            UsageError: there are no tables of a cost, or nothing is within the bounds; says what the least is.
        """
        bounds, tables = asked(config), {}
        for cost, most in bounds.items():
            flag = f"{FLAGS[cost]}={most:g}"
            tables[cost] = table_of(costs, cost, space, flag)
            least = space.cheapest(tables[cost])
            if least > most:
                raise UsageError(f"{flag}: expected at least {_at_least(least)}, which the smallest network has.")
        device = costs.latency.device if LATENCY in bounds else None
        networks = dimensions(space, task, derived_sizes(space, config, samples, space.network))
        budget = cls(space, tables, bounds, device, networks)
        if len(bounds) > 1:
            try:
                budget.within({name: table.mask / 1.0 for name, table in space.choices.items()})
            except ValueError:
                raise UsageError(f"{budget.said()}: no network is within all of them; expected larger ones.") from None
        return budget

    def said(self):
        """The flags that were given, for a message."""
        return " and ".join(f"{FLAGS[cost]}={most:g}" for cost, most in self.bounds.items())

    def keeps(self, architecture):
        """Whether an architecture is within the bounds."""
        picks = self.space.picks(architecture)
        return all(self.of_picks(cost, picks) <= most for cost, most in self.bounds.items())

    def of_picks(self, cost, picks):
        """A bounded cost of picks, a float."""
        return self.space.cost_of(self.tables[cost], picks)

    def within(self, strengths, selection="strongest", more=()):
        """The architecture that a selection makes within the bounds, and those of more (`Table`, number) pairs.

        Raises:
            ValueError: there is none.
        """
        pairs = {table.cost: (table, self.bounds[cost]) for cost, table in self.tables.items()}
        for table, most in more:
            pairs[table.cost] = table, min(most, pairs.get(table.cost, (table, most))[1])
        tables, bounds = map(list, zip(*pairs.values(), strict=True))
        return selections.get(selection).within(self.space, strengths, tables, bounds)

    def possible(self, candidates):
        """Whether a network of some of the candidates is within the bounds; {table: bool array (rows, candidates)}."""
        left_out = {name: ~own for name, own in candidates.items()}
        costs = [table.without(left_out, np.inf) for table in self.tables.values()]
        try:
            self.space.within(candidates, costs, list(self.bounds.values()))
        except ValueError:
            return False
        return True

    def decide(self, strengths, selection):
        """What a selection decides; within the bounds if that is beyond them."""
        found = self.space.decide(strengths, selection)
        return found if not self.bounds or self.keeps(found) else self.within(strengths, selection)

    def weights(self, rows, epochs):
        """What each cost counts in alpha's loss in the next epoch, {cost: number}: dual ascent.

        After each epoch in which the strongest network costs more than the bound the weight grows by the part that is
        too much, else it falls (the subgradient of the Lagrangian in its multiplier).

        Args:
            rows: of history.csv, dicts, those of the epochs in which alpha moved.
            epochs: in which alpha moves in the whole search.
        """
        weights = dict.fromkeys(self.bounds, 0.0)
        for row in rows:
            for cost, most in self.bounds.items():
                beyond = min(row[f"strongest_{cost}"] / most - 1, 1.0)
                weights[cost] = max(0.0, weights[cost] + ASCENT / max(epochs, 1) * beyond)
        return weights

    def found(self, architecture):
        """What an architecture has of what is bounded, a list of {"cost": name, "most": number, "expected": number}.

        They also have "networks", and a latency has its "device", where these are known.
        """
        picks = self.space.picks(architecture)
        return [row | {"expected": self.of_picks(row["cost"], picks)} for row in self._rows()]

    def _rows(self):
        rows = [{"cost": cost, "most": most} for cost, most in self.bounds.items()]
        for row in rows:
            known = {"networks": self.networks, "device": self.device if row["cost"] == LATENCY else None}
            row |= {name: value for name, value in known.items() if value}
        return rows

    def write(self, directory, architecture=None, tables=True):
        """Writes budget.json, if anything is bounded: as `found`, and "table", what `Table.to_config` gives."""
        rows = self.found(architecture) if architecture else self._rows()
        if tables:
            rows = [{**row, "table": self.tables[row["cost"]].to_config()} for row in rows]
        if rows:
            files.write(directory / "budget.json", json.dumps(rows) + "\n")


def _at_least(number):
    """A number as text, whose value is not below it."""
    if number >= 1000:
        return f"{math.ceil(number):,}"
    text = f"{number:.6g}"
    return text if float(text) >= number else f"{number * (1 + 1e-5):.6g}"


def read(directory, space):
    """The `Budget` that a search has written to its folder, without bounds if there is none."""
    rows = rundirectory.budget(directory) or []
    tables = {row["cost"]: Table.from_config(row["table"]) for row in rows}
    known = [next((row[name] for row in rows if name in row), None) for name in ("device", "networks")]
    return Budget(space, tables, {row["cost"]: row["most"] for row in rows}, *known)


def carried(genotype, architecture):
    """The `Budget` of the search whose genotype is in a file; without bounds if it had none, or it is no file of one.

    Raises:
        UsageError: what it was bounded by is damaged.
    """
    if not os.path.isfile(genotype):
        return Budget(architecture.space, {}, {})
    folder = pathlib.Path(genotype).parent
    folder = folder.parent if folder.name == "front" else folder
    try:
        config = rundirectory.configuration(folder)
        is_search = config and config["command"] == "search"
        # Of its candidates, in its order: a genotype does not say which others there were.
        return read(folder, rundirectory.space(config) if is_search else architecture.space)
    except rundirectory.DamageError as error:
        raise UsageError(f"--arch={genotype}: beside it, {error}; expected a whole run.") from None


def in_words(rows):
    """`found` as lines of text."""

    def shown(row, name):
        return f"{row[name]:,.0f}" if row["most"] >= 1000 else f"{row[name]:.4g}"

    return [
        f"{row['cost'].replace('_', ' ')}: {shown(row, 'expected')} of at most {shown(row, 'most')}" for row in rows
    ]


def table_of(costs, cost, space, flag):
    """The `Table` of a cost; raises UsageError if there is none, which names a flag."""
    if not hasattr(costs, "table"):
        raise UsageError(f"{flag}: nothing is known about the parts of networks of the space {space.name}.")
    try:
        return costs.table(cost)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from None
