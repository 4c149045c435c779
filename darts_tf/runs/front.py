"""Several networks of one search, from the cheapest to the strongest."""

import contextlib
import json

import numpy as np

from darts_tf import spaces
from darts_tf.cli import files, messages
from darts_tf.methods import selections
from darts_tf.runs import rundirectory


def find(search, networks, data, batches, output):
    """Finds them, and writes front.json, and their genotypes to front/1.json, front/2.json, ..., the cheapest first.

    Bounds lie at equal ratios between the cheapest network and what was found. Of evolution each network is the best of
    those that were measured within a bound; else it is what the selection makes within the bound, which is then
    measured with the weights of the supernet.

    Args:
        search: the `DARTS` that has ended.
        networks: `darts_tf.runs.phases.Networks`.
        data, batches: of the search.
        output: the run directory.

    Returns:
        list of dicts: "architecture", a text, "result", the headline metric on the validation data, "loss", and costs.
    """
    config, space, table = networks.config, networks.space, networks.main_table
    evolution = rundirectory.evolution(output) if config.selection == "evolution" else None
    if evolution:
        known = {one["architecture"]: one for one in evolution["networks"]}
        headline = networks.task.headline

        def key(one):
            return headline.best_first(one["result"]), one[table.cost]

        best = min(known.values(), key=key)
        bounds = _bounds(min(one[table.cost] for one in known.values()), best[table.cost], config.front)
        within = [[one for one in known.values() if one[table.cost] <= bound] for bound in bounds]
        found = [min(some, key=key) for some in within]
        found = list({one["architecture"]: one for one in found}.values())
    else:
        strengths, selection = search.network.strengths(), selections.configured(config.to_dict())
        strongest = space.cost_of(table, space.picks(networks.budget.decide(strengths, selection)))
        bounds = _bounds(space.cheapest(table), strongest, config.front)
        chosen = {}
        for bound in bounds:
            with contextlib.suppress(ValueError):  # nothing is as cheap and within the other bounds
                architecture = networks.budget.within(strengths, selection, [(table, bound)])
                chosen[str(architecture)] = architecture
        found = _measured(chosen.values(), search, networks, data, batches)
    for number, one in enumerate(found, 1):
        files.write(output / "front" / f"{number}.json", spaces.from_text(one["architecture"]).to_json() + "\n")
    files.write(output / "front.json", json.dumps({"cost": table.cost, "networks": found}) + "\n")
    return found


def _bounds(least, most, count):
    """Numbers at equal ratios; the ends are a little more than what they are of, for their own rounding."""
    return np.geomspace(max(least, 1e-12), max(most, least, 1e-12), count) * (1 + 1e-9)


def _measured(architectures, search, networks, data, batches):
    """What they are worth with the supernet's weights, and what they cost, a list of dicts."""
    from darts_tf.methods.one_shot import Inherited, one_hot
    from darts_tf.runs import deciding

    config, space, found = networks.config, networks.space, []
    again = deciding.recalibration(data, config, networks.strategy)
    held_out = batches.held_out if config.stream else list(batches.held_out)
    worth = Inherited(search, again, held_out, score=networks.task.score)
    for architecture in messages.each(architectures, "Measuring the front"):
        picks = space.picks(architecture)
        result, loss = worth(one_hot(space.choices, picks))
        costs = {cost: networks.budget.of_picks(cost, picks) for cost in networks.budget.bounds}
        costs |= {networks.main_table.cost: space.cost_of(networks.main_table, picks)}
        found.append(
            {"architecture": str(architecture), "result": result, "loss": loss}
            | {**networks.costs(architecture), **costs}
        )
    worth.restore()
    return found


def in_words(found, cost, headline):
    """The networks as a table, lines of text; `headline` is `darts_tf.data.tasks.Headline`."""
    rows = [["front", cost.replace("_", " "), "validation", "genotype"]]
    for number, one in enumerate(found, 1):
        value = f"{one[cost]:,.0f}" if one[cost] >= 1000 else f"{one[cost]:.4g}"
        rows.append([f"{number}", value, headline.text(one["result"]), f"front/{number}.json"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in rows]
