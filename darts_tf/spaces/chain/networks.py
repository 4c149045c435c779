"""Networks that are chains: the supernet, and what an architecture becomes."""

import dataclasses
import functools

import keras
import tensorflow as tf

from darts_tf import spaces
from darts_tf.ops import kernels, operations
from darts_tf.ops.operations import Operation
from darts_tf.ops.stages import Conv
from darts_tf.spaces.chain.blocks import Width, block, ends, hidden_channels
from darts_tf.spaces.models import Supernet, inputs

FEW = 40  # candidates of all layers: to write out so many is quick, and their steps are faster
ANY = 2520  # channels, where their number does not matter; every number of parts divides it


@keras.saving.register_keras_serializable("darts_tf")
class SearchLayer(keras.layers.Layer):
    """One layer of a chain, with all of its candidates.

    Args:
        names: of the candidates, see `blocks`.
        outputs: channels of the result.
        stride: 1 or 2.
        activation, affine, epsilon: as of `blocks.block`.

    Call arguments:
        x: images (batch, height, width, channels), of the type to compute in.
        weights: (candidates,), how much each counts.
        paths: how many candidates are computed, those of the largest weights; None for all.
        others: whether the weights of the others are added as numbers, see `relaxations.GumbelHard`.
        widths: {part of the channels: how much it counts, scalar tensor}, or None.
        training: see `darts_tf.ops.stages.Stage`.
        inline: whether the candidates are written out in the graph.
    """

    def __init__(self, names, outputs, stride=1, activation="relu6", affine=True, epsilon=kernels.EPSILON, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.names, self.outputs, self.stride = tuple(names), outputs, stride
        self.activation, self.affine, self.epsilon = activation, affine, epsilon

    def build(self, input_shape):
        shape = input_shape[-1], self.outputs, self.stride, self.activation, self.affine
        self.blocks = [block(name, *shape, epsilon=self.epsilon) for name in self.names]
        self.operations = []
        for name, made in zip(self.names, self.blocks, strict=True):
            own = {}
            for part, (stages, channels) in made.operations().items():
                own[part] = Operation(stages, channels, name=f"{name}_{part}")
                own[part].build((None, None, None, input_shape[-1] // (2 if made.splits else 1)))
            self.operations.append(own)
        self.built = True

    def call(self, x, weights, paths=None, others=False, widths=None, training=False, inline=False):
        training = training if self.trainable else False
        paths = None if paths is None or paths >= len(self.names) else paths
        tensors = [self._tensors(place, x.dtype, widths) for place in range(len(self.names))]
        owned = [operation for own in self.operations for operation in own.values()]
        moving = [variable for operation in owned for variable in operation.moving]
        frozen = all(kernels.is_frozen(variable) for operation in owned for variable in operation.trainable_variables)
        kinds = tuple(_any_width(made) for made in self.blocks)
        inline = inline or training == kernels.SYNCHRONIZED  # what replicas exchange has its own place in the graph
        dtypes = x.dtype, tf.as_dtype(self.variable_dtype)
        function = _layer(kinds, widths is not None, paths, others, training, inline, frozen, *dtypes)
        y, updates = function(x, tf.cast(weights, dtypes[1]), tensors)
        y.set_shape([*y.shape[:3], self.outputs])
        for variable, value in zip(moving, updates, strict=True) if training else ():
            variable.assign(value)
        return y

    def _tensors(self, place, dtype, widths):
        """The weights of a candidate, {"main": one list of tensors per stage, ...}."""
        found = {part: operation.tensors(dtype) for part, operation in self.operations[place].items()}
        for part, rows in found.items() if widths else ():
            for number, stage in enumerate(self.blocks[place].operations()[part][0]):
                if isinstance(stage, Width):
                    channels = rows[number - 2][-1].shape[-1]  # of the batch norm before the activation
                    rows[number] = [_mask(channels, widths, dtype)]
        return found

    def get_config(self):
        names = "names", "outputs", "stride", "activation", "affine", "epsilon"
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _any_width(made):
    """A `Block` as it is computed, whatever its channels."""

    def stages(own):
        return own and tuple(dataclasses.replace(s, width=None) if isinstance(s, Conv) else s for s in own)

    return dataclasses.replace(made, main=stages(made.main), beside=stages(made.beside), outputs=0)


@functools.cache
def _layer(blocks, masked, paths, others, training, inline, frozen, dtype, exact_dtype):
    """The body of `SearchLayer` as one graph function for all layers of the same candidates, whatever their channels.

    To trace and to optimise the graph of each layer anew would take most of the time until the first step, and of the
    memory. With `inline` it is no graph function, but written out where it is called.

    Args:
        blocks: tuple of `Block`, the candidates, see `_any_width`.
        masked: whether widths are searched.
        frozen: whether nobody wants the gradients of its weights.
    """

    def moving_of(block, tensors):
        """The weights of a candidate that training moves without a gradient."""
        return [
            tensor
            for part, (stages, _) in block.operations().items()
            for stage, row in zip(stages, tensors[part], strict=True)
            for weight, tensor in zip(stage.weights(ANY, ANY, 1), row, strict=False)
            if not weight.trainable
        ]

    def layer(x, weights, tensors):
        if frozen:
            tensors = tf.nest.map_structure(tf.stop_gradient, tensors)
        exact, weights = weights, tf.cast(weights, dtype)  # what is drawn may have too little for float16
        current = [moving_of(block, own) for block, own in zip(blocks, tensors, strict=True)]

        def branch(place, current):
            """The result of a candidate, and the statistics of all after that."""
            y, new = blocks[place].compute(x, tensors[place], training)
            return y, [new if training and other == place else old for other, old in enumerate(current)]

        places, parts = range(len(blocks)), []
        if paths is None:
            for place in places:
                y, current = branch(place, current)
                parts.append(weights[place] * y)
        else:
            for index in tf.unstack(tf.math.top_k(tf.stop_gradient(exact), paths).indices, paths):
                y, current = tf.switch_case(index, [functools.partial(branch, place, current) for place in places])
                parts.append(weights[index] * y)
            parts += [tf.reduce_sum(weights) - weights[index] + tf.zeros_like(y)] if others else []
        return tf.add_n(parts), tf.nest.flatten(current)

    if inline:
        return layer

    def spec(weight):
        shape = [None if axis in weight.free else size for axis, size in enumerate(weight.shape)]
        return tf.TensorSpec(shape, exact_dtype if weight.exact else dtype)

    def specs(stages):
        mask = [tf.TensorSpec([None], dtype)] if masked else []
        return [mask if isinstance(s, Width) else [spec(weight) for weight in s.weights(ANY, ANY, 1)] for s in stages]

    tensors = [{part: specs(stages) for part, (stages, _) in block.operations().items()} for block in blocks]
    return kernels.shared(layer, [tf.TensorSpec([None] * 4, dtype), tf.TensorSpec([len(blocks)], exact_dtype), tensors])


def _mask(channels, widths, dtype):
    """(channels,): how much each of the ordered channels counts, the first of which the narrowest width has, too."""
    rows = [tf.cast(tf.range(channels) < hidden_channels(channels, part), dtype) for part in widths]
    return tf.add_n([tf.cast(share, dtype) * row for share, row in zip(widths.values(), rows, strict=True)])


def of_layers(table, layers):
    """{(table, row, name, part): `Operation`} of `SearchLayer`s."""
    return {
        (table, row, name, part): operation
        for row, layer in enumerate(layers)
        for name, own in zip(layer.names, layer.operations, strict=True)
        for part, operation in own.items()
    }


class PathSupernet(Supernet):
    """What supernets of `SearchLayer`s have in common: their sizes, and what they cost.

    Args:
        space: `darts_tf.spaces.base.SearchSpace`.
        num_classes: number of classes.
        init_channels: see the subclass.
        sync_batch_norm: whether batch norms take their statistics from the batches of all replicas while training.
        relaxation, candidates: see `Supernet`. Of a relaxation that draws paths only what is drawn is computed.

    Attributes:
        inline: whether the graph has the candidates of each layer written out; XLA needs that, `DARTS.compile` sets it.

    Raises:
        ValueError: statistics are to be exchanged within what is drawn.
    """

    inline = False

    def __init__(
        self,
        space,
        num_classes=10,
        init_channels=None,
        sync_batch_norm=False,
        relaxation="softmax",
        candidates=None,
        **kwargs,
    ):
        super().__init__(space, num_classes, relaxation, candidates, autocast=False, **kwargs)
        if sync_batch_norm and self.relaxation.paths("weights") is not None:
            raise ValueError(
                f"sync_batch_norm with relaxation={self.relaxation.name}: expected a relaxation that computes all "
                "candidates; replicas cannot exchange statistics within what is drawn."
            )
        self.num_classes, self.init_channels, self.sync_batch_norm = num_classes, init_channels, sync_batch_norm

    def _operations(self):
        """{key: what has weights}, the same key in all supernets of a space."""
        raise NotImplementedError

    def parts(self):
        return [(key, (layer, None)) for key, layer in self._operations().items()]

    def options(self, purpose, paths, training):
        """What each `SearchLayer` is called with, a dict; arguments are those of `call`."""
        return {
            "paths": self.relaxation.paths(purpose) if paths is None else paths,
            "others": getattr(self.relaxation, "others", False),
            "training": kernels.SYNCHRONIZED if training and self.sync_batch_norm else training,
            "inline": self.inline,
        }

    def get_config(self):
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "init_channels": self.init_channels,
            "sync_batch_norm": self.sync_batch_norm,
            "relaxation": self.relaxation.name,
            "candidates": {name: rows.tolist() for name, rows in self.candidates.items()},
        }


@keras.saving.register_keras_serializable("darts_tf")
class ChainSupernet(PathSupernet):
    """The supernet: a stem, layers that have all of their candidates, a head, average pooling and a linear classifier.

    Its alphas are `alphas["layers"]`, (layers, candidates), and `alphas["widths"]` where widths are searched.

    Args:
        space: `Chains`, or its configuration, {"space": its spec, field: value}.
        init_channels: of the stem; all other channels grow with it. By default the description's.
        limits: as of `Supernet`.
        **kwargs: of `PathSupernet`.

    Call arguments:
        x: images (batch, height, width, depth).
        exact, mixture: as of `darts_tf.SearchNetwork`.
        purpose: see `darts_tf.DARTS`; how many candidates are computed depends on it.
        paths: how many candidates of each layer are computed, in place of what the relaxation says.

    Returns:
        Logits (batch, num_classes), of the type of the variables.

    Raises:
        ValueError: an argument is out of range, or does not go with another.
    """

    def __init__(self, space="chain", num_classes=10, init_channels=None, limits=(), **kwargs):
        space = {"space": space} if isinstance(space, str) else space
        space = spaces.of(space) if isinstance(space, dict) else space
        super().__init__(space, num_classes, init_channels, limits=limits, **kwargs)
        self.description = space.described(init_channels)
        made = ends(self.description, self.description.affine)
        self.stem, self.head = (Operation(*made[name], name=name) for name in ("stem", "head"))
        self.columns, self.layers_of_chain = [], []
        names = space.choices["layers"].candidates
        rows = zip(self.description.layers(), self.candidates["layers"], strict=True)
        for place, (layer, there) in enumerate(rows):
            own = [index for index, has in enumerate(there) if has]
            more = layer.outputs, layer.stride, self.description.activation, self.description.affine
            self.columns.append(own)
            self.layers_of_chain.append(SearchLayer([names[index] for index in own], *more, name=f"layer{place}"))
        self.classifier = keras.layers.Dense(
            num_classes, use_bias=self.description.bias, dtype=self.variable_dtype, name="classifier"
        )

    def build(self, input_shape):
        self.add_alphas()
        self.stem.build(input_shape)
        for layer, own in zip(self.layers_of_chain, self.description.layers(), strict=True):
            layer.build((None, None, None, own.inputs))
        self.head.build((None, None, None, self.description.layers()[-1].outputs))
        self.classifier.build((None, self.description.head))
        self.built = True

    def call(self, x, training=False, exact=False, mixture=None, purpose=None, paths=None):
        x = tf.cast(x, self.variable_dtype if exact else self.compute_dtype)
        mixture = self.mixture() if mixture is None else mixture
        options = self.options(purpose, paths, training)
        options["inline"] |= sum(map(len, self.columns)) <= FEW
        x = self.stem(x, training=options["training"])
        for place, (layer, own) in enumerate(zip(self.layers_of_chain, self.columns, strict=True)):
            widths = mixture.get("widths")
            if widths is not None:
                widths = dict(zip(map(float, self.space.widths), tf.unstack(widths[place]), strict=True))
            x = layer(x, tf.gather(mixture["layers"][place], own), widths=widths, **options)
        x = self.head(x, training=options["training"])
        return self.classifier(tf.reduce_mean(tf.cast(x, self.variable_dtype), [1, 2]))

    def _operations(self):
        ends = {name: getattr(self, name) for name in ("stem", "head", "classifier")}
        return ends | of_layers("layers", self.layers_of_chain)

    def get_config(self):
        return {
            **super().get_config(),
            "space": self.space.configuration(),
            "limits": [(table.to_config(), most) for table, most in self.limits],
        }


def chain_network(description, names, widths=None, num_classes=10, image_shape=(32, 32, 3), normalization=None):
    """The network of a chain, of standard Keras layers.

    Args:
        description: `Description`.
        names: of the block of each layer.
        widths: the part of its inner channels that each layer has; by default all.
        num_classes: number of classes.
        image_shape: (height, width, depth).
        normalization: mean and standard deviation of the pixels per channel, if the network is to see pixels as they
            are in files; without it images are expected to be normalised.

    Returns:
        A functional `keras.Model` from images (batch, *image_shape) to logits (batch, num_classes).

    Raises:
        ValueError: there is no such block, or none for its channels.
    """
    images, x = inputs(image_shape, normalization)
    made = ends(description)
    x = operations.layers(made["stem"][0], x, made["stem"][1], "stem")
    rows = zip(description.layers(), names, widths or [1.0] * len(names), strict=True)
    for place, (layer, name, width) in enumerate(rows):
        own = block(name, layer.inputs, layer.outputs, layer.stride, description.activation, True, width)
        x = own.layers(x, f"layer{place}")
    x = operations.layers(made["head"][0], x, made["head"][1], "head")
    exact = keras.config.dtype_policy().variable_dtype
    x = keras.layers.GlobalAveragePooling2D(dtype=exact, name="pooling")(x)
    classifier = keras.layers.Dense(num_classes, use_bias=description.bias, dtype=exact, name="classifier")
    network = keras.Model(images, classifier(x))
    kernels.reroute_strided_pointwise(network)
    return network
