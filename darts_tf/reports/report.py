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

from darts_tf.cli import commands
from darts_tf.cli.files import write
from darts_tf.reports import drawing
from darts_tf.runs import rundirectory
from darts_tf.spaces.cells import genotypes

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
        commands.warn(f"{directory}/report.html stays as it is: {error}.")
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
    content = {
        "command": config["command"],
        "title": f"{TITLES[config['command']]} on {config['dataset']}",
        "epochs": config["epochs"],
        "limit": config.get("repeat_search") or (config.get("oracle") != "hyperband" and config.get("max_trials")),
        "history": [{name: _number(value) for name, value in row.items() if name != "genotype"} for row in rows or []],
        "config": _configuration(config),
        "genotype": config.get("genotype"),
    }
    if trials is not None:
        content |= _trials(trials)
    if alphas:
        content |= _search(**alphas)
    elif content["genotype"]:
        genotype = genotypes.from_text(content["genotype"])
        names = [name for name, _ in (*genotype.normal, *genotype.reduce)]
        content["cells"] = [_cell(kind, [genotype], names) for kind in ("normal", "reduce")]
    if test:
        content["test"] = test
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


def _trials(rows):
    """What has been tried, and the best of it."""
    trials = [
        {"trial": row["trial"]} | {name: _number(row[name]) for name in ("val_accuracy", "parameters", "multiply_adds")}
        for row in rows
    ]
    good = [place for place, trial in enumerate(trials) if trial["val_accuracy"] is not None]
    best = max(good, key=lambda place: trials[place]["val_accuracy"], default=None)
    return {"trials": trials, "genotype": None if best is None else rows[best]["genotype"]}


def _search(normal, reduce, primitives):
    """What a search is like after every epoch; alphas are (1 + epochs, edges, operations)."""
    weights = {"normal": genotypes.softmax(normal), "reduce": genotypes.softmax(reduce)}
    derived = [genotypes.derive(*pair, primitives) for pair in zip(*weights.values(), strict=True)]
    content = {"genotypes": [str(genotype) for genotype in derived], "primitives": primitives}
    # The rows of `none` do not count: a genotype keeps none of them.
    thickest = max(values[..., [name != "none" for name in primitives]].max() for values in weights.values())
    content["cells"] = [_cell(kind, derived, primitives, weights[kind], thickest) for kind in weights]
    content["weights"] = {kind: np.round(1000 * values).astype(int).tolist() for kind, values in weights.items()}
    content["edges"] = [
        [genotypes.node_name(source), genotypes.node_name(node)]
        for node in range(2, 2 + len(derived[0].normal) // 2)
        for source in range(node)
    ]
    content["kept"] = {
        kind: [genotypes.kept(getattr(genotype, kind), primitives) for genotype in derived] for kind in weights
    }
    content["skips"] = {
        kind: [sum(name == "skip_connect" for name, _ in getattr(genotype, kind)) for genotype in derived]
        for kind in weights
    }
    content["entropy"] = {
        kind: np.round(-(values * np.log(np.maximum(values, 1e-300))).sum(-1).mean(-1), 4).tolist()
        for kind, values in weights.items()
    }
    return content


def _cell(kind, derived, names, weights=None, thickest=1.0):
    """The picture of a cell, and its edges after every epoch."""
    first = derived[0]
    title = {"normal": "Normal cell", "reduce": "Reduction cell"}[kind]
    picture = drawing.Cell(len(getattr(first, kind)) // 2, getattr(first, f"{kind}_concat"), names)
    edges = []
    for epoch, genotype in enumerate(derived):
        pairs = getattr(genotype, kind)
        strengths = None if weights is None else [weights[epoch][place] for place in genotypes.kept(pairs, names)]
        edges.append(drawing.svg_elements(picture.edges(pairs, strengths, thickest)))
    size = {"width": picture.width, "height": picture.height}
    return {"title": title, **size, "shapes": drawing.svg_elements(picture.shapes), "edges": edges}


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
            "image": _picture(image),
            "label": int(labels[index]),
            "predicted": int(predicted[index]),
            "probability": _number(predictions["probability"][index]),
        }
        for index, image in zip(predictions["worst"], predictions["worst_images"], strict=True)
    ]
    return content


def _picture(pixels):
    """An image (height, width, depth), uint8, as a data URI of a PNG; one channel is grey, three are colours."""
    from PIL import Image

    pixels = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., 0]
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
