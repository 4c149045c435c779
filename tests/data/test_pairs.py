"""Arrays and datasets as pairs of batches."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from darts_tf.data import pairs

X, Y = np.arange(20.0).reshape(10, 2), np.arange(10)


def labels(batches):
    """The labels of the two batches of each pair, as lists."""
    return [(train[1].numpy().tolist(), valid[1].numpy().tolist()) for train, valid in batches]


def test_an_epoch_is_a_pass_over_the_first_part():
    data, arch_data = pairs.split((X, Y), 0.3, "arch_split")
    batches = pairs.pairs(data, arch_data, batch_size=3, shuffle=False)
    # what is left at the end for the weights, whole batches for alpha
    expected = [([0, 1, 2], [7, 8, 9]), ([3, 4, 5], [7, 8, 9]), ([6], [7, 8, 9])]
    assert labels(batches) == labels(batches) == expected
    assert int(batches.cardinality()) == 3
    (x, _), _ = next(iter(batches))
    assert x.dtype == tf.float32 and x.numpy().tolist() == X[:3].tolist()


def test_each_epoch_has_an_order_of_its_own_and_the_parts_stay_apart():
    keras.utils.set_random_seed(0)
    batches = pairs.pairs(*pairs.split((X, Y), 0.4, "arch_split"), batch_size=4)
    epochs = [labels(batches) for _ in range(3)]
    orders = [[list(itertools.chain(*part)) for part in zip(*epoch, strict=True)] for epoch in epochs]
    for train, valid in orders:
        assert sorted(train) == list(range(6)) and set(valid) <= {6, 7, 8, 9} and len(valid) == 8
    assert len({str(train) for train, _ in orders}) == len({str(valid) for _, valid in orders}) == 3
    keras.utils.set_random_seed(0)
    assert labels(pairs.pairs(*pairs.split((X, Y), 0.4, "arch_split"), batch_size=4)) == epochs[0]


def test_shuffling_within_batches():
    ((train, _),) = labels(pairs.pairs((X, Y), (X, Y), batch_size=10, shuffle="batch"))
    assert train != list(range(10)) and sorted(train) == list(range(10))
    for train, _ in labels(pairs.pairs((X, Y), (X, Y), batch_size=2, shuffle="batch")):
        assert abs(train[0] - train[1]) == 1


def test_datasets_go_with_arrays_and_begin_again():
    batches = tf.data.Dataset.from_tensor_slices((X, Y))
    assert len(labels(pairs.pairs(batches.batch(2), batches.batch(5)))) == 5
    assert labels(pairs.pairs(batches.batch(6), (X, Y), 3, shuffle=False))[1] == ([6, 7, 8, 9], [3, 4, 5])


def test_nested_arrays_and_lists():
    data = pairs.checked("x and y", ({"a": X, "b": [Y, tf.constant(Y)]}, Y, Y / 10))
    ((x, y, sample_weight), _), *_ = pairs.pairs(data, data, 4, shuffle=False)
    assert x["b"][1].numpy().tolist() == y.numpy().tolist() == [0, 1, 2, 3] and isinstance(x["b"], tuple)
    np.testing.assert_allclose(sample_weight, [0, 0.1, 0.2, 0.3], rtol=1e-6)


@pytest.mark.parametrize("y", [Y % 3, (Y % 3)[:, None], keras.utils.to_categorical(Y % 3), (Y % 3).astype("float32")])
def test_class_weights_are_sample_weights(y):
    for class_weight in ({0: 2, 1: 0.5}, {0: 0.5}):
        batches = pairs.class_weighted(pairs.pairs((X, y), (X, y), 10, shuffle=False), class_weight)
        for _, same, sample_weight in next(iter(batches)):
            np.testing.assert_array_equal(same, y)
            np.testing.assert_array_equal(sample_weight, [class_weight.get(label, 1) for label in Y % 3])


@pytest.mark.parametrize(
    "data, message",
    [
        ((batch for batch in ()), "x: a generator, expected arrays .*from_generator"),
        (keras.utils.PyDataset(), "x: a keras.utils.PyDataset, expected arrays"),
        ([[1.0, 2.0], [3.0, 4.0]], "x: a float, expected arrays"),
        (np.float32(1), "x: a float32, expected arrays"),
        (X[:9], "x: 9 and 10 samples, expected as many in x, y and sample_weight"),
    ],
)
def test_what_are_no_arrays(data, message):
    with pytest.raises(ValueError, match=message):
        pairs.checked("x", (data, Y, None))


def test_what_is_no_pair_of_arrays():
    with pytest.raises(ValueError, match="x: a NoneType, expected arrays"):
        pairs.checked("x", (X, None))
    with pytest.raises(ValueError, match=r"arch_data: a ndarray, expected \(x, y\), \(x, y, sample_weight\) or a tf"):
        pairs.checked("arch_data", X)


@pytest.mark.parametrize(
    "portion, message", [(1.5, "split=1.5: expected a number between 0 and 1"), (0.99, "split=0.99 of 10 samples")]
)
def test_impossible_parts(portion, message):
    with pytest.raises(ValueError, match=message):
        pairs.split((X, Y), portion, "split")


def test_class_weights_do_not_go_with_sample_weights_or_several_labels():
    weighted = pairs.pairs((X, Y), (X, Y, Y))
    with pytest.raises(ValueError, match="class_weight and sample_weight: expected one of them"):
        pairs.class_weighted(weighted, {0: 2.0})
    several = pairs.pairs((X, {"a": Y, "b": Y}), (X, {"a": Y, "b": Y}))
    with pytest.raises(ValueError, match="class_weight with labels for several outputs: expected sample_weight"):
        pairs.class_weighted(several, {0: 2.0})
