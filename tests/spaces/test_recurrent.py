"""Recurrent cells: genotypes, the supernet, the network of a genotype and one step of it."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from darts_tf import DARTS, spaces
from darts_tf.data.tasks import LanguageModel
from darts_tf.methods.optimizers import SGD, Adam
from darts_tf.reports import drawing
from darts_tf.spaces import RecurrentSpace
from darts_tf.spaces.recurrent import networks
from darts_tf.spaces.recurrent.genotypes import PUBLISHED, RecurrentGenotype
from darts_tf.spaces.recurrent.networks import RecurrentNetwork, RecurrentSearchNetwork

VOCABULARY, UNITS, BATCH, STEPS = 7, 4, 3, 5
GENOTYPE = RecurrentGenotype([("relu", 0), ("identity", 1), ("gelu", 0)], [2, 3])
RATES = (0.5, 0.4, 0.3, 0.2, 0.1)
TOKENS = np.random.default_rng(0).integers(0, VOCABULARY, (4, BATCH, STEPS)).astype(np.int32)


def segment(place=0, begins=False):
    return {"tokens": tf.constant(TOKENS[place]), "begins": tf.fill([BATCH], begins)}


def made(kind=RecurrentSearchNetwork, rates=(0,) * 5, **options):
    keras.utils.set_random_seed(0)
    own = {"space": RecurrentSpace(2)} if kind is RecurrentSearchNetwork else {"genotype": GENOTYPE}
    network = kind(
        **{**own, "vocabulary": VOCABULARY, "units": UNITS, "batch_size": BATCH, "dropout": rates, **options}
    )
    network.build()
    for variable in network.trainable_variables:  # far from linear
        variable.assign(20 * variable)
    return network


BOTH = pytest.mark.parametrize("kind", [RecurrentSearchNetwork, RecurrentNetwork])


@BOTH
def test_each_pass_goes_on_where_its_kind_ended(kind):
    network = made(kind)
    whole = {"tokens": tf.constant(np.concatenate(TOKENS[:2], 1)), "begins": tf.fill([BATCH], True)}
    expected = network(whole).numpy()
    parts = network(segment(begins=True)), network(segment(1))
    np.testing.assert_allclose(np.concatenate(parts, 1), expected, atol=1e-5)
    after = network.hidden["evaluation"].numpy()
    assert np.abs(after[:BATCH]).min() > 0 and not after[BATCH:].any()

    state = {name: variable.numpy() for name, variable in network.hidden.items()}
    for purpose in ("weights", "alpha"):
        network(segment(2, begins=True), training=True, purpose=purpose)
        for name, variable in network.hidden.items():
            assert (variable.numpy() != state[name]).any() == (name == purpose)
        state[purpose] = network.hidden[purpose].numpy()
    ahead = network(segment(3), training=True, purpose="ahead").numpy()  # reads what "weights" left, and leaves it
    np.testing.assert_array_equal(network.hidden["weights"], state["weights"])
    np.testing.assert_allclose(network(segment(3), training=True, purpose="weights"), ahead, atol=1e-6)
    assert network.carried("ahead") == [] and network.carried("alpha") == [network.hidden["alpha"]]


@BOTH
def test_rows_that_begin_have_no_past(kind):
    network = made(kind)
    fresh = network(segment(begins=True)).numpy()
    one = {**segment(), "begins": tf.constant([False, True, False])}
    mixed = network(one).numpy()
    np.testing.assert_allclose(mixed[1], fresh[1], atol=1e-6)
    assert np.abs(mixed[[0, 2]] - fresh[[0, 2]]).max() > 1e-3


@BOTH
def test_penalties_are_of_the_weights_step_alone(kind):
    network = made(kind, (0.5, 0, 0, 0, 0), penalties=(2.0, 3.0))
    draw = tf.constant([1, 2])
    for purpose in ("ahead", "alpha", "evaluation"):
        network(segment(), training=purpose != "evaluation", draw=draw, purpose=purpose)
        assert not network.losses
    seen = []
    network._run, run = lambda *of, **options: seen.append(run(*of, **options)) or seen[-1], network._run
    network(segment(), training=True, draw=draw, purpose="weights")
    (states,) = seen
    hidden, dropped = states.hidden.numpy(), states.dropped.numpy()
    expected = 2 * np.mean(dropped**2), 3 * np.mean((hidden[1:] - hidden[:-1]) ** 2)
    np.testing.assert_allclose(network.losses, expected, rtol=1e-5)
    zero = (dropped == 0).all(0)  # the same units in all steps
    assert zero.any() and (np.abs(dropped[:, ~zero]) > 0).all()
    np.testing.assert_allclose(dropped[:, ~zero], 2 * hidden[:, ~zero], rtol=1e-6)


@BOTH
@pytest.mark.parametrize("place", range(5))
def test_each_dropout_is_that_of_its_seed(kind, place):
    rates = [0.5 * (other == place) for other in range(5)]
    network, seeds = made(kind, rates), [tf.constant(seed) for seed in ([1, 2], [1, 2], [1, 3])]
    assert network.has_noise and not made(kind).has_noise

    def logits(seed):
        return network(segment(begins=True), training=True, draw=seed, purpose="ahead").numpy()

    first, again, other = map(logits, seeds)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    network(segment(begins=True), training=True, purpose="weights", draw=seeds[0])
    for draw in (None, seeds[0]):
        np.testing.assert_array_equal(network(segment(begins=True), draw=draw), network(segment(begins=True)))


def test_words_are_dropped_wherever_they_are():
    network = made(RecurrentNetwork, (0, 0, 0, 0, 0.5))
    mask = network._dropping(tf.constant([1, 2]))("words", [VOCABULARY, 1]).numpy().ravel()
    assert set(mask) == {0, 2}
    kept = network.embedding.numpy()
    network(segment(begins=True), training=True, draw=tf.constant([1, 2]), purpose="weights")
    ours = network.hidden["weights"].numpy()[:BATCH]
    network.embedding.assign(mask[:, None] * kept)
    network(segment(begins=True))
    np.testing.assert_allclose(ours, network.hidden["evaluation"][:BATCH], atol=1e-6)


def searched(unrolled, rates=RATES):
    network = made(rates=rates)
    search = DARTS(network, unrolled, virtual_clipnorm=0.25)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    search.compile(SGD(0.5, 0.0), loss, arch_optimizer=Adam(0.1))
    search.create_variables(segment(), TOKENS[1])
    return search


@pytest.mark.parametrize("unrolled", [False, True])
def test_a_step_of_a_search(unrolled, monkeypatch):
    search, drawn = searched(unrolled), []
    network = search.network
    call = network._pass
    monkeypatch.setattr(
        network,
        "_pass",
        lambda x, training, purpose, draw, *more, **options: (
            drawn.append((purpose, draw)) or call(x, training, purpose, draw, *more, **options)
        ),
    )
    search.run_eagerly = True
    before = [variable.numpy() for variable in (*network.hidden.values(), *network.moving)]
    search.train_on_batch((segment(), TOKENS[1]), (segment(2), TOKENS[3]))
    purposes = [purpose for purpose, _ in drawn]
    assert purposes == (["ahead", "alpha", "ahead", "ahead"] if unrolled else ["alpha"]) + ["weights"]
    seeds = {purpose: {tuple(draw.numpy()) for other, draw in drawn if other == purpose} for purpose in set(purposes)}
    assert all(len(own) == 1 for own in seeds.values()) and len(set.union(*seeds.values())) == len(seeds)
    moved = [
        (variable.numpy() != old).any()
        for variable, old in zip((*network.hidden.values(), *network.moving), before, strict=True)
    ]
    assert moved == [True, True, False, True, True]  # not the state of evaluation


@BOTH
def test_kept_and_opened_again(kind, tmp_path):
    network = made(kind, RATES, penalties=(0.5, 0.25))
    network(segment(begins=True))
    twin = kind.from_config(json.loads(json.dumps(network.get_config())))
    assert twin.get_config() == network.get_config()
    assert (twin.dropout, twin.penalties, twin.batch_size) == (network.dropout, network.penalties, BATCH)
    network.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for one, other in zip(again.weights, network.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(again(segment(1)), network(segment(1)))


def test_one_step_as_a_plain_model(tmp_path):
    network = made(RecurrentNetwork, RATES)
    model = network.inference_model()
    model.save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras", compile=False)
    assert all(type(layer).__module__.startswith("keras.") for layer in model.layers)
    assert [tensor.name for tensor in model.inputs] == ["tokens", "state"]
    state, logits = tf.zeros([BATCH, UNITS]), []
    for tokens in TOKENS[0].T:
        outputs = model({"tokens": tf.constant(tokens), "state": state})
        state, logits = outputs["state"], [*logits, outputs["logits"]]
    np.testing.assert_allclose(np.stack(logits, 1), network(segment(begins=True)), atol=1e-5)
    np.testing.assert_allclose(state, network.hidden["evaluation"][:BATCH], atol=1e-5)

    assert networks.genotype_of(model) == GENOTYPE
    other = made(RecurrentNetwork)
    other.embedding.assign(0 * other.embedding)
    networks.take_weights(other, model)
    for one, same in zip(other.trainable_variables, network.trainable_variables, strict=True):
        np.testing.assert_array_equal(one, same)
    for genotype in (*PUBLISHED.values(), RecurrentGenotype([("tanh", 0)], [1])):
        assert networks.genotype_of(networks.step_model(genotype, 3, 2)) == genotype
    with pytest.raises(ValueError, match=r"expected a language model that darts_tf\.train has saved"):
        networks.genotype_of(keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="node1_relu_of_5")]))


def test_parameters_are_as_many_as_the_originals():
    """Numbers of the original's code: `sum(x.data.nelement() for x in model.parameters())`, without what is tied."""
    network = RecurrentNetwork(PUBLISHED["DARTS_V2"], 10_000, 850)
    network.build()
    assert _size(network.trainable_variables) == 22_960_000
    assert networks.step_model(PUBLISHED["DARTS_V2"], 10_000, 850).count_params() == 22_960_000
    network = RecurrentSearchNetwork(10_000, 300)
    network.build()
    assert _size(network.weight_variables) == 4_810_000


