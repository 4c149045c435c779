import json
import math

import pytest

from darts_tf import spaces
from darts_tf.spaces.cells import genotypes
from darts_tf.spaces.cells.genotypes import Genotype
from darts_tf.spaces.cells.space import CellSpace

CELL = [("sep_conv_3x3", 0), ("skip_connect", 1), ("max_pool_3x3", 2), ("dil_conv_5x5", 0)]
GENOTYPE = Genotype(CELL, [2, 3], CELL[:2], [2])


def test_text_and_json_forms():
    assert str(GENOTYPE).startswith("Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1), ")
    assert "normal_concat=range(2, 4)" in str(GENOTYPE)
    assert spaces.from_text(str(GENOTYPE)) == GENOTYPE
    assert spaces.from_json(GENOTYPE.to_json()) == GENOTYPE


@pytest.mark.parametrize("text", ["", "Genotype()", "print('x')", "Genotype(normal=1, reduce=[])", "[1, 2]"])
def test_other_text_is_refused(text):
    with pytest.raises(ValueError, match="Not a genotype"):
        spaces.from_text(text)


def test_none_is_never_chosen_and_the_stronger_edge_comes_first():
    weights = [[0.9, 0.1, 0.0], [0.2, 0.3, 0.5]]
    found = CellSpace(1, ["none", "skip_connect", "sep_conv_3x3"]).decide({"normal": weights, "reduce": weights})
    assert found == Genotype(*[[("sep_conv_3x3", 1), ("skip_connect", 0)], [2]] * 2)


def test_what_a_user_may_name(tmp_path):
    (tmp_path / "genotype.json").write_text(GENOTYPE.to_json())
    assert spaces.read(str(tmp_path / "genotype.json")) == spaces.read(str(GENOTYPE)) == GENOTYPE
    assert spaces.read("DARTS_V2") == genotypes.PUBLISHED["DARTS_V2"]
    (tmp_path / "other.json").write_text('{"normal": 1, "normal_concat": 2, "reduce": 3, "reduce_concat": 4}')
    (tmp_path / "no.json").write_bytes(b"\xff\x00")
    for name in ("other.json", "no.json"):
        with pytest.raises(ValueError, match="Not a genotype"):
            spaces.read(str(tmp_path / name))
    with pytest.raises(ValueError, match=r"expected NASNet, AmoebaNet, DARTS_V1, DARTS_V2, ENAS, a genotype\.json"):
        spaces.read("DARTS_V3")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"normal": CELL[:3]}, "normal has 3 .operation, node. pairs: expected two for every node"),
        ({"reduce": []}, "reduce has 0"),
        (
            {"reduce": [("sep_conv_3x3", 0), ("sep_conv_3x3", 2)]},
            "reduce feeds node 2 from node 2: expected one of 0 to 1",
        ),
        ({"normal": [("sep_conv_3x3", -1), *CELL[1:]]}, "normal feeds node 2 from node -1"),
        ({"normal_concat": [2, 4]}, r"normal_concat is \[2, 4\]: expected some of the nodes 0 to 3"),
        ({"reduce_concat": [1]}, r"reduce_concat is \[1\]: expected some of the nodes 2 to 2"),
        ({"normal_concat": []}, r"normal_concat is \[\]"),
    ],
)
def test_genotypes_of_no_cell_are_refused(change, message, tmp_path):
    wrong = GENOTYPE._replace(**change)
    with pytest.raises(ValueError, match=message):
        genotypes.check(wrong)
    (tmp_path / "wrong.json").write_text(wrong.to_json())
    with pytest.raises(ValueError, match=message):
        spaces.read(str(tmp_path / "wrong.json"))


PAIRS = [["skip_connect", 0], ["skip_connect", 1]]
FIELDS = {"normal": PAIRS, "normal_concat": [2], "reduce": PAIRS, "reduce_concat": [2]}


@pytest.mark.parametrize(
    "change",
    [
        *[{"normal": [["skip_connect", node], PAIRS[1]]} for node in (math.inf, 0.0, True, "0", None, [0])],
        *[{"normal": [[name, 0], PAIRS[1]]} for name in (5, None, "", "\ud800", "a\0", "a\nb", "x" * 101)],
        *[{"normal_concat": nodes} for nodes in ([math.inf], [2.0], [True], "2", 2, None, {"2": 2}, [2] * 1001)],
        *[{"reduce": pairs} for pairs in (None, 5, "ab", [5], [["skip_connect"]], [["skip_connect", 0, 1, 2]])],
    ],
)
def test_fields_of_other_kinds_are_refused(change, tmp_path):
    text = json.dumps({**FIELDS, **change})
    with pytest.raises(ValueError, match="Not a genotype"):
        spaces.from_json(text)
    with pytest.raises(ValueError, match="Not a genotype"):
        spaces.from_text(f"Genotype({', '.join(f'{key}={value!r}' for key, value in {**FIELDS, **change}.items())})")


@pytest.mark.parametrize(
    "text",
    [
        *["[" * 100_000, '{"a":' * 100_000, "Genotype(" + "-" * 100_000 + "1)", " " * 2_000_000, "\0"],
        *[
            str(GENOTYPE).replace("range(2, 4)", nodes)
            for nodes in ("range(2, 99999999999)", f"range(2, {10**30})", "range(2, 4, 0)", "range('a')", "range()")
        ],
        str(GENOTYPE).replace("0)", "1e999)"),
    ],
    ids=range(11),
)
def test_texts_that_would_take_everything_are_refused(text, tmp_path):
    for read in (spaces.from_text, spaces.from_json):
        with pytest.raises(ValueError, match=r"Not a genotype|column"):
            read(text)
    (tmp_path / "g.json").write_text(text)
    with pytest.raises(ValueError, match="Not a genotype: expected NASNet"):
        spaces.read(str(tmp_path / "g.json"))


def test_names_that_no_file_can_have():
    for name in ("x" * 300, "x" * 300 + "/a.json"[:1], "a\0b"):
        with pytest.raises(ValueError, match="Not a genotype"):
            spaces.read(name)
