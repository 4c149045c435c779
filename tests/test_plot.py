import math
import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import tensorflow as tf

from darts_tf import spaces
from darts_tf.plot import PlotConfig, main
from darts_tf.reports import drawing
from darts_tf.spaces import CellSpace
from darts_tf.spaces.cells.genotypes import PUBLISHED, Genotype
from darts_tf.spaces.recurrent import genotypes as recurrent

SVG = "{http://www.w3.org/2000/svg}"


def cell(nodes):
    return [(f"op{i}", min(i // 2 + 1, i)) for i in range(2 * nodes)]


@pytest.mark.parametrize("nodes", [1, 2, 4, 7])
def test_every_operation_and_node_is_drawn(nodes):
    genotype = Genotype(cell(nodes), list(range(2, nodes + 2)), cell(nodes), [nodes + 1])
    picture = ET.fromstring(drawing.svg(genotype))
    texts = [element.text for element in picture.iter(f"{SVG}text")]
    assert all(texts.count(name) == 2 for name, _ in cell(nodes))
    assert all(texts.count(str(node)) == 2 for node in range(nodes))
    titles = [element.text for element in picture.iter(f"{SVG}title")]
    assert titles.count("op0 from c(k-2) to 0") == 2 and len(titles) == 4 * nodes


def test_a_png_that_is_too_large(monkeypatch):
    genotype = Genotype(cell(9), [2], cell(9), [2])
    _, width, height = drawing.arranged(genotype)
    monkeypatch.setattr(drawing, "LARGEST", int(1.5 * width * height))
    picture = tf.io.decode_png(drawing.png(genotype))
    assert picture.shape[0] == math.ceil(height) and picture.shape[1] == math.ceil(width)
    monkeypatch.setattr(drawing, "LARGEST", int(0.9 * width * height))
    with pytest.raises(ValueError, match=r"a PNG of .* pixels is too large: expected an SVG, or fewer nodes"):
        drawing.png(genotype)


@pytest.mark.parametrize("genotype", [*PUBLISHED.values(), Genotype(cell(7), [8], cell(7), [8])])
def test_no_edge_lies_upon_another(genotype):
    for picture in genotype.space.pictures(genotype):
        shapes = picture.edges(genotype)
        down = [shape.points[1:3] for shape in shapes if isinstance(shape, drawing.Line)]
        for place, ((x, top), (_, bottom)) in enumerate(down):
            for (other, other_top), (_, other_bottom) in down[:place]:
                assert x != other or bottom <= other_top or other_bottom <= top


def test_weights_are_seen_and_sides_do_not_depend_on_their_order():
    pairs, space = [("sep_conv_3x3", 0), ("skip_connect", 1)], CellSpace(1, ["sep_conv_3x3", "skip_connect"])
    genotype, strengths = Genotype(pairs, [2], pairs, [2]), [[0.5, 0.4], [0.1, 0.05]]
    picture = space.pictures(genotype)[0]
    shapes = picture.edges(genotype, strengths)
    widths = {shape.title: shape.width for shape in shapes if isinstance(shape, drawing.Line)}
    assert widths["sep_conv_3x3 from c(k-2) to 0, weight 0.500"] == 2
    assert widths["skip_connect from c(k-1) to 0, weight 0.050"] == pytest.approx(0.8)
    assert picture.edges(genotype._replace(normal=pairs[::-1]), strengths) == shapes


def run(*arguments):
    command = [sys.executable, "-m", "darts_tf.plot", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_command(tmp_path):
    done = run(Genotype(cell(1), [2], cell(1), [2]), f"--output={tmp_path}/cells.svg")
    assert done.returncode == 0 and (tmp_path / "cells.svg").read_text().startswith("<svg ")
    done = run("DARTS_V2", f"--output={tmp_path}/cells.png", "--json")
    assert done.stdout == f'{{"output": "{tmp_path}/cells.png"}}\n' and not done.stderr
    pixels = tf.io.decode_png((tmp_path / "cells.png").read_bytes()).numpy()
    _, width, height = drawing.arranged(PUBLISHED["DARTS_V2"])
    assert pixels.shape[0] >= 2 * height and pixels.shape[1] >= 2 * width and len(set(pixels.flatten())) > 20


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["Genotype(", "--output=cells.svg"], "error: Genotype(: Not a genotype: expected NASNet"),
        (["NASNet"], "error: --output: expected a file in an existing folder, ending in .svg or .png."),
        (["NASNet", "--output=cells.gif"], "error: --output=cells.gif: expected a file"),
        (["--output=cells.svg"], "error: expected GENOTYPE, see --help."),
    ],
)
def test_mistakes(arguments, message):
    done = run(*arguments)
    assert done.returncode == 2 and done.stderr.startswith(message) and len(done.stderr.splitlines()) == 1


def test_recurrent_cells(tmp_path):
    done = run("DARTS_V2", "--space=recurrent", f"--output={tmp_path}/cell.svg")
    assert done.returncode == 0, done.stderr
    published = recurrent.PUBLISHED["DARTS_V2"]
    (tmp_path / "genotype.json").write_text(published.to_json())
    assert run(tmp_path / "genotype.json", f"--output={tmp_path}/file.svg").returncode == 0
    content = (tmp_path / "cell.svg").read_text()
    assert content == (tmp_path / "file.svg").read_text() == drawing.svg(published)
    texts = [element.text for element in ET.fromstring(content).iter(f"{SVG}text")]
    assert texts.count("relu") == 3 and {"recurrent cell", "x, h(t-1)", "0", "8", "h(t)"} <= set(texts)
    done = run("DARTS_V2", "--space=recursive", f"--output={tmp_path}/none.svg")
    assert done.returncode == 2 and "error: --space=recursive: expected one of darts" in done.stderr


def test_chains(tmp_path):
    text = "chain:8:mb3_k3,mb6_k5|mb3_k3,identity|mb3_k7,identity"
    chain = spaces.from_text(text)
    strengths = {"layers": np.full((6, 6), 0.5)}
    pixels = tf.io.decode_png(drawing.png(chain)).numpy()
    light = {tuple(int(drawing.LIGHT[kind][place : place + 2], 16) for place in (1, 3, 5)) for kind in ("pool", "sep")}
    assert light <= {*map(tuple, pixels.reshape(-1, 3).tolist())}
    strengths["layers"][0] = 1
    pale = tf.io.decode_png(drawing.png(chain, strengths)).numpy()
    assert pale.shape == pixels.shape and (pale != pixels).any()
    picture = ET.fromstring(drawing.svg(chain, strengths))
    boxes = [element for element in picture.iter(f"{SVG}rect") if element.find(f"{SVG}title") is not None]
    assert [box.get("fill-opacity") for box in boxes] == [None, "0.50", "0.50", "0.50"]
    assert boxes[0].find(f"{SVG}title").text == "mb3_k3 on 1.1, 16 to 16 channels, weight 1.000"
    (tmp_path / "genotype.json").write_text(chain.to_json())
    main(PlotConfig(output=str(tmp_path / "chain.svg")), str(tmp_path / "genotype.json"))
    assert (tmp_path / "chain.svg").read_text() == drawing.svg(chain)
