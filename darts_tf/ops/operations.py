"""The candidate operations of the search space and their registry.

An operation is a function of the stride that returns its stages; `register_operation` adds one:

    import darts_tf
    from darts_tf.stages import BatchNorm, Depthwise, ReLU

    @darts_tf.register_operation("depthwise_7x7")
    def depthwise_7x7(stride, affine):
        return [ReLU(), Depthwise(7, stride), BatchNorm(affine)]

    network = darts_tf.SearchNetwork(primitives=[*darts_tf.PRIMITIVES, "depthwise_7x7"])
"""

import contextlib
import functools
import inspect
import itertools

import keras
import numpy as np
import tensorflow as tf

from darts_tf.ops import kernels
from darts_tf.ops.stages import BatchNorm, Conv, Depthwise, FactorizedReduce, Noise, Pool, ReLU, Stage, Zero

_REGISTRY = {}


class OperationError(ValueError):
    """A registered operation is not what `register_operation` describes; the message names it."""


def register_operation(name):
    """Decorator that adds an operation to those a search may choose from.

    The decorated function takes `stride` (1 or 2) and `affine` (whether batch norms learn a scale and an offset: not
    during the search, yes in the derived network) and returns either a list of `darts_tf.stages` or a Keras layer. It
    maps images (batch, H, W, C) to (batch, ceil(H / stride), ceil(W / stride), C); a function that also takes
    `channels` is given C. Stages are computed for several edges at once; a layer is made and called once per edge.

    Raises:
        OperationError: the name is no text of printable letters without commas, or what is decorated no function.
    """
    if not isinstance(name, str) or not name.isprintable() or not name.strip() or "," in name:
        raise OperationError(f"{name!r}: expected a name of printable letters without commas.")

    def register(function):
        if not callable(function):
            raise OperationError(f"{name}: it is {function!r}; expected a function of stride and affine.")
        _REGISTRY[name] = function
        return function

    return register


@contextlib.contextmanager
def registering():
    """Yields a list, which at the end of the block has the names of the operations that it has registered."""
    before, added = dict(_REGISTRY), []
    yield added
    added += [name for name, function in _REGISTRY.items() if before.get(name) is not function]


