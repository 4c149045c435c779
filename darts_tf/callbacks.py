"""What happens between the epochs of a run."""

import csv
import io
import math
import pathlib
import sys
import time

import keras
import numpy as np

from darts_tf import genotypes
from darts_tf.cells import DropPath
from darts_tf.files import write


def cosine_schedule(learning_rate, learning_rate_min, epochs):
    """The learning rate of each epoch falls along half a cosine (Loshchilov & Hutter, 2017), as a Keras callback."""

    def rate(epoch, _):
        return learning_rate_min + (learning_rate - learning_rate_min) * (1 + math.cos(math.pi * epoch / epochs)) / 2

    return keras.callbacks.LearningRateScheduler(rate)


def exponential_schedule(learning_rate, gamma):
    """The learning rate is multiplied by gamma after each epoch, as a Keras callback."""
    return keras.callbacks.LearningRateScheduler(lambda epoch, _: learning_rate * gamma**epoch)


class DropPathSchedule(keras.callbacks.Callback):
    """The rate of all `cells.DropPath` layers grows by the epoch, from 0 towards `rate`."""

    def __init__(self, rate, epochs):
        super().__init__()
        self.rate, self.epochs = rate, epochs

    def on_epoch_begin(self, epoch, logs=None):
        for layer in self.model.layers:
            if isinstance(layer, DropPath):
                layer.rate.assign(self.rate * epoch / self.epochs)


class StopOnNaN(keras.callbacks.Callback):
    """Stops the run when its loss is no number any more; `epoch` is then the one (from 1) in which that happened."""

    epoch = None

    def on_epoch_begin(self, epoch, logs=None):
        self._current = epoch + 1

    def on_train_batch_end(self, batch, logs=None):
        if not math.isfinite((logs or {}).get("loss", 0.0)):
            self.epoch = self._current
            self.model.stop_training = True

    def exit_if_stopped(self, kept):
        """Ends the command with exit code 1 if the run was stopped; `kept` says what is left of it."""
        if self.epoch:
            lower = "Try a lower --learning_rate."
            print(f"error: the loss became NaN in epoch {self.epoch}; kept: {kept}. {lower}", file=sys.stderr)
            sys.exit(1)


class History(keras.callbacks.Callback):
    """Keeps history.csv in a run directory: a line per epoch with what Keras logs and the seconds it took.

    An epoch without a finite loss leaves no trace.

    Args:
        directory: an existing folder.
        epochs: epochs of the run that are done; what the files say of them stays there.
    """

    def __init__(self, directory, epochs=0):
        super().__init__()
        self.directory = pathlib.Path(directory)
        self._rows = []
        if epochs:
            with (self.directory / "history.csv").open(newline="") as table:
                self._rows = [row for row in csv.DictReader(table) if int(row["epoch"]) <= epochs]

    def on_epoch_begin(self, epoch, logs=None):
        self._began = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        if all(math.isfinite(value) for value in logs.values()):
            values = {name: float(f"{value:.8g}") for name, value in logs.items()}
            seconds = round(time.monotonic() - self._began, 3)
            self._rows.append({"epoch": epoch + 1, **values, "seconds": seconds, **self.more(epoch + 1)})
            text = io.StringIO()
            table = csv.DictWriter(text, list(self._rows[0]), lineterminator="\n")
            table.writeheader()
            table.writerows(self._rows)
            write(self.directory / "history.csv", text.getvalue())

    def more(self, epoch):
        """Does what else is to be done after an epoch (from 1); returns more columns, as a dict."""
        return {}


class SearchRecord(History):
    """Keeps a search in its run directory, epoch by epoch.

    history.csv    has the genotype of each epoch, too
    alphas.npz     "normal" and "reduce", (1 + epochs, edges, operations), before the softmax, from the start on;
                   "primitives", the operations' names
    genotype.json  the genotype of the last epoch

    Args:
        directory, epochs: as of `History`.
        announce: called with (epoch, genotype, genotype of the epoch before or None) after each epoch.
    """

    def __init__(self, directory, epochs=0, announce=None):
        super().__init__(directory, epochs)
        self.announce = announce
        self.genotype = genotypes.from_text(self._rows[-1]["genotype"]) if self._rows else None
        self._alphas = []
        if (self.directory / "alphas.npz").exists():
            with np.load(self.directory / "alphas.npz") as kept:
                arrays = {kind: kept[kind][: epochs + 1] for kind in ("normal", "reduce")}
            self._alphas = [dict(zip(arrays, pair, strict=True)) for pair in zip(*arrays.values(), strict=True)]

    def on_train_begin(self, logs=None):
        if not self._alphas:
            self._keep_alphas()

    def more(self, epoch):
        before, self.genotype = self.genotype, self.model.genotype()
        self._keep_alphas()
        write(self.directory / "genotype.json", self.genotype.to_json() + "\n")
        if self.announce:
            self.announce(epoch, self.genotype, before)
        return {"genotype": str(self.genotype)}

    def _keep_alphas(self):
        network = self.model.network
        self._alphas.append({kind: keras.ops.convert_to_numpy(alpha) for kind, alpha in network.alphas.items()})
        content = io.BytesIO()
        stacked = {kind: np.stack([alphas[kind] for alphas in self._alphas]) for kind in network.alphas}
        np.savez_compressed(content, **stacked, primitives=np.array(network.primitives))
        write(self.directory / "alphas.npz", content.getvalue())