def _size(variables):
    return sum(np.prod(variable.shape) for variable in variables)


def test_what_an_edge_without_a_mixture_gives():
    """The supernet with one activation on one edge of each node is the network of that genotype, but for norms."""
    network = made(space=RecurrentSpace(2, ("none", "tanh", "relu")))
    table = np.zeros((3, 3), np.float32)
    table[0, 1] = table[2, 2] = 1  # tanh from 0 to 1, relu from 1 to 2
    network.moving[1].assign(np.full([UNITS], 1 - 1e-5))
    derived = made(RecurrentNetwork, genotype=RecurrentGenotype([("tanh", 0), ("relu", 1)], [1, 2]))
    for one, other in zip(derived.trainable_variables, network.weight_variables, strict=True):
        one.assign(other)
    ours = network(segment(begins=True), mixture={"recurrent": tf.constant(table)})
    np.testing.assert_allclose(ours, derived(segment(begins=True)), atol=1e-5)
    table[:, 0] = 5  # none counts nothing
    more = network(segment(begins=True), mixture={"recurrent": tf.constant(table)})
    np.testing.assert_array_equal(more, ours)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"units": 0}, "units=0: expected at least 1"),
        ({"vocabulary": 2.5}, "vocabulary=2.5: expected at least 1"),
        ({"dropout": (0, 0, 0, 1, 0)}, "dropout of embedded: 1; expected a number from 0, below 1"),
        ({"genotype": RecurrentGenotype([("swoosh", 0)], [1])}, "swoosh: no such activation; expected tanh, relu"),
        ({"genotype": RecurrentGenotype([("glu", 0)], [1])}, "glu: no such activation; expected tanh, relu"),
    ],
)
def test_networks_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        RecurrentNetwork(**{"genotype": GENOTYPE, **options})


