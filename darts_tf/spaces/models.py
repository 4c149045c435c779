"""What the models of all spaces have in common: their inputs, and what a supernet is."""

import inspect

import keras
import numpy as np
import tensorflow as tf

from darts_tf.costs.tables import Table
from darts_tf.methods import relaxations
from darts_tf.ops import kernels
from darts_tf.ops.drop_path import DropPath
from darts_tf.private.keras import layers_within
from darts_tf.spaces.base import checked_candidates, strengths_of


def inputs(shape, normalization=None):
    """The input of a network, and the same after normalisation if that is asked for.

    Args:
        shape: of one image, (height, width, depth).
        normalization: mean and standard deviation of the pixels per channel, or None.

    Returns:
        Two `keras.KerasTensor` (batch, height, width, depth).
    """
    images = keras.Input(shape, name="images")
    return images, images if normalization is None else normalizing(*normalization)(images)


def normalizing(mean, std):
    """The Keras layer that subtracts the mean of each channel and divides by its standard deviation.

    It computes in float32: variances of pixels may be beyond what float16 holds.
    """
    mean, variance = [float(value) for value in mean], [float(value) ** 2 for value in std]
    return keras.layers.Normalization(mean=mean, variance=variance, dtype="float32", name="normalization")


PROPOSALS = 20  # draws under limits
ORDERED = "ordered"  # see `Supernet.parts`


