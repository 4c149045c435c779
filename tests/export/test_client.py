"""The client over real sockets: against TF Serving where it is installed, and against the small server."""

import concurrent.futures
import contextlib
import http.client
import json
import pathlib
import shutil
import socket
import subprocess
import sys
import threading
import time
import types
import urllib.request

import numpy as np
import pytest
import tensorflow as tf
from small_server import Server
from tensorflow_serving.apis import predict_pb2

from darts_tf.cli import configuration, messages
from export import client, savedmodel, serving

ROOT = pathlib.Path(__file__).parents[2]
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


@pytest.fixture(scope="module")
def folder(small, tmp_path_factory):
    """With a model in it, "digits"."""
    folder = tmp_path_factory.mktemp("serving")
    savedmodel.export(small, folder / "digits", top_k=3)
    serving.write_configuration(folder)
    return folder


@pytest.fixture(scope="module")
def expected(small, images):
    return small.probabilities(images)


@pytest.fixture(scope="module", params=["small", *(["tensorflow_model_server"] if REAL else [])])
def servers(request, folder):
    """The addresses of gRPC and REST."""
    if request.param == "small":
        with Server(folder) as server:
            yield server.grpc, server.rest
    else:
        with real_server(folder) as addresses:
            yield addresses


@pytest.fixture(params=["grpc", "rest"])
def kind(request):
    return request.param


def address(servers, kind):
    return servers[kind == "rest"]


def connect(servers, kind, **more):
    made = {"grpc": client.Grpc, "rest": client.Rest}[kind]
    return made(address(servers, kind), more.pop("model", "digits"), **{"timeout": 60.0, **more})


def test_answers_are_those_of_the_model(servers, kind, images, expected, small, png):
    asked = connect(servers, kind)
    for image, probabilities in zip(images[:5], expected[:5], strict=True):
        answer = asked.predict(png(image))
        order = np.argsort(-probabilities)[:3]
        assert [label for label, _ in answer] == [small.labels[i] for i in order]
        np.testing.assert_allclose([value for _, value in answer], probabilities[order], atol=1e-5)
    assert connect(servers, kind, version=1).predict(png(images[0])) == asked.predict(png(images[0]))


@pytest.fixture(scope="module")
def book(folder, spoken):
    """A model "book" beside the others, a language model."""
    savedmodel.export(spoken, folder / spoken.tokens, top_k=3)
    return spoken


def test_texts(folder, book, spoken_by_keras, capsys):
    with Server(folder) as server:
        for kind, address in (("grpc", server.grpc), ("rest", server.rest)):
            asked = connect((address,) * 2, kind, model=book.tokens)
            for text in ("the cat sat", "", "a \u2003 größer\n日本 never"):
                found, (likelihood, count, following) = asked.score(text), spoken_by_keras(book, text)
                assert np.isclose(found.log_likelihood, likelihood, rtol=1e-5) and found.tokens == count
                assert [token for token, _ in found.next] == [token for token, _ in following]
                np.testing.assert_allclose([p for _, p in found.next], [p for _, p in following], rtol=1e-5)
            with pytest.raises(client.ServerError, match="has no such model"):
                connect((address,) * 2, kind, model="magazine").score("a")
            with pytest.raises(client.ServerError, match=r"refused the request: .*serving_text"):
                connect((address,) * 2, kind).score("a")
            options = {"server": address, "rest": kind == "rest", "model": book.tokens}
            assert ask([], text=["the cat", "a"], **options) == 0
            (likelihood, count, following), out = spoken_by_keras(book, "the cat"), capsys.readouterr().out
            listed = ", ".join(f"{token} {p:.1%}" for token, p in following)
            lines = out.splitlines()
            assert lines[0] == f'"the cat"  log-likelihood {likelihood:.2f} of {count} tokens, next {listed}'
            assert lines[1].startswith('"a"  log-likelihood') and " of 1 token, next " in lines[1]
            assert ask([], as_json=True, text=["the cat"], top_k=1, **options) == 0
            found = json.loads(capsys.readouterr().out)
            assert found == {
                "text": "the cat",
                "log_likelihood": pytest.approx(likelihood, rel=1e-5),
                "tokens": count,
                "next": [[following[0][0], pytest.approx(following[0][1], rel=1e-5)]],
            }


