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


class _Summed(GradientHooks):
    def add_up(self, gradients):
        return replicas.add(gradients)


def _checked(l2):
    if not l2 >= 0:
        raise ValueError(f"l2={l2}: expected a number, 0 or more.")
    return l2


@keras.saving.register_keras_serializable("darts_tf")
class SGD(_Summed, keras.optimizers.SGD):
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
        super().__init__(learning_rate=learning_rate, momentum=momentum, name=name, **kwargs)
        self.l2 = _checked(l2)
        self.loss_scale = loss_scale
        # What these do is not left out with the step.
        for other in ("weight_decay", "use_ema", "loss_scale_factor", "gradient_accumulation_steps"):
            value = getattr(self, other)
            if loss_scale and value:
                raise ValueError(f"{other}={value} with loss_scale=True: expected {type(value)() or None}.")

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

    def clip(self, gradients):
        if self.loss_scale:
            gradients = self._unscaled(gradients)
        if not self.global_clipnorm:
            return super().clip(gradients)
        # As Keras does in more graph nodes: with hundreds of variables that is seconds of start-up.
        return tf.clip_by_global_norm(gradients, self.global_clipnorm)[0]

    def update_step(self, gradient, variable, learning_rate):
        rate, momentum = tf.cast(learning_rate, variable.dtype), tf.constant(self.momentum, gradient.dtype)
        good = tf.math.is_finite(tf.reshape(gradient, [-1])[0]) if self.loss_scale else True
        gradient = self._decayed(gradient, variable)
        if self.loss_scale:  # a step of these values changes nothing
            gradient, rate, momentum = tf.where(good, gradient, 0), tf.where(good, rate, 0), tf.where(good, momentum, 1)
        if self.momentum:
            momentum_step(variable, self._buffer(variable).value, gradient, rate, momentum, self.nesterov)
        else:
            variable.assign_sub(rate * gradient)

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

    def get_config(self):
        return {**super().get_config(), "l2": self.l2, "loss_scale": self.loss_scale}


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
        part = tf.where(start < 0, tf.zeros_like(number), 1 / number)
        average.assign_add(part * (tf.convert_to_tensor(variable) - average))

    def swap(self, variables):
        """Puts the averages in place of some of the optimizer's variables, and these in place of the averages."""
        for variable in variables:
            average = self.averages[place_of(variable, self)]
            value = tf.identity(variable)
            variable.assign(average)
            average.assign(value)


@keras.saving.register_keras_serializable("darts_tf")
class Adam(_Summed, keras.optimizers.Adam):
    """Adam with weight decay added to the gradient, and epsilon added after the bias correction.

    All other arguments are those of `keras.optimizers.Adam`, `weight_decay` for example, which is decoupled, and
    `amsgrad`, which divides by the largest second moment so far.

    Args:
        learning_rate: float, schedule or callable, as in Keras.
        beta_1, beta_2, epsilon: floats.
        l2: float, the weight decay of the paper.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, learning_rate=3e-4, beta_1=0.5, beta_2=0.999, epsilon=1e-8, l2=1e-3, name="adam", **kwargs):
        super().__init__(
            learning_rate=learning_rate, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon, name=name, **kwargs
        )
        self.l2 = _checked(l2)

    def update_step(self, gradient, variable, learning_rate):
        dtype = variable.dtype
        gradient = ops.add(ops.cast(gradient, dtype), ops.multiply(variable, self.l2))
        step = ops.cast(ops.add(self.iterations, 1), dtype)
        first, second, largest = moments_of(variable, self)
        self.assign(first, ops.add(first * self.beta_1, gradient * (1 - self.beta_1)))
        self.assign(second, ops.add(second * self.beta_2, ops.square(gradient) * (1 - self.beta_2)))
        if self.amsgrad:
            self.assign(largest, ops.maximum(largest, second))
            second = largest
        mean = first / (1 - ops.power(ops.cast(self.beta_1, dtype), step))
        variance = second / (1 - ops.power(ops.cast(self.beta_2, dtype), step))
        self.assign_sub(variable, ops.cast(learning_rate, dtype) * mean / (ops.sqrt(variance) + self.epsilon))

    def get_config(self):
        return {**super().get_config(), "l2": self.l2}
