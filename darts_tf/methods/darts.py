"""The algorithm: bilevel optimisation of architecture and weights (algorithm 1 of the paper).

`architecture_gradient` is the algorithm's heart, written on plain tensors. `DARTS` makes a Keras model of it.
"""

import functools
import math

import keras
import tensorflow as tf

from darts_tf.devices import replicas
from darts_tf.private.keras import ModelHooks


def architecture_gradient(
    loss,
    weights,
    alphas,
    train,
    valid,
    virtual_step=None,
    rate=None,
    average=lambda tensors: tensors,
    scale=None,
    exact_loss=None,
):
    """Gradient of the validation loss with respect to alpha (section 2.3 of the paper).

    Args:
        loss: function (weights, alphas, batch) -> scalar loss.
        weights, alphas: lists of tensors.
        train, valid: batches, given to `loss` as they are.
        virtual_step: function (gradients of weights) -> w', one step of training ahead; without it the gradient is
            first order, with w' = w.
        rate: scalar, the learning rate xi of the virtual step; both are given, or neither.
        average: function of nested tensors -> their mean over the replicas, each of which has its own part of a batch.
        scale: see `gradient`.
        exact_loss: what to differentiate in finite differences, whose steps are smaller than a low precision can tell;
            `loss` if it is not given.

    Returns:
        One tensor per alpha. Weights and alphas that a loss does not depend on have the gradient zero.

    Raises:
        ValueError: only one of `virtual_step` and `rate` is given.
    """
    if (virtual_step is None) != (rate is None):
        given, missing = ("rate", "virtual_step") if virtual_step is None else ("virtual_step", "rate")
        raise ValueError(f"{given} without {missing}: expected both for the second order, none for the first.")
    if virtual_step is None:
        return average(gradient(loss, weights, alphas, valid, of="alphas", scale=scale))

    # Equation 6: w' = w - xi d_w L_train(w, alpha)
    ahead = virtual_step(average(gradient(loss, weights, alphas, train, of="weights", scale=scale)))
    # The two parts of equation 7: d_alpha L_val(w', alpha) and v = d_w' L_val(w', alpha)
    v, dalpha = average(gradient(loss, ahead, alphas, valid, of="both", scale=scale))
    hessian_v = average(hessian_vector_product(exact_loss or loss, weights, alphas, train, v))
    return [d - tf.cast(rate, d.dtype) * h for d, h in zip(dalpha, hessian_v, strict=True)]


def hessian_vector_product(loss, weights, alphas, batch, v):
    """d2 L(w, alpha) / d_alpha d_w times v, by central differences (equation 8); arguments as above.

    Returns:
        One tensor per alpha, zero if v is zero or not finite.
    """
    epsilon = 0.01 / tf.linalg.global_norm(v)
    step = [epsilon * d for d in v]
    plus = gradient(loss, [w + d for w, d in zip(weights, step, strict=True)], alphas, batch, of="alphas")
    # One pass after the other: their activations need not be in memory together.
    with tf.control_dependencies(plus):
        batch = tf.nest.map_structure(tf.identity, batch)
    minus = gradient(loss, [w - d for w, d in zip(weights, step, strict=True)], alphas, batch, of="alphas")
    has_direction = tf.math.is_finite(epsilon) & (epsilon > 0)
    return [tf.where(has_direction, (p - m) / (2 * epsilon), 0) for p, m in zip(plus, minus, strict=True)]


