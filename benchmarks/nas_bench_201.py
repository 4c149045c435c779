"""Searches the space of NAS-Bench-201 with each method, and looks up what the cells are worth.

    python -m benchmarks.nas_bench_201 --table=nas-bench-201-cifar10.csv --images=cifar10.npz

The table is a CSV file: for each of the 15,625 cells its text, "architecture", and its accuracy on CIFAR-10 after 200
epochs, "cifar10_test_accuracy", in percent. The images are a .npz file as --dataset takes it.

A method has the parts of its paper, by `--method`. The authors' hyperparameters are for larger networks, larger images
and ten times the steps; here all methods have the same batch size and learning rates. 12 channels can be divided by
all partial channels. The supernet has one cell in each stage instead of five.

Prints a JSON line for each search: the accuracy of its cell and of the cells after each epoch, how many of the six
edges are skip connections or nothing, the seconds of its epochs, and their median, which is an epoch without tracing.
Then a line per method, with the mean, standard deviation and worst of its seeds. Beside them stands what chance gives:
the mean of the table ("random"), and the expected best of as many cells as could be trained, one after the other, in
the seconds of the method, each for as many epochs with the same sizes ("random_best"). To find that best, a random
search would have to rank its cells as the table does. The seconds of such a training are those of a cell per seed,
"random" among the methods.

What has a result in --output is not computed again; a search that was interrupted goes on.
"""

import csv
import json
import random
import statistics
import sys

import numpy as np

from benchmarks import searches
from darts_tf.methods import presets

SIZES = {
    "epochs": 25,
    "image_size": 8,
    "init_channels": 12,
    "layers": 1,
    "batch_size": 64,
    "learning_rate": 0.05,
    "learning_rate_min": 0.001,
    "arch_learning_rate": 3e-3,
}
RANDOM = "random"


def main(arguments=None):
    parser = searches.options("nas_bench_201", __doc__, methods=[RANDOM, *presets.METHODS], **SIZES)
    parser.add_argument("--table", required=True, help="CSV file of the accuracies of all cells")
    parser.add_argument("--images", required=True, help="--dataset of the searches, a .npz file")
    options = parser.parse_args(arguments)
    table, flags = read(options.table), {name: getattr(options, name) for name in SIZES}
    results, found = searches.Results(options.output, {"images": options.images, **flags}), {}
    flags["dataset"] = options.images
    for seed in range(1, options.seeds + 1):
        for method in options.methods:

            def compute(folder, method=method, seed=seed):
                if method == RANDOM:
                    return trained(folder, table, seed, flags)
                return searched(folder, table, method=method, seed=seed, **flags)

            line = results.get(compute, method=method, seed=seed)
            found.setdefault(method, []).extend([line] if line else [])
    for line in summaries(found, table):
        print(json.dumps(line), flush=True)


def read(path):
    """{text of a cell: accuracy}."""
    with open(path, newline="") as file:
        return {row["architecture"]: float(row["cifar10_test_accuracy"]) for row in csv.DictReader(file)}


def searched(folder, table, **flags):
    """The result of a search, a dict."""
    search, seconds = searches.search(folder, space="nas-bench-201", **flags)
    return {
        **of_cell(search.genotype, table),
        "seconds": seconds,
        "epoch_seconds": round(statistics.median(row["seconds"] for row in search.history), 2),
        "accuracies": [table[row["genotype"]] for row in search.history],
    }


def trained(folder, table, seed, flags):
    """The result of training a random cell for as many epochs as a search."""
    from darts_tf import spaces

    cell = spaces.read(random.Random(seed).choice(sorted(table)))
    names = ("dataset", "epochs", "image_size", "init_channels", "layers", "batch_size", "learning_rate")
    own = {name: flags[name] for name in names}
    own |= {"recipe": "small", "train_portion": 0.5}  # the other recipes cut out a hole as large as these images
    training, seconds = searches.train(folder, arch=str(cell), seed=seed, **own)
    return {**of_cell(cell, table), "seconds": seconds, "val_accuracy": round(training.history[-1]["val_accuracy"], 4)}


def of_cell(cell, table):
    return {
        "accuracy": table[str(cell)],
        "skips": cell.names.count("skip_connect"),
        "nones": cell.names.count("none"),
        "architecture": str(cell),
    }


def summaries(found, table):
    """A line for each method.

    Args:
        found: {method: list of results}.
        table: {text of a cell: accuracy}.
    """
    trainings = [line["seconds"] for line in found.get(RANDOM, [])]
    for method, lines in found.items():
        if method == RANDOM or not lines:
            continue
        seconds = statistics.mean(line["seconds"] for line in lines)
        accuracies = [line["accuracy"] for line in lines]
        summary = {
            "method": method,
            **searches.statistics_of("accuracy", accuracies, 2),
            "worst": min(accuracies),
            "skips": round(statistics.mean(line["skips"] for line in lines), 1),
            "seconds": round(seconds, 1),
            "epoch_seconds": round(statistics.mean(line["epoch_seconds"] for line in lines), 2),
            "seeds": len(lines),
        }
        if trainings:
            cells = max(1, round(seconds / statistics.mean(trainings)))
            summary |= {"random_cells": cells, "random_best": round(expected_best(table.values(), cells), 2)}
        yield summary
    values = [*table.values()]
    summary = {"method": RANDOM, **searches.statistics_of("accuracy", values, 2), "worst": min(values)}
    yield summary | ({"seconds": round(statistics.mean(trainings), 1)} if trainings else {})


def expected_best(values, number):
    """The expected largest of so many draws from values, with replacement."""
    ordered = np.sort([*values])
    below = (np.arange(len(ordered) + 1) / len(ordered)) ** number
    return float(np.diff(below) @ ordered)


if __name__ == "__main__":
    sys.exit(main())
