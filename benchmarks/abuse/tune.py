"""Attempts against trials: their flags, their files, scores that are no numbers, and machines that do not come."""

import csv
import functools
import itertools
import json
import shutil
import socket

from benchmarks.abuse import Attempt, B

TINY = ("--epochs=1", "--layers=1", "--nodes=1", "--init_channels=4", "--max_trials=2", "--output=run")
AGAIN = ("darts_tf.tune", "--output=tune", "--resume")
TRIALS = ("tune/trials.csv", "tune/genotype.json", "tune/trials/trial_*/trial.json")


def attempts():
    """Yields all of them."""
    yield from itertools.chain(flags(), commands_within(), searches(), files(), states(), scores())
    yield from itertools.chain(tf_config(), kerastuner(), silence())


def flags():
    for value, says in {
        "--temperature=nan": "temperature",
        "--oracle=darts --search_run=x --temperature=inf": "temperature",
        "--temperature=2": "oracle=darts",
        "--search_run=x": "oracle=darts",
        "--train_portion=nan": "train_portion",
        "--train_portion=0.9999": "train_portion=0.9999.*validate",
        "--train_portion=0.00001": "train_portion=1e-05",
        "--batch_size=100000": "batch_size",
        "--drop_path_prob=5": "drop_path_prob",
        "--drop_path_prob=-inf": "drop_path_prob",
        "--learning_rate=nan": "learning_rate",
        "--weight_decay=inf": "weight_decay",
        "--worker_timeout=nan": "worker_timeout",
        "--worker_timeout=0": "worker_timeout",
        "--worker_timeout=1e400": "worker_timeout",
        "--primitives=skip_connect,skip_connect": "skip_connect",
        "--primitives=": "primitives",
        "--primitives=skip_connect,,sep_conv_3x3": "primitives",
        "--init_channels=3": "init_channels=3",
        "--search_flags=--epochs=3": "search_flags.*repeat_search",
        "--train_flags=--epochs=3": "train_flags.*repeat_search",
        "--resume --overwrite": "resume",
        "--strategy=mirrored --cpu_devices=2 --batch_size=33": "batch_size=33",
    }.items():
        yield Attempt(value, ["darts_tf.tune", *TINY, *value.split()], says=says)
    yield Attempt(
        "fewer trials than are done", [*AGAIN, "--max_trials=1"], runs=["tune"], says="max_trials=1", keeps=TRIALS
    )
    yield Attempt(
        "a space of one genotype",
        ["darts_tf.tune", *TINY, "--primitives=skip_connect"],
        ends=(0,),
        says="1 trials? instead of 2|exhausted|not tried",
    )
    yield Attempt("another oracle", [*AGAIN, "--oracle=pso"], runs=["tune"], says="oracle", keeps=TRIALS)


def commands_within():
    """Flags of the commands that a trial runs."""
    for value, says in {
        "--search_flags=--epoch=3": "search_flags.*epoch",
        "--search_flags=--seed=3": "search_flags.*seed",
        "--search_flags=--output=elsewhere": "search_flags.*output",
        "--search_flags=--json": "search_flags.*json",
        "--search_flags=--nojson": "search_flags.*json",
        "--search_flags=--overwrite": "search_flags.*overwrite",
        "--search_flags=--resume": "search_flags.*resume",
        "--search_flags=--help": "search_flags",
        "--search_flags=--epochs": "search_flags.*epochs",
        "--search_flags=--epochs=0": "search_flags.*epochs",
        "--search_flags=--epochs=1.5": "search_flags.*epochs",
        "--search_flags=--noepochs": "search_flags",
        "--search_flags=--train_portion=2": "search_flags.*train_portion",
        "--search_flags=--init_channels=3": "search_flags.*init_channels",
        "--search_flags=--verbose=9": "search_flags.*verbose",
        "--search_flags=--learning_rate=nan": "search_flags.*learning_rate",
        "--search_flags=--": "search_flags",
        "--search_flags=--=3": "search_flags",
        "--search_flags=epochs=3": "search_flags",
        "--search_flags=--train_portion=": "search_flags",
        "--train_flags=--epoch=3": "train_flags.*epoch",
        "--train_flags=--arch=DARTS_V1": "train_flags.*arch",
        "--train_flags=--init_from=x.keras": "train_flags.*init_from",
        "--train_flags=--evaluate=x.keras": "train_flags.*evaluate",
        "--train_flags=--output=elsewhere": "train_flags.*output",
        "--train_flags=--nojson": "train_flags.*json",
        "--train_flags=--train_portion=1": "train_flags.*train_portion",
        "--train_flags=--train_portion=nan": "train_flags.*train_portion",
        "--train_flags=--epochs='3": "train_flags.*quotation",
        "--epochs=3": "repeat_search",
        "--seed=3": "repeat_search",
    }.items():
        yield Attempt(
            f"repeated searches with {value}",
            ["darts_tf.tune", "--repeat_search=2", "--output=run", value],
            says=says,
            check=no_run,
        )


