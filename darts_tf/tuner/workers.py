"""Several workers, by keras-tuner's own chief and its variables, where some may be lost.

keras-tuner 1.4.8 leaves the trial of a worker that dies to that worker: it is never run, and the chief never ends.
Here a worker asks for its trial again and again while it runs it, which changes nothing, and the chief gives the trials
of workers that do not to others.
"""

import threading
import time

import keras_tuner

TIMEOUT = 60.0  # seconds


def watch(oracle, timeout=TIMEOUT, tell=lambda line: None):
    """Makes the chief's oracle take the trials of silent workers away from them.

    Args:
        oracle: any `keras_tuner.Oracle`, in the chief's process.
        timeout: seconds of silence.
        tell: called with a line about each worker that is lost.
    """
    create, heard = oracle.create_trial, {}

    def create_trial(tuner_id):
        heard[tuner_id] = time.monotonic()
        trial = create(tuner_id)
        if trial.status == "STOPPED" and oracle.ongoing_trials:
            # There is nothing more to begin, but one of the others may be lost yet.
            oracle.tuner_ids.add(tuner_id)
            trial.status = "IDLE"
        return trial

    @keras_tuner.synchronized
    def forget_silent_workers(oracle):
        for tuner_id in [*oracle.tuner_ids, *oracle.ongoing_trials]:
            if time.monotonic() - heard.setdefault(tuner_id, time.monotonic()) > timeout:
                trial = oracle.ongoing_trials.pop(tuner_id, None)
                oracle.tuner_ids.discard(tuner_id)
                if trial:
                    tell(f"{tuner_id} is lost; trial {trial.trial_id} goes to another.")
                    oracle._retry_queue.append(trial.trial_id)
                    oracle.save()

    def watching():
        while True:
            time.sleep(timeout / 10)
            forget_silent_workers(oracle)

    oracle.create_trial = create_trial
    threading.Thread(target=watching, daemon=True).start()


class Reporting:
    """For tuners, before `keras_tuner.Tuner`: a worker tells the chief that it is alive while it runs a trial."""

    timeout = TIMEOUT
    _beating = None
    _waits = False

    def pre_create_trial(self):
        super().pre_create_trial()
        if self._waits:
            time.sleep(1)  # the chief has nothing for us at the moment
        self._waits = True

    def on_trial_begin(self, trial):
        super().on_trial_begin(trial)
        self._waits = False
        if self._is_worker():
            ended = threading.Event()
            self._beating = ended, threading.Thread(target=self._beat, args=[ended], daemon=True)
            self._beating[1].start()

    def on_trial_end(self, trial):
        if self._beating:
            ended, thread = self._beating
            ended.set()
            thread.join()
            self._beating = None
        super().on_trial_end(trial)

    def _beat(self, ended):
        while not ended.wait(self.timeout / 6):
            self.oracle.create_trial(self.tuner_id)  # which is the one that runs
