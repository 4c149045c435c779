"""What is in a run directory: the files that a run writes, and how they are read when it goes on.

Since a run wrote them they may have been cut, replaced or removed. Whatever is wrong with one, its reader raises
`DamageError` with a sentence that names it; a file that is not there is None.
"""

import csv
import errno
import io
import json
import os
import pathlib
import re
import stat

import numpy as np

from darts_tf import spaces
from darts_tf.cli import messages
from darts_tf.cli.configuration import complaint
from darts_tf.cli.files import write
from darts_tf.costs.tables import Table
from darts_tf.data import tasks
from darts_tf.methods.evolution import Evolution

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_ALL = ("config.json", "report.html")
FILES = {
    "search": (*_ALL, "history.csv", "alphas.npz", "genotype.json", "evolution.json", "budget.json", "front.json"),
    "train": (*_ALL, "history.csv", "model.keras", "metrics.json", "predictions.npz", "budget.json"),
    "tune": (*_ALL, "trials.csv", "genotype.json"),
}
FOLDERS = ("checkpoints", "tensorboard", "trials", "front")
CHECKPOINT = re.compile(r"step-\d{8,}\.npz")
# What `files.replacing` writes to: .PROCESS.NAME
_BESIDE = re.compile(
    r"\.(\d{1,7})\.(" + "|".join([CHECKPOINT.pattern, *map(re.escape, {n for f in FILES.values() for n in f})]) + ")"
)


class DamageError(ValueError):
    """A file in a run directory is damaged; the message continues a sentence about the directory: "its NAME is ..."."""


def _read(folder, name, parse):
    """What `parse` makes of a file's bytes; None if there is no such file."""
    path = pathlib.Path(folder) / name
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DamageError(f"its {name} is no file")
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DamageError(f"its {name} cannot be read: {error.strerror}") from None
    try:
        return parse(content)
    except Exception as error:  # of every kind: JSON, csv, zip, numpy, and keys and types that are others
        reason = " ".join(str(error).split())[:200] if isinstance(error, ValueError) else type(error).__name__
        raise DamageError(f"its {name} is damaged ({reason or type(error).__name__})") from None


def _lines(content):
    """The lines of a table as dicts of texts."""
    rows = list(csv.DictReader(io.StringIO(content.decode(), newline=""), strict=True))
    whole = content.endswith(b"\n") and all(None not in row and None not in row.values() for row in rows)
    _expect(whole, "whole lines")
    return rows


def _expect(condition, what):
    if not condition:
        raise ValueError(f"expected {what}")


def configuration(folder):
    """config.json of a run, a dict: "command", "versions", "data", and a value for each of the command's flags.

    Raises:
        DamageError: it is of no run of this package.
    """

    def parse(content):
        config = json.loads(content)
        _expect(isinstance(config, dict) and config.get("command") in FILES, "the configuration of a run")
        _expect(isinstance(config.get("versions"), dict), "versions")
        _expect(isinstance(config.get("data"), dict), "data")
        task(config).check(config["data"])
        return config

    return _read(folder, "config.json", parse)


def _check_architecture(text):
    """Raises ValueError if a text is of no architecture; those of spaces that are not registered yet are not read."""
    name, bracket, _ = text.partition("(")
    known = ("Genotype", *spaces.names())
    if name in known or not bracket or not name.replace("-", "_").isidentifier():
        spaces.from_text(text)


def history(folder):
    """history.csv: a dict per epoch, numbers but for "genotype", a text; what a line leaves empty is None."""

    def value(name, text):
        if name == "genotype":
            _check_architecture(text)
            return text
        number = json.loads(text) if text != "" else None
        _expect(number is None or type(number) in (int, float), "numbers")
        return number

    def parse(content):
        rows = [{name: value(name, text) for name, text in row.items()} for row in _lines(content)]
        _expect([row["epoch"] for row in rows] == list(range(1, len(rows) + 1)), "a line per epoch")
        return rows

    return _read(folder, "history.csv", parse)


def _arrays(content):
    with np.load(io.BytesIO(content)) as arrays:
        return {name: arrays[name] for name in arrays.files}


def space(config):
    """The space that a configuration of a search or of trials describes; raises DamageError if there is no such."""
    try:
        return spaces.of(config)
    except (TypeError, ValueError, OSError) as error:
        raise DamageError(f"its config.json is of no search that is known here ({error})") from None


def task(config):
    """The class of a run's task, see `darts_tf.data.tasks`."""
    try:
        return tasks.get(config.get("task", "image_classification"))
    except ValueError as error:
        raise DamageError(f"its config.json is of no task that is known here ({error})") from None


