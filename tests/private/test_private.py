"""No file outside of the room touches what is not public of another package."""

import ast
import importlib
import inspect
import pathlib
import types

import pytest

ROOT = pathlib.Path(__file__).parents[2]
ROOM = ROOT / "darts_tf" / "private"
FILES = [
    path for name in ("darts_tf", "export") for path in sorted((ROOT / name).rglob("*.py")) if ROOM not in path.parents
]
INTERNAL = ("keras.src", "keras_tuner.src", "tensorflow.python", "tensorflow.core", "tensorflow.compiler")
NAMED_TUPLES = ("_asdict", "_fields", "_make", "_replace")  # public, as Python says
LOOK_UP = ("delattr", "getattr", "hasattr", "setattr")


def is_private(name):
    return name == "__internal__" or (name.startswith("_") and not name.endswith("__") and name not in NAMED_TUPLES)


def foreign(source):
    """What a file touches of others' that is not public: internal modules, and names that it does not define itself."""
    own, touched = set(), []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            own.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            own.add(node.attr)
        elif isinstance(node, ast.Attribute):
            names = [node.attr] + [name for name in INTERNAL if ast.unparse(node) == name]
        elif isinstance(node, ast.Import | ast.ImportFrom):
            imported = [".".join(filter(None, [getattr(node, "module", None), alias.name])) for alias in node.names]
            names = [*imported, *(part for name in imported for part in name.split("."))]
        elif (
            isinstance(node, ast.Call) and ast.unparse(node.func) in LOOK_UP and isinstance(node.args[1], ast.Constant)
        ):
            names = [node.args[1].value]
        touched += [(node.lineno, name) for name in names if name.startswith(INTERNAL) or is_private(name)]
    return [(line, name) for line, name in touched if name not in own]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_touches_what_is_public_or_its_own(file):
    found = foreign(file.read_text(encoding="utf-8"))
    assert not found, (
        f"{file.relative_to(ROOT)}: {found} are not public: expected a function of {ROOM.relative_to(ROOT)}"
    )


@pytest.mark.parametrize(
    "source",
    [
        "from keras.src.saving import saving_lib",
        "import tensorflow.python",
        "from tensorflow import python",
        "from keras import src",
        "x = keras.src",
        "tf.__internal__.tf2",
        "from keras import _tf_keras",
        "layer._layers",
        "self._layers.clear()",
        "super()._layers",
        "oracle._save_trial = save",
        "getattr(model, '_layers', None)",
    ],
)
def test_the_rule_sees(source):
    assert foreign(source)


@pytest.mark.parametrize("source", ["self._mine = 1\nother._mine", "def _mine(): pass", "row._asdict()", "x.__name__"])
def test_the_rule_lets_pass(source):
    assert not foreign(source)


def names_in(cls):
    """The private names that a class has, or that its methods touch."""
    names, codes = set(vars(cls)), []
    for value in vars(cls).values():
        value = getattr(value, "fget", None) or getattr(value, "__func__", value)
        value = inspect.unwrap(value) if callable(value) else value
        codes += [value.__code__] if isinstance(value, types.FunctionType) else []
    for code in codes:
        names |= set(code.co_names)
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(filter(is_private, names))


def shared(cls):
    """The private names that our part of a class has in common with those of other packages that it extends."""
    ours, theirs = set(), set()
    for base in cls.__mro__[:-1]:
        package, _, rest = base.__module__.partition(".")
        if package in ("keras", "keras_tuner", "tensorflow"):
            theirs |= names_in(base)
        elif package in ("darts_tf", "export") and not rest.startswith("private"):
            ours |= names_in(base)
    return ours & theirs


def test_no_class_shares_a_private_name_with_what_it_extends():
    for file in FILES:
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if file.name == "__main__.py":
            continue
        for cls in vars(importlib.import_module(name)).values():
            if inspect.isclass(cls) and cls.__module__ == name:
                assert not shared(cls), f"{name}.{cls.__name__}: {shared(cls)} are its base's: expected other names"


def test_a_class_that_overrides_or_uses_what_is_private_is_seen():
    import keras

    overriding = type("Overriding", (keras.Model,), {"_flatten_layers": lambda self: [], "__module__": "darts_tf"})
    using = type("Using", (keras.Model,), {"call": lambda self: lambda: self._loss_tracker, "__module__": "darts_tf"})
    assert shared(overriding) == {"_flatten_layers"} and shared(using) == {"_loss_tracker"}
