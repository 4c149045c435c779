"""Times a step of the original PyTorch code, for comparison with `benchmarks.search_step` and `train_step`.

    git clone https://github.com/quark0/darts && pip install torch==2.13.0 numpy absl-py
    python benchmarks/original_step.py --original=darts/cnn [--unrolled]
    python benchmarks/original_step.py --original=darts/cnn --arch=DARTS_V2 --init_channels=36 --layers=20
    python benchmarks/original_step.py --original=darts/rnn --batch_size=64 [--unrolled]
    python benchmarks/original_step.py --original=darts/rnn --batch_size=64 --arch=DARTS_V2 --units=850
    python benchmarks/original_step.py --original=PC-DARTS                      # of yuhuixu1993/PC-DARTS
    python benchmarks/original_step.py --original=AutoDL-Projects --layers=9    # GDAS, of D-X-Y/AutoDL-Projects

Needs a checkout of the original (its commit f276dd3) and PyTorch, in an environment of its own; nothing of this
package. It runs on the GPU if there is one. The original asks for PyTorch 0.3: without a GPU its `.cuda()` does nothing
here, and the in-place calls of its architect, written (scale, tensor), become today's (tensor, alpha=scale). Drop path
is off, torchvision, which it imports and does not use here, is left out; words are looked up by today's function.
Prints one JSON line with the names of `benchmarks.timing`, and `memory_mb`, the peak above that of PyTorch before
anything is made.
"""

import contextlib
import io
import json
import os
import resource
import statistics
import sys
import time
import types

from absl import app, flags

STARTED = time.time()

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "original", None, "The folder cnn/ or rnn/ of a checkout of the original, or that of another one.", required=True
)
flags.DEFINE_string("arch", None, "Train the network of this genotype, with its auxiliary head, instead of searching.")
flags.DEFINE_boolean("unrolled", False, "Second order.")
flags.DEFINE_integer("init_channels", 16, "Channels of the first cell.")
flags.DEFINE_integer("layers", 8, "Cells; of GDAS a multiple of 3.")
flags.DEFINE_integer("batch_size", 16, "Images in each of the two batches.")
flags.DEFINE_integer("image_size", 32, "Height and width of the images.")
flags.DEFINE_integer("units", 300, "Of the recurrent network.")
flags.DEFINE_integer("vocabulary", 10_000, "Tokens that the recurrent network knows.")
flags.DEFINE_integer("bptt", 35, "Tokens in each row of a batch of the recurrent network.")
flags.DEFINE_integer("steps", 4, "Timed steps.")


def main(_):
    import torch

    sys.path.insert(0, FLAGS.original)
    torch.backends.cudnn.benchmark = True  # as its scripts have it
    if not torch.cuda.is_available():
        torch.Tensor.cuda = torch.nn.Module.cuda = lambda self, *_: self
    for name in ("add_", "sub_", "sub"):
        setattr(torch.Tensor, name, _scaled(getattr(torch.Tensor, name)))
    sys.modules["torchvision"] = types.ModuleType("torchvision")
    for name in ("datasets", "transforms"):
        module = sys.modules[f"torchvision.{name}"] = types.ModuleType(name)
        setattr(sys.modules["torchvision"], name, module)

    torch.manual_seed(0)
    start = _peak_memory_mb()
    if FLAGS.original.rstrip("/").endswith("rnn"):
        step = _language_model()
    else:
        x = torch.randn(FLAGS.batch_size, 3, FLAGS.image_size, FLAGS.image_size).cuda()
        y = torch.randint(0, 10, (FLAGS.batch_size,)).cuda()
        gdas = os.path.isdir(os.path.join(FLAGS.original, "xautodl"))
        step = _gdas(x, y) if gdas else _training(x, y) if FLAGS.arch else _search(x, y)
    ends = []
    for _ in range(1 + FLAGS.steps):
        step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        ends.append(time.time())
    steps = [end - start for start, end in zip(ends[:-1], ends[1:], strict=True)]  # noqa: RUF007
    result = {
        **{name: FLAGS[name].value for name in ("arch", "unrolled", "init_channels", "layers", "batch_size")},
        "step_seconds": round(statistics.median(steps), 4),
        "first_step_seconds": round(ends[0] - STARTED, 2),
        "peak_memory_mb": _peak_memory_mb(),
        "memory_mb": _peak_memory_mb() - start,
        **_gpu(),
        "torch": torch.__version__,
    }
    print(json.dumps(result))


def _peak_memory_mb():
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def _gpu():
    """The GPU's name and the most memory that tensors had there, if there is one."""
    import torch

    torch.backends.cudnn.benchmark = True  # as its scripts have it
    if not torch.cuda.is_available():
        return {"device": "CPU"}
    memory = round(torch.cuda.max_memory_allocated() / 2**20)
    return {"device": torch.cuda.get_device_name(), "gpu_memory_mb": memory}


