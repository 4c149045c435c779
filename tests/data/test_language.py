import keras
import numpy as np
import pytest

from darts_tf.costs.counts import parameters
from darts_tf.data import language, tasks, text


def logits_and_labels():
    random = np.random.default_rng(0)
    return random.normal(size=(4, 7, 5)).astype(np.float32), random.integers(0, 5, (4, 7))


def losses_of(logits, y):
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return np.log(np.exp(shifted).sum(-1)) - np.take_along_axis(shifted, y[..., None], -1)[..., 0]


def test_perplexity_counts_every_token_once():
    logits, y = logits_and_labels()
    metric = language.Perplexity()
    for some in (np.s_[:, :2], np.s_[:, 2:3], np.s_[:, 3:]):
        metric.update_state(y[some], logits[some])
    losses = losses_of(logits, y)
    np.testing.assert_allclose(float(metric.result()), np.exp(losses.mean()), rtol=1e-6)
    weights = np.arange(4.0)[:, None]
    metric.reset_state()
    metric.update_state(y, logits, sample_weight=weights)
    expected = np.exp(np.average(losses, weights=np.broadcast_to(weights, losses.shape)))
    np.testing.assert_allclose(float(metric.result()), expected, rtol=1e-6)


def test_perplexity_overflows_to_infinity_and_can_be_saved():
    metric = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(language.Perplexity()))
    assert isinstance(metric, language.Perplexity) and metric.name == "perplexity"
    metric.update_state([[0, 1]], np.array([[[-1e4, 0.0], [0.0, -1e4]]], np.float16))
    assert float(metric.result()) == np.inf


def test_the_loss_is_the_mean_over_tokens():
    task, (logits, y) = tasks.LanguageModel((None,), 5), logits_and_labels()
    losses = losses_of(logits, y)
    np.testing.assert_allclose(float(task.loss()(y, logits)), losses.mean(), rtol=1e-6)
    everywhere = np.mean([losses_of(logits, np.full_like(y, other)) for other in range(5)])
    np.testing.assert_allclose(float(task.loss(0.1)(y, logits)), 0.9 * losses.mean() + 0.1 * everywhere, rtol=1e-6)
    assert tasks.get("language_model") is tasks.LanguageModel
    assert task.headline.best_first(3.0) < task.headline.best_first(4.0)


def test_keras_evaluates_to_the_perplexity_of_all_tokens():
    data, task = tiny(), tiny().task
    tokens = keras.Input([None], dtype="int32", name="tokens")
    begins = keras.Input([], dtype="bool", name="begins")
    model = keras.Model({"tokens": tokens, "begins": begins}, keras.layers.Embedding(12, 12)(tokens))
    model.compile(loss=task.loss(), metrics=task.metrics())
    found = model.evaluate(text.once(data.valid, bptt=7), return_dict=True, verbose=0)
    laid = text.laid(data.valid, 10)
    expected = np.exp(losses_of(model.layers[-1].get_weights()[0][laid[:, :-1]], laid[:, 1:]).mean())
    np.testing.assert_allclose(found["perplexity"], expected, rtol=1e-5)


def tiny():
    splits = (np.random.default_rng(n).integers(0, 12, n).astype(np.int32) for n in (200, 115, 64))
    return text.Text(*splits, ["a", "<unk>", "<eos>", *"bcdefghij"])


@pytest.fixture(scope="module")
def model():
    """One step: the new state is tanh of the embedding and a product of the old one."""
    keras.utils.set_random_seed(0)
    tokens, state = keras.Input([], dtype="int32", name="tokens"), keras.Input([6], name="state")
    embedding = keras.layers.ReversibleEmbedding(12, 6, embeddings_initializer="normal")
    new = keras.layers.Activation("tanh")(embedding(tokens) + keras.layers.Dense(6, use_bias=False)(state))
    return keras.Model([tokens, state], {"logits": embedding(new, reverse=True), "state": new})


def by_numpy(model, tokens, rows):
    embeddings, product = (layer.get_weights()[0] for layer in model.layers if layer.get_weights())
    laid = text.laid(tokens, rows)
    state, losses = np.zeros((rows, 6)), []
    for now, then in zip(laid.T[:-1], laid.T[1:], strict=True):
        state = np.tanh(embeddings[now] + state @ product)
        losses.append(losses_of(state @ embeddings.T, then))
    return np.array(losses).T


def test_measuring_carries_the_state_over_the_text(model):
    data = tiny()
    results, arrays = data.task.measure(model, data)
    losses = by_numpy(model, data.test, 10)
    assert results["test_tokens"] == losses.size == 50
    np.testing.assert_allclose(results["perplexity"], np.exp(losses.mean()), rtol=1e-5)
    np.testing.assert_allclose(results["bits_per_token"], losses.mean() / np.log(2), rtol=1e-5)
    np.testing.assert_allclose(results["validation_perplexity"], np.exp(by_numpy(model, data.valid, 10).mean()), 1e-5)
    np.testing.assert_allclose(language.cross_entropies(model, data.test, 1)[1], by_numpy(model, data.test, 1), 1e-4)
    assert (results["parameters"], results["multiply_adds"]) == (parameters(model), 6 * 6 + 6 * 12)

    tokens = text.laid(data.test, 10)[:, 1:]
    rare = tokens > 9
    assert arrays["rank"].tolist() == [10, 12] and arrays["tokens"].tolist() == [(~rare).sum(), rare.sum()]
    np.testing.assert_allclose(arrays["cross_entropy"], [losses[~rare].mean(), losses[rare].mean()], rtol=1e-5)
    assert list(results["by_rank"]) == ["1 to 10", "11 to 12"]
    assert results["unknown"] == (tokens == 1).mean()


def test_results_in_words(model):
    data = tiny()
    results, _ = data.task.measure(model, data)
    results |= {"perplexity": 1234.567, "bits_per_token": 10.27, "unknown": 0.125}
    lines = tasks.LanguageModel.table(results).splitlines()
    assert lines[0] == "test perplexity  1,234.57 of 50 words (10.270 bits per word, 12.5% are <unk>)"
    assert lines[-1] == "multiply-adds    108 per word"
    assert tasks.LanguageModel.figures(results)[0] == ("perplexity of 50 test words", "1,234.57")
    assert "unknown" in tasks.LanguageModel.table(results | {"multiply_adds": None})
    overflow = results | {"perplexity": float("inf"), "by_rank": {"1 to 10": float("nan")}}
    assert "inf" in tasks.LanguageModel.table(overflow)
