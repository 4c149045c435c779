"""What the room of private uses relies on: where another version does otherwise, these say which use is broken."""

import functools
import importlib
import pathlib
import re
import threading
import tomllib
from concurrent import futures

import grpc
import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf
from packaging.requirements import Requirement
from packaging.version import Version

import darts_tf.private
from darts_tf.private import keras as of_keras
from darts_tf.private import keras_tuner as of_keras_tuner
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
    """What a use says of itself: the private names, their package, and the version of it."""
    found = re.search(r"Private: (.+?), of ([\w-]+) (\d[\d.]*\d)\.", " ".join(use.__doc__.split()))
    assert found, f"{use.__name__}: expected 'Private: NAMES, of PACKAGE VERSION.' in its docstring"
    return found.groups()


def canary(*tested):
    """Makes a test say, when it fails, which private names of which version these uses of the room rely on, and where.

    Args:
        tested: functions and classes of the room.
    """

    def decorate(test):
        @functools.wraps(test)
        def saying(*args, **kwargs):
            try:
                test(*args, **kwargs)
            except Exception as error:
                lines = []
                for use in tested:
                    names, package, version = checked(use)
                    now = importlib.import_module(package.lower().replace("-", "_")).__version__
                    file = f"{use.__module__.replace('.', '/')}.py"
                    lines.append(
                        f"{file}, {use.__name__}: {names}, checked with {package} {version}, differs in {now}."
                    )
                pytest.fail("\n".join([*lines, f"{type(error).__name__}: {error}"]))

        saying.tested = tested
        return saying

    return decorate


def test_every_use_has_a_canary():
    assert {use for test in globals().values() for use in getattr(test, "tested", ())} == set(uses())


@pytest.mark.parametrize("use", list(uses()), ids=lambda use: use.__name__)
def test_no_version_beyond_the_one_that_was_checked_is_installed(use):
    _, package, version = checked(use)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    allowed = {requirement.name: requirement.specifier for requirement in map(Requirement, project["dependencies"])}
    allowed, version = allowed[package.lower()], Version(version)
    assert version in allowed and f"{version.major}.{version.minor + 1}" not in allowed


def test_a_canary_says_what_broke(monkeypatch):
    monkeypatch.delattr(keras.layers.Layer, "_flatten_layers")
    version = checked(of_keras.layers_within)[2]
    said = (
        rf"darts_tf/private/keras.py, layers_within: `Layer._flatten_layers`, checked with Keras {version}, differs in "
    )
    with pytest.raises(pytest.fail.Exception, match=said):
        test_layers_within()


class Sums(keras.layers.Layer):
    def __init__(self, *parts, **kwargs):
        super().__init__(**kwargs)
        self.parts = list(parts)


@canary(of_keras.producer)
def test_producer():
    images = keras.Input((4,))
    layer = keras.layers.ReLU()
    assert of_keras.producer(layer(images)) is layer


@canary(of_keras.layers_within)
def test_layers_within():
    inner = Sums(*(keras.layers.Dense(1, name=name) for name in "ab"), name="inner")
    model = keras.Sequential(
        [keras.layers.Flatten(name="first"), inner, keras.layers.Dense(1, name="last")], name="all"
    )
    assert [layer.name for layer in of_keras.layers_within(model)] == ["all", "first", "inner", "b", "a", "last"]


@canary(of_keras.forget_losses)
def test_forget_losses():
    layer = keras.layers.Dense(1)
    layer.add_loss(tf.constant(1.0))
    of_keras.forget_losses(layer)
    layer.add_loss(tf.constant(2.0))
    assert [float(loss) for loss in layer.losses] == [2.0]


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


@canary(of_tensorflow.saved_model_of)
def test_saved_model_of(tmp_path):
    module = tf.Module()
    module.f = tf.function(lambda x: x + 1, input_signature=[tf.TensorSpec([], name="x")])
    tf.saved_model.save(module, tmp_path, {"mine": module.f})
    path = tmp_path / "saved_model.pb"
    saved = of_tensorflow.saved_model_of(path.read_bytes())
    saved.meta_graphs[0].signature_def["mine"].method_name = "tensorflow/serving/classify"
    path.write_bytes(saved.SerializeToString())
    again = of_tensorflow.saved_model_of(path.read_bytes()).meta_graphs[0].signature_def["mine"]
    assert again.method_name == "tensorflow/serving/classify" and again.inputs["x"].name
    assert tf.saved_model.load(tmp_path).signatures["mine"](x=tf.constant(2.0))["output_0"] == 3


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


