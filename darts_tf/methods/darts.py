"""The algorithm: bilevel optimisation of architecture and weights (algorithm 1 of the paper).

`architecture_gradient` is the algorithm's heart, written on plain tensors. `DARTS` makes a Keras model of it.
"""

import functools
import inspect
import math
import warnings

import keras
import numpy as np
import tensorflow as tf

from darts_tf.costs import forms
from darts_tf.data import pairs
from darts_tf.devices import replicas
from darts_tf.methods import penalties, perturbations
from darts_tf.methods.optimizers import Adam
from darts_tf.ops import kernels
from darts_tf.private.keras import ModelHooks

DIFFERENCES = ("central", "forward")  # of equation 8


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
    clip=None,
    difference="central",
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
        clip: function of gradients of weights -> these clipped, and what they were multiplied by, for the gradient of
            the virtual step and for v of equation 8; by default they stay as they are.
        difference: "central" as in equation 8, or "forward": between w + eps v and w, where the gradient of the virtual
            step is taken anyway. That is four passes with the step of the weights in place of five, and exact to
            the first order in eps only.

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

    clip = clip or (lambda gradients: (gradients, 1.0))
    exact, here = exact_loss or loss, None
    # Equation 6: w' = w - xi d_w L_train(w, alpha)
    if difference == "forward":
        descent, here = average(gradient(exact, weights, alphas, train, of="both", scale=scale))
    else:
        descent = average(gradient(loss, weights, alphas, train, of="weights", scale=scale))
    descent, factor = clip(descent)
    ahead = virtual_step(descent)
    # The two parts of equation 7: d_alpha L_val(w', alpha) and v = d_w' L_val(w', alpha)
    v, dalpha = average(gradient(loss, ahead, alphas, valid, of="both", scale=scale))
    hessian_v = average(hessian_vector_product(exact, weights, alphas, train, clip(v)[0], here))
    return [d - tf.cast(rate, d.dtype) * tf.cast(factor, d.dtype) * h for d, h in zip(dalpha, hessian_v, strict=True)]


def hessian_vector_product(loss, weights, alphas, batch, v, here=None):
    """d2 L(w, alpha) / d_alpha d_w times v, by central differences (equation 8); arguments as above.

    Args:
        here: the gradient of alpha at the weights; if it is given the difference is to that, in place of w - eps v.

    Returns:
        One tensor per alpha, zero if v is zero or not finite.
    """
    epsilon = 0.01 / tf.linalg.global_norm(v)
    step = [epsilon * d for d in v]
    ends = gradient(loss, [w + d for w, d in zip(weights, step, strict=True)], alphas, batch, of="alphas")
    starts, length = here, epsilon
    if here is None:
        # One pass after the other: their activations need not be in memory together.
        with tf.control_dependencies(ends):
            batch = tf.nest.map_structure(tf.identity, batch)
        starts = gradient(loss, [w - d for w, d in zip(weights, step, strict=True)], alphas, batch, of="alphas")
        length = 2 * epsilon
    has_direction = tf.math.is_finite(epsilon) & (epsilon > 0)
    return [tf.where(has_direction, (p - m) / length, 0) for p, m in zip(ends, starts, strict=True)]


def gradient(loss, weights, alphas, batch, of, scale=None):
    """Gradient of the loss at (weights, alphas) with respect to "weights", "alphas" or "both", as lists of tensors.

    With a `scale` the loss is multiplied by it and the gradient divided, so that float16 can hold what is between them.
    What the loss does not depend on has the gradient zero.
    """
    if of == "alphas":
        weights = kernels.frozen(weights)  # which spares half of the backward pass
    if of == "weights":
        alphas = kernels.frozen(alphas)
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
    """The two batches of a training batch, or their specs, checked; `train_on_batch` adds a weight, which is None."""
    parts = [part for part in data if part is not None] if isinstance(data, tuple | list) else []
    if len(parts) != 2 or not all(isinstance(part, tuple | list) and len(part) in (2, 3) for part in parts):
        found = str(tf.nest.map_structure(lambda part: getattr(part, "shape", part), data))
        raise ValueError(
            f"a training batch of {found}: expected ((x, y), (x_valid, y_valid)), with sample weights or without, or "
            "(x, y) and arch_data."
        )
    return [keras.utils.pack_x_y_sample_weight(*part) for part in parts]


def _samples(batch):
    """The number of samples in a batch, a scalar."""
    return tf.shape(tf.nest.flatten(batch)[0])[0]


