"""The report of a run: one HTML file that needs nothing else, made of what is in the run directory.

Its graphs and charts are drawn here and by report.html; a library for them (Plotly, Vega) would make every report
several megabytes large, once per epoch.
"""

import base64
import dataclasses
import html
import io
import json
import pathlib

import numpy as np

from darts_tf import spaces
from darts_tf.cli import messages
from darts_tf.cli.files import write
from darts_tf.methods import guards, relaxations, selections
from darts_tf.reports import drawing
from darts_tf.runs import budget, phases, recipes, rundirectory, sizes
from darts_tf.runs.configurations import SearchConfig
from darts_tf.spaces.base import edge_shares, strengths_of

TEMPLATE = pathlib.Path(__file__).with_name("report.html")
TITLES = {"search": "Search", "train": "Training", "tune": "Trials"}
FULL_MATRIX = 30  # classes, at most
POINTS = 1000  # in a plot, at most
PAIRS = 20  # of classes that are taken for each other, listed where there are more
HIDDEN = ("command", "task", "data", "versions", "genotype", "output", "overwrite", "resume", "tensorboard")
# Flags that mean nothing to data of a kind.
OF_IMAGES = (*sizes.IMAGES, "auxiliary_weight", "partial_channels")
WITHOUT = {
    "image_classification": (*recipes.flags_without("images"), *sizes.TEXT),
    "language_model": (*recipes.flags_without("text"), *OF_IMAGES),
}
WITHOUT |= dict.fromkeys(
    ("table_classification", "table_regression"), (*recipes.flags_without("table"), *sizes.TEXT, *OF_IMAGES)
)
# Flags that mean something beside another one only.
BESIDE = {
    **dict.fromkeys(("teacher_weight", "teacher_temperature"), "teacher"),
    "magnitude": "randaugment",
    "difference": "unrolled",
    "auxiliary_weight": "auxiliary",
}


def write_report(directory):
    """Writes report.html of a run directory, as far as the run is.

    Args:
        directory: folder with config.json and history.csv, and what else the run has: alphas.npz and evolution.json of
            a search, metrics.json and predictions.npz of a training that has ended. If one of these cannot be read the
            report stays as it is, with a warning.
    """
    directory = pathlib.Path(directory)
    try:
        content = contents(directory)
    except rundirectory.DamageError as error:
        messages.warn(f"{directory}/report.html stays as it is: {error}.")
        return
    page = TEMPLATE.read_text(encoding="utf-8")
    for name, text in (
        ("TITLE", html.escape(content["title"])),
        ("STYLE", drawing.style()),
        ("DATA", json.dumps(content, allow_nan=False).replace("<", "\\u003c")),
    ):
        page = page.replace(f"/*{name}*/", text)
    write(directory / "report.html", page)


def contents(directory):
    """What a report shows, as a dict that JSON can hold; raises rundirectory.DamageError."""
    config = rundirectory.configuration(directory)
    if config is None:
        raise rundirectory.DamageError("its config.json is gone")
    rows, alphas, test, predictions, trials = rundirectory.contents(directory, config)
    task = rundirectory.task(config)
    headline = task.headline
    content = {
        "command": config["command"],
        "headline": dataclasses.asdict(headline),
        "item": task.item,
        "title": f"{TITLES[config['command']]} on {config['dataset']}",
        "epochs": config["epochs"],
        "limit": config.get("repeat_search") or (config.get("oracle") != "hyperband" and config.get("max_trials")),
        "history": [{name: _number(value) for name, value in row.items() if name != "genotype"} for row in rows or []],
        "config": _configuration(config),
        "genotype": config.get("genotype"),
    }
    if trials is not None:
        content |= _trials(trials, headline)
    if alphas or config.get("from_supernet"):
        content |= _search(directory, config, rows or [], alphas)
    elif content["genotype"]:
        architecture = spaces.from_text(content["genotype"])
        pictures = _pictures(architecture.space, architecture, config)
        content["pictures"] = [_picture(picture, [architecture]) for picture in pictures]
    if config["command"] == "train" and task.keeps_best:
        content |= _best(content["history"], headline)
    if test:
        content["test"] = {name: _number(test[name]) for name in ("parameters", "multiply_adds")}
        content["figures"] = task.figures(test)
    if predictions and "class_names" in config["data"]:
        content |= _predictions(predictions, config["data"]["class_names"])
    elif predictions and "labels" in predictions:
        content["residuals"] = _residuals(predictions, config["data"]["label"])
    elif predictions and test:
        counts = zip(test["by_rank"].items(), predictions["tokens"], strict=True)
        content["ranks"] = [[name, int(count), _number(value)] for (name, value), count in counts]
    return content


