"""Ranks networks of NAS-Bench-Macro with the weights of a supernet, and looks up what they are worth.

    python -m benchmarks.nas_bench_macro --table=nas-bench-macro.json --images=cifar10.npz

The table is a JSON file: for each network, a key such as "02012100", its accuracy on CIFAR-10, "mean_acc", and its
multiply-adds, "flops". The images are a .npz file as --dataset takes it.

A supernet of a quarter of the width is trained by each method: `spos` draws a path in each step, `path-dropout` a mean
of some blocks in each layer, `gdas` learns alpha as well. Then --networks of the table, the same for all, are measured
with the weights that they inherit, batch norms computed anew. Kendall's tau says how well that order agrees with the
real one, for pairs that differ in both. Then evolution looks in the table for the best network within each of --bounds,
in millions of multiply-adds, once by the accuracy, once by the loss that is measured.

Prints a JSON line for each supernet: tau of the accuracy and of the loss; for each bound, by both, the network that was
found, its real accuracy, and which part of the networks of the table within that bound is better; and seconds of the
epochs and of measuring a network. Then a line per method, and one for what needs no supernet: tau of the number of
blocks, of multiply-adds and of parameters.

What has a result in --output is not computed again; a search that was interrupted goes on.
"""

import json
import random
import statistics
import sys
import time

import numpy as np

from benchmarks import searches

METHODS = {
    "spos": {"method": "spos"},
    "path-dropout": {"method": "spos", "relaxation": "path_dropout"},
    "gdas": {"method": "gdas", "selection": "evolution", "train_portion": 0.8},
}
SIZES = {
    "epochs": 60,
    "image_size": 16,
    "init_channels": 8,
    "batch_size": 64,
    "learning_rate": 0.1,
    "learning_rate_min": 0.001,
    "weight_decay": 1e-4,
    "recalibration_images": 500,
}
SCORES = {"accuracy": lambda accuracy, loss: (1 - accuracy, loss), "loss": lambda accuracy, loss: loss}
OTHERS = ("blocks", "flops", "params")  # what networks can be ranked by, too


def main(arguments=None):
    parser = searches.options("nas_bench_macro", __doc__, methods=list(METHODS), **SIZES)
    parser.add_argument("--table", required=True, help="JSON file of the accuracies of networks")
    parser.add_argument("--images", required=True, help="--dataset of the searches, a .npz file")
    parser.add_argument("--networks", type=int, default=500, help="of the table that are ranked; default: 500")
    parser.add_argument("--bounds", type=searches.names, default="30,45,65", help="M multiply-adds; default: 30,45,65")
    parser.add_argument("--population", type=int, default=30, help="networks of a generation; default: 30")
    parser.add_argument("--generations", type=int, default=6, help="of each evolution; default: 6")
    options = parser.parse_args(arguments)
    with open(options.table, encoding="utf-8") as file:
        table = json.load(file)
    keys = sorted(random.Random(0).sample(sorted(table), min(options.networks, len(table))))
    flags = {name: getattr(options, name) for name in SIZES}
    own = {name: getattr(options, name) for name in ("images", "networks", "bounds", "population", "generations")}
    results, found = searches.Results(options.output, own | flags), {}
    for seed in range(1, options.seeds + 1):
        for method in options.methods:

            def compute(folder, method=method, seed=seed):
                more = {"dataset": options.images, "space": "nas-bench-macro", "seed": seed, **METHODS[method], **flags}
                return searched(folder, table, keys, options, **more)

            line = results.get(compute, method=method, seed=seed)
            found.setdefault(method, []).extend([line] if line else [])
    for method, lines in found.items():
        if lines:
            print(json.dumps({"method": method, **summary(lines)}), flush=True)
    accuracies = [table[key]["mean_acc"] for key in keys]
    for name in OTHERS:
        values = [len(key) - key.count("0") if name == "blocks" else table[key][name] for key in keys]
        print(json.dumps({"by": name, "tau": round(kendall(values, accuracies), 4), "networks": len(keys)}), flush=True)


