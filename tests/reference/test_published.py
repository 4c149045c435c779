import re

import numpy as np
import pytest

from darts_tf.genotypes import PUBLISHED, PUBLISHED_RECURRENT


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_cells_have_the_kernels_of_the_original(name, request):
    """Each operation of the original's network has a depthwise or 1x7 kernel of the size that its name says."""
    files = sorted(request.config.getoption("reference").glob(f"*_{name}*.npz"))
    files = [file for file in files if file.name.startswith(("cifar", "imagenet"))]
    assert files
    for file in files:
        state = {key.removeprefix("state/"): value for key, value in np.load(file).items()}
        reductions = {1, 2}  # of 4 cells
        checked = 0
        for cell in range(4):
            pairs = PUBLISHED[name].reduce if cell in reductions else PUBLISHED[name].normal
            for place, (operation, _) in enumerate(pairs):
                wide = operation == "conv_7x1_1x7"
                first = state.get(f"cells.{cell}._ops.{place}.{'' if wide else 'op.'}1.weight")
                size = re.search(r"(\d)x(\d)$", operation)
                if "pool" in operation or operation == "skip_connect":
                    assert first is None
                else:
                    expected = (1, 7) if wide else tuple(map(int, size.groups()))
                    assert first.shape[2:] == expected
                    checked += 1
            assert f"cells.{cell}._ops.{len(pairs)}.op.1.weight" not in state
        assert checked


@pytest.mark.parametrize("name", PUBLISHED_RECURRENT)
def test_published_recurrent_cells_have_as_many_nodes_as_the_original(name, request):
    state = np.load(request.config.getoption("reference") / f"rnn_{name}.npz")
    matrices = [key for key in state if re.search(r"_Ws\.\d+$", key)]
    assert len(matrices) == len(PUBLISHED_RECURRENT[name].recurrent)
