"""The two optimizers of the paper, with its coupled weight decay.

Keras optimizers decouple weight decay from the gradient, SGD folds the learning rate into the momentum, and Adam adds
epsilon before the bias correction. DARTS was tuned with the other conventions, and its virtual step (equation 6)
needs the momentum buffer, so these two follow them.
"""

import math

import keras
import tensorflow as tf
from keras import ops

from darts_tf.devices import replicas
from darts_tf.private.keras import GradientHooks, is_decayed, moments_of, place_of
from darts_tf.private.tensorflow import momentum_step

FIRST_SCALE = 2.0**15
GOOD_STEPS = 2000


def _where(made, value, otherwise):
    """A tensor, or `otherwise` if `made`, True or a scalar, is false."""
    return value if made is True else tf.where(made, value, tf.cast(otherwise, value.dtype))


class _Optimizer(GradientHooks):
    """What the two have in common: gradients of all replicas, which are added up and then clipped, and what follows.

    Steps that are left out change nothing: those of a `loss_scale` that was too large, and with
    `gradient_accumulation_steps` those of batches whose gradients are only added to those of the next.
    """

    def __init__(self, l2, loss_scale, **kwargs):
        super().__init__(**kwargs)
        if not l2 >= 0:
            raise ValueError(f"l2={l2}: expected a number, 0 or more.")
        if loss_scale and self.loss_scale_factor:
            raise ValueError(f"loss_scale_factor={self.loss_scale_factor} with loss_scale=True: expected None.")
        self.l2, self.loss_scale = l2, loss_scale
        self._follow = lambda: None

    def build(self, variables):
        super().build(variables)
        if self.loss_scale:
            start = keras.initializers.Constant(FIRST_SCALE)
            self._scale = self.add_variable((), start, "float32", name="scale")
            self._good_steps = self.add_variable((), "zeros", "int64", name="good_steps")

    @property
    def scaling(self):
        """What `loss_scale` keeps from step to step, a list of variables."""
        return [self._scale, self._good_steps]

    def scale_loss(self, loss):
        """A loss as it is to be differentiated; what `apply` gets are the gradients of that."""
        if not self.loss_scale:
            return super().scale_loss(loss)
        return loss * (tf.convert_to_tensor(self._scale) if self.built else FIRST_SCALE)

    @property
    def skipped(self):
        """Whether the last step was left out, a scalar."""
        return tf.equal(self._good_steps, 0)

    def _unscaled(self, gradients):
        """The gradients of the loss, NaN if one of them is not finite; adapts the scale to that."""
        scale = tf.convert_to_tensor(self._scale)
        gradients = [gradient / scale for gradient in gradients]
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients])
        good_steps = tf.where(finite, tf.convert_to_tensor(self._good_steps) + 1, 0)
        growth = tf.where(tf.equal(good_steps % GOOD_STEPS, 0), 2.0, 1.0)
        self._scale.assign(scale * tf.where(finite, growth, 0.5))
        self._good_steps.assign(good_steps)
        return [tf.where(finite, gradient, math.nan) for gradient in gradients]

    def _is_last(self, done=0):
        """Whether a batch is the last one of its step, a scalar; True if each is.

        Args:
            done: 0 before `apply` has counted it, then 1.
        """
        steps = self.gradient_accumulation_steps
        return tf.equal((self.batches + 1 - done) % steps, 0) if steps else True

    def _sums_with(self, gradients):
        """Means of the gradients of all batches of a step so far; where they make the step, they begin anew."""
        last, sums = self._is_last(), []
        for kept, gradient in zip(self.accumulated, gradients, strict=True):
            sums.append(tf.convert_to_tensor(kept) + gradient / self.gradient_accumulation_steps)
            kept.assign(tf.where(last, tf.zeros_like(sums[-1]), sums[-1]))
        return sums

    def add_up(self, gradients):
        return replicas.add(gradients)

    def clip(self, gradients):
        if self.loss_scale:
            gradients = self._unscaled(gradients)
        if self.gradient_accumulation_steps:
            gradients = self._sums_with(gradients)
        if not self.global_clipnorm:
            return super().clip(gradients)
        # As Keras does in more graph nodes: with hundreds of variables that is seconds of start-up.
        return tf.clip_by_global_norm(gradients, self.global_clipnorm)[0]

    def _is_made(self, gradient):
        """Whether a step is made, a scalar; True if each is. `gradient` is as `clip` gives it, NaN if it is not."""
        made = self._is_last()
        return made & tf.math.is_finite(tf.reshape(gradient, [-1])[0]) if self.loss_scale else made

    def _decay(self, variable, rate):
        """Makes a variable smaller, of `weight_decay`."""
        if self.weight_decay and is_decayed(variable, self):
            variable.assign_sub(rate * self.weight_decay * variable)

    def apply(self, grads, trainable_variables=None):
        """As Keras's."""
        if self.gradient_accumulation_steps and trainable_variables is not None:
            trainable_variables = list(trainable_variables)
            pairs = zip(grads, trainable_variables, strict=True)
            grads = [tf.zeros_like(variable) if gradient is None else gradient for gradient, variable in pairs]
        super().apply(grads, trainable_variables)
        self._follow()

    def keep_averages(self, variables, statistics, momentum):
        """Keeps exponential moving averages of a network from now on, which the optimizer has been built for.

        After n steps average <- d * average + (1 - d) * variable, with d the smaller one of `momentum` and
        (1 + n) / (10 + n), as of `tf.train.ExponentialMovingAverage`: a short training, too, forgets its beginning,
        which Keras's `use_ema` does not. The averages are among the optimizer's variables.

        Args:
            variables: those that are trained.
            statistics: moving statistics of batch norms. Replicas, each of which has its own, average their mean.
            momentum: d, from 0 to 1.
        """
        pairs = []
        for variable in (*variables, *statistics):
            average = self.add_variable(variable.shape, "zeros", variable.dtype, name="moving_average")
            average.assign(keras.ops.convert_to_numpy(variable))
            pairs.append((variable, average))
        count = len(variables)

        def follow():
            number = tf.cast(tf.convert_to_tensor(self.iterations), "float32")
            part = 1 - tf.minimum(momentum, (1 + number) / (10 + number))
            part = _where(self._is_last(done=1), part, 0)
            values = [tf.identity(variable) for variable, _ in pairs]  # which are on this replica's device
            values = values[:count] + list(replicas.average(values[count:]) if statistics else [])
            for value, (_, average) in zip(values, pairs, strict=True):
                average.assign_add(tf.cast(part, value.dtype) * (value - tf.convert_to_tensor(average)))

        def swap():
            for variable, average in pairs:
                value = tf.identity(variable)
                variable.assign(average)
                average.assign(value)

        self._follow, self.swap_averages = follow, swap

    def get_config(self):
        return {**super().get_config(), "l2": self.l2, "loss_scale": self.loss_scale}


