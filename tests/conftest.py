import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def pytest_addoption(parser):
    parser.addoption(
        "--reference",
        type=pathlib.Path,
        default=pathlib.Path(__file__).parent / "reference",
        help="folder of arrays computed by the original code",
    )
