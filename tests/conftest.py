import pathlib

from darts_tf.devices import runtime

runtime.configure()


def pytest_addoption(parser):
    parser.addoption(
        "--reference",
        type=pathlib.Path,
        default=pathlib.Path(__file__).parent / "reference",
        help="folder of arrays computed by the original code",
    )
