"""Recurrent networks compute what those of the authors do."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from original import relative_error

from darts_tf import DARTS
from darts_tf.methods.optimizers import SGD, Adam
from darts_tf.spaces.recurrent.genotypes import PUBLISHED
from darts_tf.spaces.recurrent.networks import RecurrentNetwork, RecurrentSearchNetwork

pytestmark = pytest.mark.usefixtures("float64")


def fill(network, arrays, rows):
    """Gives a network the weights, and its hidden states the rows, of a reference."""
    network.build()
    network.embedding.assign(arrays["w/encoder.weight"])
    network.first.assign(arrays["w/rnns.0._W0"])
    for node, variable in enumerate(network.node_weights):
        variable.assign(arrays[f"w/rnns.0._Ws.{node}"])
    network.bias.assign(arrays["w/decoder.bias"])
    for name, values in rows.items():
        network.hidden[name].assign(np.pad(values, [(0, network.hidden[name].shape[0] - len(values)), (0, 0)]))


def segment(tokens):
    return {"tokens": tf.constant(tokens.T, tf.int32), "begins": tf.zeros([tokens.shape[1]], tf.bool)}


def test_network_of_enas(rnn_ENAS_file):  # noqa: N803
    check_network(rnn_ENAS_file)


def test_networks_of_darts(rnn_DARTS_file):  # noqa: N803
    check_network(rnn_DARTS_file)


def check_network(file):
    arrays, name = np.load(file), file.stem.removeprefix("rnn_")
    vocabulary, units = arrays["w/encoder.weight"].shape
    batch = arrays["x"].shape[1]
    network = RecurrentNetwork(PUBLISHED[name], vocabulary, units, batch)
    fill(network, arrays, {"evaluation": arrays["hidden"][0]})
    logits = network(segment(arrays["x"]))
    expected = np.transpose(arrays["log_prob"], [1, 0, 2])
    assert relative_error(tf.nn.log_softmax(logits), expected) < 1e-9
    assert relative_error(network.hidden["evaluation"][:batch], arrays["hidden_next"][0]) < 1e-9

    model, state = network.inference_model(), arrays["hidden"][0]
    for step, tokens in enumerate(arrays["x"]):
        outputs = model([tf.constant(tokens, tf.int32), tf.constant(state)])
        state = outputs["state"]
        assert relative_error(tf.nn.log_softmax(outputs["logits"]), expected[:, step]) < 1e-9


@pytest.fixture
def search(rnn_search_file):
    arrays = np.load(rnn_search_file)
    vocabulary, units = arrays["w/encoder.weight"].shape
    network = RecurrentSearchNetwork(vocabulary, units, arrays["x_train"].shape[1], dropout=[0.0] * 5, penalties=(0, 0))
    rows = {"weights": arrays["hidden_train"][0], "alpha": arrays["hidden_valid"][0]}
    fill(network, arrays, rows)
    network.alphas["recurrent"].assign(arrays["alphas"])
    search = DARTS(network, unrolled=True, virtual_clipnorm=0.25)
    search.compile(
        SGD(20.0, momentum=0.0, l2=5e-7, global_clipnorm=0.25),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        arch_optimizer=Adam(3e-3, beta_1=0.9),
    )
    batches = [
        (segment(arrays[f"x_{part}"]), tf.constant(arrays[f"y_{part}"].T, tf.int32)) for part in ("train", "valid")
    ]
    search.create_variables(*batches[0])
    return search, batches, arrays


def test_search(search):
    search, (train, valid), arrays = search
    network = search.network
    logits = network(train[0], training=True, purpose="weights")
    assert relative_error(tf.nn.log_softmax(logits), np.transpose(arrays["log_prob_train"], [1, 0, 2])) < 1e-9
    rows = len(arrays["hidden_next"][0])
    assert relative_error(network.hidden["weights"][:rows], arrays["hidden_next"][0]) < 1e-9
    kept = np.pad(arrays["hidden_train"][0], [(0, network.hidden["weights"].shape[0] - rows), (0, 0)])
    network.hidden["weights"].assign(kept)
    weights, alphas = search.values()
    for (batch, purpose), expected in zip(((train, "ahead"), (valid, "alpha")), ("train", "valid"), strict=True):
        loss, _ = search._loss_at(weights, alphas, batch, False, None, purpose)
        assert relative_error(loss, arrays[f"loss_{expected}"]) < 1e-9
    gradients = tf.function(lambda unrolled: search.alpha_gradient(train, valid, unrolled), autograph=False)
    for order, unrolled in (("first", False), ("second", True)):
        (dalpha,) = gradients(unrolled)
        assert relative_error(dalpha, arrays[f"{order}/dalphas"]) < (1e-9 if order == "first" else 1e-6)

    search.unrolled = True
    search.train_on_batch(train, valid)
    assert relative_error(search.network.alphas["recurrent"], arrays["after/alphas"]) < 1e-6


def test_genotype(search):
    search, _, arrays = search
    genotype = search.genotype()
    assert [f"{name}:{source}" for name, source in genotype.recurrent] == arrays["genotype"].tolist()
    assert genotype.concat == arrays["concat"].tolist()
