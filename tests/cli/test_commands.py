"""What all commands have in common, as a user meets it."""

import contextlib
import itertools
import os
import re
import subprocess
import sys
import types

import pytest
import tqdm

from darts_tf.cli import commands, configuration, messages
from darts_tf.runs.configurations import SearchConfig

COMMANDS = [
    "darts_tf.search",
    "darts_tf.train",
    "darts_tf.tune",
    "darts_tf.plot",
    "darts_tf.convert",
    "export",
    "export.client",
]


def run(command, *arguments):
    line = [sys.executable, "-m", command, *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command):
    done = run(command, "--help")
    assert done.returncode == 0 and not done.stderr
    before, topics = re.split(r"\n(?=[A-Z][\w ]+:\n  --)", done.stdout, maxsplit=1)
    assert re.match(r"[A-Z][a-z]+s .*\.\n\n", before), "what it does, in a sentence"
    assert len(re.findall(rf"^    python -m {re.escape(command)}\b", before, re.M)) >= 2
    flags = re.findall(r"^  --(?:\[no\])?(\w+)(.*(?:\n {30}.*)*)", topics, re.M)
    names = [name for name, _ in flags]
    assert {"verbose", "json"} <= set(names) and len(names) == len(set(names))
    for name, described in flags:
        required = name in ("model", "output", "arch", "init_from", "evaluate")
        optional = name in ("operations", "image_size", "search_run", "repeat_search")
        assert required or optional or "Default: " in " ".join([*described.split(), ""]), f"--{name} has no default"
    headings = re.findall(r"^([A-Z][\w ]+):$", done.stdout, re.M)
    assert "Flags" not in headings and headings[-1] == "Messages" and len(headings) == len(set(headings))
    assert not any(word in done.stdout for word in ("logtostderr", "pdb", "absl"))
    assert "logtostderr" in run(command, "--helpfull").stdout


def test_help_into_a_pipe_that_is_closed():
    line = f"{sys.executable} -m darts_tf.search --help | head -1"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("Searches a neural network cell") and not done.stderr


@pytest.mark.parametrize(
    "line, message",
    [
        (["plot", "NASNet", "--verbose=3"], "--verbose=3: expected at most 2."),
        (["tune", "--temperature=nan"], "--temperature=nan: expected a finite number."),
        (["search", "--weight_decay=inf"], "--weight_decay=inf: expected a finite number."),
        (["train", f"--seed={2**32}"], f"--seed={2**32}: expected at most {2**32 - 1}."),
        (["plot", "NASNet", "--flagfile=no/such/file"], "no/such/file"),
        (["plot", "a\n\x1b[2J" + 9999 * "b", "--output=a.svg"], "a \\x1b[2Jbbb"),
    ],
)
def test_wrong_values(line, message):
    done = run(f"darts_tf.{line[0]}", *line[1:])
    assert done.returncode == 2 and done.stderr.startswith("error: ") and message in done.stderr
    assert len(done.stderr.splitlines()) == 1 and len(done.stderr) < 2000


def test_texts_become_values():
    arguments = ["--unrolled=T", "--epochs=3", "--learning_rate=1", "--dataset=1", "--widths=1,0.5"]
    config = configuration.parse(SearchConfig, arguments)
    assert (config.unrolled, config.epochs, config.learning_rate, config.dataset) == (True, 3, 1.0, "1")
    assert type(config.learning_rate) is float and config.widths == ["1", "0.5"]
    assert config.given == {"unrolled", "epochs", "learning_rate", "dataset", "widths"}
    assert configuration.parse(SearchConfig, ["--nounrolled"]).unrolled is False


@pytest.mark.parametrize(
    "argument, message",
    [
        ("--unrolled=maybe", "--unrolled=maybe: expected True or False."),
        ("--epochs=x", "--epochs=x: expected a whole number."),
        ("--epochs=1.5", "--epochs=1.5: expected a whole number."),
        ("--epochs=", "--epochs=: expected a whole number."),
        ("--learning_rate=fast", "--learning_rate=fast: expected a number."),
        ("--learning_rate=nan", "--learning_rate=nan: expected a finite number."),
        ("--temperature_schedule=sine", "--temperature_schedule=sine: expected one of constant, linear,"),
        ("--verbose", "Unknown command line flag 'verbose'"),
    ],
)
def test_texts_that_are_no_values(argument, message):
    with pytest.raises(messages.UsageError) as error:
        configuration.parse(SearchConfig, [argument])
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    "redirection, status, stdout",
    [
        ("2>&-", 2, ""),
        ("<&- 2>&-", 2, ""),
        ("2>/dev/full", 2, ""),
        ("2> >(true)", 2, ""),
        ("NASNet >&- 2>&-", 0, ""),
        ("NASNet >/dev/full", 1, ""),
        ("NASNet | true", 0, ""),
        ("NASNet 2>/dev/full", 0, "Saved "),
    ],
)
def test_standard_streams_that_are_gone(redirection, status, stdout, tmp_path):
    line = f"set -o pipefail; {sys.executable} -m darts_tf.plot --output={tmp_path}/a.svg {redirection}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == status and done.stdout.startswith(stdout) and bool(done.stdout) == bool(stdout)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr
    assert (tmp_path / "a.svg").exists() == ("NASNet" in redirection)


def test_a_bar_goes_on_when_its_terminal_is_gone():
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        lasting = commands.Lasting(stream)
        for _ in tqdm.tqdm(range(3), file=lasting, mininterval=0):
            print("x" * 10_000, file=lasting, flush=True)
        assert lasting.isatty() is False
        with contextlib.suppress(OSError):
            stream.close()


def test_progress_is_told_after_two_seconds(monkeypatch, capsys):
    clock = iter([0.0, 1.0, 3.0, 4.0, 40.0, 41.0])
    monkeypatch.setattr(messages, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    parts = ["ab", "cd", "ef", "gh", "ij"]
    with messages.spoken(2):
        assert list(messages.progress(parts, 10, "Reading")) == parts
    assert capsys.readouterr().err == "Reading: 4 of 10\nReading: 8 of 10\n"
    for clock, verbose in ((itertools.count(), 0), (iter([0.0] * 6), 2)):
        monkeypatch.setattr(messages, "time", types.SimpleNamespace(monotonic=lambda clock=clock: next(clock)))
        with messages.spoken(verbose):
            assert list(messages.progress(parts, 10, "Reading")) == parts
    assert capsys.readouterr().err == ""
    clock = iter([0.0, 1.0, 3.0, 4.0])
    monkeypatch.setattr(messages, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    with messages.spoken(2):
        assert list(messages.each({"a": 1, "b": 2, "c": 3}.items(), "Reading")) == [("a", 1), ("b", 2), ("c", 3)]
    assert capsys.readouterr().err == "Reading: 2 of 3\n"
