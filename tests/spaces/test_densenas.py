import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from darts_tf import spaces
from darts_tf.costs import counts
from darts_tf.data.tasks import ImageClassification
from darts_tf.methods import relaxations
from darts_tf.reports import drawing
from darts_tf.spaces.contracts import check_space
from darts_tf.spaces.densenas.graph import PRESETS, Graph, graph
from darts_tf.spaces.densenas.networks import DenseSupernet
from darts_tf.spaces.densenas.space import DenseNAS, Path
from darts_tf.spaces.pictures import Box, Line, Text

TINY = {
    "channels": [4, 4, 6, 8, 10],
    "layers": [0, 1, 2, 1, 0],
    "stages": [0, 1, 1, 2, 3],
    "strides": [1, 2, 2, 1],
    "reach": [2, 3, 3, 1],
    "heads": ["mb3_k3", "mb1_k5"],
    "stack": ["mb3_k3", "identity"],
}
SPACE = DenseNAS(json.dumps(TINY))
TASK = ImageClassification((8, 8, 1), 3)
TEXT = "densenas(blocks=['1 mb6_k3', '4 mb6_k7 mb3_k3 mb3_k5', '5 mb3_k3', '9 mb3_k5', '13 mb6_k3', '16 mb3_k3'])"


def found(blocks):
    return Path(SPACE, {"blocks": tuple(blocks)})


def test_the_contract():
    check_space(SPACE, TASK, draws=3)


def test_graph():
    tiny = SPACE.blocks
    assert [list(tiny.targets(block)) for block in range(4)] == [[1, 2], [2, 3], [3], [4]]
    assert tiny.sources(3) == [2, 1] and tiny.stride(1, 2) == 1 and tiny.stride(1, 3) == 2
    assert PRESETS["mbv2"].strides_for(224) == [2, 1, 2, 2, 2, 1, 2, 1, 1]
    assert PRESETS["mbv2"].strides_for(32) == [1, 1, 1, 2, 2, 1, 2, 1, 1]
    assert tiny.strides_for(3) == [1, 1, 1, 1, 1]
    assert graph(tiny.to_json()) == tiny and graph("mbv2") is PRESETS["mbv2"]