def test_genotypes_are_read_as_they_are_written(tmp_path):
    for genotype in (*PUBLISHED.values(), GENOTYPE):
        file = tmp_path / "genotype.json"
        file.write_text(genotype.to_json())
        assert spaces.read(str(genotype)) == spaces.read(str(file)) == genotype
        assert json.loads(file.read_text())["space"] == "recurrent"
        assert genotype.space.kinds == ("text",)
        assert genotype.space.decode(genotype.space.picks(genotype)) == genotype._replace(
            concat=list(range(1, len(genotype.recurrent) + 1))
        )
    assert spaces.read("DARTS_V2", "recurrent") == PUBLISHED["DARTS_V2"] == spaces.read(str(PUBLISHED["DARTS_V2"]))
    assert spaces.read("ENAS") == PUBLISHED["ENAS"] and "normal" in dict(spaces.read("DARTS_V2").items())


@pytest.mark.parametrize(
    "text, message",
    [
        ("Genotype(recurrent=[], concat=[1])", "recurrent is empty: expected at least one node"),
        ("Genotype(recurrent=[('none', 0)], concat=[1])", "recurrent has 'none' on node 1: expected one of tanh, relu"),
        ("Genotype(recurrent=[('relu', 1)], concat=[1])", "feeds node 1 from node 1: expected one of 0 to 0"),
        ("Genotype(recurrent=[('relu', 0)], concat=[2])", "concat=[2]: expected some of the nodes 1 to 1"),
        ("Genotype(recurrent=[('relu', 0)], concat=[])", "concat=[]: expected some of the nodes 1 to 1"),
        ("Genotype(recurrent=[('relu', 0)])", "Not a genotype"),
        ("Genotype(recurrent=[('relu',)], concat=[1])", "Not a genotype"),
        ("Genotype(recurrent=[('relu', 'tanh')], concat=[1])", "Not a genotype"),
        ("Genotype(recurrent=[('relu', 0)], concat=[1], normal=[])", "Not a genotype"),
        ('{"space": "recurrent", "recurrent": 5, "concat": [1]}', "Not a genotype"),
        ('{"recurrent": [["relu", -1]], "concat": [1]}', "feeds node 1 from node -1: expected one of 0 to 0"),
        ("Genotype(recurrent=[('relu', 0), ('tanh', 0)], concat=[2])", "concat=[2]: nothing reads node 1; expected it"),
    ],
)
def test_genotypes_of_no_cell(text, message, tmp_path):
    if text.startswith("{"):
        (tmp_path / "genotype.json").write_text(text)
        text = str(tmp_path / "genotype.json")
    with pytest.raises(ValueError) as error:
        spaces.read(text)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"nodes": 0}, "nodes=0: expected 1 to 100"),
        ({"nodes": 101}, "nodes=101: expected 1 to 100"),
        ({"primitives": ("none",)}, "expected at least one activation, each once"),
        ({"primitives": ("tanh", "tanh")}, "expected at least one activation, each once"),
    ],
)
def test_spaces_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        RecurrentSpace(**arguments)


