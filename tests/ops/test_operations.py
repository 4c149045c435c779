"""Operations of the user's own that are not as they should be."""

import pytest

from darts_tf.cli.messages import UsageError
from darts_tf.ops import operations
from darts_tf.runs import starting
from darts_tf.runs.configurations import SearchConfig

FILE = """
import darts_tf, keras, sys
from darts_tf.stages import BatchNorm, Conv, Depthwise, ReLU

def mine({parameters}):
    return {value}

darts_tf.register_operation({name})(mine)
"""
GOOD = {"parameters": "stride, affine", "value": "[ReLU(), Conv((3, 3), (stride, stride))]", "name": "'mine'"}


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    monkeypatch.setattr(operations, "_REGISTRY", dict(operations._REGISTRY))


def load(folder, text):
    (folder / "mine.py").write_text(text)
    starting.import_operations(SearchConfig(operations=str(folder / "mine.py"), init_channels=4))


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"parameters": "stride, affine, channels", "value": "keras.layers.Conv2D(channels, 1, stride)"},
        {"parameters": "affine, stride", "value": "keras.layers.AveragePooling2D(3, stride, 'same')"},
        {"name": "'skip_connect'"},
    ],
)
def test_good_ones(change, tmp_path):
    load(tmp_path, FILE.format(**GOOD) if not change else FILE.format(**{**GOOD, **change}))
    assert change.get("name", "'mine'")[1:-1] in operations.operation_names()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"value": "None"}, "mine, stride 1: TypeError: it returns None; expected a list of stages, or a Keras layer"),
        ({"value": "[1]"}, "mine, stride 1: TypeError: it returns"),
        ({"value": "1 / 0"}, "mine, stride 1: ZeroDivisionError: division by zero"),
        ({"value": "mine(stride, affine)"}, "mine, stride 1: RecursionError"),
        ({"value": "[ReLU(), Conv()]"}, r"mine, stride 2: \(2, 7, 6, 4\) becomes .*; expected \(2, 4, 3, 4\)"),
        ({"value": "keras.layers.MaxPooling2D(2, stride)"}, r"mine, stride 1: \(2, 7, 6, 4\) becomes"),
        ({"value": "keras.layers.Conv2D(7, 1, stride)"}, r"mine, stride 1: .* becomes \(2, 7, 6, 7\)"),
        ({"value": "keras.layers.Flatten()"}, "mine, stride 1: .* becomes"),
        ({"parameters": ""}, "mine, stride 1: TypeError"),
        ({"parameters": "stride, affine, size"}, "mine, stride 1: TypeError"),
        ({"value": "sys.exit(0)"}, "SystemExit"),
        ({"name": "5"}, "5: expected a name"),
        ({"name": "None"}, "None: expected a name"),
        ({"name": "'a,b'"}, "'a,b': expected a name"),
        ({"name": "'mine')(None) or (lambda f: f"}, "mine: it is None; expected a function"),
    ],
)
def test_bad_ones_are_named(change, message, tmp_path):
    with pytest.raises(UsageError, match=message) as refused:
        load(tmp_path, FILE.format(**{**GOOD, **change}))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text", ["import sys; sys.exit(0)", "sys.exit('bye')", "def (", "\0", "import nothing_like_it"]
)
def test_bad_files(text, tmp_path):
    with pytest.raises(UsageError, match=r"--operations=.*mine\.py: \w+"):
        load(tmp_path, text)
