"""What the supernet of cells can be made with, and how that is computed."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from darts_tf import DARTS, SearchNetwork
from darts_tf.methods.optimizers import SGD
from darts_tf.ops import mixed_op
from darts_tf.spaces.cells.cell import SearchCell, rows_by_source
from darts_tf.spaces.cells.space import PRIMITIVES

SMALL = {"channels": 4, "layers": 3, "num_classes": 3, "nodes": 2}
X = tf.random.stateless_normal([4, 9, 8, 2], [5, 0])


def network(seed=0, **options):
    keras.utils.set_random_seed(seed)
    made = SearchNetwork(**(SMALL | options))
    made.build((None, *X.shape[1:]))
    return made


def masks(seed=0):
    draw = np.random.default_rng(seed)
    made = {kind: draw.random((5, len(PRIMITIVES))) < 0.4 for kind in ("normal", "reduce")}
    for mask in made.values():
        mask[:, 3] = True
    return made


@pytest.mark.parametrize(
    "options",
    [
        {"candidates": masks(), "partial_channels": 2, "edge_normalization": True, "relaxation": "gumbel_hard"},
        {"auxiliary_skip": True, "skip_dropout": True},
    ],
    ids=["drawn", "skips"],
)
def test_what_is_saved_is_loaded(options, tmp_path):
    made = network(**options)
    for variable in made.variables:
        variable.assign(variable + 0.1)
    made.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    np.testing.assert_array_equal(loaded(X), made(X))
    for kind, mask in made.candidates.items():
        np.testing.assert_array_equal(loaded.candidates[kind], mask)


def test_a_candidate_that_no_edge_has_costs_nothing():
    mask = np.zeros((5, len(PRIMITIVES)), bool)
    mask[:, 3] = True
    some = network(candidates={"normal": mask, "reduce": mask})
    assert some.count_params() < network().count_params() / 4
    names = {variable.path.split("/")[-2] for variable in some.cells[0].trainable_variables}
    assert names == {"preprocess0", "preprocess1"}


def test_all_nodes_share_a_function_whatever_their_masks():
    mixed_op._edges_at_once.cache_clear()
    draw = np.random.default_rng(1)
    wide = {kind: draw.random((9, len(PRIMITIVES))) < 0.9 for kind in ("normal", "reduce")}
    for mask in wide.values():
        mask[:, 3] = True
        mask[[0, 1, 3, 6, 8]] = True  # all nodes have all operations, though not on all edges
    made = network(nodes=3, candidates=wide)
    tf.function(made)(X, training=True)
    assert mixed_op._edges_at_once.cache_info().misses <= 4  # two strides, with tables and without


def test_channels_that_pass_by_a_reduction_of_odd_images():
    keras.utils.set_random_seed(0)
    cell = SearchCell(["none", "skip_connect"], 6, nodes=1, reduction=True, partial_channels=3)
    x = tf.random.stateless_normal([2, 7, 7, 6], [3, 0])
    cell.build([x.shape, x.shape])
    nothing = rows_by_source(tf.constant([[1.0, 0.0]] * 2), cell.edges)
    y = cell([x, x], nothing, training=True)
    assert y.shape == (2, 4, 4, 6)
    passing = 0
    for operation in cell.preprocess:
        rest = np.pad(operation(x, training=True)[..., 2:], [(0, 0), (0, 1), (0, 1), (0, 0)], constant_values=-np.inf)
        passing += rest.reshape(2, 4, 2, 4, 2, 4).max(axis=(2, 4))
    expected = np.concatenate([np.zeros((2, 4, 4, 2)), passing], -1).reshape(2, 4, 4, 3, 2)
    np.testing.assert_allclose(y, expected.swapaxes(3, 4).reshape(2, 4, 4, 6), atol=1e-5)


def test_dropout_after_skips():
    plain, dropping = network(), network(skip_dropout=True)
    call = tf.function(lambda draw: dropping(X, training=True, draw=draw))
    draws = [tf.constant([0, step]) for step in (1, 2)]
    dropping.skip_dropout.assign(0.5)
    for training, draw in ((False, draws[0]), (True, None)):
        np.testing.assert_array_equal(dropping(X, training=training, draw=draw), plain(X, training=training))
    np.testing.assert_array_equal(call(draws[0]), call(draws[0]))
    assert np.abs(call(draws[0]) - call(draws[1])).max() > 1e-3
    dropping.skip_dropout.assign(0.0)
    np.testing.assert_array_equal(call(draws[0]), plain(X, training=True))


@pytest.mark.parametrize("drawn", [False, True])
def test_dropout_is_of_each_element_and_of_each_edge(drawn):
    mixed = mixed_op.MixedOp(["skip_connect", "none"], 3, 2)
    x, weights = tf.ones([8, 9, 9, 3]), tf.constant([[1.0, 0.0]] * 2)
    dropout = tf.constant(0.25), tf.constant([1, 2])
    y = np.asarray(mixed(x, weights, training=True, drawn=drawn, dropout=dropout))
    assert np.all(np.isclose(y, 0) | np.isclose(y, 1 / 0.75))
    assert 0.2 < np.isclose(y, 0).mean() < 0.3
    first, second = np.split(y, 2, -1)
    assert 0.1 < (np.isclose(first, 0) & ~np.isclose(second, 0)).mean() < 0.25
    halved = mixed_op.MixedOp(["skip_connect"], 4, 2, stride=2)
    x = tf.random.stateless_normal([2, 8, 8, 4], [1, 1])
    options = {"weights": weights[:, :1], "training": True}
    np.testing.assert_array_equal(halved(x, dropout=dropout, **options), halved(x, **options))


def test_the_rate_of_auxiliary_skips():
    made = network(auxiliary_skip=True)
    call = tf.function(lambda: made(X, training=True))
    one = call()
    assert float(made.auxiliary_rate) == 1
    made.auxiliary_rate.assign(0.0)
    rest = call()
    assert np.abs(one - rest).max() > 1e-3
    assert made.mixture()["normal"].shape == (5, len(PRIMITIVES))
    for cell in made.cells:
        for mixed in cell.mixed_ops.values():
            assert len(mixed.primitives) - 1 in (mixed.grouped if mixed.stride == 2 else mixed.shared)


def test_evaluation_of_drawn_operations_takes_the_strongest():
    made = network(relaxation="gumbel_hard")
    for alpha in made.alphas.values():
        alpha.assign(tf.random.stateless_normal(alpha.shape, [4, 4]))
    best = {kind: tf.one_hot(tf.argmax(alpha, 1), len(PRIMITIVES)) for kind, alpha in made.alphas.items()}
    np.testing.assert_array_equal(made(X), made(X, mixture=best))
    dense = network()
    np.testing.assert_allclose(made(X), dense(X, mixture=best), atol=1e-5)
    np.testing.assert_allclose(made(X, training=True), dense(X, training=True, mixture=best), atol=1e-4)


def test_low_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        for options in ({"relaxation": "gumbel_hard"}, {"candidates": masks(), "partial_channels": 2}):
            logits = network(**options, skip_dropout=True)(X, training=True, draw=tf.constant([0, 1]))
            assert logits.dtype == tf.float32 and np.isfinite(logits).all()
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"partial_channels": 3}, "partial_channels=3: expected a divisor of the 4 channels"),
        ({"partial_channels": 0}, "partial_channels=0: expected at least 1"),
        ({"auxiliary_skip": True, "relaxation": "gumbel_hard"}, "auxiliary_skip with relaxation=gumbel_hard: expected"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        SearchNetwork(**(SMALL | options))


def test_drawn_operations_are_not_for_xla():
    search = DARTS(SearchNetwork(**SMALL, relaxation="gumbel_hard"))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with pytest.raises(ValueError, match="jit_compile=True with relaxation=gumbel_hard: expected jit_compile=False"):
        search.compile(SGD(), loss, jit_compile=True)