def test_changes_in_words():
    before = RecurrentSpace(3).decode({"recurrent": [(0, 1), (1, 2), (3, 3)]})
    assert before == RecurrentGenotype([("tanh", 0), ("relu", 0), ("sigmoid", 0)], [1, 2, 3])
    space, other = RecurrentSpace(3), [("tanh", 0), ("relu", 1), ("sigmoid", 0)]
    assert space.change(before, before) == "genotype unchanged"
    assert space.change(before, before._replace(recurrent=other)) == "new: relu from 1 at node 2"
    assert space.change(before, before._replace(recurrent=[("relu", 0)] * 3)) == "new at 2 nodes"


def test_costs_are_those_of_one_step():
    space, task = RecurrentSpace(8), LanguageModel((), 10_000)
    costs = space.costs(task, units=850)(PUBLISHED["DARTS_V2"])
    assert costs["parameters"] == 22_960_000
    assert costs["multiply_adds"] == 2 * 850 * 2 * 850 + 8 * 850 * 2 * 850 + 850 * 10_000


@pytest.mark.parametrize("source", [lambda node: 0, lambda node: min(1, node - 1), lambda node: node - 1])
@pytest.mark.parametrize("nodes", [1, 2, 8, 12])
def test_no_line_lies_upon_another(nodes, source):
    genotype = RecurrentGenotype([("tanh", source(node)) for node in range(1, nodes + 1)], list(range(1, nodes + 1)))
    (picture,) = genotype.space.pictures(genotype)
    lines = [shape for shape in picture.edges(genotype) if isinstance(shape, drawing.Line)]
    assert len(lines) == nodes and picture.width < 100 * nodes + 400
    rail = max(x for line in picture.shapes if isinstance(line, drawing.Line) for x, _ in line.points)
    for place, line in enumerate(lines):
        assert all(0 < x < rail for x, _ in line.points)
        if len(line.points) < 4:
            continue
        for other in (other for other in lines[:place] if len(other.points) == 4):
            assert other.points[1] != line.points[1]
            apart = other.points[1][1] >= line.points[2][1] or line.points[1][1] >= other.points[2][1]
            assert apart or abs(other.points[1][0] - line.points[1][0]) > 5
            assert abs(other.points[0][1] - line.points[0][1]) > 0.7
            assert abs(other.points[0][1] - line.points[3][1]) > 0.7