def no_run(folder, stdout, stderr):
    return "there is a run directory" if (folder / "run").exists() else None


def searches():
    """What is given as the run of a search."""
    darts = ["darts_tf.tune", *TINY, "--oracle=darts", "--search_run=search"]

    def wrong_numbers(folder):
        import numpy as np

        with np.load("search/alphas.npz") as arrays:
            kept = dict(arrays)
        kept["normal"] = kept["normal"] * np.nan
        np.savez("search/alphas.npz", **kept)

    for name, prepare in {
        "is empty": lambda folder: (folder / "search").mkdir(),
        "is a file": lambda folder: (folder / "search").write_text("x"),
        "has empty alphas": lambda folder: spoil(folder, "search/alphas.npz", "empty"),
        "has half of its alphas": lambda folder: spoil(folder, "search/alphas.npz", "cut"),
        "has alphas that are text": lambda folder: spoil(folder, "search/alphas.npz", "[]"),
        "has a folder for alphas": lambda folder: spoil(folder, "search/alphas.npz", "a folder"),
        "has alphas that are NaN": wrong_numbers,
    }.items():
        runs = ["search"] if "alphas" in name else []
        yield Attempt(f"a search that {name}", darts, prepare=prepare, runs=runs, says="search_run=search")
    for run in ("train", "tune", "nothing"):
        yield Attempt(
            f"{run} as a search",
            [*darts[:-1], f"--search_run={run}"],
            runs=[run] * (run != "nothing"),
            says=f"search_run={run}",
        )