@canary(of_tensorflow.separate_calls)
def test_separate_calls():
    double = of_tensorflow.never_inlined(lambda x: x + x, [tf.TensorSpec([None])])

    @tf.function(autograph=False)
    def outer(x):
        y, z = double(x), double(x + 1)
        result = double(y) + z
        of_tensorflow.separate_calls(tf.compat.v1.get_default_graph())
        return result

    np.testing.assert_array_equal(outer(tf.constant([2.0])), [14.0])
    graph = outer.get_concrete_function(tf.TensorSpec([1])).graph
    calls = [op.get_attr("f") for op in graph.get_operations() if "PartitionedCall" in op.type]
    assert [call.attr["_call"].i for call in calls] == [0, 1, 0]


@canary(of_tensorflow.momentum_step)
def test_momentum_step():
    for nesterov, ahead in ((False, 4.0), (True, 3.0 + 0.5 * 4.0)):
        variable, buffer = tf.Variable([1.0]), tf.Variable([2.0])
        rate, momentum = tf.constant(0.1), tf.constant(0.5)
        of_tensorflow.momentum_step(variable, buffer, tf.constant([3.0]), rate, momentum, nesterov)
        np.testing.assert_allclose(buffer, [4.0])
        np.testing.assert_allclose(variable, [1.0 - 0.1 * ahead], rtol=1e-6)


def oracle_of(folder, **options):
    """Draws "letter", a or b."""
    hp = keras_tuner.HyperParameters()
    hp.Choice("letter", ["a", "b"])
    objective = keras_tuner.Objective("score", "max")
    oracle = keras_tuner.oracles.RandomSearchOracle(objective, 2, seed=7, hyperparameters=hp, **options)
    oracle._set_project_dir(folder, "trials")
    oracle.verbose = 0
    return oracle


@canary(of_keras_tuner.untried)
def test_untried(tmp_path):
    oracle, drawn = oracle_of(tmp_path), []
    tried = oracle.create_trial("one").hyperparameters.values["letter"]
    before = oracle.get_state()["seed_state"]

    def draw(seed, attempt):
        drawn.append((seed, attempt))
        return {"letter": tried if attempt < 3 else "new"}

    assert of_keras_tuner.untried(oracle, draw) == {"letter": "new"}
    assert drawn == [(before + 1 + attempt, attempt) for attempt in range(4)]
    assert oracle.get_state()["seed_state"] == before + 4
    drawn.clear()
    assert of_keras_tuner.untried(oracle, lambda *drawing: drawn.append(drawing) or {"letter": tried}) is None
    assert len(drawn) == 21


@canary(of_keras_tuner.is_tried)
def test_is_tried(tmp_path):
    oracle = oracle_of(tmp_path)
    trial = oracle.create_trial("one")
    assert of_keras_tuner.is_tried(oracle, dict(trial.hyperparameters.values))
    assert not of_keras_tuner.is_tried(oracle, {"letter": "new"})


@canary(of_keras_tuner.oracle_file)
def test_oracle_file(tmp_path):
    oracle = oracle_of(tmp_path)
    oracle.save()
    assert pathlib.Path(of_keras_tuner.oracle_file(oracle)).is_file()


@canary(of_keras_tuner.trial_file)
def test_trial_file(tmp_path):
    oracle = oracle_of(tmp_path)
    trial = oracle.create_trial("one")
    assert keras_tuner.engine.trial.Trial.load(of_keras_tuner.trial_file(oracle, "0")).get_state() == trial.get_state()


@canary(of_keras_tuner.save_trials_by)
def test_save_trials_by(tmp_path):
    oracle, saved = oracle_of(tmp_path), []
    of_keras_tuner.save_trials_by(oracle, lambda trial: saved.append(trial.status))
    trial = oracle.create_trial("one")
    oracle.update_trial(trial.trial_id, {"score": 1.0})
    trial.status = "COMPLETED"
    oracle.end_trial(trial)
    assert saved == ["RUNNING", "RUNNING", "COMPLETED"] and not list(tmp_path.rglob("trial.json"))


