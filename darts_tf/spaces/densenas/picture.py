"""The picture of densely connected blocks: a row for each stage, its blocks side by side, and the path among them.

In a block that is on the path are its channels and its operations, the head first: a box is as wide as the kernel,
which its colour tells, too, and as high as the operation expands its channels. The others are faint.
"""

import itertools

from darts_tf.spaces.chain.description import INVERTED
from darts_tf.spaces.chain.picture import KINDS
from darts_tf.spaces.pictures import MARGIN, Box, Line, Text

COLUMNS = 4  # blocks beside each other, at most
LABEL, WIDTH, HEIGHT = 70, 74, 52  # pixels: width of labels, size of a block
TALLEST = 22  # of an operation
COLUMN, ROW = WIDTH + 14, HEIGHT + 26  # pixels from block to block
SIDE = 22  # pixels from the middle of a block to where a way to another of its row begins


class BlocksPicture:
    """The picture of paths of a space, see `darts_tf.spaces.pictures.Picture`.

    Args:
        space: `DenseNAS`.
        init_channels: of the first block; by default the graph's.
    """

    name, title = "routing", "Blocks"

    def __init__(self, space, init_channels=None):
        graph = space.blocks
        factor = 1 if init_channels is None else init_channels / graph.channels[0]
        self._space, self._widths = space, [max(1, round(width * factor)) for width in graph.channels]
        self._places, self.shapes, row = [], [], 0
        longest = min(COLUMNS, max(graph.stages.count(stage) for stage in graph.stages))
        for stage in range(graph.stages[-1] + 1):
            count = graph.stages.count(stage)
            y = self._y(row)
            self.shapes.append(Text(MARGIN + LABEL / 2, y + 4, f"stage {stage}", "name"))
            for place in range(count):
                across, down = place % COLUMNS, place // COLUMNS
                left = MARGIN + LABEL + (longest - min(count - down * COLUMNS, COLUMNS)) * COLUMN / 2
                self._places.append((left + COLUMN * (across + 0.5), self._y(row + down)))
            row += -(-count // COLUMNS)
        self.width, self.height = 2 * MARGIN + LABEL + longest * COLUMN, self._y(row - 1) + HEIGHT / 2 + MARGIN

    @staticmethod
    def _y(row):
        return 50 + HEIGHT / 2 + ROW * row

    def edges(self, architecture, strengths=None, thickest=1.0):
        graph, path = self._space.blocks, architecture.numbers
        operations, shapes = dict(zip(path[1:-1], architecture.operations, strict=True)), []
        for source, target in itertools.pairwise(path):
            weight = None if strengths is None else float(strengths[source][target - source - 1])
            shapes.append(self._way(source, target, weight, thickest))
        for block, (x, y) in enumerate(self._places):
            there, width = block in path, str(self._widths[block])
            kind = "end" if block in (0, graph.blocks - 1) else "node"
            shapes.append(Box(x, y, kind, "", WIDTH, HEIGHT, 1.0 if there else 0.3))
            shapes.append(Text(x, y - 10 if block in operations else y + 4, width, "name" if there else "quiet"))
            shapes += self._operations(block, operations.get(block, ()))
        return shapes

    def _way(self, source, target, weight, thickest):
        """The line from a block to the one that reads from it."""
        (x, y), (end, below) = self._places[source], self._places[target]
        title = f"block {source} to block {target}" + ("" if weight is None else f", weight {weight:.3f}")
        top = below - HEIGHT / 2
        if (y == below and end - x <= COLUMN) or x == end:
            points = [(x, y), (end, below)]
        elif y == below:  # over the blocks between them, below the ways from row to row
            points = [(x + SIDE, y), (x + SIDE, top - 8), (end - SIDE, top - 8), (end - SIDE, y)]
        else:
            points = [(x, y), (x, top - 18), (end, top - 18), (end, below)]
        width = 3 if weight is None else max(0.8, 5 * weight / thickest)
        return Line(points, "flow", width, title)

    def _operations(self, block, names):
        """The operations of a block, boxes side by side."""
        (x, y), shapes = self._places[block], []
        sizes = [self._size(name) for name in names]
        scale = min(1, (WIDTH - 6) / max(sum(width + 2 for width, _, _ in sizes), 1))
        left = x - scale * sum(width + 2 for width, _, _ in sizes) / 2
        for place, (name, (width, height, kind)) in enumerate(zip(names, sizes, strict=True)):
            title = f"{name}, {f'layer {place}' if place else 'the head'} of block {block}"
            shapes.append(Box(left + scale * (width + 2) / 2, y + 9, kind, title, scale * width, height))
            left += scale * (width + 2)
        return shapes

    def _size(self, name):
        """Width, height and kind of an operation's box."""
        found = INVERTED.fullmatch(name)
        if not found:
            return 2, 4, "skip"
        graph = self._space.blocks
        most = max(int(other[1]) for one in (*graph.heads, *graph.stack) if (other := INVERTED.fullmatch(one)))
        kernel = int(found[2])
        return 2 * kernel, max(4, TALLEST * int(found[1]) / most), KINDS.get(kernel, "other")
