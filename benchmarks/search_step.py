"""Times the search step: `python -m benchmarks.search_step [--unrolled]` prints one JSON line, see `timing`.

    python -m benchmarks.search_step --method=gdas,pc-darts,s1,p-darts

compares methods: each runs in a process of its own, after `darts`, and its line has ratios to that, too.

    python -m benchmarks.search_step --space=recurrent --batch_size=64 [--unrolled]

times the search of recurrent cells.
"""

import json
import subprocess
import sys

from absl import app, flags

from benchmarks import timing

FLAGS = flags.FLAGS
METHODS = {
    "darts": {},
    "gdas": {"relaxation": "gumbel_hard"},
    "gdas-v1": {"relaxation": "gumbel_hard_v1"},
    "pc-darts": {"partial_channels": 4, "edge_normalization": True},
    "s1": {"candidates": 2},
    "p-darts": {"candidates": 3},
    "darts-minus": {"auxiliary_skip": True},
    "skip-dropout": {"skip_dropout": True},
}
flags.DEFINE_list(
    "method",
    ["darts"],
    f"Which of {', '.join(METHODS)}: s1 has 2 of 8 candidates on each edge, p-darts 3. Of several, also the ratios.",
)
flags.register_validator(
    "method", lambda value: value and set(value) <= set(METHODS), f"Expected some of {', '.join(METHODS)}."
)
flags.DEFINE_boolean("unrolled", False, "Second order.")
flags.DEFINE_enum("difference", "central", ["central", "forward"], "Of the second order, see darts_tf.search.")
flags.DEFINE_boolean("recompute", False, "Compute cells again in the backward pass.")
flags.DEFINE_enum("space", "darts", ["darts", "recurrent"], "What is searched.")
flags.DEFINE_integer("units", 300, "Of the recurrent network.", lower_bound=1)
flags.DEFINE_integer("vocabulary", 10_000, "Tokens that the recurrent network knows.", lower_bound=3)
flags.DEFINE_integer("bptt", 35, "Tokens in each row of a batch of the recurrent network.", lower_bound=2)
flags.DEFINE_integer("init_channels", 16, "Channels of the first cell.", lower_bound=1)
flags.DEFINE_integer("layers", 8, "Cells.", lower_bound=3)
flags.DEFINE_integer("batch_size", 16, "Images in each of the two batches.", lower_bound=1)
flags.DEFINE_integer("image_size", 32, "Height and width of the images.", lower_bound=8)
flags.DEFINE_enum("precision", "float32", ["float32", "bfloat16", "float16"], "What images are computed in.")
flags.DEFINE_boolean("jit_compile", False, "Compile the step with XLA.")
flags.DEFINE_boolean("deterministic", False, "Of GPUs: the same bits each time.")
flags.DEFINE_integer("steps", 10, "Timed steps.", lower_bound=1)


def main(_):
    from darts_tf.devices import runtime

    if len(FLAGS.method) > 1:
        return compare()
    how = {"precision": FLAGS.precision, "deterministic": FLAGS.deterministic, "tf32": not FLAGS.unrolled}
    runtime.configure(within=FLAGS.space == "recurrent", **how)
    start = timing.peak_memory_mb()
    measured = timing.time_steps(make(), batch(FLAGS.batch_size), FLAGS.steps, settings())
    print(json.dumps({**measured, "memory_mb": measured["peak_memory_mb"] - start}))


def compare():
    """Prints a line for each method, with ratios to the first, darts.

    `memory_mb` is the peak above that of TensorFlow before anything is made, `image_memory_mb` that above the same step
    on one image of 8x8: what depends on the images, not on how large the graph is.
    """
    first = None
    for method in ("darts", *(name for name in FLAGS.method if name != "darts")):
        line = measure(method)
        smallest = measure(method, "--batch_size=1", "--image_size=8", "--steps=1")
        line["image_memory_mb"] = line["peak_memory_mb"] - smallest["peak_memory_mb"]
        first = first or line
        ratios = {f"{name}_ratio": round(line[name] / first[name], 3) for name in COMPARED}
        print(json.dumps({**line, **ratios}), flush=True)


