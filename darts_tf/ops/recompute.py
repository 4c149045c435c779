"""Memory for time: a layer's results are computed again in the backward pass instead of kept (Chen et al., 2016)."""

import keras
import tensorflow as tf

from darts_tf.ops import kernels


def recomputed(layer, *arguments, **options):
    """A call of a layer, of which only the arguments are in memory until the backward pass, which calls it again.

        y = recomputed(cell, [before, last], weights, training=True)

    Args:
        layer: `keras.layers.Layer`, built, that adds no losses and draws nothing but by seeds that it is given.
        *arguments: of its call, nested tensors of floating point, or None; these and its weights have gradients.
        **options: more arguments of its call, which have none.

    Returns:
        What the layer returns, a tensor. Its weights that are not trainable change once.
    """
    trainable, moving = layer.trainable_variables, layer.non_trainable_variables
    values = [tf.convert_to_tensor(variable) for variable in trainable]
    is_frozen = bool(values) and all(map(kernels.is_frozen, values))
    old = [tf.convert_to_tensor(variable) for variable in moving]

    def call(arguments, values):
        values = kernels.frozen(values) if is_frozen else values
        with keras.StatelessScope(zip([*trainable, *moving], [*values, *old], strict=True)) as scope:
            y = layer(*tf.nest.pack_sequence_as(structure, arguments), **options)
            return y, [scope.get_current_value(variable) for variable in moving]

    structure, number = arguments, len(tf.nest.flatten(arguments))

    @tf.custom_gradient
    def run(*tensors):
        def gradient(dy, *_):
            with tf.control_dependencies([dy]):
                again = [tf.identity(tensor) for tensor in tensors]
            wanted = again[:number] if is_frozen else again
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(wanted)
                y, _ = call(again[:number], again[number:])
            gradients = tape.gradient(y, wanted, dy)
            return [*gradients, *[None] * (len(again) - len(wanted))]

        y, new = call(tensors[:number], tensors[number:])
        return (y, *new), gradient

    y, *new = run(*tf.nest.flatten(arguments), *values)
    for variable, value in zip(moving, new, strict=True):
        variable.assign(value)
    return y