class Supernet(keras.Model):
    """A model that holds all candidates, and the alphas that choose among them.

    A subclass calls `add_alphas` in `build`, and has `call(x, training=False, mixture=None)`, whose `mixture` is what
    `self.mixture()` gives if it is None. Its outputs are logits.

    Args:
        space: `darts_tf.spaces.base.SearchSpace`.
        outputs: how many logits there are for one input.
        relaxation: name or object, see `darts_tf.methods.relaxations`.
        candidates: {table: bool array (rows, candidates)}, which rows have which; by default what the space says.
        edge_normalization: whether each row has a beta, too: the softmax of those that compete multiplies the weights
            of their candidates (equation 3 of PC-DARTS).
        limits: ((`darts_tf.costs.tables.Table`, number), ...), the most that paths cost which are drawn where alpha is
            not trained; if none of `PROPOSALS` draws is within them, the one that is nearest is taken.
        **kwargs: of `keras.Model`.

    Attributes:
        alphas: {table: variable (rows, candidates)}, of the space's choices, once the model is built.
        betas: {table: variable (rows,)}; empty without `edge_normalization`.
        temperature: variable, of a relaxation that has one; else None.
        from_logits: True, so that `DARTS.compile` refuses losses that take probabilities.
    """

    from_logits = True

    def __init__(
        self, space, outputs, relaxation="softmax", candidates=None, edge_normalization=False, limits=(), **kwargs
    ):
        super().__init__(**kwargs)
        self.space, self.outputs_per_input = space, outputs
        self.relaxation = relaxations.get(relaxation)
        self.candidates = checked_candidates(space, candidates)
        self.edge_normalization = edge_normalization
        self.limits = [
            (Table.from_config(table) if isinstance(table, dict) else table, float(most)) for table, most in limits
        ]
        self.betas, self.temperature = {}, None

    @property
    def is_sampled(self):
        """Whether `mixture` draws."""
        return isinstance(self.relaxation, relaxations.Sampled)

    def add_alphas(self):
        """Makes the architecture parameters, drawn from a normal distribution of deviation 0.001 as the original's."""
        choices = self.space.choices
        self.alphas = {
            name: self._random((len(table.rows), len(table.candidates)), f"alphas_{name}")
            for name, table in choices.items()
        }
        if self.edge_normalization:
            self.betas = {name: self._random((len(table.rows),), f"betas_{name}") for name, table in choices.items()}
        first = getattr(self.relaxation, "temperature", None)
        if first:
            start = {"initializer": keras.initializers.Constant(first[0]), "autocast": False, "trainable": False}
            self.temperature = self.add_weight(shape=(), name="temperature", **start)

    def _random(self, shape, name):
        start = keras.initializers.RandomNormal(stddev=1e-3)  # which would give the same twice
        return self.add_weight(shape=shape, initializer=start, autocast=False, name=name)

    def mixture(self, draw=None, purpose=None):
        """{table: tensor (rows, candidates)}: the weights of the candidates, at the current alphas.

        Args:
            draw: int32 tensor (2,), a seed for relaxations that draw; without it they give what decides.
            purpose: of the pass, see `darts_tf.DARTS`.
        """
        if draw is None or not self.limits or self.relaxation.learns:
            return self._mixture(draw, purpose)
        proposals = [
            self._mixture(tf.random.experimental.stateless_fold_in(draw, 1000 + number), purpose)
            for number in range(PROPOSALS)
        ]
        parts = [
            tf.stack([self.cost(table, proposal) * (table.unit / most) for proposal in proposals])
            for table, most in self.limits
        ]
        beyond = tf.maximum(tf.reduce_max(tf.stack(parts), 0), 1)
        place = tf.argmin(beyond)  # the first that is within the limits, if there is one
        return {name: tf.stack([proposal[name] for proposal in proposals])[place] for name in self.alphas}

    def _mixture(self, draw, purpose):
        weights = {}
        for place, (name, alpha) in enumerate(self.alphas.items()):
            alpha = tf.convert_to_tensor(alpha)
            if not self.candidates[name].all():
                alpha = tf.where(self.candidates[name], alpha, tf.constant(relaxations.NEVER, alpha.dtype))
            options = {}
            if draw is not None and self.is_sampled:
                seed = tf.random.experimental.stateless_fold_in(draw, place)
                options["noise"] = self.relaxation.noise(alpha, seed)
                options |= {} if self.temperature is None else {"temperature": self.temperature}
            if "paths" in inspect.signature(self.relaxation.__call__).parameters:
                options["paths"] = self.relaxation.paths(purpose)
            weights[name] = self.relaxation(alpha, **options)
        return weights

    def edge_weights(self):
        """{table: tensor (rows,)}: the softmax of the betas of rows that compete; None without `edge_normalization`."""
        if not self.edge_normalization:
            return None
        weights = {}
        for name, table in self.space.choices.items():
            beta = tf.convert_to_tensor(self.betas[name])
            order = [row for rows, _ in table.groups for row in rows]
            shares = tf.concat([tf.nn.softmax(tf.gather(beta, rows)) for rows, _ in table.groups], 0)
            weights[name] = tf.gather(shares, np.argsort(order))
        return weights

    def cost(self, table, mixture):
        """What a mixture is expected to cost, a scalar tensor, in units of the table.

        Args:
            table: `darts_tf.costs.tables.Table`.
            mixture: {table: tensor (rows, candidates)}.
        """
        return self.space.expected(table, mixture, self.edge_weights()) / table.unit

    def strengths(self):
        """{table: float64 array (rows, candidates)}: what decides, see `strengths_of`."""
        alphas, betas = (
            {name: keras.ops.convert_to_numpy(variable) for name, variable in variables.items()}
            for variables in (self.alphas, self.betas)
        )
        return strengths_of(self.space, self.relaxation, alphas, betas, self.candidates)

    def genotype(self, selection="strongest"):
        """The architecture of the current alphas.

        Args:
            selection: name or object, see `darts_tf.methods.selections`.
        """
        return self.space.decide(self.strengths(), selection)

    def parts(self):
        """What the supernet of a search's next stage takes over from this one, as (key, (layer, edges)).

        A key is the same in supernets of one space, whatever candidates and channels these have. `edges` is a list of
        those that an `Operation` computes side by side; None for a layer that is taken over as it is; `ORDERED` for
        one that has the first rows and columns of a larger one before it. By default the only things that are taken
        over are alphas.
        """
        return ()

    def compute_output_shape(self, input_shape):
        return input_shape[0], self.outputs_per_input

    @property
    def arch_variables(self):
        """The architecture parameters that are trainable: alphas, then betas."""
        variables = [*self.alphas.values(), *self.betas.values()]
        return [variable for variable in variables if self.trainable and variable.trainable]

    @property
    def weight_variables(self):
        """The trainable variables other than alpha and beta."""
        alphas = {id(variable) for variable in (*self.alphas.values(), *self.betas.values())}
        return [variable for variable in self.trainable_variables if id(variable) not in alphas]

    def get_build_config(self):
        """Also says what is frozen, which Keras saves of functional models only."""
        frozen = {
            "frozen_layers": [place for place, layer in enumerate(layers_within(self)) if not layer.trainable],
            "frozen_variables": [place for place, variable in enumerate(self.variables) if not variable.trainable],
        }
        return {**(super().get_build_config() or {}), **frozen}

    def build_from_config(self, config):
        config = dict(config)
        layers, variables = (config.pop(f"frozen_{kind}", ()) for kind in ("layers", "variables"))
        super().build_from_config(config)
        for kind, frozen in ((layers_within(self), layers), (self.variables, variables)):
            for place in frozen:
                kind[place].trainable = False


