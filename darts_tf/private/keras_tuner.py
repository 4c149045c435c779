"""What is used of keras-tuner that is not public."""

import os
import threading


def untried(oracle, draw):
    """Values that no trial has had, drawn again and again, as keras-tuner's own oracles do.

    Private: `Oracle._max_collisions`, `_seed_state` and `_duplicate`, of keras-tuner 1.4.8.

    Args:
        oracle: `keras_tuner.Oracle`.
        draw: function of a seed and the number of draws before this one -> values, {name of a hyperparameter: value}.
            The seeds follow from the oracle's, and go on when it is saved and reloaded.

    Returns:
        The values; None where as many draws as the oracle allows have all been tried before.
    """
    for attempt in range(1 + oracle._max_collisions):
        oracle._seed_state += 1
        values = draw(oracle._seed_state, attempt)
        if not is_tried(oracle, values):
            return values
    return None


def is_tried(oracle, values):
    """Whether a trial of an oracle has these values.

    Private: `Oracle._duplicate`, of keras-tuner 1.4.8.

    Args:
        oracle: `keras_tuner.Oracle`.
        values: {name of a hyperparameter: value}, of all that are active.
    """
    return oracle._duplicate(values)


def oracle_file(oracle):
    """The path of the file that an oracle's state is saved in, as text; its folder is made if it is not there.

    Private: `Oracle._get_oracle_fname`, of keras-tuner 1.4.8.
    """
    return oracle._get_oracle_fname()


def trial_file(oracle, trial_id):
    """The path of the file that a trial is saved in, as text; its folder is made if it is not there.

    Private: `Oracle._get_trial_dir`, and that the file in it is trial.json, of keras-tuner 1.4.8.
    """
    return os.path.join(oracle._get_trial_dir(trial_id), "trial.json")


def save_trials_by(oracle, save):
    """Makes an oracle save its trials by a function of a `keras_tuner.engine.trial.Trial`.

    Private: `Oracle._save_trial`, of keras-tuner 1.4.8.
    """
    oracle._save_trial = save


def retry_queue(oracle):
    """The ids of the trials that an oracle will give out before any new one, the last first; a list to be changed.

    Private: `Oracle._retry_queue`, of keras-tuner 1.4.8.
    """
    return oracle._retry_queue


def release(oracle):
    """Gives back the lock of an oracle that this thread has: `keras_tuner.synchronized` keeps it after an exception.

    Private: `keras_tuner.src.engine.oracle`, its `THREADS` and `LOCKS`, of keras-tuner 1.4.8.
    """
    from keras_tuner.src.engine import oracle as engine

    if engine.THREADS[oracle] == threading.current_thread().name:
        engine.THREADS[oracle] = None
        engine.LOCKS[oracle].release()


def serve(oracle, server):
    """Makes a `grpc.Server`, not started yet, answer workers for a chief's oracle.

    Private: `keras_tuner.src.protos` and `.distribute.oracle_chief.OracleServicer`, of keras-tuner 1.4.8.
    """
    from keras_tuner.src import protos
    from keras_tuner.src.distribute import oracle_chief

    protos.get_service_grpc().add_OracleServicer_to_server(oracle_chief.OracleServicer(oracle), server)


def chief_stub(channel):
    """What asks a chief over a `grpc.Channel`; it can take the place of the `stub` of a worker's oracle.

    Private: `keras_tuner.src.protos`, and the attribute `stub` of `OracleClient`, of keras-tuner 1.4.8.
    """
    from keras_tuner.src import protos

    return protos.get_service_grpc().OracleStub(channel)


def ask_for_trial(stub, trial_id, timeout):
    """Asks a chief for a trial, in at most `timeout` seconds, and forgets the answer.

    Private: `keras_tuner.src.protos`, of keras-tuner 1.4.8.

    Args:
        stub: see `chief_stub`.
        trial_id: text.
        timeout: seconds.

    Raises:
        grpc.RpcError: there was no answer.
    """
    from keras_tuner.src import protos

    stub.GetTrial(protos.get_service().GetTrialRequest(trial_id=trial_id), timeout=timeout)


class TunerHooks:
    """For tuners, before `keras_tuner.Tuner` among the bases: where their state is, and how a trial is run.

    Private: `BaseTuner._get_tuner_fname`, `_try_run_and_update_trial`, `_run_and_update_trial` and `_is_worker`, of
    keras-tuner 1.4.8.
    """

    def state_file(self):
        """The path of the file that is there when a tuner, just made, has to `reload`."""
        return super()._get_tuner_fname()

    def attempt(self, trial, run):
        """Runs a trial, and says in its `status` how it has ended; a subclass has to do so.

        Args:
            trial: `keras_tuner.engine.trial.Trial`.
            run: function without arguments, which runs it and tells the oracle its metrics.
        """
        raise NotImplementedError

    def is_worker(self):
        """Whether the oracle is a chief's, in another process."""
        return self._is_worker()

    def _get_tuner_fname(self):
        return self.state_file()

    def _try_run_and_update_trial(self, trial, *args, **kwargs):
        self.attempt(trial, lambda: self._run_and_update_trial(trial, *args, **kwargs))
