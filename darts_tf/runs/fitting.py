"""How the commands train: from where the checkpoints are, until the end, a signal, or the loss of another machine."""

import contextlib
import errno
import os
import re
import signal
import sys
import threading
import warnings

from darts_tf import spaces
from darts_tf.cli import messages
from darts_tf.devices import cluster
from darts_tf.devices.cluster import ALONE
from darts_tf.runs import rundirectory

LESS_MEMORY = (
    ": expected --recompute, of cells of images, with which the run goes on; or another run with a smaller "
    "--batch_size, or on GPUs with --precision=bfloat16"
)


def restore(make, output, config, steps, present, strategy, worker=ALONE, space=None):
    """The model of a run, restored from the newest checkpoint in a run directory, if there is one.

    Args:
        make: function of the steps that are done -> compiled Keras model, all variables of which exist.
        output: the run directory, started.
        config: the run's `FitConfig`.
        steps: steps in an epoch.
        present: function that makes the directory again if it is gone, see `starting.started`.
        strategy: `tf.distribute.Strategy`.
        worker: `Worker`.
        space: of a search.

    Returns:
        The model, and `checkpoints.Checkpoints`, for `fit`.

    Raises:
        messages.UsageError: what is in the directory is not of one run.
    """
    from darts_tf.runs.checkpoints import Checkpoints

    checkpoints = Checkpoints(output, steps, config.checkpoint_every, worker)
    try:
        model = checkpoints.restore(make, strategy, messages.warn)
    except messages.UsageError:
        raise
    except ValueError as error:
        raise messages.UsageError(f"--output={output}: {error}; expected another folder, or --overwrite.") from None
    done = checkpoints.done
    if worker.is_chief:
        check_files_agree(space, output, done, steps, config.epochs)
        checkpoints.before_save = present
    if done and worker.is_chief:
        where = f"step {done % steps} of epoch {done // steps + 1}" if done % steps else f"epoch {done // steps}"
        messages.say(f"Going on after {where}.")
    return model, checkpoints


def check_files_agree(space, output, done, steps, epochs):
    """Raises UsageError if the files in a run directory are not of a run that has made so many steps."""
    command = rundirectory.configuration(output)["command"]
    rows, wrong = rundirectory.history(output) or [], None
    known = {"history.csv": len(rows)}
    if command == "search":
        try:
            alphas = rundirectory.alphas(output, space.choices)
        except rundirectory.DamageError:
            alphas, wrong = None, "its alphas.npz is of another search"
        try:
            rows and spaces.from_text(rows[-1]["genotype"])
        except (KeyError, ValueError):
            wrong = "its history.csv is damaged (its last genotype cannot be read)"
        known["alphas.npz"] = len(alphas) - 1 if alphas else 0
    for name, last in known.items():
        if last < done // steps and not wrong:
            wrong = f"its {name} ends after epoch {last}" if (output / name).exists() else f"its {name} is gone"
    if done > epochs * steps:
        wrong = f"its checkpoint is of step {done}, the run has {epochs * steps}"
    # A run that is killed before its first checkpoint has at most written its first epoch down.
    if not done and (len(rows) > 1 or (output / "metrics.json").exists()):
        wrong = "its checkpoints are gone, so it cannot go on"
    if wrong:
        raise messages.UsageError(f"--output={output}: {wrong}; expected a whole run, another folder, or --overwrite.")


