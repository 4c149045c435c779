"""A loop over time, whose backward pass is written out.

What TensorFlow makes of a loop's gradient keeps every result within it, and adds the gradients of the matrices up step
by step. Here the results of products are kept and all else is computed again, which is cheap; the gradient of a matrix
is one product over all steps.
"""

import tensorflow as tf

from darts_tf.ops import kernels


def recur(step, inputs, state, matrices, parameters=(), statistics=()):
    """Runs a step along the first axis of its inputs.

        def step(x, state, parameters, statistics, product):
            return tf.tanh(x + product(0, state)), statistics

        states, _ = recur(step, inputs, tf.zeros([batch, units]), [kernel])

    Args:
        step: function of x (batch, ...), the state, the parameters, the statistics, and of `product(place, tensor)`,
            which is tensor (batch, rows) times the matrix at a place and has to be asked for once for each matrix ->
            the next state, and the next statistics. Where statistics are None it returns None for them.
        inputs: (steps, batch, ...).
        state: (batch, units), before the first step.
        matrices: list of tensors (rows, columns).
        parameters: list of other tensors that the step has gradients for. Those and matrices that are a
            `tf.stop_gradient` have none, which saves its computation.
        statistics: list of tensors without gradients, on which the state does not depend.

    Returns:
        The states after each step (steps, batch, units), and the statistics after the last.
    """
    if kernels.is_twice_differentiable():
        return _plain(step, inputs, state, matrices, parameters, statistics)
    matrices, parameters, statistics = list(matrices), list(parameters), list(statistics)
    number, wanted = len(matrices), [not kernels.is_frozen(tensor) for tensor in (*matrices, *parameters)]

    @tf.custom_gradient
    def forward(inputs, state, *others):
        matrices, parameters = others[:number], others[number:]
        states, kept, last = _forward(step, inputs, state, matrices, parameters, statistics)

        def gradient(*upstream):
            return _backward(step, upstream[0], inputs, state, states, kept, matrices, parameters, wanted)

        return (states, *last), gradient

    states, *statistics = forward(inputs, state, *matrices, *parameters)
    return states, statistics


def _plain(step, inputs, state, matrices, parameters, statistics):
    """The loop as TensorFlow differentiates it, as often as one likes."""

    def product(place, tensor):
        return tf.matmul(tensor, matrices[place])

    def body(time, state, states):
        state, _ = step(tf.gather(inputs, time), state, parameters, None, product)
        return time + 1, state, states.write(time, state)

    steps = tf.shape(inputs)[0]
    states = tf.TensorArray(state.dtype, steps, element_shape=state.shape)
    *_, states = tf.while_loop(lambda time, *_: time < steps, body, (0, state, states), parallel_iterations=1)
    return states.stack(), statistics


def _forward(step, inputs, state, matrices, parameters, statistics):
    """The states, the factors and the results of each product as `tf.TensorArray`s, and the last statistics."""
    steps = tf.shape(inputs)[0]

    def array(tensor_shape, dtype=state.dtype):
        return tf.TensorArray(dtype, steps, element_shape=tensor_shape)

    def body(time, state, statistics, states, factors, results):
        kept = {}

        def product(place, tensor):
            kept[place] = tensor, tf.matmul(tensor, matrices[place])
            return kept[place][1]

        state, statistics = step(tf.gather(inputs, time), state, parameters, statistics, product)
        factors = [array.write(time, kept[place][0]) for place, array in enumerate(factors)]
        results = [array.write(time, kept[place][1]) for place, array in enumerate(results)]
        return time + 1, state, statistics, states.write(time, state), factors, results

    batch = state.shape[0]
    factors = [array([batch, matrix.shape[0]]) for matrix in matrices]
    results = [array([batch, matrix.shape[1]]) for matrix in matrices]
    start = 0, state, list(statistics), array(state.shape), factors, results
    _, _, statistics, states, factors, results = tf.while_loop(
        lambda time, *_: time < steps, body, start, parallel_iterations=1
    )
    return states.stack(), (factors, results), statistics


def _backward(step, upstream, inputs, start, states, kept, matrices, parameters, wanted):
    """The gradients of inputs, state, matrices and parameters, given that of all states."""
    steps, dtype, (factors, results) = tf.shape(inputs)[0], start.dtype, kept
    transposed = [tf.transpose(matrix) for matrix in matrices]
    before = tf.concat([start[None], states[:-1]], 0)
    number = len(matrices)
    with_gradient = [place for place in range(number) if wanted[place]]
    learnt = [place for place in range(len(parameters)) if wanted[number + place]]

    def body(time, dstate, dparameters, dinputs, dresults):
        found = {}

        def product(place, tensor):
            @tf.custom_gradient
            def remembered(tensor):
                def gradient(dresult):
                    found[place] = dresult
                    return tf.matmul(dresult, transposed[place])

                return results[place].read(time), gradient

            return remembered(tensor)

        x, state = tf.gather(inputs, time), tf.gather(before, time)
        of = [x, state, *(parameters[place] for place in learnt)]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(of)
            after, _ = step(x, state, parameters, None, product)
        zero = tf.UnconnectedGradients.ZERO
        dinput, dstate, *more = tape.gradient(
            after, of, output_gradients=dstate + tf.gather(upstream, time), unconnected_gradients=zero
        )
        dparameters = [total + one for total, one in zip(dparameters, more, strict=True)]
        dresults = [array.write(time, found[place]) for place, array in zip(with_gradient, dresults, strict=True)]
        return time - 1, dstate, dparameters, dinputs.write(time, dinput), dresults

    dinputs = tf.TensorArray(dtype, steps, element_shape=inputs.shape[1:])
    dresults = [
        tf.TensorArray(dtype, steps, element_shape=[start.shape[0], matrices[place].shape[1]])
        for place in with_gradient
    ]
    zeros = [tf.zeros_like(parameters[place]) for place in learnt]
    _, dstate, dparameters, dinputs, dresults = tf.while_loop(
        lambda time, *_: time >= 0,
        body,
        (steps - 1, tf.zeros_like(start), zeros, dinputs, dresults),
        parallel_iterations=1,
    )
    dothers = [None for _ in (*matrices, *parameters)]
    for place, array in zip(with_gradient, dresults, strict=True):
        factor, dresult = (tf.reshape(t, [-1, t.shape[-1]]) for t in (factors[place].stack(), array.stack()))
        dothers[place] = tf.matmul(factor, dresult, transpose_a=True)
    for place, dparameter in zip(learnt, dparameters, strict=True):
        dothers[number + place] = dparameter
    return [dinputs.stack(), dstate, *dothers]
