"""The export of language models, of words and of characters."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_language_model import CHARACTERS, WORDS, step_of

from darts_tf.cli import messages
from darts_tf.cli.files import save_model
from darts_tf.private.keras import layers_within
from export import ExportConfig, comparison, language, models, representative, run_export, savedmodel, tflite
from export import labels as files_of_labels
from export.__main__ import main
from export.tokenization import kind_of, split, split_in_graph

TEXTS = ["the cat sat", "", "a größer mat 日本\u3000cat \U0001f600 é never\tabcab", "  \n", "<unk> <eos> the", "cat"]


@pytest.fixture(scope="module")
def version(spoken, tmp_path_factory):
    return savedmodel.export(spoken, tmp_path_factory.mktemp("serving") / "book", top_k=3)


@pytest.fixture(scope="module")
def signatures(version):
    model = tf.saved_model.load(str(version))
    yield model.signatures


def test_tokens_in_the_graph_are_those_of_python():
    every = [chr(code) for code in range(1, sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    texts = ["a".join(every[i : i + 50_000]) for i in range(0, len(every), 50_000)]
    texts += ["", " ", "\u2003a\u2003", "a b", "\ufeffa\u200bb\r\nc", "a\0b c"]
    for kind in ("words", "characters"):
        found = split_in_graph(tf.constant(texts), kind).to_list()
        assert [[token.decode() for token in tokens] for tokens in found] == [split(text, kind) for text in texts]
    broken = [b"a\xff \xf0\x9fb", b"\xed\xa0\x80"]
    found = [[token.decode() for token in tokens] for tokens in split_in_graph(tf.constant(broken), "words").to_list()]
    assert found == [content.decode(errors="replace").split() for content in broken]


def test_one_step_of_the_saved_model(spoken, signatures):
    rng = np.random.default_rng(0)
    for batch in (1, 5, 0):
        tokens = rng.integers(0, 20, batch, np.int32)
        state = rng.uniform(-1, 1, (batch, 8)).astype(np.float32)
        found = signatures["serving_default"](tokens=tf.constant(tokens), state=tf.constant(state))
        assert found.keys() == {"log_probabilities", "state"} and found["log_probabilities"].shape == (batch, 20)
        if batch:
            log_probabilities, after = spoken.step(tokens, state)
            np.testing.assert_allclose(found["log_probabilities"], log_probabilities, atol=1e-5)
            np.testing.assert_allclose(found["state"], after, atol=1e-6)
            np.testing.assert_allclose(np.exp(log_probabilities).sum(1), 1, rtol=1e-5)
    state, unknown = tf.zeros([3, 8]), spoken.numbers["<unk>"]
    found = signatures["serving_default"](tokens=tf.constant([20, -1, unknown]), state=state)["log_probabilities"]
    assert (found.numpy() == found.numpy()[2]).all()


def test_texts_of_all_lengths_in_a_batch(spoken, spoken_by_keras, signatures):
    together = signatures["serving_text"](text=tf.constant(TEXTS))
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in together.items()} == {
        "log_likelihood": (tf.float32, (6,)),
        "tokens": (tf.int32, (6,)),
        "next": (tf.string, (6, 3)),
        "next_probabilities": (tf.float32, (6, 3)),
    }
    for place, text in enumerate(TEXTS):
        likelihood, count, following = spoken_by_keras(spoken, text)
        alone = signatures["serving_text"](text=tf.constant([text]))
        for found, row in ((together, place), (alone, 0)):
            np.testing.assert_allclose(found["log_likelihood"][row], likelihood, rtol=1e-5)
            assert found["tokens"][row] == count == len(split(text, spoken.tokens))
            assert [token.decode() for token in found["next"][row].numpy()] == [token for token, _ in following]
            np.testing.assert_allclose(found["next_probabilities"][row], [p for _, p in following], rtol=1e-5)
    assert together["log_likelihood"][1] == 0 and together["tokens"][1] == 0
    nothing = signatures["serving_text"](text=tf.constant([], tf.string))
    assert {name: tensor.shape for name, tensor in nothing.items()} == {
        "log_likelihood": (0,),
        "tokens": (0,),
        "next": (0, 3),
        "next_probabilities": (0, 3),
    }


def test_a_long_text(spoken, signatures):
    numbers = np.random.default_rng(0).integers(0, 10, 2000)
    text = spoken.join(numbers)
    found = signatures["serving_text"](text=tf.constant(["a", text]))
    steps = comparison.Text(spoken, np.array([spoken.numbers["<eos>"], *spoken.encode(text)]))
    assert steps.tokens.shape == (32, 62) and found["tokens"][1] >= 2000
    assert -20 < found["log_likelihood"][1] / 2000 < -1


def test_assets_and_warm_up(spoken, version, signatures):
    assert files_of_labels.from_bytes((version / "assets" / "vocabulary.txt").read_bytes()) == spoken.vocabulary
    from tensorflow_serving.apis import prediction_log_pb2

    records = tf.data.TFRecordDataset(str(version / "assets.extra" / "tf_serving_warmup_requests"))
    requests = [prediction_log_pb2.PredictionLog.FromString(r.numpy()).predict_log.request for r in records]
    assert {request.model_spec.signature_name for request in requests} == {"serving_default", "serving_text"}
    for request in requests:
        assert request.model_spec.name == "book"
        inputs = {key: tf.constant(tf.make_ndarray(value)) for key, value in request.inputs.items()}
        assert signatures[request.model_spec.signature_name](**inputs)


def test_it_loads_without_this_package(spoken, spoken_by_keras, version, tmp_path):
    script = """
