"""Times the training step of a derived network: `python -m benchmarks.train_step` prints one JSON line.

Takes the flags of `darts_tf.train`; without them it is DARTS_V2 at the size of the paper's CIFAR-10 network, with
auxiliary head and drop path. See `benchmarks.timing` for what is measured.

    python -m benchmarks.train_step --space=recurrent --arch=DARTS_V2

is the recurrent cell at the size of the paper's PTB network, with 10,000 words.
"""

import dataclasses
import json

from benchmarks import timing
from darts_tf import train
from darts_tf.cli import commands
from darts_tf.cli.configuration import option
from darts_tf.runs.configurations import TrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainStepConfig(TrainConfig):
    """What is timed."""

    steps: int = option(5, "Timed steps.", topic="Timing", least=1)


def main(config):
    """Times the step that the flags describe."""
    from darts_tf.devices import runtime

    config = config.completed({"arch": "DARTS_V2"})
    is_text = config.kind == "text"
    config = config.completed({"recipe": "ptb" if is_text else "cifar", "image_size": None if is_text else 32}).begun()
    runtime.configure(precision=config.precision, within=is_text, deterministic=config.deterministic)
    make = text if is_text else images
    data, batch, names = make(config)
    config = train.completed(config, data)
    network = train.prepare(None, train.read_architecture(config), data, config)
    settings = {name: getattr(config, name) for name in (*names, "arch", "batch_size", "steps")}
    print(json.dumps(timing.time_steps(network, batch, config.steps, settings)))


def images(config):
    """Images, a batch of them, and the names of flags that say how large the network is."""
    import numpy as np

    from darts_tf.data import datasets

    draw, size = np.random.default_rng(0), config.image_size
    x, y = draw.integers(0, 256, (256, size, size, 3), np.uint8), draw.integers(0, 10, 256)
    data = datasets.Dataset(x, y, x[:10], y[:10], [str(label) for label in range(10)])
    size = config.batch_size or 96
    batch = x[:size].astype("float32"), y[:size]
    return data, batch, ("init_channels", "layers", "auxiliary", "drop_path_prob", "image_size")


def text(config):
    """The same of text."""
    import numpy as np

    from darts_tf.data.text import Text

    vocabulary = ["<unk>", "<eos>", *map(str, range((config.vocabulary or 10_000) - 2))]
    draw = np.random.default_rng(0)
    tokens = draw.integers(0, len(vocabulary), [config.batch_size, config.bptt + 1], np.int32)
    x = {"tokens": tokens[:, :-1], "begins": np.zeros(len(tokens), bool)}
    return Text(tokens.ravel(), tokens[0], tokens[0], vocabulary), (x, tokens[:, 1:]), ("units", "bptt", "vocabulary")


if __name__ == "__main__":
    commands.run(main, TrainStepConfig)
