"""What happens between the epochs of a run."""

import math
import types

import numpy as np
import pytest

from darts_tf.data.tasks import ImageClassification, LanguageModel
from darts_tf.runs import callbacks, rundirectory


def test_alphas_loss_is_no_column_of_the_history(tmp_path):
    history = callbacks.History(tmp_path)
    history.on_epoch_begin(0)
    history.on_epoch_end(0, {"arch_loss": math.nan, "loss": 1.0})
    assert (tmp_path / "history.csv").read_text().startswith("epoch,loss,seconds\n1,1.0,")


def test_an_epoch_without_a_finite_loss_leaves_no_trace(tmp_path):
    history = callbacks.History(tmp_path)
    for epoch, loss in enumerate((1.0, math.nan)):
        history.on_epoch_begin(epoch)
        history.on_epoch_end(epoch, {"loss": loss})
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 2


def test_what_is_not_finite_but_the_loss_leaves_its_column_empty(tmp_path):
    history = callbacks.History(tmp_path)
    for epoch, perplexity in enumerate((math.inf, 50.0)):
        history.on_epoch_begin(epoch)
        history.on_epoch_end(epoch, {"loss": 90.0, "val_perplexity": perplexity})
    assert [row["val_perplexity"] for row in rundirectory.history(tmp_path)] == [None, 50.0]
    done = callbacks.BestModel.done(history.rows, LanguageModel.headline)
    assert [value for value, _ in done] == [math.inf, 50.0]


def test_rates_follow_the_lengths_of_segments():
    optimizer = types.SimpleNamespace(learning_rate=20.0)
    checkpoints = types.SimpleNamespace(done=3)
    callback = callbacks.RateByLength(lambda step: step / 10, checkpoints)
    callback.set_model(types.SimpleNamespace(optimizer=optimizer))
    callback.on_epoch_begin(0)
    for step in (3, 4):
        checkpoints.done = step
        callback.on_train_batch_begin(step)
        assert optimizer.learning_rate == 20 * step / 10
        callback.on_train_batch_end(step)
        assert optimizer.learning_rate == 20


def test_a_training_ends_once_there_has_been_no_better_validation_for_some_epochs(tmp_path):
    headline, saved = ImageClassification.headline, []
    values = [0.5, 0.7, 0.7, float(np.float32(0.7) + np.float32(3e-9)), 0.6, 0.8]

    def run(done, values):
        callback = callbacks.BestModel(tmp_path, headline, done, lambda model, path: saved.append(path.touch()), 3)
        callback.set_model(types.SimpleNamespace(stop_training=False))
        for epoch, value in enumerate(values):
            callback.on_test_end({"accuracy": value, "loss": 1.0})
            callback.on_epoch_end(epoch, {"val_accuracy": value})
        return callback

    assert not run([], values[:4]).model.stop_training and len(saved) == 2
    # What history.csv has of it goes on as it was.
    done = callbacks.BestModel.done([{"val_accuracy": callbacks.rounded(value)} for value in values[:3]], headline)
    callback = run(done, values[3:5])
    assert callback.model.stop_training and callback.has_ended and len(saved) == 2
    assert callbacks.BestModel(tmp_path, headline, callback.epochs, None, 3).has_ended
    assert not callbacks.BestModel(tmp_path, headline, callback.epochs, None, 4).has_ended
    assert not callbacks.BestModel(tmp_path, headline, callback.epochs, None).has_ended


def test_what_is_not_finite_is_never_the_best(tmp_path):
    callback = callbacks.BestModel(tmp_path, ImageClassification.headline, [], None, 3)
    callback.on_test_end({"accuracy": 0.9, "loss": math.nan})
    assert not list(tmp_path.iterdir())


def test_the_learning_rate_grows_before_it_falls():
    def rates(after, warmup):
        callback = callbacks.warmup_schedule(0.4, warmup, after)
        return [callback.schedule(epoch, None) for epoch in range(6)]

    cosine = [0.1 + 0.3 * (1 + math.cos(math.pi * epoch / 3)) / 2 for epoch in range(3)]
    assert rates(callbacks.cosine_schedule(0.4, 0.1, 3), 3) == pytest.approx([0.1, 0.2, 0.3, *cosine])
    assert rates(callbacks.exponential_schedule(0.4, 0.5), 0) == pytest.approx([0.4 / 2**epoch for epoch in range(6)])


class Averaging:
    """As far as `BestAverage` looks at an optimizer."""

    is_averaging, swapped, asked = False, False, False

    def start_averaging(self):
        self.asked = True

    def swap(self, variables):
        self.swapped = not self.swapped


def test_the_best_model_is_kept_and_averaging_begins_once_nothing_gets_better(tmp_path):
    optimizer, rows, saved = Averaging(), [], []

    def save(model, path):
        saved.append((len(rows), model.optimizer.swapped))
        path.write_text("")

    headline = LanguageModel.headline
    callback = callbacks.BestAverage(tmp_path, headline, [], 2, save)
    callback.set_model(types.SimpleNamespace(optimizer=optimizer, trainable_variables=[]))
    for epoch, value in enumerate((9.0, 7.0, 8.0, 6.5, 7.5, 6.0, 6.2, 5.0)):
        optimizer.is_averaging = optimizer.asked
        callback.on_test_begin()
        assert optimizer.swapped == optimizer.is_averaging
        callback.on_test_end({headline.name: value, "loss": value})
        assert not optimizer.swapped
        logs = {f"val_{headline.name}": value}
        callback.on_epoch_end(epoch, logs)
        rows.append(logs)
        assert optimizer.asked == (epoch >= 4)  # 7.5, worse than the 7.0 of at least two epochs before
    assert [row["averaged"] for row in rows] == [0.0] * 5 + [1.0] * 3
    assert saved == [(0, False), (1, False), (3, False), (5, True), (7, True)]