def test_the_likeliest_path_is_that_of_the_largest_product():
    tiny, random = SPACE.blocks, np.random.default_rng(0)
    for _ in range(20):
        routing = random.dirichlet([1, 1], 4)
        routing[2:] = 1, 0

        def product(path, routing=routing):
            return np.prod([routing[a, b - a - 1] for a, b in itertools.pairwise(path)])

        inner = [some for size in range(4) for some in itertools.combinations(range(1, 4), size)]
        paths = [(0, *some, 4) for some in inner]
        paths = [path for path in paths if all(b in tiny.targets(a) for a, b in itertools.pairwise(path))]
        path, probability = tiny.likeliest_path(routing)
        assert tuple(path) == max(paths, key=product) and probability == pytest.approx(product(path))
    assert tiny.likeliest_path(np.full((4, 2), 0.5))[0] == [0, 2, 3, 4]
    # Of equals, as here from block 3, the nearest source.
    assert tiny.likeliest_path([[1, 0.5], [0.5, 0.5], [1, 0], [1, 0]])[0] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"channels": [4, 8]}, "channels=.*: expected those of 3 to 200 blocks"),
        ({"channels": [4, 4, 0, 8, 10]}, "channels=.*: expected whole numbers from 1 to"),
        ({"layers": [0, 0, 0, 0, 0]}, "layers=.*: expected some, and 0 for the first and the last"),
        ({"layers": [0, 1]}, "layers=.*: expected 5, one for each block"),
        ({"stages": [0, 1, 1, 3, 3]}, "stages=.*: expected 0, and for each block the stage before or the next"),
        ({"strides": [1, 2, 2]}, "strides=.*: expected 4, one for each stage"),
        ({"strides": [1, 2, 3, 1]}, "strides=.*: expected whole numbers from 1 to 2"),
        ({"heads": []}, "heads=.*: expected names of operations, each once"),
        ({"reach": None}, "expected mbv2, or JSON of channels, layers"),
        ({"other": [1]}, "expected mbv2, or JSON of channels, layers"),
    ],
)
def test_bad_graphs(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        DenseNAS(json.dumps(TINY | changes))
    assert "\n" not in str(error.value)


def test_a_graph_of_unknown_operations():
    with pytest.raises(ValueError, match="conv"):
        DenseNAS(json.dumps(TINY | {"heads": ["conv"]})).fitted(TASK)
    assert SPACE.fitted(TASK) is SPACE
    for text in ("mbv3", "[]", "{}"):
        with pytest.raises(ValueError, match="expected mbv2, or JSON of"):
            DenseNAS(text)


def test_a_file_describes_blocks(tmp_path):
    (tmp_path / "blocks.json").write_text(json.dumps(TINY, indent=2))
    space = spaces.of({"space": str(tmp_path / "blocks.json"), "init_channels": 8})
    assert space == SPACE and spaces.of({"space": space.spec}) == SPACE and DenseNAS().spec == "densenas"
    assert spaces.kind(space.spec).has_paths and spaces.get(space.spec) is DenseNAS


def test_text_and_json():
    path = spaces.read(TEXT, "densenas")
    assert str(path) == TEXT and path.numbers == [0, 1, 4, 5, 9, 13, 16, 17]
    assert json.loads(path.to_json())["blocks"][1] == "4 mb6_k7 mb3_k3 mb3_k5"
    assert [block.channels for block in path.space.path(path)] == [24, 48, 56, 112, 192, 384]
    assert [block.stride for block in path.space.path(path)] == [2, 2, 2, 1, 2, 1]


@pytest.mark.parametrize(
    "blocks, message",
    [
        ([], "expected blocks"),
        (["3 mb3_k3"], "block 0 is followed by '3 mb3_k3': expected 1 or 2"),
        (["1 mb3_k3", ""], "block 1 is followed by '': expected 2 or 3"),
        (["2 mb9_k3"], "block 2 has 'mb9_k3': expected one of mb3_k3, mb1_k5"),
        (["2"], "block 2 has '2': expected a head and 0 to 2 layers"),
        (["2 mb3_k3 mb3_k3 mb3_k3 mb3_k3"], "block 2 has .*: expected a head and 0 to 2 layers"),
        (["1 mb3_k3"], "the last block is 1: expected one that the network may end with"),
    ],
)
def test_bad_architectures(blocks, message):
    with pytest.raises(ValueError, match=message):
        SPACE.check(found(blocks))


def test_costs_are_those_of_the_networks():
    task, random = ImageClassification((9, 12, 3), 5), np.random.default_rng(0)
    costs, least = SPACE.costs(task, init_channels=6), {}
    for blocks in (
        ["2 mb3_k3", "3 mb1_k5"],
        ["1 mb1_k5", "2 mb3_k3 mb3_k3 mb3_k3", "3 mb3_k3 mb3_k3"],
        ["1 mb1_k5", "3 mb1_k5"],
    ):
        network = SPACE.network(found(blocks), task, init_channels=6)
        assert costs(found(blocks)) == counts.of(network)
    for _ in range(100):
        strengths = {name: random.random(table.mask.shape) * table.mask for name, table in SPACE.choices.items()}
        for cost, value in costs(SPACE.decide(strengths)).items():
            least[cost] = min(value, least.get(cost, value))
    tables = {cost: costs.table(cost) for cost in least}
    assert least == {cost: SPACE.cheapest(table) for cost, table in tables.items()}
    # Of a mixture that is a path it is the cost of that.
    architecture = found(["1 mb1_k5", "3 mb3_k3 mb3_k3"])
    mixture = {name: np.zeros(table.mask.shape) for name, table in SPACE.choices.items()}
    for name, picks in SPACE.picks(architecture).items():
        mixture[name][tuple(np.transpose(picks))] = 1
    mixture = {name: tf.constant(table) for name, table in mixture.items()}
    for cost, value in costs(architecture).items():
        assert float(SPACE.expected(tables[cost], mixture)) == pytest.approx(value)


def test_a_path_in_the_supernet_is_its_network():
    """With the weights of the supernet, where the mixture is one path."""
    path = found(["1 mb3_k3", "2 mb3_k3 mb3_k3", "3 mb1_k5 mb3_k3"])
    mixture = {name: np.zeros(table.mask.shape, np.float32) for name, table in SPACE.choices.items()}
    for name, picks in SPACE.picks(path).items():
        mixture[name][tuple(np.transpose(picks))] = 1
    mixture = {name: tf.constant(table) for name, table in mixture.items()}
    supernet = SPACE.supernet(TASK, "uniform")
    supernet.build((2, 8, 8, 1))
    x = tf.random.stateless_normal([2, 8, 8, 1], [0, 0])
    network = SPACE.network(path, TASK)
    own = {
        "stem": supernet.stem,
        "first": supernet.first,
        "last": supernet.last[0],
        "classifier": None,
        "block1_0": ("heads", 0),
        "block2_0": ("heads", 1),
        "block3_0": ("heads", 3),
        "block2_1": ("stack", 1),
        "block3_1": ("stack", 3),
    }
    graph = supernet.graph
    assert graph.heads_of[:4] == [(0, 1), (1, 2), (0, 2), (2, 3)] and graph.layers_of[1:4] == [(2, 0), (2, 1), (3, 0)]
    for layer in network.layers:
        prefix, _, place = layer.name.rpartition("_")
        if layer.name == "classifier":
            layer.set_weights(supernet.classifier.get_weights())
        elif prefix in own and layer.weights:
            where = own[prefix]
            if isinstance(where, tuple):
                table, row = where
                name = path.operations[int(prefix[5]) - 1][int(prefix[7])]
                layers = getattr(supernet, table)[row]
                where = layers.operations[layers.names.index(name)]["main"]
            values = [variable.numpy() for variable in where.variables_by_stage[int(place)]]
            if len(layer.weights) == 4:  # a batch norm
                ones = [np.ones(layer.weights[0].shape), np.zeros(layer.weights[0].shape)]
                values = [*(values[:2] if len(values) == 3 else ones), *values[-1]]
            layer.set_weights(values)
    expected = network(x, training=True)
    for paths in (1, None):
        np.testing.assert_allclose(supernet(x, training=True, mixture=mixture, paths=paths), expected, atol=1e-5)


def test_candidates_that_are_drawn():
    """Only they are computed, with the same result and the same gradients as all with the same mixture."""
    relaxation = relaxations.get("drawn_softmax")
    supernet = SPACE.supernet(TASK, "drawn_softmax")
    supernet.build((2, 8, 8, 1))
    seed, x = tf.constant([0, 1]), tf.random.stateless_normal([2, 8, 8, 1], [0, 0])
    for purpose, number in (("weights", 1), ("alpha", 2), (None, 2)):
        for name in ("heads", "stack"):
            weights = supernet.mixture(seed, purpose)[name].numpy()
            assert ((weights > 0).sum(1) == number).all()
            np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-6)
    assert relaxation.paths("weights") == 1 and relaxation.paths("alpha") == 2 and relaxation.paths(None) is None
    mixture = supernet.mixture(seed, "weights")

    @tf.function(autograph=False)
    def run(paths):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(supernet(x, training=True, mixture=mixture, paths=paths) ** 2)
        return loss, tape.gradient(loss, [variable.value for variable in supernet.weight_variables])

    for ours, expected in zip(*(tf.nest.flatten(run(paths)) for paths in (1, 2)), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-4)


