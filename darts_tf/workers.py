"""The processes of a job on several machines, as the environment variable TF_CONFIG lists them.

TensorFlow's own format, one value per process:

    {"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}

This file needs no TensorFlow, so that a mistake is told before that is loaded.
"""

import json
import os
import sys
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
        ValueError: it is missing or says something else; the message tells what is expected.
    """
    expected = (
        'expected {"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}}, the same '
        "cluster on all machines and another index on each."
    )
    text = os.environ.get("TF_CONFIG")
    if not text:
        raise ValueError(f"TF_CONFIG is not set: {expected}")
    try:
        config = json.loads(text)
        addresses = {
            (kind, index): address
            for kind in ("chief", "worker")
            for index, address in enumerate(config["cluster"].get(kind, []))
        }
        task = config["task"]["type"], int(config["task"]["index"])
        return Worker(list(addresses).index(task), len(addresses)), list(addresses.values())
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"TF_CONFIG={text}: {expected}") from None