def fit(model, batches, steps, config, valid, callbacks, checkpoints, headline, note=lambda: "", until=None):
    """Trains a model from the step that its checkpoints have reached to the end.

    Args:
        model: a compiled Keras model, all variables of which exist.
        batches: function of the steps that are done -> what Keras is to be given.
        steps: steps in an epoch.
        config: the run's `FitConfig`; its epochs include those that are done.
        valid: batches to validate on after each epoch, or None.
        callbacks: list of Keras callbacks.
        checkpoints: `checkpoints.Checkpoints`, restored.
        headline: of the task, see `darts_tf.data.tasks.Headline`.
        note: see `callbacks.Progress`.
        until: epochs to end after; by default all.

    Up to `steps_per_execution` steps are run at once, no more than from one checkpoint to the next, and never beyond
    the end of an epoch. A checkpoint is written once its step is reached or passed.
    """
    import keras

    from darts_tf.devices.replicas import executions
    from darts_tf.runs.callbacks import Progress

    bar, until = messages.verbosity() == 1 and sys.stderr.isatty(), until or config.epochs
    progress = Progress(steps, config.epochs, headline, checkpoints.done, bar, note)
    if messages.verbosity() and checkpoints.worker.is_chief:
        callbacks = [*callbacks, progress]
    present = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: checkpoints.before_save())
    most = min(config.steps_per_execution, config.checkpoint_every or steps, steps)
    model.steps_per_execution = most
    if most > 1:
        model.train_function = executions(model, lambda: min(most, steps - checkpoints.done % steps))  # as Keras counts

    def part(steps_per_epoch, last):
        with warnings.catch_warnings():
            # Keras says that of batches to validate on whose number it does not know, as of several devices.
            warnings.filterwarnings("ignore", "Your input ran out of data")
            model.fit(
                batches(checkpoints.done),
                steps_per_epoch=steps_per_epoch,
                initial_epoch=checkpoints.done // steps,
                epochs=last,
                validation_data=valid,
                callbacks=[present, *callbacks, checkpoints],
                shuffle=False,
                verbose=0,
            )

    try:
        with stopping_on_signals(checkpoints), explaining_errors(LESS_MEMORY):
            if checkpoints.done % steps:  # the rest of an epoch
                part(-checkpoints.done % steps, checkpoints.done // steps + 1)
            if checkpoints.done < until * steps and not model.stop_training:
                part(steps, until)
    except SystemExit:
        progress.close()
        again = f"--output={checkpoints.directory.parent} --resume"
        print(f"\nStopped after step {checkpoints.done}. To go on: the same command with {again}", file=sys.stderr)
        raise


@contextlib.contextmanager
def explaining_errors(more_memory=""):
    """Raises RunError for what TensorFlow stops at and a user can mend, in the block.

    That is an image file that is gone or damaged, memory that does not suffice, or an operation without a kernel that
    computes the same bits each time; OSError for a full disk.

    Args:
        more_memory: how the block would need less of it, a text.
    """
    import tensorflow as tf

    from darts_tf.data import images
    from darts_tf.private import tensorflow as private

    try:
        yield
    except (tf.errors.NotFoundError, tf.errors.InvalidArgumentError) as error:
        missing = re.search(r"(?:.*[}:] )?(.+); No such file or directory", error.message)
        file = missing[1] if missing else images.lost_file(error)
        if file is None:
            raise
        wrong = "the file is gone" if missing or not os.path.exists(file) else "it is not a readable image"
        raise messages.RunError(f"{file}: {wrong}. Once it is back, --resume goes on.") from None
    except tf.errors.ResourceExhaustedError as error:
        if os.strerror(errno.ENOSPC) in error.message:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
        memory = re.search(
            r"OOM when allocating tensor(?: with shape ?(\[[\d,]*\]))?|out of memory", error.message, re.I
        )
        if not memory:
            raise
        what = f" for a tensor of {memory[1]}" if memory[1] else ""
        raise messages.RunError(f"memory does not suffice{what}{more_memory}.") from None
    except tf.errors.UnimplementedError as error:
        said = [line.strip() for line in error.message.splitlines() if "determinis" in line.lower()]
        if not said or not private.is_deterministic():
            raise
        raise messages.RunError(f"--deterministic: {said[-1]}; expected --nodeterministic here.") from None


@contextlib.contextmanager
def stopping_on_signals(checkpoints):
    """SIGINT and SIGTERM end a training with a checkpoint, after the step; the second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number, frame):
        checkpoints.stop = number
        signal.signal(number, before[number])
        messages.say("\nStopping after this step.")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def interruptible():
    """Raises KeyboardInterrupt, as Python does for SIGINT, if that signal has ended the run, with a checkpoint."""
    try:
        yield
    except SystemExit as error:
        if error.code != 128 + signal.SIGINT:
            raise
        raise KeyboardInterrupt from None


def rejoining(main):
    """Wraps a command's `main`: when another worker is lost it begins again, from the last checkpoint."""

    def guarded(config):
        try:
            return main(config)
        except Exception as error:  # names, since TensorFlow may not be there yet
            if config.strategy != "multi_worker" or type(error).__name__ not in ("UnavailableError", "AbortedError"):
                raise
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            messages.warn(f"a worker was lost ({reason[:200]}); going on from the last checkpoint when it is back.")
            cluster.start_again()

    return guarded
