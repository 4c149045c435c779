"""What all commands have in common, as a user meets it."""

import re
import subprocess
import sys

import pytest

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


def test_wrong_values():
    done = run("darts_tf.plot", "NASNet", "--verbose=3")
    assert done.returncode == 2 and done.stderr.startswith("error: flag --verbose=3: 3 is not an integer in the range")