@keras.saving.register_keras_serializable("darts_tf")
class SGD(_Optimizer, keras.optimizers.SGD):
    """SGD with momentum and weight decay added to the gradient.

    Per variable: buffer <- momentum * buffer + gradient + l2 * variable; variable <- variable - rate * buffer. With
    `nesterov` the variable descends along gradient + l2 * variable + momentum * buffer.

    All other arguments are those of `keras.optimizers.SGD`, `weight_decay` for example, which is decoupled.

    Args:
        learning_rate: float, schedule or callable, as in Keras.
        momentum: float.
        l2: float, the weight decay of the paper. Gradient clipping, if asked for, does not see it.
        loss_scale: whether to scale losses, as float16 needs it. Where a gradient of any replica is not finite all of
            them leave out that step, and the scale is halved; after 2,000 good steps it is doubled.
            `keras.optimizers.LossScaleOptimizer` asks the first replica only.

    Raises:
        ValueError: an argument is out of range, or does not go with `loss_scale`.
    """

    def __init__(self, learning_rate=0.025, momentum=0.9, l2=3e-4, loss_scale=False, name="sgd", **kwargs):
        super().__init__(l2, loss_scale, learning_rate=learning_rate, momentum=momentum, name=name, **kwargs)

    def update_step(self, gradient, variable, learning_rate):
        rate, momentum = tf.cast(learning_rate, variable.dtype), tf.constant(self.momentum, gradient.dtype)
        made = self._is_made(gradient)  # else the step is one of values that change nothing
        rate, momentum = _where(made, rate, 0), _where(made, momentum, 1)
        self._decay(variable, rate)
        gradient = _where(made, self._decayed(gradient, variable), 0)
        if self.momentum:
            momentum_step(variable, self._buffer(variable).value, gradient, rate, momentum, self.nesterov)
        else:
            variable.assign_sub(rate * gradient)

    @property
    def virtual_rate(self):
        """How far `virtual_step` goes by a gradient: xi of equations 6 and 7."""
        return self.learning_rate * (1 + self.momentum if self.nesterov else 1)

    def virtual_step(self, gradients, variables, values):
        """What the next step, unclipped, would make of the variables (w' of equation 6); changes nothing.

        Args:
            gradients: tensors, one per variable.
            variables: some of the optimizer's variables, in any order.
            values: tensors, where the variables stand.

        Returns:
            Tensors, one per variable.
        """
        rate = tf.convert_to_tensor(self.learning_rate)
        ahead = []
        for gradient, variable, value in zip(gradients, variables, values, strict=True):
            own_rate = tf.cast(rate, value.dtype)
            if self.weight_decay and is_decayed(variable, self):
                value *= 1 - self.weight_decay * own_rate
            gradient = step = self._decayed(gradient, value)
            if self.momentum:
                step += self.momentum * tf.convert_to_tensor(self._buffer(variable))
                if self.nesterov:
                    step = gradient + self.momentum * step
            ahead.append(value - own_rate * step)
        return ahead

    def _decayed(self, gradient, value):
        return gradient + self.l2 * value if self.l2 else gradient

    def _buffer(self, variable):
        return self.momentums[place_of(variable, self)]


