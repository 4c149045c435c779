"""Multilayer perceptrons: the supernet, and what an architecture becomes."""

import math

import keras
import numpy as np
import tensorflow as tf

from darts_tf import spaces
from darts_tf.ops import highway, kernels
from darts_tf.spaces.mlp.space import CONNECTIONS, DENSE, NONE, RESIDUAL
from darts_tf.spaces.models import ORDERED, Supernet, inputs

IDENTITY = ("identity", "linear")


@keras.saving.register_keras_serializable("darts_tf")
class SearchLayer(keras.layers.Layer):
    """A hidden layer with all its candidates: one product of matrices, whatever their number.

    The activations are mixed after it (equation 2 of DARTS). A width is a mask on the units, the first of which the
    narrowest width has, too; masks are mixed.

    Args:
        activations: names.
        widths: numbers of units, growing.
        batch_norm: whether there is one before the activations.

    Call arguments:
        x: (batch, inputs), of the type to compute in.
        activations, widths: (candidates,) tensors, how much each counts.
        training: see `darts_tf.ops.stages.Stage`.

    Returns:
        (batch, the largest of the widths), of the type of x.
    """

    def __init__(self, activations, widths, batch_norm=True, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.activations, self.widths, self.batch_norm = tuple(activations), tuple(widths), batch_norm
        self.functions = [highway.activation(name) for name in activations]
        self.units = max(widths)

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")
        names = ("gamma", "beta") if self.batch_norm else ("bias",)
        starts = {"gamma": "ones", "beta": "zeros", "bias": "zeros"}
        self.affine = [self.add_weight(shape=(self.units,), initializer=starts[name], name=name) for name in names]
        if self.batch_norm:
            self.moving = self.add_weight(
                shape=(2, self.units),
                initializer=lambda shape, dtype=None: tf.stack([tf.zeros(shape[1:], dtype), tf.ones(shape[1:], dtype)]),
                trainable=False,
                name="moving_mean_and_variance",
            )
        self.built = True

    def call(self, x, activations, widths, training=False):
        x = tf.matmul(x, tf.cast(self.kernel, x.dtype))
        affine = [tf.convert_to_tensor(variable) for variable in self.affine]
        if self.batch_norm:
            training = training if self.trainable else False
            images = x[:, None, None]  # (batch, 1, 1, units)
            images, mean, variance = kernels.batch_norm(images, *affine, *tf.unstack(self.moving), training)
            x = images[:, 0, 0]
            if training:
                self.moving.assign(tf.stack([mean, variance]))
        else:
            x += tf.cast(affine[0], x.dtype)
        shares = tf.unstack(tf.cast(activations, x.dtype), len(self.functions))
        mixed = tf.add_n([share * function(x) for share, function in zip(shares, self.functions, strict=True)])
        masks = np.arange(self.units) < np.array(self.widths)[:, None]
        return mixed * tf.linalg.matvec(tf.constant(masks.T, x.dtype), tf.cast(widths, x.dtype))

    def get_config(self):
        own = {"activations": self.activations, "widths": self.widths, "batch_norm": self.batch_norm}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("darts_tf")
class PerceptronSupernet(Supernet):
    """The supernet: hidden layers that have all of their candidates, and a linear layer behind them.

    All candidates of a layer are computed, also by relaxations that draw one of them: they have the product of matrices
    in common, so that it would save nothing to leave them out; those that are not drawn count zero, and have the
    gradient that the relaxation says. What `candidates` leaves out is not there: a layer has as many units as the
    widest of its widths.

    Args:
        space: `MLP`, or its configuration, {"space": "mlp", field: value}.
        outputs: numbers that it gives for one input.
        sync_batch_norm: whether batch norms take their statistics from the batches of all replicas while training.
        **kwargs: of `Supernet`.

    Call arguments:
        x: (batch, ...), flattened.
        exact, mixture: as of `darts_tf.SearchNetwork`.

    Returns:
        Logits (batch, outputs), of the type of the variables.
    """

    def __init__(self, space="mlp", outputs=10, sync_batch_norm=False, **kwargs):
        space = {"space": space} if isinstance(space, str) else space
        space = spaces.of(space) if isinstance(space, dict) else space
        super().__init__(space, outputs, autocast=False, **kwargs)
        self.sync_batch_norm = sync_batch_norm
        self._places = {  # of what is there, for each table one array for each row
            name: [np.flatnonzero(there) for there in rows] for name, rows in self.candidates.items()
        }
        connections = [{CONNECTIONS[place] for place in there} for there in self._places["connections"]]
        self.hidden = [
            SearchLayer(
                [space.primitives[place] for place in self._places["activations"][row]],
                [space.units_of(space.widths[place]) for place in self._places["widths"][row]],
                space.batch_norm,
                name=f"hidden{row}",
            )
            if has & {DENSE, RESIDUAL}
            else None
            for row, has in enumerate(connections)
        ]
        self._passes = [bool(has & {RESIDUAL, NONE}) for has in connections]
        self.classifier = keras.layers.Dense(outputs, dtype=self.variable_dtype, name="classifier")

    def build(self, input_shape):
        self.add_alphas()
        units = math.prod(input_shape[1:])
        for layer, passes in zip(self.hidden, self._passes, strict=True):
            if layer:
                layer.build((None, units))
                units = max(layer.units, units) if passes else layer.units
        self.classifier.build((None, units))
        self.built = True

    def call(self, x, training=False, exact=False, mixture=None):
        x = tf.cast(x, self.variable_dtype if exact else self.compute_dtype)
        x = tf.reshape(x, [-1, math.prod(x.shape[1:])])
        mixture = self.mixture() if mixture is None else mixture
        training = kernels.SYNCHRONIZED if training and self.sync_batch_norm else training
        for row, (layer, passes) in enumerate(zip(self.hidden, self._passes, strict=True)):
            dense, residual, none = tf.unstack(tf.cast(mixture["connections"][row], x.dtype))
            own = {name: tf.gather(mixture[name][row], self._places[name][row]) for name in ("activations", "widths")}
            y = [(dense + residual) * layer(x, **own, training=training)] if layer else []
            x = _added([*y, (residual + none) * x] if passes else y)
        return self.classifier(tf.cast(x, self.variable_dtype))

    def parts(self):
        rows = [(f"hidden{row}", (layer, ORDERED)) for row, layer in enumerate(self.hidden) if layer]
        return [*rows, ("classifier", (self.classifier, ORDERED))]

    def get_config(self):
        fields = {name: getattr(self.space, name) for name in self.space.__dataclass_fields__}
        return {
            **super().get_config(),
            "space": {"space": self.space.name, **fields},
            "outputs": self.outputs_per_input,
            "sync_batch_norm": self.sync_batch_norm,
            "relaxation": self.relaxation.name,
            "candidates": {name: rows.tolist() for name, rows in self.candidates.items()},
            "limits": [(table.to_config(), most) for table, most in self.limits],
        }


def _added(parts):
    """The sum of tensors (batch, units), the last units of which the narrower ones do not have."""
    most = max(part.shape[-1] for part in parts)
    return tf.add_n([tf.pad(x, [[0, 0], [0, most - x.shape[-1]]]) if x.shape[-1] < most else x for x in parts])


def hidden(x, units, activation, residual=False, batch_norm=True, dropout=0.0, name="hidden0"):
    """A hidden layer of a network, of standard Keras layers.

    Args:
        x: `keras.KerasTensor` (batch, inputs).
        units: of the layer.
        activation: its name.
        residual: whether x is added. Of the two the wider one keeps the units that only it has.
        batch_norm: whether there is one before the activation.
        dropout: rate of dropout after the activation.
        name: what the names of the layers begin with.

    Returns:
        `keras.KerasTensor` (batch, units), with `residual` as wide as the wider of the two.
    """
    y = keras.layers.Dense(units, use_bias=not batch_norm, name=name)(x)
    if batch_norm:
        norm = {"momentum": kernels.MOMENTUM, "epsilon": kernels.EPSILON}
        y = keras.layers.BatchNormalization(**norm, name=f"{name}_norm")(y)
    if activation not in IDENTITY:
        y = keras.layers.Activation(activation, name=f"{name}_{activation}")(y)
    if dropout:
        y = keras.layers.Dropout(dropout, name=f"{name}_dropout")(y)
    if not residual:
        return y
    most = max(x.shape[-1], units)
    return keras.layers.Add(name=f"{name}_add")([_padded(part, most, name) for part in (x, y)])


def _padded(x, units, name):
    """x (batch, units) with zeros behind."""
    missing = units - x.shape[-1]
    if not missing:
        return x
    x = keras.layers.Reshape((-1, 1), name=f"{name}_column")(x)
    x = keras.layers.ZeroPadding1D((0, missing), name=f"{name}_padding")(x)
    return keras.layers.Reshape((units,), name=f"{name}_row")(x)


def perceptron(architecture, outputs=10, input_shape=(8, 8, 1), units=None, dropout=0.0, normalization=None):
    """The network of an architecture, of standard Keras layers.

    Args:
        architecture: `space.Perceptron`.
        outputs: numbers that it gives for one input.
        input_shape: of one input, (height, width, depth) or (numbers,).
        units: of the widest layer; by default those of the architecture's space.
        dropout: rate of dropout after each hidden layer.
        normalization: mean and standard deviation of the inputs per channel, if the network is to see them as they are
            in files; without it they are expected to be normalised.

    Returns:
        A functional `keras.Model` from inputs (batch, *input_shape) to logits (batch, outputs).
    """
    given, x = inputs(input_shape, normalization)
    space = architecture.space
    x = keras.layers.Flatten(name="flatten")(x) if len(input_shape) > 1 else x
    for row, (connection, activation, width) in enumerate(architecture.layers):
        if connection != NONE:
            own = space.units_of(width, units), activation, connection == RESIDUAL, space.batch_norm, dropout
            x = hidden(x, *own, name=f"hidden{row}")
    exact = keras.config.dtype_policy().variable_dtype
    return keras.Model(given, keras.layers.Dense(outputs, dtype=exact, name="classifier")(x))