def inference_model(network):
    """The part of a trained derived network that is put to use: no auxiliary head, no drop path, no low precision.

    Args:
        network: of `SearchSpace.network` or `trained_network`; the result has copies of its weights.

    Returns:
        A functional `keras.Model` of standard layers, from its inputs to logits.
    """
    if hasattr(network, "inference_model"):
        return network.inference_model()

    def call(layer, *args, **kwargs):
        return args[0] if isinstance(layer, DropPath) else layer(*args, **kwargs)

    return _copy(keras.Model(network.inputs, network.outputs[0]), network.variable_dtype, call_function=call)


def create_variables(network):
    """Creates the variables of the optimizer and the metrics of a compiled model that ends in logits.

    A step that had to create them would be traced twice.
    """
    if not network.built:
        network.build()
    network.optimizer.build(network.trainable_variables)
    logits = tf.nest.map_structure(lambda output: tf.zeros([n or 1 for n in output.shape]), network.output)
    batch = None, tf.zeros(tf.nest.flatten(logits)[0].shape[:-1], tf.int32), logits
    network.compute_loss(*batch)
    network.compute_metrics(*batch)
    network.reset_metrics()


def _copy(model, policy, exchange=lambda layer: None, call_function=None):
    """A copy of a functional model that has weights of its own.

    Args:
        model: a functional Keras model.
        policy: what its layers compute in.
        exchange: function of a layer -> the layer that takes its place, None if that is its copy.
        call_function: as of `keras.models.clone_model`.
    """
    copies = []

    def copy(layer):
        made = exchange(layer)
        if made is not None or not isinstance(layer, keras.layers.Layer):
            return layer if made is None else made
        made = layer.__class__.from_config(layer.get_config())
        for part in layers_within(made):
            part.dtype_policy = policy
        copies.append((layer, made))
        return made

    result = keras.models.clone_model(model, clone_function=copy, call_function=call_function, recursive=True)
    for layer, made in copies:
        if made.built:  # drop path is left out
            made.set_weights(layer.get_weights())
    return result


def with_new_classes(model, num_classes, normalization=None):
    """A trained classifier with a new last layer, for other inputs of the same shape.

    Args:
        model: a functional Keras model that ends in a Dense layer, on which an activation may follow; the result has
            copies of its other weights.
        num_classes: number of classes, or 1 for a number.
        normalization: mean and standard deviation of the new pixels per channel; they replace those of a
            Normalization layer if the model starts with one. None leaves that as it is.

    Returns:
        A functional `keras.Model` from its inputs to logits (batch, num_classes), of the current dtype policy.

    Raises:
        ValueError: the model does not end in a Dense layer.
    """

    def exchange(layer):
        begins = isinstance(layer, keras.layers.Normalization) and layer.input is model.inputs[0]
        if begins and normalization is not None:
            return normalizing(*normalization)
        return None

    activations = keras.layers.Softmax, keras.layers.Activation
    last = [layer for layer in model.layers if not isinstance(layer, activations)][-1]
    if not isinstance(last, keras.layers.Dense):
        raise ValueError(f"its last layer is {type(last).__name__}: expected Dense.")
    body = _copy(keras.Model(model.inputs, last.input), keras.config.dtype_policy(), exchange)
    exact = keras.config.dtype_policy().variable_dtype
    logits = keras.layers.Dense(num_classes, dtype=exact, name="classifier")(body.outputs[0])
    network = keras.Model(body.inputs, logits)
    kernels.reroute_strided_pointwise(network)
    return network
