"""The picture of a chain says what each layer is, and fits a page."""

import numpy as np
import pytest

from darts_tf import spaces
from darts_tf.reports import drawing
from darts_tf.spaces.chain.description import Description, Stage
from darts_tf.spaces.chain.space import AdaptiveChain, DescribedChain
from darts_tf.spaces.pictures import Box, Line, Text

NAMES = ("identity", "mb3_k3", "mb6_k5_se_hs", "k5_e1_g2", "shuffle_k7", "xception", "mb1_k9")
TEXT = "chain:8:mb6_k5*0.5,identity|mb3_k3,mb6_k7|mb3_k5,mb6_k3"


def of_kind(shapes, kind):
    return [shape for shape in shapes if isinstance(shape, kind)]


def picture_of(architecture, strengths=None, **sizes):
    (picture,) = architecture.space.pictures(architecture, **sizes)
    return picture, picture.edges(architecture, strengths)


def test_boxes_tell_kernel_expansion_and_width():
    picture, shapes = picture_of(spaces.from_text(TEXT))
    boxes = {box.title.split()[0]: box for box in of_kind(shapes, Box)}
    assert len(boxes) == 5
    assert boxes["mb3_k3"].width < boxes["mb3_k5"].width < boxes["mb6_k7"].width
    assert boxes["mb6_k3"].width == boxes["mb3_k3"].width and boxes["mb6_k3"].kind == boxes["mb3_k3"].kind
    assert boxes["mb6_k3"].height == 2 * boxes["mb3_k3"].height == 2 * boxes["mb6_k5"].height
    assert len({boxes[name].kind for name in ("mb3_k3", "mb3_k5", "mb6_k7")}) == 3
    assert boxes["mb6_k5"].title == "mb6_k5 on 1.1, 16 to 16 channels, width 0.5"
    assert boxes["mb3_k3"].title == "mb3_k3 on 2.1, 16 to 24 channels, stride 2"
    assert all(box.opacity == 1 for box in boxes.values())
    (identity,) = [line for line in of_kind(shapes, Line) if line.title]
    assert identity.title == "identity on 1.2, 16 to 16 channels" and identity.kind == "skip"
    labels = [text.text for text in of_kind(shapes, Text)]
    assert labels == ["5x5 e6", "w0.5", "identity", "3x3 e3", "7x7 e6", "5x5 e3", "3x3 e6"]
    texts = [text.text for text in of_kind(picture.shapes, Text)]
    assert texts.count("1/2 size") == 3 and texts.count("full size") == 2
    assert {"stage 3", "16 channels", "24 channels", "40 channels", "640 channels"} <= set(texts)


def test_channels_are_those_of_the_models():
    picture, shapes = picture_of(spaces.from_text(TEXT), init_channels=8)
    assert {"8 channels", "12 channels", "20 channels"} <= {text.text for text in of_kind(picture.shapes, Text)}
    assert "mb3_k3 on 2.1, 8 to 12 channels, stride 2" in [box.title for box in of_kind(shapes, Box)]


def test_how_sure_a_choice_is_can_be_seen():
    architecture = spaces.from_text("chain:8:mb3_k3,identity|mb3_k3,mb3_k3|mb3_k3,identity")
    table = architecture.space.choices["layers"]
    strengths = np.full((6, len(table.candidates)), 0.05)
    for row, (name, weight) in enumerate(zip(architecture.names, (0.8, 0.8, 0.4, 0.2, 0.0, 0.1), strict=True)):
        strengths[row, table.candidates.index(name)] = weight
    (picture,) = architecture.space.pictures(architecture)
    shapes = picture.edges(architecture, strengths, 0.8)
    assert [box.opacity for box in of_kind(shapes, Box)] == [1, 0.5, 0.25, 0.12]
    assert [round(line.width, 3) for line in of_kind(shapes, Line) if line.title] == [3, 1]
    assert "mb3_k3 on 2.1, 16 to 24 channels, stride 2, weight 0.400" in drawing.svg_elements(shapes)
    assert 'fill-opacity="0.25"' in drawing.svg_elements(shapes)


@pytest.mark.parametrize(
    "space",
    [
        *(spaces.get(name)() for name in ("fbnet", "proxyless", "spos", "nas-bench-macro")),
        AdaptiveChain(224, widths=("0.25", "1")),
        DescribedChain(Description((Stage(6, NAMES, 9), Stage(8, ("mb3_k3",)))).to_json()),
    ],
)
def test_every_layer_of_every_chain_has_its_place(space):
    names = space.choices["layers"]
    rng = np.random.default_rng(0)
    picks = {
        table: [(row, choices.candidates.index(rng.choice(choices.names(row)))) for row in range(len(choices.rows))]
        for table, choices in space.choices.items()
    }
    architecture = space.decode(picks)
    picture, shapes = picture_of(architecture)
    assert picture.width < 520 and picture.height < 800  # it fits a page, and phones
    layers = [shape for shape in shapes if getattr(shape, "title", "")]
    assert [shape.title.split(",")[0] for shape in layers] == [
        f"{name} on {row}" for name, row in zip(architecture.names, names.rows, strict=True)
    ]
    boxes = [*of_kind(shapes, Box), *of_kind(picture.shapes, Box)]
    for place, box in enumerate(boxes):
        assert box.width / 2 < box.x < picture.width - box.width / 2
        for other in boxes[:place]:
            beside = abs(box.x - other.x) >= (box.width + other.width) / 2
            assert beside or abs(box.y - other.y) >= (box.height + other.height) / 2
    # Nothing of what stands in rows lies on the way from one row to the next.
    lanes = [y for line in of_kind(picture.shapes, Line) if len(line.points) > 2 for _, y in line.points[2:4]]
    for box in boxes:
        assert all(abs(box.y - lane) > box.height / 2 for lane in lanes)
    for text in [*of_kind(shapes, Text), *of_kind(picture.shapes, Text)]:
        assert 0 < text.y < picture.height
        if text.kind not in ("name", "quiet"):
            assert all(not lane - 1 < text.y < lane + 9 for lane in lanes)
