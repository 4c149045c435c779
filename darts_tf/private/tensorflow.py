"""What is used of TensorFlow that is not public."""

import collections

import tensorflow as tf
from tensorflow.python.framework import config


def is_deterministic():
    """Whether TensorFlow takes only kernels that compute the same bits each time.

    Private: `tensorflow.python.framework.config.is_op_determinism_enabled`, of TensorFlow 2.21.0.
    """
    return config.is_op_determinism_enabled()


def set_deterministic(deterministic):
    """Makes TensorFlow take only such kernels, or any.

    Private: `tensorflow.python.framework.config.disable_op_determinism`, of TensorFlow 2.21.0.
    """
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    else:
        config.disable_op_determinism()


def called_graph(op):
    """The graph of the function that an operation calls.

    Private: `Graph._get_function`, of TensorFlow 2.21.0.

    Args:
        op: `tf.Operation` of type PartitionedCall or StatefulPartitionedCall.

    Returns:
        `tf.Graph`.
    """
    return op.graph._get_function(op.get_attr("f").name).graph


def without_variables(function):
    """A function whose variables have become constants, and in whose graph stands what it calls.

    Private: `tensorflow.python.framework.convert_to_constants.convert_variables_to_constants_v2`, of TensorFlow 2.21.0.

    Args:
        function: `tf.ConcreteFunction`.

    Returns:
        `tf.ConcreteFunction` of the same inputs, which returns its outputs as a list.
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    return convert_variables_to_constants_v2(function)


def saved_model_of(content):
    """The message that a saved_model.pb holds, which can be changed and serialized again.

    Private: `tensorflow.core.protobuf.saved_model_pb2`, of TensorFlow 2.21.0.

    Args:
        content: of the file, bytes.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    return saved_model_pb2.SavedModel.FromString(content)


def never_inlined(function, input_signature):
    """A `tf.function` with one graph, which all graphs that call it share: TensorFlow does not copy it into them.

    Private: the attribute `_noinline` of functions, of TensorFlow 2.21.0.

    Args:
        function: of tensors.
        input_signature: as of `tf.function`.
    """
    return tf.function(
        function,
        input_signature=input_signature,
        autograph=False,
        experimental_attributes={"_noinline": True},
    )


def separate_calls(graph):
    """Gives calls of one function that could run at the same time kernels of their own; else all calls share them.

    TensorFlow makes kernels for each function and its attributes. Here these have a number: the lowest whose calls are
    all done before, since the call depends on them.

    Private: `Operation._set_attr`, of TensorFlow 2.21.0.

    Args:
        graph: `tf.Graph` that is yet being made, in which no more gradients are taken.
    """
    before, bits, last = {}, {}, collections.defaultdict(list)
    for op in graph.get_operations():
        # The calls that it depends on, as bits of an integer.
        found = 0
        for other in (*(tensor.op for tensor in op.inputs), *op.control_inputs):
            found |= before.get(other, 0)
        if op.type in ("PartitionedCall", "StatefulPartitionedCall"):
            call = tf.compat.v1.AttrValue(func=op.get_attr("f"))
            numbers = last[call.func.name]
            number = next((n for n, bit in enumerate(numbers) if found & bit), len(numbers))
            bits[op] = bit = 1 << len(bits)
            numbers[number : number + 1] = [bit]
            call.func.attr["_call"].i = number
            op._set_attr("f", call)
            found |= bit
        before[op] = found


def momentum_step(variable, buffer, gradient, learning_rate, momentum, nesterov):
    """One step of gradient descent with momentum, in one operation (`tf.raw_ops.ResourceApplyMomentum`).

    buffer <- momentum * buffer + gradient; variable <- variable - learning_rate * buffer, or with `nesterov`
    variable - learning_rate * (gradient + momentum * buffer).

    Private: `Variable.handle`, of TensorFlow 2.21.0.

    Args:
        variable, buffer: `tf.Variable`s of one shape and dtype.
        gradient: tensor of that shape and dtype.
        learning_rate, momentum: scalar tensors of that dtype.
        nesterov: bool.
    """
    tf.raw_ops.ResourceApplyMomentum(
        var=variable.handle,
        accum=buffer.handle,
        lr=learning_rate,
        grad=gradient,
        momentum=momentum,
        use_nesterov=nesterov,
    )