def _check_loss(loss, from_logits):
    """Raises ValueError if a loss takes logits for probabilities, or the other way round.

    Args:
        loss: as of `keras.Model.compile`.
        from_logits: whether it gets logits, None if that is not known.
    """
    for one in keras.tree.flatten(loss):
        if isinstance(one, keras.optimizers.Optimizer):
            raise ValueError(f"loss={type(one).__name__}: expected a loss; alpha's optimizer goes by arch_optimizer=.")
        known = keras.losses.get(_CROSSENTROPY.get(one, one)) if isinstance(one, str) else one
        given = _from_logits(known)
        if from_logits is None or given is None or given == from_logits:
            continue
        name = getattr(known, "__name__", type(known).__name__)
        fitting = "".join(word[0].upper() + word[1:] for word in name.split("_"))
        kinds = ("probabilities", "logits")
        raise ValueError(
            f"loss={one if isinstance(one, str) else name} takes {kinds[given]}, the network gives "
            f"{kinds[from_logits]}: expected {fitting}(from_logits={from_logits})."
        )


# Names that Keras gives a meaning when it sees the labels; all of the meanings take probabilities.
_CROSSENTROPY = dict.fromkeys(("crossentropy", "ce"), "sparse_categorical_crossentropy")


def _from_logits(loss):
    """Whether a loss, an object or a function, takes logits, None if it does not say."""
    if isinstance(loss, keras.losses.Loss):
        return getattr(loss, "from_logits", None)
    try:
        default = inspect.signature(loss).parameters["from_logits"].default
    except (TypeError, ValueError, KeyError):  # it is no function, or one that nothing is known of
        return None
    return default if isinstance(default, bool) else None


