"""Jobs on several machines: here, processes on one machine that talk over the network."""

import json
import os
import socket
import time

import numpy as np
import pytest
import tensorflow as tf
from processes import Process, run

from darts_tf.devices import cluster, replicas
from darts_tf.runs import rundirectory

GENOTYPE = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('dil_conv_3x3', 1)], normal_concat=[2], "
    "reduce=[('max_pool_3x3', 0), ('skip_connect', 1)], reduce_concat=[2])"
)
SEARCH = ["darts_tf.search", "--nodes=1", "--primitives=skip_connect,dil_conv_3x3"]
TRAIN = ["darts_tf.train", f"--arch={GENOTYPE}", "--auxiliary", "--train_portion=0.5", "--early_stopping=2"]
TRAIN += ["--ema=0.9", "--gradient_accumulation=2", "--class_weight=balanced", "--randaugment=1"]
BOUND = 30_000  # parameters; the smallest network has 28,403
SIZE = ["--layers=3", "--init_channels=4", "--batch_size=8"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Few images, of noise: rounding errors hardly ever move a value across a corner of a ReLU."""
    draw, file = np.random.default_rng(0), tmp_path_factory.mktemp("data") / "noise.npz"
    x, y = draw.integers(0, 256, (89, 8, 8, 3), np.uint8), draw.integers(0, 3, 89)
    np.savez(file, x_train=x[:80], y_train=y[:80], x_test=x[80:], y_test=y[80:])
    return file


def free_ports(count):
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def begin(command, output, index=0, ports=()):
    flags, environment = [f"--output={output}"], os.environ
    if ports:
        cluster = {"worker": [f"localhost:{port}" for port in ports]}
        config = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
        flags, environment = [*flags, "--strategy=multi_worker"], {**os.environ, "TF_CONFIG": config}
    return Process(*command, *SIZE, *flags, env=environment)


def end(*processes):
    results = [process.communicate(timeout=280) for process in processes]
    for process, (_, errors) in zip(processes, results, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return results


def newest(output):
    with np.load(max((output / "checkpoints").glob("step-*.npz"))) as arrays:
        return {name: arrays[name] for name in arrays.files}


@pytest.mark.parametrize(
    "command",
    [pytest.param(SEARCH, marks=pytest.mark.slow), pytest.param(TRAIN, marks=pytest.mark.soak)],
    ids=["search", "train"],
)
def test_two_workers_equal_one_process(command, images, tmp_path):
    command = [*command, f"--dataset={images}", "--epochs=1", "--sync_batch_norm"]
    ports = free_ports(2)
    pair = [begin(command, tmp_path / f"worker{index}", index, ports) for index in range(2)]
    (printed, told), (silent, waited) = end(*pair)
    end(begin(command, tmp_path / "one"))
    assert "epoch 1/1" in told and "Saved" in printed and not (tmp_path / "worker1").exists()
    assert silent == "" and "epoch" not in waited
    assert {path.name for path in (tmp_path / "worker0").iterdir()} == {
        path.name for path in (tmp_path / "one").iterdir()
    }
    ours, theirs = newest(tmp_path / "worker0"), newest(tmp_path / "one")
    assert ours["step"] == 5
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-4, atol=1e-4, err_msg=name)
    rows = [(tmp_path / run / "history.csv").read_text().splitlines()[1].split(",")[:5] for run in ("worker0", "one")]
    np.testing.assert_allclose(*(np.array(row, float) for row in rows), rtol=1e-5)


@pytest.mark.slow
def test_workers_of_different_configurations(images, tmp_path):
    ports = free_ports(2)
    pair = [
        begin([*SEARCH, f"--dataset={images}", f"--seed={index}"], tmp_path / "run", index, ports) for index in range(2)
    ]
    _, errors = pair[1].communicate(timeout=120)
    assert pair[1].returncode == 2 and "error: seed=1: the run of the chief" in errors and "has 0; expected" in errors
    pair[0].kill()
    pair[0].communicate()


@pytest.mark.slow
def test_workers_that_are_killed_and_come_back(images, tmp_path):
    command = [*SEARCH, f"--dataset={images}", "--epochs=4", "--checkpoint_every=2"]
    command += ["--primitives=skip_connect,nor_conv_1x1", f"--max_parameters={BOUND}"]
    broken, whole = ([tmp_path / run / f"worker{index}" for index in range(2)] for run in ("broken", "whole"))
    ports, notices = free_ports(2), []
    pair = [begin(command, broken[index], index, ports) for index in range(2)]
    for killed, after in ((1, 4), (0, 10)):
        while not (broken[0] / "checkpoints" / f"step-{after:08}.npz").exists():
            assert all(process.poll() is None for process in pair)
            time.sleep(0.01)
        pair[killed].kill()
        notices.append(pair[killed].communicate()[1])
        pair[killed] = begin(command, broken[killed], killed, ports)
    results = end(*pair)
    lost = "going on from the last checkpoint when it is back."
    assert lost in notices[1] and lost in results[1][1] and "Going on after" in results[0][1]

    ports = free_ports(2)
    end(*(begin(command, whole[index], index, ports) for index in range(2)))
    broken, whole = newest(broken[0]), newest(whole[0])
    assert broken["step"] == whole["step"] == 20
    for name, value in whole.items():
        np.testing.assert_allclose(broken[name], value, rtol=1e-6, atol=1e-7, err_msg=name)
    rows = rundirectory.history(tmp_path / "whole" / "worker0")
    assert rows[0]["strongest_parameters"] > BOUND >= rows[-1]["parameters"]
    assert not (tmp_path / "whole" / "worker1").exists()


def test_workers_of_tf_config(monkeypatch):
    def told(addresses, kind, index):
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": addresses, "task": {"type": kind, "index": index}}))
        return cluster.from_environment()

    monkeypatch.setattr(cluster, "check_port", lambda host, port: None)
    assert told({"worker": ["a:1", "b:2"]}, "worker", 1) == (cluster.Worker(1, 2), ["a:1", "b:2"])
    with_chief = {"worker": ["a:1", "b:2"], "chief": ["c:3"], "evaluator": ["d:4"]}
    assert told(with_chief, "worker", 1) == (cluster.Worker(2, 3), ["c:3", "a:1", "b:2"])
    assert told(with_chief, "chief", 0)[0].is_chief
    monkeypatch.delenv("TF_CONFIG")
    with pytest.raises(ValueError, match="TF_CONFIG is not set: expected"):
        cluster.from_environment()


def tf_config(workers, kind="worker", index=0, **more):
    return {"cluster": {"worker": workers, **more}, "task": {"type": kind, "index": index}}


@pytest.mark.parametrize(
    "config, wrong",
    [
        ("{", "it is no JSON"),
        ("[" * 100_000, "it is nested too deeply"),
        (["a:1"], "it is no object"),
        ({"cluster": ["a:1"], "task": {}}, "its cluster is no object"),
        ({"cluster": {"worker": ["a:1"]}, "task": "worker"}, "its task is no object"),
        (tf_config([]), "its cluster lists nobody"),
        (tf_config("a:1"), "its worker is no list"),
        (tf_config([1]), "its worker has 1, which is no text"),
        (tf_config(["a"]), "'a' is not HOST:PORT"),
        (tf_config(["grpc://a:1"]), "is not HOST:PORT"),
        (tf_config(["a:0"]), "'0' is no port from 1 to 65535"),
        (tf_config(["a:99999"]), "'99999' is no port"),
        (tf_config(["a:http"]), "'http' is no port"),
        (tf_config(["a:1", "a:1"]), "'a:1' is there twice"),
        (tf_config(["a:1"], chief=["b:1", "c:1"]), "its cluster has several chiefs"),
        (tf_config(["a:1"], ps=["b:1"]), "its cluster has 'ps'"),
        (tf_config(["a:1"], kind="ps"), "its task is of type 'ps'"),
        (tf_config(["a:1"], kind="evaluator", evaluator=["b:1"]), "its task is of type 'evaluator'"),
        (tf_config(["a:1"], index=1), "its cluster has no worker 1"),
        (tf_config(["a:1"], index=-1), "its cluster has no worker -1"),
        (tf_config(["a:1"], index="0"), "the index of its task is '0', which is no whole number"),
        (tf_config(["a:1"], index=0.5), "is 0.5, which is no whole number"),
        (tf_config(["a:1"], index=True), "is True, which is no whole number"),
    ],
)
def test_wrong_tf_config(config, wrong, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(ValueError, match=r"^TF_CONFIG=.*expected \{\"cluster\"") as raised:
        cluster.from_environment()
    assert wrong in str(raised.value)


def test_a_port_that_is_in_use(monkeypatch):
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("TF_CONFIG", json.dumps(tf_config([f"localhost:{port}"])))
        with pytest.raises(ValueError, match=f"port {port} of this machine cannot be used .*in use"):
            cluster.from_environment()
    assert cluster.from_environment()[0] == cluster.ALONE
    with pytest.raises(ValueError, match="no machine of this name is known"):
        cluster.check_port("no.such.host.invalid", port)


def test_waits_are_told_of_and_end(monkeypatch):
    now, said = [100.0], []
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    wait = cluster.Wait("the chief", 100, said.append, "expected it.")
    for now[0] in (129, 131, 140, 161):
        wait.check()
    assert said == [f"Waiting for the chief ({waited} of 100 seconds) ..." for waited in (31, 61)]
    wait.again(150)  # when something was heard
    now[0] = 249
    wait.check()
    now[0] = 250
    with pytest.raises(cluster.LostError, match=r"^waited 100 seconds .* for the chief; expected it.$"):
        wait.check()


@pytest.mark.slow
def test_a_worker_whose_command_line_is_wrong_does_not_keep_the_others(images, tmp_path):
    ports = free_ports(2)
    command = [*SEARCH, f"--dataset={images}", "--worker_timeout=10"]
    good, wrong = begin(command, tmp_path, 0, ports), begin([*command, "--epochs=no"], tmp_path, 1, ports)
    assert wrong.wait(timeout=60) == 2
    wrong.communicate()
    _, errors = good.communicate(timeout=120)
    assert good.returncode == 1
    assert errors.splitlines()[-1].startswith(f"error: waited 10 seconds (--worker_timeout) for localhost:{ports[1]};")
    assert not list(tmp_path.iterdir())


ALONE = json.dumps({"cluster": {"worker": ["localhost:1"]}, "task": {"type": "worker", "index": 0}})


@pytest.mark.parametrize(
    "config, flags, message",
    [
        ("", ["--output=run"], "--strategy=multi_worker: TF_CONFIG is not set"),
        (ALONE, ["--output=run", "--overwrite"], "--strategy=multi_worker with --overwrite: expected an --output"),
        (ALONE, [], "--strategy=multi_worker with no --output: expected an --output to go on in"),
    ],
)
def test_jobs_that_could_not_go_on_are_refused(config, flags, message, tmp_path):
    environment = {**os.environ, "TF_CONFIG": config}
    done = run("darts_tf.search", "--strategy=multi_worker", *flags, cwd=tmp_path, env=environment)
    assert done.returncode == 2 and message in done.stderr and not list(tmp_path.iterdir())


def test_parts_of_batches_for_the_devices_of_a_worker():
    x = np.arange(7 * 2).reshape(7, 2)
    whole = tf.data.Dataset.from_tensor_slices((x, x[:, 0])).batch(4, drop_remainder=True)
    parts = replicas.split(whole, 2)
    assert [spec.shape for spec in parts.element_spec] == [(2, 2), (2,)]
    np.testing.assert_array_equal([y for _, y in parts], [[0, 4], [2, 6]])
    ragged = replicas.split(tf.data.Dataset.from_tensors(((x,), x)).batch(1).unbatch(), 3)
    assert [len(y) for _, y in ragged] == [3, 2, 2]
