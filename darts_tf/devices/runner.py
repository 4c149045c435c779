"""Times TFLite models in turns. It is a program of its own, too: all that it needs is Python, numpy and ai-edge-litert.

    python3 latency.zip > measured.json

The archive has models.json, {"threads": ..., "rounds": ..., "models": {name: file}}, and the files.
"""

import json
import os
import platform
import random
import statistics
import sys
import time
import zipfile

TURN = 0.016  # seconds of a model in each round, about
MOST_CALLS = 1000  # in a turn
WARM = 3  # calls before the first that counts


def machine():
    """What measurements depend on, a dict of texts and numbers."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            lines = dict(line.split(":", 1) for line in file if ":" in line)
        names = {key.strip(): value.strip() for key, value in lines.items()}
        name = names.get("model name") or names.get("Model") or names.get("Hardware") or name
    except OSError:
        pass
    import ai_edge_litert

    version = getattr(ai_edge_litert, "__version__", "unknown")
    return {"processor": name, "cores": os.cpu_count(), "system": platform.system(), "litert": version}


def invoker(content, threads):
    """A function without arguments that computes a TFLite model, bytes, of numbers of a normal distribution once."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=threads)
    interpreter.allocate_tensors()
    numbers = np.random.RandomState(0)
    for given in interpreter.get_input_details():
        values = numbers.standard_normal(given["shape"])
        kind = np.dtype(given["dtype"])
        values = np.clip(values * 40 + 128, 0, 127) if kind.kind in "iu" else values
        interpreter.set_tensor(given["index"], values.astype(kind))
    return interpreter.invoke


def measure(runs, rounds=10, progress=iter):
    """Median seconds of functions, which take turns, so that what else happens on the machine is the same for all.

    Args:
        runs: {name: function without arguments}.
        rounds: in each of which every function has a turn of some milliseconds, in an order that is drawn; of its calls
            the second half counts.
        progress: function of a sequence -> an iterable of the same.

    Returns:
        {name: seconds}.
    """

    def turn(run, count):
        """Seconds of each of so many calls."""
        seconds = []
        for _ in range(count):
            began = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - began)
        return seconds

    calls, taken, draw = {}, {name: [] for name in runs}, random.Random(0)
    for name, run in runs.items():
        took = turn(run, WARM + 1)[-1]
        calls[name] = min(max(2, int(TURN / max(took, 1e-9))), MOST_CALLS)
    order = list(runs)
    for _ in progress(range(rounds)):
        draw.shuffle(order)
        for name in order:
            seconds = turn(runs[name], calls[name])
            taken[name] += seconds[len(seconds) // 2 :]  # first the caches have what another one has left
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def main(path):
    """Measures what an archive has; prints JSON: {"machine": ..., "threads": ..., "seconds": {name: ...}}."""
    with zipfile.ZipFile(path) as archive:
        asked = json.loads(archive.read("models.json"))
        runs = {name: invoker(archive.read(file), asked["threads"]) for name, file in asked["models"].items()}
    rounds = asked["rounds"]

    def told(parts):
        for place, part in enumerate(parts, 1):
            yield part
            end = "" if place < len(parts) else "\n"
            print(f"\rround {place}/{len(parts)}", end=end, file=sys.stderr, flush=True)

    print(f"{len(runs)} models, {asked['threads']} threads", file=sys.stderr)
    found = {"machine": machine(), "threads": asked["threads"]}
    print(json.dumps(found | {"seconds": measure(runs, rounds, told)}))


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__)))
    except KeyboardInterrupt:
        sys.exit(130)
