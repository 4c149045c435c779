"""The processes of a job on several machines, as the environment variable TF_CONFIG lists them.

TensorFlow's own format, one value per process:

    {"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}

This file needs no TensorFlow, so that a mistake is told before that is loaded.
"""

import contextlib
import faulthandler
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
import typing


class Worker(typing.NamedTuple):
    """One process of a job: its place, from 0, among `count`. The first one is the chief, who writes the results."""

    index: int = 0
    count: int = 1

    @property
    def is_chief(self):
        return self.index == 0

    def share(self, items):
        """Every count-th of the items (anything that can be sliced), beginning with that at this worker's place."""
        return items[self.index :: self.count]


ALONE = Worker()
EVERY = 30.0  # seconds from one line about a wait to the next


class LostError(Exception):
    """Another process did not come, or is gone; the message is one line."""


class Wait:
    """A wait for other processes: it says what it waits for, and ends.

    Args:
        what: what is waited for, as text that follows "Waiting for", or a function that returns it.
        timeout: seconds until `LostError`.
        tell: called with a line every `EVERY` seconds.
        expected: what would help, the end of the message of `LostError`.
    """

    def __init__(self, what, timeout, tell, expected):
        self.what = what if callable(what) else lambda: what
        self.timeout, self.tell, self.expected = timeout, tell, expected
        self._began, self._told = time.monotonic(), 0

    def again(self, moment):
        """Restarts the wait at a moment (of `time.monotonic`) when something was heard."""
        if moment > self._began:
            self._began, self._told = moment, 0

    def check(self):
        """Says a line when it is time to; raises LostError when the time is over."""
        waited = time.monotonic() - self._began
        if waited >= self.timeout:
            raise LostError(f"waited {self.timeout:g} seconds (--worker_timeout) for {self.what()}; {self.expected}")
        if waited >= (self._told + 1) * EVERY:
            self._told = int(waited / EVERY)
            self.tell(f"Waiting for {self.what()} ({waited:.0f} of {self.timeout:g} seconds) ...")

    def sleep(self, seconds=1.0):
        """Waits a little and checks."""
        self.check()
        time.sleep(min(seconds, self.timeout / 10))


@contextlib.contextmanager
def ended_by_wait(addresses, timeout):
    """Ends this process with exit code 1 if the block waits too long for other workers; says so every 30 seconds.

    TensorFlow waits without end, and meanwhile no Python runs in this process, not even threads and signal handlers. So
    another process prints the messages, and a timer in C ends this one.

    Args:
        addresses: of the workers that are waited for.
        timeout: seconds.
    """
    line = [sys.executable, "-m", __name__, str(timeout), *addresses]
    path = os.pathsep.join([str(pathlib.Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(line, stdin=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path})
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(timeout + 3, exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            signal.signal(signal.SIGINT, before)
            process.stdin.close()
            process.wait()


def _tell_of_wait(timeout, *addresses):
    """Prints which workers do not answer, until stdin is closed."""
    closed = threading.Event()
    threading.Thread(target=lambda: (os.read(0, 1), closed.set()), daemon=True).start()

    def missing():
        return ", ".join([address for address in addresses if not _answers(address)] or ["the other workers"])

    expected = "expected all workers to be started, and to reach each other."
    wait = Wait(missing, float(timeout), _print, expected)
    try:
        while not closed.wait(0.2):
            wait.check()
    except LostError as error:
        _print(f"error: {error}")


def _print(line):
    print(line, file=sys.stderr, flush=True)


def _answers(address):
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=1).close()
        return True
    except OSError:
        return False


def check_port(host, port):
    """Raises ValueError if this process cannot listen at a port of this machine.

    Args:
        host: its address or name; "" for all that the machine has.
        port: int.
    """
    family = check_name(host)[0][0] if host else socket.AF_INET
    try:
        socket.create_server((host.strip("[]"), port), family=family).close()
    except OSError as error:
        raise ValueError(f"port {port} of {host or 'this machine'} cannot be used ({error.strerror})") from None


def check_name(host):
    """What `socket.getaddrinfo` knows of a machine; raises ValueError if that is nothing."""
    try:
        return socket.getaddrinfo(host.strip("[]"), None)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no name of a machine"
        raise ValueError(f"no machine of this name is known ({reason})") from None


def port_of(text):
    """A port as a number; raises ValueError if the text is none, from 1 to 65535."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise ValueError(f"{text!r} is no port from 1 to 65535")
    return int(text)


def start_again():
    """Replaces this process by a new one of the same command line: TensorFlow itself cannot take a worker back."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def from_environment():
    """Reads TF_CONFIG.

    Returns:
        This process's `Worker`, and the addresses of all, in order.

    Raises:
        ValueError: it is missing or says something else; the message tells what is wrong and what is expected.
    """
    expected = (
        'expected {"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}}, the same '
        "cluster on all machines and another index on each."
    )
    text = os.environ.get("TF_CONFIG")
    if not text:
        raise ValueError(f"TF_CONFIG is not set: {expected}")
    try:
        return _parsed(json.loads(text))
    except json.JSONDecodeError:
        wrong = "it is no JSON"
    except RecursionError:
        wrong = "it is nested too deeply"
    except ValueError as error:
        wrong = str(error)
    raise ValueError(f"TF_CONFIG={text}: {wrong}; {expected}") from None


def _parsed(config):
    def expect(condition, wrong):
        if not condition:
            raise ValueError(wrong)

    expect(isinstance(config, dict), "it is no object")
    cluster, task = config.get("cluster"), config.get("task")
    expect(isinstance(cluster, dict), "its cluster is no object")
    expect(isinstance(task, dict), "its task is no object")
    kinds = {"chief", "worker", "evaluator"}
    expect(set(cluster) <= kinds, f"its cluster has {', '.join(map(repr, sorted(set(cluster) - kinds)))}")
    places = {}
    for kind in ("chief", "worker"):
        listed = cluster.get(kind, [])
        expect(isinstance(listed, list), f"its {kind} is no list")
        for index, address in enumerate(listed):
            expect(isinstance(address, str), f"its {kind} has {address!r}, which is no text")
            host, colon, port = address.rpartition(":")
            expect(host and colon and not set(host) & set("/ \t\n"), f"{address!r} is not HOST:PORT")
            port_of(port)
            expect(address not in places.values(), f"{address!r} is there twice")
            places[kind, index] = address
    expect(places, "its cluster lists nobody")
    expect(len(cluster.get("chief", [])) <= 1, "its cluster has several chiefs")
    kind, index = task.get("type"), task.get("index")
    expect(kind in ("chief", "worker"), f"its task is of type {kind!r}")
    expect(type(index) is int, f"the index of its task is {index!r}, which is no whole number")
    expect((kind, index) in places, f"its cluster has no {kind} {index}")
    place = list(places).index((kind, index))
    check_port("", port_of(places[kind, index].rpartition(":")[2]))
    return Worker(place, len(places)), list(places.values())


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        _tell_of_wait(*sys.argv[1:])
