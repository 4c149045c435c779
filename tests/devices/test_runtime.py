"""What a command changes of TensorFlow and Keras in its process, and for how long."""

import warnings

import keras
import pytest
import tensorflow as tf

from darts_tf import DARTS, SearchNetwork
from darts_tf.cli.messages import RunError
from darts_tf.devices import runtime
from darts_tf.methods.optimizers import SGD
from darts_tf.private import tensorflow as private
from darts_tf.runs import fitting, starting
from darts_tf.runs.configurations import SearchConfig, TrainConfig


def state():
    options = tf.config.optimizer.get_experimental_options()
    return keras.config.dtype_policy().name, options["disable_meta_optimizer"]


def test_policy_and_graph_optimiser_are_set_for_a_while(request):
    request.addfinalizer(lambda: keras.config.set_dtype_policy("float32"))
    keras.config.set_dtype_policy("mixed_float16")
    before = state()
    on_gpus = bool(tf.config.list_physical_devices("GPU"))  # which want the optimiser, but for one pass
    with runtime.configured(training=False):
        assert state() == ("float32", before[1] and on_gpus)
        with runtime.configured(precision="bfloat16"):
            assert state() == ("mixed_bfloat16", before[1] if on_gpus else True)
        assert state() == ("float32", before[1] and on_gpus)
    assert state() == before


def test_images_keep_the_order_of_their_axes_where_gpus_train(monkeypatch):
    """The pass that turns them costs a search step on a GPU 5 % and a training step 11 %."""
    options = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["a GPU"])
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", lambda *_: None)
    monkeypatch.setattr(tf.config.optimizer, "set_experimental_options", options.append)
    monkeypatch.setattr(tf.config.optimizer, "get_experimental_options", lambda: {"disable_meta_optimizer": True})
    for training in (True, False):
        with runtime.configured(training=training):
            assert options.pop() == {"layout_optimizer": not training}
        assert options.pop() == {"layout_optimizer": True} and not options


def test_deterministic_runs():
    """As a run is asked to be, and as a notebook was before."""
    assert not private.is_deterministic()
    for config in (SearchConfig(deterministic=True), TrainConfig(arch="DARTS_V2", deterministic=True)):
        with starting.tensorflow(config):
            assert private.is_deterministic()
        assert not private.is_deterministic()
    private.set_deterministic(True)
    try:
        with starting.tensorflow(SearchConfig()):
            assert private.is_deterministic()
        assert private.is_deterministic()
    finally:
        private.set_deterministic(False)


def test_what_a_device_cannot_do_is_explained():
    """As steps say it, in a function of TensorFlow's."""

    def explained(error, message, call, *arguments):
        with pytest.raises(error, match=message), fitting.explaining_errors(": expected less"):
            tf.function(call)(*arguments)

    def fail(message):
        raise NotImplementedError(message)

    def square(size):
        shape = tf.stack([size, size])  # of shape[0] rows
        return tf.fill(shape, 1.0)

    said = r"^memory does not suffice for a tensor of \[10000000,10000000\]: expected less\.$"
    explained(RunError, said, square, tf.constant(10**7))
    lack = "A deterministic GPU implementation of X is not available."
    missing = lambda: tf.numpy_function(lambda: fail(lack), [], tf.float32)  # noqa: E731
    explained(tf.errors.UnimplementedError, lack, missing)
    with runtime.configured(deterministic=True):
        explained(RunError, f"^--deterministic: .*{lack}; expected --nodeterministic here\\.$", missing)
        other = lambda: tf.numpy_function(lambda: fail("no cuDNN"), [], tf.float32)  # noqa: E731
        explained(tf.errors.UnimplementedError, "no cuDNN", other)
    for message, error in (("events: No space left on device", OSError), ("files", tf.errors.ResourceExhaustedError)):
        with pytest.raises(error), fitting.explaining_errors():
            raise tf.errors.ResourceExhaustedError(None, None, message)


def test_a_second_order_search_multiplies_in_float32():
    """On a GPU, TF32 changes alpha's gradient of the second order by a sixth, that of the first by 0.03 %."""
    enabled = tf.config.experimental.tensor_float_32_execution_enabled
    assert enabled()
    for config, expected in (
        (SearchConfig(unrolled=True), False),
        (SearchConfig(), True),
        (TrainConfig(arch="DARTS_V2"), True),
    ):
        with starting.tensorflow(config):
            assert enabled() == expected
        assert enabled()


@pytest.mark.parametrize(("unrolled", "tf32", "warned"), [(True, True, 1), (True, False, 0), (False, True, 0)])
def test_finite_differences_in_tf32_are_warned_of(unrolled, tf32, warned, request, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["a GPU"])
    set_tf32 = tf.config.experimental.enable_tensor_float_32_execution
    request.addfinalizer(lambda: set_tf32(True))
    set_tf32(tf32)
    search = DARTS(SearchNetwork(4, 3, 3, nodes=1), unrolled=unrolled)
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        search.compile(SGD(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert len([one for one in given if "TF32" in str(one.message)]) == warned