@keras.saving.register_keras_serializable("darts_tf")
class DARTS(ModelHooks):
    """Searches an architecture: trains the weights and the alphas of a network in turn.

    The weights descend the loss of some samples, alpha that of others, see `fit`. All else is as of any Keras model:
    callbacks, metrics, sample weights, evaluation, prediction, saving.

        search = DARTS(SearchNetwork(), unrolled=True)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        search.compile(SGD(), loss, metrics=["accuracy"], arch_optimizer=Adam())
        search.fit(x, y, epochs=50, validation_data=(x_test, y_test))
        search.genotype()

    A network of your own is a `keras.Model`, functional ones included, with these properties or attributes:

        weight_variables  list of the trainable `keras.Variable`s other than alpha
        arch_variables    list of those that are alpha, trainable ones

    Nothing else is asked of it. What it may have, too:

        genotype()    the result of the search, for `DARTS.genotype`
        from_logits   whether it gives logits (True) or probabilities (False); losses are then checked against that
        exact         an argument of `call`: with exact=True it computes in the type of its variables. Only where the
                      dtype policy is of a low precision, whose finite differences (equation 8) are too coarse
        mixture       a method, and an argument of `call` that takes what it gives: the weights of the candidates.
                      `mixture(draw)` draws them where `is_sampled` is True; draw is a seed, int32 (2,). It may take
                      `purpose`, too
        has_noise     whether `call` takes such a seed as `draw`, for other noise, such as dropout
        purpose       an argument of `call`, for networks to which it matters which pass it is: "weights", the step of
                      the weights; "ahead", their loss in equations 6 and 8; "alpha", the validation loss.
                      `carried(purpose)` is then a list of variables whose new values are kept after such a pass, the
                      hidden states of recurrent networks for example
        inline        an attribute that `compile` sets to `jit_compile`, for networks that XLA wants otherwise

    Variables that do not exist before the first call, or `build`, need not be in the lists before. For example:

        class Choice(keras.Model):
            def __init__(self):
                super().__init__()
                self.candidates = [keras.layers.Dense(3), keras.layers.Dense(3, "relu")]
                self.alpha = self.add_weight(shape=(2,), initializer="zeros", name="alpha")

            def call(self, x):
                strengths = keras.ops.softmax(self.alpha)
                return sum(strengths[i] * candidate(x) for i, candidate in enumerate(self.candidates))

            weight_variables = property(lambda self: [v for layer in self.candidates for v in layer.variables])
            arch_variables = property(lambda self: [self.alpha])

    Layers and variables of the network with `trainable = False`, alphas too, stay as they are; as with any Keras model
    that has to be said before `compile`. A weight that the loss does not depend on stays as it is, too.

    Args:
        network: a Keras model as above, `SearchNetwork` for example.
        unrolled: second order: alpha's gradient is taken after a virtual step of the weights.
        penalty: what is added to alpha's loss, a name or an object, see `darts_tf.methods.penalties`.
        perturbation: what the weights' step does to the mixture, a name or an object, see
            `darts_tf.methods.perturbations`.
        seed: of what is drawn in the steps, an int. Every step draws anew, a run that goes on as it would have.
        costs: costs of the network that count in alpha's loss, `darts_tf.costs.forms.Cost`s.
        virtual_clipnorm: the largest norm of the gradient of the virtual step, and of v in equation 8, as the paper has
            it for recurrent cells; by default they are not clipped.
        difference: of the second order, "central" or "forward", see `architecture_gradient`.

    Attributes:
        penalty_weight, perturbation_size: variables, of a penalty and a perturbation; else None.
        cost_weights: list of variables, what each of the costs counts.

    Raises:
        ValueError: the network lacks something, or parts do not go together.
    """

    def __init__(
        self,
        network,
        unrolled=False,
        penalty=None,
        perturbation=None,
        seed=0,
        virtual_clipnorm=None,
        costs=(),
        difference="central",
        **kwargs,
    ):
        super().__init__(**kwargs)
        for name in ("weight_variables", "arch_variables"):
            if inspect.getattr_static(network, name, None) is None:  # a property may not have a value yet
                raise ValueError(f"network={type(network).__name__} has no {name}: expected a list of its variables.")
        if difference not in DIFFERENCES:
            raise ValueError(f"difference={difference!r}: expected one of {', '.join(DIFFERENCES)}.")
        self.network = network
        self.unrolled, self.difference = unrolled, difference
        self.penalty = None if penalty is None else penalties.get(penalty)
        self.perturbation = None if perturbation is None else perturbations.get(perturbation)
        self.costs = tuple(costs)
        self.seed, self.virtual_clipnorm, self._alpha_moves = seed, virtual_clipnorm, True
        self._check_parts()
        fixed = {"shape": (), "trainable": False, "autocast": False}
        self.penalty_weight = self.penalty and self.add_weight(
            initializer=keras.initializers.Constant(self.penalty.weight), name="penalty_weight", **fixed
        )
        self.perturbation_size = self.perturbation and self.add_weight(
            initializer=keras.initializers.Constant(self.perturbation.size), name="perturbation_size", **fixed
        )
        self.cost_weights = [
            self.add_weight(
                initializer=keras.initializers.Constant(cost.form.weight), name=f"weight_of_{cost.table.cost}", **fixed
            )
            for cost in self.costs
        ]
        self._arch_loss_tracker = keras.metrics.Mean(name="arch_loss")

    @property
    def alpha_moves(self):
        """Whether steps train alpha; a change has the step traced again."""
        return self._alpha_moves

    @alpha_moves.setter
    def alpha_moves(self, moves):
        if moves != self._alpha_moves:
            self._alpha_moves, self.train_function = moves, None

    def _check_parts(self):
        relaxation = getattr(self.network, "relaxation", None)
        if self.unrolled and not getattr(relaxation, "second_order", True):
            raise ValueError(
                f"unrolled=True with relaxation={relaxation.name}: expected unrolled=False; what is drawn does not "
                "change with the weights, so that there is no second order."
            )
        if self.perturbation and getattr(relaxation, "hard", False):
            raise ValueError(
                f"perturbation={self.perturbation.name} with relaxation={relaxation.name}: expected a relaxation that "
                "mixes all candidates."
            )
        if self.perturbation and self.perturbation.normalizes and not getattr(relaxation, "normalized", True):
            raise ValueError(
                f"perturbation={self.perturbation.name} with relaxation={relaxation.name}: expected a relaxation whose "
                "weights sum to one."
            )
        for name, part in (("penalty", self.penalty), ("perturbation", self.perturbation)):
            if part and relaxation is None:
                raise ValueError(
                    f"{name}={part.name}: expected a darts_tf.spaces.models.Supernet, which says what its alphas are "
                    f"of; {type(self.network).__name__} is none."
                )
        takes = inspect.signature(self.network.call).parameters
        for needed, what in (
            (getattr(self.network, "is_sampled", False), f"relaxation={getattr(relaxation, 'name', None)}"),
            (self.perturbation, "a perturbation"),
        ):
            if needed and "mixture" not in takes:
                raise ValueError(
                    f"{what}: expected a network whose call takes mixture, {type(self.network).__name__} does not."
                )

    def compile(
        self,
        optimizer,
        loss=None,
        loss_weights=None,
        metrics=None,
        weighted_metrics=None,
        *,
        arch_optimizer=None,
        jit_compile=False,
        **kwargs,
    ):
        """As `keras.Model.compile`.

        Args:
            optimizer: trains the weights: an object, a name or a configuration. With `darts_tf.optimizers.SGD` the
                virtual step follows its momentum and weight decay; with any other it is plain gradient descent at its
                learning rate. In float16 it has to be that SGD with `loss_scale`.
            loss, loss_weights: as in Keras.
            metrics, weighted_metrics: as in Keras, computed on training batches of the weights.
            arch_optimizer: trains alpha; default: `darts_tf.optimizers.Adam()`, the paper's.
            jit_compile: whether to use XLA, which is slow on CPUs.
            kwargs: `run_eagerly`, `steps_per_execution`.

        Raises:
            ValueError: an optimizer does not fit, or the loss takes probabilities and the network gives logits.
        """
        _check_loss(loss, getattr(self.network, "from_logits", None))
        self._compile(
            optimizer,
            arch_optimizer,
            loss=loss,
            loss_weights=loss_weights,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            jit_compile=jit_compile,
            **kwargs,
        )

    def _compile(self, optimizer, arch_optimizer, **kwargs):
        optimizer = keras.optimizers.get(optimizer)
        arch_optimizer = Adam() if arch_optimizer is None else keras.optimizers.get(arch_optimizer)
        self._check_optimizers(optimizer, arch_optimizer)
        kwargs["auto_scale_loss"] = False  # by an optimizer that looks for overflows on the first replica only
        super().compile(optimizer, **kwargs)
        if hasattr(self.network, "inline"):
            self.network.inline = self.jit_compile
        self.arch_optimizer = arch_optimizer
        self._has_all = False
        tf32 = tf.config.experimental.tensor_float_32_execution_enabled()
        if self.unrolled and tf32 and tf.config.list_physical_devices("GPU"):
            warnings.warn(
                "unrolled=True where GPUs multiply in TF32: the steps of the finite differences are smaller than that "
                "can tell; call tf.config.experimental.enable_tensor_float_32_execution(False) first.",
                stacklevel=3,
            )

    def _check_optimizers(self, optimizer, arch_optimizer):
        if self.network.compute_dtype == "float16" and not getattr(optimizer, "loss_scale", False):
            raise ValueError("float16: expected optimizer=darts_tf.optimizers.SGD(..., loss_scale=True).")
        for name, given in (("optimizer", optimizer), ("arch_optimizer", arch_optimizer)):
            if given is None:
                raise ValueError(f"{name}=None: expected a Keras optimizer.")
            if isinstance(given, keras.optimizers.LossScaleOptimizer):
                raise ValueError(f"{name}=LossScaleOptimizer: expected darts_tf.optimizers.SGD(..., loss_scale=True).")
            devices = self.distribute_strategy.num_replicas_in_sync
            if given.use_ema and given.ema_overwrite_frequency and devices > 1:  # which Keras cannot trace
                frequency = given.ema_overwrite_frequency
                raise ValueError(
                    f"{name} with ema_overwrite_frequency={frequency} on {devices} devices: expected None, which puts "
                    "the averages in place at the end of fit."
                )
        if self.unrolled and optimizer.gradient_accumulation_steps:
            steps = optimizer.gradient_accumulation_steps
            raise ValueError(
                f"optimizer with gradient_accumulation_steps={steps}: expected None with unrolled=True, which looks "
                "one step of the weights ahead."
            )
        if optimizer is arch_optimizer:
            raise ValueError("optimizer and arch_optimizer are one object: expected two.")

    def get_compile_config(self):
        if not self.compiled:
            return {}
        return {
            **super().get_compile_config(),
            "arch_optimizer": keras.saving.serialize_keras_object(self.arch_optimizer),
        }

    def compile_from_config(self, config):
        # Without a look at the loss: what was saved can be loaded.
        self._compile(**keras.saving.deserialize_keras_object(config))
        if self.network.built:
            self._build_optimizers()

    def build(self, input_shape):
        # A network without a `build` of its own makes its variables when it is called.
        if not self.network.built and type(self.network).build is not keras.Layer.build:
            self.network.build(input_shape)
        self.built = True

    @property
    def trainable_weights(self):
        """The weights of the network, then its alphas.

        At the end of `fit` an optimizer with `use_ema` puts its averages in place of the first of these.
        """  # private: keras 3.15
        if not self.network.built:
            return super().trainable_weights
        return [*self.network.weight_variables, *self.network.arch_variables]

    @property
    def trainable_variables(self):
        return self.trainable_weights

    def create_variables(self, x, y, sample_weight=None):
        """Creates the variables of the network, the metrics and the optimizers.

        `fit` does it, except for a `tf.distribute.DistributedDataset`.

        Args:
            x, y, sample_weight: a batch, or its specs.

        Raises:
            ValueError: a variable of the network is a weight and alpha.
        """
        if self._has_all:  # a retrace within an epoch must not reset the metrics
            return
        with tf.init_scope(), self.distribute_strategy.scope():
            x, y = tf.nest.map_structure(
                lambda tensor: keras.KerasTensor((None, *tensor.shape[1:]), tensor.dtype), (x, y)
            )
            outputs = self.network(x, training=False)  # without numbers; it builds the network
            self.build(tf.nest.map_structure(lambda tensor: tensor.shape, x))
            self._check_variables()
            self._build_optimizers()
            x, y, outputs = tf.nest.map_structure(
                lambda tensor: tf.zeros([size or 1 for size in tensor.shape], tensor.dtype), (x, y, outputs)
            )
            if self.loss is not None:
                self.compute_loss(x, y, outputs)
            self.compute_metrics(x, y, outputs)
            self.reset_metrics()
        self._has_all = True

    def _check_variables(self):
        weights = {id(variable) for variable in self.network.weight_variables}
        for variable in self.network.arch_variables:
            if id(variable) in weights:
                raise ValueError(f"{variable.path} is in weight_variables and arch_variables: expected in one of them.")

    def is_built_by_keras(self):
        # Keras would take a pair of batches for x and y, and averages batches over workers in vain.
        return not self._has_all

    def _build_optimizers(self):
        self.optimizer.build(self.network.weight_variables)
        self.arch_optimizer.build(self.network.arch_variables)

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        shuffle=True,
        class_weight=None,
        sample_weight=None,
        initial_epoch=0,
        steps_per_epoch=None,
        validation_steps=None,
        validation_batch_size=None,
        validation_freq=1,
        *,
        arch_data=None,
        arch_split=0.5,
    ):
        """As `keras.Model.fit`; what it is given is for the weights, `arch_data` or a part of it for alpha.

            search.fit(x, y)                                        # half of it for alpha
            search.fit(x, y, arch_data=(x_valid, y_valid))
            search.fit(batches, arch_data=batches_of_alpha)         # tf.data.Datasets of (x, y)
            search.fit(tf.data.Dataset.zip(batches, batches_of_alpha))

        An epoch is a pass over the data of the weights. Those of alpha begin again as often as that needs. Arrays are
        shuffled for each pass, and a last batch of the weights has what is left; batches of alpha are all whole.

        Args:
            x: one of

                - arrays (NumPy's, tensors, pandas'), nested if the network has several inputs, with `y` and, if
                  wanted, `sample_weight`;
                - `tf.data.Dataset` of batches (x, y) or (x, y, sample_weight), with `arch_data`;
                - `tf.data.Dataset` of pairs of such batches, ((x, y), (x_valid, y_valid)): alpha descends the loss of
                  the second ones;
                - `tf.distribute.DistributedDataset` of such pairs, after `create_variables`.

            batch_size: int, samples in a batch of arrays. Default: 32, or what `steps_per_epoch` needs.
            validation_split: float, a part of arrays to validate on: the last samples, before any shuffling.
            class_weight, sample_weight: what samples count in the losses of the weights and of alpha, in what is
                logged of them, and in `weighted_metrics`. `class_weight` is of both parts.
            arch_data: what alpha is trained on: arrays (x, y) or (x, y, sample_weight), or a `tf.data.Dataset` of
                batches of these.
            arch_split: float, without `arch_data` the part of arrays that is for alpha: as with `validation_split`
                the last samples (of those that are not for validation), before any shuffling, so shuffle them
                before if they are in some order. The two parts have no sample in common, in any epoch.

        Returns:
            `keras.callbacks.History`; `arch_loss` in it is the mean loss of alpha's batches, each before alpha's step
            (in second order after the virtual step of the weights).

        Raises:
            ValueError: an argument is out of range, or of a kind that a search cannot take.
        """
        if isinstance(x, tf.distribute.DistributedDataset):
            given = {"arch_data": arch_data, "class_weight": class_weight, "validation_split": validation_split or None}
            for name, value in given.items():
                if value is not None:
                    raise ValueError(f"{name} with a DistributedDataset: expected it in what is distributed.")
        elif isinstance(x, tf.data.Dataset):
            if validation_split and validation_data is None:
                raise ValueError(f"validation_split={validation_split} of a tf.data.Dataset: expected arrays.")
            if arch_data is not None:
                x = pairs.pairs(x, pairs.checked("arch_data", arch_data), batch_size or 32, shuffle)
        else:
            data = pairs.checked("x and y", (x, y, sample_weight))
            if validation_split and validation_data is None:
                data, validation_data = pairs.split(data, validation_split, "validation_split")
            if arch_data is None:
                data, arch_data = pairs.split(data, arch_split, "arch_split")
            else:
                arch_data = pairs.checked("arch_data", arch_data)
            batch_size = batch_size or (math.ceil(pairs.size(data) / steps_per_epoch) if steps_per_epoch else 32)
            x, y, sample_weight = pairs.pairs(data, arch_data, batch_size, shuffle), None, None
            shuffle = False  # Keras would warn that it does not do so
        if isinstance(x, tf.data.Dataset):
            train, _ = _pair(x.element_spec)
            if class_weight is not None:
                x, class_weight = pairs.class_weighted(x, class_weight), None
            if self.compiled:  # Keras says it otherwise
                self.create_variables(*train)
        if self.compiled and self.arch_optimizer.use_ema and epochs > 0:
            # As Keras does with the weights, before what is called at the end of training.
            averages = keras.callbacks.LambdaCallback(on_train_end=lambda logs: self._finalize_alphas())
            callbacks = [averages, *keras.tree.flatten(callbacks or [])]
        return super().fit(
            x,
            y,
            batch_size,
            epochs,
            verbose,
            callbacks,
            0.0,
            validation_data,
            shuffle,
            class_weight,
            sample_weight,
            initial_epoch,
            steps_per_epoch,
            validation_steps,
            validation_batch_size,
            validation_freq,
        )

    def train_on_batch(self, x, y=None, sample_weight=None, class_weight=None, return_dict=False):
        """As `keras.Model.train_on_batch`.

        Args:
            x, y: a batch for the weights and one for alpha, each (x, y) or (x, y, sample_weight).
            sample_weight, class_weight: None, since samples' weights are in the batches.

        Raises:
            ValueError: an argument is something else.
        """
        if sample_weight is not None or class_weight is not None:
            raise ValueError("sample_weight, class_weight: expected None, and batches (x, y, sample_weight).")
        return super().train_on_batch(x, y, return_dict=return_dict)

    def _finalize_alphas(self):
        self.arch_optimizer.finalize_variable_values(self.network.arch_variables)

    def get_metrics_result(self):
        """As in Keras; `arch_loss` is there if alpha was trained since the metrics were reset."""
        results = super().get_metrics_result()
        if tf.executing_eagerly() and not keras.ops.convert_to_numpy(self._arch_loss_tracker.count):
            del results["arch_loss"]
        return results

    @kernels.own_kernels()
    def test_step(self, data):
        logs = super().test_step(data)
        logs.pop("arch_loss", None)
        return logs

    def call(self, x, training=False):
        return self.network(x, training=training)

    def genotype(self):
        """The genotype of the current alphas."""
        return self.network.genotype()

    @kernels.own_kernels()
    def train_step(self, data):
        train, valid = _pair(data)
        self.create_variables(*train)  # a step that creates some is traced a second time
        alphas = self.network.arch_variables
        undone = [] if self._scale() is None else [*self.network.non_trainable_variables, *self._alpha_state()]
        before = [tf.identity(variable) for variable in undone]

        finite = True
        if self._alpha_moves:
            dalpha, arch_loss, finite = self._alpha_gradient(train, valid, self.unrolled, keeps=True)
            self._arch_loss_tracker.update_state(arch_loss, sample_weight=_samples(valid))
            if undone:  # an overflow, which leaves the step out, must not reach the loss that is told
                dalpha = [tf.where(finite, d, 0) for d in dalpha]
            # Keras adds gradients up over the replicas; this one is their mean already.
            rescale = self._rescaling()
            self.arch_optimizer.apply([self.arch_optimizer.scale_loss(d / replicas.count()) for d in dalpha], alphas)
            rescale()
        with tf.control_dependencies([tf.identity(alpha) for alpha in alphas]):
            logs = self._weight_step(train, finite)
        for variable, value in zip(undone, before, strict=True):
            variable.assign(tf.where(self.optimizer.skipped, value, variable))
        return logs

    def _rescaling(self):
        """What to call after alpha's step, made before it: a relaxation may have its say about what that has drawn."""
        relaxation = getattr(self.network, "relaxation", None)
        if not hasattr(relaxation, "rescaled"):
            return lambda: None
        drawn = self._options("alpha", self._draw("alpha"))["mixture"]
        before = {name: tf.identity(alpha) for name, alpha in self.network.alphas.items()}

        def rescale():
            for name, alpha in self.network.alphas.items():
                alpha.assign(relaxation.rescaled(before[name], tf.convert_to_tensor(alpha), drawn[name]))

        return rescale

    def _draw(self, purpose):
        """The seed of what a pass of this step draws, int32 (2,); None if the network draws nothing.

        Args:
            purpose: the loss of which batch it is: "weights" that of the step of the weights, "alpha" the validation
                loss, "ahead" the training loss of equations 6 and 8, which have to draw the same.
        """
        draws = getattr(self.network, "is_sampled", False) or getattr(self.network, "has_noise", False)
        return self._seed(purpose) if draws else None

    def _seed(self, purpose):
        """A seed for one purpose in this step, the same on all replicas."""
        purposes = ("weights", "alpha", "ahead", "perturbation")
        step = len(purposes) * tf.cast(self.optimizer.iterations, tf.int32) + purposes.index(purpose)
        return tf.stack([tf.constant(np.uint32(self.seed % 2**32).astype(np.int32)), step])

    def _options(self, purpose, draw, exact=False):
        """What the network is called with beside its input."""
        takes = inspect.signature(self.network.call).parameters
        options = {"draw": draw} if getattr(self.network, "has_noise", False) else {}
        if "purpose" in takes:
            options["purpose"] = purpose
        if draw is not None and getattr(self.network, "is_sampled", False):
            has_purpose = "purpose" in inspect.signature(self.network.mixture).parameters
            options["mixture"] = self.network.mixture(draw, **({"purpose": purpose} if has_purpose else {}))
        if exact and "exact" in takes and self.network.compute_dtype != self.network.variable_dtype:
            options["exact"] = True
        return options

    def alpha_gradient(self, train, valid, unrolled=None):
        """The gradient of `architecture_gradient` where this model stands, for two batches.

        Args:
            train, valid: batches (x, y) or (x, y, sample_weight).
            unrolled: second order or not; default: as the search.
        """
        return self._alpha_gradient(train, valid, self.unrolled if unrolled is None else unrolled)[0]

    def _alpha_gradient(self, train, valid, unrolled, keeps=False):
        """Also the validation loss, and whether all gradients on all replicas were finite: True or a scalar.

        With `keeps`, what the network carries on from the validation batch is kept.
        """
        weights, alphas = self.values()
        scale, finite, losses, carried = self._scale(), [], [], []
        draws = self._draw("alpha"), self._draw("ahead")

        def loss(weights, alphas, batch, exact=False):
            if batch is not valid:
                return self.loss_at(weights, alphas, batch, exact, draws[1])
            value, after = self._loss_at(weights, alphas, batch, exact, draws[0], "alpha")
            losses.append(value)
            carried.extend(after)
            return value

        def average(gradients):
            gradients = replicas.average(gradients)
            finite.extend(tf.reduce_all(tf.math.is_finite(g)) for g in tf.nest.flatten(gradients))
            return gradients

        rate = getattr(self.optimizer, "virtual_rate", self.optimizer.learning_rate)
        ahead = (self.virtual_step, tf.convert_to_tensor(rate)) if unrolled else ()
        exact = functools.partial(loss, exact=True)
        average = replicas.average if scale is None else average
        options = {
            "average": average,
            "scale": scale,
            "exact_loss": exact,
            "clip": self.virtual_clipnorm and self._clip,
            "difference": self.difference,
        }
        dalpha = architecture_gradient(loss, weights, alphas, train, valid, *ahead, **options)
        if keeps:
            for variable, value in carried:
                variable.assign(value)
        if self.penalty:
            dalpha = [d + p for d, p in zip(dalpha, self._penalty_gradient(alphas), strict=True)]
        return dalpha, losses[0], scale is None or tf.reduce_all(finite)

    def _penalty_gradient(self, alphas):
        """The gradient of the weighted penalty with respect to tensors in place of the architecture's variables."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(alphas)
            with keras.StatelessScope(zip(self.network.arch_variables, alphas, strict=True)):
                tables = {name: tf.convert_to_tensor(alpha) for name, alpha in self.network.alphas.items()}
            value = tf.cast(self.penalty_weight, alphas[0].dtype) * self.penalty(tables, self.network.candidates)
        return tape.gradient(value, alphas, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    def _scale(self):
        """What the optimizer multiplies losses by, None if nothing."""
        scale = self.optimizer.scale_loss(1.0)
        return None if isinstance(scale, float) else scale

    def _alpha_state(self):
        return [*self.network.arch_variables, *self.arch_optimizer.variables]

    def _clip(self, gradients):
        """Gradients of at most `virtual_clipnorm`, and what they were multiplied by."""
        norm = tf.linalg.global_norm(gradients)
        factor = tf.minimum(tf.ones_like(norm), self.virtual_clipnorm / (norm + 1e-6))  # as the original and PyTorch
        return [tf.cast(factor, g.dtype) * g for g in gradients], factor

    def loss_at(self, weights, alphas, batch, exact=False, draw=None):
        """Mean loss of this replica's batch, a scalar, with these tensors in place of the variables.

        Changes nothing: what the pass would write (moving statistics) is forgotten.

        Args:
            weights, alphas: tensors, as `values` gives them.
            batch: (x, y) or (x, y, sample_weight).
            exact: whether the network computes in the type of its variables, if it can.
            draw: the seed of what the network draws, int32 (2,), or None.
        """
        return self._loss_at(weights, alphas, batch, exact, draw, "ahead")[0]

    def _loss_at(self, weights, alphas, batch, exact, draw, purpose):
        """Also what the network carries on after the pass: (variable, value) pairs."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        variables = [*self.network.weight_variables, *self.network.arch_variables]
        with keras.StatelessScope(zip(variables, [*weights, *alphas], strict=True), collect_losses=True) as scope:
            options = self._options(purpose, draw, exact)
            costs = zip(self.costs, self.cost_weights, strict=True) if purpose == "alpha" else ()
            if self.costs and purpose == "alpha":
                options["mixture"] = options.get("mixture") or self.network.mixture()
            outputs = self.network(x, training=True, **options)
            carried = getattr(self.network, "carried", lambda purpose: [])(purpose)
            after = [(variable, scope.get_current_value(variable)) for variable in carried]
            loss = self.compute_loss(x, y, outputs, sample_weight, training=True) * replicas.count()
            for cost, weight in costs:
                loss = cost.form(loss, self.network.cost(cost.table, options["mixture"]), tf.cast(weight, loss.dtype))
            return loss, after

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

    def _weight_step(self, batch, finite):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        variables = self.network.weight_variables
        options = self._options("weights", self._draw("weights"))
        if self.perturbation:
            options["mixture"] = self._perturbed(batch, options)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([variable.value for variable in variables])
            outputs = self.network(x, training=True, **options)
            loss = self.compute_loss(x, y, outputs, sample_weight, training=True)
            scaled = self.optimizer.scale_loss(loss)
        tracker = next(metric for metric in self.metrics if metric.name == "loss")
        tracker.update_state(loss * replicas.count(), sample_weight=_samples(batch))
        gradients = _shaped(tape.gradient(scaled, [variable.value for variable in variables]), variables)
        if self._scale() is not None:  # an optimizer that scales leaves out steps whose gradients are not finite
            gradients = [g if g is None else tf.where(finite, g, math.nan) for g in gradients]
        self.optimizer.apply(gradients, variables)
        return self.compute_metrics(x, y, outputs, sample_weight)

    def _perturbed(self, batch, options):
        """The mixture that the weights' step sees, see `darts_tf.methods.perturbations`."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        weights, alphas = self.values()
        variables = [*self.network.weight_variables, *self.network.arch_variables]
        ahead = {"purpose": "ahead"} if "purpose" in options else {}

        def loss(mixture):
            values = [tf.stop_gradient(value) for value in (*weights, *alphas)]
            with keras.StatelessScope(zip(variables, values, strict=True), collect_losses=True):
                outputs = self.network(x, training=False, **{**options, **ahead, "mixture": mixture})
                return self.compute_loss(x, y, outputs, sample_weight, training=True) * replicas.count()

        mixture = tf.nest.map_structure(tf.stop_gradient, options.get("mixture") or self.network.mixture())
        seed = self._seed("perturbation")
        return self.perturbation(mixture, self.network.candidates, loss, self.perturbation_size, seed)

    def get_config(self):
        return {
            **super().get_config(),
            "network": keras.saving.serialize_keras_object(self.network),
            "unrolled": self.unrolled,
            "difference": self.difference,
            "penalty": self.penalty and self.penalty.name,
            "perturbation": self.perturbation and self.perturbation.name,
            "seed": self.seed,
            "virtual_clipnorm": self.virtual_clipnorm,
            "costs": [cost.to_config() for cost in self.costs],
        }

    @classmethod
    def from_config(cls, config):
        costs = [forms.Cost.from_config(cost) for cost in config.get("costs", ())]
        network = keras.saving.deserialize_keras_object(config["network"])
        return cls(**{**config, "network": network, "costs": costs})