def _best(rows, headline):
    """Of a training that keeps its best model: the epoch of that, and the first of averaged weights, or None."""
    name = f"val_{headline.name}"
    best = min(rows, key=lambda row: headline.best_first(row.get(name)), default={"epoch": 0})
    return {
        "result": best["epoch"],
        "averaged": next((row["epoch"] for row in rows if row.get("averaged")), None),
    }


def _number(value):
    number = float("nan" if value in ("", None) else value)
    return number if np.isfinite(number) else None


def _configuration(config):
    """[name, value] pairs, as texts."""
    task = rundirectory.task(config)
    left_out = {*HIDDEN, *(set(WITHOUT.get(task.name, ())) - _own(config))}
    left_out |= {name for name, other in BESIDE.items() if not config.get(other)}
    flags = {f"--{name}": value for name, value in config.items() if name not in left_out and value is not None}
    more = task.facts(config["data"])
    texts = {True: "yes", False: "no"}
    return [
        [name, texts[value] if isinstance(value, bool) else ", ".join(value) if isinstance(value, list) else str(value)]
        for name, value in (flags | more | config.get("versions", {})).items()
    ]


def _own(config):
    """The names of the sizes that the space of a run has, a set."""
    if config["command"] == "train":
        return sizes.names_of(spaces.from_text(config["genotype"]).space.network) if config.get("genotype") else set()
    space = rundirectory.space(config)
    return sizes.names_of(space, space.supernet if config["command"] == "search" else space.network)


def _trials(rows, headline):
    """What has been tried, and the best of it."""
    columns = {"result": f"val_{headline.name}", "parameters": "parameters", "multiply_adds": "multiply_adds"}
    trials = [
        {"trial": row["trial"]} | {name: _number(row[column]) for name, column in columns.items()} for row in rows
    ]
    good = [place for place, trial in enumerate(trials) if trial["result"] is not None]
    best = min(good, key=lambda place: headline.best_first(trials[place]["result"]), default=None)
    return {"trials": trials, "genotype": None if best is None else rows[best]["genotype"]}


def _search(directory, config, rows, history):
    """What a search has found.

    Args:
        directory: of the run.
        config: what its config.json says.
        rows: of history.csv.
        history: as of `phases.candidates_of`; None if the weights are those of another search.
    """
    space = rundirectory.space(config)
    try:
        own = SearchConfig().taken_over(config)
        relaxation, selection = relaxations.get(own.relaxation), selections.configured(own.to_dict())
        stop = phases.stop_of(own, space, rows, history) if history else None
        if learnt := history and relaxation.learns:
            left = phases.candidates_of(own, space, history)
            epochs = phases.strengths_by_epoch(own, space, history)
            stages = phases.stages_of(own)
    except ValueError as error:
        raise rundirectory.DamageError(f"its config.json: {error}") from None
    content = {
        "result": stop.epoch + 1 if stop else len(rows),
        "stopped": stop.noticed + 1 if stop else None,
    }
    if learnt:
        bounded = budget.read(directory, space)
        # What is within bounds takes long to decide again.
        decided = [row["genotype"] for row in rows[: len(epochs) - 1]] if bounded.bounds else []
        found = [bounded.decide(tables, selection) for tables in (epochs[0], *epochs[1 + len(decided) :])]
        found[1:1] = map(spaces.from_text, decided)
        if selection.by_network and len(rows) == own.epochs:
            found[-1] = rundirectory.genotype(directory) or found[-1]
        content |= {
            "genotypes": [str(architecture) for architecture in found],
            "formula": relaxation.formula,
            "normalized": relaxation.normalized,
            "stages": [stage.first + 1 for stage in stages],
            "averages": _averages(own, rows),
        }
        content |= _by_epoch(config, space, relaxation, history, left, epochs, found)
    if own.selection == "evolution" or rundirectory.front(directory):
        content |= _evolution(directory, config, own, space, content.get("pictures"))
        content["directory"] = str(directory)
    evolution = content.get("evolution") if own.selection == "evolution" else None
    content["decision"] = _decision(own, relaxation, selection, stop, len(rows), evolution)
    return content


