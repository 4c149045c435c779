"""Pictures of cells: an SVG for light and dark pages, or a PNG.

A cell is drawn downwards, so that it fits on a phone. Its nodes stand below each other and keep their places whatever
the genotype is; of the two edges into a node one comes from the left and one from the right, each on a lane of its own.
Colours tell the kinds of operations apart. Graphviz would need a program beside Python, and moves nodes about.
"""

import html
import io
import math
from typing import NamedTuple

from darts_tf.spaces.cells import genotypes

ROW, BOX, HEIGHT, LANE, MARGIN, RADIUS = 62, 58, 36, 11, 14, 8  # pixels
LARGEST = 100_000_000  # pixels of a PNG while it is drawn, 300 MB
LETTER = 7.2  # pixels that a letter of an operation's name takes

KINDS = {"skip": "skip", "pool": "pool", "sep_conv": "sep", "dil_conv": "dil", "none": "none"}
LIGHT = dict(
    **dict(page="#ffffff", text="#1f2328", faint="#9aa4af", node="#eef1f4", end="#dfe5ea", line="#57606a"),
    **dict(skip="#b35900", pool="#0969da", sep="#1a7f37", dil="#8250df", none="#9aa4af", other="#0b7a75"),
)
DARK = dict(
    **dict(page="#0d1117", text="#e6edf3", faint="#5b6673", node="#1c232c", end="#2a333e", line="#8b949e"),
    **dict(skip="#f0a04b", pool="#58a6ff", sep="#56d364", dil="#bc8cff", none="#5b6673", other="#3fc7bf"),
)


class Line(NamedTuple):
    """Straight pieces with rounded corners through points (x, y); `title` is what a mouse over it shows."""

    points: list
    kind: str
    width: float
    title: str = ""


class Box(NamedTuple):
    """A rounded rectangle around (x, y)."""

    x: float
    y: float
    kind: str
    title: str = ""


class Text(NamedTuple):
    """Text in the middle of x, its base line at y."""

    x: float
    y: float
    text: str
    kind: str


def kind_of(operation):
    """The kind of an operation, a key of the colours."""
    return next((kind for part, kind in KINDS.items() if part in operation), "other")


def style():
    """The CSS of the colours and of the shapes."""

    def variables(colours):
        return ";".join(f"--{name}:{colour}" for name, colour in colours.items())

    kinds = ("skip", "pool", "sep", "dil", "none", "other")
    return (
        f":root{{{variables(LIGHT)}}}@media(prefers-color-scheme:dark){{:root{{{variables(DARK)}}}}}"
        ".cell text{font:12px ui-sans-serif,system-ui,sans-serif;text-anchor:middle;fill:var(--text)}"
        ".cell .title{font-weight:600;font-size:14px}"
        ".cell path{fill:none}.cell .concat{stroke:var(--faint);stroke-dasharray:2 3}"
        ".cell .node{fill:var(--node);stroke:var(--line)}.cell .end{fill:var(--end);stroke:var(--line)}"
        + "".join(f".cell path.{kind}{{stroke:var(--{kind})}}.cell text.{kind}{{fill:var(--{kind})}}" for kind in kinds)
    )


class Cell:
    """The picture of one cell.

    Args:
        nodes: number of intermediate nodes.
        concat: the nodes that make the result.
        names: all names of operations that will be drawn, to have space for them.
        title: text above it.

    Attributes:
        width, height: in pixels.
        shapes: all but the edges.
    """

    def __init__(self, nodes, concat, names, title=""):
        self.nodes = nodes
        self._label = max(90, 12 + LETTER * max(map(len, names)))
        self._half = BOX / 2 + self._label + nodes * LANE
        self._middle = self._half + MARGIN
        self.width = 2 * self._half + 3 * MARGIN
        self.height = self._y(nodes + 2) + HEIGHT / 2 + MARGIN
        rail = self.width - MARGIN
        right, bottom = self._middle + BOX / 2, self._y(nodes + 2)
        self.shapes = [Text(self._middle, 24, title, "title")] if title else []
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

    def edges(self, pairs, weights=None, thickest=1.0):
        """The shapes of a genotype's edges.

        Args:
            pairs: two (operation, source) for every node.
            weights: of the edges, to be seen as thickness.
            thickest: the weight of the thickest edge there can be.

        Returns:
            list of shapes.
        """
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


def svg_elements(shapes):
    """Shapes as elements of an SVG with `style` in it, as text."""
    parts = []
    for shape in shapes:
        if isinstance(shape, Line):
            title = f"<title>{html.escape(shape.title)}</title>" if shape.title else ""
            parts.append(
                f'<path class="{shape.kind}" stroke-width="{shape.width:.2f}" d="{_path(shape)}">{title}</path>'
            )
        elif isinstance(shape, Box):
            x, y = shape.x - BOX / 2, shape.y - HEIGHT / 2
            parts.append(f'<rect class="{shape.kind}" x="{x:g}" y="{y:g}" width="{BOX}" height="{HEIGHT}" rx="7"/>')
        else:
            parts.append(f'<text class="{shape.kind}" x="{shape.x:g}" y="{shape.y:g}">{html.escape(shape.text)}</text>')
    return "".join(parts)


