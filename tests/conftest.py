import gc
import pathlib

from darts_tf.devices import runtime

runtime.configure()
gc.freeze()
gc.set_threshold(100_000, 20, 20)  # graphs are of many objects, which hardly ever are garbage


def pytest_addoption(parser):
    parser.addoption(
        "--reference",
        type=pathlib.Path,
        default=pathlib.Path(__file__).parent / "reference",
        help="folder of arrays computed by the original code",
    )


def pytest_collection_modifyitems(items):
    """The files that take longest begin first, so that no process is left with one of them at the end."""
    longest = "test_docs.py", "test_supernets.py", "test_export.py", "test_replicas.py", "test_precision.py"
    items.sort(key=lambda item: longest.index(item.path.name) if item.path.name in longest else len(longest))
