import numpy as np
import tensorflow as tf
from original import assign, by_original_name, operation_tensors, relative_error

from darts_tf.ops.operations import Operation, get_operation

TOLERANCE = {"float64": 1e-9, "float32": 1e-4}


def test_every_operation(ops_file, dtype):
    arrays = np.load(ops_file)
    cases = sorted({tuple(name.split("/")[:3]) for name in arrays.files})
    assert cases
    for name, stride, kind in cases:
        case = {
            key.removeprefix(f"{name}/{stride}/{kind}/"): value
            for key, value in arrays.items()
            if f"{name}/{stride}/{kind}/" in key
        }
        x = tf.constant(case["x"].transpose(0, 2, 3, 1), dtype)
        stages = get_operation(name)(stride=int(stride.removeprefix("stride")), affine=kind == "affine")
        operation = Operation(stages, channels=x.shape[-1])
        operation.build(x.shape)
        parameters = {key.removeprefix("param/"): value for key, value in case.items() if key.startswith("param/")}
        original = {f"cells.0._ops.0.{key}": key for key in parameters}
        tensors = by_original_name(operation_tensors(operation, "cell0_edge0"), original)
        tensors = {original[key]: tensor for key, tensor in tensors.items()}
        assign(tensors, parameters)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = operation(x, training=True)
        dy = tf.constant(case["dy"].transpose(0, 2, 3, 1), dtype)
        variables = operation.trainable_variables
        dx, gradients = tape.gradient(y, [x, [v.value for v in variables]], dy, unconnected_gradients="zero")
        errors = {
            "y": relative_error(y.numpy().transpose(0, 3, 1, 2), case["y"]),
            "dx": relative_error(dx.numpy().transpose(0, 3, 1, 2), case["dx"]),
        }
        by_variable = {id(v): g.numpy() for v, g in zip(variables, gradients, strict=True)}
        for key, tensor in tensors.items():
            errors[key] = relative_error(tensor.of(by_variable[id(tensor.variable)]), case[f"grad/{key}"])
        assert max(errors.values()) < TOLERANCE[dtype], (name, stride, kind, errors)
