"""How well sums of parts foretell what whole networks take, see `darts_tf.latency`.

    python -m benchmarks.latency --output=runs/latency

For each space a table is measured as by `python -m darts_tf.latency`, with the networks that fit its two numbers, and
in the same rounds --networks other ones, as a whole, which have no part in it. Prints a JSON line for each space: how
many parts there are, the median and the largest relative error of what is expected of those networks, and Spearman's
rank correlation of it with what they take. Run it where nothing else runs.
"""

import argparse
import json
import pathlib
import statistics
import sys
import time

import numpy as np

# Images of so many pixels; spaces for large images have smaller ones here.
SPACES = {
    **dict.fromkeys(("chain", "nas-bench-macro", "darts", "s1", "s2", "s3", "s4", "nas-bench-201"), 32),
    **dict.fromkeys(("spos", "fbnet", "proxyless", "densenas"), 64),
}


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="latency", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", required=True, type=pathlib.Path, help="a folder for the tables")
    parser.add_argument("--spaces", default=",".join(SPACES), help=f"some of {','.join(SPACES)}; default: all")
    parser.add_argument("--networks", type=int, default=50, help="that are foretold; default: 50")
    parser.add_argument("--runtime", default="tflite", choices=("tflite", "saved_model"), help="default: tflite")
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    parser.add_argument("--rounds", type=int, default=15, help="default: 15")
    options = parser.parse_args(arguments)
    from darts_tf import latency
    from darts_tf.costs import latency as tables

    for space in options.spaces.split(","):
        began, path = time.time(), options.output / f"{space}-{options.runtime}-{options.threads}.json"
        path.unlink(missing_ok=True)
        same = {"runtime": options.runtime, "threads": options.threads, "rounds": options.rounds}
        same |= {"space": space, "image_size": SPACES.get(space, 32), "output": str(path)}
        fits = latency.LatencyConfig.networks
        latency.main(latency.LatencyConfig(**same, networks=fits + options.networks))
        table = tables.read(path)
        factor, offset = tables.fitted(table.networks[:fits])
        sums, real = np.array(table.networks[fits:]).T
        expected = factor * sums + offset
        errors = (abs(expected - real) / real).tolist()
        line = {"space": space, "parts": len(table.milliseconds), "networks": len(errors), **same}
        line |= {"median_error": round(statistics.median(errors), 4), "worst_error": round(max(errors), 4)}
        line |= {"rank_correlation": round(spearman(expected, real), 4)}
        line |= {"milliseconds": [round(value, 4) for value in (real.min(), np.median(real), real.max())]}
        print(json.dumps(line | {"seconds": round(time.time() - began, 1)}), flush=True)


def spearman(first, second):
    """Spearman's rank correlation of two lists of different numbers."""
    return float(np.corrcoef(*(np.argsort(np.argsort(values)) for values in (first, second)))[0, 1])


if __name__ == "__main__":
    sys.exit(main())
