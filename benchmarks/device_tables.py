"""Makes latency tables, as of `darts_tf.latency`, of what others have measured of whole networks on their devices.

    python -m benchmarks.device_tables --space=fbnet --latencies=fbnet-latency.npz --device=pixel3 --output=pixel3.json
    python -m benchmarks.device_tables --space=nas-bench-201 --latencies=nas-bench-201-latency.npz \\
        --architectures=nas-bench-201-cifar10.csv --device=raspi4 --output=raspi4.json

The .npz files have the milliseconds of networks for each device: of HELP (Lee et al., NeurIPS 2021; HayeonLee/HELP).
Those of FBNet are for images of 224 pixels and have `architectures` (networks, layers), numbers into `op_names`; those
of NAS-Bench-201 are for images of 32 pixels, in the order of a .csv file of architectures.

What the parts take is the non-negative least squares solution of the sums; parts that all networks have are together
in the offset. Networks that take less than a twentieth of the median compute next to nothing and are not looked at. A
tenth of the others is left out and foretold. Prints a JSON line with the median relative error and the rank correlation
there.
"""

import argparse
import collections
import csv
import json
import pathlib
import statistics
import sys

import numpy as np

from benchmarks.latency import spearman

SIZES = {"fbnet": (224, 1000, {}), "nas-bench-201": (32, 10, {"init_channels": 16, "layers": 5})}


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="device_tables", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--space", required=True, choices=list(SIZES), help="of the networks")
    parser.add_argument("--latencies", required=True, help=".npz file")
    parser.add_argument("--architectures", help=".csv file, whose first column has those of NAS-Bench-201")
    parser.add_argument("--device", required=True, help="name of an array in the file")
    parser.add_argument("--networks", type=int, default=2000, help="that are read at most; default: 2000")
    parser.add_argument("--output", required=True, type=pathlib.Path, help="the .json file to write")
    options = parser.parse_args(arguments)
    from scipy.optimize import nnls

    from darts_tf import spaces
    from darts_tf.cli import files
    from darts_tf.costs.latency import LatencyTable
    from darts_tf.data.tasks import ImageClassification

    pixels, classes, sizes = SIZES[options.space]
    space, task = spaces.of({"space": options.space}), ImageClassification((pixels, pixels, 3), classes)
    costs, (architectures, real) = space.costs(task, **sizes), networks(options, space)
    some = np.flatnonzero(real > np.median(real) / 20)
    architectures, real = [architectures[place] for place in some], real[some]
    fixed = {str(part) for part in costs.fixed}
    names = [name for name in map(str, costs.all_parts()) if name not in fixed]
    counts = [collections.Counter(map(str, costs.parts_of(one))) for one in architectures]
    sums = np.array([[one[name] for name in names] + [1.0] for one in counts])
    left = np.arange(len(real)) % 10 == 0
    found, _ = nnls(sums[~left] / real[~left, None], np.ones((~left).sum()))
    *parts, offset = found.tolist()
    device = {"processor": options.device, "source": "HELP (Lee et al., 2021)"}
    table = LatencyTable(device, dict.fromkeys(fixed, 0.0) | dict(zip(names, parts, strict=True)), fit=(1.0, offset))
    files.write(options.output, table.to_json() + "\n")
    expected = sums[left] @ found
    errors = (abs(expected - real[left]) / real[left]).tolist()
    line = {"space": options.space, "device": options.device, "parts": len(names), "networks": int(left.sum())}
    line |= {"median_error": round(statistics.median(errors), 4), "worst_error": round(max(errors), 4)}
    print(json.dumps(line | {"rank_correlation": round(spearman(expected, real[left]), 4)}))


def networks(options, space):
    """Architectures, a list, and their milliseconds, an array."""
    with np.load(options.latencies) as arrays:
        real = arrays[options.device].astype(np.float64)
        places = np.random.default_rng(0).permutation(len(real))[: options.networks]
        if "architectures" in arrays:
            index = space.choices["layers"].candidates.index
            names = [index(str(name)) for name in arrays["op_names"]]
            rows = arrays["architectures"][places]
            return [space.decode({"layers": [(r, names[c]) for r, c in enumerate(row)]}) for row in rows], real[places]
    with open(options.architectures, encoding="utf-8", newline="") as file:
        texts = [row[0] for row in csv.reader(file) if row and row[0].startswith("|")]
    return [space.from_notation(texts[place]) for place in places], real[places]


if __name__ == "__main__":
    sys.exit(main())
