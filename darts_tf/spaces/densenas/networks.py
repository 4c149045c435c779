"""Networks of densely connected blocks: the supernet, and what a path becomes."""

import keras
import numpy as np
import tensorflow as tf

from darts_tf import spaces
from darts_tf.methods.relaxations import NEVER
from darts_tf.ops import kernels, operations
from darts_tf.ops.operations import Operation
from darts_tf.spaces.chain.blocks import block
from darts_tf.spaces.chain.networks import PathSupernet, SearchLayer, of_layers
from darts_tf.spaces.densenas.blocks import EPSILON, ends, sized
from darts_tf.spaces.models import inputs


@keras.saving.register_keras_serializable("darts_tf")
class DenseSupernet(PathSupernet):
    """The supernet: a stem, blocks that read from all that they may read from, global average pooling, a classifier.

    What a block is given is the sum of its heads, each of which counts the softmax of the routing of the block that it
    reads from (equation 5). Before the last convolutions, one for each block that the last reads from, these weights
    are normalised once more by a softmax, as in the original code.

    Args:
        space: `DenseNAS`, or the text of its graph.
        init_channels, strides: see `sized`.
        **kwargs: of `PathSupernet`. The relaxation is that of heads and layers; routing has a softmax.

    Call arguments:
        x: images (batch, height, width, depth).
        exact, mixture: as of `darts_tf.SearchNetwork`.
        purpose: see `darts_tf.DARTS`; how many candidates are computed depends on it.
        paths: how many candidates of each head and layer are computed, in place of what the relaxation says.

    Returns:
        Logits (batch, num_classes), of the type of the variables.

    Raises:
        ValueError: an argument is out of range, or there is no operation of some name.
    """

    def __init__(self, space="mbv2", num_classes=10, init_channels=None, strides=None, **kwargs):
        space = spaces.of({"space": "densenas", "graph": space}) if isinstance(space, str) else space
        super().__init__(space, num_classes, init_channels, **kwargs)
        self.graph, self.stem_stride = sized(space.blocks, init_channels, strides)
        widths = self.graph.channels
        made = ends(self.graph, self.stem_stride, affine=False)
        self.stem, self.first = (Operation(*made[name], name=name) for name in ("stem", "first"))
        self.heads = [
            self._layer("heads", row, widths[target], self.graph.stride(source, target))
            for row, (source, target) in enumerate(self.graph.heads_of)
        ]
        self.stack = [
            self._layer("stack", row, widths[block_of]) for row, (block_of, _) in enumerate(self.graph.layers_of)
        ]
        self._ends = self.graph.sources(self.graph.blocks - 1)
        self.last = [Operation(*made["last"], name=f"last{place}") for place in range(len(self._ends))]
        self.classifier = keras.layers.Dense(num_classes, dtype=self.variable_dtype, name="classifier")

    def _layer(self, table, row, channels, stride=1):
        """The `SearchLayer` of a row."""
        names, there = self.space.choices[table].candidates, self.candidates[table][row]
        own = [name for name, has in zip(names, there, strict=True) if has]
        return SearchLayer(own, channels, stride, affine=False, epsilon=EPSILON, name=f"{table}{row}")

    def build(self, input_shape):
        self.add_alphas()
        widths = [(None, None, None, width) for width in self.graph.channels]
        self.stem.build(input_shape)
        self.first.build(widths[0])
        for (source, _), head in zip(self.graph.heads_of, self.heads, strict=True):
            head.build(widths[source])
        for (number, _), layer in zip(self.graph.layers_of, self.stack, strict=True):
            layer.build(widths[number])
        for source, operation in zip(self._ends, self.last, strict=True):
            operation.build(widths[source])
        self.classifier.build((None, self.graph.channels[-1]))
        self.built = True

    def _operations(self):
        ends = {name: getattr(self, name) for name in ("stem", "first", "classifier")}
        ends |= {("last", place): operation for place, operation in enumerate(self.last)}
        return ends | of_layers("heads", self.heads) | of_layers("stack", self.stack)

    def mixture(self, draw=None, purpose=None):
        alpha = tf.convert_to_tensor(self.alphas["routing"])
        there = tf.where(self.candidates["routing"], alpha, tf.constant(NEVER, alpha.dtype))
        return super().mixture(draw, purpose) | {"routing": tf.nn.softmax(there)}

    def call(self, x, training=False, exact=False, mixture=None, purpose=None, paths=None):
        x = tf.cast(x, self.variable_dtype if exact else self.compute_dtype)
        mixture = self.mixture() if mixture is None else mixture
        options = self.options(purpose, paths, training)
        training = options["training"]
        graph, x = self.graph, self.stem(x, training=training)
        images, rows = {0: x + self.first(x, training=training)}, {edge: r for r, edge in enumerate(graph.heads_of)}

        def share(source, target):
            return tf.cast(mixture["routing"][source, target - source - 1], x.dtype)

        def layer(table, row, x):
            own = tf.gather(mixture[table][row], np.flatnonzero(self.candidates[table][row]))
            return getattr(self, table)[row](x, own, **options)

        for block_of in range(1, graph.blocks - 1):
            heads = [
                share(source, block_of) * layer("heads", rows[source, block_of], images[source])
                for source in graph.sources(block_of)
            ]
            images[block_of] = tf.add_n(heads)
            for row, (number, _) in enumerate(graph.layers_of):
                if number == block_of:
                    images[block_of] = layer("stack", row, images[block_of])
        shares = tf.stack([share(source, graph.blocks - 1) for source in self._ends])
        shares = tf.nn.softmax(tf.where(shares > 0, shares, tf.constant(NEVER, shares.dtype)))
        ends = zip(tf.unstack(shares), self._ends, self.last, strict=True)
        total = tf.add_n([share * last(images[source], training=training) for share, source, last in ends])
        return self.classifier(tf.reduce_mean(tf.cast(total, self.variable_dtype), [1, 2]))

    def get_config(self):
        return {
            **super().get_config(),
            "space": self.space.graph,
            "strides": [self.stem_stride, *self.graph.strides],
        }