def searched(folder, table, keys, options, **flags):
    """The result of a supernet, a dict."""
    _, seconds = searches.search(folder, **flags, population=2, generations=1)
    worth = Worth(folder)
    began = time.time()
    accuracies, losses = zip(*(worth(key) for key in keys), strict=True)
    measuring, real = (time.time() - began) / len(keys), [table[key]["mean_acc"] for key in keys]
    line = {"tau": round(kendall(accuracies, real), 4), "tau_loss": round(-kendall(losses, real), 4)}
    line |= {"validation": round(statistics.mean(accuracies), 4), "best": round(max(accuracies), 4)}
    for bound in options.bounds:
        within = {key: one["mean_acc"] for key, one in table.items() if one["flops"] <= float(bound) * 1e6}
        for name, score in SCORES.items():
            best = evolved(lambda key, score=score: score(*worth(key)), within, options, flags["seed"])
            better = sum(value > within[best] for value in within.values())
            found = {"key": best, "accuracy": within[best], "better": round(better / len(within), 4)}
            line[f"within_{bound}_by_{name}"] = found
    return line | {"seconds": seconds, "seconds_per_network": round(measuring, 3)}


def evolved(score, within, options, seed):
    """The key of the network of some of the least score, a function of keys, that evolution finds."""
    from darts_tf.methods.evolution import Evolution

    half = options.population // 2
    evolution = Evolution(
        [range(3)] * 8,
        *(options.population, max(options.population // 5, 1), options.generations, half, half),
        feasible=lambda path: "".join(map(str, path)) in within,
        random=seed,
    )
    while paths := evolution.ask():
        evolution.tell({path: score("".join(map(str, path))) for path in paths})
    return "".join(map(str, evolution.best[0]))


class Worth:
    """What networks are worth with the weights of a search, by their keys: accuracy and loss on the validation images.

    Args:
        folder: the run directory.
    """

    def __init__(self, folder):
        from darts_tf import search
        from darts_tf.devices import replicas
        from darts_tf.devices.cluster import ALONE
        from darts_tf.methods.one_shot import Inherited
        from darts_tf.runs import deciding, phases, rundirectory, starting
        from darts_tf.runs.checkpoints import Checkpoints
        from darts_tf.runs.configurations import SearchConfig

        config, strategy = SearchConfig().taken_over(rundirectory.configuration(folder)), replicas.strategy("none")
        data = starting.load_data(config)
        self._space, config = search.completed(config, data)
        batches = search.make_batches(data, config, strategy, ALONE)
        networks = phases.Networks(config, self._space, data.task, strategy, ALONE, folder, batches.spec)
        checkpoints = Checkpoints(folder, batches.steps)
        model = checkpoints.restore(lambda done: networks.at(config.epochs - 1), strategy)
        recalibration = deciding.recalibration(data, config, strategy)
        self._worth = Inherited(model, recalibration, list(batches.held_out))
        self._known = {}

    def __call__(self, key):
        if key not in self._known:
            mixture = np.eye(3, dtype=np.float32)[[int(digit) for digit in key]]
            self._known[key] = self._worth({"layers": mixture})
        return self._known[key]


def kendall(first, second):
    """Kendall's tau-b of two lists of numbers."""
    signs = [
        np.sign(np.subtract.outer(np.asarray(values, float), np.asarray(values, float))) for values in (first, second)
    ]
    ties = [np.sqrt((one**2).sum()) for one in signs]
    return float((signs[0] * signs[1]).sum() / (ties[0] * ties[1]))


def summary(lines):
    bounds = [name for name in lines[0] if name.startswith("within_")]
    return {
        **searches.statistics_of("tau", [line["tau"] for line in lines]),
        "worst": min(line["tau"] for line in lines),
        **searches.statistics_of("tau_loss", [line["tau_loss"] for line in lines]),
        **{name: [line[name]["better"] for line in lines] for name in bounds},
        "seconds": round(statistics.mean(line["seconds"] for line in lines), 1),
        "seconds_per_network": round(statistics.mean(line["seconds_per_network"] for line in lines), 3),
        "seeds": len(lines),
    }


if __name__ == "__main__":
    sys.exit(main())
