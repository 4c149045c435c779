"""Chains: descriptions, texts, costs, what a supernet computes."""

import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from darts_tf import DARTS, spaces
from darts_tf.costs import counts, forms
from darts_tf.data.tasks import ImageClassification
from darts_tf.methods.one_shot import one_hot
from darts_tf.methods.optimizers import SGD, Adam
from darts_tf.spaces import AdaptiveChain, FBNetSpace, NasBenchMacro, ProxylessSpace, SinglePathSpace
from darts_tf.spaces.chain.blocks import block
from darts_tf.spaces.chain.description import Description, Stage, from_json
from darts_tf.spaces.chain.networks import ChainSupernet
from darts_tf.spaces.chain.space import DescribedChain
from darts_tf.spaces.contracts import check_space

TASK = ImageClassification((8, 8, 3), 3)
BLOCKS = ("identity", "mb3_k3_se_hs", "k3_e1_g2")
DESCRIBED = Description((Stage(4, BLOCKS, 2), Stage(8, ("shuffle_k3", "xception"), 1, 2)), 4, 1, 8)


@pytest.mark.parametrize(
    "space", [AdaptiveChain(8, ("identity", "mb3_k3"), (0.5, 1)), DescribedChain(DESCRIBED.to_json())], ids=str
)
def test_a_chain_is_a_space(space):
    check_space(space, TASK, draws=3)


def drawn(space, seed=0):
    random = np.random.default_rng(seed)
    return space.decide({name: random.random(table.mask.shape) for name, table in space.choices.items()})


def test_networks_can_be_exported():
    space = DescribedChain(DESCRIBED.to_json())
    for name in (*BLOCKS, "shuffle_k3", "xception"):
        row = 0 if name in BLOCKS else 2
        others = [(place, table) for place, table in enumerate((0, 0, 3)) if place != row]
        picks = sorted([*others, (row, space.choices["layers"].candidates.index(name))])
        network = space.network(space.decode({"layers": picks}), TASK)
        formats = {getattr(layer, "data_format", "channels_last") for layer in network.layers}
        assert formats == {"channels_last"}, name


def test_chains_of_papers():
    layers = {FBNetSpace: 22, ProxylessSpace: 22, SinglePathSpace: 20, NasBenchMacro: 8}  # one of Proxyless is fixed
    task = ImageClassification((64, 64, 3), 10)
    for kind, number in layers.items():
        space = kind().fitted(task)
        architecture = drawn(space)
        assert len(architecture.names) == number
        assert spaces.from_text(str(architecture)) == architecture
        assert spaces.from_json(architecture.to_json()) == architecture
        assert space.costs(task, 4)(architecture) == counts.of(space.network(architecture, task, 4))
    with pytest.raises(ValueError, match="images of at least 32 pixels"):
        FBNetSpace().fitted(TASK)


def test_a_chain_suits_its_images():
    seen = []
    for pixels in (8, 16, 32, 64, 128, 224):
        space = AdaptiveChain().fitted(ImageClassification((pixels, pixels + 4, 3), 10))
        description = space.description
        assert 2 <= pixels // description.reduction() <= 8
        assert "identity" not in description.layers()[0].candidates
        seen.append((len(description.layers()), description.reduction()))
    assert seen == sorted(seen) and seen[0] == (6, 2) and seen[-1] == (20, 32)
    assert spaces.of(space.configuration()) == space


def test_texts_of_chains():
    space = AdaptiveChain(8, widths=(0.25, 1))
    text = "chain:8:mb3_k3,identity|mb6_k5*0.25,mb3_k3|mb3_k5,identity"
    architecture = spaces.read(text)
    assert str(architecture) == text and architecture.widths == [1, 1, 0.25, 1, 1, 1]
    assert space.decode(space.picks(architecture)) == architecture
    assert spaces.read("chain:8:mb4_k3_se,identity|mb6_k5,mb3_k3|mb3_k5,identity").names[0] == "mb4_k3_se"
    known = spaces.read("nas-bench-macro:02012100")
    assert known == spaces.read(str(known)) and NasBenchMacro.key(known) == "02012100"
    described = drawn(DescribedChain(DESCRIBED.to_json()))
    assert spaces.read(str(described)).space.description == DESCRIBED
    for wrong, message in (
        ("chain:8:mb3_k3,identity|mb3_k3", "expected stages of 2, 2, 2 layers"),
        ("chain:mb3_k3", "expected the images' height"),
        ("chain:8:mb3_k3,identity|mb3_k3,mb0_k3|mb3_k3,mb3_k3", "no block 'mb0_k3'"),
        ("chain:8:mb3_k3,identity|mb3_k3*x,mb3_k3|mb3_k3,mb3_k3", "expected widths such as"),
        ("chain:8:mb3_k3,identity|mb3_k3*2,mb3_k3|mb3_k3,mb3_k3", "expected numbers above 0, up to 1"),
        ("spos:7:mb3_k3", "expected the layers, nothing before them"),
    ):
        with pytest.raises(ValueError, match=message):
            spaces.read(wrong)


