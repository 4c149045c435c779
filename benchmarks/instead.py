"""What is gained over ready-made small networks, which one would take instead, at the same latency.

    python -m benchmarks.instead --images=cifar10.npz,/usr/share/datasets/fashion-mnist

The images are .npz files as --dataset takes them, or folders of IDX files, such as Debian's dataset-fashion-mnist; the
first --train_images are trained on, 32x32. What one would take are the networks of `keras.applications` in BASELINES,
without the weights of ImageNet. Their latencies are measured: of their TFLite files, in float32, with --threads. Then a
supernet of the chain below is trained, evolution looks for a front of accuracy and latency in it, and for each of those
latencies the best network within it is taken. All are trained by `darts_tf.train` with the same recipe from random
weights, and measured on the test images; then their files are, in float32 and int8. Where latencies are measured all
files take turns.

Prints a JSON line for each of these, then one for each network of BASELINES with the mean and standard deviation of
its test accuracy in percent over the seeds, and that of ours. Writes a picture of them, OUTPUT/IMAGES.svg. Run it where
nothing else runs.

What has a result in --output is not computed again; a search or training that was interrupted goes on.
"""

import json
import math
import pathlib
import sys

import numpy as np

from benchmarks import searches

PIXELS = 32
BASELINES = {
    "MobileNetV2 0.35": ("MobileNetV2", {"alpha": 0.35}),
    "MobileNetV3Small": ("MobileNetV3Small", {"include_preprocessing": False}),
    "MobileNetV2": ("MobileNetV2", {}),
    "EfficientNetB0": ("EfficientNetB0", {}),
}
BLOCKS = ["mb3_k3", "mb6_k3", "mb3_k5", "mb6_k5"]
# As `--space=chain` is for images of 32 pixels, but that the stem has a stride, as those of the others have.
CHAIN = {
    "stem": {"channels": 16, "stride": 2},
    "stages": [
        {"channels": channels, "layers": 3, "stride": stride, "candidates": [*BLOCKS, "identity"], "first": BLOCKS}
        for channels, stride in ((16, 1), (24, 2), (40, 2), (80, 2))
    ],
    "head": {"channels": 640},
}
SIZES = {"epochs": 40, "batch_size": 64, "learning_rate": 0.05, "weight_decay": 1e-4}
ROUNDS = 100  # of measuring latencies
FILES = {"float32": "none", "int8": "int8"}  # {kind: --quantize of the export}
TRAINING = {"recipe": "small", "learning_rate": 0.05, "batch_size": 64}


def main(arguments=None):
    parser = searches.options("instead", __doc__, methods=["spos"], **SIZES)
    parser.add_argument("--images", required=True, type=searches.names, help=".npz files, or folders of IDX files")
    parser.add_argument("--baselines", type=searches.names, default=list(BASELINES), help="some of them; default: all")
    parser.add_argument("--train_images", type=int, default=10_000, help="at most; default: 10000")
    parser.add_argument("--final_epochs", type=int, default=12, help="of all trainings; default: 12")
    parser.add_argument("--population", type=int, default=40, help="networks of a generation; default: 40")
    parser.add_argument("--generations", type=int, default=8, help="of the evolution; default: 8")
    parser.add_argument("--threads", type=int, default=2, help="of TFLite; default: 2")
    options = parser.parse_args(arguments)
    flags = {name: getattr(options, name) for name in SIZES}
    flags |= {name: getattr(options, name) for name in ("population", "generations")}
    own = {name: getattr(options, name) for name in ("train_images", "final_epochs", "threads")}
    results = searches.Results(options.output, own | flags)
    for path in options.images:
        name = pathlib.Path(path).name.removesuffix(".npz")
        images = searches.first_images(path, options.train_images, options.output / f"{name}.npz")
        lines = compared(results, name, str(images), options, flags)
        for line in lines:
            print(json.dumps({"images": name, **line}), flush=True)
        (options.output / f"{name}.svg").write_text(picture(name, lines))


