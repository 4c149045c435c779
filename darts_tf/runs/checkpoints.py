"""Checkpoints: all that a run needs to go on bit for bit where it was.

keras.callbacks.BackupAndRestore goes on at the beginning of an epoch, and its two files can be of different moments.
Data needs no state: batches follow from the seed and the number of the step.
"""

import io
import math
import pathlib

import keras
import numpy as np

from darts_tf.cli.files import replacing
from darts_tf.devices import replicas
from darts_tf.devices.cluster import ALONE
from darts_tf.runs import rundirectory

KEPT = 3


class Checkpoints(keras.callbacks.Callback):
    """Saves a run at the end of each epoch and every few steps, and keeps the last few files.

    checkpoints/step-00001234.npz holds every variable of the model, of its metrics and of its optimizers after so many
    steps. On several machines the chief alone has files; it tells the others.

    Args:
        directory: of the run; on a worker that is not the chief it is not used.
        steps: steps in an epoch.
        every: steps from one file to the next within an epoch; 0 for none.
        worker: `Worker`.

    Attributes:
        done: steps that the run has made.
        before_save: function that is called before something is written to the run directory.
        stop: number of a signal; the run then ends after the current step, by `SystemExit(128 + stop)` as in a shell.
    """

    def __init__(self, directory, steps, every=0, worker=ALONE):
        super().__init__()
        self.directory = pathlib.Path(directory or "") / "checkpoints"
        self.steps, self.every, self.worker = steps, every, worker
        self.done = 0
        self.before_save = lambda: None
        self.stop = None
        self._metrics = []

    def restore(self, make, strategy, warn=print):
        """Makes the model of a run, where the newest readable file was, if there is one.

        Args:
            make: function of the steps that are done -> compiled `keras.Model`, all variables of which exist.
            strategy: `tf.distribute.Strategy` of the model.
            warn: called with a line of text about each file that cannot be read.

        Returns:
            The model; `done` tells its steps.

        Raises:
            ValueError: there are files but none can be read, or the newest that can is of another model.
        """
        content = self._newest(warn) if self.worker.is_chief else b""
        if self.worker.count > 1:
            content = replicas.from_chief(strategy, content)
        self.done, values = _read(io.BytesIO(content)) if content else (0, [])
        model = make(self.done)
        if content:
            variables = _variables(model)
            values = _fitting(values, variables)
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
            self._metrics = _of_metrics(model, variables, values)
        return model

    def set_model(self, model):
        super().set_model(model)
        self._agree = replicas.averaging_statistics(model)

    def on_test_begin(self, logs=None):
        self._agree()

    def on_epoch_begin(self, epoch, logs=None):
        self._begin = self.done
        if self.done % self.steps:
            for variable, value in self._metrics:  # Keras has just reset them
                variable.assign(value)
        self._metrics = []

    def on_train_batch_end(self, batch, logs=None):
        before, self.done = self.done, step_after(self._begin, batch, self.steps)
        if self.done % self.steps == 0:  # the epoch ends with validation and a record of it
            return
        stop = self.stop is not None
        # All workers save, or none; a signal may have come to some of them.
        if (stop and self.worker.count == 1) or (self.every and before // self.every < self.done // self.every):
            self.save(logs)
        if stop:
            raise SystemExit(128 + self.stop)

    def on_epoch_end(self, epoch, logs=None):
        self.save(logs)
        if self.stop is not None:
            raise SystemExit(128 + self.stop)

    def save(self, logs=None):
        """Writes a file, unless the loss in `logs` is no number any more."""
        if not math.isfinite((logs or {}).get("loss", 0.0)):
            return
        self._agree()
        # The replicas' metrics are added up when they are read, which takes all of them, and divided when they are
        # assigned: a run goes on with what it has saved, as the one that is restored from it will.
        variables = _variables(self.model)
        values = [keras.ops.convert_to_numpy(variable) for variable in variables]
        if self.model.distribute_strategy.num_replicas_in_sync > 1:
            for variable, value in _of_metrics(self.model, variables, values):
                variable.assign(value)
        if not self.worker.is_chief:
            return
        self.before_save()
        self.directory.mkdir(exist_ok=True)
        with replacing(self.directory / f"step-{self.done:08}.npz") as beside, beside.open("wb") as file:
            np.savez(file, *values, step=self.done)
        for old in self._files()[KEPT:]:
            old.unlink(missing_ok=True)

    def _files(self):
        files = [path for path in self.directory.glob("step-*.npz") if rundirectory.CHECKPOINT.fullmatch(path.name)]
        return sorted(files, key=_step, reverse=True)

    def _newest(self, warn):
        """The content of the newest file that is whole; b"" if there are no files."""
        files = self._files()
        for file in files:
            try:
                content = file.read_bytes()
                done, _ = _read(io.BytesIO(content))
                if done != _step(file):
                    raise ValueError(f"it is of step {done}")
            except Exception as error:  # of every kind: of the file system, zip, numpy
                warn(f"{file} cannot be read ({error}); trying the one before.")
                continue
            return content
        if files:
            raise ValueError(f"none of the {len(files)} checkpoints in {self.directory} can be read")
        return b""


def step_after(begin, batch, steps):
    """How many steps a run has made at the end of Keras's `batch`.

    Args:
        begin: how many it had made when Keras began to count batches.
        batch: Keras's count, from 0; where it runs several steps at once it counts beyond the end of the epoch.
        steps: steps in an epoch.
    """
    return min(begin + batch + 1, (begin // steps + 1) * steps)


def _step(file):
    """The step in a file's name."""
    return int(file.stem.removeprefix("step-"))


def _read(file):
    """Steps done and the values of all variables."""
    with np.load(file) as arrays:  # which checks that they are whole
        values = [arrays[f"arr_{index}"] for index in range(len(arrays.files) - 1)]
        return int(arrays["step"]), values


def _fitting(values, variables):
    """The values, one per variable; raises ValueError if they are of another model."""
    if len(values) < len(variables):  # files of before alpha's loss was logged lack it
        values = values + [np.zeros(v.shape, v.dtype) for v in variables[len(values) :] if _of_arch_loss(v)]
    if [(v.shape, v.dtype) for v in values] != [(tuple(v.shape), v.dtype) for v in variables]:
        raise ValueError("its newest checkpoint is of another model")
    return values


def _of_metrics(model, variables, values):
    """(variable, value) of those variables that are the metrics'."""
    ours = {id(variable) for variable in model.metrics_variables}
    return [pair for pair in zip(variables, values, strict=True) if id(pair[0]) in ours]


def _variables(model):
    """All that training changes, in an order that is the same in every process; the mean of alpha's loss is last."""
    optimizers = [model.optimizer, getattr(model, "arch_optimizer", None)]
    variables = [*model.variables, *model.metrics_variables]
    variables += [variable for optimizer in optimizers if optimizer for variable in optimizer.variables]
    return sorted({id(variable): variable for variable in variables}.values(), key=_of_arch_loss)


def _of_arch_loss(variable):
    return "arch_loss" in variable.path.split("/")