def gradient(loss, weights, alphas, batch, of, scale=None):
    """Gradient of the loss at (weights, alphas) with respect to "weights", "alphas" or "both", as lists of tensors.

    With a `scale` the loss is multiplied by it and the gradient divided, so that float16 can hold what is between them.
    What the loss does not depend on has the gradient zero.
    """
    if of == "alphas":
        # Says that nobody wants gradients of the weights, which spares half of the backward pass.
        weights = [tf.stop_gradient(w) for w in weights]
    wanted = {"weights": weights, "alphas": alphas, "both": [weights, alphas]}[of]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(wanted)
        value = loss(weights, alphas, batch)
        value = value if scale is None else value * scale
    gradients = tape.gradient(value, wanted, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    gradients = _shaped(gradients, wanted)
    return gradients if scale is None else tf.nest.map_structure(lambda g: g / scale, gradients)


def _shaped(gradients, wanted):
    """The gradients, dense and with their shapes: functions that serve operations of all sizes do not tell them.

    None stays None.
    """
    dense = [
        gradient if gradient is None else tf.convert_to_tensor(gradient) for gradient in tf.nest.flatten(gradients)
    ]
    for gradient, variable in zip(dense, tf.nest.flatten(wanted), strict=True):
        if gradient is not None:
            gradient.set_shape(variable.shape)
    return tf.nest.pack_sequence_as(wanted, dense)


def _pair(data):
    """A training batch or its specs, checked; `train_on_batch` adds a weight, which is None."""
    parts = [part for part in data if part is not None] if isinstance(data, tuple | list) else []
    if len(parts) != 2 or not all(isinstance(part, tuple | list) and len(part) == 2 for part in parts):
        found = str(tf.nest.map_structure(lambda part: getattr(part, "shape", part), data))
        raise ValueError(f"a training batch of {found}: expected ((x, y), (x_valid, y_valid)).")
    return parts


@keras.saving.register_keras_serializable("darts_tf")
class DARTS(ModelHooks):
    """Searches an architecture: trains the weights and the alphas of a supernet in turn.

    A training batch is a pair ((x, y), (x_valid, y_valid)): the weights descend the loss of the first, alpha that of
    the second. Evaluation and prediction take batches as any Keras model.

        search = DARTS(SearchNetwork(), unrolled=True)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        search.compile(optimizer=SGD(), arch_optimizer=Adam(), loss=loss)
        search.fit(tf.data.Dataset.zip(train, valid), epochs=50)
        search.genotype()

    Layers and variables of the network with `trainable = False`, alphas too, stay as they are; as with any Keras model
    that has to be said before `compile`. A weight that the loss does not depend on stays as it is, too.

    Args:
        network: a Keras model with `weight_variables` and `arch_variables`; its `genotype()` is the result.
        unrolled: second order: alpha's gradient is taken after a virtual step of the weights.
    """

    def __init__(self, network, unrolled=False, **kwargs):
        super().__init__(**kwargs)
        self.network = network
        self.unrolled = unrolled

    def compile(self, optimizer, arch_optimizer, loss, metrics=None, jit_compile=False, **kwargs):
        """As `keras.Model.compile`.

        Args:
            optimizer: trains the weights. With `darts_tf.optimizers.SGD` the virtual step follows its momentum and
                weight decay; with any other it is plain gradient descent at its learning rate. In float16 it has to be
                that SGD with `loss_scale`.
            arch_optimizer: trains alpha.
            loss: as in Keras.
            metrics: as in Keras, computed on training batches.
            jit_compile: whether to use XLA, which is slow on CPUs.

        Raises:
            ValueError: an optimizer does not fit.
        """
        optimizer, arch_optimizer = keras.optimizers.get(optimizer), keras.optimizers.get(arch_optimizer)
        self._check_optimizers(optimizer, arch_optimizer)
        kwargs["auto_scale_loss"] = False  # by an optimizer that looks for overflows on the first replica only
        super().compile(optimizer=optimizer, loss=loss, metrics=metrics, jit_compile=jit_compile, **kwargs)
        self.network.inline = self.jit_compile
        self.arch_optimizer = arch_optimizer
        self._has_all = False

    def _check_optimizers(self, optimizer, arch_optimizer):
        if self.network.compute_dtype == "float16" and not getattr(optimizer, "loss_scale", False):
            raise ValueError("float16: expected optimizer=darts_tf.optimizers.SGD(..., loss_scale=True).")
        for name, given in (("optimizer", optimizer), ("arch_optimizer", arch_optimizer)):
            if given is None:
                raise ValueError(f"{name}=None: expected a Keras optimizer.")
            if isinstance(given, keras.optimizers.LossScaleOptimizer):
                raise ValueError(f"{name}=LossScaleOptimizer: expected darts_tf.optimizers.SGD(..., loss_scale=True).")
            if given.use_ema:  # Keras would assign the averages of some variables to others
                raise ValueError(f"{name} with use_ema=True: expected False.")
        if self.unrolled and optimizer.gradient_accumulation_steps:
            steps = optimizer.gradient_accumulation_steps
            raise ValueError(
                f"optimizer with gradient_accumulation_steps={steps}: expected None with unrolled=True, which looks "
                "one step of the weights ahead."
            )
        if optimizer is arch_optimizer:
            raise ValueError("optimizer and arch_optimizer are one object: expected two.")

    def get_compile_config(self):
        return {
            **super().get_compile_config(),
            "arch_optimizer": keras.saving.serialize_keras_object(self.arch_optimizer),
        }

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.network.built:
            self._build_optimizers()

    def build(self, input_shape):
        if not self.network.built:
            self.network.build(input_shape)
        self.built = True

    def create_variables(self, x, y):
        """Creates the variables of the network, the metrics and the optimizers; `fit` does it for a `tf.data.Dataset`.

        Args:
            x, y: a batch, or its specs.
        """
        if self._has_all:  # a retrace within an epoch must not reset the metrics
            return
        with tf.init_scope(), self.distribute_strategy.scope():
            self.build(x.shape)
            self._build_optimizers()
            x, y = (tf.zeros([1, *tensor.shape[1:]], tensor.dtype) for tensor in (x, y))
            logits = tf.zeros(self.network.compute_output_shape(x.shape), self.variable_dtype)
            self.compute_loss(x, y, logits)
            self.compute_metrics(x, y, logits)
            self.reset_metrics()
        self._has_all = True

    def is_built_by_keras(self):
        # Keras would take a pair of batches for x and y, and averages batches over workers in vain.
        return not self._has_all

    def _build_optimizers(self):
        self.optimizer.build(self.network.weight_variables)
        self.arch_optimizer.build(self.network.arch_variables)

    def fit(self, x, *args, **kwargs):
        """As `keras.Model.fit`; x is a `tf.data.Dataset` of pairs of batches.

        It may be a `tf.distribute.DistributedDataset`, too, after `create_variables`.

        Raises:
            ValueError: x holds something else.
        """
        if kwargs.get("class_weight") is not None:
            raise ValueError("class_weight: expected None, a search counts all images alike.")
        if isinstance(x, tf.data.Dataset):
            train, _ = _pair(x.element_spec)
            self.create_variables(*train)
        return super().fit(x, *args, **kwargs)

    def call(self, x, training=False):
        return self.network(x, training=training)

    def genotype(self):
        """The genotype of the current alphas."""
        return self.network.genotype()

    def train_step(self, data):
        train, valid = _pair(data)
        self.create_variables(*train)  # a step that creates some is traced a second time
        alphas = self.network.arch_variables
        undone = [] if self._scale() is None else [*self.network.non_trainable_variables, *self._alpha_state()]
        before = [tf.identity(variable) for variable in undone]

        dalpha, finite = self._alpha_gradient(train, valid, self.unrolled)
        # Keras adds gradients up over the replicas; this one is their mean already.
        self.arch_optimizer.apply([self.arch_optimizer.scale_loss(d / replicas.count()) for d in dalpha], alphas)
        with tf.control_dependencies([tf.identity(alpha) for alpha in alphas]):
            logs = self._weight_step(*train, finite)
        for variable, value in zip(undone, before, strict=True):
            variable.assign(tf.where(self.optimizer.skipped, value, variable))
        return logs

    def alpha_gradient(self, train, valid, unrolled=None):
        """`architecture_gradient` of this model where it stands, for two batches (x, y)."""
        return self._alpha_gradient(train, valid, self.unrolled if unrolled is None else unrolled)[0]

    def _alpha_gradient(self, train, valid, unrolled):
        """Also tells whether all gradients on the way to it were finite, on all replicas: True or a scalar."""
        weights, alphas = self.values()
        scale, finite = self._scale(), []

        def average(gradients):
            gradients = replicas.average(gradients)
            finite.extend(tf.reduce_all(tf.math.is_finite(g)) for g in tf.nest.flatten(gradients))
            return gradients

        ahead = (self.virtual_step, tf.convert_to_tensor(self.optimizer.learning_rate)) if unrolled else ()
        exact = functools.partial(self.loss_at, exact=True)
        average = replicas.average if scale is None else average
        options = {"average": average, "scale": scale, "exact_loss": exact}
        dalpha = architecture_gradient(self.loss_at, weights, alphas, train, valid, *ahead, **options)
        return dalpha, scale is None or tf.reduce_all(finite)

    def _scale(self):
        """What the optimizer multiplies losses by, None if nothing."""
        scale = self.optimizer.scale_loss(1.0)
        return None if isinstance(scale, float) else scale

    def _alpha_state(self):
        return [*self.network.arch_variables, *self.arch_optimizer.variables]

    def loss_at(self, weights, alphas, batch, exact=False):
        """Mean loss of this replica's batch (x, y), a scalar, with these tensors in place of the variables.

        Changes nothing: what the pass would write (moving statistics) is forgotten. With `exact` the network computes
        in the type of its variables.
        """
        x, y = batch
        variables = self.network.weight_variables + self.network.arch_variables
        exact = {"exact": True} if exact and self.network.compute_dtype != self.network.variable_dtype else {}
        with keras.StatelessScope(zip(variables, [*weights, *alphas], strict=True)):
            logits = self.network(x, training=True, **exact)
            return self.compute_loss(x, y, logits, training=True) * replicas.count()

    def virtual_step(self, gradients):
        """The weights one step of the optimizer ahead (w' of equation 6), as tensors; changes nothing."""
        weights, _ = self.values()
        if hasattr(self.optimizer, "virtual_step"):
            return self.optimizer.virtual_step(gradients, self.network.weight_variables, weights)
        rate = tf.convert_to_tensor(self.optimizer.learning_rate)
        return [w - tf.cast(rate, w.dtype) * g for w, g in zip(weights, gradients, strict=True)]

    def values(self):
        """Weights and alphas where they stand, as two lists of tensors."""
        weights = [tf.convert_to_tensor(variable) for variable in self.network.weight_variables]
        return weights, [tf.convert_to_tensor(variable) for variable in self.network.arch_variables]

    def _weight_step(self, x, y, finite):
        variables = self.network.weight_variables
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([variable.value for variable in variables])
            logits = self.network(x, training=True)
            loss = self.compute_loss(x, y, logits, training=True)
            scaled = self.optimizer.scale_loss(loss)
        tracker = next(metric for metric in self.metrics if metric.name == "loss")
        tracker.update_state(loss * replicas.count(), sample_weight=tf.shape(x)[0])
        gradients = _shaped(tape.gradient(scaled, [variable.value for variable in variables]), variables)
        if self._scale() is not None:  # an optimizer that scales leaves out steps whose gradients are not finite
            gradients = [g if g is None else tf.where(finite, g, math.nan) for g in gradients]
        self.optimizer.apply(gradients, variables)
        return self.compute_metrics(x, y, logits)

    def get_config(self):
        return {
            **super().get_config(),
            "network": keras.saving.serialize_keras_object(self.network),
            "unrolled": self.unrolled,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "network": keras.saving.deserialize_keras_object(config["network"])})
