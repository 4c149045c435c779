"""What the room of private uses relies on: where another version does otherwise, these say which use is broken."""

import functools
import importlib
import inspect
import pathlib
import re
import tomllib

import keras
import numpy as np
import pytest
import tensorflow as tf
from packaging.requirements import Requirement
from packaging.version import Version

import darts_tf.private
from darts_tf.private import keras as of_keras
from darts_tf.private import tensorflow as of_tensorflow

ROOT = pathlib.Path(__file__).parents[2]
ROOM = [path.stem for path in pathlib.Path(darts_tf.private.__file__).parent.glob("[a-z]*.py")]


def uses():
    """All functions and classes of the room."""
    for name in ROOM:
        module = importlib.import_module(f"darts_tf.private.{name}")
        for value in vars(module).values():
            if getattr(value, "__module__", None) == module.__name__:
                yield value


def checked(use):
    """What a use says: private names, package, and version."""
    found = re.search(r"Private: (.+), of (\S+) ([\d.]+)\.\n", inspect.cleandoc(use.__doc__) + "\n", re.DOTALL)
    assert found, f"{use.__name__}: expected a line 'Private: NAME, of PACKAGE VERSION.' in its docstring"
    return " ".join(found[1].split()), found[2], found[3]


def canary(use):
    """A test of what a use relies on; when it fails it says what is private, and where."""

    def decorate(test):
        @functools.wraps(test)
        def canary_of(*args, **kwargs):
            names, package, version = checked(use)
            try:
                test(*args, **kwargs)
            except Exception as error:
                now = importlib.import_module(package.lower().replace("-", "_")).__version__
                file = use.__module__.replace(".", "/")
                pytest.fail(
                    f"{names}: checked with {package} {version}, something else in {package} {now}; "
                    f"used by {use.__name__} in {file}.py ({type(error).__name__}: {error})"
                )

        canary_of.use = use
        return canary_of

    return decorate


def test_every_use_has_a_canary():
    assert {test.use for test in globals().values() if hasattr(test, "use")} == set(uses())


@pytest.mark.parametrize("use", list(uses()), ids=lambda use: use.__name__)
def test_no_version_beyond_the_one_that_was_checked_is_installed(use):
    _, package, version = checked(use)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    allowed = {requirement.name: requirement.specifier for requirement in map(Requirement, project["dependencies"])}
    allowed, version = allowed[package.lower()], Version(version)
    assert version in allowed and f"{version.major}.{version.minor + 1}" not in allowed


def test_a_canary_says_what_broke(monkeypatch):
    monkeypatch.delattr(keras.layers.Layer, "_flatten_layers")
    with pytest.raises(pytest.fail.Exception) as failure:
        test_layers_within()
    for part in (
        "Layer._flatten_layers",
        checked(of_keras.layers_within)[2],
        "layers_within in darts_tf/private/keras.py",
    ):
        assert part in str(failure.value)


class Sums(keras.layers.Layer):
    def __init__(self, *parts, **kwargs):
        super().__init__(**kwargs)
        self.parts = list(parts)


@canary(of_keras.layers_within)
def test_layers_within():
    inner = Sums(*(keras.layers.Dense(1, name=name) for name in "ab"), name="inner")
    model = keras.Sequential(
        [keras.layers.Flatten(name="first"), inner, keras.layers.Dense(1, name="last")], name="all"
    )
    assert [layer.name for layer in of_keras.layers_within(model)] == ["all", "first", "inner", "b", "a", "last"]


@canary(of_keras.weights_file)
def test_weights_file(tmp_path):
    one, other = (keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]) for _ in range(2))
    (tmp_path / "one.weights.h5").write_bytes(of_keras.weights_file(one))
    other.load_weights(tmp_path / "one.weights.h5")
    np.testing.assert_array_equal(one.layers[0].kernel, other.layers[0].kernel)


@canary(of_keras.ModelHooks)
def test_model_hooks():
    class Pairs(of_keras.ModelHooks):
        asked = seen = 0

        def is_built_by_keras(self):
            self.asked += 1
            return self.asked > 2

        def call(self, x):
            self.seen += 1
            return x

        def train_step(self, data):
            return {"loss": tf.reduce_mean(data[0])}

        test_step = train_step

    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        model = Pairs()
        model.compile(run_eagerly=True)
    batches = tf.data.Dataset.from_tensors((tf.ones([2, 1]), tf.ones([2])))
    model.fit(batches, shuffle=False, verbose=0)
    model.evaluate(batches, verbose=0)
    assert (model.asked, model.seen) == (2, 0)
    model.evaluate(batches, verbose=0)
    assert (model.asked, model.seen) == (3, 1)