def _by_epoch(config, space, relaxation, history, left, epochs, found):
    """Tables of choices, and pictures, after every epoch.

    Args:
        config: of the run.
        space: its space.
        relaxation: its relaxation.
        history: as of `phases.candidates_of`, which says what `left` is.
        epochs: {table: strengths}, for each.
        found: what each chooses.
    """
    left = [left[0], *left[: len(history) - 1]]  # of the epoch before
    weights = [
        strengths_of(space, relaxation, alphas, candidates=there)
        for (alphas, _), there in zip(history, left, strict=True)
    ]
    strengths = {name: np.stack([tables[name] for tables in epochs]) for name in epochs[0]}
    kept, choices = [space.picks(architecture) for architecture in found], space.choices
    tables = [
        _choices(
            name,
            table,
            np.stack([tables[name] for tables in weights]),
            np.stack([tables[name] for tables in left]),
            [picks[name] for picks in kept],
            np.stack([betas[name] for _, betas in history]) if history[0][1] else None,
        )
        for name, table in choices.items()
    ]
    allowed = {
        name: strengths[name][..., [other not in table.never for other in table.candidates]]
        for name, table in choices.items()
    }
    thickest = max(values.max() for values in allowed.values())
    names = [name for table in choices.values() for name in table.candidates]
    pictures = _pictures(space, found[0], config, names)
    layers = [space.left(candidates) for candidates in left]
    return {
        "choices": tables,
        "layers": {name: [sizes[name] for sizes in layers] for name in layers[0]},
        "pictures": [_picture(picture, found, strengths[picture.name], thickest) for picture in pictures],
    }


def _evolution(directory, config, own, space, pictures):
    """The networks that evolution has looked at so far, or else those of a front, see `darts_tf.runs.deciding`.

    Args:
        directory, config: of the run.
        own: its configuration.
        space: its space.
        pictures: of the epochs, which those of the networks join; None without.
    """
    evolves, front = own.selection == "evolution", rundirectory.front(directory) or {"networks": []}
    found = rundirectory.evolution(directory) if evolves else front | {"ended": True}
    found = found or {"networks": [], "ended": False}
    networks, cost = found["networks"], next(iter(budget.asked(own)), "multiply_adds")
    cost = budget.main_cost(own) if own.front else cost
    bound, unit = budget.asked(own).get(cost), unit_of(cost)
    evolution = {"generations": own.generations if evolves else 0, "bound": bound, "supernet": own.from_supernet}
    evolution |= {"networks": [], "done": 0, "ended": found["ended"], "best": None, "front": []}
    evolution |= {"unit": unit, "amount": f"{unit} of one input" if cost != "parameters" else unit}
    if not networks:
        return {"evolution": evolution}
    headline = rundirectory.task(config).headline
    second = cost if own.front else "loss"
    best = min(networks, key=lambda network: (headline.best_first(network["result"]), network[second]))
    texts = [network["architecture"] for network in networks]
    architectures = [spaces.from_text(text) for text in texts]
    chosen = architectures[networks.index(best)]
    numbers = ("result", "parameters", "multiply_adds")
    evolution |= {
        "networks": [
            {"architecture": network["architecture"], "generation": network.get("generation", 0)}
            | {name: _number(network[name]) for name in numbers}
            | {"cost": _number(network.get(cost))}
            for network in networks
        ],
        "best": networks.index(best) if evolves else None,
        "done": max(network.get("generation", 0) for network in networks),
        "front": [texts.index(network["architecture"]) for network in front["networks"]],
    }
    names = [name for table in space.choices.values() for name in table.candidates]
    made = _pictures(space, chosen, config, names)
    pictures = pictures or [_picture(picture, [chosen]) for picture in made]
    for picture, one in zip(made, pictures, strict=True):
        one |= _of_many(picture, architectures)
    chosen = {"genotype": str(chosen)} if evolves else {}
    return {"evolution": evolution, "pictures": pictures} | chosen


