"""Several workers, by keras-tuner's own chief and its variables, where some may be lost.

keras-tuner 1.4.8 leaves the trial of a worker that dies to that worker: it is never run, and the chief never ends.
Here a worker asks for its trial again and again while it runs it, which changes nothing, and the chief gives trials
that nobody asks for to others.
"""

import contextlib
import os
import threading
import time
import traceback
from concurrent import futures

import grpc
import keras_tuner

from darts_tf.devices.cluster import LostError, Wait
from darts_tf.private.keras_tuner import (
    TunerHooks,
    ask_for_trial,
    chief_stub,
    oracle_file,
    release,
    retry_queue,
    serve,
)

TIMEOUT = 600.0  # seconds


class Watch:
    """Makes the chief's oracle take trials away from workers that are lost.

    What was running when a chief was stopped may be running still: it counts as running until the time is over.

    Args:
        oracle: any `keras_tuner.Oracle`, in the chief's process.
        timeout: seconds of silence.
        tell: called with a line about each worker that is lost.

    Attributes:
        problems: exceptions in the oracle. Nobody can go on then.
        heard: when a worker was last heard of, of `time.monotonic`.
    """

    def __init__(self, oracle, timeout=TIMEOUT, tell=lambda line: None):
        self.oracle, self.timeout, self.tell = oracle, timeout, tell
        self.problems, self.heard = [], time.monotonic()
        self._last, self._told_to_stop = {}, False  # name of a worker or id of a trial: when it was last heard of
        self._create, self._get, self._end = oracle.create_trial, oracle.get_trial, oracle.end_trial
        for trial_id in retry_queue(oracle):
            oracle.ongoing_trials[f"the worker before, {trial_id},"] = oracle.trials[trial_id]
        retry_queue(oracle).clear()
        oracle.create_trial, oracle.get_trial = self._guarded(self._create_trial), self._get_trial
        oracle.end_trial, oracle.update_trial = self._guarded(self._end_trial), self._guarded(oracle.update_trial)
        threading.Thread(target=self._watch, daemon=True).start()

    @contextlib.contextmanager
    def serving(self, address):
        """Runs the server that workers ask, at "HOST:PORT", while the block runs.

        Raises:
            RuntimeError: the address cannot be used.
        """
        server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
        serve(self.oracle, server)
        server.add_insecure_port(address)
        server.start()
        try:
            yield
        finally:
            server.stop(grace=2.0).wait()  # the last answer may be on its way

    def is_over(self):
        """Whether every trial has ended and every worker has been told so."""
        return self.is_done() and not self.oracle.tuner_ids

    def is_done(self):
        """Whether every trial has ended and there will be no other."""
        oracle, limit = self.oracle, self.oracle.max_trials
        full = bool(limit) and len(oracle.trials) >= limit
        return (self._told_to_stop or full) and not oracle.ongoing_trials and not retry_queue(oracle)

    def _hear(self, name):
        self.heard = self._last[name] = time.monotonic()

    def _create_trial(self, tuner_id):
        oracle = self.oracle
        self._hear(tuner_id)
        trial = self._create(tuner_id)
        self._hear(trial.trial_id)
        if trial.status == "STOPPED" and (oracle.ongoing_trials or retry_queue(oracle)):
            # There is nothing more to begin, but one of the others may be lost yet.
            oracle.tuner_ids.add(tuner_id)
            trial.status = "IDLE"
        self._told_to_stop |= trial.status == "STOPPED"
        return trial

    def _get_trial(self, trial_id):
        self._hear(trial_id)
        return self._get(trial_id)

    def _end_trial(self, trial):
        oracle = self.oracle
        self._hear(trial.trial_id)
        if trial.trial_id in oracle.end_order:  # it was given to another, who was quicker
            return
        self._end(trial)
        if trial.trial_id in oracle.end_order and trial.trial_id in retry_queue(oracle):
            retry_queue(oracle).remove(trial.trial_id)

    def _watch(self):
        @keras_tuner.synchronized
        def forget_silent_workers(oracle):
            now = time.monotonic()
            for tuner_id, trial in list(oracle.ongoing_trials.items()):
                if now - self._last.setdefault(trial.trial_id, now) > self.timeout:
                    oracle.ongoing_trials.pop(tuner_id)
                    oracle.tuner_ids.discard(tuner_id)
                    retry_queue(oracle).append(trial.trial_id)
                    oracle.save()
                    self.tell(f"{tuner_id} is lost; trial {trial.trial_id} goes to another.")
            for tuner_id in list(oracle.tuner_ids):
                silent = now - self._last.setdefault(tuner_id, now) > self.timeout
                if tuner_id not in oracle.ongoing_trials and silent:
                    oracle.tuner_ids.discard(tuner_id)

        while True:
            time.sleep(min(self.timeout / 10, 5))
            with contextlib.suppress(Exception):  # it is one of the problems
                self._guarded(forget_silent_workers)(self.oracle)

    def _guarded(self, function):
        def call(*arguments, **more):
            try:
                return function(*arguments, **more)
            except Exception as error:
                self.problems.append(error)
                release(self.oracle)
                raise

        return call


