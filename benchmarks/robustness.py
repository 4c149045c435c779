"""Searches the spaces S1 to S4, in which plain DARTS fails, by plain and by guarded methods, and trains what they find.

    python -m benchmarks.robustness --images=cifar10.npz
    python -m benchmarks.robustness --images=/usr/share/datasets/fashion-mnist --output=runs/robustness-fashion

The images are a .npz file as --dataset takes it, or the IDX files of Debian's package dataset-fashion-mnist.

A method has the parts of its paper, by `--method`; all have the same sizes, batch size and learning rates. Searches see
few images for many epochs, since that is where plain DARTS fails: the weights fit their half of the images, and alpha
gets what the other half makes of that. Networks have five cells, the second and the fourth of which are reduction
cells. What a search finds is trained for --final_epochs on --train_images, in the same way for all methods, and
measured on the test images.

Prints a JSON line for each search: the test error of the network, in percent, how many of the 16 edges of both cells
are skip connections or noise, and the seconds of the epochs of the search. Then a line for each space and method, with
the mean and standard deviation of its seeds.

What has a result in --output is not computed again; a search or training that was interrupted goes on.
"""

import json
import statistics
import sys

from benchmarks import searches

SPACES = ["s1", "s2", "s3", "s4"]
METHODS = ["darts", "r-darts", "sdarts-rs"]
SIZES = {
    "epochs": 40,
    "image_size": 8,
    "init_channels": 8,
    "layers": 5,
    "batch_size": 16,
    "learning_rate": 0.05,
    "learning_rate_min": 0.001,
    "arch_learning_rate": 0.02,
}


def main(arguments=None):
    parser = searches.options("robustness", __doc__, methods=METHODS, **SIZES)
    parser.add_argument("--images", required=True, help="a .npz file, or a folder of IDX files")
    parser.add_argument("--spaces", type=searches.names, default=SPACES, help="some of --space; default: s1,s2,s3,s4")
    parser.add_argument("--search_images", type=int, default=1000, help="half of them for alpha; default: 1000")
    parser.add_argument("--train_images", type=int, default=5000, help="of that training; default: 5000")
    parser.add_argument("--final_batch_size", type=int, default=64, help="of that training; default: 64")
    parser.add_argument("--final_epochs", type=int, default=15, help="of the training of what is found; default: 15")
    options = parser.parse_args(arguments)
    flags = {name: getattr(options, name) for name in SIZES}
    own = {
        name: getattr(options, name)
        for name in ("images", "search_images", "train_images", "final_epochs", "final_batch_size")
    }
    results, found = searches.Results(options.output, own | flags), {}
    few, more = (
        str(searches.first_images(options.images, count, options.output / f"{count}.npz"))
        for count in (options.search_images, options.train_images)
    )
    for seed in range(1, options.seeds + 1):
        for space in options.spaces:
            for method in options.methods:

                def compute(folder, space=space, method=method, seed=seed):
                    final = {"dataset": more, "epochs": options.final_epochs, "batch_size": options.final_batch_size}
                    return searched(folder, final, dataset=few, space=space, method=method, seed=seed, **flags)

                line = results.get(compute, space=space, method=method, seed=seed)
                found.setdefault((space, method), []).extend([line] if line else [])
    for (space, method), lines in found.items():
        if lines:
            print(json.dumps({"space": space, "method": method, **summary(lines)}), flush=True)


def searched(folder, final, **flags):
    """The result of a search and of the training of what it finds, a dict; `final` are flags of the latter."""
    search, seconds = searches.search(folder, **flags)
    own = {name: flags[name] for name in ("image_size", "init_channels", "layers", "learning_rate", "seed")}
    place = folder.with_name(f"{folder.name}-trained")
    training, final_seconds = searches.train(place, arch=str(search.genotype), recipe="small", **own, **final)
    names = [name for name, *_ in (*search.genotype.normal, *search.genotype.reduce)]
    return {
        "test_error": round(100 * (1 - training.results["top1"]), 2),
        "skips": names.count("skip_connect"),
        "noise": names.count("noise"),
        "seconds": seconds,
        "final_seconds": final_seconds,
        "genotype": str(search.genotype),
    }


def summary(lines):
    return {
        **searches.statistics_of("test_error", [line["test_error"] for line in lines], 2),
        "worst": max(line["test_error"] for line in lines),
        **{name: round(statistics.mean(line[name] for line in lines), 1) for name in ("skips", "noise")},
        "seconds": round(statistics.mean(line["seconds"] for line in lines), 1),
        "seeds": len(lines),
    }


if __name__ == "__main__":
    sys.exit(main())