def compared(results, name, images, options, flags):
    """A dict for each baseline, see `main`; `name` is that of the images, `images` their file."""
    networks = {
        baseline: {"init_from": str(options.output / f"{name}-{baseline}.keras")} for baseline in options.baselines
    }

    def result(compute, **key):
        found = results.get(compute, images=name, **key)
        if found is None:
            raise SystemExit(1)  # it has been said why
        return found

    def to_beat(_):
        models = {baseline: untrained(baseline, images, of["init_from"]) for baseline, of in networks.items()}
        return {"milliseconds": milliseconds_of_others(models, options.threads)}

    limits = result(to_beat, network="others", what="latencies")["milliseconds"]
    searched = result(
        lambda folder: search(folder, images, max(2, len(limits)), options, flags), network="chain", what="search"
    )
    found = best_within(options.output / f"{name}-chain-search", limits)
    ours = {}  # {architecture: its name}; of several latencies the best may be the same
    for baseline, architecture in found.items():
        name_of = ours.setdefault(architecture, f"chain for {baseline}")
        networks[name_of] = {"arch": architecture}
    accuracies, files = {}, {}
    for seed in range(1, options.seeds + 1):
        for network, of in networks.items():

            def accuracy(folder, of=of, seed=seed):
                training, seconds = searches.train(
                    *(folder,),
                    **of,
                    **TRAINING,
                    dataset=images,
                    image_size=PIXELS,
                    epochs=options.final_epochs,
                    seed=seed,
                )
                return {"accuracy": round(100 * training.results["top1"], 2), "seconds": seconds}

            line = result(accuracy, network=network, seed=seed)
            accuracies.setdefault(network, []).append(line["accuracy"])
    for network in networks:

        def exported(_, network=network):
            return accuracies_of_files(options.output / "-".join((name, network, "1")), images)

        files[network] = result(exported, network=network, what="files")

    def taken(_):
        folders = {network: options.output / "-".join((name, network, "1")) for network in networks}
        return {"milliseconds": milliseconds_of_files(folders, options.threads)}

    latencies = result(taken, network="all", what="latencies")["milliseconds"]
    rows = []
    for baseline in options.baselines:
        chain = ours[found[baseline]]
        row = {"network": baseline, "seconds_of_search": searched["seconds"]}
        for prefix, network in (("", baseline), ("our_", chain)):
            row |= searches.statistics_of(f"{prefix}accuracy", accuracies[network], 2)
            for kind in FILES:
                row[f"{prefix}{kind}_accuracy"] = files[network][f"{kind}_accuracy"]
                row[f"{prefix}{kind}_milliseconds"] = latencies[network][kind]
        rows.append(row | {"gain": round(row["our_accuracy"] - row["accuracy"], 2), "seeds": options.seeds})
    return rows


def untrained(baseline, images, file):
    """A network of `keras.applications` with random weights, which it writes to a file.

    Its batch norms follow the batches as fast as ours do, since trainings are shorter than those of ImageNet.
    """
    import keras

    from darts_tf.data import datasets

    data = datasets.load(images, PIXELS)
    keras.utils.set_random_seed(0)
    kind, arguments = BASELINES[baseline]
    x = inputs = keras.Input(data.image_shape)
    if kind != "EfficientNetB0":  # which takes pixels as they are
        mean, std = data.statistics()
        x = keras.layers.Normalization(mean=mean, variance=std**2)(x)
    model = getattr(keras.applications, kind)(
        input_tensor=x, weights=None, classes=len(data.class_names), classifier_activation=None, **arguments
    )
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9
    model = keras.Model(inputs, ending_in_dense(model))
    pathlib.Path(file).parent.mkdir(parents=True, exist_ok=True)
    model.save(file)
    return model


def ending_in_dense(model):
    """The output of a model; of MobileNetV3, whose last layer is a 1x1 convolution, that of a Dense layer instead."""
    import keras

    last = next(layer for layer in reversed(model.layers) if layer.weights)
    if isinstance(last, keras.layers.Dense):
        return model.output
    return keras.layers.Dense(last.filters)(keras.layers.Flatten()(last.input))


def search(folder, images, front, options, flags):
    """Seconds of a search with evolution for a front of so many networks, a dict."""
    import time

    from darts_tf import latency

    space, table = options.output / "chain.json", folder.with_suffix(".latency.json")
    space.write_text(json.dumps(CHAIN))
    same = {"dataset": images, "image_size": PIXELS, "space": str(space)}
    began = time.time()
    latency.main(latency.LatencyConfig(**same, threads=options.threads, output=str(table)))
    cost = {"cost": "latency_ms", "latency_table": str(table), "front": front}
    searches.search(folder, **same, method="spos", **cost, **flags)
    return {"seconds": round(time.time() - began, 1)}


