"""Hostile attempts against the commands, and a count of how each ended.

    python -m benchmarks.abuse                       # all of them, in this checkout
    python -m benchmarks.abuse --only=runs --verbose
    python -m benchmarks.abuse --checkout=../before  # the same attempts against other code

Each file beside this one is about one part of the software and yields `Attempt`s, plain data. An attempt ends as

    handled    as it should: the right exit code, the right words, nothing lost
    lost       files that had to stay as they were did not, or what came out is wrong
    misled     another exit code, or no word of what was wrong
    traceback  Python's
    crash      the process died of a signal
    endless    it did not end in time
    left over  it ended rightly, and left something half-written behind
"""

import dataclasses
import typing

# A tiny search on the digits.
B = ("--layers=3", "--init_channels=4", "--nodes=2", "--primitives=skip_connect,max_pool_3x3")
ENDINGS = ("handled", "lost", "misled", "traceback", "crash", "endless", "left over")


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One attempt.

    name: what is tried, unique in its file.
    command: argv of `python -m`, or of a program if it begins with "bash"; there $PYTHON is this Python.
    call: instead, function of the sandbox folder -> None, or a sentence that says what is wrong. It may raise.
    prepare: function of the sandbox folder that makes what the attempt needs. The folder is the current one then.
    runs: what is copied there before that: "search", "train", "tune" and "serving", small and finished.
    ends: exit codes that are right.
    says: regular expression that what is printed must match.
    keeps: globs of files that must be the same afterwards.
    check: function (folder, stdout, stderr) -> None, or a sentence that says what is wrong.
    environ: more environment variables.
    timeout: seconds.
    """

    name: str
    command: typing.Sequence[str] = ()
    call: typing.Callable | None = None
    prepare: typing.Callable | None = None
    runs: typing.Sequence[str] = ()
    ends: typing.Sequence[int] = (2,)
    says: str | None = None
    keeps: typing.Sequence[str] = ()
    check: typing.Callable | None = None
    environ: typing.Mapping[str, str] = dataclasses.field(default_factory=dict)
    timeout: float = 120
