"""The picture of a perceptron: from the input down to the output a bar for each layer, as long as it is wide.

The bar is coloured as its activation; behind it is what is left of the layer in the supernet, if that is known. What a
layer is added to goes round it; a line goes through where there is no layer.
"""

from darts_tf.spaces.mlp.space import NONE, RESIDUAL
from darts_tf.spaces.pictures import MARGIN, Box, Line, Text, kind_of

LONGEST, LOWEST, HEIGHT, ROW, TOP = 200, 8, 26, 52, 52  # pixels: lengths of bars, their height, from row to row
LABEL, ROUND = 64, 14  # pixels beside them: of labels, and for what goes round a layer
ENDS = 64, 26


class PerceptronPicture:
    """The picture of the networks of a space, see `darts_tf.spaces.pictures.Picture`.

    Args:
        space: `MLP`.
        units: of the widest layer; by default the space's.
    """

    name, title = "widths", "Perceptron"

    def __init__(self, space, units=None):
        self._space, self._units = space, units
        self.width = 2 * (MARGIN + LABEL) + LONGEST + 2 * ROUND
        self._middle = self.width / 2
        self.height = self._y(space.layers + 1) + ENDS[1] / 2 + MARGIN
        self.shapes = []
        for place, name in ((-1, "in"), (space.layers, "out")):
            y = self._y(place + 1)
            self.shapes += [Box(self._middle, y, "end", "", *ENDS), Text(self._middle, y + 4, name, "name")]
        for row, name in enumerate(space.choices["widths"].rows):
            self.shapes.append(Text(MARGIN + LABEL / 2, self._y(row + 1) + 4, name, "quiet"))

    def _y(self, place):
        return TOP + ENDS[1] / 2 + ROW * place

    def _length(self, width):
        return max(LOWEST, LONGEST * float(width))

    def edges(self, architecture, strengths=None, thickest=1.0):
        shapes, x, widths = [], self._middle, self._space.widths
        for row, (connection, activation, width) in enumerate(architecture.layers):
            y = self._y(row + 1)
            start, end = y - ROW / 2, y + ROW / 2
            if row == 0:
                start = self._y(0) + ENDS[1] / 2
            if row + 1 == self._space.layers:
                end = self._y(row + 2) - ENDS[1] / 2
            if connection == NONE:
                shapes.append(Line([(x, start), (x, end)], "skip", 2, f"no layer {row + 1}"))
                continue
            units = self._space.units_of(width, self._units)
            title = f"{activation}, {units} units"
            above, below = (start, y - HEIGHT / 2), (y + HEIGHT / 2, end)
            shapes += [Line([(x, one), (x, other)], "flow", 2) for one, other in (above, below)]
            if connection == RESIDUAL:
                side = x + LONGEST / 2 + ROUND
                above, below = start + 4, end - 4
                shapes.append(Line([(x, above), (side, above), (side, below), (x, below)], "skip", 2, "added"))
                title += ", added to its input"
            if strengths is not None:
                place = widths.index(f"{width:g}")
                title += f", weight {float(strengths[row][place]):.3f}"
                left = max(place for place, one in enumerate(strengths[row]) if one > 0)
                there = f"{self._space.units_of(widths[left], self._units)} units are left"
                shapes.append(Box(x, y, "node", there, self._length(widths[left]), HEIGHT))
            shapes.append(Box(x, y, kind_of(activation), title, self._length(width), HEIGHT, 0.35))
            shapes.append(Text(x, y + 4, activation, "name"))
            shapes.append(Text(self.width - MARGIN - LABEL / 2, y + 4, str(units), "name"))
        return shapes
