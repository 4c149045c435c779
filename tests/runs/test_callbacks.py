"""What happens between the epochs of a run."""

import math

from darts_tf.data.tasks import LanguageModel
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
    best = callbacks.BestModel(None, LanguageModel.headline, history.rows, 5, save=None)
    assert best._values() == [math.inf, 50.0]