class OverError(Exception):
    """The chief is gone because there is nothing left to do."""


def be_patient(client, timeout=TIMEOUT, tell=lambda line: None, is_over=lambda: False):
    """Makes a worker's calls wait for the chief, who may be late or begin again, but not for ever.

    Args:
        client: keras-tuner's `OracleClient`.
        timeout: seconds without the chief after which a call raises `darts_tf.devices.cluster.LostError`.
        tell: called with a line about the wait every 30 seconds.
        is_over: function without arguments, whether all trials have ended; a call raises `OverError` then.
    """
    address = ":".join(os.environ[f"KERASTUNER_ORACLE_{part}"] for part in ("IP", "PORT"))
    # By default gRPC looks for a server every two minutes.
    channel = grpc.insecure_channel(address, options=[("grpc.max_reconnect_backoff_ms", 2000)])
    client.stub = _Patient(chief_stub(channel), address, timeout, tell, is_over)


class _Patient:
    def __init__(self, stub, address, timeout, tell, is_over):
        self.impatient, self._address, self._is_over = stub, address, is_over
        self._timeout, self._tell = timeout, tell

    def __getattr__(self, name):
        method = getattr(self.impatient, name)

        def call(request, **_):
            expected = "expected it to run, with the same KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT."
            wait = Wait(f"the chief at {self._address}", self._timeout, self._tell, expected)
            answer = method.future(request, wait_for_ready=True)
            while True:
                try:
                    return answer.result(timeout=min(1.0, self._timeout / 10))
                except grpc.FutureTimeoutError:
                    pass
                except grpc.RpcError as error:
                    if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                        reason = " ".join(str(error.details()).split())[:300]
                        raise LostError(f"the chief at {self._address} failed: {reason}") from None
                    time.sleep(min(1.0, self._timeout / 10))
                    answer = method.future(request, wait_for_ready=True)
                try:
                    if self._is_over():
                        raise OverError
                    wait.check()
                except Exception:
                    answer.cancel()
                    raise

        return call


class Reporting(TunerHooks):
    """A base of tuners, before `keras_tuner.Tuner`: the end of each trial is printed, and reported to the chief.

    A trial that raises has failed; errors of the file system, and lost processes, end the search. A worker tells the
    chief that it is alive while it runs a trial. Only oracle.json is needed to go on.
    """

    timeout = TIMEOUT
    tell = staticmethod(lambda line: None)
    _beating = None
    _waits = False

    def on_search_begin(self):
        self.save()  # what is begun before the first trial ends could not go on
        super().on_search_begin()

    def state_file(self):
        return oracle_file(self.oracle)

    def save(self):
        if not self.is_worker():
            self.oracle.save()

    def reload(self):
        if not self.is_worker():
            self.oracle.reload()

    def attempt(self, trial, run):
        try:
            run()
            trial.status = "COMPLETED"
        except (keras_tuner.errors.FatalError, OSError, LostError, OverError):
            raise
        except Exception as error:
            known = isinstance(error, keras_tuner.errors.FailedTrialError)
            trial.status = "FAILED" if known else "INVALID"
            trial.message = str(error) if known else traceback.format_exc()
            reason = next(iter(str(error).strip().splitlines()), "")
            self.tell(f"trial {trial.trial_id} failed: {reason if known else f'{type(error).__name__}: {reason}'}")

    def pre_create_trial(self):
        super().pre_create_trial()
        if self._waits:
            time.sleep(1)  # there is nothing for us at the moment
        self._waits = True

    def on_trial_begin(self, trial):
        super().on_trial_begin(trial)
        self._waits = False
        if self.is_worker():
            self._beating = threading.Event()
            threading.Thread(target=self._beat, args=[self._beating, trial.trial_id], daemon=True).start()

    def on_trial_end(self, trial):
        if self._beating:
            self._beating.set()
            self._beating = None
        super().on_trial_end(trial)

    def _beat(self, ended, trial_id):
        every = min(self.timeout / 6, 10)
        stub = getattr(self.oracle.stub, "impatient", self.oracle.stub)
        while not ended.wait(every):
            with contextlib.suppress(grpc.RpcError):  # the chief is asked with more patience when the trial ends
                ask_for_trial(stub, trial_id, every)