def test_200_requests_at_once_of_mixed_sizes_and_one_corrupt_image(servers, kind, images, small, png):
    scales = [1, 2, 3, 7]
    files = [png(np.kron(images[i % 50], np.ones((scales[i % 4],) * 2 + (1,)))) for i in range(200)]
    files[77] = files[77][: len(files[77]) // 2]
    decoded = [tf.io.decode_png(file, channels=1) if i != 77 else tf.zeros([8, 8, 1]) for i, file in enumerate(files)]
    resized = np.stack([tf.round(tf.image.resize(image, [8, 8], antialias=True)) for image in decoded])
    expected = small.probabilities(resized)
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
            assert answer[0][0] == small.labels[expected[i].argmax()]
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
def test_what_the_server_does_not_have(servers, kind, more, message):
    with pytest.raises(client.ServerError, match=message) as caught:
        connect(servers, kind, **more).predict(b"x")
    assert not caught.value.image


def test_no_server_and_no_answer(kind):
    port = free_port()
    with pytest.raises(client.ServerError, match=f"no server answers at localhost:{port}"):
        connect((f"localhost:{port}",) * 2, kind).predict(b"x")
    with socket.socket() as silent:
        silent.bind(("localhost", 0))
        silent.listen()
        port = silent.getsockname()[1]
        with pytest.raises(client.ServerError, match=f"localhost:{port} did not answer within 1 s"):
            connect((f"localhost:{port}",) * 2, kind, timeout=1.0).predict(b"x")


@contextlib.contextmanager
def talking(*parts, pause=0.0):
    """A server on this machine that answers whatever it is asked with these bytes; yields "localhost:PORT"."""
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        listening.listen()

        def answer():
            with contextlib.suppress(OSError), listening.accept()[0] as connection:
                request = connection.makefile("rb")
                head = http.client.parse_headers(request) if request.readline() else {}
                request.read(int(head.get("Content-Length", 0)))
                for part in parts:
                    connection.sendall(part)
                    time.sleep(pause)

        threading.Thread(target=answer, daemon=True).start()
        yield f"localhost:{listening.getsockname()[1]}"


def http_answer(body, status="200 OK", more="", length=None):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body) if length is None else length}\r\n{more}\r\n"
    return head.encode() + body


def row(**changed):
    return {"predictions": [{"classes": ["cat", "dog"], "probabilities": [0.75, 0.25]} | changed]}


STRANGE = "answered, but not as TF Serving does"


@pytest.mark.parametrize(
    "answer, message",
    [
        *[(http_answer(body), STRANGE) for body in ([], "hi", 3, None, {}, {"predictions": {}}, {"predictions": [1]})],
        *[(http_answer(body), STRANGE) for body in (b"", b"<html>", b"\xff", b"[" * 200_000, b"x" * (1 << 24) + b"x")],
        *[(http_answer(row(classes=wrong)), STRANGE) for wrong in ("ab", [1, 2], None, [], ["a"])],
        *[
            (http_answer(row(probabilities=p)), STRANGE)
            for p in (["1", "0"], [float("nan"), 1], [7, 0], [10**400, 0], 1)
        ],
        (http_answer(b'{"predictions"', length=1000), STRANGE),
        (http_answer(b"<html>", "404 Not Found"), "does .HTTP 404."),
        (http_answer(b"{", "500 No", length=1000), STRANGE),
        (http_answer(b"", "302 Found", "Location: http://localhost:1/\r\n"), "does .HTTP 302."),
        (http_answer({"error": "out of\norder"}, "500 No"), "refused the request: out of order"),
        (http_answer({"error": "JSON could not be decoded"}, "400 No"), "refused the request"),
        (http_answer({"error": "no servable"}, "404 Not Found"), "has no such model: no servable"),
        (b"SSH-2.0\r\n", STRANGE),
        (b"", "no server answers"),
    ],
)
def test_strange_answers(answer, message):
    with talking(answer) as server, pytest.raises(client.ServerError, match=message) as caught:
        client.Rest(server, "digits").predict(b"x")
    assert not caught.value.image


