"""The spaces S1 to S4 of RobustDARTS, in which plain DARTS fails (Zela et al., 2020, section 3).

Their cells are the paper's; the candidates of an edge are few and, in S1, the edge's own.
"""

import dataclasses

from darts_tf.spaces.base import register_space
from darts_tf.spaces.cells import genotypes
from darts_tf.spaces.cells.space import PRIMITIVES, Cells

NODES = 4
_SHORT = {
    "max": "max_pool_3x3",
    "avg": "avg_pool_3x3",
    "skip": "skip_connect",
    "sep": "sep_conv_3x3",
    "dil3": "dil_conv_3x3",
    "dil5": "dil_conv_5x5",
}
# Of S1, for each edge by node, then by source; the two candidates that DARTS ranks highest there.
_S1 = {
    "normal": "skip dil3, skip dil5, skip dil5, skip sep, skip dil3, max skip, skip sep, skip sep, skip dil3, "
    "skip sep, max skip, skip dil3, dil3 dil5, dil3 dil5",
    "reduce": "max avg, max dil3, max avg, max avg, skip dil5, max avg, max sep, skip dil3, skip dil5, max avg, "
    "max avg, skip dil5, skip dil5, skip dil5",
}


class RobustCells(Cells):
    """One of the four spaces.

    Args:
        nodes: intermediate nodes of a cell, 1 to 4; fewer than four leave out the last ones.

    Attributes:
        candidates: names of the operations on every edge.

    Raises:
        ValueError: `nodes` is out of range.
    """

    def __post_init__(self):
        if self.nodes not in range(1, NODES + 1):
            raise ValueError(f"nodes={self.nodes}: expected 1 to {NODES} intermediate nodes.")

    @property
    def primitives(self):
        known = {name for kind in ("normal", "reduce") for names in self.edges(kind).values() for name in names}
        return tuple(name for name in ("noise", *PRIMITIVES) if name in known)

    def edges(self, kind):
        return dict.fromkeys(genotypes.every_edge(self.nodes), self.candidates)


@register_space("s1")
@dataclasses.dataclass(frozen=True)
class S1(RobustCells):
    """On each edge the two operations that DARTS ranks highest there."""

    nodes: int = NODES

    def edges(self, kind):
        names = [tuple(_SHORT[short] for short in text.split()) for text in _S1[kind].split(", ")]
        return dict(zip(genotypes.every_edge(self.nodes), names, strict=False))


@register_space("s2")
@dataclasses.dataclass(frozen=True)
class S2(RobustCells):
    """A skip connection or a separable convolution on each edge."""

    nodes: int = NODES
    candidates = ("skip_connect", "sep_conv_3x3")


@register_space("s3")
@dataclasses.dataclass(frozen=True)
class S3(RobustCells):
    """Nothing, a skip connection or a separable convolution on each edge."""

    nodes: int = NODES
    candidates = ("none", "skip_connect", "sep_conv_3x3")


@register_space("s4")
@dataclasses.dataclass(frozen=True)
class S4(RobustCells):
    """Noise or a separable convolution on each edge."""

    nodes: int = NODES
    candidates = ("noise", "sep_conv_3x3")
