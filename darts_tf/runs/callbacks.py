"""What happens between the epochs of a run."""

import csv
import io
import itertools
import math
import pathlib
import sys
import time

import keras
import tensorflow as tf
from tqdm import tqdm

from darts_tf import spaces
from darts_tf.cli.files import write
from darts_tf.cli.messages import RunError
from darts_tf.ops.drop_path import DropPath
from darts_tf.runs import rundirectory
from darts_tf.runs.checkpoints import step_after


def cosine_schedule(learning_rate, learning_rate_min, epochs):
    """The learning rate of each epoch falls along half a cosine (Loshchilov & Hutter, 2017), as a Keras callback."""

    return keras.callbacks.LearningRateScheduler(
        lambda epoch, _: cosine(learning_rate, learning_rate_min, epoch, epochs)
    )


def cosine(first, last, epoch, epochs):
    """A value that falls from `first` towards `last` along half a cosine."""
    return last + (first - last) * (1 + math.cos(math.pi * epoch / epochs)) / 2


def exponential_schedule(learning_rate, gamma):
    """The learning rate is multiplied by gamma after each epoch, as a Keras callback."""
    return keras.callbacks.LearningRateScheduler(lambda epoch, _: learning_rate * gamma**epoch)


def warmup_schedule(learning_rate, epochs, schedule):
    """The learning rate grows in equal parts for so many epochs, then follows a schedule (Goyal et al., 2017).

    Args:
        learning_rate: which it reaches after these epochs.
        epochs: how many; 0 for none.
        schedule: what follows, as of the functions above; its epochs begin after these.

    Returns:
        A Keras callback.
    """

    def rate(epoch, _):
        return learning_rate * (epoch + 1) / (epochs + 1) if epoch < epochs else schedule.schedule(epoch - epochs, _)

    return keras.callbacks.LearningRateScheduler(rate)


class RateByLength(keras.callbacks.Callback):
    """Multiplies the learning rate of each step by the length of its segment of text (Merity et al., 2017).

    Put it behind what sets the rate of the epoch.

    Args:
        scale: function of a step, from 0, -> what it is multiplied by.
        checkpoints: `Checkpoints` of the run, which count steps.
    """

    def __init__(self, scale, checkpoints):
        super().__init__()
        self.scale, self.checkpoints = scale, checkpoints

    def on_epoch_begin(self, epoch, logs=None):
        self._rate = float(self.model.optimizer.learning_rate)

    def on_train_batch_begin(self, batch, logs=None):
        self.model.optimizer.learning_rate = self._rate * self.scale(self.checkpoints.done)

    def on_train_batch_end(self, batch, logs=None):
        self.model.optimizer.learning_rate = self._rate  # which is what is logged and saved


class DropPathSchedule(keras.callbacks.Callback):
    """The rate of all `darts_tf.ops.drop_path.DropPath` layers grows by the epoch, from 0 towards `rate`."""

    def __init__(self, rate, epochs):
        super().__init__()
        self.rate, self.epochs = rate, epochs

    def on_epoch_begin(self, epoch, logs=None):
        for layer in self.model.layers:
            if isinstance(layer, DropPath):
                layer.rate.assign(self.rate * epoch / self.epochs)


class StopOnNaN(keras.callbacks.Callback):
    """Stops the run when its loss is NaN or infinite; `epoch` is then the epoch, from 1, in which that happened."""

    epoch = None

    def on_epoch_begin(self, epoch, logs=None):
        self._current = epoch + 1

    def on_train_batch_end(self, batch, logs=None):
        if not math.isfinite((logs or {}).get("loss", 0.0)):
            self.epoch = self._current
            self.model.stop_training = True

    def raise_if_stopped(self, kept):
        """Raises RunError if the run was stopped; `kept` says what is left of it."""
        if self.epoch:
            try_this = "Try a lower --learning_rate or --grad_clip, or --precision=float32"
            raise RunError(
                f"the loss became NaN in epoch {self.epoch}; kept: {kept}. {try_this}, and another --output."
            )


