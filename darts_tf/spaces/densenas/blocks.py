"""What networks of densely connected blocks have besides the blocks that are chosen, and how wide all are."""

import dataclasses

from darts_tf.ops.stages import Activation, BatchNorm, Conv
from darts_tf.spaces.chain.blocks import block

EPSILON = 1e-3  # of batch norms


def sized(graph, init_channels=None, strides=None):
    """A graph of other widths and strides.

    Args:
        graph: `graph.Graph`.
        init_channels: of the first block; all others grow with it. By default the graph's.
        strides: of the stem, then of the graph's stages; by default 2 and those of the graph.

    Returns:
        The graph, and the stride of the stem.

    Raises:
        ValueError: an argument is out of range.
    """
    stem, *strides = (2, *graph.strides) if strides is None else strides
    first = graph.channels[0] if init_channels is None else init_channels
    if first != int(first) or first < 1:
        raise ValueError(f"init_channels={first}: expected at least 1 channel.")
    factor = first / graph.channels[0]
    widths = [max(1, round(width * factor)) for width in graph.channels]
    return dataclasses.replace(graph, channels=widths, strides=strides), stem


def ends(graph, stem_stride, affine=True):
    """{"stem": (stages, channels), "first": ..., "last": ...}: what is before the blocks, and the last 1x1 convolution.

    Args:
        graph: `graph.Graph`.
        stem_stride: 1 or 2.
        affine: whether batch norms learn a scale and an offset; that at the end of the first block always does.
    """
    widths, after = graph.channels, (BatchNorm(affine, EPSILON), Activation("relu6"))
    first = block("mb1_k3", widths[0], widths[0], 1, affine=affine, epsilon=EPSILON).main
    return {
        "stem": ([Conv((3, 3), (stem_stride, stem_stride)), *after], widths[0]),
        "first": ([*first[:-1], BatchNorm(True, EPSILON)], widths[0]),
        "last": ([Conv(), *after], widths[-1]),
    }
