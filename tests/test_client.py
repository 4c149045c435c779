"""The client over real sockets: against TF Serving where it is installed, and against the small server."""

import concurrent.futures
import contextlib
import json
import pathlib
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import numpy as np
import pytest
import tensorflow as tf
from small_server import Server

from export import client

ROOT = pathlib.Path(__file__).parent.parent
REAL = shutil.which("tensorflow_model_server")


def free_port():
    with socket.socket() as held:
        held.bind(("localhost", 0))
        return held.getsockname()[1]


@contextlib.contextmanager
def real_server(folder):
    """TF Serving itself, with batching as exported."""
    grpc, rest = free_port(), free_port()
    config = folder / "here.config"
    config.write_text((folder / "models.config").read_text().replace("/models/", f"{folder}/"))
    command = [REAL, f"--port={grpc}", f"--rest_api_port={rest}", f"--model_config_file={config}"]
    command += ["--enable_batching", f"--batching_parameters_file={folder}/batching.config"]
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://localhost:{rest}/v1/models/digits", timeout=1).close()
                break
            time.sleep(0.2)
        yield f"localhost:{grpc}", f"localhost:{rest}"
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module", params=["small", *(["tensorflow_model_server"] if REAL else [])])
def servers(request, base):
    """The addresses of gRPC and REST."""
    if request.param == "small":
        with Server(base.parent) as server:
            yield server.grpc, server.rest
    else:
        with real_server(base.parent) as addresses:
            yield addresses


@pytest.fixture(params=["grpc", "rest"])
def kind(request):
    return request.param


def address(servers, kind):
    return servers[kind == "rest"]


def connect(servers, kind, **more):
    made = {"grpc": client.Grpc, "rest": client.Rest}[kind]
    return made(address(servers, kind), more.pop("model", "digits"), **{"timeout": 60.0, **more})


def png(image):
    return tf.io.encode_png(image.astype(np.uint8)).numpy()


def test_answers_are_those_of_the_model(servers, kind, images, expected, digits):
    asked = connect(servers, kind)
    for image, probabilities in zip(images[:5], expected[:5], strict=True):
        answer = asked.predict(png(image))
        order = np.argsort(-probabilities)[:3]
        assert [label for label, _ in answer] == [digits.labels[i] for i in order]
        np.testing.assert_allclose([value for _, value in answer], probabilities[order], atol=1e-5)
    assert connect(servers, kind, version=1).predict(png(images[0])) == asked.predict(png(images[0]))


def test_200_requests_at_once_of_mixed_sizes_and_one_corrupt_image(servers, kind, images, digits):
    scales = [1, 2, 3, 7]
    files = [png(np.kron(images[i % 50], np.ones((scales[i % 4],) * 2 + (1,)))) for i in range(200)]
    files[77] = files[77][: len(files[77]) // 2]
    decoded = [tf.io.decode_png(file, channels=1) if i != 77 else tf.zeros([8, 8, 1]) for i, file in enumerate(files)]
    small = np.stack([tf.round(tf.image.resize(image, [8, 8], antialias=True)) for image in decoded])
    expected = digits.probabilities(small)
    asked = connect(servers, kind)

    def ask(file):
        try:
            return asked.predict(file)
        except client.ServerError as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(ask, files, timeout=120))
    for i, answer in enumerate(answers):
        if i == 77:
            assert isinstance(answer, client.ServerError) and answer.image
        else:
            assert answer[0][0] == digits.labels[expected[i].argmax()]
            assert np.isclose(answer[0][1], expected[i].max(), atol=1e-5)


@pytest.mark.parametrize(
    "more, message",
    [
        ({"model": "cats"}, "has no such model"),
        ({"version": 9}, "has no such model"),
        ({"signature": "serving_sounds"}, "refused the request: .*serving_sounds"),
        ({"signature": "serving_default"}, "refused the request"),
    ],
)
def test_what_the_server_does_not_have(servers, kind, more, message, images):
    with pytest.raises(client.ServerError, match=message) as caught:
        connect(servers, kind, **more).predict(png(images[0]))
    assert not caught.value.image


def test_no_server_and_no_answer(kind, images):
    port = free_port()
    with pytest.raises(client.ServerError, match=f"no server answers at localhost:{port}"):
        connect((f"localhost:{port}",) * 2, kind).predict(png(images[0]))
    with socket.socket() as silent:
        silent.bind(("localhost", 0))
        silent.listen()
        port = silent.getsockname()[1]
        with pytest.raises(client.ServerError, match=f"localhost:{port} did not answer within 1 s"):
            connect((f"localhost:{port}",) * 2, kind, timeout=1.0).predict(png(images[0]))


def test_something_else_than_a_server():
    with socket.socket() as other:
        other.bind(("localhost", 0))
        other.listen()

        def answer():
            connection, _ = other.accept()
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
            connection.close()

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(client.ServerError, match="answered, but not as TF Serving does"):
            client.Rest(f"localhost:{other.getsockname()[1]}", "digits").predict(b"x")


def run(*arguments):
    command = [sys.executable, "-m", "export.client", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command(servers, kind, images, expected, digits, tmp_path):
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(png(images[number]))
    (tmp_path / "broken.png").write_bytes(b"no")
    files = [tmp_path / "0.png", tmp_path / "broken.png", tmp_path / "missing.png", tmp_path / "1.png"]
    done = run(*files, f"--server={address(servers, kind)}", f"--{kind}", "--model=digits", "--timeout=60")
    assert done.returncode == 1
    lines = [
        f"{tmp_path}/{number}.png  {digits.labels[expected[number].argmax()]} {expected[number].max():.1%}"
        for number in range(2)
    ]
    assert done.stdout.splitlines() == lines
    assert [line.partition(": ")[2].split(": ")[1] for line in done.stderr.splitlines()] == [
        "the server cannot decode it",
        "No such file or directory",
    ]
    done = run(files[0], f"--server={address(servers, kind)}", f"--{kind}", "--model=digits", "--top_k=2", "--json")
    found = json.loads(done.stdout)
    assert found["image"] == str(files[0]) and next(iter(found["classes"])) == digits.labels[expected[0].argmax()]
    assert list(found["classes"].values()) == pytest.approx(sorted(expected[0])[:-3:-1], abs=1e-4)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "expected IMAGE ..., see --help"),
        (["a.png", "--server=here"], "--server=here: expected HOST:PORT"),
        (["a.png", "--rest", "--grpc"], "--rest and --grpc given: expected one of them"),
        (["README.md", "--server=localhost:1", "--rest"], "no server answers at localhost:1: "),
    ],
)
def test_wrong_command_lines(arguments, message):
    done = run(*arguments)
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