def spoil(folder, name, how):
    """Damages a file."""
    path = folder / name
    content = path.read_bytes() if path.is_file() else b""
    if path.exists():
        path.unlink()
    if how == "a folder":
        path.mkdir()
    elif how != "gone":
        contents = {"empty": b"", "cut": content[: len(content) // 2], "zeros": bytes(len(content))}
        path.write_bytes(contents.get(how, how.encode()))


def files():
    """Files of a run of trials, damaged before it goes on."""
    damages = ("empty", "cut", "zeros", "[]", "{}", "null", "a folder", "gone")
    for how in damages:
        yield Attempt(
            f"trials/oracle.json: {how}",
            AGAIN,
            prepare=functools.partial(spoil, name="tune/trials/oracle.json", how=how),
            runs=["tune"],
            says=r"oracle\.json",
            keeps=TRIALS,
        )
        for trial in ("0", "1"):
            yield Attempt(
                f"trials/trial_{trial}/trial.json: {how}",
                AGAIN,
                prepare=functools.partial(spoil, name=f"tune/trials/trial_{trial}/trial.json", how=how),
                runs=["tune"],
                ends=(0,),
                says="trial.json cannot be read",
                keeps=("tune/trials.csv", "tune/genotype.json"),
            )
        yield Attempt(
            f"genotype.json: {how}",
            AGAIN,
            prepare=functools.partial(spoil, name="tune/genotype.json", how=how),
            runs=["tune"],
            ends=(2,) if how == "a folder" else (0,),
            keeps=("tune/trials.csv", "tune/trials/*/trial.json"),
            check=None if how == "a folder" else has_genotype,
        )
    for how in ("gone", "empty", "[]", "a folder"):
        yield Attempt(
            f"the file of keras-tuner's tuner: {how}",
            [*AGAIN, "--max_trials=3"],
            prepare=functools.partial(spoil, name="tune/trials/tuner0.json", how=how),
            runs=["tune"],
            ends=(0,),
            keeps=("tune/trials/trial_0/trial.json", "tune/trials/trial_1/trial.json"),
            check=has_three,
        )
    yield Attempt(
        "trials/ is gone",
        AGAIN,
        prepare=lambda folder: shutil.rmtree(folder / "tune" / "trials"),
        runs=["tune"],
        says="oracle.json",
        keeps=("tune/trials.csv", "tune/genotype.json"),
    )
    yield Attempt(
        "the folder of a trial is gone",
        [*AGAIN, "--max_trials=3"],
        prepare=lambda folder: shutil.rmtree(folder / "tune" / "trials" / "trial_0"),
        runs=["tune"],
        ends=(0,),
        keeps=("tune/trials/trial_1/trial.json",),
        check=has_three,
    )
    yield Attempt(
        "trials.csv is gone",
        AGAIN,
        prepare=functools.partial(spoil, name="tune/trials.csv", how="gone"),
        runs=["tune"],
        ends=(0,),
        check=lambda folder, *_: None if (folder / "tune" / "trials.csv").exists() else "it was not written again",
    )


def has_genotype(folder, stdout, stderr):
    text = (folder / "tune" / "genotype.json").read_text()
    return None if set(json.loads(text)) >= {"normal", "reduce"} else "genotype.json holds no genotype"


def has_three(folder, stdout, stderr):
    with (folder / "tune" / "trials.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    return None if [row["trial"] for row in rows] == ["0", "1", "2"] else f"trials.csv has {len(rows)} trials"


def states():
    """What oracle.json says, changed."""

    def change(folder, name, value):
        path = folder / "tune" / "trials" / "oracle.json"
        state = json.loads(path.read_text())
        if value is None:
            del state[name]
        else:
            state[name] = value
        path.write_text(json.dumps(state))

    for name, value in (
        *((name, None) for name in ("start_order", "end_order", "hyperparameters", "seed_state", "population")),
        ("start_order", 5),
        ("start_order", ["0", "0"]),
        ("end_order", ["7"]),
        ("retry_queue", [["0"]]),
        ("ongoing_trials", {"tuner0": "9"}),
        ("ongoing_trials", []),
        ("hyperparameters", []),
    ):
        yield Attempt(
            f"oracle.json with {name} {json.dumps(value)}",
            AGAIN,
            prepare=functools.partial(change, name=name, value=value),
            runs=["tune"],
            says=r"oracle\.json",
            keeps=TRIALS,
        )


def scores():
    """Trials whose loss is no number."""

    def all_failed(folder, stdout, stderr):
        with (folder / "run" / "trials.csv").open(newline="") as table:
            rows = list(csv.DictReader(table))
        wrong = [row for row in rows if row["val_accuracy"] or row.get("status") != "FAILED"]
        return "a trial without a loss has not failed" if wrong or not rows else None

    for oracle in ("evolution", "random", "bayesian", "reinforce", "pso", "grid", "hyperband"):
        yield Attempt(
            f"all trials of {oracle} become NaN",
            ["darts_tf.tune", *TINY, f"--oracle={oracle}", "--learning_rate=1e30"],
            ends=(1,),
            says="no trial ended well",
            check=all_failed,
        )


def cluster(*addresses, kind="worker", index=0, **more):
    return json.dumps({"cluster": {"worker": addresses, **more}, "task": {"type": kind, "index": index}})


def tf_config():
    good = ("localhost:1234", "localhost:1235")
    for name, value in {
        "is empty": "",
        "is no JSON": "{",
        "is a number": "3",
        "is a list": "[]",
        "is nested deeply": "[" * 100000,
        "has no cluster": '{"task": {"type": "worker", "index": 0}}',
        "has no task": '{"cluster": {"worker": ["localhost:1234"]}}',
        "has an empty cluster": '{"cluster": {}, "task": {"type": "worker", "index": 0}}',
        "has no workers": cluster(),
        "has a text for workers": '{"cluster": {"worker": "localhost:1234"}, "task": {"type": "worker", "index": 0}}',
        "has a text for a task": '{"cluster": {"worker": ["localhost:1234"]}, "task": "worker"}',
        "has a number for an address": cluster(1234),
        "has an address without a port": cluster("localhost"),
        "has an empty port": cluster("localhost:"),
        "has no host": cluster(":1234"),
        "has port 0": cluster("localhost:0"),
        "has port 99999": cluster("localhost:99999"),
        "has a port that is text": cluster("localhost:http"),
        "has a scheme": cluster("grpc://localhost:1234"),
        "has one address twice": cluster("localhost:1234", "localhost:1234"),
        "has an index that is too large": cluster(*good, index=2),
        "has a negative index": cluster(*good, index=-1),
        "has an index that is text": cluster(*good, index="0"),
        "has an index that is a fraction": cluster(*good, index=0.5),
        "has an index that is true": cluster(*good, index=True),
        "has no index": cluster(*good, index=None),
        "is of an evaluator": cluster(*good, kind="evaluator", evaluator=["localhost:1236"]),
        "is of a ps": cluster(*good, kind="ps", ps=["localhost:1236"]),
        "has a ps": cluster(*good, ps=["localhost:1236"]),
        "has two chiefs": cluster(*good, chief=["localhost:1236", "localhost:1237"]),
        "has a port that is in use": cluster(f"localhost:{occupied()}", "localhost:1"),
    }.items():
        yield Attempt(
            f"TF_CONFIG {name}",
            ["darts_tf.search", *B, "--strategy=multi_worker", "--output=run", "--worker_timeout=5"],
            environ={"TF_CONFIG": value},
            says="TF_CONFIG",
            check=no_run,
            timeout=200,
        )


@functools.cache
def listening():
    return socket.create_server(("", 0))


def occupied():
    """A port that another program, this one, uses."""
    return listening().getsockname()[1]


def free():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def variables(name="chief", host="127.0.0.1", port=None):
    port = port or free()
    return {"KERASTUNER_TUNER_ID": name, "KERASTUNER_ORACLE_IP": host, "KERASTUNER_ORACLE_PORT": str(port)}


def kerastuner():
    for title, environ, says in (
        ("chief, port 99999", variables(port=99999), "PORT=99999"),
        ("worker, port 99999", variables("worker", port=99999), "PORT=99999"),
        ("worker, port 0", variables("worker", port="0"), "PORT=0"),
        ("chief, port http", variables(port="http"), "PORT=http"),
        ("chief, port -1", variables(port="-1"), "PORT=-1"),
        ("chief, port is empty", {**variables(), "KERASTUNER_ORACLE_PORT": ""}, "PORT="),
        ("chief, address without a name", variables(host="no.such.host.invalid"), "no.such.host"),
        ("worker, address without a name", variables("worker", host="no.such.host.invalid"), "no.such.host"),
        ("chief, address of another machine", variables(host="192.0.2.1"), "192.0.2.1"),
        ("chief, no address", variables(host=""), "KERASTUNER_ORACLE_IP"),
        ("chief, port in use", variables(port=occupied()), str(occupied())),
        ("no name", variables(name=""), "TUNER_ID"),
        ("a name of blanks", variables(name="  "), "TUNER_ID"),
    ):
        yield Attempt(
            f"KERASTUNER: {title}", ["darts_tf.tune", *TINY], environ=environ, says=says, check=no_run, timeout=60
        )


def silence():
    """Other machines that do not come."""
    yield Attempt(
        "a chief without workers",
        ["darts_tf.tune", *TINY, "--worker_timeout=3"],
        environ=variables(),
        ends=(1,),
        says="error: waited 3 seconds",
        timeout=200,
    )
    yield Attempt(
        "a worker without a chief and a run",
        ["darts_tf.tune", *TINY, "--worker_timeout=3"],
        environ=variables("worker"),
        ends=(1,),
        says="error: waited 3 seconds",
        timeout=200,
    )
    more = ["darts_tf.tune", "--output=tune", "--max_trials=4", "--worker_timeout=3"]
    yield Attempt(
        "a worker without a chief, in its run",
        more,
        environ=variables("worker"),
        runs=["tune"],
        ends=(1,),
        says="error: waited 3 seconds",
        keeps=TRIALS,
        timeout=200,
    )
    yield Attempt(
        "a worker that asks a program that is no chief",
        more,
        environ=variables("worker", port=occupied()),
        runs=["tune"],
        ends=(1,),
        says="error: waited 3 seconds",
        keeps=TRIALS,
        timeout=200,
    )
    yield Attempt(
        "a worker after the chief has ended",
        ["darts_tf.tune", "--output=tune", "--worker_timeout=30"],
        environ=variables("worker"),
        runs=["tune"],
        ends=(0,),
        says="have ended",
        keeps=TRIALS,
        timeout=200,
    )
    yield Attempt(
        "a chief with nothing left to do",
        ["darts_tf.tune", "--output=tune", "--worker_timeout=30"],
        environ=variables(),
        runs=["tune"],
        ends=(0,),
        says="rank",
        keeps=TRIALS,
        timeout=200,
    )
    yield Attempt(
        "a worker whose name is that of the oracle's file",
        more,
        environ=variables("oracle"),
        runs=["tune"],
        ends=(1,),
        keeps=(*TRIALS, "tune/trials/oracle.json"),
        timeout=200,
    )
    yield Attempt(
        "a run that was begun alone and goes on with a chief keeps its trials",
        more,
        environ=variables(),
        runs=["tune"],
        ends=(1,),
        says="error: waited 3 seconds",
        keeps=TRIALS,
        timeout=200,
    )
    for index in (0, 1):
        yield Attempt(
            f"worker {index} of two of a search, alone",
            ["darts_tf.search", *B, "--strategy=multi_worker", "--output=run", "--worker_timeout=3"],
            environ={"TF_CONFIG": cluster(f"localhost:{free()}", f"localhost:{free()}", index=index)},
            ends=(1,),
            says="error: waited 3 seconds",
            check=no_run,
            timeout=200,
        )
