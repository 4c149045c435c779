"""What models of tables are worth."""

import keras
import numpy as np
import pytest

from darts_tf.data import tabular, tasks
from darts_tf.data.tabular import MeanAbsoluteError


def test_the_error_is_in_the_unit_of_the_table():
    metric = MeanAbsoluteError(scale=10.0)
    metric.update_state([1.0, 2.0], [[1.5], [1.0]])
    metric.update_state([0.0], [[0.0]])
    assert float(metric.result()) == pytest.approx(5.0)
    again = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert again.scale == 10.0 and again.name == "mean_absolute_error"


def test_the_area_under_the_curve_is_the_part_of_pairs_in_order():
    random = np.random.default_rng(0)
    scores, right = random.integers(0, 8, 60) / 8, random.random(60) < 0.4
    pairs = scores[right][:, None] - scores[~right][None]
    assert tabular._area(scores, right) == pytest.approx((pairs > 0).mean() + (pairs == 0).mean() / 2)
    assert tabular._area(scores, np.zeros(60, bool)) is None and tabular._area(scores * np.nan, right) is None


def test_results_of_classes_and_of_numbers():
    logits, labels = np.array([[2.0, 0, 0], [0, 2, 0], [0, 0, 2], [2, 0, 0]]), np.array([0, 1, 1, 0])
    results, arrays = tabular._classes(logits, labels, ["a", "b", "c"])
    assert results["accuracy"] == 0.75 and results["auc"] is None and results["per_class"] == {"a": 1.0, "b": 0.5}
    assert results["confusion"] == [[2, 0, 0], [0, 1, 1], [0, 0, 0]]
    np.testing.assert_array_equal(arrays["predicted"], [0, 1, 2, 0])
    results, _ = tabular._numbers(np.array([[1.0], [2.0], [6.0]]), np.array([1, 3, 5], np.float32), None)
    assert results == {
        "mean_absolute_error": pytest.approx(2 / 3),
        "root_mean_squared_error": pytest.approx(np.sqrt(2 / 3)),
        "r2": pytest.approx(1 - (2 / 3) / (8 / 3)),
    }


def test_damaged_descriptions_are_refused():
    number = tasks.get("table_regression")
    well = {"columns": {"a": {}}, "label": "b", "label_scale": [0.0, 1.0]}
    number.check(well, {"test_rows": 3, "mean_absolute_error": 1.0, "r2": 0.5})
    for wrong in ({"label_scale": None}, {"columns": []}, {"label": 3}):
        with pytest.raises(ValueError, match="expected"):
            number.check(well | wrong)
    with pytest.raises(ValueError, match=r"label_smooth=0\.1: expected none"):
        number((3,), 1).loss(0.1)


@pytest.mark.parametrize("name, labels", [("table_classification", [1, 0]), ("table_regression", [0.5, -1.0])])
def test_the_score_is_the_headline(name, labels):
    kind, outputs = tasks.get(name), np.array([[0.0, 1.0], [2.0, 1.0]], np.float32)
    task = kind((3,), 2) if name == "table_classification" else kind((3,), 1, label_scale=(5.0, 2.0))
    outputs = outputs if task.outputs == 2 else outputs[:, :1]
    metric = task.metrics()[0]
    metric.update_state(np.array(labels), outputs)
    assert np.mean(task.score(np.array(labels, outputs.dtype), outputs)) == pytest.approx(float(metric.result()))
