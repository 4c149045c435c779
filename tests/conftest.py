import json
import pathlib

from darts_tf.devices import runtime

runtime.configure()

import keras  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from darts_tf.cli.files import save_model  # noqa: E402
from darts_tf.data import datasets  # noqa: E402
from darts_tf.spaces.cells import genotypes  # noqa: E402
from darts_tf.spaces.cells.networks import cifar_network  # noqa: E402
from export import classifier, savedmodel, serving  # noqa: E402


def pytest_addoption(parser):
    parser.addoption(
        "--reference",
        type=pathlib.Path,
        default=pathlib.Path(__file__).parent / "reference",
        help="folder of arrays computed by the original code",
    )


@pytest.fixture(scope="session")
def run_directory(tmp_path_factory):
    """As a training leaves it: a small network of DARTS_V2, which has dilated convolutions, trained on the digits."""
    folder = tmp_path_factory.mktemp("run")
    data = datasets.load("digits")
    genotype = genotypes.PUBLISHED["DARTS_V2"]
    model = cifar_network(genotype, 8, 3, 10, data.image_shape, normalization=data.statistics())
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(data.x_train.astype("float32"), data.y_train, epochs=5, verbose=0)
    save_model(model, folder / "model.keras")
    names = [f"digit {name}" for name in data.class_names]
    (folder / "config.json").write_text(json.dumps({"dataset": "digits", "data": {"class_names": names}}))
    return folder


@pytest.fixture(scope="session")
def digits(run_directory):
    return classifier.load(run_directory / "model.keras")


@pytest.fixture(scope="session")
def images():
    return datasets.load("digits").x_test.astype(np.float32)


@pytest.fixture(scope="session")
def expected(digits, images):
    probabilities = digits.probabilities(images)
    assert (probabilities.argmax(1) == datasets.load("digits").y_test).mean() > 0.9
    return probabilities


@pytest.fixture(scope="session")
def base(digits, tmp_path_factory):
    """A model's folder, with one version in it."""
    base = tmp_path_factory.mktemp("serving") / "digits"
    assert savedmodel.export(digits, base, top_k=3) == base / "1"
    serving.write_configuration(base.parent)
    return base
