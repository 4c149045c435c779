"""DARTS itself as a trial: repeated over seeds and settings, as the paper says one must (section 3.3)."""

import ctypes
import json
import pathlib
import signal
import subprocess
import sys
import time

import keras_tuner

from darts_tf import spaces
from darts_tf.cli import files
from darts_tf.cli.configuration import Configuration
from darts_tf.devices.cluster import Wait
from darts_tf.runs.configurations import SHARED
from darts_tf.tuner import processes
from darts_tf.tuner.machines import Reporting
from darts_tf.tuner.oracle import durable

AT_WORK = "another process is at work in it"


class DARTSTuner(Reporting, keras_tuner.Tuner):
    """A trial is a whole search with its hyperparameters, and a training of the network that it has found.

    Both are the commands of this package, in processes of their own: a search that fails, or needs more memory than
    there is, ends no other, and one that was interrupted goes on from its last checkpoint. Each trial's folder has
    their run directories, search/ and train/, with their reports, and what they said, search.log and train.log.

        hp = keras_tuner.HyperParameters()
        hp.Choice("seed", [0, 1, 2, 3])
        hp.Boolean("unrolled")
        oracle = darts_tf.tuner.GridOracle("val_accuracy", max_trials=8, hyperparameters=hp)
        tuner = darts_tf.tuner.DARTSTuner(oracle, {"dataset": "digits", "epochs": 50}, {"epochs": 10})
        tuner.search()
        tuner.results_summary()

    The objective is a metric of the training's last epoch on images that it does not train on, "val_accuracy" for
    example; for text "val_perplexity", of the model that the training keeps. The metrics also are "search_val_accuracy"
    of the supernet, "parameters" and "multiply_adds".

    Args:
        oracle: with hyperparameters that have names of flags of darts_tf.search. Failed trials never end the tuner.
        search: `SearchConfig`, or {flag: value}, more flags of darts_tf.search; a value of None for flags that are
            written without one.
        train: the same of darts_tf.train. By default the flags of the data are those of the search, and
            "train_portion" is 0.8, but for text.
        tell: called with every line that the commands print to stderr.
        **kwargs: of `keras_tuner.Tuner`.

    Raises:
        ValueError: a flag does not exist or cannot have its value.
        keras_tuner.errors.FatalValueError: while searching; a command refuses its flags, which no other trial will
            change.
    """

    def __init__(self, oracle, search=None, train=None, tell=lambda line: None, **kwargs):
        search, train = (
            {name: getattr(config, name) for name in config.given} if isinstance(config, Configuration) else config
            for config in (search, train)
        )
        self.search_flags = dict(search or {})
        shared = {name: self.search_flags[name] for name in SHARED if name in self.search_flags}
        is_text = "text" in spaces.kind(str(self.search_flags.get("space", ""))).kinds
        portion = {} if is_text else {"train_portion": 0.8}  # text has a part of its own to validate on
        self.train_flags = {**portion, **shared, **(train or {})}
        self.tell = tell
        names = tuple(hp.name for hp in oracle.hyperparameters.space)
        for command, values, taken in (("search", self.search_flags, names), ("train", self.train_flags, ())):
            try:
                processes.check(command, values, taken)
            except ValueError as error:
                raise ValueError(f"darts_tf.{command}: {error}") from None
        oracle.max_consecutive_failed_trials = None
        super().__init__(oracle if "reload" in vars(oracle) else durable(oracle), **kwargs)

    def run_trial(self, trial, *args, **kwargs):
        folder = pathlib.Path(self.get_trial_dir(trial.trial_id))
        try:
            found = self._run("search", folder, {**self.search_flags, **trial.hyperparameters.values})
            arch = folder / "search" / "genotype.json"
            trained = self._run("train", folder, {**self.train_flags, "arch": arch})
        except subprocess.SubprocessError as error:
            raise keras_tuner.errors.FailedTrialError(str(error)) from None
        name = self.oracle.objective.name
        results = {metric: trained[metric] for metric in (name, "parameters", "multiply_adds")}
        results[name] = trained.get(name.replace("val_", "validation_"), results[name])  # of the model that was kept
        return {**results, f"search_{name}": found[name]}

    def load_model(self, trial):
        """The trained model of a trial, from inputs as they are in files to logits."""
        return files.read_model(pathlib.Path(self.get_trial_dir(trial.trial_id)) / "train" / "model.keras")

    def _run(self, command, folder, values):
        """Runs a command to its end; returns what it says with --json."""
        line = [
            sys.executable,
            "-m",
            f"darts_tf.{command}",
            "--json",
            f"--output={folder / command}",
            *processes.arguments(values),
        ]
        wait = Wait(
            f"the other process that is at work in {folder / command}", self.timeout, self.tell, "expected its end"
        )
        while True:
            status, said = self._process(line, folder / f"{command}.json", folder / f"{command}.log")
            if status == 2 and AT_WORK in said:
                wait.sleep()  # of a tuner that was killed, and about to write its last checkpoint
            elif status == 2:
                raise keras_tuner.errors.FatalValueError(said.removeprefix("error: "))
            elif status:
                raise subprocess.SubprocessError(f"darts_tf.{command}: {said or f'exit code {status}'}")
            else:
                return json.loads((folder / f"{command}.json").read_text(encoding="utf-8"))

    def _process(self, line, result, log):
        """Exit code and the last line of stderr. Both streams go to files: a pipe would break with this process."""
        said, options = "", {"preexec_fn": _end_with_parent} if sys.platform == "linux" else {}
        with result.open("wb") as out, log.open("ab") as err, log.open(errors="replace") as lines:
            lines.seek(0, 2)
            process = subprocess.Popen(line, stdout=out, stderr=err, **options)
            try:
                ended = False
                while not ended:
                    ended = process.poll() is not None
                    while text := lines.readline():
                        said = text.strip() or said
                        if text.strip() and AT_WORK not in text:
                            self.tell(text.rstrip())
                    time.sleep(0 if ended else 0.1)
            finally:
                process.terminate()  # which makes it write a checkpoint
                process.wait()
        return process.returncode, said


def _end_with_parent():
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
