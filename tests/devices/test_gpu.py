"""What the graph of a step tells about GPUs where there is none: TensorFlow knows its kernels for them anyway.

GPU kernels take and give some tensors in the memory of the host, sizes for example. Where such a kernel takes what
another one left on the device, the CPU waits for the GPU, in the middle of a step.
"""

import collections
import functools

import keras
import pytest
import tensorflow as tf
from tensorflow.python.framework import kernels as registry
from tensorflow.python.framework import op_def_registry

from darts_tf import DARTS, SearchNetwork
from darts_tf.methods.optimizers import SGD
from darts_tf.spaces.cells.genotypes import PUBLISHED
from darts_tf.spaces.cells.trained import TrainedNetwork

CALLS = ("PartitionedCall", "StatefulPartitionedCall")
INT32, RESOURCE = tf.int32.as_datatype_enum, tf.resource.as_datatype_enum


@pytest.fixture(autouse=True, scope="module")
def pretended_gpu():
    listed = tf.config.list_physical_devices
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            tf.config, "list_physical_devices", lambda kind=None: ["a GPU"] if kind == "GPU" else listed(kind)
        )
        yield


@pytest.fixture(scope="module", params=["float32", "mixed_bfloat16", "mixed_float16"])
def policy(request, pretended_gpu):
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="module")
def graph_of_a_search(policy):
    return search_step(policy)


def search_step(policy, metrics=()):
    search = DARTS(SearchNetwork(4, 3, 3, nodes=1), unrolled=True)
    optimizer = SGD(global_clipnorm=5.0, loss_scale=policy == "mixed_float16")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    search.compile(optimizer, loss, metrics=list(metrics))
    batch = tf.zeros([6, 8, 8, 3]), tf.zeros([6], tf.int32)
    search.create_variables(*batch)
    return tf.function(search.train_step, autograph=False).get_concrete_function((batch, batch)).graph.as_graph_def()


def train_step(policy):
    sizes = {"channels": 4, "layers": 3, "num_classes": 3, "image_shape": (8, 8, 3)}
    network = TrainedNetwork(PUBLISHED["DARTS_V2"], **sizes, auxiliary=True, drop_path=True)
    optimizer = SGD(global_clipnorm=5.0, loss_scale=policy == "mixed_float16")
    optimizer.build(network.trainable_variables)
    network.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), auto_scale_loss=False)
    batch = tf.zeros([6, 8, 8, 3]), tf.zeros([6], tf.int32)
    return tf.function(network.train_step, autograph=False).get_concrete_function(batch).graph.as_graph_def()


def bodies(graph):
    """The nodes of a graph and of its functions, each with the types of the arguments."""
    yield graph.node, {}
    for function in graph.library.function:
        yield function.node_def, {argument.name: argument.type for argument in function.signature.input_arg}


def gpu_kernel(node):
    """The GPU kernel for a node, by its operation and types; None if there is none."""
    for kernel in _gpu_kernels(node.op):
        constraints = {c.name: set(c.allowed_values.list.type) for c in kernel.constraint}
        types = {name: set(node.attr[name].list.type) or {node.attr[name].type} for name in constraints}
        if all(types[name] <= allowed for name, allowed in constraints.items()):
            return kernel
    return None


@functools.cache
def _gpu_kernels(op):
    return [k for k in registry.get_registered_kernels_for_op(op).kernel if k.device_type in ("GPU", "DEFAULT")]


def test_every_operation_of_a_step_runs_on_gpus_alone(graph_of_a_search, policy):
    for graph in (graph_of_a_search, train_step(policy)):
        check_operations(graph)


def check_operations(graph):
    functions = {function.signature.name for function in graph.library.function}
    nodes = [node for body, _ in bodies(graph) for node in body if node.op not in functions]
    assert len(nodes) > 1000 and "DepthwiseConv2dNativeBackpropFilter" in {node.op for node in nodes}
    missing = collections.Counter(node.op for node in nodes if not gpu_kernel(node))
    assert not missing
    python_or_control = ("Py", "If", "While", "Case", "Assert", "Print", "Send", "Recv", "Iterator")
    assert not {node.op for node in nodes if any(word in node.op for word in python_or_control)}
    assert {node.device for node in nodes} <= {""}  # nothing is pinned to a CPU


def waits(graph):
    """Counts (operation on the device, operation that takes its result in the host's memory)."""
    functions = {function.signature.name: function.signature for function in graph.library.function}
    found = collections.Counter()
    for nodes, arguments in bodies(graph):
        # Functions take and give int32 and handles of variables in the host's memory, everything else on the device.
        made = {(name, 0): ("argument", kind in (INT32, RESOURCE)) for name, kind in arguments.items()}
        takes = {}
        for node in nodes:
            inputs, outputs = _places(node, functions)
            takes[node.name] = [on_host for _, _, on_host in inputs]
            for position, (name, index, on_host) in enumerate(outputs):
                made[node.name, position] = made[node.name, name, index] = node.op, on_host
        for node in nodes:
            given = [name for name in node.input if not name.startswith("^")]
            for name, wanted_on_host in zip(given, takes[node.name], strict=True):
                source, *result, index = name.split(":") if ":" in name else (name, "0")
                op, on_host = made[source, *result, int(index)]
                if wanted_on_host and not on_host:
                    found[op, node.op] += 1
    return found


def _places(node, functions):
    """For the inputs and for the outputs of a node: (name, index, whether it is in the host's memory)."""
    is_call = node.op in CALLS or node.op in functions or node.op == "Placeholder"
    definition = functions.get(node.op) or op_def_registry.get(node.op)
    on_host = () if is_call else set(gpu_kernel(node).host_memory_arg)
    both = []
    for arguments in (definition.input_arg, definition.output_arg):
        places = []
        for argument in arguments:
            count = node.attr[argument.number_attr].i if argument.number_attr else 1
            kinds = [argument.type or node.attr[argument.type_attr].type] * count
            if argument.type_list_attr:
                kinds = node.attr[argument.type_list_attr].list.type
            for index, kind in enumerate(kinds):
                host = kind in (INT32, RESOURCE) if is_call else argument.name in on_host or kind == RESOURCE
                places.append((argument.name, index, host))
        both.append(places)
    return both


def test_the_cpu_never_waits_for_the_gpu_within_a_search_step(graph_of_a_search):
    assert not waits(graph_of_a_search)


def test_waits_are_seen():
    @tf.function
    def step(x):
        return tf.eye(tf.shape(x)[0]) + tf.tile(x, [tf.cast(tf.reduce_sum(x), tf.int32), 1])

    graph = step.get_concrete_function(tf.TensorSpec([None, None])).graph.as_graph_def()
    assert set(waits(graph)) >= {("Cast", "Pack"), ("Const", "MatrixDiagV3")}
    # Keras's accuracy looks for the sign of zero in this way, once a step.
    accuracy = keras.metrics.SparseCategoricalAccuracy()
    update = tf.function(accuracy.update_state, autograph=False)
    graph = update.get_concrete_function(tf.zeros([6], tf.int32), tf.zeros([6, 3])).graph.as_graph_def()
    assert waits(graph) == {("BitwiseAnd", "Less"): 1}
