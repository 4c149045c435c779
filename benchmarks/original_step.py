"""Times the search step of the original PyTorch code, for comparison with `benchmarks.search_step`.

    git clone https://github.com/quark0/darts && pip install torch==2.13.0 numpy absl-py
    python benchmarks/original_step.py --original=darts/cnn [--unrolled]

Needs a checkout of the original (its commit f276dd3) and PyTorch, in an environment of its own; nothing of this
package. The original asks for CUDA and for PyTorch 0.3: on a CPU its `.cuda()` does nothing here, and the in-place
calls of its architect, written (scale, tensor), become today's (tensor, alpha=scale). Prints one JSON line with the
names of `benchmarks.search_step`.
"""

import json
import resource
import statistics
import sys
import time
import types

from absl import app, flags

STARTED = time.time()

FLAGS = flags.FLAGS
flags.DEFINE_string("original", None, "The folder cnn/ of a checkout of the original.", required=True)
flags.DEFINE_boolean("unrolled", False, "Second order.")
flags.DEFINE_integer("init_channels", 16, "Channels of the first cell.")
flags.DEFINE_integer("layers", 8, "Cells.")
flags.DEFINE_integer("batch_size", 16, "Images in each of the two batches.")
flags.DEFINE_integer("image_size", 32, "Height and width of the images.")
flags.DEFINE_integer("steps", 4, "Timed steps.")


def main(_):
    import torch

    sys.path.insert(0, FLAGS.original)
    torch.Tensor.cuda = torch.nn.Module.cuda = lambda self, *_: self
    for name in ("add_", "sub_", "sub"):
        setattr(torch.Tensor, name, _scaled(getattr(torch.Tensor, name)))
    import architect
    import model_search

    torch.manual_seed(0)
    criterion = torch.nn.CrossEntropyLoss()
    network = model_search.Network(FLAGS.init_channels, 10, FLAGS.layers, criterion)
    optimizer = torch.optim.SGD(network.parameters(), 0.025, momentum=0.9, weight_decay=3e-4)
    settings = types.SimpleNamespace(momentum=0.9, weight_decay=3e-4, arch_learning_rate=3e-4, arch_weight_decay=1e-3)
    search = architect.Architect(network, settings)
    x = torch.randn(FLAGS.batch_size, 3, FLAGS.image_size, FLAGS.image_size)
    y = torch.randint(0, 10, (FLAGS.batch_size,))
    ends = []
    for _ in range(1 + FLAGS.steps):
        search.step(x, y, x, y, 0.025, optimizer, FLAGS.unrolled)
        optimizer.zero_grad()
        criterion(network(x), y).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        ends.append(time.time())
    steps = [end - start for start, end in zip(ends[:-1], ends[1:], strict=True)]  # noqa: RUF007
    result = {
        "unrolled": FLAGS.unrolled,
        "step_seconds": round(statistics.median(steps), 4),
        "first_step_seconds": round(ends[0] - STARTED, 2),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "torch": torch.__version__,
    }
    print(json.dumps(result))


def _scaled(method):
    return lambda self, a, b=None, **more: method(self, a, **more) if b is None else method(self, b, alpha=float(a))


if __name__ == "__main__":
    app.run(main)
