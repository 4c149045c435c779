"""The picture of a chain: the stem, a row of boxes for each stage, or several, the head.

A box is as wide as the layer's kernel, which its colour tells, too, and as high as the layer expands its channels and
has of these; an identity is a line that passes by.
"""

from fractions import Fraction

from darts_tf.spaces.chain.description import IDENTITY, INVERTED, OF_FBNET, SHUFFLE
from darts_tf.spaces.pictures import MARGIN, Box, Line, Text

COLUMNS = 4  # layers beside each other, at most
LABEL, LAYERS, TALLEST, LOWEST = 98, 320, 40, 7  # pixels: width of labels and of a row of layers, heights of boxes
ENDS = 58, 28  # width and height of the boxes of stem and head
LINE, LANE, WAY = 15, 18, 9  # pixels from line to line of text, between rows, and beside them for the way to the next
KINDS = {3: "pool", 5: "sep", 7: "dil"}  # by kernel


class ChainPicture:
    """The picture of chains of a space, see `darts_tf.spaces.pictures.Picture`.

    Args:
        space: `Chains`.
        init_channels: channels of the stem; by default the description's.
    """

    name, title = "layers", "Chain"

    def __init__(self, space, init_channels=None):
        self._space, description = space, space.described(init_channels)
        self._layers, self._rows = description.layers(), description.rows()
        self._most = max(_parts(name)[1] for name in description.candidates())
        names = [(name, part) for name in description.candidates() for part in space.widths]
        self._lines = max(len(_label(name, float(part))) for name, part in names)
        self.width = 2 * MARGIN + LABEL + LAYERS + WAY
        self.shapes, self._places = [], []  # the places of layers: middle, and half of the way to their neighbours
        y = self._ends(40 + ENDS[1] / 2, description.stem, description.stem_stride, ("in", "3x3"))
        reduction = description.stem_stride
        half = LAYERS / max(count for stage in description.stages for count in _by_row(stage.layers)) / 2
        for number, stage in enumerate(description.stages, 1):
            reduction *= stage.stride
            for row, count in enumerate(_by_row(stage.layers)):
                y = self._way(y + LANE, TALLEST / 2)
                if row == 0:
                    self._says(y, f"stage {number}", f"{stage.channels} channels", _size(reduction))
                self._places += [(self._left + half * (2 * place + 1), y, half) for place in range(count)]
                self._end = self._left + 2 * half * count, y
                y += TALLEST / 2 + LINE * self._lines + 4
        y = self._ends(self._way(y + LANE, ENDS[1] / 2), description.head, reduction, ("1x1", "mean", "out"))
        self.height = y + MARGIN

    @property
    def _left(self):
        return MARGIN + LABEL + WAY / 2

    def _says(self, y, *lines):
        for place, line in enumerate(lines):
            base = y + 4 + LINE * (place - (len(lines) - 1) / 2)
            self.shapes.append(Text(MARGIN + LABEL / 2 - WAY / 2, base, line, "quiet" if place else "name"))

    def _ends(self, y, channels, reduction, names):
        """Draws the stem or the head in a row; returns where it ends."""
        width, height = ENDS
        self._says(y, f"{channels} channels", _size(reduction))
        step = LAYERS / COLUMNS
        for place, name in enumerate(names):
            x = self._left + step * (place + 0.5)
            before = x - step + width / 2 if place else self._left
            if name != "in":
                self.shapes.append(Line([(before, y), (x - width / 2, y)], "flow", 2))
            self.shapes.append(Box(x, y, "end" if name in ("in", "out") else "node", width=width, height=height))
            self.shapes.append(Text(x, y + 4, name, "name"))
        self._end = x + width / 2, y
        return y + height / 2

    def _way(self, bottom, half):
        """Draws the way from the end of a row to the next, which begins at `bottom`; returns the middle of that."""
        (x, y), middle, lane = self._end, bottom + half, bottom - LANE / 2
        right, left = x + WAY, self._left - WAY
        points = [(x, y), (right, y), (right, lane), (left, lane), (left, middle), (self._left, middle)]
        self.shapes.append(Line(points, "flow", 2))
        return middle

    def edges(self, architecture, strengths=None, thickest=1.0):
        shapes, candidates = [], self._space.choices["layers"].candidates
        for row, (name, width) in enumerate(zip(architecture.names, architecture.widths, strict=True)):
            (x, y, half), layer = self._places[row], self._layers[row]
            kernel, expansion, kind = _parts(name)
            title, opacity = f"{name} on {self._rows[row]}, {layer.inputs} to {layer.outputs} channels", 1.0
            title += f", stride {layer.stride}" if layer.stride > 1 else ""
            title += f", width {width:g}" if width != 1 else ""
            if strengths is not None:
                weight = float(strengths[row][candidates.index(name)])
                title += f", weight {weight:.3f}"
                opacity = max(0.12, min(1.0, weight / thickest))
            if name in IDENTITY:
                shapes.append(Line([(x - half, y), (x + half, y)], "skip", max(1, 3 * opacity), title))
            else:
                side = (12 + 6 * kernel) / 2
                shapes += [Line([(x + sign * half, y), (x + sign * side, y)], "flow", 2) for sign in (-1, 1)]
                height = max(LOWEST, TALLEST * expansion * width / self._most)
                shapes.append(Box(x, y, kind, title, 2 * side, height, opacity))
            for place, line in enumerate(_label(name, width)):
                shapes.append(Text(x, y + TALLEST / 2 + LINE * (place + 1), line, kind))
        return shapes


def _by_row(layers):
    """How many layers of a stage stand in each of its rows: as few rows as there can be, all about as long."""
    rows = -(-layers // COLUMNS)
    return [len(range(row, layers, rows)) for row in range(rows)]


def _parts(name):
    """Kernel, expansion and kind of a block."""
    if name in IDENTITY:
        return 0, 0, "skip"
    if name == "xception":
        return 3, 1, "other"
    if found := INVERTED.fullmatch(name):
        expansion, kernel = int(found[1]), int(found[2])
    elif found := OF_FBNET.fullmatch(name):
        kernel, expansion = int(found[1]), int(found[2])
    else:
        kernel, expansion = int(SHUFFLE.fullmatch(name)[1]), 1
    return kernel, expansion, KINDS.get(kernel, "other")


def _label(name, width=1.0):
    """What stands below a layer, a list of lines."""
    if name in IDENTITY or name == "xception":
        return [name]
    kernel, expansion, _ = _parts(name)
    more = [] if width == 1 else [f"w{width:g}"]
    if found := INVERTED.fullmatch(name):
        more = [part[1:] for part in (found[3], found[4]) if part] + more
    elif found := OF_FBNET.fullmatch(name):
        more = ([f"g{found[3]}"] if found[3] else []) + more
    size = f"{kernel}x{kernel}"
    return [size if SHUFFLE.fullmatch(name) else f"{size} e{expansion}", *([" ".join(more)] if more else [])]


def _size(reduction):
    return "full size" if reduction == 1 else f"{Fraction(1, reduction)} size"
