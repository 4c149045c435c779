"""Networks of NAS-Bench-201's cells: three stages of cells, and residual blocks between them that halve the image."""

import keras

from darts_tf.ops import kernels, operations
from darts_tf.ops.operations import Operation, make_operation, stem
from darts_tf.ops.stages import BatchNorm, Conv, MeanOfFour, ReLU
from darts_tf.spaces.cells.cell import SearchCell, connect
from darts_tf.spaces.cells.networks import SearchNetwork
from darts_tf.spaces.models import inputs

STAGES = 3


def stack(channels, layers):
    """The cells and blocks of a network: (channels, whether it is a residual block) of each."""
    for stage in range(STAGES):
        width = channels * 2**stage
        yield from [(width, True)] * (stage > 0) + [(width, False)] * layers


def residual_stages():
    """{name: stages} of the residual block: two convolutions after each other, and the way past them."""
    first, second = ([ReLU(), Conv((3, 3), (step, step)), BatchNorm(affine=True)] for step in (2, 1))
    return {"conv_a": first, "conv_b": second, "downsample": [MeanOfFour(), Conv()]}


LAST = [BatchNorm(affine=True), ReLU()]  # before the classifier


@keras.saving.register_keras_serializable("darts_tf")
class ResidualBlock(keras.layers.Layer):
    """Halves the image: (batch, height, width, ...) becomes (batch, height / 2, width / 2, channels).

    Args:
        channels: of the result.
    """

    def __init__(self, channels, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.channels = channels
        self.conv_a, self.conv_b, self.downsample = (
            Operation(stages, channels, name=name) for name, stages in residual_stages().items()
        )

    def operations(self):
        """Its `Operation`s, a list."""
        return [self.conv_a, self.conv_b, self.downsample]

    def build(self, input_shape):
        for operation in (self.conv_a, self.downsample):
            operation.build(input_shape)
        self.conv_b.build((*input_shape[:-1], self.channels))
        self.built = True

    def call(self, x, training=False):
        y = self.conv_b(self.conv_a(x, training=training), training=training)
        return y + self.downsample(x, training=training)

    def get_config(self):
        return {**super().get_config(), "channels": self.channels}


@keras.saving.register_keras_serializable("darts_tf")
class SearchCell201(SearchCell):
    """A cell of one input, whose last node is the result; arguments are those of `SearchCell`."""

    num_inputs = 1
    pool_norm = False

    def _preprocessing(self):
        return []

    def _result(self, states):
        return states[-1]


@keras.saving.register_keras_serializable("darts_tf")
class SearchNetwork201(SearchNetwork):
    """The supernet: a stem, three stages of cells of mixed operations, global average pooling and a linear classifier.

    Args:
        channels: of the first stage; each other has twice those of the stage before it.
        layers: cells of a stage.
        space: `NasBench201`, by default the benchmark's.
        **kwargs: of `SearchNetwork`.
    """

    least_layers = 1, "cell in each stage"

    def __init__(self, channels=16, layers=5, num_classes=10, space="nas-bench-201", **kwargs):
        sizes = {"stem_multiplier": 1, "nodes": None, "primitives": None}
        super().__init__(channels, layers, num_classes, space=space, **(sizes | kwargs))
        self.last = Operation(LAST, 0, name="last")

    def parts(self):
        yield from super().parts()
        yield "last", (self.last, [0])

    def _make_cells(self):
        names, more = self.of_cells("cell")
        return [
            ResidualBlock(width, name=f"cell{index}")
            if reduction
            else SearchCell201(names, width, self.nodes, **more, name=f"cell{index}")
            for index, (width, reduction) in enumerate(stack(self.channels, self.num_layers))
        ]

    def _build_cells(self):
        last = self.channels
        for cell in self.cells:
            shape = None, None, None, last
            cell.build([shape] if isinstance(cell, SearchCell) else shape)
            last = cell.channels
        self.last.build((None, None, None, last))
        return last

    def _through_cells(self, x, weights, passing, draws, training=False, **options):
        for cell, draw in zip(self.cells, draws, strict=True):
            if isinstance(cell, SearchCell):
                x = self._cell(cell, [x], weights["cell"], passing["cell"], draw=draw, training=training, **options)
            else:
                x = cell(x, training=training)
        return self.last(x, training=training)


def network_201(structure, channels=16, layers=5, num_classes=10, image_shape=(32, 32, 3), normalization=None):
    """The network of a cell (section 2.1 of the paper).

    Args:
        structure: `space.Structure`.
        channels: of the first stage; each other has twice those of the stage before it.
        layers: cells of a stage, at least 1.
        num_classes: number of classes.
        image_shape: (height, width, depth).
        normalization: mean and standard deviation of the pixels per channel, if the network is to see pixels as they
            are in files; without it images are expected to be normalised.

    Returns:
        A functional `keras.Model` from images (batch, *image_shape) to logits (batch, num_classes), of standard Keras
        layers.

    Raises:
        ValueError: the structure names an operation that is not registered, or `layers` is out of range.
    """
    if layers < 1:
        raise ValueError(f"layers={layers}: expected at least 1 cell in each stage.")
    images, x = inputs(image_shape, normalization)
    x = operations.layers(stem(affine=True), x, channels, "stem")
    for index, (width, reduction) in enumerate(stack(channels, layers)):
        x = _residual_block(x, width, f"cell{index}") if reduction else _cell(x, structure, width, f"cell{index}")
    x = operations.layers(LAST, x, channels, "last")
    exact = keras.config.dtype_policy().variable_dtype
    x = keras.layers.GlobalAveragePooling2D(dtype=exact, name="pooling")(x)
    network = keras.Model(images, keras.layers.Dense(num_classes, dtype=exact, name="classifier")(x))
    kernels.reroute_strided_pointwise(network)  # of operations that are Keras layers
    return network


def _residual_block(x, channels, name):
    way, y = None, x
    for part, stages in residual_stages().items():
        if part == "downsample":
            way = operations.layers(stages, x, channels, f"{name}_{part}")
        else:
            y = operations.layers(stages, y, channels, f"{name}_{part}")
    return keras.layers.Add(name=name)([y, way])


def _cell(x, structure, channels, name):
    edges = [*structure.space.edges()]

    def edges_from(source, image):
        for edge, ((node, start), operation) in enumerate(zip(edges, structure.names, strict=True)):
            if start == source:
                made = make_operation(operation, channels, 1, affine=True)
                yield node, operations.layers(made, image, channels, f"{name}_edge{edge}")

    def total(node, images):
        return keras.layers.Add(name=f"{name}_node{node}")(images) if len(images) > 1 else images[0]

    return connect([x], structure.space.nodes, edges_from, total)[-1]