@canary(of_keras.GradientHooks)
def test_gradient_hooks(monkeypatch):
    rates = []

    class Doubling(of_keras.GradientHooks, keras.optimizers.SGD):
        def add_up(self, gradients):
            return [2 * gradient for gradient in gradients]

        def update_step(self, gradient, variable, learning_rate):
            rates.append(learning_rate)
            super().update_step(gradient, variable, learning_rate)

    optimizer, variable = Doubling(0.5, clipvalue=1.0), keras.Variable([0.0, 0.0])
    optimizer.build([variable])
    monkeypatch.setattr(tf.distribute, "get_replica_context", None)  # what Keras adds gradients up by
    optimizer.apply([tf.constant([0.75, 0.25])], [variable])
    np.testing.assert_array_equal(variable, [-0.5, -0.25])
    assert [type(rate) for rate in rates] == [type(tf.constant(0.5))]


def built(optimizer):
    variables = [keras.Variable(np.zeros(shape, np.float32)) for shape in ((2,), (3,))]
    optimizer.build(variables)
    return variables


@canary(of_keras.place_of)
def test_place_of():
    optimizer = keras.optimizers.SGD(0.5, momentum=0.9)
    variables = built(optimizer)
    for place, variable in enumerate(variables):
        assert of_keras.place_of(variable, optimizer) == of_keras.place_of(variable.value, optimizer) == place
        assert optimizer.momentums[place].shape == variable.shape


@canary(of_keras.moments_of)
def test_moments_of():
    gradients = [tf.fill([2], 3.0), tf.fill([3], 5.0)]
    for amsgrad in (True, False):
        optimizer = keras.optimizers.Adam(0.1, beta_1=0.5, beta_2=0.75, amsgrad=amsgrad)
        variables = built(optimizer)
        optimizer.apply(gradients, variables)
        first, second, largest = of_keras.moments_of(variables[1], optimizer)
        np.testing.assert_allclose(first, [2.5] * 3)
        np.testing.assert_allclose(second, [6.25] * 3)
        assert largest is None if not amsgrad else largest.shape == (3,)


@canary(of_keras.is_decayed)
def test_is_decayed():
    optimizer = keras.optimizers.SGD(0.5, weight_decay=0.1)
    optimizer.exclude_from_weight_decay([variable := keras.Variable([1.0])])
    assert not of_keras.is_decayed(variable, optimizer)
    assert of_keras.is_decayed(keras.Variable([1.0]), optimizer)


@canary(of_tensorflow.called_graph)
def test_called_graph():
    inner = tf.function(lambda x: x @ x, autograph=False)
    outer = tf.function(lambda x: inner(x) + 1, autograph=False).get_concrete_function(tf.TensorSpec([2, 2]))
    calls = [op for op in outer.graph.get_operations() if op.type.endswith("PartitionedCall")]
    (product,) = (op for op in of_tensorflow.called_graph(calls[0]).get_operations() if op.type == "MatMul")
    assert product.outputs[0].shape == (2, 2)


@canary(of_tensorflow.without_variables)
def test_without_variables():
    variable, inner = tf.Variable([[1.0, 2.0]]), tf.function(lambda x, y: x @ y, autograph=False)
    function = tf.function(lambda x: [inner(x, variable)], autograph=False)
    constant = of_tensorflow.without_variables(function.get_concrete_function(tf.TensorSpec([1, 1])))
    assert {op.type for op in constant.graph.get_operations()} <= {"Placeholder", "Const", "Identity", "MatMul", "NoOp"}
    variable.assign([[5.0, 5.0]])
    np.testing.assert_array_equal(constant(tf.constant([[3.0]]))[0], [[3.0, 6.0]])


@canary(of_tensorflow.never_inlined)
def test_never_inlined():
    from tensorflow.python.eager import context

    def square(x):
        return x * x

    def calls(function):
        """How many calls are left in the graph that runs."""
        outer = tf.function(lambda x: function(function(x)), autograph=False)
        context.context().enable_run_metadata()
        outer(tf.constant([2.0]))
        graphs = context.context().export_run_metadata().partition_graphs
        context.context().disable_run_metadata()
        return sum(node.op.endswith("PartitionedCall") for graph in graphs for node in graph.node)

    spec = [tf.TensorSpec([None])]
    assert calls(tf.function(square, input_signature=spec, autograph=False)) == 0
    assert calls(of_tensorflow.never_inlined(square, spec)) == 2


@canary(of_tensorflow.momentum_step)
def test_momentum_step():
    for nesterov, ahead in ((False, 4.0), (True, 3.0 + 0.5 * 4.0)):
        variable, buffer = tf.Variable([1.0]), tf.Variable([2.0])
        rate, momentum = tf.constant(0.1), tf.constant(0.5)
        of_tensorflow.momentum_step(variable, buffer, tf.constant([3.0]), rate, momentum, nesterov)
        np.testing.assert_allclose(buffer, [4.0])
        np.testing.assert_allclose(variable, [1.0 - 0.1 * ahead], rtol=1e-6)
