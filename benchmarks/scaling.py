"""Times the search step on 1 and 2 devices of a CPU and in 1 and 2 processes, and what averaging takes of it.

    python -m benchmarks.scaling [--unrolled] [the flags of benchmarks.search_step]

prints a JSON line for each. Every replica has one core and `--batch_size` images, so that the time of a step would stay
the same if averaging cost nothing.

averaged_bytes     what each replica has averaged in a step
averaging_seconds  median time of doing that, and nothing else
efficiency         images per second of each replica, compared to the first line
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import time

from absl import app, flags

from benchmarks import search_step, timing

FLAGS = flags.FLAGS
flags.DEFINE_enum("case", None, ["devices", "processes"], "Internal: measure this one, in this process.")
flags.DEFINE_integer("replicas", 1, "Internal: how many.")


def main(_):
    if FLAGS.case:
        return measure()
    first = None
    for case in ("devices", "processes"):
        for replicas in (1, 2):
            result = run(case, replicas)
            per_replica = result["images_per_second"] / replicas
            first = first or per_replica
            print(json.dumps({case: replicas, **result, "efficiency": round(per_replica / first, 3)}), flush=True)


def run(case, replicas):
    """Measures a case in processes of its own; returns the result of the first."""
    count = replicas if case == "processes" else 1
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    cluster = {"worker": [f"localhost:{each.getsockname()[1]}" for each in sockets]}
    for each in sockets:
        each.close()
    cores, processes = sorted(os.sched_getaffinity(0)), []
    for index in range(count):
        mine = cores[:replicas] if case == "devices" else cores[index : index + 1]
        environment = {**os.environ}
        if case == "processes":
            environment["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
        line = [sys.executable, "-m", "benchmarks.scaling", *sys.argv[1:], f"--case={case}", f"--replicas={replicas}"]
        # Threads are as many as the cores that a process may use.
        line = ["taskset", "--cpu-list", ",".join(map(str, mine)), *line]
        processes.append(subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, text=True))
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        sys.exit(1)
    return json.loads(outputs[0])


def measure():
    from darts_tf.devices import runtime

    devices = FLAGS.replicas if FLAGS.case == "devices" else 1
    runtime.configure(cpu_devices=devices, precision=FLAGS.precision, start=FLAGS.case == "devices")
    from darts_tf.devices import cluster, replicas

    worker = cluster.ALONE
    with runtime.quiet():
        if FLAGS.case == "processes":
            worker, _ = cluster.from_environment()
            strategy = replicas.strategy("multi_worker")
        else:
            strategy = replicas.strategy("mirrored" if devices > 1 else "none")

    with strategy.scope():
        search = search_step.make()
    here = search_step.batch(FLAGS.batch_size * devices)
    search.create_variables(*here[0])
    recorded = record_averages(replicas, worker.index)
    settings = {**search_step.settings(), "batch_size": FLAGS.batch_size * FLAGS.replicas}
    result = timing.time_steps(
        search, here, FLAGS.steps, settings, feed=lambda batches: replicas.feed(strategy, batches, worker)
    )
    recorded = list(recorded)
    result["averaged_bytes"] = sum(spec.shape.num_elements() * spec.dtype.size for specs in recorded for spec in specs)
    result["averaging_seconds"] = time_averages(strategy, recorded) if recorded else 0.0
    if worker.is_chief:
        print(json.dumps(result))


def record_averages(replicas, number):
    """Lists, from now on, the shapes and types that the replica of this number has averaged, a list for each time."""
    import tensorflow as tf

    recorded, reduced = [], replicas._reduced

    def recording(operation, tensors):
        context = tf.distribute.get_replica_context()
        if replicas.count() > 1 and context and tf.get_static_value(context.replica_id_in_sync_group) == number:
            recorded.append([tf.TensorSpec(t.shape, t.dtype) for t in tf.nest.flatten(tensors)])
        return reduced(operation, tensors)

    replicas._reduced = recording
    return recorded


def time_averages(strategy, recorded):
    """Median seconds of averaging tensors of these shapes, one list after the other."""
    import tensorflow as tf

    from darts_tf.devices import replicas

    def average():
        done = []
        for specs in recorded:
            with tf.control_dependencies(done):
                done = replicas.average([tf.zeros(spec.shape, spec.dtype) for spec in specs])
        return done

    step = tf.function(lambda: strategy.run(average), autograph=False)
    step()
    seconds = []
    for _ in range(10):
        begin = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begin)
    return round(statistics.median(seconds), 4)


if __name__ == "__main__":
    app.run(main)
