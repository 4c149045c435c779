"""What the network that a search finds may cost: the bounds that were asked for, and how the search keeps to them."""

import json

from darts_tf.cli import files
from darts_tf.cli.messages import UsageError
from darts_tf.costs.tables import Table
from darts_tf.runs import recipes, sizes

# Flags, and the costs that they bound.
BOUNDS = {
    "max_parameters": "parameters",
    "max_multiply_adds": "multiply_adds",
    "max_bytes": "model_bytes",
    "max_int8_bytes": "int8_model_bytes",
    "max_latency_ms": "latency_ms",
}
ASCENT = 1.0  # how much the weight of a cost grows in a search that is never within its bound


def asked(config):
    """{cost: the most of it} of a `SearchConfig`."""
    return {cost: getattr(config, flag) for flag, cost in BOUNDS.items() if getattr(config, flag) is not None}


def derived_costs(space, task, config, samples):
    """The costs of the networks that darts_tf.train would make of architectures.

    Where the space has no size of its own for them they are as large as the supernet.

    Args:
        space: of the search.
        task: of the data.
        config: `SearchConfig`, complete.
        samples: to train with.
    """
    recipe = recipes.SMALL_TEXT if space.is_text else recipes.TRAINING[recipes.training(samples)]
    own = {name: getattr(config, name) for name, size in space.sizes.items() if size is None}
    return space.costs(task, **sizes.of(space.costs, recipe | own))


class Budget:
    """Bounds on costs.

    Args:
        space: of the search.
        tables: {cost: `darts_tf.costs.tables.Table`}.
        bounds: {cost: the most of it}.
    """

    def __init__(self, space, tables, bounds):
        self.space, self.tables, self.bounds = space, tables, bounds

    @classmethod
    def of(cls, config, space, costs):
        """That of a search.

        Args:
            config: `SearchConfig`, complete.
            space: its space.
            costs: `darts_tf.costs.tables.Costs` of that.

        Raises:
            UsageError: there are no tables of a cost, or nothing is within the bounds; says what the least is.
        """
        bounds, flags = asked(config), {cost: flag for flag, cost in BOUNDS.items()}
        tables = {}
        for cost, most in bounds.items():
            flag = f"--{flags[cost]}={most:g}"
            tables[cost] = table_of(costs, cost, space, flag)
            least = space.cheapest(tables[cost])
            if least > most:
                raise UsageError(f"{flag}: expected at least {least:,.6g}, which the smallest network has.")
        budget = cls(space, tables, bounds)
        if len(bounds) > 1:
            try:
                budget.within({name: table.mask / 1.0 for name, table in space.choices.items()})
            except ValueError:
                raise UsageError(f"{budget.said()}: no network is within all of them; expected larger ones.") from None
        return budget

    def said(self):
        """The flags that were given, for a message."""
        flags = {cost: flag for flag, cost in BOUNDS.items()}
        return " and ".join(f"--{flags[cost]}={most:g}" for cost, most in self.bounds.items())

    def keeps(self, architecture):
        """Whether an architecture is within the bounds."""
        picks = self.space.picks(architecture)
        return all(self.of_picks(cost, picks) <= most for cost, most in self.bounds.items())

    def of_picks(self, cost, picks):
        """A bounded cost of picks, a float."""
        return self.space.cost_of(self.tables[cost], picks)

    def within(self, strengths):
        """The strongest architecture within the bounds."""
        return self.space.within(strengths, list(self.tables.values()), list(self.bounds.values()))

    def decide(self, strengths, selection):
        """What a selection decides, or what is strongest within the bounds if that is beyond them."""
        found = self.space.decide(strengths, selection)
        return found if not self.bounds or self.keeps(found) else self.within(strengths)

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

    def write(self, directory):
        """Writes budget.json, if anything is bounded: [{"most": number, "table": of `Table.to_config`}, ...]."""
        found = [{"most": most, "table": self.tables[cost].to_config()} for cost, most in self.bounds.items()]
        if found:
            files.write(directory / "budget.json", json.dumps(found) + "\n")


def read(directory, space):
    """The `Budget` that a search has written, without bounds if there is none."""
    path = directory / "budget.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    tables = [Table.from_config(one["table"]) for one in found]
    bounds = {table.cost: one["most"] for table, one in zip(tables, found, strict=True)}
    return Budget(space, {table.cost: table for table in tables}, bounds)


def table_of(costs, cost, space, flag):
    """The `Table` of a cost; raises UsageError if there is none, which names a flag."""
    if not hasattr(costs, "table"):
        raise UsageError(f"{flag}: nothing is known about the parts of networks of the space {space.name}.")
    try:
        return costs.table(cost)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from None