def unit_of(cost):
    """What a cost is counted in, a text."""
    known = {"multiply_adds": "multiply-adds", "latency_ms": "ms", "model_bytes": "bytes", "int8_model_bytes": "bytes"}
    return known.get(cost, cost.replace("_", " "))


def _decision(config, relaxation, selection, stop, done, evolution=None):
    """Which parts made the genotype of what, a sentence."""
    by = f"{relaxation.formula} times the share of the edge" if config.edge_normalization else relaxation.formula
    if evolution:
        weights = "the weights of the supernet" + (f" in {config.from_supernet}" if config.from_supernet else "")
        bounds = [f"{most:,.6g} {unit_of(cost)}" for cost, most in budget.asked(config).items()]
        bound = f" of at most {' and '.join(bounds)}" if bounds else ""
        until = f"; until then it is the strongest by {by}" if relaxation.learns else ""
        if evolution["ended"]:
            what = f"evolution chose the best of {len(evolution['networks']):,} networks{bound} by what they are"
        else:
            what = f"at the end evolution chooses the genotype, the best of the networks{bound} by what they are"
        return f"Method {config.method}: {what} worth with {weights}{until}."
    if selection.by_network:
        return (
            f"Method {config.method}: at the end the selection {config.selection} chooses the genotype from what the "
            f"network loses; until then it is the strongest by {by}."
        )
    limits = {"max_skips": f" (at most {config.max_skips})", "threshold": f" (at least {config.threshold})"}
    limit = limits.get(config.selection, "") if getattr(config, config.selection, None) is not None else ""
    when = f"after epoch {stop.epoch + 1 if stop else done}" if done else "at the start"
    text = f"Method {config.method}: the selection {config.selection}{limit} chose the genotype from {by} {when}"
    if not config.early_stop:
        return f"{text}."
    guard = f"the early stop by {config.early_stop}"
    if not stop:
        return f"{text}; {guard} has not ended the search."
    if stop.epoch == stop.noticed:
        return f"{text}, where {guard} ended the search."
    return f"{text}, to which {guard} went back after epoch {stop.noticed + 1}."


def _averages(config, rows):
    """[epoch, local average of the eigenvalues around it] pairs: what the early stop by curvature compares."""
    seen = [(row["epoch"] - 1, row["eigenvalue"]) for row in rows if row.get("eigenvalue") is not None]
    if config.early_stop != "curvature" or not seen:
        return []
    averages, middles = guards.local_averages(*zip(*seen, strict=True), config.epochs, frequency=config.curvature_every)
    places = [middle + 1 for middle in middles.values() if middle >= 0]
    return [[place, _number(value)] for place, value in zip(places, averages, strict=False)]