COMPARED = (
    "step_seconds",
    "step_cpu_seconds",
    "memory_mb",
    "image_memory_mb",
    "first_step_seconds",
    "first_step_cpu_seconds",
)


def measure(method, *more):
    """What a process prints for one method, with these flags and more."""
    others = [argument for argument in sys.argv[1:] if not argument.lstrip("-").startswith("method=")]
    command = [sys.executable, "-m", "benchmarks.search_step", *others, *more, f"--method={method}"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def settings():
    own = ("units", "vocabulary", "bptt") if FLAGS.space == "recurrent" else ("init_channels", "layers", "image_size")
    how = ("space", "unrolled", "difference", "recompute", "precision", "jit_compile", "deterministic")
    names = (*how, *own, "batch_size", "steps")
    return {"method": FLAGS.method[0], **{name: FLAGS[name].value for name in names}}


def make():
    """The search of the flags, compiled."""
    import keras

    from darts_tf import DARTS, SearchNetwork
    from darts_tf.methods.optimizers import SGD, Adam

    if FLAGS.space == "recurrent":
        return make_recurrent()
    options = dict(METHODS[FLAGS.method[0]])
    if "candidates" in options:
        options["candidates"] = some_candidates(options["candidates"])
    network = SearchNetwork(FLAGS.init_channels, FLAGS.layers, recompute=FLAGS.recompute, **options)
    search = DARTS(network, unrolled=FLAGS.unrolled, difference=FLAGS.difference)
    search.compile(
        optimizer=SGD(global_clipnorm=5.0, loss_scale=FLAGS.precision == "float16"),
        arch_optimizer=Adam(),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=FLAGS.jit_compile,
    )
    return search


def make_recurrent():
    """The search of recurrent cells, with the optimizers and the dropout of the paper."""
    from darts_tf import DARTS
    from darts_tf.data.tasks import LanguageModel
    from darts_tf.methods.optimizers import SGD, Adam
    from darts_tf.spaces import RecurrentSpace

    task = LanguageModel((None,), FLAGS.vocabulary)
    network = RecurrentSpace().supernet(task, units=FLAGS.units, batch_size=FLAGS.batch_size)
    search = DARTS(network, unrolled=FLAGS.unrolled, virtual_clipnorm=0.25)
    search.compile(
        optimizer=SGD(20.0, momentum=0.0, l2=5e-7, global_clipnorm=0.25),
        arch_optimizer=Adam(3e-3, beta_1=0.9),
        loss=task.loss(),
        jit_compile=FLAGS.jit_compile,
    )
    return search


def some_candidates(number):
    """So many candidates on each edge, each candidate on as many edges, {table: bool array (rows, candidates)}."""
    import numpy as np

    from darts_tf.spaces.cells.space import CellSpace

    masks = {}
    for name, table in CellSpace().choices.items():
        places = np.arange(len(table.rows) * number).reshape(-1, number) % len(table.candidates)
        masks[name] = np.zeros((len(table.rows), len(table.candidates)), bool)
        np.put_along_axis(masks[name], places, True, axis=1)
    return masks


def batch(images):
    """A pair of batches of noise."""
    import tensorflow as tf

    if FLAGS.space == "recurrent":
        size = {"seed": [0, 0], "maxval": FLAGS.vocabulary, "dtype": tf.int32}
        tokens = tf.random.stateless_uniform([images, FLAGS.bptt + 1], **size)
        part = {"tokens": tokens[:, :-1], "begins": tf.zeros([images], tf.bool)}, tokens[:, 1:]
        return part, part
    x = tf.random.stateless_normal([images, FLAGS.image_size, FLAGS.image_size, 3], seed=[0, 0])
    y = tf.random.stateless_uniform([images], seed=[0, 1], maxval=10, dtype=tf.int32)
    return (x, y), (x, y)


if __name__ == "__main__":
    app.run(main)
