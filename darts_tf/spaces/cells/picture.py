"""The picture of a cell.

A cell is drawn downwards, so that it fits on a phone. Its nodes stand below each other and keep their places whatever
the genotype is; the edges into a node come from the left and from the right in turn, each on a lane of its own.
Graphviz would need a program beside Python, and moves nodes about.
"""

import itertools

from darts_tf.spaces.cells import genotypes
from darts_tf.spaces.pictures import BOX, HEIGHT, LETTER, MARGIN, ROW, Box, Line, Text, kind_of

LANE, STEP = 11, 20  # pixels from lane to lane, and from end to end of edges on one side of a node
TITLES = {"normal": "Normal cell", "reduce": "Reduction cell"}


class CellPicture:
    """The picture of one cell of genotypes, see `darts_tf.spaces.pictures.Picture`.

    Args:
        name: "normal" or "reduce".
        architecture: a `Genotype`, whose nodes and concatenation it shows.
        names: all names of operations that will be drawn, to have space for them.
        space: whose rows and candidates strengths have, if there are any.
    """

    def __init__(self, name, architecture, names, space=None):
        self.name, self.title, self._space = name, TITLES[name], space
        concat, pairs = getattr(architecture, f"{name}_concat"), getattr(architecture, name)
        self.nodes = nodes = genotypes.num_nodes(pairs)
        reached = [node for node, *_ in genotypes.edges(pairs)]
        more = (max(map(reached.count, reached)) - 1) // 2  # edges beyond the first on one side of a node
        self._row = ROW + STEP * more
        self._label = max(90, 12 + LETTER * max(map(len, names)))
        self._half = BOX / 2 + self._label + nodes * (1 + more) * LANE
        self._middle = self._half + MARGIN
        self.width = 2 * self._half + 3 * MARGIN
        self.height = self.y(nodes + 2) + HEIGHT / 2 + MARGIN
        rail = self.width - MARGIN
        right, bottom = self._middle + BOX / 2, self.y(nodes + 2)
        self.shapes = []
        for node in concat:
            y = self.y(node) + HEIGHT / 2 - 3
            self.shapes.append(Line([(right, y), (rail, y), (rail, bottom), (right, bottom)], "concat", 1.2))
        for node in range(nodes + 3):
            name = "c(k)" if node == nodes + 2 else genotypes.node_name(node)
            kind = "node" if 2 <= node < nodes + 2 else "end"
            self.shapes.append(Box(self._middle, self.y(node), kind))
            self.shapes.append(Text(self._middle, self.y(node) + 4, name, "name"))

    def y(self, node):
        return 52 + HEIGHT / 2 + self._row * node

    def edges(self, architecture, strengths=None, thickest=1.0):
        found, weights = genotypes.edges(getattr(architecture, self.name)), None
        if strengths is not None:
            pairs, space = getattr(architecture, self.name), self._space
            kept = genotypes.kept(pairs, space.primitives, space.edges(self.name))
            weights = [0.0 if operation is None else float(strengths[edge][operation]) for edge, operation in kept]
        sides = {-1: [], 1: []}
        for node in range(2, self.nodes + 2):
            own = [place for place, (target, *_) in enumerate(found) if target == node]
            # The order of a node's edges changes with their weights; their sides should not.
            own.sort(key=lambda place: (found[place][2], found[place][1]))
            for order, place in enumerate(own):
                _, name, source = found[place]
                edge = node - source, source, name, weights and weights[place]
                sides[-1 if order % 2 == 0 else 1].append(edge)
        return [*self.side(-1, sorted(sides[-1]), thickest), *self.side(1, sorted(sides[1]), thickest)]

    def _name(self, node):
        return genotypes.node_name(node)

    def look(self, source, target, name, weight, thickest):
        """Width of an edge's line, and what a mouse over it shows."""
        title = f"{name} from {self._name(source)} to {self._name(target)}"
        title += "" if weight is None else f", weight {weight:.3f}"
        return 2 if weight is None else max(0.8, 4 * weight / thickest), title

    def side(self, side, edges, thickest):
        """The shapes of the edges (length, source, operation, weight) that come from one side, the shortest first."""
        shapes, lanes, ends = [], {}, {}
        sources = [source for _, source, *_ in edges]
        for place, (length, source, name, weight) in enumerate(edges):
            target, rows = source + length, set(range(source, source + length))
            lane = next(lane for lane in itertools.count() if not rows & lanes.get(lane, set()))
            lanes.setdefault(lane, set()).update(rows)
            inner = self._middle + side * BOX / 2
            outer = inner + side * (self._label + (lane + 0.5) * LANE)
            above = sources[place + 1 :].count(source)  # longer edges of the same source
            apart = min(5, 17 / max(1, sources.count(source) - 1))
            start, end = self.y(source) - 3 + apart * above, self.y(target) - 8
            points = [(inner, start), (outer, start), (outer, end), (inner, end)]
            before = ends[target] = ends.get(target, -1) + 1  # shorter edges that end here
            if before:  # from above
                end, into = self.y(target) - HEIGHT / 2 + 6 - STEP * before, inner - side * 9 * before
                points[2:] = [(outer, end), (into, end), (into, self.y(target) - HEIGHT / 2)]
            shapes.append(Line(points, kind_of(name), *self.look(source, target, name, weight, thickest)))
            shapes.append(Text(inner + side * self._label / 2, end - 7, name, kind_of(name)))
        return shapes
