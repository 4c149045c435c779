"""Runs the attempts, several at a time, and prints one JSON line per file and one for all together."""

import argparse
import collections
import contextlib
import hashlib
import importlib
import json
import os
import pathlib
import re
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

from benchmarks import abuse

MEMORY = 12 << 30  # bytes that an attempt may map, so that one that takes all does not end the others
HERE = pathlib.Path(__file__).resolve().parent
RUNS = {
    "search": ["darts_tf.search", "--epochs=1", "--output=search"],
    "train": ["darts_tf.train", "--epochs=1", "--layers=1", "--init_channels=4", "--output=train"],
    "tune": ["darts_tf.tune", "--epochs=1", "--layers=1", "--init_channels=4", "--max_trials=2", "--output=tune"],
    "chain": ["darts_tf.search", "--space=chain", "--method=spos", "--init_channels=4", "--output=chain"],
    "serving": ["export", "--model=train/model.keras", "--name=digits", "--output=serving", "--quantize=none"],
}


def options():
    """The command line; by argparse, since absl's flags are the attacked commands' own here."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.abuse", description=abuse.__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="files of attempts, comma-separated, without .py; default: all")
    parser.add_argument("--match", default="", help="only attempts whose name matches this regular expression")
    parser.add_argument("--checkout", default=str(HERE.parents[1]), help="the code to attack; default: this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="attempts at a time; default: one per core")
    parser.add_argument("--verbose", action="store_true", help="print what each attempt printed")
    return parser.parse_args()


def main():
    names = [*filter(None, OPTIONS.only.split(","))] or sorted(
        path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_")
    )
    modules = {name: importlib.import_module(f"benchmarks.abuse.{name}") for name in names}
    checkout = str(pathlib.Path(OPTIONS.checkout).resolve())
    sys.path.insert(0, checkout)
    os.environ["PYTHONPATH"] = checkout
    os.environ["PYTHON"] = sys.executable
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    print("Importing TensorFlow once for all ...", file=sys.stderr)
    import keras_tuner  # noqa: F401
    import PIL.Image  # noqa: F401
    import tensorflow_datasets  # noqa: F401

    with tempfile.TemporaryDirectory(prefix="abuse-") as folder:
        folder = pathlib.Path(folder)
        attempts = {
            (name, attempt.name): attempt
            for name, module in modules.items()
            for attempt in module.attempts()
            if re.search(OPTIONS.match, attempt.name)
        }
        make_runs(folder / "runs", {run for attempt in attempts.values() for run in attempt.runs})
        counts = {name: collections.Counter() for name in names}
        for (name, title), (ending, reason) in run_all(attempts, folder):
            counts[name][ending] += 1
            if ending != "handled":
                print(f"{name}: {title}: {ending}: {reason}", file=sys.stderr, flush=True)
        for name, count in [*counts.items(), ("all", sum(counts.values(), collections.Counter()))]:
            ended = {ending: count[ending] for ending in abuse.ENDINGS}
            print(json.dumps({"attempts": name, "count": count.total(), **ended}), flush=True)


def make_runs(folder, wanted):
    """The finished runs that attempts want to spoil."""
    folder.mkdir()
    wanted |= {"train"} if "serving" in wanted else set()
    wanted |= {"search"} if "train" in wanted else set()
    for name in [name for name in RUNS if name in wanted]:
        evolution = ["--epochs=1", "--population=4", "--generations=2", "--front=2", "--max_parameters=30000"]
        more = {"search": abuse.B, "train": ["--arch=search/genotype.json"], "chain": evolution}.get(name, [])
        print(f"Making a {name} to spoil ...", file=sys.stderr)
        made = subprocess.run([sys.executable, "-m", *RUNS[name], *more], cwd=folder, capture_output=True, text=True)
        if made.returncode:
            raise SystemExit(f"error: the {name} to spoil could not be made: {made.stderr}")


def run_all(attempts, folder):
    """Yields each attempt's key, its ending and the reason."""
    waiting, running, done = list(attempts.items()), {}, 0
    while waiting or running:
        while waiting and len(running) < OPTIONS.jobs:
            key, attempt = waiting.pop(0)
            sandbox = folder / f"{len(waiting)}"
            try:
                pid, before = begin(attempt, sandbox, folder / "runs")
                running[pid] = key, attempt, sandbox, before, time.monotonic()
            except Exception as error:
                yield key, ("misled", f"it could not be prepared: {error!r}")
        for pid, (key, attempt, sandbox, before, start) in list(running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            late = time.monotonic() - start > attempt.timeout
            if not ended and not late:
                continue
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)  # with what it has started
            if not ended:
                os.waitpid(pid, 0)
            del running[pid]
            done += 1
            if sys.stderr.isatty():
                print(f"\r{done} of {len(attempts)}", end="\r", file=sys.stderr)
            yield key, verdict(attempt, sandbox, before, None if late and not ended else status)
            shutil.rmtree(sandbox, ignore_errors=True)
        time.sleep(0.02)


