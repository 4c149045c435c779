"""The picture of a cell of NAS-Bench-201: nodes below each other, edges between neighbours straight, others around."""

from darts_tf.spaces.cells.picture import LANE, STEP, CellPicture
from darts_tf.spaces.pictures import BOX, HEIGHT, LETTER, MARGIN, ROW, Box, Line, Text, kind_of


class StructurePicture(CellPicture):
    """The picture of a cell, see `darts_tf.spaces.pictures.Picture`.

    Args:
        space: `NasBench201`.
        names: all names of operations that will be drawn, to have space for them.
    """

    def __init__(self, space, names):
        self._space, self.name, self.title, self.nodes = space, "cell", "Cell", space.nodes
        self._edges = list(space.edges())
        more = max(0, (space.nodes - 2) // 2)  # edges beyond the first on one side of a node
        self._row = ROW + 16 + STEP * more
        self._label = max(90, 12 + LETTER * max(map(len, names)))
        self._middle = BOX / 2 + self._label + space.nodes * (1 + more) * LANE + MARGIN
        self.width = 2 * self._middle
        self.height = self.y(space.nodes) + HEIGHT / 2 + MARGIN
        self.shapes = []
        for node in range(space.nodes + 1):
            self.shapes.append(Box(self._middle, self.y(node), "end" if node in (0, space.nodes) else "node"))
            self.shapes.append(Text(self._middle, self.y(node) + 4, self._name(node), "name"))

    def _name(self, node):
        return {0: "in", self.nodes: "out"}.get(node, str(node))

    def edges(self, architecture, strengths=None, thickest=1.0):
        found = []
        for row, candidate in self._space.picks(architecture)["cell"]:
            weight = None if strengths is None else float(strengths[row][candidate])
            found.append((*self._edges[row], self._space.primitives[candidate], weight))
        return self.around(found, thickest)

    def around(self, edges, thickest):
        """The shapes of edges (node, source, operation, weight): straight to the next node, else from the sides."""
        shapes, sides = [], {-1: [], 1: []}
        for node, source, name, weight in edges:
            if node - source > 1:
                sides[-1 if source % 2 == 0 else 1].append((node - source, source, name, weight))
                continue
            start, end = self.y(source) + HEIGHT / 2, self.y(node) - HEIGHT / 2
            line = [(self._middle, start), (self._middle, end)]
            shapes.append(Line(line, kind_of(name), *self.look(source, node, name, weight, thickest)))
            x = self._middle + 8 + LETTER * len(name) / 2
            shapes.append(Text(x, self.y(source) + HEIGHT / 2 + 17, name, kind_of(name)))
        for side, edges in sides.items():
            shapes += self.side(side, sorted(edges), thickest)
        return shapes
