"""What pictures of architectures consist of, and the picture of a space that has none of its own.

`darts_tf.reports.drawing` makes SVG and PNG files of shapes.
"""

from typing import NamedTuple

ROW, BOX, HEIGHT, MARGIN = 62, 58, 36, 14  # pixels
LETTER = 7.2  # pixels that a letter of an operation's name takes
KINDS = {"skip": "skip", "pool": "pool", "sep_conv": "sep", "nor_conv": "sep", "dil_conv": "dil", "none": "none"}
KINDS |= {"identity": "skip", "tanh": "pool", "relu": "sep", "sigmoid": "dil"}


class Line(NamedTuple):
    """Straight pieces with rounded corners through points (x, y); `title` is what a mouse over it shows."""

    points: list
    kind: str
    width: float
    title: str = ""


class Box(NamedTuple):
    """A rounded rectangle around (x, y); `title` is what a mouse over it shows, `opacity` that of what fills it."""

    x: float
    y: float
    kind: str
    title: str = ""
    width: float = BOX
    height: float = HEIGHT
    opacity: float = 1.0


class Text(NamedTuple):
    """Text in the middle of x, its base line at y."""

    x: float
    y: float
    text: str
    kind: str


def kind_of(operation):
    """The kind of an operation, a key of the colours."""
    return next((kind for part, kind in KINDS.items() if part in operation), "other")


class Picture:
    """The picture of one table of choices: its rows below each other, on each the candidate that was chosen.

    A space that wants other pictures returns objects with the same attributes and methods.

    Args:
        space: `darts_tf.spaces.base.SearchSpace`.
        name: of the table.

    Attributes:
        name: of the table.
        title: text above it.
        width, height: in pixels.
        shapes: all but the edges.
    """

    def __init__(self, space, name):
        self._space, self.name, self._choices = space, name, space.choices[name]
        choices, self.title = self._choices, self._choices.title
        label = max(90, 12 + LETTER * max(map(len, (*choices.candidates, *choices.rows))))
        self._middle = MARGIN + label + BOX / 2
        self.width = 2 * self._middle
        self.height = self._y(len(choices.rows)) + HEIGHT / 2 + MARGIN
        self.shapes = []
        for place, row in enumerate((*choices.rows, "")):
            y = self._y(place)
            self.shapes += [Box(self._middle, y, "node" if row else "end")]
            self.shapes += [Text(self._middle, y + 4, str(place) if row else "out", "name")]
            self.shapes += [Text(self._middle - BOX / 2 - label / 2, y + 4, row, "name")] if row else []

    def _y(self, place):
        return 52 + HEIGHT / 2 + ROW * place

    def edges(self, architecture, strengths=None, thickest=1.0):
        """The shapes of what was chosen.

        Args:
            architecture: of the space.
            strengths: array (rows, candidates), to be seen as thickness, or None.
            thickest: the strength of the thickest line there can be.

        Returns:
            list of shapes.
        """
        shapes = []
        for row, candidate in self._space.picks(architecture)[self.name]:
            name = self._choices.candidates[candidate]
            strength = None if strengths is None else float(strengths[row][candidate])
            title = f"{name} on {self._choices.rows[row]}" + ("" if strength is None else f", weight {strength:.3f}")
            start, end = self._y(row) + HEIGHT / 2, self._y(row + 1) - HEIGHT / 2
            width = 2 if strength is None else max(0.8, 4 * strength / thickest)
            shapes.append(Line([(self._middle, start), (self._middle, end)], kind_of(name), width, title))
            x = self._middle + BOX / 2 + LETTER * len(name) / 2
            shapes.append(Text(x - BOX / 2 + 8, (start + end) / 2 + 4, name, kind_of(name)))
        return shapes
