"""What happens between the epochs of a search."""

import csv
import io
import math
import pathlib
import time

import keras
import numpy as np

from darts_tf.files import write


def cosine_schedule(learning_rate, learning_rate_min, epochs):
    """The learning rate of each epoch falls along half a cosine (Loshchilov & Hutter, 2017), as a Keras callback."""

    def rate(epoch, _):
        return learning_rate_min + (learning_rate - learning_rate_min) * (1 + math.cos(math.pi * epoch / epochs)) / 2

    return keras.callbacks.LearningRateScheduler(rate)


class StopOnNaN(keras.callbacks.Callback):
    """Stops the run when its loss is no number any more; `epoch` is then the one (from 1) in which that happened."""

    epoch = None

    def on_epoch_begin(self, epoch, logs=None):
        self._current = epoch + 1

    def on_train_batch_end(self, batch, logs=None):
        if not math.isfinite((logs or {}).get("loss", 0.0)):
            self.epoch = self._current
            self.model.stop_training = True


class SearchRecord(keras.callbacks.Callback):
    """Keeps a search in its run directory, epoch by epoch; an epoch without a finite loss leaves no trace.

    history.csv    a line per epoch: what Keras logs, seconds, and the genotype
    alphas.npz     "normal" and "reduce", (1 + epochs, edges, operations), before the softmax, from the start on;
                   "primitives", the operations' names
    genotype.json  the genotype of the last epoch

    Args:
        directory: an existing folder.
        announce: called with (epoch, genotype, genotype of the epoch before or None) after each epoch.
    """

    def __init__(self, directory, announce=None):
        super().__init__()
        self.directory = pathlib.Path(directory)
        self.announce = announce
        self.genotype = None
        self._rows = []
        self._alphas = []

    def on_train_begin(self, logs=None):
        self._keep_alphas()

    def on_epoch_begin(self, epoch, logs=None):
        self._began = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        if not all(math.isfinite(value) for value in logs.values()):
            return
        genotype, before = self.model.genotype(), self.genotype
        values = {name: float(f"{value:.8g}") for name, value in logs.items()}
        seconds = round(time.monotonic() - self._began, 3)
        self._rows.append({"epoch": epoch + 1, **values, "seconds": seconds, "genotype": str(genotype)})
        text = io.StringIO()
        table = csv.DictWriter(text, list(self._rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(self._rows)
        write(self.directory / "history.csv", text.getvalue())
        self._keep_alphas()
        write(self.directory / "genotype.json", genotype.to_json() + "\n")
        self.genotype = genotype
        if self.announce:
            self.announce(epoch + 1, genotype, before)

    def _keep_alphas(self):
        network = self.model.network
        self._alphas.append({kind: keras.ops.convert_to_numpy(alpha) for kind, alpha in network.alphas.items()})
        content = io.BytesIO()
        stacked = {kind: np.stack([alphas[kind] for alphas in self._alphas]) for kind in network.alphas}
        np.savez_compressed(content, **stacked, primitives=np.array(network.primitives))
        write(self.directory / "alphas.npz", content.getvalue())
