"""The command as a user runs it, alone and with a chief and workers, and trials that are whole searches."""

import csv
import itertools
import json
import os
import signal
import socket
import threading
import time
import types

import grpc
import keras_tuner
import numpy as np
import pytest
from planted import ORACLES, search_run
from processes import Process

from darts_tf import spaces, tune
from darts_tf.cli import messages
from darts_tf.cli.messages import UsageError
from darts_tf.devices.cluster import LostError
from darts_tf.private.keras_tuner import retry_queue
from darts_tf.runs import rundirectory, starting
from darts_tf.spaces import CellSpace
from darts_tf.tune import TuneConfig
from darts_tf.tuner import DARTSTuner, GridOracle, machines, processes
from darts_tf.tuner.oracle import durable

TINY = ["--epochs=1", "--nodes=1", "--layers=1", "--init_channels=4"]


def begin(*arguments, **environment):
    environment = {**os.environ, **environment}
    return Process("darts_tf.tune", *arguments, env=environment)


def named(name, port):
    return {"KERASTUNER_TUNER_ID": name, "KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(port)}


def end(process):
    printed, errors = process.communicate(timeout=280)
    return process.returncode, printed, errors


def trials(output):
    with (output / "trials.csv").open(newline="") as table:
        return list(csv.DictReader(table))


@pytest.mark.slow
def test_a_run_that_is_killed_and_goes_on(tmp_path):
    output = tmp_path / "run"
    process = begin(*TINY, "--max_trials=4", f"--output={output}")
    while not (output / "trials.csv").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.kill()
    process.communicate()
    done = trials(output)
    status, printed, errors = end(begin("--resume", f"--output={output}", "--json"))
    assert status == 0, errors
    assert trials(output)[: len(done)] == done and len(trials(output)) == 4
    best = json.loads(printed)
    assert best["val_accuracy"] == max(float(row["val_accuracy"]) for row in trials(output)) and best["trials"] == 4
    genotype = spaces.from_json((output / "genotype.json").read_text())
    assert str(genotype) == best["genotype"] and "trial 4/4  validation" in errors
    assert '"trials": [{' in (output / "report.html").read_text()
    # The same again has nothing left to do; more trials have.
    status, printed, _ = end(begin("--resume", f"--output={output}", "--verbose=0"))
    assert status == 0 and printed.splitlines()[1].split() == [
        *("rank", "trial", "validation", "parameters", "multiply-adds")
    ]
    status, _, errors = end(begin("--max_trials=5", f"--output={output}"))
    assert status == 0 and len(trials(output)) == 5, errors


@pytest.mark.slow
@pytest.mark.parametrize("oracle", ["hyperband", "darts"])
def test_other_oracles(oracle, tmp_path):
    search_run(tmp_path, nodes=1)
    more = [f"--search_run={tmp_path}", "--max_trials=2"] if oracle == "darts" else ["--epochs=2"]
    status, _, errors = end(begin(*TINY, f"--oracle={oracle}", *more, f"--output={tmp_path}/run"))
    assert status == 0 and len(trials(tmp_path / "run")) >= 2, errors


def test_trials_of_language_models(tmp_path):
    """From the flags to the files, and what a run that goes on knows of itself."""
    random = np.random.default_rng(0)
    lines = [" ".join(random.choice(list("abcde"), 6)) for _ in range(100)]
    (tmp_path / "text.txt").write_text("\n".join(lines))
    where = {"output": str(tmp_path / "run"), "dataset": str(tmp_path / "text.txt")}
    sizes = {"nodes": 1, "units": 4, "batch_size": 8, "bptt": 8, "epochs": 1, "vocabulary": 6}
    before = signal.getsignal(signal.SIGTERM)
    with messages.spoken(0):
        tune.main(TuneConfig(**where, **sizes, space="recurrent", oracle="random", max_trials=2))
        tune.main(TuneConfig(output=where["output"], resume=True))
    signal.signal(signal.SIGTERM, before)
    found = trials(tmp_path / "run")
    assert [row["status"] for row in found] == ["COMPLETED"] * 2 and len({row["genotype"] for row in found}) == 2
    best = min(found, key=lambda row: float(row["val_perplexity"]))
    assert str(spaces.from_json((tmp_path / "run" / "genotype.json").read_text())) == best["genotype"]
    assert int(best["parameters"]) == 6 * 4 + 8 * 8 + 4 * 8 + 6  # embedding, node 0, node 1, bias
    config = rundirectory.configuration(tmp_path / "run")
    assert (config["task"], config["momentum"], config["learning_rate"]) == ("language_model", 0.0, 20.0)
    assert len(config["data"]["vocabulary"]) == 6 and "multiply-adds" in (tmp_path / "run" / "report.html").read_text()


def test_what_is_tried_decides_the_data(tmp_path):
    assert TuneConfig(space="recurrent").begun().dataset == "topics" and TuneConfig().begun().dataset == "digits"
    repeated = TuneConfig(repeat_search=2, search_flags="--space=recurrent --units=4", tokens="characters").begun()
    repeated.check()
    assert repeated.kind == "text"
    assert tune.shared_flags(repeated) == {"dataset": "topics", "tokens": "characters", "bptt": 35}
    assert tune.shared_flags(TuneConfig(repeat_search=2)) == {"dataset": "digits", "stream": False}
    table = TuneConfig(repeat_search=2, dataset="t.csv", label="price")
    assert table.kind == "table" and tune.shared_flags(table) == {
        "dataset": "t.csv",
        "label": "price",
        "test_seed": 0,
    }
    search_run(tmp_path)
    assert TuneConfig(oracle="darts", search_run=str(tmp_path)).kind == "images"
    config = json.loads((tmp_path / "config.json").read_text())
    data = {"tokens": "words", "vocabulary": ["<unk>", "<eos>", "a"]}
    config |= {"space": "recurrent", "task": "language_model", "data": data}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert TuneConfig(oracle="darts", search_run=str(tmp_path)).kind == "text"
    oracle = GridOracle(keras_tuner.Objective("val_perplexity", "min"), 2, seed=1)
    flags = {"space": "recurrent", "tokens": "characters"}
    assert DARTSTuner(oracle, flags, directory=tmp_path).train_flags == {"tokens": "characters"}


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"space": "recurrent", "train_portion": 0.5}, "--train_portion=0.5: expected none with text"),
        ({"space": "recurrent", "layers": 3}, "--layers=3: the space recurrent has no such size"),
        ({"tokens": "characters"}, "--tokens=characters: expected none with images"),
        ({"units": 4}, "--units=4: the space darts has no such size"),
        ({"space": "recurrent", "primitives": ["tanh", "sine"]}, "--primitives=sine: no such activation; expected"),
        ({"primitives": ["tanh"]}, "--primitives=tanh: no such operation; expected some of none, max_pool_3x3"),
    ],
)
def test_flags_of_other_data(flags, message):
    config = TuneConfig(**flags).begun()
    data = starting.load_data(config)
    with pytest.raises(UsageError, match=message):
        tune.completed(config, data)


