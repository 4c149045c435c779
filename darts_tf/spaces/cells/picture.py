"""The picture of a cell.

A cell is drawn downwards, so that it fits on a phone. Its nodes stand below each other and keep their places whatever
the genotype is; of the two edges into a node one comes from the left and one from the right, each on a lane of its own.
Graphviz would need a program beside Python, and moves nodes about.
"""

from darts_tf.spaces.cells import genotypes
from darts_tf.spaces.pictures import BOX, HEIGHT, LETTER, MARGIN, ROW, Box, Line, Text, kind_of

LANE = 11  # pixels
TITLES = {"normal": "Normal cell", "reduce": "Reduction cell"}


class CellPicture:
    """The picture of one cell of genotypes, see `darts_tf.spaces.pictures.Picture`.

    Args:
        name: "normal" or "reduce".
        architecture: a `Genotype`, whose nodes and concatenation it shows.
        names: all names of operations that will be drawn, to have space for them.
        primitives: names of the columns of strengths, if there are any.
    """

    def __init__(self, name, architecture, names, primitives=()):
        self.name, self.title, self._primitives = name, TITLES[name], primitives
        concat = getattr(architecture, f"{name}_concat")
        self.nodes = nodes = len(getattr(architecture, name)) // 2
        self._label = max(90, 12 + LETTER * max(map(len, names)))
        self._half = BOX / 2 + self._label + nodes * LANE
        self._middle = self._half + MARGIN
        self.width = 2 * self._half + 3 * MARGIN
        self.height = self._y(nodes + 2) + HEIGHT / 2 + MARGIN
        rail = self.width - MARGIN
        right, bottom = self._middle + BOX / 2, self._y(nodes + 2)
        self.shapes = []
        for node in concat:
            y = self._y(node) + HEIGHT / 2 - 3
            self.shapes.append(Line([(right, y), (rail, y), (rail, bottom), (right, bottom)], "concat", 1.2))
        for node in range(nodes + 3):
            name = "c(k)" if node == nodes + 2 else genotypes.node_name(node)
            kind = "node" if 2 <= node < nodes + 2 else "end"
            self.shapes.append(Box(self._middle, self._y(node), kind))
            self.shapes.append(Text(self._middle, self._y(node) + 4, name, "name"))

    def _y(self, node):
        return 52 + HEIGHT / 2 + ROW * node

    def edges(self, architecture, strengths=None, thickest=1.0):
        pairs, weights = getattr(architecture, self.name), None
        if strengths is not None:
            kept = genotypes.kept(pairs, self._primitives)
            weights = [0.0 if operation is None else strengths[edge][operation] for edge, operation in kept]
        sides = {-1: [], 1: []}
        for node in range(2, self.nodes + 2):
            first = 2 * (node - 2)
            # The order of the two changes with their weights; their sides should not.
            left, right = sorted((first, first + 1), key=lambda place: (pairs[place][1], pairs[place][0]))
            for side, place in ((-1, left), (1, right)):
                name, source = pairs[place]
                sides[side].append((node - source, source, name, weights and float(weights[place])))
        return [*self._side(-1, sorted(sides[-1]), thickest), *self._side(1, sorted(sides[1]), thickest)]

    def _side(self, side, edges, thickest):
        """The shapes of the edges (length, source, operation, weight) that come from one side, the shortest first."""
        shapes, lanes = [], {}
        sources = [source for _, source, *_ in edges]
        for place, (length, source, name, weight) in enumerate(edges):
            target, rows = source + length, set(range(source, source + length))
            lane = next(lane for lane in range(self.nodes) if not rows & lanes.get(lane, set()))
            lanes.setdefault(lane, set()).update(rows)
            inner = self._middle + side * BOX / 2
            outer = inner + side * (self._label + (lane + 0.5) * LANE)
            above = sources[place + 1 :].count(source)  # longer edges of the same source
            start, end = self._y(source) + min(-3 + 5 * above, 14), self._y(target) - 8
            text = f"{name} from {genotypes.node_name(source)} to {genotypes.node_name(target)}"
            text += "" if weight is None else f", weight {weight:.3f}"
            points = [(inner, start), (outer, start), (outer, end), (inner, end)]
            width = 2 if weight is None else max(0.8, 4 * weight / thickest)
            shapes.append(Line(points, kind_of(name), width, text))
            shapes.append(Text(inner + side * self._label / 2, end - 7, name, kind_of(name)))
        return shapes
