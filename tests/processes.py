"""Commands as processes that begin at once: forks of a process that has imported TensorFlow, and done nothing with it.

A new Python needs four to six seconds for that. What imports print is not seen this way: tests of that start a Python.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pathlib
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
IMPORTED = (
    *("keras", "keras_tuner", "tensorflow", "tensorflow_datasets", "PIL.Image"),
    *("darts_tf.methods.darts", "darts_tf.spaces.cells.networks", "darts_tf.data.datasets", "darts_tf.data.streams"),
    *("darts_tf.runs.fitting", "darts_tf.runs.callbacks", "darts_tf.reports.callbacks", "darts_tf.tuner"),
)


class Process:
    """As `subprocess.Popen`, of `python -m module ...` or of `python file.py ...`.

    Args:
        *command: the module or file, and its arguments.
        env, cwd: as there.
        stdout, stderr: numbers of files; by default what is written is returned by `communicate`.
        file_size: bytes that no file may exceed.
    """

    def __init__(self, *command, env=None, cwd=None, stdout=None, stderr=None, file_size=None):
        self.args, self.returncode, self._read = command, None, []
        given, ours = [os.open(os.devnull, os.O_RDONLY)], []
        for file in (stdout, stderr):
            if file is None:
                reading, writing = os.pipe()
                ours.append(open(reading, "rb"))  # noqa: SIM115
                given.append(writing)
            else:
                ours.append(None)
                given.append(os.dup(file))
        self._streams = ours
        environment = dict(os.environ if env is None else env)
        request = {"command": [*map(str, command)], "env": environment, "cwd": str(cwd or os.getcwd())}
        request["file_size"] = file_size
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(_server())
        content = json.dumps(request).encode()
        socket.send_fds(self._connection, [len(content).to_bytes(8, "big")], given)
        self._connection.sendall(content)
        for file in given:
            os.close(file)
        self.pid = json.loads(self._line())
        self._readers = [threading.Thread(target=self._reads, args=[place]) for place in range(2)]
        for reader in self._readers:
            reader.start()

    def _reads(self, place):
        stream = self._streams[place]
        if stream:
            with stream:
                self._streams[place] = stream.read()

    def _line(self):
        """A line of what the server says."""
        found = b""
        while not found.endswith(b"\n"):
            part = self._connection.recv(1)
            if not part:
                raise RuntimeError("the process that is forked has ended")
            found += part
        return found

    def poll(self):
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout=None):
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout)
            self.returncode = os.waitstatus_to_exitcode(json.loads(self._line()))
            self._connection.close()
        return self.returncode

    def communicate(self, timeout=None):
        try:
            self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        for reader in self._readers:
            reader.join()
        return tuple(stream if stream is None else stream.decode() for stream in self._streams)

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def terminate(self):
        self.send_signal(signal.SIGTERM)


def run(*command, timeout=280, **options):
    """As `subprocess.run` with what was written as text, of `Process`."""
    process = Process(*command, **options)
    stdout, stderr = process.communicate(timeout)
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


@functools.cache
def _server():
    """Starts the process that is forked; returns the address at which it is asked."""
    folder = tempfile.TemporaryDirectory(prefix="processes-")
    address = f"{folder.name}/socket"
    line = [sys.executable, __file__, address]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": path}
    process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    assert process.stdout.readline() == b"ready\n"

    def end():
        process.stdin.close()
        process.wait()
        folder.cleanup()

    atexit.register(end)
    return address


def serve(address):
    """Forks for every request, until the process that has started this one ends."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        for name in IMPORTED:
            importlib.import_module(name)
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)  # as in conftest.py
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    running = {}
    os.write(1, b"ready\n")
    while True:
        ready, _, _ = select.select([listener, 0], [], [], 0.02 if running else None)
        if 0 in ready:
            for pid in running:
                os.kill(pid, signal.SIGKILL)
            return
        if listener in ready:
            connection, _ = listener.accept()
            length, files, _, _ = socket.recv_fds(connection, 8, 3)
            content = b""
            while len(content) < int.from_bytes(length, "big"):
                content += connection.recv(1 << 20)
            pid = os.fork()
            if not pid:
                for other in (listener, connection, *running.values()):
                    other.close()
                become(json.loads(content), files)
            for file in files:
                os.close(file)
            running[pid] = connection
            connection.sendall(f"{pid}\n".encode())
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                with running.pop(ended[0]) as connection, contextlib.suppress(OSError):
                    connection.sendall(f"{ended[1]}\n".encode())


def become(request, files):
    """Runs a command in this process, and ends it as Python would."""
    status = 1
    try:
        for place, file in enumerate(files):
            os.dup2(file, place)
            os.close(file)
        sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
        if request["file_size"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_size"],) * 2)
        os.environ.clear()
        os.environ.update(request["env"])
        os.chdir(request["cwd"])
        module = request["command"][0]
        is_file = module.endswith(".py")
        sys.argv[:] = request["command"]
        sys.orig_argv[:] = [sys.executable, *([] if is_file else ["-m"]), *request["command"]]
        sys.path.insert(0, os.path.dirname(module) if is_file else request["cwd"])
        if is_file:
            runpy.run_path(module, run_name="__main__")
        else:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)


if __name__ == "__main__":
    serve(sys.argv[1])
