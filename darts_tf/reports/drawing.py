"""Pictures of architectures: an SVG for light and dark pages, or a PNG.

What is drawn are the shapes of `darts_tf.spaces.pictures`. Colours tell the kinds of operations apart.
"""

import html
import io
import math

from darts_tf.spaces.pictures import Box, Line, Text

RADIUS = 8  # pixels
LARGEST = 100_000_000  # pixels of a PNG while it is drawn, 300 MB
LIGHT = dict(
    **dict(page="#ffffff", text="#1f2328", faint="#9aa4af", node="#eef1f4", end="#dfe5ea", line="#57606a"),
    **dict(skip="#b35900", pool="#0969da", sep="#1a7f37", dil="#8250df", none="#9aa4af", other="#0b7a75"),
)
DARK = dict(
    **dict(page="#0d1117", text="#e6edf3", faint="#5b6673", node="#1c232c", end="#2a333e", line="#8b949e"),
    **dict(skip="#f0a04b", pool="#58a6ff", sep="#56d364", dil="#bc8cff", none="#5b6673", other="#3fc7bf"),
)


def style():
    """The CSS of the colours and of the shapes."""

    def variables(colours):
        return ";".join(f"--{name}:{colour}" for name, colour in colours.items())

    kinds = ("skip", "pool", "sep", "dil", "none", "other")
    return (
        f":root{{{variables(LIGHT)}}}@media(prefers-color-scheme:dark){{:root{{{variables(DARK)}}}}}"
        ".cell text{font:12px ui-sans-serif,system-ui,sans-serif;text-anchor:middle;fill:var(--text)}"
        ".cell .title{font-weight:600;font-size:14px}"
        ".cell .quiet{fill:var(--line)}"
        ".cell path{fill:none}.cell .flow{stroke:var(--faint)}.cell .concat{stroke:var(--faint);stroke-dasharray:2 3}"
        ".cell .node{fill:var(--node);stroke:var(--line)}.cell .end{fill:var(--end);stroke:var(--line)}"
        + "".join(f".cell path.{kind}{{stroke:var(--{kind})}}.cell text.{kind}{{fill:var(--{kind})}}" for kind in kinds)
        + "".join(f".cell rect.{kind}{{fill:var(--{kind});stroke:var(--{kind})}}" for kind in kinds)
    )


def svg_elements(shapes):
    """Shapes as elements of an SVG with `style` in it, as text."""
    parts = []
    for shape in shapes:
        title = f"<title>{html.escape(shape.title)}</title>" if getattr(shape, "title", "") else ""
        if isinstance(shape, Line):
            parts.append(
                f'<path class="{shape.kind}" stroke-width="{shape.width:.2f}" d="{_path(shape)}">{title}</path>'
            )
        elif isinstance(shape, Box):
            x, y = shape.x - shape.width / 2, shape.y - shape.height / 2
            size = f'width="{shape.width:g}" height="{shape.height:g}" rx="{_radius(shape):g}"'
            size += f' fill-opacity="{shape.opacity:.2f}"' if shape.opacity < 1 else ""
            rect = f'<rect class="{shape.kind}" x="{x:g}" y="{y:g}" {size}'
            parts.append(f"{rect}>{title}</rect>" if title else f"{rect}/>")
        else:
            parts.append(f'<text class="{shape.kind}" x="{shape.x:g}" y="{shape.y:g}">{html.escape(shape.text)}</text>')
    return "".join(parts)


def _radius(box):
    """Of the corners of a box."""
    return min(7, box.height / 3)


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


def arranged(architecture, strengths=None, space=None):
    """All pictures of an architecture side by side.

    Args:
        architecture: of any space.
        strengths: {table: array (rows, candidates)}, to be seen as thickness, or None.
        space: whose rows and candidates the strengths have; by default the architecture's own.

    Returns:
        A list of ((x, y), shapes), and the width and height of the whole, in pixels.
    """
    space = space or architecture.space
    picks = space.picks(architecture) if strengths else {}
    thickest = max((strengths[name][place] for name in picks for place in picks[name]), default=1.0)
    placed, x, height = [], 0, 0
    for picture in space.pictures(architecture):
        edges = picture.edges(architecture, strengths and strengths[picture.name], thickest)
        title = Text(picture.width / 2, 24, picture.title.lower(), "title")
        placed.append(((x, 0), [*edges, title, *picture.shapes]))
        x, height = x + picture.width, max(height, picture.height)
    return placed, x, height


def svg(architecture, strengths=None, space=None):
    """The pictures of an architecture as the text of an SVG; arguments are those of `arranged`."""
    placed, width, height = arranged(architecture, strengths, space)
    cells = "".join(f'<g transform="translate({x:g} {y:g})">{svg_elements(shapes)}</g>' for (x, y), shapes in placed)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" class="cell"><style>{style()}.page{{fill:var(--page)}}</style>'
        f'<rect class="page" width="100%" height="100%" rx="8"/>{cells}</svg>\n'
    )


def png(architecture, strengths=None, space=None, scale=2):
    """The pictures of an architecture as the bytes of a PNG (Pillow).

    Args:
        architecture, strengths, space: as of `arranged`.
        scale: pixels of the picture per pixel of the SVG; less for pictures that are very large.

    Raises:
        ValueError: the picture is too large even so.
    """
    from PIL import Image, ImageDraw, ImageFont

    placed, width, height = arranged(architecture, strengths, space)
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
                half = shape.width / 2, shape.height / 2
                corners = [at((shape.x + sign * half[0], shape.y + sign * half[1]), origin) for sign in (-1, 1)]
                outline = LIGHT["line" if shape.kind in ("node", "end") else shape.kind]
                filling = _mixed(LIGHT[shape.kind], shape.opacity)
                draw.rounded_rectangle([*corners[0], *corners[1]], _radius(shape) * fine, filling, outline, fine)
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
    named = {"concat": "faint", "flow": "faint", "title": "text", "name": "text", "quiet": "line"}
    return LIGHT.get(named.get(kind, kind), LIGHT["text"])


def _mixed(colour, opacity):
    """A colour of some opacity upon the page."""
    own, page = (bytes.fromhex(name[1:]) for name in (colour, LIGHT["page"]))
    return tuple(round(opacity * one + (1 - opacity) * other) for one, other in zip(own, page, strict=True))
