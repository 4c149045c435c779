"""What the recipes of trainings are worth: the same network, images and epochs.

    python -m benchmarks.recipes --images=cifar10-12k.npz --arch=DARTS_V2 --recipes=small,modern --seeds=3

A recipe may have flags of `darts_tf.train` behind it, which count in place of its own: small+ema=0.998+nesterov.

Prints a JSON line for each training, with the accuracy on the test images in percent and seconds, then one for each
recipe with the mean and the standard deviation over the seeds, and how much better it is than the first of them.

What has a result in --output is not computed again; a training that was interrupted goes on.
"""

import json
import statistics
import sys

from benchmarks import searches


def main(arguments=None):
    parser = searches.options("recipes", __doc__, epochs=40)
    usual = "small,modern"
    parser.add_argument("--recipes", type=searches.names, default=usual, help=f"what to compare; default: {usual}")
    parser.add_argument("--images", required=True, help="a .npz file, as --dataset takes it")
    parser.add_argument("--arch", default="DARTS_V2", help="as of darts_tf.train; default: DARTS_V2")
    parser.add_argument("--flags", type=flags_of, default={}, help="of all trainings: layers=5+init_channels=16")
    options = parser.parse_args(arguments)
    same = {"dataset": options.images, "arch": options.arch, "epochs": options.epochs, **options.flags}
    results, found = searches.Results(options.output, same), {}
    for seed in range(1, options.seeds + 1):
        for recipe in options.recipes:

            def compute(folder, recipe=recipe, seed=seed):
                name, _, more = recipe.partition("+")
                training, seconds = searches.train(folder, **same | {"recipe": name, "seed": seed} | flags_of(more))
                accuracy = round(100 * training.results["top1"], 2)
                return {"accuracy": accuracy, "seconds": seconds, "parameters": training.results["parameters"]}

            line = results.get(compute, recipe=recipe, seed=seed)
            if line:
                found.setdefault(recipe, []).append(line)
    first = None
    for recipe, lines in found.items():
        values = [line["accuracy"] for line in lines]
        first = statistics.mean(values) if first is None else first
        summary = searches.statistics_of("accuracy", values, 2)
        gain = round(statistics.mean(values) - first, 2)
        print(json.dumps({"recipe": recipe, **summary, "gain": gain, "seeds": len(lines)}), flush=True)


def flags_of(text):
    """{flag: value} of "ema=0.998+nesterov"."""
    from darts_tf.cli import configuration
    from darts_tf.runs.configurations import TrainConfig

    config = configuration.parse(TrainConfig, [f"--{flag}" for flag in text.split("+") if flag])
    return {name: getattr(config, name) for name in sorted(config.given)}


if __name__ == "__main__":
    sys.exit(main())