class Progress(keras.callbacks.Callback):
    """Tells on stderr how far a run is: a line per epoch, and while an epoch runs a bar (tqdm).

    Args:
        steps: steps in an epoch.
        epochs: epochs of the run.
        headline: of the task, see `darts_tf.data.tasks.Headline`; None for losses alone.
        done: steps that the run has made.
        bar: whether to draw the bar, for terminals.
        note: function without arguments; what it returns at the end of an epoch becomes part of the line.
    """

    def __init__(self, steps, epochs, headline=None, done=0, bar=False, note=lambda: ""):
        super().__init__()
        self.steps, self.epochs, self.headline = steps, epochs, headline
        self.done, self.bar, self.note = done, bar, note
        self._first = None  # (time, steps done) when the first step, which is traced, had been made
        self._bar = None

    def on_train_begin(self, logs=None):
        if not self._first and not self.bar:
            print("Tracing the step ...", file=sys.stderr, flush=True)

    def on_epoch_begin(self, epoch, logs=None):
        self._began, self._begin = time.monotonic(), self.done
        self._name = f"epoch {epoch + 1:{len(str(self.epochs))}}/{self.epochs}"
        if self.bar:
            self._bar = tqdm(
                desc=self._name,
                total=self.steps,
                initial=self.done % self.steps,
                bar_format="{desc} {bar:20} {n_fmt}/{total_fmt}{postfix}",
                dynamic_ncols=True,
                leave=False,
                file=sys.stderr,
            )
            self._bar.set_postfix_str("" if self._first else "tracing the step")

    def on_train_batch_end(self, batch, logs=None):
        before, self.done = self.done, step_after(self._begin, batch, self.steps)
        if not self._first:
            self._first = time.monotonic(), self.done
        if self._bar is not None:
            self._bar.set_postfix_str("  ".join([*self._in_words(logs), *self._left()]), refresh=False)
            self._bar.update(self.done - before)

    def on_test_begin(self, logs=None):
        if self._bar is not None:
            self._bar.set_postfix_str("validating")

    def on_epoch_end(self, epoch, logs=None):
        self.close()
        seconds = f"{time.monotonic() - self._began:.1f} s"
        parts = [self._name, *self._in_words(logs), seconds, *self._left(), self.note()]
        print("  ".join(filter(None, parts)), file=sys.stderr, flush=True)

    def close(self):
        """Removes the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _left(self):
        """The time that is left to the run, as far as that is known, as a list of texts."""
        since, first = self._first
        left = self.epochs * self.steps - self.done
        if self.done == first or not left:
            return []
        return [f"{tqdm.format_interval((time.monotonic() - since) / (self.done - first) * left)} left"]

    def _in_words(self, logs):
        """The loss and the headline metric that Keras logs, as texts."""
        logs, headline = logs or {}, self.headline
        texts = [f"loss {logs['loss']:.4f}"] if "loss" in logs else []
        if headline:
            names = {headline.name: headline.name, f"val_{headline.name}": "validation"}
            texts += [f"{shown} {headline.text(logs[name])}" for name, shown in names.items() if name in logs]
        return texts


class History(keras.callbacks.Callback):
    """Keeps history.csv in a run directory: a line per epoch with what Keras logs and the seconds it took.

    An epoch without a finite loss leaves no trace; anything else that is not finite leaves its column empty.

    Args:
        directory: an existing folder.
        epochs: epochs of the run that are done; what the files say of them stays there.

    Attributes:
        rows: list of dicts, what history.csv says.
    """

    def __init__(self, directory, epochs=0):
        super().__init__()
        self.directory = pathlib.Path(directory)
        self.rows = (rundirectory.history(directory) or [])[:epochs]

    def on_epoch_begin(self, epoch, logs=None):
        self._began = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        # The columns of history.csv are the file's format, to which alpha's loss does not belong; TensorBoard has it.
        logs = {name: value for name, value in logs.items() if name != "arch_loss"}
        if math.isfinite(logs.get("loss", 0.0)):  # else the run stops
            values = {name: rounded(value) if math.isfinite(value) else None for name, value in logs.items()}
            seconds = round(time.monotonic() - self._began, 3)
            self.rows.append({"epoch": epoch + 1, **values, "seconds": seconds, **self.more(epoch + 1)})
            text = io.StringIO()
            table = csv.DictWriter(text, dict.fromkeys(itertools.chain(*self.rows)), lineterminator="\n")
            table.writeheader()
            table.writerows(self.rows)
            write(self.directory / "history.csv", text.getvalue())

    def more(self, epoch):
        """Does what else is to be done after an epoch (from 1); returns more columns, as a dict."""
        return {}


def rounded(value):
    """A number as history.csv has it."""
    return float(f"{value:.8g}")


class MovingAverages(keras.callbacks.Callback):
    """Validates the moving averages of the weights, see `keep_averages` of `darts_tf.methods.optimizers.SGD`.

    `keras.callbacks.SwapEMAWeights` would leave statistics of batch norms that are of other weights. Put it behind what
    saves the model at the end of a validation, which then saves the averages.
    """

    def set_model(self, model):
        super().set_model(model)
        self._swap = swapping(model)

    def on_test_begin(self, logs=None):
        self._swap()

    def on_test_end(self, logs=None):
        self._swap()


def swapping(model):
    """Function without arguments that puts the moving averages in place of a model's variables, and back."""
    swap = model.optimizer.swap_averages
    return tf.function(lambda: model.distribute_strategy.run(swap), autograph=False)


