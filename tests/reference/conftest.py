import contextlib

import keras
import pytest


@pytest.fixture(scope="module", params=["float64", "float32"])
def dtype(request):
    """Runs a test in both precisions."""
    with computing_in(request.param):
        yield request.param


@pytest.fixture
def float64():
    """Runs a test in double precision."""
    with computing_in("float64"):
        yield


@contextlib.contextmanager
def computing_in(dtype):
    before = keras.config.floatx()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    yield
    keras.config.set_floatx(before)
    keras.config.set_dtype_policy(before)


def pytest_generate_tests(metafunc):
    """A test that asks for `KIND_file` runs on every file of that kind in the reference folder."""
    for name in metafunc.fixturenames:
        if name.endswith("_file"):
            files = sorted(metafunc.config.getoption("reference").glob(f"{name.removesuffix('_file')}*.npz"))
            metafunc.parametrize(name, files, ids=[file.stem for file in files], scope="module")
