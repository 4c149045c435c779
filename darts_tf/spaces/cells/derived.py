"""The network of a genotype, of standard Keras layers: what is saved of it and deployed."""

import keras

from darts_tf.ops import kernels, operations
from darts_tf.ops.drop_path import DropPath
from darts_tf.ops.stages import BatchNorm, Conv, ReLU
from darts_tf.spaces.cells import genotypes
from darts_tf.spaces.cells.cell import connect, edge_stride, preprocessing
from darts_tf.spaces.cells.networks import reductions, stack, stems
from darts_tf.spaces.models import inputs


def cifar_network(
    genotype,
    channels=36,
    layers=20,
    num_classes=10,
    image_shape=(32, 32, 3),
    auxiliary=False,
    drop_path=False,
    normalization=None,
):
    """The network of a genotype for small images (appendix A of the paper).

    Args:
        genotype: `genotypes.Genotype`.
        channels: channels of the nodes of the first cell; each reduction cell doubles them.
        layers: number of cells, at least 1.
        num_classes: number of classes.
        image_shape: (height, width, depth), at least 8x8.
        auxiliary: whether to add an auxiliary head after the second reduction cell, for training.
        drop_path: whether edges can be dropped in training; how often, see `darts_tf.ops.drop_path.DropPath`.
        normalization: mean and standard deviation of the pixels per channel, if the network is to see pixels as they
            are in files; without it images are expected to be normalised.

    Returns:
        A functional `keras.Model` from images (batch, *image_shape) to logits (batch, num_classes), of standard Keras
        layers; with `auxiliary`, an `AuxiliaryModel`.

    Raises:
        ValueError: the genotype names an operation that is not registered, or an argument is out of range.
    """
    images, x = inputs(image_shape, normalization)
    ((stages, width),) = stems("cifar", channels)
    x = operations.layers(stages, x, width, "stem")
    last, early = _cells([x, x], False, genotype, channels, layers, drop_path)
    return _model(images, last, num_classes, auxiliary_head(early, num_classes, "cifar") if auxiliary else None)


def imagenet_network(
    genotype,
    channels=48,
    layers=14,
    num_classes=1000,
    image_shape=(224, 224, 3),
    auxiliary=False,
    drop_path=False,
    normalization=None,
):
    """The network of a genotype for large images, which its stem makes eight times smaller (appendix A of the paper).

    Arguments, result and errors are those of `cifar_network`.
    """
    images, x = inputs(image_shape, normalization)
    first, second, third = stems("imagenet", channels)
    x = operations.layers(first[0], x, first[1], "stem0")
    before = operations.layers(second[0], x, second[1], "stem0", start=len(first[0]))
    x = operations.layers(third[0], before, third[1], "stem1")
    last, early = _cells([before, x], True, genotype, channels, layers, drop_path)
    return _model(images, last, num_classes, auxiliary_head(early, num_classes, "imagenet") if auxiliary else None)


def check(genotype, layers):
    """Raises ValueError if there is no network of so many cells of a genotype."""
    genotypes.check(genotype, operations.operation_names())
    if layers < 1:
        raise ValueError(f"layers={layers}: expected at least 1 cell.")


def _cells(stems, reduction_prev, genotype, channels, layers, drop_path):
    """All cells, on the results of two stems; `reduction_prev` tells that the first is twice as high and wide.

    Returns:
        The results of the last cell and of the second reduction cell.
    """
    check(genotype, layers)
    results = list(stems)
    for index, (width, reduction) in enumerate(stack(channels, layers)):
        cell = genotype[2:] if reduction else genotype[:2]
        name = f"cell{index}"
        results.append(derived_cell(results[-2:], *cell, width, reduction, reduction_prev, drop_path, name))
        reduction_prev = reduction
    return results[-1], results[len(stems) + reductions(layers)[1]]


def _model(images, last, num_classes, auxiliary_logits):
    logits = _classifier(last, num_classes)
    if auxiliary_logits is None:
        network = keras.Model(images, logits)
    else:
        network = AuxiliaryModel(images, [logits, auxiliary_logits])
    kernels.reroute_strided_pointwise(network)  # of operations that are Keras layers
    return network


