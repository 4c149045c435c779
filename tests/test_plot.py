import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from darts_tf.genotypes import Genotype
from darts_tf.plot import svg


@pytest.mark.parametrize("nodes", [1, 2, 4, 7])
def test_every_operation_and_node_is_drawn(nodes):
    cell = [(f"op{i}", min(i // 2 + 1, i)) for i in range(2 * nodes)]
    picture = ET.fromstring(svg(Genotype(cell, list(range(2, nodes + 2)), cell, [nodes + 1])))
    texts = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert all(texts.count(name) == 2 for name, _ in cell)
    assert all(texts.count(str(node)) == 2 for node in range(nodes))


def test_command(tmp_path):
    command = [sys.executable, "-m", "darts_tf.plot", "--output", tmp_path / "cells.svg", "--arch"]
    text = str(Genotype([("a", 0), ("b", 1)], [2], [("c", 0), ("d", 1)], [2]))
    assert subprocess.run([*command, text], check=False).returncode == 0
    assert (tmp_path / "cells.svg").read_text().startswith("<svg ")
    done = subprocess.run([*command, "Genotype("], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: --arch=Genotype(: Not a genotype")