def best_within(folder, limits):
    """The best network that the evolution of a search saw within each of some latencies, {name: its text}."""
    from darts_tf.runs import rundirectory

    known, found = rundirectory.evolution(folder)["networks"], {}
    for name, limit in limits.items():
        within = [one for one in known if one["latency_ms"] <= limit]
        within = within or [min(known, key=lambda one: one["latency_ms"])]
        found[name] = max(within, key=lambda one: (one["result"], -one["loss"]))["architecture"]
    return found


def milliseconds_of_others(models, threads):
    """What the float32 files of some Keras models take for one image, {name: milliseconds}; they take turns."""
    from darts_tf.devices import runner, tflite

    runs = {name: runner.invoker(tflite.of_model(model), threads) for name, model in models.items()}
    return {name: round(1e3 * seconds, 4) for name, seconds in runner.measure(runs, ROUNDS).items()}


def accuracies_of_files(folder, images):
    """Accuracies in percent of the files of the trained model in a folder, a dict; they are written to its serving/."""
    import export
    from darts_tf.data import datasets
    from export import comparison

    written = export.run_export(
        export.ExportConfig(
            model=str(folder / "model.keras"),
            output=str(folder / "serving"),
            dataset=images,
            image_size=PIXELS,
            saved_model=False,
            quantize=list(FILES.values()),
            samples=500,
        )
    )
    x, y = zip(*datasets.load(images, PIXELS).test_batches().as_numpy_iterator(), strict=True)
    accuracies = {}
    for kind, quantization in FILES.items():
        run = comparison.TFLite(pathlib.Path(written.tflite[quantization]).read_bytes())
        right = np.concatenate([run(images).argmax(1) == labels for images, labels in zip(x, y, strict=True)])
        accuracies[f"{kind}_accuracy"] = round(100 * float(right.mean()), 2)
    return accuracies


def milliseconds_of_files(folders, threads):
    """What the files take that `accuracies_of_files` wrote, for one image, {name: {kind: milliseconds}}."""
    from darts_tf.devices import runner

    runs = {
        (name, kind): runner.invoker((folder / "serving/tflite" / f"model-{kind}.tflite").read_bytes(), threads)
        for name, folder in folders.items()
        for kind in FILES
    }
    seconds = runner.measure(runs, ROUNDS)
    return {name: {kind: round(1e3 * seconds[name, kind], 4) for kind in FILES} for name in folders}


def picture(name, lines):
    """Accuracy against latency on the images of a name, an SVG: the networks of others, and ours."""
    width, height, left, bottom = 640, 400, 60, 50
    others = [(line["float32_milliseconds"], line["accuracy"], line["network"]) for line in lines]
    ours = sorted({(line["our_float32_milliseconds"], line["our_accuracy"], "") for line in lines})
    times, values = zip(*((time, value) for time, value, _ in (*others, *ours)), strict=True)
    first, last = math.log(min(times) / 1.2), math.log(max(times) * 1.6)
    least, most = 5 * math.floor(min(values) / 5), 5 * math.ceil(max(values) / 5 + 0.2)

    def place(time, value):
        x = left + (width - left - 20) * (math.log(time) - first) / (last - first)
        return round(x, 1), round(height - bottom - (height - bottom - 20) * (value - least) / (most - least), 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        "<style>text{font:13px system-ui,sans-serif;fill:#1f2328}.axis{stroke:#d0d7de}.ours{stroke:#1a7f37;fill:none;"
        "stroke-width:2}circle{fill:#b35900}.our{fill:#1a7f37}</style>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for value in range(least, most + 1, 5):
        _, y = place(times[0], value)
        parts.append(f'<path class="axis" d="M{left} {y}H{width - 20}"/><text x="12" y="{y + 4}">{value} %</text>')
    for time in (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5):
        if first <= math.log(time) <= last:
            x, _ = place(time, least)
            parts.append(f'<text x="{x}" y="{height - bottom + 20}" text-anchor="middle">{time:g} ms</text>')
    parts.append(f'<text x="{left}" y="{height - 8}">accuracy on {name} by latency of one image, TFLite float32</text>')
    line = " ".join("{},{}".format(*place(time, value)) for time, value, _ in ours)
    parts.append(f'<polyline class="ours" points="{line}"/>')
    for kind, points in (("", others), ("our", ours)):
        for time, value, text in points:
            x, y = place(time, value)
            parts.append(f'<circle class="{kind}" cx="{x}" cy="{y}" r="5"/><text x="{x + 9}" y="{y + 5}">{text}</text>')
    x, y = place(*ours[-1][:2])
    parts.append(f'<text x="{x + 9}" y="{y + 5}">searched chains</text></svg>')
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(main())