def _choices(name, table, weights, left, kept, betas=None):
    """One table of choices after every epoch.

    Args:
        name: of the table.
        table: its `Choices`.
        weights: array (1 + epochs, rows, candidates).
        left: the same of bools: which candidates there were.
        kept: for each epoch the (row, candidate) pairs of the genotype.
        betas: array (1 + epochs, rows), None without edge normalisation.
    """
    skips = [place for place, other in enumerate(table.candidates) if "skip" in other]
    shares = weights / weights.sum(-1, keepdims=True)
    return {
        "name": name,
        "title": table.title,
        "rows": list(table.rows),
        "first": [rows[0] for rows, _ in table.groups if len(rows) > 1],
        "candidates": list(table.candidates),
        "weights": np.where(left, np.round(1000 * weights).astype(int).astype(object), None).tolist(),
        "left": np.round(left.sum(-1).mean(-1), 2).tolist(),
        "all_alike": np.round(np.log(left.sum(-1)).mean(-1), 4).tolist(),
        "edges": None if betas is None else np.round(1000 * edge_shares(table, betas)).astype(int).tolist(),
        "kept": kept,
        "skips": [sum(place in skips for _, place in picks) for picks in kept] if skips else None,
        "entropy": np.round(-(shares * np.log(np.maximum(shares, 1e-300))).sum(-1).mean(-1), 4).tolist(),
    }


def _picture(picture, found, strengths=None, thickest=1.0):
    """A picture, and what it shows after every epoch."""
    edges = [
        picture.edges(architecture, None if strengths is None else strengths[epoch], thickest)
        for epoch, architecture in enumerate(found)
    ]
    return {
        "title": picture.title,
        "width": picture.width,
        "height": picture.height,
        "shapes": drawing.svg_elements(picture.shapes),
        "edges": [drawing.svg_elements(shapes) for shapes in edges],
    }


def _pictures(space, architecture, config, names=None):
    """The pictures of a space, see `SearchSpace.pictures`, for models of the sizes that a configuration says."""
    return space.pictures(architecture, names, **sizes.of(space.pictures, config))


def _of_many(picture, architectures):
    """What a picture shows of each of many architectures: "elements", and the places of its own there."""
    elements, networks = {}, []
    for architecture in architectures:
        texts = (drawing.svg_elements([shape]) for shape in picture.edges(architecture))
        networks.append([elements.setdefault(text, len(elements)) for text in texts])
    return {"elements": list(elements), "networks": networks}


def _predictions(predictions, class_names):
    """Which classes are taken for which, and the worst examples."""
    labels, predicted = predictions["labels"], predictions["predicted"]
    count = len(class_names)
    if count <= FULL_MATRIX:
        matrix = np.bincount(labels * count + predicted, minlength=count * count).reshape(count, count)
        content = {"confusion": matrix.tolist()}
    else:
        pairs, times = np.unique(np.stack([labels, predicted])[:, labels != predicted], axis=1, return_counts=True)
        most = np.argsort(-times, kind="stable")[:PAIRS]
        content = {"confused": [[*map(int, pairs[:, place]), int(times[place])] for place in most]}
    content["classes"] = class_names
    if "worst" not in predictions:  # rows of a table have no images
        return content
    content["worst"] = [
        {
            "image": _image(image),
            "label": int(labels[index]),
            "predicted": int(predicted[index]),
            "probability": _number(predictions["probability"][index]),
        }
        for index, image in zip(predictions["worst"], predictions["worst_images"], strict=True)
    ]
    return content


def _residuals(predictions, label):
    """The labels of test rows and what is predicted for them, `POINTS` of them at most, and what the label is."""
    labels, predicted = predictions["labels"], predictions["predicted"]
    chosen = np.sort(np.random.default_rng(0).permutation(len(labels))[:POINTS])
    points = [[_rounded(a), _rounded(b)] for a, b in zip(labels[chosen], predicted[chosen], strict=True)]
    return {"label": label, "points": points, "of": len(labels)}


def _rounded(value):
    return float(f"{value:.6g}")


def _image(pixels):
    """An image (height, width, depth), uint8, as a data URI of a PNG; one channel is grey, three are colours."""
    from PIL import Image

    pixels = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., 0]
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