def test_descriptions_that_cannot_be():
    fields = json.loads(DESCRIBED.to_json())
    stage = fields["stages"][0]
    for change, message in (
        ({"stages": []}, "expected a list of at least one stage"),
        ({"stages": [stage | {"layers": 0}]}, "stage 1: layers is 0; expected a whole number from 1"),
        ({"stages": [stage | {"stride": 3}]}, "stage 1: stride is 3; expected a whole number from 1 to 2"),
        (
            {"stages": [stage, stage | {"candidates": ["mb3"]}]},
            "stage 2: candidates: no block 'mb3': expected identity",
        ),
        ({"stages": [stage | {"candidates": []}]}, "expected a list of names of blocks"),
        ({"stages": [stage | {"candidates": ["identity"] * 2}]}, "a block is there twice"),
        ({"stages": [stage | {"width": 1}]}, "stage 1: expected an object with channels and candidates"),
        ({"activation": "tanh"}, "activation is 'tanh': expected one of relu6"),
        ({"affine": 1}, "affine is 1; expected true or false"),
        ({"more": 1}, "a chain: expected an object with stages"),
    ):
        with pytest.raises(ValueError, match=message):
            spaces.of({"space": json.dumps(fields | change)})
    for widths in ((), (2,), (0.5,), ("x", 1), (0, 1)):
        with pytest.raises(ValueError, match=r"widths=.*: expected numbers above 0, up to 1, and 1"):
            NasBenchMacro(widths)
    odd = Description((Stage(6, ("shuffle_k3",)),), 4)
    with pytest.raises(ValueError, match="shuffle_k3 from 4 to 6 channels, stride 1"):
        DescribedChain(odd.to_json()).fitted(TASK)
    assert from_json(DESCRIBED.to_json()) == DESCRIBED


def test_costs_of_narrower_layers():
    space = AdaptiveChain(8, ("identity", "mb3_k3_se", "mb1_k3"), (0.5, 1))
    costs = space.costs(TASK)
    for seed in range(3):
        architecture = drawn(space, seed)
        assert costs(architecture) == counts.of(space.network(architecture, TASK))
        mixture = one_hot(space.choices, space.picks(architecture))
        table = costs.table("parameters")
        assert space.expected(table, mixture).numpy() == pytest.approx(costs(architecture)["parameters"])
        assert space.cheapest(costs.table("multiply_adds")) <= costs(architecture)["multiply_adds"]


@pytest.fixture(scope="module")
def x():
    return tf.random.stateless_normal([4, 8, 8, 3], [0, 0])


def test_a_narrow_layer_is_a_part_of_the_wide_one(x):
    """The supernet with a mask computes what the network computes that has the first of the channels."""
    space = DescribedChain(Description((Stage(4, ("mb4_k3",)),), 4, 1, 8).to_json(), (0.5, 1))
    supernet = space.supernet(TASK)
    supernet.build(x.shape)
    own = supernet.layers_of_chain[0].operations[0]["main"]
    narrow = block("mb4_k3", 4, 4, 1, width=0.5)
    images = keras.Input((8, 8, 4))
    model = keras.Model(images, narrow.layers(images, "block"))
    half = 8
    expand, norm, depthwise, norm2, project, norm3 = (layer for layer in model.layers if layer.weights)
    stages = [owned for owned in own.variables_by_stage if owned]
    for layer, (kernel,), part in (
        (expand, stages[0], np.s_[..., :half]),
        (depthwise, stages[2], np.s_[:, :, :half]),
        (project, stages[4], np.s_[:, :, :half]),
    ):
        layer.set_weights([np.array(kernel)[part]])
    for layer, (gamma, beta, _) in ((norm, stages[1]), (norm2, stages[3]), (norm3, stages[5])):
        size = layer.gamma.shape[0]
        beta.assign(np.linspace(-1, 1, beta.shape[0]))
        layer.gamma.assign(np.array(gamma)[:size])
        layer.beta.assign(np.array(beta)[:size])
    image = tf.random.stateless_normal([2, 8, 8, 4], [1, 0])
    layer = supernet.layers_of_chain[0]
    for share, expected in ((1.0, model(image, training=True)), (0.0, None)):
        y = layer(image, tf.ones([1]), widths={0.5: tf.constant(share), 1.0: tf.constant(1 - share)}, training=True)
        if expected is not None:
            np.testing.assert_allclose(y, expected, atol=1e-5)
        else:
            assert np.abs(y - model(image, training=True)).max() > 0.01


@pytest.fixture(scope="module")
def chain(x):
    """A supernet of eight networks, built."""
    space = DescribedChain(Description((Stage(4, ("identity", "mb2_k3"), 3),), 4, 1, 8).to_json())
    table = space.costs(TASK).table("multiply_adds")
    bound = table.fixed + table.rows["layers",].max()  # one block that is no identity
    network = space.supernet(TASK, "uniform", limits=[(table, bound)])
    network.build(x.shape)
    return network


