"""Searches the spaces S1 to S4, in which plain DARTS fails, by plain and by guarded methods, and trains what they find.

    python -m benchmarks.robustness --images=/usr/share/datasets/fashion-mnist
    python -m benchmarks.robustness --images=cifar10.npz --output=runs/robustness-cifar10

The images are a .npz file as --dataset takes it, or the IDX files of Debian's package dataset-fashion-mnist.

A method has the parts of its paper, by `--method`; all have the same sizes, batch size and learning rates, which suit
few small images. Networks have five cells, the second and the fourth of which are reduction cells. What a search finds
is trained for --final_epochs on all --train_images, in the same way for all methods, and measured on the test images.

Prints a JSON line for each search: the test error of the network, in percent, how many of the edges of its normal cell
are skip connections, and the seconds of the epochs of the search. Then a line for each space and method, with the mean
and standard deviation of its seeds.

What has a result in --output is not computed again; a search or training that was interrupted goes on.
"""

import json
import statistics
import sys

from benchmarks import searches

SPACES = ["s1", "s2", "s3", "s4"]
METHODS = ["darts", "r-darts", "darts-minus", "sdarts-rs"]
SIZES = {
    "epochs": 20,
    "image_size": 12,
    "init_channels": 8,
    "layers": 5,
    "batch_size": 64,
    "learning_rate": 0.05,
    "learning_rate_min": 0.001,
    "arch_learning_rate": 3e-3,
}


def main(arguments=None):
    parser = searches.options("robustness", __doc__, methods=METHODS, **SIZES)
    parser.add_argument("--images", required=True, help="a .npz file, or a folder of IDX files")
    parser.add_argument("--spaces", type=searches.names, default=SPACES, help="some of --space; default: s1,s2,s3,s4")
    parser.add_argument("--train_images", type=int, default=4000, help="half of them for the weights; default: 4000")
    parser.add_argument("--final_epochs", type=int, default=15, help="of the training of what is found; default: 15")
    options = parser.parse_args(arguments)
    flags = {name: getattr(options, name) for name in SIZES}
    own = {name: getattr(options, name) for name in ("images", "train_images", "final_epochs")}
    results, found = searches.Results(options.output, own | flags), {}
    flags["dataset"] = str(searches.first_images(options.images, options.train_images, options.output))
    for seed in range(1, options.seeds + 1):
        for space in options.spaces:
            for method in options.methods:

                def compute(folder, space=space, method=method, seed=seed):
                    return searched(folder, options.final_epochs, space=space, method=method, seed=seed, **flags)

                line = results.get(compute, space=space, method=method, seed=seed)
                found.setdefault((space, method), []).extend([line] if line else [])
    for (space, method), lines in found.items():
        if lines:
            print(json.dumps({"space": space, "method": method, **summary(lines)}), flush=True)


def searched(folder, final_epochs, **flags):
    """The result of a search and of the training of what it finds, a dict."""
    search, seconds = searches.search(folder, **flags)
    names = ("dataset", "image_size", "init_channels", "layers", "batch_size", "learning_rate", "seed")
    own = {name: flags[name] for name in names}
    training, final_seconds = searches.train(
        folder.with_name(f"{folder.name}-trained"),
        arch=str(search.genotype),
        epochs=final_epochs,
        recipe="small",
        **own,
    )
    return {
        "test_error": round(100 * (1 - training.results["top1"]), 2),
        "skips": [name for name, *_ in search.genotype.normal].count("skip_connect"),
        "seconds": seconds,
        "final_seconds": final_seconds,
        "genotype": str(search.genotype),
    }


def summary(lines):
    return {
        **searches.statistics_of("test_error", [line["test_error"] for line in lines], 2),
        "worst": max(line["test_error"] for line in lines),
        "skips": round(statistics.mean(line["skips"] for line in lines), 1),
        "seconds": round(statistics.mean(line["seconds"] for line in lines), 1),
        "seeds": len(lines),
    }


if __name__ == "__main__":
    sys.exit(main())