def check(name, channels=8):
    """Makes an operation and computes it once for both strides.

    Args:
        name: of a registered operation.
        channels: of its images.

    Raises:
        OperationError: it cannot be made or computed, or gives images of another shape; says which and why.
    """
    for stride in (1, 2):
        try:
            operation = make_operation(name, channels, stride, affine=False)
            images = tf.random.stateless_uniform([2, 7, 6, channels], [0, 0])
            if isinstance(operation, list | tuple) and all(isinstance(stage, Stage) for stage in operation):
                operation = Operation(operation, channels)
            elif not isinstance(operation, keras.layers.Layer):
                raise TypeError(f"it returns {operation!r}; expected a list of stages, or a Keras layer")
            shape, expected = operation(images).shape, (2, -(-7 // stride), -(-6 // stride), channels)
        except Exception as error:
            reason = " ".join(str(error).split())
            raise OperationError(f"{name}, stride {stride}: {type(error).__name__}: {reason}") from error
        if tuple(shape) != expected:
            raise OperationError(
                f"{name}, stride {stride}: (2, 7, 6, {channels}) becomes {shape}; expected {expected}."
            )


def operation_names():
    """The names of all registered operations, in the order of their registration."""
    return list(_REGISTRY)


def get_operation(name):
    """The function behind a name.

    Raises:
        ValueError: no such operation; names those there are.
    """
    if name not in _REGISTRY:
        raise ValueError(f"Unknown operation {name!r}: expected one of {', '.join(_REGISTRY)}.")
    return _REGISTRY[name]


def make_operation(name, channels, stride, affine):
    """Calls the function behind a name.

    Returns:
        A list of stages, or a Keras layer.
    """
    function = get_operation(name)
    more = {"channels": channels} if "channels" in inspect.signature(function).parameters else {}
    return function(stride=stride, affine=affine, **more)


@register_operation("none")
def _none(stride, affine):
    return [Zero(stride)]


@register_operation("max_pool_3x3")
def _max_pool_3x3(stride, affine):
    return [Pool("max", stride)]


@register_operation("avg_pool_3x3")
def _avg_pool_3x3(stride, affine):
    return [Pool("avg", stride)]


@register_operation("skip_connect")
def _skip_connect(stride, affine):
    return [] if stride == 1 else factorized_reduce(affine)


def _register_separable(size):
    @register_operation(f"sep_conv_{size}x{size}")
    def sep_conv(stride, affine):
        return [
            *(ReLU(), Depthwise(size, stride), Conv(), BatchNorm(affine)),
            *(ReLU(), Depthwise(size), Conv(), BatchNorm(affine)),
        ]


def _register_dilated(size):
    @register_operation(f"dil_conv_{size}x{size}")
    def dil_conv(stride, affine):
        return [ReLU(), Depthwise(size, stride, dilation=2), Conv(), BatchNorm(affine)]


for _size in (3, 5, 7):
    _register_separable(_size)
for _size in (3, 5):
    _register_dilated(_size)


@register_operation("conv_7x1_1x7")
def _conv_7x1_1x7(stride, affine):
    return [ReLU(), Conv((1, 7), (1, stride)), Conv((7, 1), (stride, 1)), BatchNorm(affine)]


@register_operation("noise")  # of S4 of RobustDARTS
def _noise(stride, affine):
    return [Noise(stride)]


def _register_201(size):
    @register_operation(f"nor_conv_{size}x{size}")  # of NAS-Bench-201; those of AutoDL have a bias or an affine norm
    def nor_conv(stride, affine):
        return [ReLU(), Conv((size, size), (stride, stride), bias=not affine), BatchNorm(affine)]


for _size in (1, 3):
    _register_201(_size)


def relu_conv_bn(affine):
    """Stages that give the input of a cell the cell's number of channels."""
    return [ReLU(), Conv(), BatchNorm(affine)]


def factorized_reduce(affine):
    """Stages that also halve the image, where the input comes from before a reduction cell."""
    return [ReLU(), FactorizedReduce(), BatchNorm(affine)]


def stem(affine):
    """Stages from the image to the first cell."""
    return [Conv((3, 3)), BatchNorm(affine)]


def result_of(stages, size):
    """(height, width) of what stages make of images of a size, which may be None where it is not known."""
    for stage in stages:
        steps = getattr(stage, "strides", None) or (getattr(stage, "stride", 1),) * 2
        size = [length and -(-length // step) for length, step in zip(size, steps, strict=True)]
    return tuple(size)


def compute(stages, x, weights, groups, training, scale=None):
    """Runs an operation's stages.

    Args:
        stages: list of `Stage`.
        x: (batch, height, width, groups * inputs).
        weights: one list of tensors per stage.
        groups: number of edges, an int or a scalar int32 tensor.
        training: see `Stage`.
        scale: (groups * outputs,), multiplies the result: the architecture weights of this operation.

    Returns:
        The result and the new values of the weights that are not trainable, stage by stage.
    """
    x, prepared = stages[0].prepare(x) if stages else (x, None)
    return compute_prepared(stages, x, prepared, weights, groups, training, scale)


def compute_prepared(stages, x, prepared, weights, groups, training, scale=None):
    """As `compute`, where the first stage has prepared x; see `Stage.prepare`."""
    updates = []
    for index, (stage, tensors) in enumerate(zip(stages, weights, strict=True)):
        if index:
            x, prepared = stage.prepare(x)
        more = {}
        if scale is not None and index == len(stages) - 1 and isinstance(stage, BatchNorm):
            more, scale = {"scale": scale}, None
        x, update = stage.finish(x, prepared, tensors, groups, training, **more)
        updates += update
    return (x if scale is None else x * tf.cast(scale, x.dtype)), updates


def layers(operation, x, channels, name, start=0):
    """Runs an operation of a derived network.

    Args:
        operation: list of `Stage`, or a Keras layer.
        x: `keras.KerasTensor` (batch, height, width, inputs).
        channels: channels of the result.
        name: the layer of the stage at place 2 becomes `{name}_2`.
        start: the place of the first stage.

    Returns:
        `keras.KerasTensor` (batch, height', width', channels).
    """
    if isinstance(operation, keras.layers.Layer):
        operation.name = name
        return operation(x)
    for place, stage in enumerate(operation, start):
        x = stage.layers(x, channels, f"{name}_{place}")
    return x


@keras.saving.register_keras_serializable("darts_tf")
class Operation(keras.layers.Layer):
    """Stages as a layer: owns their weights.

    With `trainable = False` its weights stay as they are, and as in Keras its batch norms are in inference mode: they
    normalise by the moving statistics, which stay as they are, too.

    Args:
        stages: list of `darts_tf.stages.Stage`.
        channels: channels of the result on each edge.
        groups: number of edges computed at once, each with weights of its own.

    Call arguments:
        x: (batch, height, width, groups * inputs), of the type to compute in.

    Returns:
        (batch, height', width', groups * channels), of the type of x.
    """

    def __init__(self, stages, channels, groups=1, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.stages = tuple(stages)
        self.channels = channels
        self.groups = groups
        self.specs = []
        self._by_stage = []

    def build(self, input_shape):
        inputs = input_shape[-1] // self.groups
        for index, stage in enumerate(self.stages):
            specs = stage.weights(inputs, self.channels, self.groups)
            self.specs += specs
            self._by_stage.append(
                [
                    self.add_weight(
                        shape=spec.shape,
                        initializer=spec.initializer,
                        trainable=spec.trainable,
                        autocast=not spec.exact,
                        name=f"{index}_{spec.name}",
                    )
                    for spec in specs
                ]
            )
            inputs = stage.channels(inputs, self.channels)
        self.built = True

    @property
    def variables_by_stage(self):
        """One list of variables per stage, in the order of `Stage.weights`."""
        return self._by_stage

    @property
    def flat_variables(self):
        """All variables, in the order of `specs`."""
        return list(itertools.chain(*self._by_stage))

    def tensors(self, dtype):
        """The current weights as they are used with images of a type, one list of tensors per stage."""
        tensors = [
            tf.convert_to_tensor(variable) if spec.exact else tf.cast(variable, dtype)
            for spec, variable in zip(self.specs, self.flat_variables, strict=True)
        ]
        return self._in_stages(tensors)

    def _in_stages(self, tensors):
        tensors = list(tensors)
        return [[tensors.pop(0) for _ in stage] for stage in self._by_stage]

    def by_edge(self, tensors):
        """The weights of each edge alone, a list of what `tensors` gives; or of arrays."""
        if self.groups == 1:
            return [tensors]
        split = tf.split if tf.is_tensor(next(iter(itertools.chain(*tensors)), None)) else np.split
        parts = [
            split(tensor, self.groups, spec.free[-1])
            for spec, tensor in zip(self.specs, itertools.chain(*tensors), strict=True)
        ]
        return [self._in_stages(edge) for edge in zip(*parts, strict=True)] if parts else [self._by_stage] * self.groups

    def set_layers(self, model, names, start=0):
        """Gives the weights to what `layers` has made of the same stages in a model, for each edge under another name.

        Args:
            model: `keras.Model`.
            names: one for each edge.
            start: as of `layers`.
        """
        arrays = self._in_stages([keras.ops.convert_to_numpy(variable) for variable in self.flat_variables])
        for name, weights in zip(names, self.by_edge(arrays), strict=True):
            for place, (stage, own) in enumerate(zip(self.stages, weights, strict=True), start):
                for suffix, values in stage.layer_weights(own).items():
                    model.get_layer(f"{name}_{place}{suffix}").set_weights(values)

    @property
    def moving(self):
        """The variables that training updates without a gradient, in the order in which stages return their values."""
        return [variable for spec, variable in zip(self.specs, self.flat_variables, strict=True) if not spec.trainable]

    def training(self, training):
        """What a call with this `training` is for this layer, see `Stage`."""
        return training if self.trainable else False

    def call(self, x, training=False):
        training = self.training(training)
        y, updates = compute(self.stages, x, self.tensors(x.dtype), self.groups, training)
        self.keep(updates, training)
        return y

    def on_edge(self, x, weights, training, started, inline=False):
        """The operation on one edge, by a graph function that all operations of these stages share.

        Args:
            x: (batch, height, width, inputs).
            weights: of the edge, one list of tensors per stage; see `by_edge`.
            training: as `self.training` says.
            started: dict of what has been begun on x, see `begin`.
            inline: whether to write it out in the graph all the same.

        Returns:
            (batch, height', width', channels), and the new values of its weights that are not trainable.
        """
        if not self.stages:
            return x, []
        relu, image, prepared = begin(self.stages, x, started)
        stages, weights = self.stages[relu:], weights[relu:]
        # oneDNN's max pooling remembers where each maximum was; its gradient cannot see that in a function.
        if inline or not self.specs or any(isinstance(stage, Pool) for stage in stages):
            return compute_prepared(stages, image, prepared, weights, 1, training)
        exact_dtype = tf.as_dtype(self.variable_dtype)
        function = _shared(stages, training, prepared is not None, x.dtype, exact_dtype)
        y, updates = function(image, [] if prepared is None else [prepared], weights)
        return tf.ensure_shape(y, [x.shape[0], *result_of(self.stages, x.shape[1:3]), self.channels]), updates

    def keep(self, updates, training):
        """Assigns new values to `moving` if this is for training."""
        if training:
            for variable, value in zip(self.moving, updates, strict=True):
                variable.assign(value)


def begin(stages, x, started):
    """What operations that see the same image begin with, each kind of it once: a ReLU, and what prepares for a stage.

    Args:
        stages: of the operation.
        x: the image.
        started: dict of what has been begun on x, which this adds to.

    Returns:
        1 if the first stage is a ReLU and done, else 0; then the image and what `Stage.prepare` of the next gives.
    """
    relu = isinstance(stages[0], ReLU) and len(stages) > 1
    if relu:
        if "relu" not in started:
            started["relu"] = tf.nn.relu(x)
        x = started["relu"]
    key = relu, stages[relu].preparation
    if key not in started:
        started[key] = stages[relu].prepare(x)
    return int(relu), *started[key]


@functools.cache
def _shared(stages, training, prepared, dtype, exact_dtype):
    """`compute_prepared` as one graph function that all operations of these stages share, whatever their lengths."""

    def computed(x, prepared, weights):
        return compute_prepared(stages, x, prepared[0] if prepared else None, weights, 1, training)

    image = tf.TensorSpec([None] * 4, dtype)
    more = [tf.TensorSpec([2, 2], tf.int32)] if prepared else []
    return kernels.shared(computed, [image, more, any_length(stages, dtype, exact_dtype)])


def any_length(stages, dtype, exact_dtype):
    """The `tf.TensorSpec`s of stages' weights, whatever their channels and edges: a list for each stage."""

    def of(weight):
        shape = [None if axis in weight.free else n for axis, n in enumerate(weight.shape)]
        return tf.TensorSpec(shape, exact_dtype if weight.exact else dtype)

    return [[of(weight) for weight in stage.weights(1, 1, 1)] for stage in stages]
