"""What each exported form of a model is worth: size, agreement with Keras, latency."""

import statistics
import time

import numpy as np
import tensorflow as tf

BATCHES = (1, 32)


def saved_model(path):
    """A SavedModel as a function from images to probabilities, both numpy."""
    loaded = tf.saved_model.load(str(path))
    signature = loaded.signatures["serving_default"]

    def run(images, loaded=loaded):  # the signature does not keep the model alive
        return signature(images=tf.constant(images, tf.float32))["probabilities"].numpy()

    return run


def tflite(content, threads=1):
    """A TFLite model, as bytes, as a function from images to probabilities, both numpy."""
    from ai_edge_litert.interpreter import Interpreter

    from darts_tf.devices import runtime

    with runtime.quiet():
        interpreter = Interpreter(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()
    given, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def run(images):
        if interpreter.get_input_details()[0]["shape"][0] != len(images):
            with runtime.quiet():
                interpreter.resize_tensor_input(given["index"], images.shape)
                interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], quantized(images, given))
        interpreter.invoke()
        y = interpreter.get_tensor(result["index"])
        scale, zero = result["quantization"]
        return (y.astype(np.float32) - zero) * scale if scale else y

    return run


def quantized(images, details):
    """Images in the type of a TFLite input."""
    scale, zero = details["quantization"]
    if not scale:
        return images.astype(np.float32)
    limits = np.iinfo(details["dtype"])
    return np.clip(np.rint(images / scale + zero), limits.min, limits.max).astype(details["dtype"])


def agreement(run, images, expected):
    """The largest difference from expected probabilities, and the part of the images with the same first class."""
    found = np.concatenate([run(images[i : i + BATCHES[-1]]) for i in range(0, len(images), BATCHES[-1])])
    return float(np.abs(found - expected).max()), float((found.argmax(1) == expected.argmax(1)).mean())


def latency(run, images, batch, seconds=1.0):
    """Median seconds of a call with `batch` images, of calls during about `seconds`."""
    images = np.resize(images, (batch, *images.shape[1:]))
    run(images)
    run(images)  # the first calls compile, allocate and optimise
    taken = []
    while len(taken) < 3 or (sum(taken) < seconds and len(taken) < 200):
        start = time.perf_counter()
        run(images)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def row(name, size, run, images, expected):
    """One line of the table, as a dict."""
    difference, same = agreement(run, images, expected)
    seconds = {f"latency_{batch}": latency(run, images, batch) for batch in BATCHES}
    return {"format": name, "bytes": size, "max_difference": difference, "agreement": same, **seconds}


def table(rows):
    """The lines as text."""
    titles = ["format", "size", "max. difference", "same class", *(f"ms, batch {batch}" for batch in BATCHES)]
    cells = [titles]
    for entry in rows:
        size = f"{entry['bytes'] / 1e6:.2f} MB"
        latencies = [f"{1e3 * entry[f'latency_{batch}']:.2f}" for batch in BATCHES]
        cells.append([entry["format"], size, f"{entry['max_difference']:.1e}", f"{entry['agreement']:.1%}", *latencies])
    widths = [max(len(line[column]) for line in cells) for column in range(len(titles))]
    lines = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in cells]
    return "\n".join("  ".join(line) for line in lines)
