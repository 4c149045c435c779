import re

import numpy as np
import pytest

from darts_tf.spaces.cells.genotypes import PUBLISHED_RECURRENT


@pytest.mark.parametrize("name", PUBLISHED_RECURRENT)
def test_published_recurrent_cells_have_as_many_nodes_as_the_original(name, request):
    file = request.config.getoption("reference") / f"rnn_{name}.npz"
    if not file.exists():
        pytest.skip(f"no {file}")
    matrices = [key for key in np.load(file) if re.search(r"_Ws\.\d+$", key)]
    assert len(matrices) == len(PUBLISHED_RECURRENT[name].recurrent)
