import keras
import pytest


@pytest.fixture(scope="module", params=["float64", "float32"])
def dtype(request):
    """Runs a test in both precisions."""
    before = keras.config.floatx()
    keras.config.set_floatx(request.param)
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_floatx(before)
    keras.config.set_dtype_policy(before)


def pytest_generate_tests(metafunc):
    """A test that asks for `KIND_file` runs on every file of that kind in the reference folder."""
    for name in metafunc.fixturenames:
        if name.endswith("_file"):
            files = sorted(metafunc.config.getoption("reference").glob(f"{name.removesuffix('_file')}*.npz"))
            metafunc.parametrize(name, files, ids=[file.stem for file in files], scope="module")
