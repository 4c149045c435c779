"""The picture of a recurrent cell: input and hidden state above, nodes below each other, the new state at the end."""

from darts_tf.spaces.cells.picture import LANE
from darts_tf.spaces.nas_bench_201.picture import StructurePicture
from darts_tf.spaces.pictures import BOX, HEIGHT, LETTER, MARGIN, ROW, Box, Line, Text


class RecurrentPicture(StructurePicture):
    """The picture of a recurrent genotype, see `darts_tf.spaces.pictures.Picture`.

    Args:
        space: `RecurrentSpace`.
        architecture: whose averaged nodes it shows.
        names: all names of activations that will be drawn, to have space for them.
    """

    def __init__(self, space, architecture, names):
        self._space, self.name, self.title, self.nodes = space, "recurrent", "Recurrent cell", space.nodes
        self._row, self._label = ROW, max(70, 12 + LETTER * max(map(len, names)))
        half = BOX / 2 + self._label + max(1, space.nodes - 1) * LANE
        self._middle = half + MARGIN
        self.width = 2 * half + 3 * MARGIN
        self.height = self.y(space.nodes + 1) + HEIGHT / 2 + MARGIN
        rail, right, bottom = self.width - MARGIN, self._middle + BOX / 2, self.y(space.nodes + 1)
        self.shapes = [
            Line([(right, y), (rail, y), (rail, bottom), (right, bottom)], "concat", 1.2)
            for y in (self.y(node) + HEIGHT / 2 - 3 for node in architecture.concat)
        ]
        top = [(self._middle, self.y(-1) + HEIGHT / 2), (self._middle, self.y(0) - HEIGHT / 2)]
        self.shapes.append(Line(top, "concat", 1.2))
        for node in range(-1, space.nodes + 2):
            kind = "node" if 0 <= node <= space.nodes else "end"
            self.shapes.append(Box(self._middle, self.y(node), kind))
            self.shapes.append(Text(self._middle, self.y(node) + 4, self._name(node), "name"))

    def y(self, node):
        return 52 + HEIGHT / 2 + self._row * (node + 1)

    def _name(self, node):
        return {-1: "x, h(t-1)", self.nodes + 1: "h(t)"}.get(node, str(node))

    def edges(self, architecture, strengths=None, thickest=1.0):
        found = []
        for (row, candidate), (node, (name, source)) in zip(
            self._space.picks(architecture)["recurrent"], enumerate(architecture.recurrent, 1), strict=True
        ):
            weight = None if strengths is None else float(strengths[row][candidate])
            found.append((node, source, name, weight))
        return self.around(found, thickest)
