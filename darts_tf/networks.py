"""Networks made of cells."""

import keras
import tensorflow as tf

from darts_tf import genotypes
from darts_tf.cells import SearchCell, num_edges, rows_by_source
from darts_tf.operations import PRIMITIVES, Operation, get_operation, stem


def reductions(layers):
    """The positions of the two reduction cells among `layers` cells: at one and two thirds (section 3.1.1)."""
    return layers // 3, 2 * layers // 3


@keras.saving.register_keras_serializable("darts_tf")
class SearchNetwork(keras.Model):
    """The supernet: a stem, cells of mixed operations, global average pooling and a linear classifier.

    Its architecture parameters alpha are two of its trainable variables, `alphas["normal"]` and `alphas["reduce"]`,
    (edges, operations) each, shared by all cells of a kind; `weight_variables` are the rest.

    Args:
        channels: channels of the nodes of the first cell; each reduction cell doubles them.
        layers: number of cells, at least 3.
        num_classes: number of classes.
        nodes: intermediate nodes of a cell, at least 1.
        primitives: names of the candidate operations, at least one of them other than "none".
        stem_multiplier: the stem has `stem_multiplier * channels` channels.

    Call arguments:
        x: images (batch, height, width, depth), at least 8x8.

    Returns:
        Logits (batch, num_classes).

    Raises:
        ValueError: an argument is out of range, or an operation is not registered.
    """

    def __init__(
        self,
        channels=16,
        layers=8,
        num_classes=10,
        nodes=4,
        primitives=PRIMITIVES,
        stem_multiplier=3,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if layers < 3:
            raise ValueError(f"layers={layers}: expected at least 3 cells, two of which are reduction cells.")
        if nodes < 1:
            raise ValueError(f"nodes={nodes}: expected at least 1 intermediate node.")
        if not set(primitives) - {"none"}:
            raise ValueError(f"primitives={list(primitives)}: expected at least one operation other than none.")
        for name in primitives:
            get_operation(name)
        self.channels = channels
        self.num_layers = layers
        self.num_classes = num_classes
        self.nodes = nodes
        self.primitives = tuple(primitives)
        self.stem_multiplier = stem_multiplier

        self.stem = Operation(stem(affine=True), stem_multiplier * channels, name="stem")
        self.cells = []
        for index in range(layers):
            reduction = index in reductions(layers)
            channels *= 2 if reduction else 1
            self.cells.append(
                SearchCell(
                    primitives,
                    channels,
                    nodes,
                    reduction,
                    reduction_prev=index - 1 in reductions(layers),
                    name=f"cell{index}",
                )
            )
        self.classifier = keras.layers.Dense(num_classes, name="classifier")

    def build(self, input_shape):
        shape = (num_edges(self.nodes), len(self.primitives))
        self.alphas = {
            kind: self.add_weight(
                shape=shape, initializer=keras.initializers.RandomNormal(stddev=1e-3), name=f"alphas_{kind}"
            )
            for kind in ("normal", "reduce")
        }
        self.stem.build(input_shape)
        before, last = [self.stem_multiplier * self.channels] * 2
        for cell in self.cells:
            cell.build([(None, None, None, before), (None, None, None, last)])
            before, last = last, self.nodes * cell.channels
        self.classifier.build((None, last))
        self.built = True

    def call(self, x, training=False):
        # Equation 2: architecture weights are the softmax of alpha over the operations of an edge.
        weights = {
            kind: rows_by_source(tf.nn.softmax(tf.convert_to_tensor(alpha)), self.nodes)
            for kind, alpha in self.alphas.items()
        }
        before = last = self.stem(x, training=training)
        for cell in self.cells:
            kind = "reduce" if cell.reduction else "normal"
            before, last = last, cell([before, last], weights[kind], training=training)
        return self.classifier(tf.reduce_mean(last, [1, 2]))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.num_classes)

    @property
    def arch_variables(self):
        """The architecture parameters alpha."""
        return list(self.alphas.values())

    @property
    def weight_variables(self):
        """The trainable variables other than alpha."""
        alphas = {id(alpha) for alpha in self.arch_variables}
        return [variable for variable in self.trainable_variables if id(variable) not in alphas]

    def genotype(self):
        """The genotype of the current alphas, see `genotypes.derive`."""
        weights = {kind: genotypes.softmax(alpha) for kind, alpha in self.alphas.items()}
        return genotypes.derive(weights["normal"], weights["reduce"], self.primitives)

    def get_config(self):
        return {
            **super().get_config(),
            "channels": self.channels,
            "layers": self.num_layers,
            "num_classes": self.num_classes,
            "nodes": self.nodes,
            "primitives": self.primitives,
            "stem_multiplier": self.stem_multiplier,
        }