@pytest.mark.parametrize("results", [[], 5, None, [["a"]], [["a", 1], 3], [["a", "b"]]])
def test_strange_answers_to_rows(results, monkeypatch):
    monkeypatch.setattr(client.Rest, "_table", lambda self: ({"age": "DT_FLOAT"}, "classify"))
    with talking(http_answer({"results": [results]})) as server, pytest.raises(client.ServerError, match=STRANGE):
        client.Rest(server, "people").predict_row({"age": 3})


@pytest.mark.parametrize(
    "changed",
    [
        *(
            {"log_likelihood": wrong}
            for wrong in (None, "-1", True, 1.0, float("nan"), -(10**400), float("-inf"), [-1.0])
        ),
        *({"tokens": wrong} for wrong in (None, "1", 1.5, -1, [1])),
        *({"next": wrong} for wrong in ("the", [1], None, [])),
        {"next_probabilities": [2.0]},
    ],
)
def test_strange_answers_to_texts(changed):
    usual = {"log_likelihood": -1.5, "tokens": 2, "next": ["the"], "next_probabilities": [0.5]}
    with talking(http_answer({"predictions": [usual]})) as server:
        assert client.Rest(server, "book").score("a") == (-1.5, 2, [("the", 0.5)])
    strange = http_answer({"predictions": [usual | changed]})
    with talking(strange) as server, pytest.raises(client.ServerError, match=STRANGE):
        client.Rest(server, "book").score("a")


@pytest.mark.parametrize(
    "parts",
    [
        [b"HTTP/1.1 200 OK\r\n\r\n", *[b" "] * 50],
        [b"HTTP/1.1 200 OK\r\n", *[b"X: 1\r\n"] * 50],
        [b"HTTP/1.1 200 OK\r\nX: ", *[b"1"] * 50],
    ],
)
def test_the_time_is_for_the_whole_answer(parts):
    start = time.monotonic()
    with talking(*parts, pause=0.1) as server, pytest.raises(client.ServerError, match=r"did not answer within 0\.5 s"):
        client.Rest(server, "digits", timeout=0.5).predict(b"x")
    assert time.monotonic() - start < 3


@pytest.mark.parametrize(
    "changed",
    [
        {"classes": None},
        {"probabilities": None},
        {"classes": np.ones((1, 2))},
        {"classes": [[b"\xff", b"a"]]},
        {"classes": b"cat"},
        {"probabilities": [[b"1", b"0"]]},
        {"probabilities": np.ones(2, np.int32)},
        {"probabilities": np.ones((0, 2), np.float32)},
        {"probabilities": np.full((1, 2), np.nan, np.float32)},
        {"huge": True},
    ],
)
def test_strange_tensors(changed):
    outputs = {"classes": [[b"cat", b"dog"]], "probabilities": np.array([[0.75, 0.25]], np.float32)} | changed
    huge = outputs.pop("huge", False)
    tensors = {name: tf.make_tensor_proto(value) for name, value in outputs.items() if value is not None}
    if huge:
        tensors["probabilities"].tensor_shape.dim[1].size = 1 << 40
    asked = client.Grpc("localhost:1", "digits")
    asked._stub = types.SimpleNamespace(Predict=lambda *_, **__: predict_pb2.PredictResponse(outputs=tensors))
    with pytest.raises(client.ServerError, match=STRANGE):
        asked.predict(b"x")


def ask(names, as_json=False, **values):
    """The exit code of the command, run in this process."""
    with messages.spoken(as_json=as_json), pytest.raises(SystemExit) as ended:
        client.main(client.ClientConfig(**values), [*map(str, names)])
    return ended.value.code