@canary(of_keras_tuner.retry_queue)
def test_retry_queue(tmp_path):
    oracle = oracle_of(tmp_path, max_retries_per_trial=1)
    trials = [oracle.create_trial(worker) for worker in ("one", "two")]
    trials[0].status = "INVALID"
    oracle.end_trial(trials[0])
    assert of_keras_tuner.retry_queue(oracle) == ["0"] == oracle.get_state()["retry_queue"]
    oracle.ongoing_trials.clear()
    of_keras_tuner.retry_queue(oracle).append("1")
    assert [oracle.create_trial(worker).trial_id for worker in ("three", "four")] == ["1", "0"]
    assert not of_keras_tuner.retry_queue(oracle)


@canary(of_keras_tuner.release)
def test_release(tmp_path):
    oracle = oracle_of(tmp_path)
    of_keras_tuner.release(oracle)  # which nobody has
    oracle.populate_space = lambda trial_id: 1 / 0
    for worker in ("one", "two"):

        def ask(worker=worker):
            with pytest.raises(ZeroDivisionError):
                oracle.create_trial(worker)
            of_keras_tuner.release(oracle)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(timeout=5)
        assert not thread.is_alive()


class Stub:
    """Notes what is asked, and asks on."""

    def __init__(self, stub):
        self.stub, self.asked = stub, []

    def __getattr__(self, name):
        def call(*args, **kwargs):
            self.asked.append(name)
            return getattr(self.stub, name)(*args, **kwargs)

        return call


@canary(of_keras_tuner.serve, of_keras_tuner.chief_stub, of_keras_tuner.ask_for_trial)
def test_chief_and_worker(tmp_path, monkeypatch):
    oracle, heard = oracle_of(tmp_path), []
    get_trial = oracle.get_trial
    oracle.get_trial = lambda trial_id: heard.append(trial_id) or get_trial(trial_id)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
    of_keras_tuner.serve(oracle, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    for name, value in {"ORACLE_IP": "127.0.0.1", "ORACLE_PORT": str(port), "TUNER_ID": "one"}.items():
        monkeypatch.setenv(f"KERASTUNER_{name}", value)
    tuner = keras_tuner.RandomSearch(lambda hp: None, oracle.objective, directory=tmp_path, project_name="worker")
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        client = tuner.oracle
        client.stub = Stub(of_keras_tuner.chief_stub(channel))
        trial = client.create_trial("one")
        of_keras_tuner.ask_for_trial(client.stub, trial.trial_id, 5.0)
        client.update_trial(trial.trial_id, {"score": 1.0})
        trial.status = "COMPLETED"
        client.end_trial(trial)
    server.stop(None)
    assert client.stub.asked == ["CreateTrial", "GetTrial", "UpdateTrial", "EndTrial"]
    assert oracle.end_order == heard == [trial.trial_id]


@canary(of_keras_tuner.TunerHooks)
def test_tuner_hooks(tmp_path, monkeypatch):
    class Tuner(of_keras_tuner.TunerHooks, keras_tuner.Tuner):
        reloaded = False

        def state_file(self):
            return str(tmp_path / "state")

        def save(self):
            pass

        def reload(self):
            self.reloaded = True

        def attempt(self, trial, run):
            run()
            trial.status = "FAILED" if trial.trial_id == "1" else "COMPLETED"

        def run_trial(self, trial, *args, **kwargs):
            assert (args, kwargs) == ((3,), {"four": 4})
            return {"score": 5.0}

    tuner = Tuner(oracle_of(tmp_path), directory=tmp_path)
    assert not tuner.reloaded and not tuner.is_worker()
    tuner.search(3, four=4)
    assert [tuner.oracle.get_trial(name).status for name in "01"] == ["COMPLETED", "FAILED"]
    assert tuner.oracle.get_trial("0").score == 5.0
    (tmp_path / "state").touch()
    for name, value in {"ORACLE_IP": "127.0.0.1", "ORACLE_PORT": "1", "TUNER_ID": "one"}.items():
        monkeypatch.setenv(f"KERASTUNER_{name}", value)
    worker = Tuner(oracle_of(tmp_path), directory=tmp_path)
    assert worker.reloaded and worker.is_worker()


@canary(of_tensorflow.is_deterministic, of_tensorflow.set_deterministic)
def test_determinism():
    for wanted in (True, False):
        of_tensorflow.set_deterministic(wanted)
        assert of_tensorflow.is_deterministic() == wanted
