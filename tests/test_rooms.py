"""Imports go down the rooms only."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# From the bottom up; what stands on one line may not import each other.
ROOMS = ["private", "cli", "devices", "costs", "data", "ops", "methods", "spaces", "runs", "reports", "tuner"]
FILES = sorted((ROOT / "darts_tf").rglob("*.py"))


def room(parts):
    """The floor of a module; commands and what the package offers by its name are the top."""
    return ROOMS.index(parts[0]) if parts and parts[0] in ROOMS else len(ROOMS)


def imported(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_import_goes_up(file):
    own = room(file.relative_to(ROOT / "darts_tf").parts)
    for name in imported(file):
        package, *parts = name.split(".")
        assert package != "export", f"{name}: the export knows this package, not the other way round"
        if package == "darts_tf" and parts != ["__version__"]:
            assert room(parts) <= own, f"{name} is above"


@pytest.mark.parametrize("file", sorted((ROOT / "export").glob("*.py")), ids=lambda file: file.name)
def test_the_export_knows_nothing_of_the_search(file):
    for name in imported(file):
        package, *parts = name.split(".")
        assert package != "darts_tf" or parts[0] in ("private", "cli", "devices", "data"), name


def test_every_folder_is_a_room_and_says_what_it_is():
    folders = {path.parent.name for path in (ROOT / "darts_tf").glob("*/__init__.py")}
    assert folders == set(ROOMS)
    for file in FILES:
        assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))), f"{file} does not say what it is"
