"""Times a step of a supernet of chains that computes one path, beside the network of that path trained alone.

    python -m benchmarks.chain_step
    python -m benchmarks.chain_step --space=fbnet --image_size=64

Prints a JSON line with the means over the same random paths: `supernet`, where all candidates are there and one of each
layer is computed; `alone`, each path as a supernet that has nothing else; `keras`, each path as `darts_tf.train` trains
it. Each of the three runs in a process of its own. See `benchmarks.timing` for what is measured; `ratio` is the step of
the supernet to that of `alone`, `ratio_keras` to that of `keras`. `memory_bound_mb` is to compare its memory with: the
weights and the optimizer's of the supernet, and 1.3 times what the largest path alone takes beyond its own.
"""

import json
import statistics
import subprocess
import sys

from absl import app, flags

from benchmarks import timing

FLAGS = flags.FLAGS
flags.DEFINE_string("space", "nas-bench-macro", "A space of chains.")
flags.DEFINE_integer("init_channels", None, "Channels of the stem. Default: a quarter of the space's.", lower_bound=2)
flags.DEFINE_integer("batch_size", 64, "Images of a step.", lower_bound=1)
flags.DEFINE_integer("image_size", 32, "Height and width of the images.", lower_bound=8)
flags.DEFINE_integer("paths", 8, "Random paths.", lower_bound=1)
flags.DEFINE_integer("steps", 10, "Timed steps of each path.", lower_bound=1)
flags.DEFINE_enum("part", None, ["supernet", "alone", "keras"], "One of the three, in this process.")


def main(_):
    if FLAGS.part:
        from darts_tf.devices import runtime

        runtime.configure()
        print(json.dumps(measure(FLAGS.part)))
        return
    found = {}
    for part in ("supernet", "alone", "keras"):
        command = [sys.executable, "-m", "benchmarks.chain_step", *sys.argv[1:], f"--part={part}"]
        found[part] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    supernet, alone, keras = (found[part] for part in ("supernet", "alone", "keras"))
    ratios = {
        "ratio": supernet["step_seconds"] / alone["step_seconds"],
        "cpu_ratio": supernet["step_cpu_seconds"] / alone["step_cpu_seconds"],
        "ratio_keras": supernet["step_seconds"] / keras["step_seconds"],
        "cpu_ratio_keras": supernet["step_cpu_seconds"] / keras["step_cpu_seconds"],
    }
    activations = alone["memory_mb"] - alone["variables_mb"]
    line = {
        "space": FLAGS.space,
        "init_channels": channels(),
        "batch_size": FLAGS.batch_size,
        "image_size": FLAGS.image_size,
        **found,
        **{name: round(value, 3) for name, value in ratios.items()},
        "memory_bound_mb": round(supernet["variables_mb"] + 1.3 * activations, 1),
    }
    print(json.dumps(line))


def channels():
    from darts_tf import spaces

    return FLAGS.init_channels or max(spaces.of({"space": FLAGS.space}).description.stem // 4, 2)


def measure(part):
    """The means over the paths, a dict; the peak of memory is after the first path, which is the largest network."""
    import keras
    import numpy as np
    import tensorflow as tf

    from darts_tf import spaces
    from darts_tf.data.tasks import ImageClassification
    from darts_tf.methods.one_shot import one_hot

    task = ImageClassification((FLAGS.image_size, FLAGS.image_size, 3), 10, ((0.5,) * 3, (0.25,) * 3))
    space = spaces.of({"space": FLAGS.space}).fitted(task)
    random, choices = np.random.default_rng(0), space.choices
    paths = [largest(space, task)] + [
        space.picks(space.decide({name: random.random(table.mask.shape) for name, table in choices.items()}))
        for _ in range(FLAGS.paths)
    ]
    x = tf.random.stateless_normal([FLAGS.batch_size, *task.input_shape], [0, 0])
    y = tf.random.stateless_uniform([FLAGS.batch_size], [0, 1], maxval=10, dtype=tf.int32)
    settings, before, lines = {"batch_size": FLAGS.batch_size}, timing.peak_memory_mb(), []
    search = supernet(space, task, choices) if part == "supernet" else None
    for place, picks in enumerate(paths):
        mixture = one_hot(choices, picks)
        if part == "keras":
            keras.utils.clear_session()
            made = derived(space.decode(picks), task)
            line = timing.time_steps(made, (x, y), FLAGS.steps, settings)
        else:
            if part == "alone":
                keras.utils.clear_session()
                search = supernet(space, task, choices, {name: rows > 0 for name, rows in mixture.items()})
            for name, rows in mixture.items():
                search.paths[name].assign(rows)
            made = search.network
            line = timing.time_steps(search, ((x, y), (x, y)), FLAGS.steps, settings)
        lines.append(line)
        if place == 0:
            weights = sum(variable.value.shape.num_elements() for variable in made.trainable_variables)
            memory = {"memory_mb": line["peak_memory_mb"] - before, "variables_mb": round(8e-6 * weights, 1)}
            memory["first_step_seconds"] = line["first_step_seconds"]
    names = ("step_seconds", "step_cpu_seconds")
    return {name: round(statistics.mean(line[name] for line in lines[1:]), 4) for name in names} | memory


def largest(space, task):
    """The picks of the network of the most multiply-adds."""
    rows = next(iter(space.costs(task).table("multiply_adds").rows.values()))
    costs = rows.reshape(*rows.shape[:2], -1).max(-1)
    picks = {"layers": [(row, int(own.argmax())) for row, own in enumerate(costs)]}
    return picks | {
        name: [(row, len(table.candidates) - 1) for row in range(len(table.rows))]
        for name, table in space.choices.items()
        if name != "layers"
    }


def supernet(space, task, choices, candidates=None):
    """A search of a supernet whose path is `paths`, {table: variable}."""
    import tensorflow as tf

    from darts_tf import DARTS
    from darts_tf.methods.optimizers import SGD

    network = space.supernet(task, "uniform", init_channels=channels(), candidates=candidates)
    search = DARTS(network)
    search.paths = {name: tf.Variable(tf.zeros(table.mask.shape), trainable=False) for name, table in choices.items()}
    network.mixture = lambda draw=None, purpose=None: {name: one + 0 for name, one in search.paths.items()}
    search.compile(SGD(0.025, global_clipnorm=5.0), loss=task.loss(), metrics=task.metrics())
    search.alpha_moves = False
    return search


def derived(architecture, task):
    """The network of a path, compiled as `darts_tf.train` does."""
    from darts_tf.methods.optimizers import SGD

    network = architecture.space.network(architecture, task, init_channels=channels())
    network.compile(SGD(0.025, global_clipnorm=5.0), loss=task.loss(), metrics=task.metrics(), jit_compile=False)
    return network


if __name__ == "__main__":
    app.run(main)