def test_classes_of_one_name_or_odd_ones(tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(b"x")
    with talking(http_answer(row(classes=["crane", "crane"]))) as server:
        assert ask([tmp_path / "a.png"], as_json=True, server=server, rest=True, top_k=2) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["predictions"] == [["crane", 0.75], ["crane", 0.25]] and found["classes"] == {"crane": 0.75}
    with talking(http_answer(row(classes=["a\udcff", "b"]))) as server:
        assert ask([tmp_path / "a.png"], server=server, rest=True) == 0
    assert capsys.readouterr().out == f"{tmp_path}/a.png  a\\udcff 75.0%\n"


def test_the_command(servers, images, expected, small, png, tmp_path, capsys):
    """As a process by gRPC, of which TensorFlow has much to say; as a function by REST."""
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(png(images[number]))
    (tmp_path / "broken.png").write_bytes(b"no")
    files = [tmp_path / "0.png", tmp_path / "broken.png", tmp_path / "missing.png", tmp_path / "1.png"]
    grpc, rest = servers
    command = [sys.executable, "-m", "export.client", *files, f"--server={grpc}", "--model=digits", "--timeout=60"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    lines = [
        f"{tmp_path}/{number}.png  {small.labels[expected[number].argmax()]} {expected[number].max():.1%}"
        for number in range(2)
    ]
    assert done.stdout.splitlines() == lines
    assert [line.partition(": ")[2].split(": ")[1] for line in done.stderr.splitlines()] == [
        "the server cannot decode it",
        "No such file or directory",
    ]
    options = {"server": rest, "rest": True, "model": "digits", "timeout": 60}
    assert ask(files, **options) == 1 and capsys.readouterr() == (done.stdout, done.stderr)
    assert ask(files[:1], as_json=True, top_k=2, **options) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["image"] == str(files[0]) and next(iter(found["classes"])) == small.labels[expected[0].argmax()]
    assert list(found["classes"].values()) == pytest.approx(sorted(expected[0])[:-3:-1], abs=1e-4)


def test_files_that_are_no_images(tmp_path, capsys):
    (tmp_path / "endless").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    names = [tmp_path, tmp_path / "endless", tmp_path / "loop", "x" * 300]
    assert ask(names, server="localhost:1", rest=True) == 1
    out, err = capsys.readouterr()
    said = ["Is a directory", "larger than 256 MiB: expected an image", "Too many levels", "File name too long"]
    assert not out and len(err.splitlines()) == 4
    assert all(text in line for text, line in zip(said, err.splitlines(), strict=True)), err


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--server=here"], "--server=here: expected HOST:PORT"),
        (["--rest", "--grpc"], "--rest and --grpc given: expected one of them"),
        (
            ["--server=localhost:1", "--rest"],
            "no server answers at localhost:1: .*; --server=localhost:1 --model=model",
        ),
        (["--server=a b:80", "--rest"], "--server=a b:80: expected HOST:PORT"),
        (["--server=localhost:99999", "--rest"], "--server=localhost:99999: expected HOST:PORT"),
        (["--server=::1:80", "--rest"], "--server=::1:80: expected HOST:PORT"),
        (["--server=http://localhost:80"], "--server=http://localhost:80: expected HOST:PORT"),
        (["--server=[::1]:1", "--rest"], r"no server answers at \[::1\]:1: "),
        ([f"--server={'x' * 70}:1", "--rest"], "no server answers at xxx"),
        (["--timeout=nan"], "--timeout=nan: expected a finite number"),
        (["--timeout=inf"], "--timeout=inf: expected a finite number"),
        (["--model="], "--model=: expected a name"),
        (["--model=a b"], "--model=a b: expected a name"),
        (["--signature=\udcff"], "--signature=.*: expected a name"),
        (["--version=99999999999999999999", "--rest"], "--version"),
        (["--text=a, b", "--text=c"], r"--text and .*README.md given: expected texts, rows or images"),
        (["--text=\udcff"], "--text=.*: expected a text in UTF-8"),
    ],
)
def test_wrong_flags(flags, message):
    with pytest.raises(messages.UsageError, match=message) as caught:
        client.main(configuration.parse(client.ClientConfig, flags), [str(ROOT / "README.md")])
    assert "\n" not in str(caught.value)


def test_each_text_has_a_flag():
    config = configuration.parse(client.ClientConfig, ["--text=a, b", "--text="])
    assert config.text == ["a, b", ""] == client.ClientConfig(text=("a, b", "")).text


def test_no_image():
    command = [sys.executable, "-m", "export.client"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "",
        "error: expected IMAGE ..., --text or --row, see --help.\n",
    )
