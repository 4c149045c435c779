"""What people look at while a run goes on: its report, and TensorBoard."""

import pathlib

import keras
import tensorflow as tf

from darts_tf.reports import drawing, report


class Report(keras.callbacks.Callback):
    """Rewrites report.html after each epoch. Put it behind `History`, which writes what the report shows."""

    def __init__(self, directory):
        super().__init__()
        self.directory = directory

    def on_epoch_end(self, epoch, logs=None):
        report.write_report(self.directory)


def tensorboard(directory):
    """Keras's callback for TensorBoard: what it logs, in tensorboard/ of a run directory, after each epoch."""
    return keras.callbacks.TensorBoard(pathlib.Path(directory) / "tensorboard", write_graph=False)


class SearchBoard(keras.callbacks.Callback):
    """Writes for TensorBoard, after each epoch of a search: histograms of the alphas, and the genotype as a picture.

    Args:
        directory: of the run.
        record: `darts_tf.runs.callbacks.SearchRecord`, before this one.
    """

    def __init__(self, directory, record):
        super().__init__()
        self.record = record
        self._writer = tf.summary.create_file_writer(str(pathlib.Path(directory) / "tensorboard" / "search"))

    def on_epoch_end(self, epoch, logs=None):
        network = self.model.network
        strengths = network.strengths()
        picture = tf.io.decode_png(drawing.png(self.record.genotype, strengths, network.space, scale=1))
        with self._writer.as_default(step=epoch):  # counted from 0, as Keras does
            for name, alpha in network.alphas.items():
                tf.summary.histogram(f"alpha/{name}", tf.convert_to_tensor(alpha))
            tf.summary.image("cells", picture[None])
            self._writer.flush()
