import itertools

import pytest

from darts_tf.methods import schedules


@pytest.mark.parametrize("name", schedules.names())
def test_schedules_go_from_the_first_value_to_the_last(name):
    values = [schedules.value(name, epoch, 10, 4.0, 1.0) for epoch in range(11)]
    if name == "constant":
        assert values == [1.0] * 11
        return
    assert values[0] == 4.0 and values[9 if name == "linear_to_last" else 10] == pytest.approx(1.0)
    assert all(later < earlier for earlier, later in itertools.pairwise(values))


def test_schedules_can_start_late_and_stop_early():
    values = [schedules.value("linear", epoch, 10, 1.0, 0.0, start=2, stop=6) for epoch in range(10)]
    assert values == [1.0, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.5, 0.5, 0.5]
    assert schedules.value("linear_to_last", 0, 1, 1.0, 0.0) == 1.0  # of one epoch


def test_unknown_schedule():
    with pytest.raises(ValueError, match="schedule=step: expected one of constant, linear"):
        schedules.value("step", 0, 1, 1.0, 0.0)