def test_it_is_saved(tmp_path):
    there = {"heads": SPACE.choices["heads"].mask}
    there["heads"][0, 0] = False
    supernet = DenseSupernet(SPACE, 3, 6, [1, 1, 2, 1, 1], candidates=there)
    x = tf.random.stateless_normal([2, 8, 8, 1], [0, 0])
    expected = supernet(x)
    supernet.save(tmp_path / "supernet.keras")
    again = keras.models.load_model(tmp_path / "supernet.keras")
    assert again.space == SPACE and again.genotype() == supernet.genotype()
    np.testing.assert_allclose(again(x), expected, rtol=1e-6)


def test_sizes():
    with pytest.raises(ValueError, match="sync_batch_norm with relaxation=drawn_softmax: expected a relaxation that"):
        SPACE.supernet(TASK, "drawn_softmax", sync_batch_norm=True)
    with pytest.raises(ValueError, match="init_channels=0: expected at least 1 channel"):
        DenseSupernet(SPACE, 3, 0)
    assert DenseSupernet(SPACE, 3, 8).graph.channels == (8, 8, 12, 16, 20)
    assert Graph(**TINY).channels == (4, 4, 6, 8, 10)


def test_the_picture():
    path = spaces.from_text(TEXT)
    (picture,) = path.space.pictures(path)
    shapes = picture.edges(path)
    boxes = [shape for shape in shapes if isinstance(shape, Box)]
    operations = {box.title: box for box in boxes if box.title}
    assert len(boxes) == 18 + 8 and [box.opacity for box in boxes if not box.title].count(1) == 8
    head, layer = operations["mb6_k7, the head of block 4"], operations["mb3_k3, layer 1 of block 4"]
    assert head.height == 2 * layer.height and head.width == 7 / 3 * layer.width and head.kind != layer.kind
    lines = [shape for shape in shapes if isinstance(shape, Line)]
    assert [line.title for line in lines[:2]] == ["block 0 to block 1", "block 1 to block 4"] and len(lines) == 7
    strengths = np.full(path.space.choices["routing"].mask.shape, 0.25)
    strengths[0, 0] = 1
    lines = [shape for shape in picture.edges(path, strengths, 1.0) if isinstance(shape, Line)]
    assert [line.width for line in lines[:2]] == [5, 1.25] and lines[1].title == "block 1 to block 4, weight 0.250"
    for shape in (*shapes, *picture.shapes):
        points = shape.points if isinstance(shape, Line) else [(shape.x, shape.y)]
        assert all(0 < x < picture.width and 0 < y < picture.height for x, y in points)
    texts = [
        shape.text
        for shape in SPACE.pictures(found(["1 mb1_k5", "3 mb1_k5"]), init_channels=8)[0].edges(
            found(["1 mb1_k5", "3 mb1_k5"])
        )
        if isinstance(shape, Text)
    ]
    assert texts == ["8", "8", "12", "16", "20"]
    assert drawing.svg(path).startswith("<svg")