def begin(attempt, sandbox, runs):
    """Prepares an attempt and starts it in a process group of its own; returns its number and what is to be kept."""
    place = sandbox / "here"
    place.mkdir(parents=True)
    for run in attempt.runs:
        shutil.copytree(runs / run, place / run, symlinks=True)
    started = os.getcwd()
    os.chdir(place)
    try:
        if attempt.prepare:
            attempt.prepare(place)
    finally:
        os.chdir(started)
    before = digests(place, attempt.keeps)
    pid = os.fork()
    if pid:
        return pid, before
    status = 70
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        os.chdir(place)
        for descriptor, path in ((0, os.devnull), (1, sandbox / "stdout"), (2, sandbox / "stderr")):
            opened = os.open(path, os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT)
            os.dup2(opened, descriptor)
            os.close(opened)
        os.environ.update(attempt.environ)
        status = act(attempt, place)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(status)


def act(attempt, place):
    """What the child does; it ends as the command would."""
    if attempt.call:
        wrong = attempt.call(place)
        if wrong:
            print(f"WRONG: {wrong}")
        return attempt.ends[0]
    if attempt.command[0] == "bash":
        os.execvp("bash", attempt.command)
    if attempt.environ:  # some of which only a new Python looks at
        os.execv(sys.executable, [sys.executable, "-m", *attempt.command])
    module, *arguments = attempt.command
    sys.argv[:] = [module, *arguments]
    sys.orig_argv[:] = [sys.executable, "-m", *attempt.command]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0


def digests(place, globs):
    """{path: digest} of the files that the globs find."""
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for pattern in globs
        for path in place.glob(pattern)
        if path.is_file()
    }


def verdict(attempt, sandbox, before, status):
    """How an attempt ended, and why that is so."""
    place = sandbox / "here"
    stdout, stderr = ((sandbox / name).read_text(errors="replace") for name in ("stdout", "stderr"))
    if OPTIONS.verbose:
        print(f"--- {attempt.name}\n{stdout}{stderr}", file=sys.stderr)
    tail = (stderr.strip() or stdout.strip() or "nothing printed").splitlines()[-1][-300:]
    if status is None:
        return "endless", tail
    code = os.waitstatus_to_exitcode(status)
    if code < 0 and -code not in attempt.ends:
        return "crash", f"{signal.Signals(-code).name}; {tail}"
    changed = [path for path, digest in before.items() if digests(path.parent, [path.name]).get(path) != digest]
    if changed:
        return "lost", f"{changed[0].relative_to(place)} is not what it was; {tail}"
    if "Traceback (most recent call last)" in stderr:
        return "traceback", tail
    if code not in attempt.ends:
        return "misled", f"exit code {code}; {tail}"
    wrong = re.search(r"^WRONG: (.*)", stdout, re.M)
    try:
        wrong = wrong[1] if wrong else attempt.check and attempt.check(place, stdout, stderr)
    except OSError as error:  # a file that has to be there is not
        wrong = str(error)
    if wrong:
        return "lost", wrong
    if attempt.says and not re.search(attempt.says, stdout + stderr):
        return "misled", f"no {attempt.says!r} in: {tail}"
    left = [path for path in place.rglob(".[0-9]*") if re.match(r"\.\d+(\..+)?$", path.name) and path not in before]
    if left:
        return "left over", str(left[0].relative_to(place))
    return "handled", ""


if __name__ == "__main__":
    OPTIONS = options()
    main()