class BestModel(keras.callbacks.Callback):
    """Keeps the model of the epoch with the best validation, and ends a training that gets no better.

    Args:
        directory: of the run; model.keras there is the best model. None for a worker that has none.
        headline: of the task, see `darts_tf.data.tasks.Headline`.
        done: of the epochs that are done, see `epochs`.
        save: function of the model and a path.
        patience: epochs without a better validation after which the training ends; 0 for never.

    Attributes:
        epochs: list of (validation, the smaller the better; whether weights were averaged).
    """

    def __init__(self, directory, headline, done, save, patience=0):
        super().__init__()
        self.headline, self.epochs, self.save, self.patience = headline, list(done), save, patience
        self.path = directory and pathlib.Path(directory) / "model.keras"

    @staticmethod
    def done(rows, headline):
        """What `epochs` is after these rows of history.csv."""
        return [(headline.best_first(row[f"val_{headline.name}"]), bool(row.get("averaged"))) for row in rows]

    @property
    def has_ended(self):
        """Whether it is time to end the training."""
        values = [value for value, _ in self.epochs]
        return bool(self.patience and values) and len(values) - 1 - values.index(min(values)) >= self.patience

    def on_test_end(self, logs=None):
        if not math.isfinite(logs["loss"]):  # of weights that are not, whose accuracy is that of the first class
            return
        value = self.headline.best_first(rounded(logs[self.headline.name]))
        best = min((value for value, _ in self.epochs), default=math.inf)
        if self.path and (not self.path.exists() or value < best):
            self.save(self.model, self.path)

    def on_epoch_end(self, epoch, logs=None):
        name = f"val_{self.headline.name}"
        self.epochs += self.done([logs | {name: rounded(logs[name])}], self.headline)
        if self.has_ended:
            self.model.stop_training = True


class BestAverage(BestModel):
    """Keeps the best model of a language model's training, and averages its weights where that helps.

    After an epoch whose validation is worse than the best of those that are at least `nonmono` epochs older,
    the optimizer averages the weights (NT-ASGD, Merity et al., 2017), and from then on these are validated.

    Args:
        directory, headline, done, save: as of `BestModel`.
        nonmono: epochs; 0 for no averages.
    """

    def __init__(self, directory, headline, done, nonmono, save):
        super().__init__(directory, headline, done, save)
        self.nonmono = nonmono

    def on_test_begin(self, logs=None):
        self._averaged = self.model.optimizer.is_averaging
        if self._averaged:
            self.model.optimizer.swap(self.model.trainable_variables)

    def on_test_end(self, logs=None):
        super().on_test_end(logs)
        if self._averaged:
            self.model.optimizer.swap(self.model.trainable_variables)

    def on_epoch_end(self, epoch, logs=None):
        logs["averaged"] = float(self._averaged)
        before = [value for value, averaged in self.epochs if not averaged]
        super().on_epoch_end(epoch, logs)
        now, _ = self.epochs[-1]
        if self.nonmono and not self._averaged and len(before) > self.nonmono and now > min(before[: -self.nonmono]):
            self.model.optimizer.start_averaging()


