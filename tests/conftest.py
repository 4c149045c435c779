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