def test_what_is_drawn_is_what_counts(chain, x):
    """A path that is computed alone gives what the mixture of all gives that has one for it."""
    before = [np.array(variable) for variable in chain.variables]
    for path in itertools.product(range(2), repeat=3):
        results, after = [], []
        for paths in (1, 2):  # of two candidates
            for variable, value in zip(chain.variables, before, strict=True):
                variable.assign(value)
            mixture = {"layers": np.eye(2, dtype=np.float32)[list(path)]}
            results.append(chain(x, training=True, mixture=mixture, paths=paths))
            after.append([np.array(variable) for variable in chain.variables])
        np.testing.assert_allclose(*results, atol=1e-6)
        changed = [sum((a != b).any() for a, b in zip(before, values, strict=True)) for values in after]
        assert changed[0] == 2 + 3 * sum(path) < changed[1] or all(path)  # stem, head, the batch norms on the path


def test_paths_keep_a_bound(chain):
    seen = set()
    for number in range(40):
        mixture = chain.mixture(tf.constant([0, number]), "weights")
        ((table, most),) = chain.limits
        assert 1000 * float(chain.cost(table, mixture)) <= most + 1
        seen.add(tuple(np.argmax(mixture["layers"], -1)))
    assert seen == {path for path in itertools.product(range(2), repeat=3) if sum(path) <= 1}


def test_what_is_drawn_is_found_in_float16(x):
    """Though what is drawn and not active has less than that holds."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        space = DescribedChain(Description((Stage(4, ("mb2_k3", "mb3_k5", "identity"), 1),), 4, 1, 8).to_json())
        network = space.supernet(TASK, "binary_gates")
        network.build(x.shape)
    finally:
        keras.config.set_dtype_policy("float32")
    gates = tf.constant([0.0, 1.0, np.finfo(np.float32).tiny])
    with tf.GradientTape() as tape:
        tape.watch(gates)
        image = tf.cast(tf.random.stateless_normal([2, 8, 8, 4], [1, 0]), tf.float16)
        y = network.layers_of_chain[0](image, gates, paths=2, training=True)
    gradient = tf.convert_to_tensor(tape.gradient(y, gates))
    assert gradient[0] == 0 and gradient[2] != 0


def test_channels_that_groups_do_not_divide():
    with pytest.raises(ValueError, match="k3_e1_g3 from 16 to 16 channels: expected numbers that 3 divides"):
        block("k3_e1_g3", 16, 16, 1)


def test_both_gates_have_gradients(x):
    """Where alpha is trained two candidates are computed: the gradient of each gate is that of what it lets through."""
    space = DescribedChain(Description((Stage(4, ("mb2_k3", "mb3_k5", "identity"), 1),), 4, 1, 8).to_json())
    network = space.supernet(TASK, "binary_gates")
    network.build(x.shape)
    layer = network.layers_of_chain[0]
    image, dy = (tf.random.stateless_normal([2, 8, 8, 4], [seed, 0]) for seed in (1, 2))
    gates = tf.constant([np.finfo(np.float32).tiny, 1.0, 0.0])
    with tf.GradientTape() as tape:
        tape.watch(gates)
        y = layer(image, gates, paths=2, training=True)
    ones = [layer(image, tf.one_hot(place, 3), paths=1, training=True) for place in range(3)]
    np.testing.assert_array_equal(y, ones[1])
    expected = [float(tf.reduce_sum(one * dy)) for one in ones]
    gradient = tf.convert_to_tensor(tape.gradient(y, gates, dy))
    np.testing.assert_allclose(gradient, [*expected[:2], 0], rtol=1e-4)
    table = space.costs(TASK).table("multiply_adds")
    search = DARTS(network, costs=[forms.Cost(table, forms.get("add_linear", weight=0.3, reference=20.0))])
    (again,) = DARTS.from_config(search.get_config()).costs
    assert (again.form.name, again.form.weight, again.form.reference) == ("add_linear", 0.3, 20.0)
    assert again.to_config() == search.costs[0].to_config()
    search.compile(SGD(0.1), loss=TASK.loss(), arch_optimizer=Adam(0.1, beta_1=0.0))
    y = tf.constant([0, 1, 2, 0])
    before = None
    for _ in range(2):
        search.train_on_batch((x, y), (x, y))
        alpha = np.array(network.alphas["layers"])[0]
        shares = np.exp(alpha) / np.exp(alpha).sum()
        if before is not None:  # two were drawn, and share what they had
            assert (alpha != before[0]).sum() == 2
            np.testing.assert_allclose(shares[alpha == before[0]], before[1][alpha == before[0]], rtol=1e-5)
        before = alpha, shares


def test_a_supernet_is_saved(chain, tmp_path, x):
    chain(x)
    chain.save(tmp_path / "chain.keras")
    loaded = keras.models.load_model(tmp_path / "chain.keras")
    assert isinstance(loaded, ChainSupernet) and loaded.space == chain.space
    np.testing.assert_array_equal(loaded(x), chain(x))