def alphas(folder, choices):
    """alphas.npz: what a search has learnt, before the relaxation.

    Args:
        folder: the directory.
        choices: of the search's space.

    Returns:
        list of ({table: float array (rows, candidates)}, {table: betas (rows,)}) after 0, 1, ... epochs; there are no
        betas without edge normalisation.
    """

    def parse(content):
        arrays, found, betas = _arrays(content), {}, {}
        for name, table in choices.items():
            found[name], names = arrays[name], arrays["primitives" if "primitives" in arrays else f"{name}_candidates"]
            _expect(names.ndim == 1 and names.tolist() == list(table.candidates), f"candidates of {name} as configured")
            _expect(found[name].ndim == 3 and found[name].size, "arrays as a search writes them")
            shape = len(table.rows), len(table.candidates)
            _expect(found[name].shape[1:] == shape, f"{shape[0]} rows of {shape[1]} candidates in {name}")
            if f"betas_{name}" in arrays:
                betas[name] = arrays[f"betas_{name}"]
                _expect(betas[name].shape == found[name].shape[:2], f"betas of {name} beside its alphas")
        for values in (*found.values(), *betas.values()):
            _expect(values.dtype.kind == "f" and np.isfinite(values).all(), "finite numbers")
        _expect(len({len(values) for values in found.values()}) == 1, "arrays of one length")
        return [
            tuple({name: values[epoch] for name, values in some.items()} for some in (found, betas))
            for epoch in range(len(next(iter(found.values()))))
        ]

    return _read(folder, "alphas.npz", parse)


def genotype(folder):
    """genotype.json, an architecture."""
    return _read(folder, "genotype.json", lambda content: spaces.from_json(content.decode()))


def evolution(folder):
    """evolution.json: what selection by evolution has found so far, a dict, see `darts_tf.runs.deciding`."""

    def parse(content):
        found = json.loads(content)
        _expect(isinstance(found, dict) and isinstance(found["evolution"], dict), "an object")
        found.setdefault("ended", False)
        for network in found["networks"]:
            _check_architecture(network["architecture"])
            _expect(type(network["generation"]) is int, "generations")
            _expect(all(type(network[name]) in (int, float) for name in ("result", "loss")), "numbers")
            costs = (network[name] for name in ("parameters", "multiply_adds"))
            _expect(all(value is None or type(value) in (int, float) for value in costs), "numbers")
        _expect(type(found["ended"]) is bool, "whether it has ended")
        Evolution.from_json(json.dumps(found["evolution"]))
        return found

    return _read(folder, "evolution.json", parse)


def budget(folder):
    """budget.json: what was bounded, see `darts_tf.runs.budget`, a list of dicts; None if nothing was."""

    def parse(content):
        rows = json.loads(content)
        for row in rows:
            _expect(isinstance(row["cost"], str) and type(row["most"]) in (int, float), "costs and bounds")
            if "table" in row:
                Table.from_config(row["table"])
        return rows

    return _read(folder, "budget.json", parse)


def front(folder):
    """front.json: the networks of `darts_tf.runs.front`, {"cost": name, "networks": list of dicts}."""

    def parse(content):
        found = json.loads(content)
        _expect(isinstance(found, dict) and isinstance(found["cost"], str), "an object")
        for network in found["networks"]:
            _check_architecture(network["architecture"])
            _expect(all(type(network[name]) in (int, float) for name in ("result", "loss", found["cost"])), "numbers")
        return found

    return _read(folder, "front.json", parse)


def to_alphas(history, choices):
    """The content of alphas.npz, bytes.

    Args:
        history: list of ({table: array (rows, candidates)}, {table: betas (rows,)}), one before the first epoch and one
            after each.
        choices: of the search's space.
    """
    content = io.BytesIO()
    stacked = {name: np.stack([alphas[name] for alphas, _ in history]) for name in choices}
    stacked |= {f"betas_{name}": np.stack([betas[name] for _, betas in history]) for name in history[0][1]}
    candidates = {table.candidates for table in choices.values()}
    if len(candidates) == 1:
        names = {"primitives": np.array(candidates.pop())}
    else:
        names = {f"{name}_candidates": np.array(table.candidates) for name, table in choices.items()}
    np.savez_compressed(content, **stacked, **names)
    return content.getvalue()


def metrics(folder, config=None):
    """metrics.json, a dict, see `tasks.Task.measure`; `config` is what config.json says, None for any task's."""

    def parse(content):
        found = json.loads(content)
        _expect(isinstance(found, dict), "an object")
        if config:
            task(config).check(config["data"], found)
        else:
            _expect({"per_class", "by_rank", "r2"} & set(found), "results by class or by rank, or of numbers")
        return found

    return _read(folder, "metrics.json", parse)


def predictions(folder, config):
    """predictions.npz, arrays, see `tasks.Task.measure`; `config` is what config.json says."""

    def parse(content):
        arrays = _arrays(content)
        task(config).check(config["data"], arrays=arrays)
        return arrays

    return _read(folder, "predictions.npz", parse)


