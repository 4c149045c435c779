import re

import numpy as np
import pytest

from darts_tf.genotypes import PUBLISHED, PUBLISHED_RECURRENT
from darts_tf.networks import reductions


def check_kernels(file):
    """Each operation of the original's network has a first kernel of the size that its name says."""
    name = re.match(r"(cifar|imagenet)_(\w+?)(_auxiliary)?$", file.stem)[2]
    if name not in PUBLISHED:
        pytest.skip(f"{name} is not a published genotype")
    shapes = {key.removeprefix("state/"): value.shape for key, value in np.load(file).items()}
    layers = 1 + max(int(key.split(".")[1]) for key in shapes if key.startswith("cells."))
    for cell in range(layers):
        pairs = PUBLISHED[name].reduce if cell in reductions(layers) else PUBLISHED[name].normal
        for place, (operation, _) in enumerate(pairs):
            wide = operation == "conv_7x1_1x7"
            kernel = shapes.get(f"cells.{cell}._ops.{place}.{'' if wide else 'op.'}1.weight")
            if "conv" in operation:
                assert kernel[2:] == ((1, 7) if wide else (int(operation[-1]),) * 2)
            else:
                assert kernel is None
        assert f"cells.{cell}._ops.{len(pairs)}.op.1.weight" not in shapes


def test_published_cifar_cells(cifar_file):
    check_kernels(cifar_file)


def test_published_imagenet_cells(imagenet_file):
    check_kernels(imagenet_file)


@pytest.mark.parametrize("name", PUBLISHED_RECURRENT)
def test_published_recurrent_cells_have_as_many_nodes_as_the_original(name, request):
    file = request.config.getoption("reference") / f"rnn_{name}.npz"
    if not file.exists():
        pytest.skip(f"no {file}")
    matrices = [key for key in np.load(file) if re.search(r"_Ws\.\d+$", key)]
    assert len(matrices) == len(PUBLISHED_RECURRENT[name].recurrent)