def _language_model():
    """A step of the recurrent search, or of the training of a recurrent network, with the original's dropout."""
    import architect
    import genotypes
    import model
    import model_search
    import torch
    import utils

    def embedded_dropout(embed, words, dropout=0.1):
        weight = embed.weight
        if dropout:
            weight = weight * weight.new_empty(len(weight), 1).bernoulli_(1 - dropout) / (1 - dropout)
        return torch.nn.functional.embedding(words, weight)

    model.embedded_dropout = embedded_dropout
    utils.repackage_hidden = lambda hidden: [one.detach() for one in hidden]
    sizes = FLAGS.vocabulary, *[FLAGS.units] * 3
    if FLAGS.arch:
        cell = {"cell_cls": model.DARTSCell, "genotype": getattr(genotypes, FLAGS.arch)}
        network = model.RNNModel(*sizes, 0.75, 0.25, 0.75, 0.2, 0.1, **cell).cuda()
        search = None
    else:
        network = model_search.RNNModelSearch(*sizes, 0.75, 0.25, 0.75, 0.2, 0.0).cuda()
        settings = types.SimpleNamespace(wdecay=5e-7, clip=0.25, arch_lr=3e-3, arch_wdecay=1e-3)
        search = architect.Architect(network, settings)
    optimizer = torch.optim.SGD(network.parameters(), 20.0, weight_decay=5e-7)
    x = torch.randint(0, FLAGS.vocabulary, (FLAGS.bptt, FLAGS.batch_size)).cuda()
    y = torch.randint(0, FLAGS.vocabulary, (FLAGS.bptt * FLAGS.batch_size,)).cuda()
    hidden = [network.init_hidden(FLAGS.batch_size) for _ in range(2)]

    def step():
        hidden[:] = [utils.repackage_hidden(one) for one in hidden]
        if search:
            optimizer.zero_grad()
            hidden[1], _ = search.step(hidden[0], x, y, hidden[1], x, y, optimizer, FLAGS.unrolled)
        optimizer.zero_grad()
        log_probabilities, hidden[0], states, _ = network(x, utils.repackage_hidden(hidden[0]), return_h=True)
        loss = torch.nn.functional.nll_loss(log_probabilities.view(-1, FLAGS.vocabulary), y)
        (loss + sum(1e-3 * (one[1:] - one[:-1]).pow(2).mean() for one in states)).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 0.25)
        optimizer.step()

    return step


def _optimizer(network):
    import torch

    return torch.optim.SGD(network.parameters(), 0.025, momentum=0.9, weight_decay=3e-4)


def _search(x, y):
    import architect
    import model_search
    import torch

    criterion = torch.nn.CrossEntropyLoss()
    network = model_search.Network(FLAGS.init_channels, 10, FLAGS.layers, criterion).cuda()
    optimizer = _optimizer(network)
    settings = types.SimpleNamespace(momentum=0.9, weight_decay=3e-4, arch_learning_rate=3e-4, arch_weight_decay=1e-3)
    search = architect.Architect(network, settings)

    def step():
        search.step(x, y, x, y, 0.025, optimizer, FLAGS.unrolled)
        _descend(network, optimizer, lambda: criterion(network(x), y))

    return step


def _gdas(x, y):
    """A search step of GDAS in its authors' code: weights, then alpha, each on a batch of its own."""
    import torch

    for name in ("xautodl", "xautodl.models"):  # without what they import and is not needed here
        package = sys.modules[name] = types.ModuleType(name)
        package.__path__ = [os.path.join(FLAGS.original, *name.split("."))]
    from xautodl.models.cell_operations import SearchSpaceNames
    from xautodl.models.cell_searchs.search_model_gdas_nasnet import NASNetworkGDAS

    network = NASNetworkGDAS(
        FLAGS.init_channels, FLAGS.layers // 3, 4, 4, 3, 10, SearchSpaceNames["darts"], False, True
    ).cuda()
    criterion = torch.nn.CrossEntropyLoss()
    weights = torch.optim.SGD(network.get_weights(), 0.025, momentum=0.9, weight_decay=3e-4, nesterov=True)
    alphas = torch.optim.Adam(network.get_alphas(), 3e-4, betas=(0.5, 0.999), weight_decay=1e-3)

    def step():
        _descend(network, weights, lambda: criterion(network(x)[1], y))
        alphas.zero_grad()
        criterion(network(x)[1], y).backward()
        alphas.step()

    return step


def _training(x, y):
    import genotypes
    import model
    import torch

    criterion = torch.nn.CrossEntropyLoss()
    with contextlib.redirect_stdout(io.StringIO()):
        genotype = getattr(genotypes, FLAGS.arch)
        network = model.NetworkCIFAR(FLAGS.init_channels, 10, FLAGS.layers, True, genotype).cuda()
    network.drop_path_prob = 0.0
    optimizer = _optimizer(network)

    def loss():
        logits, auxiliary = network(x)
        return criterion(logits, y) + 0.4 * criterion(auxiliary, y)

    return lambda: _descend(network, optimizer, loss)


def _descend(network, optimizer, loss):
    import torch

    optimizer.zero_grad()
    loss().backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
    optimizer.step()


def _scaled(method):
    return lambda self, a, b=None, **more: method(self, a, **more) if b is None else method(self, b, alpha=float(a))


if __name__ == "__main__":
    app.run(main)