@keras.saving.register_keras_serializable("darts_tf")
class AveragedSGD(SGD):
    """SGD that can average its weights: after `start_averaging`, `averages` are the means of what each step has made.

    Averaged SGD (Polyak & Juditsky, 1992), as language models are trained (Merity et al., 2017). Keras's `use_ema` has
    a moving average. Arguments are those of `SGD`.

    Attributes:
        averages: variables, one per weight, in the order of the optimizer's.
    """

    def build(self, variables):
        super().build(variables)
        self.averages = [self.add_variable_from_reference(variable, name="average") for variable in variables]
        self._start = self.add_variable((), keras.initializers.Constant(-1), "int64", name="start_of_averaging")

    def start_averaging(self):
        """Averages from the next step on; what was averaged so far is forgotten."""
        self._start.assign(self.iterations)

    @property
    def is_averaging(self):
        """Whether there are averages."""
        start, now = (int(keras.ops.convert_to_numpy(value)) for value in (self._start, self.iterations))
        return 0 <= start < now

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient, variable, learning_rate)
        start, average = tf.convert_to_tensor(self._start), self.averages[place_of(variable, self)]
        number = tf.cast(tf.convert_to_tensor(self.iterations) + 1 - start, average.dtype)
        part = tf.where(start < 0, tf.zeros_like(number), _where(self._is_last(), 1 / number, 0))
        average.assign_add(part * (tf.convert_to_tensor(variable) - average))

    def swap(self, variables):
        """Puts the averages in place of some of the optimizer's variables, and these in place of the averages."""
        for variable in variables:
            average = self.averages[place_of(variable, self)]
            value = tf.identity(variable)
            variable.assign(average)
            average.assign(value)


@keras.saving.register_keras_serializable("darts_tf")
class Adam(_Optimizer, keras.optimizers.Adam):
    """Adam with weight decay added to the gradient, and epsilon added after the bias correction.

    All other arguments are those of `keras.optimizers.Adam`, `amsgrad` for example, which divides by the largest second
    moment so far, or `weight_decay`, which is decoupled: `Adam(1e-3, beta_1=0.9, l2=0.0, weight_decay=0.05)` is AdamW
    (Loshchilov & Hutter, 2019).

    Args:
        learning_rate: float, schedule or callable, as in Keras.
        beta_1, beta_2, epsilon: floats.
        l2: float, the weight decay of the paper.
        loss_scale: as of `SGD`.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        learning_rate=3e-4,
        beta_1=0.5,
        beta_2=0.999,
        epsilon=1e-8,
        l2=1e-3,
        loss_scale=False,
        name="adam",
        **kwargs,
    ):
        own = {"learning_rate": learning_rate, "beta_1": beta_1, "beta_2": beta_2, "epsilon": epsilon}
        super().__init__(l2, loss_scale, **own, name=name, **kwargs)

    def update_step(self, gradient, variable, learning_rate):
        dtype = variable.dtype
        made = self._is_made(gradient)  # else the step is one of values that change nothing
        rate = _where(made, ops.cast(learning_rate, dtype), 0)
        self._decay(variable, rate)
        gradient = _where(made, ops.add(ops.cast(gradient, dtype), ops.multiply(variable, self.l2)), 0)
        beta_1, beta_2 = (beta if made is True else tf.where(made, beta, 1.0) for beta in (self.beta_1, self.beta_2))
        step = ops.cast(ops.add(self.iterations, 1), dtype)
        first, second, largest = moments_of(variable, self)
        self.assign(first, ops.add(first * beta_1, gradient * (1 - beta_1)))
        self.assign(second, ops.add(second * beta_2, ops.square(gradient) * (1 - beta_2)))
        if self.amsgrad:
            self.assign(largest, ops.maximum(largest, second))
            second = largest
        mean = first / (1 - ops.power(ops.cast(self.beta_1, dtype), step))
        variance = second / (1 - ops.power(ops.cast(self.beta_2, dtype), step))
        self.assign_sub(variable, rate * mean / (ops.sqrt(variance) + self.epsilon))
