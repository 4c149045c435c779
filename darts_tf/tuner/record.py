"""What has become of the trials, in files and in words."""

import csv
import io
import pathlib
import time

import keras_tuner
import numpy as np
from keras_tuner.engine.trial import Trial
from tqdm import tqdm

from darts_tf import spaces
from darts_tf.cli import messages
from darts_tf.cli.files import write
from darts_tf.costs.tables import in_words
from darts_tf.reports import report
from darts_tf.runs import rundirectory, sizes
from darts_tf.tuner.space import genotype_of, hyperparameters_of

SHOWN = 10  # trials in the table
ENDED = ("COMPLETED", "FAILED")


@keras_tuner.synchronized
def _save(oracle):
    """Saves an oracle after a trial; keras-tuner has done so as if the trial were still running."""
    oracle.save()


class Record:
    """Keeps trials.csv, genotype.json (of the best trial) and report.html in a run directory.

    Args:
        output: the directory; keras-tuner's own is trials/ in it.
        data: the dataset.
        config: `TuneConfig`.
        space: of the trials; None where each is a search.

    Attributes:
        metric: the column of results, such as "val_accuracy"; it is None for trials that failed.
        rows: of trials.csv: a dict for each trial that has ended, in that order.
    """

    def __init__(self, output, data, config, space=None):
        self.output = pathlib.Path(output)
        self.config, self.space = config, space
        self.headline = data.task.headline
        self.metric = f"val_{self.headline.name}"
        self.rows = []
        if space:
            self._costs = space.costs(data.task, **sizes.of(space.costs, config.to_dict()))
        self._began = time.monotonic()
        self._before = None
        self._kept = {row["trial"]: row for row in rundirectory.trials(output, self.metric) or []}

    def restored(self, trial_id):
        """A trial that has ended, as trials.csv had it when this record was made; None if it had it not.

        Args:
            trial_id: text.

        Returns:
            `keras_tuner.engine.trial.Trial`.
        """
        row = self._kept.get(trial_id)
        if row is None or not (row["genotype"] or not self.space):
            return None
        if not self.space:
            hp = keras_tuner.HyperParameters()
            if row["seed"]:  # which a trial that was lost has not
                hp.values["seed"] = int(row["seed"])
        else:
            hp = hyperparameters_of(spaces.from_text(row["genotype"]), space=self.space)
        score = float(row[self.metric] or "nan")
        trial = Trial(hp, trial_id, "COMPLETED" if np.isfinite(score) else "FAILED")
        if trial.status == "COMPLETED":
            trial.score = score
            for name in (self.metric, f"search_{self.metric}", "parameters", "multiply_adds"):
                if row.get(name):
                    trial.metrics.register(name, self.headline.direction if self.metric in name else "min")
                    trial.metrics.update(name, float(row[name]))
        return trial

    def follow(self, oracle, present):
        """Writes the files and says a line when a trial of this oracle has ended, whichever process ran it.

        Args:
            oracle: any `keras_tuner.Oracle`.
            present: function that brings the run directory back, see `starting.started`.
        """
        end = oracle.end_trial
        self._before = len(oracle.end_order)

        def end_trial(trial):
            present()
            end(trial)
            _save(oracle)
            self.write(oracle)
            if self.rows and self.rows[-1]["trial"] == trial.trial_id:
                messages.say(self._line(oracle))

        oracle.end_trial = end_trial

    def _line(self, oracle):
        row, limit = self.rows[-1], oracle.max_trials
        result = row[self.metric]
        reached = "failed" if result is None else f"validation {self.headline.text(result)}"
        best = self.best()
        parts = [f"trial {len(self.rows)}{f'/{limit}' if limit else ''}", reached]
        parts += [f"best {self.headline.text(best[self.metric])}"] if best else []
        if limit and len(self.rows) < limit:
            each = (time.monotonic() - self._began) / max(1, len(self.rows) - self._before)
            parts.append(f"{tqdm.format_interval(each * (limit - len(self.rows)))} left")
        return "  ".join(parts)

    def write(self, oracle):
        """Brings rows and files up to date."""
        self.rows = [self._row(oracle.trials[trial_id]) for trial_id in oracle.end_order]
        if not self.rows:
            return
        text = io.StringIO()
        table = csv.DictWriter(text, list(self.rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(self.rows)
        write(self.output / "trials.csv", text.getvalue())
        if self.best():
            genotype = self.best()["genotype"]
            if genotype:
                write(self.output / "genotype.json", spaces.from_text(genotype).to_json() + "\n")
        report.write_report(self.output)

    def _row(self, trial):
        values = trial.hyperparameters.values
        row = {"trial": trial.trial_id, "status": trial.status}
        row[self.metric] = trial.score if trial.status == "COMPLETED" else None
        if self.space:
            genotype = genotype_of(trial.hyperparameters, self.space) if values else None
            costs = {"parameters": None, "multiply_adds": None}
            if row[self.metric] is not None:
                costs = self._costs(genotype)
            return {**row, **costs, "genotype": str(genotype or "")}
        found = {
            name: trial.metrics.get_best_value(name) if trial.metrics.exists(name) else None
            for name in (f"search_{self.metric}", "parameters", "multiply_adds")
        }
        genotype = self._searched(trial.trial_id) or self._kept.get(trial.trial_id, {}).get("genotype", "")
        return {**row, "seed": values.get("seed"), **found, "genotype": str(genotype)}

    def _searched(self, trial_id):
        """The genotype that the search of a trial has found; None if there is none that can be read."""
        file = self.output / "trials" / f"trial_{trial_id}" / "search" / "genotype.json"
        try:
            return spaces.from_json(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def best(self):
        """The row of the best trial; None if none ended well."""
        ranked = self._ranked()
        return ranked[0] if ranked else None

    def _ranked(self):
        rows = [row for row in self.rows if row[self.metric] is not None and np.isfinite(row[self.metric])]
        return sorted(rows, key=lambda row: self.headline.best_first(row[self.metric]))

    def table(self):
        """The best trials as lines of text."""
        lines = [("rank", "trial", "validation", "parameters", "multiply-adds")]
        for rank, row in enumerate(self._ranked()[:SHOWN], 1):
            result = self.headline.text(row[self.metric])
            parameters = "unknown" if row["parameters"] is None else f"{row['parameters']:,.0f}"
            lines.append((str(rank), row["trial"], result, parameters, in_words(row["multiply_adds"])))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = ["  ".join(map(str.rjust, line, widths)) for line in lines]
        failed = sum(row[self.metric] is None for row in self.rows)
        rest = len(self._ranked()) - len(lines) + 1
        notes = [f"{rest} more in trials.csv"] * (rest > 0) + [f"{failed} failed"] * (failed > 0)
        return "\n".join([*text, *([f"... {', '.join(notes)}"] if notes else [])])