def auxiliary_head(x, num_classes, network):
    """Logits from the middle of a network; images too small for the pool and a convolution after it skip the pool.

    Like that of the paper, the head of the ImageNet network lacks a batch norm.
    """
    pool_stride, norm = (3, True) if network == "cifar" else (2, False)
    x = keras.layers.ReLU(name="auxiliary_0")(x)
    if min(x.shape[1:3]) >= 5 + pool_stride:
        x = keras.layers.AveragePooling2D(5, pool_stride, name="auxiliary_1")(x)
    x = operations.layers([Conv(), BatchNorm(affine=True), ReLU()], x, 128, "auxiliary", start=2)
    padding = "valid" if min(x.shape[1:3]) > 1 else "same"
    x = keras.layers.Conv2D(768, 2, padding=padding, use_bias=False, name="auxiliary_5")(x)
    x = operations.layers([BatchNorm(affine=True), ReLU()] if norm else [ReLU()], x, 768, "auxiliary", start=6)
    return _classifier(x, num_classes, "auxiliary_")


def _classifier(x, num_classes, prefix=""):
    """Logits of the type of the variables, whatever type the rest is computed in."""
    exact = keras.config.dtype_policy().variable_dtype
    x = keras.layers.GlobalAveragePooling2D(dtype=exact, name=f"{prefix}pooling")(x)
    return keras.layers.Dense(num_classes, dtype=exact, name=f"{prefix}classifier")(x)


class AuxiliaryLoss:
    """For models whose outputs are logits and, in training, those of an auxiliary head, which only the loss sees.

    Attributes:
        auxiliary_weight: what the head's loss counts.
    """

    auxiliary_weight = 0.4

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        logits, *auxiliary = keras.tree.flatten(y_pred)
        loss = super().compute_loss(x, y, logits, sample_weight, training)
        if training and auxiliary:
            loss += self.auxiliary_weight * super().compute_loss(x, y, auxiliary[0], sample_weight, training)
        return loss

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return super().compute_metrics(x, y, keras.tree.flatten(y_pred)[0], sample_weight)


@keras.saving.register_keras_serializable("darts_tf")
class AuxiliaryModel(AuxiliaryLoss, keras.Model):
    """A functional model of two outputs, logits and an auxiliary head's; only training sees the latter.

    Args:
        inputs, outputs: as of a functional `keras.Model`.
    """

    def get_config(self):
        return {**super().get_config(), "auxiliary_weight": self.auxiliary_weight}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        weight = config.pop("auxiliary_weight")
        model = super().from_config(config, custom_objects)
        model.auxiliary_weight = weight
        return model


BUILDERS = {"cifar": cifar_network, "imagenet": imagenet_network}


def derived_cell(inputs, pairs, concat, channels, reduction, reduction_prev, drop_path, name):
    """A cell of a genotype, of standard Keras layers.

    Args:
        inputs: the results of the two cells before, `keras.KerasTensor` (batch, height, width, ...) each.
        pairs: the edges of a genotype's cell, see `genotypes.Genotype`.
        concat: the nodes that make the result.
        channels: channels of each node.
        reduction, reduction_prev: as in `SearchCell`.
        drop_path: whether edges other than identities can be dropped during training, see `DropPath`.
        name: its layers are called `{name}_preprocess0_...`, `{name}_edge0_...`, `{name}_node2`, ...

    Returns:
        `keras.KerasTensor` (batch, height', width', len(concat) * channels).
    """

    edges = genotypes.edges(pairs)

    def edges_from(source, image):
        for edge, (node, operation, start) in enumerate(edges):
            if start == source:
                made = operations.make_operation(operation, channels, edge_stride(source, reduction), affine=True)
                result = operations.layers(made, image, channels, f"{name}_edge{edge}")
                if drop_path and result is not image:
                    result = DropPath(name=f"{name}_edge{edge}_drop_path")(result)
                yield node, result

    def total(node, images):
        return keras.layers.Add(name=f"{name}_node{node}")(images) if len(images) > 1 else images[0]

    inputs = [
        operations.layers(stages, x, channels, f"{name}_preprocess{place}")
        for place, (stages, x) in enumerate(zip(preprocessing(reduction_prev, affine=True), inputs, strict=True))
    ]
    states = connect(inputs, genotypes.num_nodes(pairs), edges_from, total)
    states = [states[node] for node in concat]
    return keras.layers.Concatenate(name=name)(states) if len(states) > 1 else states[0]