import sys
sys.modules.update({"keras": None, "darts_tf": None, "export": None})
import tensorflow as tf
with tf.compat.v1.Session(graph=tf.Graph()) as session:
    meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], sys.argv[1])
    signature = meta.signature_def["serving_text"]
    output = signature.outputs["log_likelihood"].name
    print(session.run(output, {signature.inputs["text"].name: ["the cat sat", "größer"]}).tolist())
"""
    command = [sys.executable, "-c", script, version]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = [spoken_by_keras(spoken, text)[0] for text in ("the cat sat", "größer")]
    np.testing.assert_allclose(json.loads(done.stdout), expected, rtol=1e-5)


@pytest.mark.parametrize("quantize, difference", [("none", 1e-5), ("float16", 1e-2), ("dynamic", 0.1)])
def test_tflite(quantize, difference, spoken):
    content = tflite.convert(spoken, quantize)
    assert tflite.labels_of(content) == spoken.vocabulary
    interpreter = comparison._interpreter(content)
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["state", "tokens"], "outputs": ["log_probabilities", "state"]}
    }
    tokens = np.random.default_rng(0).integers(0, 20, 256, np.int32)
    sample = comparison.Text(spoken, tokens)
    expected, found = sample.measure(sample.keras), sample.measure(sample.tflite(content))
    assert expected["max_difference"] == 0 and expected["agreement"] == 1 and expected["perplexity"] > 20
    assert found["max_difference"] < difference and found["agreement"] > 0.97
    np.testing.assert_allclose(found["perplexity"], expected["perplexity"], rtol=10 * difference)


def test_perplexity_is_that_of_the_rows(spoken):
    """The rows begin with a state of zero, and nothing predicts their first tokens."""
    tokens = np.random.default_rng(0).integers(0, 20, 70, np.int32)
    sample = comparison.Text(spoken, tokens)
    assert sample.tokens.shape == (32, 2) and (sample.tokens.ravel() == tokens[:64]).all()
    log_probabilities, _ = spoken.step(tokens[:64:2], np.zeros((32, 8), np.float32))
    expected = np.exp(-log_probabilities[np.arange(32), tokens[1:64:2]].mean())
    assert np.isclose(sample.measure(sample.keras)["perplexity"], expected)


def test_steps_are_compared_from_the_same_states_and_perplexity_from_its_own(spoken):
    sample = comparison.Text(spoken, np.random.default_rng(0).integers(0, 20, 320, np.int32))

    def forgets(tokens, state):
        log_probabilities, after = spoken.step(tokens, state)
        return log_probabilities, np.zeros_like(after)

    expected, found = sample.measure(sample.keras), sample.measure(forgets)
    assert (found["max_difference"], found["agreement"]) == (0, 1)
    assert abs(found["perplexity"] / expected["perplexity"] - 1) > 0.01


def saved_run(folder, spoken, **config):
    """A run directory; returns the path of its model."""
    save_model(spoken.model, folder / "model.keras")
    described = {"tokens": spoken.tokens, "vocabulary": spoken.vocabulary}
    (folder / "config.json").write_text(json.dumps({"task": "language_model", "data": described, **config}))
    return folder / "model.keras"


def test_a_run_from_end_to_end(spoken, tmp_path, capsys):
    (tmp_path / "book").mkdir()
    line = "the cat sat on a mat , größer 日本 never\n" * 40
    for split_name in ("train", "valid", "test"):
        (tmp_path / "book" / f"{split_name}.txt").write_text(line, encoding="utf-8")
    model = saved_run(tmp_path, spoken, dataset=str(tmp_path / "book"))
    config = ExportConfig(model=model, output=tmp_path / "out", name="lm", quantize=["none", "dynamic"], top_k=2)
    with messages.spoken(0), pytest.raises(SystemExit) as ended:
        main(config)
    assert ended.value.code == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    columns = ["format", "size", "perplexity", "max. difference", "same token", "ms, batch 1", "ms, batch 32"]
    assert [title.strip() for title in lines[0].split("  ") if title] == columns and not err
    assert [line.split("  ")[0] for line in lines[1:5]] == ["Keras", "SavedModel", "TFLite float32", "TFLite dynamic"]
    assert lines[6].startswith(f"Saved {tmp_path}/out/lm/1/")
    begun = "the cat sat on a mat , größer" if spoken.tokens == "words" else None
    assert lines[-1].startswith(f'{tmp_path}/out/lm/1 goes on after "{begun or ""}')
    done = run_export(config.replace(saved_model=False, quantize=["none"]), verbose=0)
    tokens, drawn = representative.test_tokens(config, language.load(model))
    expected = comparison.Text(spoken, tokens).measure(spoken.step)
    assert not drawn and done.example is None
    assert [row["format"] for row in done.rows] == ["Keras", "TFLite float32"]
    np.testing.assert_allclose([row["perplexity"] for row in done.rows], expected["perplexity"], rtol=1e-4)
    assert (tmp_path / "out" / "tflite" / "lm-dynamic.tflite").exists()


def test_without_text(spoken, tmp_path, capsys):
    """And without a config.json: the vocabulary is in a file, and what the tokens are can be seen from it."""
    step_of(20).save(tmp_path / "lm.keras")
    tokens = [token for token in spoken.vocabulary if token != "\u00a0"] + ["k"] * ("\u00a0" in spoken.vocabulary)
    (tmp_path / "tokens.txt").write_bytes("\r\n".join(tokens).encode())
    config = ExportConfig(
        model=tmp_path / "lm.keras", output=tmp_path / "out", quantize=[], vocabulary=tmp_path / "tokens.txt"
    )
    done = run_export(config)
    assert done.example is None and [row["format"] for row in done.rows] == ["Keras", "SavedModel"]
    assert done.rows[1]["agreement"] == 1 and done.rows[1]["max_difference"] < 1e-5
    made = language.load(config.model, tokens)
    assert (made.vocabulary, made.tokens) == (tokens, spoken.tokens) == (tokens, kind_of(tokens))
    assert "No --dataset: comparing on random tokens." in capsys.readouterr().err
    model = saved_run(tmp_path, spoken, dataset="gone.txt")
    representative.test_tokens(config.replace(model=str(model)), spoken)
    assert "Without --dataset=gone.txt, of the run that made the model: no such file" in capsys.readouterr().err


def test_mixed_precision(tmp_path, request):
    request.addfinalizer(lambda: keras.config.set_dtype_policy("float32"))
    model = step_of(20, policy="mixed_bfloat16")
    model.save(tmp_path / "model.keras")
    made = language.load(tmp_path / "model.keras", WORDS)
    assert {layer.compute_dtype for layer in layers_within(made.model)} <= {"float32", "int32"}
    tokens, state = np.arange(4, dtype=np.int32), np.zeros((4, 8), np.float32)
    y = model.predict_on_batch([tokens, state])
    np.testing.assert_allclose(
        made.step(tokens, state)[0], tf.nn.log_softmax(tf.cast(y["logits"], tf.float32)), atol=0.3
    )
    found = tf.saved_model.load(str(savedmodel.export(made, tmp_path / "out"))).signatures["serving_default"](
        tokens=tf.constant(tokens), state=tf.constant(state)
    )
    np.testing.assert_allclose(found["log_probabilities"], made.step(tokens, state)[0], atol=1e-5)


def odd_models():
    """(model, what is said of it)."""
    tokens, state = keras.Input((), dtype="int32", name="tokens"), keras.Input((4,), name="state")
    vectors = keras.layers.Embedding(20, 4)(tokens)
    logits = keras.layers.Dense(20)(vectors)
    form = r"expected the step of a language model, tokens \(n,\) int32 and state"
    maps = rf"it maps tokens .* to .*: {form}"
    rows = keras.Input((None,), dtype="int32", name="tokens")
    nan = keras.Model([tokens, state], {"logits": logits, "state": state + 0})
    nan.set_weights([np.full_like(weight, np.nan) for weight in nan.get_weights()])
    yield keras.Model(tokens, logits), maps
    yield keras.Model([tokens, state], [logits, state + vectors]), maps
    yield keras.Model([tokens, state], {"logits": logits, "state": state[:, :2]}), maps
    yield keras.Model([tokens, state], {"logits": logits[:, None], "state": state + 0}), maps
    yield keras.Model([rows, state], {"logits": keras.layers.Embedding(20, 4)(rows), "state": state + 0}), maps
    numbers = keras.Input((), name="tokens")
    yield keras.Model([numbers, state], {"logits": keras.layers.Dense(20)(numbers[:, None]), "state": state + 0}), maps
    yield nan, "NaN or infinite scores for random tokens"


def test_what_is_no_language_model(tmp_path):
    for number, (model, message) in enumerate(odd_models()):
        model.save(tmp_path / f"{number}.keras")
        with pytest.raises(models.ModelError, match=message) as caught:
            language.load(tmp_path / f"{number}.keras", WORDS)
        assert "\n" not in str(caught.value)
    keras.Sequential([keras.layers.Dense(3)]).save(tmp_path / "unbuilt.keras")
    with pytest.raises(models.ModelError, match="it is a Sequential that does not know its inputs"):
        language.load(tmp_path / "unbuilt.keras", WORDS)


@pytest.mark.parametrize(
    "values, message",
    [
        ({}, "no config.json with a vocabulary beside it: expected --vocabulary, a token per line"),
        ({"vocabulary": "short.txt"}, "it has 20 outputs and there are 2 tokens in --vocabulary: expected as many"),
        ({"vocabulary": "none.txt"}, "--vocabulary=none.txt: No such file or directory; expected one token per line"),
        ({"vocabulary": "empty.txt"}, "--vocabulary=empty.txt: line 2 is empty; expected one token per line"),
        ({"vocabulary": "latin.txt"}, "--vocabulary=latin.txt: line 1 is not UTF-8"),
        ({"vocabulary": "twice.txt"}, "token the is there twice in --vocabulary: expected each once"),
        ({"vocabulary": "without.txt"}, "there is no <unk> in --vocabulary: expected <unk> and <eos> among"),
        ({"vocabulary": "good.txt", "quantize": ["int8"]}, "--quantize=int8: .*; expected none, float16 and dynamic"),
        (
            {"vocabulary": "good.txt", "labels": "good.txt"},
            "--labels: it is for image classifiers; --model=lm",
        ),
        ({"vocabulary": "good.txt", "image_size": 8}, "--image_size: it is for image classifiers"),
        ({"vocabulary": "good.txt", "dataset": "gone.txt"}, "--dataset=gone.txt: no such file"),
        (
            {"vocabulary": "good.txt", "model": "images.keras"},
            "--vocabulary: it is for language models; --model=",
        ),
        ({"model": "longer/model.keras"}, "it has 20 outputs and there are 21 tokens in the config.json beside it"),
    ],
)
def test_wrong_input(values, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = step_of(20)
    model.save("lm.keras")
    keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]).save("images.keras")
    (tmp_path / "longer").mkdir()
    saved_run(tmp_path / "longer", language.LanguageModel(model, [*WORDS, "more"]))
    for name, tokens in (
        ("good", WORDS),
        ("short", WORDS[:2]),
        ("empty", ["a", "", "b"]),
        ("twice", [*WORDS[:-1], "the"]),
        ("without", [token.replace("<unk>", "unk") for token in WORDS]),
    ):
        (tmp_path / f"{name}.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    (tmp_path / "latin.txt").write_bytes(b"\xff\n")
    with pytest.raises(messages.UsageError, match=message) as caught:
        run_export(ExportConfig(**({"model": "lm.keras", "output": "out"} | values)), verbose=0)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_a_vocabulary_of_characters_may_have_spaces(tmp_path):
    (tmp_path / "tokens.txt").write_bytes("".join(f"{token}\n" for token in CHARACTERS).encode())
    assert files_of_labels.read(tmp_path / "tokens.txt", tokens=True) == CHARACTERS
    with pytest.raises(files_of_labels.LabelError, match="line 11 is blank"):
        files_of_labels.read(tmp_path / "tokens.txt")