class SearchRecord(History):
    """Keeps a search in its run directory, epoch by epoch.

    history.csv    has the genotype of each epoch, too
    alphas.npz     of each table of choices (1 + epochs, rows, candidates), before the relaxation, from the start on;
                   "primitives", the candidates' names; betas_TABLE (1 + epochs, rows) with edge normalisation
    genotype.json  the genotype of the last epoch

    Args:
        directory, epochs: as of `History`.
        space: `darts_tf.spaces.base.SearchSpace` of the search.
        selection: how a genotype is decided, see `darts_tf.methods.selections`.
        costs: function of a genotype -> dict of more columns for history.csv, see `SearchSpace.costs`.
        budget: `darts_tf.runs.budget.Budget`, whose bounds the genotype keeps to; by default there are none.

    Attributes:
        genotype: of the last epoch; None before the first.
        change: how it differs from the one before, in words.
        alphas: list of ({table: alphas}, {table: betas}), arrays, after 0, 1, ... epochs.
    """

    change = ""

    def __init__(self, directory, space, epochs=0, selection="strongest", costs=lambda genotype: {}, budget=None):
        super().__init__(directory, epochs)
        self.space, self.selection, self.costs, self.budget = space, selection, costs, budget
        self.genotype = spaces.from_text(self.rows[-1]["genotype"]) if self.rows else None
        self.alphas = (rundirectory.alphas(directory, space.choices) or [])[: epochs + 1]

    def on_train_begin(self, logs=None):
        if not self.alphas:
            self._keep_alphas()

    def more(self, epoch):
        before, self.genotype, bounded = self.genotype, self.model.network.genotype(self.selection), {}
        if self.budget and self.budget.bounds:
            picks = self.space.picks(self.genotype)
            bounded = {f"strongest_{cost}": self.budget.of_picks(cost, picks) for cost in self.budget.bounds}
            self.genotype = self.budget.decide(self.model.network.strengths(), self.selection)
        self._keep_alphas()
        self.write_genotype()
        self.change = self.space.change(before, self.genotype) if before else ""
        return {**self.costs(self.genotype), **bounded, "genotype": str(self.genotype)}

    def go_back(self, epoch):
        """Takes the genotype after an epoch, from 0, for the result."""
        self.genotype = spaces.from_text(self.rows[epoch]["genotype"])

    def write_genotype(self):
        """Writes genotype.json."""
        write(self.directory / "genotype.json", self.genotype.to_json() + "\n")

    def _keep_alphas(self):
        network = self.model.network
        self.alphas.append(
            tuple(
                {name: keras.ops.convert_to_numpy(variable) for name, variable in variables.items()}
                for variables in (network.alphas, network.betas)
            )
        )
        write(self.directory / "alphas.npz", rundirectory.to_alphas(self.alphas, self.space.choices))


class Sharpness(keras.callbacks.Callback):
    """Logs the largest eigenvalue of the Hessian of alpha's loss as "eigenvalue", see `darts_tf.methods.curvature`.

    Args:
        batch: (x, y) that the loss is of, each time the same.
        every: epochs from one to the next; the first and the last epoch have one, too.
        epochs: of the search.
    """

    def __init__(self, batch, every, epochs):
        super().__init__()
        self.batch, self.every, self.epochs = batch, every, epochs

    def set_model(self, model):
        from darts_tf.methods.curvature import Curvature

        if model is not self.model:  # which is None at first
            self._curvature = Curvature(model)
        super().set_model(model)

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None and (epoch % self.every == 0 or epoch == self.epochs - 1):
            logs["eigenvalue"] = self._curvature(*self.batch)


class EarlyStop(keras.callbacks.Callback):
    """Ends the search when it is time. Put it behind the `SearchRecord` that it looks at.

    Args:
        record: `SearchRecord`.
        decide: function of the rows of history.csv and the record's alphas -> `guards.Stop` or None.

    Attributes:
        stop: what was decided last.
    """

    def __init__(self, record, decide):
        super().__init__()
        self.record, self.decide = record, decide
        self.stop = decide(record.rows, record.alphas)

    def on_epoch_end(self, epoch, logs=None):
        self.stop = self.decide(self.record.rows, self.record.alphas)
        if self.stop:
            self.model.stop_training = True


class Ascent(keras.callbacks.Callback):
    """Sets what bounded costs count in alpha's loss at the beginning of each epoch, see `Budget.weights`, and logs it.

    Args:
        budget: `darts_tf.runs.budget.Budget`.
        rows: function without arguments -> rows of history.csv so far.
        first: the first epoch, from 0, in which alpha moves.
        epochs: of the search.
    """

    def __init__(self, budget, rows, first, epochs):
        super().__init__()
        self.budget, self.rows, self.first, self.epochs = budget, rows, first, epochs

    def on_epoch_begin(self, epoch, logs=None):
        self.weights = self.budget.weights(self.rows()[self.first : epoch], self.epochs - self.first)
        for cost, variable in zip(self.model.costs, self.model.cost_weights, strict=True):
            variable.assign(self.weights[cost.table.cost])

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs.update({f"weight_of_{cost}": weight for cost, weight in self.weights.items()})


class Scheduled(keras.callbacks.Callback):
    """Sets variables at the beginning of each epoch, and logs them as what they are called.

    Args:
        values: {name: (variable, function of the epoch, from 0 -> number)}.
    """

    def __init__(self, values):
        super().__init__()
        self.values = values

    def on_epoch_begin(self, epoch, logs=None):
        for variable, value in self.values.values():
            variable.assign(value(epoch))

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs.update({name: float(value(epoch)) for name, (_, value) in self.values.items()})
