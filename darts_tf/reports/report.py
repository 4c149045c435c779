"""The report of a run: one HTML file that needs nothing else, made of what is in the run directory.

Its graphs and charts are drawn here and by report.html; a library for them (Plotly, Vega) would make every report
several megabytes large, once per epoch.
"""

import base64
import html
import io
import json
import pathlib

import numpy as np

from darts_tf import spaces
from darts_tf.cli import messages
from darts_tf.cli.files import write
from darts_tf.methods import relaxations, selections
from darts_tf.reports import drawing
from darts_tf.runs import phases, rundirectory
from darts_tf.runs.configurations import SearchConfig
from darts_tf.spaces.pictures import kind_of

TEMPLATE = pathlib.Path(__file__).with_name("report.html")
TITLES = {"search": "Search", "train": "Training", "tune": "Trials"}
FULL_MATRIX = 30  # classes, at most
PAIRS = 20  # of classes that are taken for each other, listed where there are more
HIDDEN = ("command", "data", "versions", "genotype", "output", "overwrite", "resume", "tensorboard")


def write_report(directory):
    """Writes report.html of a run directory, as far as the run is.

    Args:
        directory: folder with config.json and history.csv, and what else the run has: alphas.npz of a search,
            metrics.json and predictions.npz of a training that has ended. If one of these cannot be read the report
            stays as it is, with a warning.
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
    headline = rundirectory.task(config).headline
    content = {
        "command": config["command"],
        "headline": {"name": headline.name, "direction": headline.direction, "form": headline.form},
        "title": f"{TITLES[config['command']]} on {config['dataset']}",
        "epochs": config["epochs"],
        "limit": config.get("repeat_search") or (config.get("oracle") != "hyperband" and config.get("max_trials")),
        "history": [{name: _number(value) for name, value in row.items() if name != "genotype"} for row in rows or []],
        "config": _configuration(config),
        "genotype": config.get("genotype"),
    }
    if trials is not None:
        content |= _trials(trials, headline)
    if alphas:
        content |= _search(config, alphas)
    elif content["genotype"]:
        architecture = spaces.from_text(content["genotype"])
        pictures = architecture.space.pictures(architecture)
        content["pictures"] = [_picture(picture, [architecture]) for picture in pictures]
    if test:
        content["test"] = test
        content["figures"] = rundirectory.task(config).figures(test)
    if predictions:
        content |= _predictions(predictions, config["data"]["class_names"])
    return content


def _number(value):
    number = float("nan" if value in ("", None) else value)
    return number if np.isfinite(number) else None


def _configuration(config):
    """[name, value] pairs, as texts."""
    flags = {f"--{name}": value for name, value in config.items() if name not in HIDDEN and value is not None}
    height, width, depth = config["data"]["image_shape"]
    more = {"images": f"{height}x{width}x{depth}", "classes": len(config["data"]["class_names"])}
    texts = {True: "yes", False: "no"}
    return [
        [name, texts[value] if isinstance(value, bool) else ", ".join(value) if isinstance(value, list) else str(value)]
        for name, value in (flags | more | config.get("versions", {})).items()
    ]


def _trials(rows, headline):
    """What has been tried, and the best of it."""
    columns = {"result": f"val_{headline.name}", "parameters": "parameters", "multiply_adds": "multiply_adds"}
    trials = [
        {"trial": row["trial"]} | {name: _number(row[column]) for name, column in columns.items()} for row in rows
    ]
    good = [place for place, trial in enumerate(trials) if trial["result"] is not None]
    best = min(good, key=lambda place: headline.best_first(trials[place]["result"]), default=None)
    return {"trials": trials, "genotype": None if best is None else rows[best]["genotype"]}


def _search(config, alphas):
    """What a search is like after every epoch."""
    space = rundirectory.space(config)
    try:
        own = SearchConfig().taken_over(config)
        relaxation, selection = relaxations.get(own.relaxation), selections.configured(own.to_dict())
        epochs = phases.strengths_by_epoch(own, space, alphas)
    except ValueError as error:
        raise rundirectory.DamageError(f"its config.json: {error}") from None
    strengths = {name: np.stack([tables[name] for tables in epochs]) for name in epochs[0]}
    found = [space.decide(tables, selection) for tables in epochs]
    content = {"genotypes": [str(architecture) for architecture in found], "formula": relaxation.formula}
    kept = [space.picks(architecture) for architecture in found]
    choices = space.choices
    content["choices"] = [
        _choices(name, choices[name], strengths[name], [picks[name] for picks in kept]) for name in choices
    ]
    allowed = {
        name: strengths[name][..., [other not in table.never for other in table.candidates]]
        for name, table in choices.items()
    }
    thickest = max(values.max() for values in allowed.values())
    names = [name for table in choices.values() for name in table.candidates]
    content["pictures"] = [
        _picture(picture, found, strengths[picture.name], thickest) for picture in space.pictures(found[0], names)
    ]
    return content


def _choices(name, table, strengths, kept):
    """One table of choices after every epoch; strengths are (1 + epochs, rows, candidates)."""
    skips = [place for place, other in enumerate(table.candidates) if kind_of(other) == "skip"]
    return {
        "name": name,
        "title": table.title,
        "rows": list(table.rows),
        "first": [rows[0] for rows, _ in table.groups if len(rows) > 1],
        "candidates": list(table.candidates),
        "weights": np.round(1000 * strengths).astype(int).tolist(),
        "kept": kept,
        "skips": [sum(place in skips for _, place in picks) for picks in kept] if skips else None,
        "entropy": np.round(-(strengths * np.log(np.maximum(strengths, 1e-300))).sum(-1).mean(-1), 4).tolist(),
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


def _image(pixels):
    """An image (height, width, depth), uint8, as a data URI of a PNG; one channel is grey, three are colours."""
    from PIL import Image

    pixels = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., 0]
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
