"""What may be chosen: the spaces, by name, and their architectures."""

from darts_tf.spaces.base import (
    TABLE,
    SearchSpace,
    from_json,
    from_text,
    get,
    is_description,
    is_known,
    kind,
    names,
    of,
    read,
    register_space,
    spec_of,
)
from darts_tf.spaces.cells.robust import S1, S2, S3, S4
from darts_tf.spaces.cells.space import CellSpace
from darts_tf.spaces.chain.space import (
    AdaptiveChain,
    FBNetSpace,
    NasBenchMacro,
    ProxylessSpace,
    SinglePathSpace,
)
from darts_tf.spaces.densenas.space import DenseNAS
from darts_tf.spaces.mlp.space import MLP
from darts_tf.spaces.nas_bench_201.space import NasBench201
from darts_tf.spaces.recurrent.space import RecurrentSpace

__all__ = [
    "MLP",
    "S1",
    "S2",
    "S3",
    "S4",
    "TABLE",
    "AdaptiveChain",
    "CellSpace",
    "DenseNAS",
    "FBNetSpace",
    "NasBench201",
    "NasBenchMacro",
    "ProxylessSpace",
    "RecurrentSpace",
    "SearchSpace",
    "SinglePathSpace",
    "from_json",
    "from_text",
    "get",
    "is_description",
    "is_known",
    "kind",
    "names",
    "of",
    "read",
    "register_space",
    "spec_of",
]
