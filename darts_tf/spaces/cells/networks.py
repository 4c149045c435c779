"""Networks made of cells: what all of them have in common, and the supernet."""

import keras
import numpy as np
import tensorflow as tf

from darts_tf import spaces
from darts_tf.ops import kernels
from darts_tf.ops.operations import Operation, get_operation, stem
from darts_tf.ops.recompute import recomputed
from darts_tf.ops.stages import BatchNorm, Conv, ReLU
from darts_tf.spaces.cells.cell import SearchCell, rows_by_source
from darts_tf.spaces.cells.space import PRIMITIVES
from darts_tf.spaces.models import Supernet


def reductions(layers):
    """The positions of the two reduction cells among `layers` cells: at one and two thirds (section 3.1.1)."""
    return layers // 3, 2 * layers // 3


def stack(channels, layers):
    """The cells of a network: (channels of its nodes, whether it is a reduction cell) of each."""
    for index in range(layers):
        reduction = index in reductions(layers)
        channels *= 2 if reduction else 1
        yield channels, reduction


def stems(network, channels):
    """What derived networks have before their cells, a list of (stages, channels of the result).

    Args:
        network: "cifar", whose only result is both inputs of the first cell, or "imagenet", whose last two are these.
        channels: of the nodes of the first cell.
    """
    if network == "cifar":
        return [(stem(affine=True), 3 * channels)]
    halve = [Conv((3, 3), (2, 2)), BatchNorm(affine=True)]
    return [(halve, channels // 2), *[([ReLU(), *halve], channels)] * 2]


@keras.saving.register_keras_serializable("darts_tf")
class SearchNetwork(Supernet):
    """The supernet: a stem, cells of mixed operations, global average pooling and a linear classifier.

    Its architecture parameters alpha are two of its variables, `alphas["normal"]` and `alphas["reduce"]`,
    (edges, operations) each, shared by all cells of a kind. `arch_variables` are those of them that are trainable,
    `weight_variables` are the other trainable variables, and `genotype()` is what it stands for.

    Args:
        channels: channels of the nodes of the first cell; each reduction cell doubles them.
        layers: number of cells, at least 3.
        num_classes: number of classes.
        nodes: intermediate nodes of a cell, at least 1.
        primitives: names of the candidate operations, at least one of them other than "none".
        stem_multiplier: the stem has `stem_multiplier * channels` channels.
        sync_batch_norm: whether batch norms take their statistics from the batches of all replicas while training.
        relaxation: how alphas become weights of the operations (equation 2): a name or an object, see
            `darts_tf.methods.relaxations`. Of one that is `hard` only the operation of the largest weight of each edge
            is computed.
        space: `Cells` that say nodes, edges and operations, in place of `nodes` and `primitives`; or what its `spec`
            says.
        candidates, edge_normalization: see `Supernet`; without a candidate an edge has no weights for it.
        partial_channels: K; only each K-th of the channels of a node goes through the operations, the others pass by,
            and all are shuffled (section 3.2 of PC-DARTS). 2x2 max pools halve images that pass by, odd ones padded.
        auxiliary_skip: whether every edge has a skip connection beside its operations, that counts `auxiliary_rate`
            (equation 3 of DARTS-); where it halves the image it has weights of its own.
        skip_dropout: whether skip connections that keep the image's size are followed by dropout in training, at a
            rate of `skip_dropout` (section 3.2 of P-DARTS).
        recompute: whether what is within a cell is computed again in the backward pass, in place of being kept.

    Call arguments:
        x: images (batch, height, width, depth), at least 8x8.
        exact: whether to compute in the type of the variables, whatever the dtype policy is.
        mixture: weights of the operations, {kind: (edges, operations)}, in place of those that alphas give.
        draw: seed of what operations and dropout draw in training, int32 (2,); None for nothing.

    Returns:
        Logits (batch, num_classes), of the type of the variables.

    Attributes:
        inline: whether the graph has the operations of each node written out. XLA needs that: where nodes share a
            function it takes their images for constants and compiles again in each step. `DARTS.compile` sets it.
        auxiliary_rate, skip_dropout: scalar variables, 1 and 0 at first; None without what they are of, and
            before the model is built.
        has_noise: whether there is dropout, or an operation that draws.

    With a dtype policy such as "mixed_bfloat16", images and kernels are of the low precision; architecture weights and
    the statistics of batch norms are not.

    Raises:
        ValueError: an argument is out of range or does not go with another, or an operation is not registered.
    """

    least_layers = 3, "cells, two of which are reduction cells"

    def __init__(
        self,
        channels=16,
        layers=8,
        num_classes=10,
        nodes=4,
        primitives=PRIMITIVES,
        stem_multiplier=3,
        sync_batch_norm=False,
        relaxation="softmax",
        space=None,
        candidates=None,
        edge_normalization=False,
        partial_channels=1,
        auxiliary_skip=False,
        skip_dropout=False,
        recompute=False,
        **kwargs,
    ):
        sizes = {"nodes": nodes, "primitives": primitives}
        space = spaces.of(sizes | {"space": space}) if space is None or isinstance(space, str) else space
        super().__init__(space, num_classes, relaxation, candidates, edge_normalization, autocast=False, **kwargs)
        for name, value, least, what in (
            ("channels", channels, 1, "channel"),
            ("layers", layers, *self.least_layers),
            ("num_classes", num_classes, 1, "class"),
            ("stem_multiplier", stem_multiplier, 1, "times the channels"),
            ("partial_channels", partial_channels, 1, "as the part of the channels that operations see"),
        ):
            if value != int(value) or value < least:
                raise ValueError(f"{name}={value}: expected at least {least} {what}.")
        if channels % partial_channels:
            raise ValueError(f"partial_channels={partial_channels}: expected a divisor of the {channels} channels.")
        if auxiliary_skip and self.relaxation.hard:
            raise ValueError(
                f"auxiliary_skip with relaxation={self.relaxation.name}: expected a relaxation that mixes operations."
            )
        for name in self.space.primitives:
            get_operation(name)
        self.channels = channels
        self.num_layers = layers
        self.num_classes = num_classes
        self.nodes = self.space.nodes
        self.primitives = self.space.primitives
        self.edges = {kind: self.space.edges(kind) for kind in self.space.choices}
        self.stem_multiplier = stem_multiplier
        self.sync_batch_norm = sync_batch_norm
        self.partial_channels = partial_channels
        self.auxiliary_skip = auxiliary_skip
        self._has_dropout = skip_dropout
        self.recompute = recompute
        self.auxiliary_rate = self.skip_dropout = None
        self._inline = False

        self.stem = Operation(stem(affine=True), stem_multiplier * channels, name="stem")
        self.cells = self._make_cells()
        self.classifier = keras.layers.Dense(num_classes, dtype=self.variable_dtype, name="classifier")
        self.has_noise = skip_dropout or any(
            mixed_op.noisy
            for cell in self.cells
            if isinstance(cell, SearchCell)
            for mixed_op in cell.mixed_ops.values()
        )

    @property
    def inline(self):
        return self._inline

    @inline.setter
    def inline(self, value):
        if value and self.relaxation.hard:
            raise ValueError(
                f"jit_compile=True with relaxation={self.relaxation.name}: expected jit_compile=False; what is "
                "computed changes from step to step, and XLA would compile it anew."
            )
        self._inline = value

    def of_cells(self, kind):
        """What the cells of a kind are made with: their operations, and more arguments, a dict."""
        names, candidates = self.primitives, self.candidates[kind]
        if self.auxiliary_skip:
            names, candidates = (*names, "skip_connect"), np.pad(candidates, [(0, 0), (0, 1)], constant_values=True)
        more = {"edges": self.edges[kind], "candidates": candidates, "partial_channels": self.partial_channels}
        return names, more

    def _make_cells(self):
        """The layers between stem and classifier."""
        cells, reduction_prev = [], False
        for index, (width, reduction) in enumerate(stack(self.channels, self.num_layers)):
            names, more = self.of_cells("reduce" if reduction else "normal")
            cells.append(SearchCell(names, width, self.nodes, reduction, reduction_prev, **more, name=f"cell{index}"))
            reduction_prev = reduction
        return cells

    def parts(self):
        yield "classifier", (self.classifier, None)
        yield "stem", (self.stem, [0])
        for place, cell in enumerate(self.cells):
            if not isinstance(cell, SearchCell):
                yield from (((place, operation.name), (operation, [0])) for operation in cell.operations())
                continue
            for number, operation in enumerate(cell.preprocess):
                yield (place, "preprocess", number), (operation, [0])
            for source, mixed_op in cell.mixed_ops.items():
                for index, operation in mixed_op.shared.items():
                    yield (place, source, index), (operation, [0])
                for index, operation in mixed_op.grouped.items():
                    yield (place, source, index), (operation, mixed_op.members(index).tolist())
                for index, layers in mixed_op.separate.items():
                    for edge, layer in zip(mixed_op.members(index).tolist(), layers, strict=True):
                        yield (place, source, index, edge), (layer, None)

    def _build_cells(self):
        """Builds them; returns the channels of their result."""
        before, last = [self.stem_multiplier * self.channels] * 2
        for cell in self.cells:
            cell.build([(None, None, None, before), (None, None, None, last)])
            before, last = last, self.nodes * cell.channels
        return last

    def _through_cells(self, x, weights, passing, draws, **options):
        """The result of the cells.

        Args:
            x: of the stem.
            weights, passing: {kind: rows by source}, see `SearchCell`; the latter may be {kind: None}.
            draws: a seed for each cell, or None.
            options: of each cell.
        """
        before = last = x
        for cell, draw in zip(self.cells, draws, strict=True):
            kind = "reduce" if cell.reduction else "normal"
            before, last = last, self._cell(cell, [before, last], weights[kind], passing[kind], draw=draw, **options)
        return last

    def _cell(self, cell, inputs, weights, passing, **options):
        if not (self.recompute and options["training"]):
            return cell(inputs, weights, passing, **options)
        return recomputed(cell, inputs, weights, *([] if passing is None else [passing]), **options)

    def build(self, input_shape):
        self.add_alphas()
        fixed = {"shape": (), "trainable": False, "autocast": False}
        if self.auxiliary_skip:
            self.auxiliary_rate = self.add_weight(initializer="ones", name="auxiliary_rate", **fixed)
        if self._has_dropout:
            self.skip_dropout = self.add_weight(initializer="zeros", name="skip_dropout", **fixed)
        self.stem.build(input_shape)
        self.classifier.build((None, self._build_cells()))
        self.built = True

    def call(self, x, training=False, exact=False, mixture=None, draw=None):
        x = tf.cast(x, self.variable_dtype if exact else self.compute_dtype)
        mixture = self.mixture() if mixture is None else mixture
        weights, passing, shares = {}, {}, self.edge_weights()
        for kind, rows in mixture.items():
            if self.auxiliary_skip:
                rate = tf.cast(self.auxiliary_rate, rows.dtype)
                rows = tf.concat([rows, tf.fill([rows.shape[0], 1], rate)], 1)
            passing[kind] = None
            if shares is not None:
                rows *= shares[kind][:, None]
                passing[kind] = rows_by_source(shares[kind], self.edges[kind])
            weights[kind] = rows_by_source(rows, self.edges[kind])
        inline = self.inline
        if training and self.sync_batch_norm:
            training = kernels.SYNCHRONIZED
            inline = True  # what replicas exchange has its own place in the graph of each
        options = {
            "inline": inline,
            "drawn": self.relaxation.hard,
            "others": getattr(self.relaxation, "others", False),
            "dropout": None if self.skip_dropout is None else tf.convert_to_tensor(self.skip_dropout),
        }
        draws = [None] * len(self.cells)
        if draw is not None and training:  # the first of them are `mixture`'s
            places = range(len(weights), len(weights) + len(self.cells))
            draws = [tf.random.experimental.stateless_fold_in(draw, place) for place in places]
        last = self._through_cells(
            self.stem(x, training=training), weights, passing, draws, training=training, **options
        )
        return self.classifier(tf.reduce_mean(tf.cast(last, self.variable_dtype), [1, 2]))

    def get_config(self):
        return {
            **super().get_config(),
            "channels": self.channels,
            "layers": self.num_layers,
            "num_classes": self.num_classes,
            "nodes": self.nodes,
            "primitives": self.primitives,
            "stem_multiplier": self.stem_multiplier,
            "sync_batch_norm": self.sync_batch_norm,
            "relaxation": self.relaxation.name,
            "space": self.space.spec,
            "candidates": {kind: rows.tolist() for kind, rows in self.candidates.items()},
            "edge_normalization": self.edge_normalization,
            "partial_channels": self.partial_channels,
            "auxiliary_skip": self.auxiliary_skip,
            "skip_dropout": self._has_dropout,
            "recompute": self.recompute,
        }
