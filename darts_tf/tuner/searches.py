"""DARTS itself as a trial: repeated over seeds and settings, as the paper says one must (section 3.3)."""

import ctypes
import json
import math
import pathlib
import signal
import subprocess
import sys
import time

import keras_tuner

from darts_tf.tuner.workers import Reporting

AT_WORK = "another process is at work in it"


class DARTSTuner(Reporting, keras_tuner.Tuner):
    """A trial is a whole search with its hyperparameters, and a training of the network that it has found.

    Both are the commands of this package, in processes of their own: a search that fails, or needs more memory than
    there is, ends no other, and one that was interrupted goes on from its last checkpoint. Each trial's folder has
    their run directories, search/ and train/, with their reports, and what they said, search.log and train.log.

        hp = keras_tuner.HyperParameters()
        hp.Choice("seed", [0, 1, 2, 3])
        hp.Boolean("unrolled")
        oracle = keras_tuner.oracles.GridSearchOracle("val_accuracy", hyperparameters=hp)
        tuner = darts_tf.tuner.DARTSTuner(oracle, {"dataset": "digits", "epochs": 50}, {"epochs": 10})
        tuner.search()
        tuner.results_summary()

    The objective is "val_accuracy", of the training's last epoch on images that it does not train on; the metrics also
    are "search_val_accuracy" of the supernet, "parameters" and "multiply_adds".

    Args:
        oracle: with hyperparameters that have names of flags of darts_tf.search.
        search: {flag: value}, more flags of darts_tf.search.
        train: {flag: value}, flags of darts_tf.train. "dataset" and "image_size" are those of the search by default,
            "train_portion" is 0.8.
        tell: called with every line that the commands print to stderr.
        **kwargs: of `keras_tuner.Tuner`.

    Raises:
        keras_tuner.errors.FatalValueError: while searching; a command refuses its flags, which no other trial will
            change.
    """

    def __init__(self, oracle, search=None, train=None, tell=lambda line: None, **kwargs):
        super().__init__(oracle, **kwargs)
        self.search_flags = dict(search or {})
        shared = {name: self.search_flags[name] for name in ("dataset", "image_size") if name in self.search_flags}
        self.train_flags = {"train_portion": 0.8, **shared, **(train or {})}
        self.tell = tell
        self._failure = None

    def run_trial(self, trial, *args, **kwargs):
        folder = pathlib.Path(self.get_trial_dir(trial.trial_id))
        try:
            found = self._run("search", folder, {**self.search_flags, **trial.hyperparameters.values})
            arch = folder / "search" / "genotype.json"
            trained = self._run("train", folder, {**self.train_flags, "arch": arch})
        except subprocess.SubprocessError as error:
            self._failure = str(error)
            return {"val_accuracy": math.nan}
        results = {name: trained[name] for name in ("val_accuracy", "parameters", "multiply_adds")}
        return {**results, "search_val_accuracy": found["val_accuracy"]}

    def on_trial_end(self, trial):
        if self._failure:
            trial.status, trial.message = "FAILED", self._failure
            self.tell(f"trial {trial.trial_id} failed: {self._failure}")
            self._failure = None
        super().on_trial_end(trial)

    def load_model(self, trial):
        """The trained model of a trial, from pixels to logits."""
        from darts_tf import files

        return files.load_model(pathlib.Path(self.get_trial_dir(trial.trial_id)) / "train" / "model.keras")

    def _run(self, command, folder, values):
        """Runs a command to its end; returns what it says with --json."""
        line = [sys.executable, "-m", f"darts_tf.{command}", "--json", f"--output={folder / command}"]
        line += [f"--{name}={_as_flag(value)}" for name, value in values.items()]
        while True:
            status, result, said = self._process(line, folder / f"{command}.log")
            if status == 2 and AT_WORK in said:
                time.sleep(1)  # of a tuner that was killed, and about to write its last checkpoint
            elif status == 2:
                raise keras_tuner.errors.FatalValueError(said.removeprefix("error: "))
            elif status:
                raise subprocess.SubprocessError(f"darts_tf.{command}: {said or f'exit code {status}'}")
            else:
                return json.loads(result)

    def _process(self, line, log):
        """Exit code, stdout and the last line of stderr."""
        said = ""
        options = {"preexec_fn": _end_with_parent} if sys.platform == "linux" else {}
        with (
            log.open("a") as kept,
            subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options) as process,
        ):
            try:
                for text in process.stderr:
                    kept.write(text)
                    kept.flush()
                    if text.strip() and AT_WORK not in text:
                        self.tell(text.rstrip())
                    said = text.strip() or said
                result = process.stdout.read()
            except BaseException:
                process.terminate()
                raise
        return process.returncode, result, said


def _end_with_parent():
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _as_flag(value):
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else value