@pytest.mark.parametrize(
    "arguments, environment, message",
    [
        (["--oracle=darts"], {}, "--oracle=darts: expected --search_run"),
        (["--oracle=greedy"], {}, "--oracle=greedy: expected one of random, bayesian, "),
        (["--train_portion=1"], {}, "--train_portion=1.0: expected a number between 0 and 1"),
        (["--strategy=multi_worker"], {}, "--strategy=multi_worker: expected another"),
        (["--primitives=none,skip_connect"], {}, "--primitives=none: expected operations that do something"),
        ([], {"KERASTUNER_TUNER_ID": "a"}, "KERASTUNER_ORACLE_IP is not set: expected all of"),
        (["--tensorboard"], {}, "Unknown command line flag 'tensorboard'"),
        (["--repeat_search=2", "--epochs=3"], {}, "--epochs=3: with --repeat_search, expected in --search_flags or"),
        (["--repeat_search=2", "--train_flags='"], {}, "--train_flags=': No closing quotation"),
        (["--repeat_search=2", "--search_flags=epochs=3"], {}, "--search_flags=epochs=3: expected flags, such as"),
        (["--train_flags=--epochs=3"], {}, "--train_flags=--epochs=3: expected together with --repeat_search"),
        (["--temperature=2"], {}, "--temperature=2.0: expected together with --oracle=darts"),
        ([], named("", 8000), "KERASTUNER_TUNER_ID=: expected chief, or another name for each worker"),
        ([], named("a", 99999), "KERASTUNER_ORACLE_PORT=99999: '99999' is no port from 1 to 65535"),
    ],
)
def test_wrong_flags(arguments, environment, message, tmp_path):
    status, printed, errors = end(begin(*arguments, f"--output={tmp_path}/run", **environment))
    assert status == 2 and not printed and message in errors and "Traceback" not in errors
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_nobody_comes(tmp_path):
    """To a chief; and to a worker, first before there is a run, then after its chief has gone."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    flags = [*TINY, "--max_trials=2", "--worker_timeout=2", f"--output={tmp_path}/run"]
    for name, waited_for in (
        ("worker", f"the chief to start in {tmp_path}/run/"),
        ("chief", f"workers that ask 127.0.0.1:{port} for trials"),
        ("worker", f"the chief at 127.0.0.1:{port}"),
    ):
        status, _, errors = end(begin(*flags, **named(name, port)))
        last = errors.splitlines()[-1]
        assert status == 1 and last.startswith(f"error: waited 2 seconds (--worker_timeout) for {waited_for};"), errors


@pytest.mark.slow
def test_wrong_input(tmp_path):
    status, _, errors = end(begin("--repeat_search=2", "--train_flags=--epoch=3", f"--output={tmp_path}/run"))
    last = errors.splitlines()[-1]
    assert status == 2 and last.startswith("error: --train_flags=--epoch=3: Unknown command line flag 'epoch'"), errors
    status, _, errors = end(begin("--oracle=darts", f"--search_run={tmp_path}/no", f"--output={tmp_path}/other"))
    assert status == 2 and f"run={tmp_path}/no: expected the run directory of a search" in errors
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_searches_as_trials(tmp_path):
    """One of them fails; the tuner is told to stop in the middle of the second, and goes on in another process."""
    hp = keras_tuner.HyperParameters()
    hp.Choice("learning_rate", [1e30, 0.025])
    tiny = {"epochs": 2, "layers": 3, "init_channels": 2, "nodes": 1, "grad_clip": 1e30, "noflip": None}
    tiny["primitives"] = "skip_connect,max_pool_3x3"
    said = []

    def make(tell):
        oracle = GridOracle("val_accuracy", 2, seed=1, hyperparameters=hp.copy())
        oracle.verbose = 0
        train = {"epochs": 1, "layers": 1, "init_channels": 4}
        return DARTSTuner(oracle, tiny, train, tell, directory=tmp_path, project_name="searches")

    def interrupt(line):
        said.append(line)
        if line.startswith("epoch 1/2") and "nan" not in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(interrupt).search(verbose=0)
    assert any("trial 0 failed: darts_tf.search: error: the loss became NaN in epoch 1" in line for line in said)
    tuner = make(said.append)
    tuner.search(verbose=0)
    assert any(line.startswith("Going on after") for line in said)
    failed, good = (tuner.oracle.trials[number] for number in "01")
    assert (failed.status, failed.score, good.status) == ("FAILED", None, "COMPLETED")
    assert "the loss became NaN" in failed.message
    metrics = json.loads((tmp_path / "searches" / "trial_1" / "train" / "metrics.json").read_text())
    assert good.metrics.get_best_value("parameters") == metrics["parameters"]
    with (tmp_path / "searches" / "trial_1" / "train" / "history.csv").open() as table:
        assert good.score == pytest.approx(float(list(csv.DictReader(table))[-1]["val_accuracy"]))
    log = (tmp_path / "searches" / "trial_1" / "search.log").read_text()
    assert "Stopped after step" in log and log.count("Starting TensorFlow") == 2
    (model,) = tuner.get_best_models()
    assert model.output_shape == (None, 10)
    tuner.results_summary()


@pytest.mark.slow
def test_a_chief_and_two_workers_one_of_whom_is_killed(tmp_path):
    output = tmp_path / "run"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    where = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(port)}
    flags = [*TINY, "--epochs=3", "--max_trials=5", "--worker_timeout=4", f"--output={output}"]
    chief, lost, good = (begin(*flags, KERASTUNER_TUNER_ID=name, **where) for name in ("chief", "lost", "good"))
    while True:
        assert lost.poll() is None, lost.communicate()
        state = output / "trials" / "oracle.json"
        if state.exists() and state.stat().st_size:
            try:
                ongoing = json.loads(state.read_text())["ongoing_trials"]
            except ValueError:  # keras-tuner writes in place
                continue
            if "lost" in ongoing:
                break
        time.sleep(0.05)
    lost.send_signal(signal.SIGKILL)
    lost.communicate()
    status, _, errors = end(good)
    assert status == 0, errors
    status, printed, errors = end(chief)
    assert status == 0, errors
    assert f"lost is lost; trial {ongoing['lost']} goes to another" in errors
    names = [row["trial"] for row in trials(output)]
    assert sorted(names) == list("01234") and "rank" in printed
    finished = [json.loads((output / "trials" / f"trial_{name}" / "trial.json").read_text()) for name in names]
    assert all(trial["status"] == "COMPLETED" for trial in finished)


def watched(tmp_path, timeout, again=False):
    hp = keras_tuner.HyperParameters()
    hp.Int("number", 1, 100)
    objective = keras_tuner.Objective("score", "max")
    oracle = keras_tuner.oracles.RandomSearchOracle(objective, 4, seed=1, hyperparameters=hp)
    oracle._set_project_dir(tmp_path, "trials")
    oracle.verbose = 0
    if again:
        oracle.reload()
    said = []
    return oracle, machines.Watch(oracle, timeout, said.append).problems, said


def finish(oracle, trial, score):
    oracle.update_trial(trial.trial_id, {"score": score})
    trial.status = "COMPLETED"
    oracle.end_trial(trial)


def copy_of(trial):
    """As it comes over the network."""
    return type(trial).from_state(json.loads(json.dumps(trial.get_state())))


def test_a_worker_that_was_only_late(tmp_path):
    oracle, problems, said = watched(tmp_path, 0.3)
    late = copy_of(oracle.create_trial("late"))
    while not said:
        time.sleep(0.05)
    other = copy_of(oracle.create_trial("other"))
    assert other.trial_id == late.trial_id and said == [f"late is lost; trial {late.trial_id} goes to another."]
    finish(oracle, late, 1.0)
    assert copy_of(oracle.create_trial("late")).trial_id != late.trial_id
    finish(oracle, other, 1.0)
    assert oracle.end_order == [late.trial_id] and list(oracle.ongoing_trials) == ["late"] and not problems


def test_a_chief_that_is_started_again(tmp_path):
    oracle, *_ = watched(tmp_path, 60)
    one, two = (copy_of(oracle.create_trial(name)) for name in ("one", "two"))
    oracle, problems, said = watched(tmp_path, 0.5, again=True)
    begun = time.monotonic()
    third = copy_of(oracle.create_trial("three"))
    assert third.trial_id not in (one.trial_id, two.trial_id)
    while not said:  # one goes on, two is silent
        oracle.get_trial(one.trial_id)
        oracle.get_trial(third.trial_id)
        time.sleep(0.05)
        assert time.monotonic() < begun + 10
    assert said == [f"the worker before, {two.trial_id}, is lost; trial {two.trial_id} goes to another."]
    finish(oracle, one, 1.0)
    assert copy_of(oracle.create_trial("one")).trial_id == two.trial_id
    assert oracle.end_order == [one.trial_id] and not problems


def test_an_oracle_that_fails_ends_the_chief(tmp_path):
    oracle, problems, _ = watched(tmp_path, 60)
    oracle.populate_space = lambda trial_id: 1 / 0
    for worker in ("one", "two"):  # the first must not keep the lock
        thread = threading.Thread(
            target=pytest.raises, args=[ZeroDivisionError, oracle.create_trial, worker], daemon=True
        )
        thread.start()
        thread.join(timeout=10)
        assert not thread.is_alive()
    assert [type(problem) for problem in problems] == [ZeroDivisionError, ZeroDivisionError]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", None, "another trial's"])
def test_a_trial_whose_file_is_damaged(damage, known, tmp_path):
    oracle, *_ = watched(tmp_path, 60)
    durable(oracle)
    for score in (1.0, 2.0):
        finish(oracle, oracle.create_trial("one"), score)
    running = oracle.create_trial("one").trial_id
    values = oracle.trials["1"].hyperparameters.values
    file = tmp_path / "trials" / "trial_1" / "trial.json"
    content = (tmp_path / "trials" / "trial_0" / "trial.json").read_text()
    file.unlink() if damage is None else file.write_text(content if damage.startswith("another") else damage)

    kept, said = oracle.trials["1"], []
    again, *_ = watched(tmp_path, 60)
    durable(again, lambda trial_id: kept if known else None, said.append).reload()
    assert len(said) == 1 and "trial_1/trial.json cannot be read" in said[0]
    assert retry_queue(again) == [running] and again.end_order == ["0", "1"] and len(again.trials) == 3
    assert again.get_best_trials()[0].trial_id == ("1" if known else "0")
    assert again.trials["1"].status == ("COMPLETED" if known else "FAILED")
    assert not known or again.trials["1"].hyperparameters.values == values
    assert again.create_trial("one").trial_id == running and again.create_trial("two").trial_id == "3"


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", "{}", "null", "gone", "a folder", {"start_order": ["0", "0"]}, {"end_order": ["7"]}]
)
def test_an_oracle_whose_file_is_damaged(damage, tmp_path):
    oracle, *_ = watched(tmp_path, 60)
    durable(oracle)
    finish(oracle, oracle.create_trial("one"), 1.0)
    file = tmp_path / "trials" / "oracle.json"
    state = json.loads(file.read_text())
    file.unlink()
    if damage == "a folder":
        file.mkdir()
    elif damage != "gone":
        file.write_text(json.dumps(state | damage) if isinstance(damage, dict) else damage)
    again, *_ = watched(tmp_path, 60)
    with pytest.raises(rundirectory.DamageError, match=r"^its trials/oracle.json (is damaged|cannot be read)"):
        durable(again).reload()


@pytest.mark.parametrize("name", ["random", "evolution", "swarm", "bayesian"])
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_a_score_that_is_no_number_is_a_failure(name, bad, tmp_path):
    hp = keras_tuner.HyperParameters()
    CellSpace(1).declare(hp)
    oracle = durable(ORACLES[name](keras_tuner.Objective("score", "max"), 9, seed=1, hyperparameters=hp))
    oracle._set_project_dir(tmp_path, "trials")
    oracle.verbose, oracle.max_consecutive_failed_trials = 0, None
    for score in (bad, 1.0, bad, 2.0):
        finish(oracle, oracle.create_trial("one"), score)
    assert [oracle.trials[number].status for number in "0123"] == ["FAILED", "COMPLETED"] * 2
    assert oracle.get_best_trials()[0].score == 2.0 and oracle.create_trial("one").status == "RUNNING"
    assert getattr(oracle, "population", ["1", "3"]) == ["1", "3"]


class Refusal(grpc.RpcError):
    def __init__(self, code):
        self.code, self.details = lambda: code, lambda: "KeyError: 'x'"


def test_a_worker_waits_for_its_chief_but_not_for_ever(monkeypatch):
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "10.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "8000")
    monkeypatch.setattr("darts_tf.devices.cluster.EVERY", 0.05)
    gone, failed = Refusal(grpc.StatusCode.UNAVAILABLE), Refusal(grpc.StatusCode.UNKNOWN)

    def ask(answers, is_over=lambda: False):
        answers, said, client = iter(answers), [], types.SimpleNamespace()
        machines.be_patient(client, 0.3, said.append, is_over)
        future = types.SimpleNamespace(result=lambda timeout: next(answers)(), cancel=lambda: None)
        client.stub.impatient = types.SimpleNamespace(GetTrial=types.SimpleNamespace(future=lambda *_, **__: future))
        return client.stub.GetTrial("?", timeout=3600), said

    def refusing(error):
        def result():
            raise error

        return result

    answer, said = ask([*[refusing(gone)] * 3, refusing(grpc.FutureTimeoutError()), lambda: "a trial"])
    assert answer == "a trial" and said[0].startswith("Waiting for the chief at 10.0.0.1:8000 (0 of 0.3 seconds)")
    with pytest.raises(LostError, match=r"waited 0.3 seconds .* for the chief at 10.0.0.1:8000; expected it to run"):
        ask(itertools.repeat(refusing(gone)))
    with pytest.raises(LostError, match=r"the chief at 10.0.0.1:8000 failed: KeyError: 'x'"):
        ask([refusing(failed)])
    with pytest.raises(machines.OverError):
        ask([refusing(gone)], is_over=lambda: True)


@pytest.mark.parametrize(
    "command, flags, wrong",
    [
        ("search", {"epoch": 3}, "Unknown command line flag 'epoch'"),
        ("search", {"nojson": None}, "--json: each of them gets its own"),
        ("search", {"seed": 1}, "--seed: each of them gets its own"),
        ("search", {"verbose": "9"}, "--verbose=9: expected 0, 1 or 2"),
        ("train", {"learning_rate": "nan"}, "--learning_rate=nan: expected a finite number"),
        ("train", {"arch": "DARTS_V1"}, "--arch: each of them gets its own"),
        ("train", {"train_portion": 1}, "expected less than 1"),
    ],
)
def test_flags_of_the_commands_of_a_trial(command, flags, wrong):
    with pytest.raises(ValueError, match=wrong):
        processes.check(command, flags, ("seed",))


def test_files_of_any_oracle_appear_whole(tmp_path, monkeypatch):
    oracle, *_ = watched(tmp_path, 60)
    durable(oracle)
    oracle.create_trial("one")
    before = (tmp_path / "trials" / "oracle.json").read_text()
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        oracle.save()
    assert (tmp_path / "trials" / "oracle.json").read_text() == before
    assert not list(tmp_path.rglob(".[0-9]*"))


@pytest.mark.parametrize("name", ORACLES)
def test_all_oracles_give_trials_to_workers(name, tmp_path, monkeypatch):
    from keras_tuner.src.distribute import oracle_chief, oracle_client

    hp = keras_tuner.HyperParameters()
    CellSpace(2).declare(hp)
    oracle = ORACLES[name](keras_tuner.Objective("score", "max"), 12, seed=1, hyperparameters=hp)
    oracle._set_project_dir(tmp_path, "trials")
    oracle.verbose = 0
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("KERASTUNER_ORACLE_PORT", str(server.getsockname()[1]))
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    machines.Watch(oracle, timeout=4.0 if name == "reinforce" else 1.0)  # whose first answers take a second
    chief = threading.Thread(target=oracle_chief.start_server, args=[oracle], daemon=True)
    chief.start()
    ran = []

    def work(client, tuner_id, dies):
        while True:
            trial = client.create_trial(tuner_id)
            if trial.status == "STOPPED":
                return
            if trial.status == "IDLE":
                time.sleep(0.05)
                continue
            if dies:
                return
            ran.append((trial.trial_id, json.dumps(trial.hyperparameters.values)))
            client.update_trial(trial.trial_id, {"score": float(len(ran) % 5)})
            trial.status = "COMPLETED"
            client.end_trial(trial)

    threads = []
    for number in range(3):
        monkeypatch.setenv("KERASTUNER_TUNER_ID", f"tuner{number}")
        client = oracle_client.OracleClient(oracle)
        threads.append(threading.Thread(target=work, args=[client, f"tuner{number}", number == 0], daemon=True))
    threads[0].start()
    threads[0].join(timeout=20)
    for thread in threads[1:]:
        thread.start()
    for thread in threads[1:]:
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert len({trial for trial, _ in ran}) == len(ran) == len(oracle.trials) == len(oracle.end_order)
    assert not oracle.ongoing_trials and not oracle.tuner_ids
    assert len(ran) >= (6 if name == "hyperband" else 12)
    assert len({values for _, values in ran}) >= len(ran) / 2 and np.isfinite(oracle.get_best_trials()[0].score)
