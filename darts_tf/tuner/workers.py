"""Several workers, by keras-tuner's own chief and its variables, where some may be lost.

keras-tuner 1.4.8 leaves the trial of a worker that dies to that worker: it is never run, and the chief never ends.
Here a worker asks for its trial again and again while it runs it, which changes nothing, and the chief gives trials
that nobody asks for to others.
"""

import threading
import time

import keras_tuner
from keras_tuner.src.engine import oracle as engine

TIMEOUT = 60.0  # seconds


def watch(oracle, timeout=TIMEOUT, tell=lambda line: None):
    """Makes the chief's oracle take trials away from workers that are lost.

    What was running when a chief was stopped may be running still: it counts as running until the time is over.

    Args:
        oracle: any `keras_tuner.Oracle`, in the chief's process.
        timeout: seconds of silence.
        tell: called with a line about each worker that is lost.

    Returns:
        A list, to which an exception in the oracle is added. Nobody can go on then, but keras-tuner's server waits for
        ever: its process has to be ended.
    """
    create, get, end, problems = oracle.create_trial, oracle.get_trial, oracle.end_trial, []
    heard = {}  # name of a worker or id of a trial: when it was last heard of
    for trial_id in oracle._retry_queue:
        oracle.ongoing_trials[f"the worker before, {trial_id},"] = oracle.trials[trial_id]
    oracle._retry_queue.clear()

    def create_trial(tuner_id):
        heard[tuner_id] = time.monotonic()
        trial = create(tuner_id)
        heard[trial.trial_id] = time.monotonic()
        if trial.status == "STOPPED" and (oracle.ongoing_trials or oracle._retry_queue):
            # There is nothing more to begin, but one of the others may be lost yet.
            oracle.tuner_ids.add(tuner_id)
            trial.status = "IDLE"
        return trial

    def get_trial(trial_id):
        heard[trial_id] = time.monotonic()
        return get(trial_id)

    def end_trial(trial):
        if trial.trial_id in oracle.end_order:  # it was given to another, who was quicker
            return
        end(trial)
        if trial.trial_id in oracle.end_order and trial.trial_id in oracle._retry_queue:
            oracle._retry_queue.remove(trial.trial_id)

    @keras_tuner.synchronized
    def forget_silent_workers(oracle):
        now = time.monotonic()
        for tuner_id, trial in list(oracle.ongoing_trials.items()):
            if now - heard.setdefault(trial.trial_id, now) > timeout:
                oracle.ongoing_trials.pop(tuner_id)
                oracle.tuner_ids.discard(tuner_id)
                oracle._retry_queue.append(trial.trial_id)
                oracle.save()
                tell(f"{tuner_id} is lost; trial {trial.trial_id} goes to another.")
        for tuner_id in list(oracle.tuner_ids):
            if tuner_id not in oracle.ongoing_trials and now - heard.setdefault(tuner_id, now) > timeout:
                oracle.tuner_ids.discard(tuner_id)

    def watching():
        while True:
            time.sleep(timeout / 10)
            guarded(forget_silent_workers)(oracle)

    def guarded(function):
        def call(*arguments, **more):
            try:
                return function(*arguments, **more)
            except Exception as error:
                problems.append(error)
                if engine.THREADS[oracle] == threading.current_thread().name:  # `synchronized` keeps its lock
                    engine.THREADS[oracle] = None
                    engine.LOCKS[oracle].release()
                raise

        return call

    oracle.create_trial, oracle.get_trial = guarded(create_trial), get_trial
    oracle.end_trial, oracle.update_trial = guarded(end_trial), guarded(oracle.update_trial)
    threading.Thread(target=watching, daemon=True).start()
    return problems


class Reporting:
    """For tuners, before `keras_tuner.Tuner`: a worker tells the chief that it is alive while it runs a trial."""

    timeout = TIMEOUT
    _beating = None
    _waits = False

    def on_search_begin(self):
        self.save()  # keras-tuner does so after the first trial; what is begun before could not go on
        super().on_search_begin()

    def pre_create_trial(self):
        super().pre_create_trial()
        if self._waits:
            time.sleep(1)  # there is nothing for us at the moment
        self._waits = True

    def on_trial_begin(self, trial):
        super().on_trial_begin(trial)
        self._waits = False
        if self._is_worker():
            ended = threading.Event()
            self._beating = ended, threading.Thread(target=self._beat, args=[ended, trial.trial_id], daemon=True)
            self._beating[1].start()

    def on_trial_end(self, trial):
        if self._beating:
            ended, thread = self._beating
            ended.set()
            thread.join()
            self._beating = None
        super().on_trial_end(trial)

    def _beat(self, ended, trial_id):
        while not ended.wait(self.timeout / 6):
            self.oracle.get_trial(trial_id)
