import re

import numpy as np
import pytest

from darts_tf.spaces.recurrent.genotypes import PUBLISHED


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recurrent_cells_have_as_many_nodes_as_the_original(name, request):
    file = request.config.getoption("reference") / f"rnn_{name}.npz"
    if not file.exists():
        pytest.skip(f"no {file}")
    matrices = [key for key in np.load(file) if re.search(r"_Ws\.\d+$", key)]
    assert len(matrices) == len(PUBLISHED[name].recurrent)