def dense_network(
    path, init_channels=None, num_classes=10, image_shape=(224, 224, 3), strides=None, normalization=None
):
    """The network of a path.

    Args:
        path: `space.Path`.
        init_channels, strides: see `sized`.
        num_classes: number of classes.
        image_shape: (height, width, depth).
        normalization: mean and standard deviation of the pixels per channel, if the network is to see pixels as they
            are in files; without it images are expected to be normalised.

    Returns:
        A functional `keras.Model` from images (batch, *image_shape) to logits (batch, num_classes), of standard Keras
        layers.

    Raises:
        ValueError: an argument is out of range, or there is no operation of some name.
    """
    graph, stem_stride = sized(path.space.blocks, init_channels, strides)
    made, (images, x) = ends(graph, stem_stride), inputs(image_shape, normalization)
    x = operations.layers(made["stem"][0], x, graph.channels[0], "stem")
    x = keras.layers.Add(name="first")([x, operations.layers(made["first"][0], x, graph.channels[0], "first")])
    for own in path.space.path(path, graph):
        for place, name in enumerate(own.operations):
            stride = 1 if place else own.stride
            made_of = block(name, x.shape[-1], own.channels, stride, epsilon=EPSILON)
            x = made_of.layers(x, f"block{own.number}_{place}")
    x = operations.layers(made["last"][0], x, graph.channels[-1], "last")
    exact = keras.config.dtype_policy().variable_dtype
    x = keras.layers.GlobalAveragePooling2D(dtype=exact, name="pooling")(x)
    network = keras.Model(images, keras.layers.Dense(num_classes, dtype=exact, name="classifier")(x))
    kernels.reroute_strided_pointwise(network)
    return network