def _path(line):
    """The line's way as SVG says it."""
    way = ["M{:g} {:g}".format(*line.points[0])]
    for before, corner, after in _corners(line.points):
        way.append("L{:g} {:g}Q{:g} {:g} {:g} {:g}".format(*before, *corner, *after))
    way.append("L{:g} {:g}".format(*line.points[-1]))
    return "".join(way)


def _corners(points):
    """Of every corner: the point where its rounding begins, the corner, the point where it ends."""
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        ends = []
        for point in (before, after):
            distance = math.dist(point, corner)
            part = min(RADIUS, distance / 2) / distance
            ends.append(tuple(c + part * (p - c) for p, c in zip(point, corner, strict=True)))
        yield ends[0], corner, ends[1]


def pictures(genotype, weights=None):
    """Both cells side by side.

    Args:
        genotype: `genotypes.Genotype`.
        weights: {"normal": ..., "reduce": ...}, the weight of each of its edges, or None.

    Returns:
        A list of ((x, y), shapes), and the width and height of the whole, in pixels.
    """
    placed, x, height = [], 0, 0
    thickest = max(max(values) for values in weights.values()) if weights else 1.0
    names = [name for name, _ in (*genotype.normal, *genotype.reduce)]
    for kind, title in (("normal", "normal cell"), ("reduce", "reduction cell")):
        pairs, concat = getattr(genotype, kind), getattr(genotype, f"{kind}_concat")
        cell = Cell(len(pairs) // 2, concat, names, title)
        placed.append(((x, 0), [*cell.edges(pairs, weights and weights[kind], thickest), *cell.shapes]))
        x, height = x + cell.width, max(height, cell.height)
    return placed, x, height


def svg(genotype, weights=None):
    """Both cells of a genotype as the text of an SVG picture; arguments are those of `pictures`."""
    placed, width, height = pictures(genotype, weights)
    cells = "".join(f'<g transform="translate({x:g} {y:g})">{svg_elements(shapes)}</g>' for (x, y), shapes in placed)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" class="cell"><style>{style()}.page{{fill:var(--page)}}</style>'
        f'<rect class="page" width="100%" height="100%" rx="8"/>{cells}</svg>\n'
    )


def png(genotype, weights=None, scale=2):
    """Both cells of a genotype as the bytes of a PNG picture (Pillow).

    Args:
        genotype, weights: as of `pictures`.
        scale: pixels of the picture per pixel of the SVG; less for pictures that are very large.

    Raises:
        ValueError: the picture is too large even so.
    """
    from PIL import Image, ImageDraw, ImageFont

    placed, width, height = pictures(genotype, weights)
    fine = min(
        2 * scale, math.isqrt(int(LARGEST / width / height))
    )  # Pillow's lines are smoothed by making them smaller
    scale = min(scale, fine)
    if not fine:
        raise ValueError(f"a PNG of {width:.0f} x {height:.0f} pixels is too large: expected an SVG, or fewer nodes.")
    image = Image.new("RGB", (math.ceil(width * fine), math.ceil(height * fine)), LIGHT["page"])
    draw = ImageDraw.Draw(image)

    def at(point, origin):
        return tuple(fine * (value + start) for value, start in zip(point, origin, strict=True))

    for origin, shapes in placed:
        for shape in shapes:
            if isinstance(shape, Line):
                points = [at(point, origin) for point in _flat(shape.points)]
                draw.line(points, _colour(shape.kind), round(fine * shape.width), joint="curve")
            elif isinstance(shape, Box):
                corners = [at((shape.x + sign * BOX / 2, shape.y + sign * HEIGHT / 2), origin) for sign in (-1, 1)]
                draw.rounded_rectangle([*corners[0], *corners[1]], 7 * fine, LIGHT[shape.kind], LIGHT["line"], fine)
            else:
                font = ImageFont.load_default(fine * (14 if shape.kind == "title" else 12))
                draw.text(at((shape.x, shape.y), origin), shape.text, _colour(shape.kind), font, anchor="ms")
    image = image.resize((math.ceil(width * scale), math.ceil(height * scale)), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    return content.getvalue()


def _flat(points):
    """The points of a line with its corners rounded."""
    yield points[0]
    for before, corner, after in _corners(points):
        for step in range(9):
            t = step / 8
            yield tuple(
                (1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c for a, b, c in zip(before, corner, after, strict=True)
            )
    yield points[-1]


def _colour(kind):
    return LIGHT.get({"concat": "faint", "title": "text", "name": "text"}.get(kind, kind), LIGHT["text"])
