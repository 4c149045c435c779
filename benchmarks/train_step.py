"""Times the training step of a derived network: `python -m benchmarks.train_step` prints one JSON line.

Takes the flags of `darts_tf.train`; without them it is DARTS_V2 at the size of the paper's CIFAR-10 network, with
auxiliary head and drop path. See `benchmarks.timing` for what is measured.
"""

import dataclasses
import json

from benchmarks import timing
from darts_tf import spaces, train
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

    config = config.completed({"arch": "DARTS_V2", "recipe": "cifar", "image_size": 32})
    runtime.configure(precision=config.precision)
    import numpy as np

    from darts_tf.data import datasets

    draw, size = np.random.default_rng(0), config.image_size
    x, y = draw.integers(0, 256, (256, size, size, 3), np.uint8), draw.integers(0, 10, 256)
    data = datasets.Dataset(x, y, x[:10], y[:10], [str(label) for label in range(10)])
    config = train.completed(config, data)
    network = train.prepare(None, spaces.read(config.arch), data, config)
    batch = x[: config.batch_size].astype("float32"), y[: config.batch_size]
    names = ("arch", "init_channels", "layers", "auxiliary", "drop_path_prob", "batch_size", "image_size", "steps")
    settings = {name: getattr(config, name) for name in names}
    print(json.dumps(timing.time_steps(network, batch, config.steps, settings)))


if __name__ == "__main__":
    commands.run(main, TrainStepConfig)