def trials(folder, metric):
    """trials.csv: a dict of texts per trial.

    Args:
        folder: the directory.
        metric: name of the column of results.
    """

    def parse(content):
        rows = _lines(content)
        for row in rows:
            _expect({"trial", metric, "parameters", "multiply_adds", "genotype"} <= set(row), "more columns")
            for name in (metric, "parameters", "multiply_adds"):
                float(row[name] or "nan")
            if row["genotype"]:
                _check_architecture(row["genotype"])
        return rows

    return _read(folder, "trials.csv", parse)


def check_kinds(folder, command):
    """Raises DamageError where a run of some command has a folder in place of a file, or the other way round."""
    for name in FILES[command]:
        if (folder / name).is_dir():
            raise DamageError(f"its {name} is a folder")
    for name in FOLDERS:
        if os.path.lexists(folder / name) and not (folder / name).is_dir():
            raise DamageError(f"its {name} is no folder")


def check_files(folder, config, fields):
    """Reads all that a run has in its directory, but for checkpoints.

    Args:
        folder: the directory.
        config: what its config.json says; it is of the command that is running.
        fields: of the command's configuration, see `dataclasses.fields`.

    Raises:
        DamageError: something there cannot be read, or is a folder in place of a file or the other way round.
    """
    check_kinds(folder, config["command"])
    for field in fields:
        if field.name in config and complaint(field, config[field.name]):
            value = json.dumps(config[field.name])[:50]
            raise DamageError(f"its config.json is damaged (expected another {field.name} than {value})")
    contents(folder, config)
    for read in (budget, front, evolution):
        read(folder)


def contents(folder, config):
    """What a run has written so far: history, alphas, metrics, predictions and trials, each None if it is not there.

    Args:
        folder: the directory.
        config: what its config.json says.

    Raises:
        DamageError: something there cannot be read.
    """
    own = FILES[config["command"]]
    # What file registers a space of one's own is known to the command alone.
    is_known = spaces.is_known(config.get("space") or "darts")
    return (
        history(folder) if "history.csv" in own else None,
        alphas(folder, space(config).choices) if "alphas.npz" in own and is_known else None,
        metrics(folder, config) if "metrics.json" in own else None,
        predictions(folder, config) if "predictions.npz" in own else None,
        trials(folder, f"val_{task(config).headline.name}") if "trials.csv" in own else None,
    )


def results(folder, command):
    """What a run of some command has written, as a list of paths: all but config.json and temporary files."""
    found = [folder / name for name in FILES[command] if name != "config.json" and os.path.lexists(folder / name)]
    found += [path for path in folder.glob("checkpoints/step-*.npz") if CHECKPOINT.fullmatch(path.name)]
    found += [path for path in folder.glob("front/*.json") if path.stem.isdecimal()]
    return found + list(folder.glob("tensorboard/*/events.out.tfevents.*"))


def left_over(folder):
    """Files that a process which has ended was about to write, as a list of paths."""
    names = [*folder.glob(".[0-9]*"), *folder.glob("checkpoints/.[0-9]*")]
    matches = [(path, _BESIDE.fullmatch(path.name)) for path in names]
    return [path for path, match in matches if match and not _is_alive(int(match[1])) and path.is_file()]


def _is_alive(process):
    """Whether another process has this number."""
    if fcntl is None or process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except OSError as error:
        return error.errno == errno.EPERM
    return True


class Lock:
    """Keeps other processes out of a run directory until it is released or this process ends, however it ends.

    Args:
        folder: the directory.

    Raises:
        UsageError: another process, or another run in this one, is in it.
    """

    def __init__(self, folder):
        self.folder, self._handle = pathlib.Path(folder), None
        self.acquire()

    def acquire(self):
        """Locks the folder that has the name now."""
        self.release()
        if fcntl is None:
            return
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise messages.UsageError(
                f"--output={self.folder}: another process is at work in it; expected another folder, or its end."
            ) from None
        except OSError:  # a file system without locks
            os.close(handle)
            return
        self._handle = handle

    def release(self):
        """Lets others in."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def presence(self):
        """A function that makes the run's directory again, with its config.json, if it was moved, removed or damaged.

        The run itself writes the other files again after each epoch.
        """
        folder = self.folder
        content = (folder / "config.json").read_bytes()
        locked = os.stat(folder)

        def ensure():
            nonlocal locked
            try:
                if configuration(folder):
                    return
            except DamageError:
                pass
            folder.mkdir(parents=True, exist_ok=True)
            moved = not os.path.samestat(locked, os.stat(folder))
            if moved:
                self.acquire()
                locked = os.stat(folder)
            write(folder / "config.json", content)
            what = folder if moved else folder / "config.json"
            messages.warn(
                f"{what} was moved, removed or damaged; the run goes on and saves what it has in {folder}/ again."
            )

        return ensure
