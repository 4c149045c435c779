"""How a search that has ended is decided by what networks are worth: by perturbation, or by evolution."""

import itertools
import json
import time

import numpy as np

from darts_tf.cli import files, messages
from darts_tf.cli.messages import UsageError
from darts_tf.costs.tables import in_words
from darts_tf.devices.cluster import ALONE
from darts_tf.methods.evolution import Evolution
from darts_tf.runs import rundirectory, starting


def projected(search, networks, data, batches, output):
    """The architecture that selection by perturbation makes of a search that has ended, see `methods.projection`.

    Between two decisions the weights are trained for `tuning_epochs`, at a tenth of the learning rate, as the authors
    do. Interrupted, it begins again from the last checkpoint of the search.
    """
    from darts_tf.methods import projection
    from darts_tf.runs import callbacks

    config, made, done = networks.config, [], 0
    first, last = config.learning_rate / 10, min(config.learning_rate_min, config.learning_rate / 10)

    def tune(decided):
        nonlocal done
        if not made:
            with networks.strategy.scope():
                made.append(projection.Projected(decided))
                made.append(networks.compiled(search.network, perturbation=made[0]))
            made[1].alpha_moves = False
            made[1].create_variables(*batches.spec)
        mixture, tuned = made
        mixture.set(decided)
        epochs = config.tuning_epochs * (decided.rounds - 1)
        tuned.fit(
            batches.feed(done * batches.steps),
            steps_per_epoch=batches.steps,
            initial_epoch=done,
            epochs=done + config.tuning_epochs,
            callbacks=[callbacks.cosine_schedule(first, last, epochs)],
            shuffle=False,
            verbose=0,
        )
        done += config.tuning_epochs

    def tell(decided, decisions):
        for decision in decisions:
            table = networks.space.choices[decision["table"]]
            if "row" in decision:
                what = f"{table.candidates[decision['candidate']]} on {table.rows[decision['row']]}"
            else:
                what = f"{', '.join(table.rows[row] for row in decision['rows'])} stay"
            messages.say(f"{decision['table']}: {what}")

    messages.say("Deciding by what the network loses ...")
    criterion = "accuracy" if networks.task.headline.name == "accuracy" else "loss"
    decided = projection.project(
        *(search, batches.held_out, tune if config.tuning_epochs else None, criterion, config.seed),
        possible=networks.budget.possible if networks.budget.bounds else None,
        progress=tell,
    )
    return networks.space.decide(decided.strengths())


def evolved(search, networks, data, batches, output, saved=lambda: None):
    """The best architecture that evolution finds with the weights of a search that has ended, see `methods.one_shot`.

    evolution.json has what is found after every generation: {"evolution": the state of `Evolution`, "networks": a dict
    for each that was evaluated, "ended": whether no generation follows}. Interrupted, it goes on after the last
    generation that is there.

    Args:
        saved: called without arguments whenever the file was written.

    Raises:
        UsageError: no network is within the bound.
    """
    from darts_tf.methods.one_shot import Inherited, one_hot

    config, space, budget = networks.config, networks.space, networks.budget
    choices, costs = space.choices, networks.costs
    rows = [(name, row) for name, table in choices.items() for row in range(len(table.rows))]

    def picks_of(path):
        found = {name: [] for name in choices}
        for (name, row), candidate in zip(rows, path, strict=True):
            found[name].append((row, candidate))
        return found

    def costs_of(path):
        picks = picks_of(path)
        found = costs(space.decode(picks)) | {cost: budget.of_picks(cost, picks) for cost in budget.bounds}
        return found | ({networks.main_table.cost: space.cost_of(networks.main_table, picks)} if config.front else {})

    left = {name: search.network.candidates[name] & table.can_win for name, table in choices.items()}

    def feasible(path):
        return budget.keeps(space.decode(picks_of(path)))

    def within(random):
        strengths = {name: np.where(there, random.random_sample(there.shape), 0) for name, there in left.items()}
        picks = space.picks(budget.within(strengths))
        chosen = {(name, row): candidate for name, some in picks.items() for row, candidate in some}
        return tuple(chosen.get(place, int(left[place[0]][place[1]].argmax())) for place in rows)

    headline = networks.task.headline

    def score_of(path, result, loss):
        return headline.error(result), space.cost_of(networks.main_table, picks_of(path)) if config.front else loss

    before = rundirectory.evolution(output)
    if before:
        evolution, found = Evolution.from_json(json.dumps(before["evolution"]), feasible), before["networks"]
    else:
        half, found = config.population // 2, []
        evolution = Evolution(
            [np.flatnonzero(left[name][row]) for name, row in rows],
            *(config.population, max(config.population // 5, 1), config.generations, half, half),
            feasible=feasible,
            random=config.seed,
            front=config.front is not None,
            within=within if budget.bounds else None,
        )
    evolution.generations = config.generations  # a search may go on for more of them

    def save(ended):
        state = {"evolution": json.loads(evolution.to_json()), "networks": found, "ended": ended}
        files.write(output / "evolution.json", json.dumps(state) + "\n")
        saved()

    again = recalibration(data, config, networks.strategy)
    held_out = batches.held_out if config.stream else list(batches.held_out)
    worth = Inherited(search, again, held_out, score=networks.task.score)
    messages.say("Looking for the best network in the supernet ...")
    while True:
        try:
            paths, began = evolution.ask(), time.monotonic()
        except ValueError as error:
            raise UsageError(f"{budget.said()}: {error}") from None
        if not paths:
            break
        scores, what = {}, f"Generation {len(evolution.populations)}"
        for path in messages.each(paths, what):
            result, loss = worth(one_hot(choices, picks_of(path)))
            scores[path] = score_of(path, result, loss)
            found.append(
                {
                    "generation": len(evolution.populations),
                    "architecture": str(space.decode(picks_of(path))),
                    "result": result,
                    "loss": loss,
                    **costs_of(path),
                }
            )
        evolution.tell(scores)
        save(ended=False)
        path, (error, _) = evolution.best
        messages.say(
            f"generation {evolution.generation}/{config.generations}  best {headline.text(headline.error(error))}  "
            f"{in_words(costs_of(path)['multiply_adds'])} multiply-adds  {time.monotonic() - began:.1f} s"
        )
    save(ended=True)
    worth.restore()
    path, _ = evolution.best
    return space.decode(picks_of(path))


def recalibration(data, config, strategy):
    """Batches (x, y) of the first training images of the weights, in the order of the first epoch, as they are."""
    plain = config.replace(flip=False, crop_padding=0, cutout=False)
    batches, steps, _ = starting.batches_of(data.search_batches, plain, strategy, ALONE)
    count = min(-(-config.recalibration_images // config.batch_size), steps)
    return [train for train, _ in itertools.islice(batches(), count)]
