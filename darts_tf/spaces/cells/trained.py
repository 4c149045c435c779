"""The network of a genotype as it is trained: what `derived` makes of Keras layers, with less to trace and to keep.

Operations of a kind share one graph function, edges that see the same node its ReLU, and the weights of an operation's
edges are one variable each.
"""

import keras
import tensorflow as tf

from darts_tf import spaces
from darts_tf.ops import kernels, operations
from darts_tf.ops.drop_path import DropPath
from darts_tf.ops.operations import Operation
from darts_tf.ops.recompute import recomputed
from darts_tf.ops.stages import Noise
from darts_tf.spaces.cells import derived, genotypes
from darts_tf.spaces.cells.cell import connect, edge_stride, preprocessing
from darts_tf.spaces.cells.networks import reductions, stack, stems
from darts_tf.spaces.models import normalizing


@keras.saving.register_keras_serializable("darts_tf")
class TrainedCell(keras.layers.Layer):
    """A cell of a genotype.

    Args:
        pairs, concat, channels, reduction, reduction_prev: as of `derived.derived_cell`.

    Call arguments:
        inputs: the results of the two cells before, (batch, height, width, ...) each; the first one twice as high and
            wide if `reduction_prev`.
        started: for each of them a dict of what operations have begun on it, see `operations.begin`; by default {}.
        kept: a tensor (batch, 1, 1, 1) for each edge, which multiplies what is no identity; None for nothing.
        inline: whether the operations are written out in the graph instead of calling functions that they share.

    Returns:
        (batch, height', width', len(concat) * channels).
    """

    def __init__(self, pairs, concat, channels, reduction=False, reduction_prev=False, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.pairs, self.concat = tuple(map(tuple, pairs)), tuple(concat)
        self.channels, self.reduction, self.reduction_prev = channels, reduction, reduction_prev
        self.edges = genotypes.edges(self.pairs)
        self.preprocess = [
            Operation(stages, channels, name=f"preprocess{place}")
            for place, stages in enumerate(preprocessing(reduction_prev, affine=True))
        ]
        self.operations, self.layers = [], {}
        kinds = {}
        for edge, (_, name, source) in enumerate(self.edges):
            kinds.setdefault((name, edge_stride(source, reduction)), []).append(edge)
        self.members = []
        for (name, stride), members in kinds.items():
            made = operations.make_operation(name, channels, stride, affine=True)
            if isinstance(made, keras.layers.Layer):
                others = [operations.make_operation(name, channels, stride, affine=True) for _ in members[1:]]
                self.layers |= dict(zip(members, [made, *others], strict=True))
            else:
                self.operations.append(Operation(made, channels, len(members), name=f"{name}_stride{stride}"))
                self.members.append(members)

    def build(self, input_shape):
        for operation, shape in zip(self.preprocess, input_shape, strict=True):
            operation.build(shape)
        for operation in self.operations:
            operation.build((None, None, None, operation.groups * self.channels))
        for layer in self.layers.values():
            layer.build((None, None, None, self.channels))
            kernels.reroute_strided_pointwise(layer)
        if any(isinstance(stage, Noise) for operation in self.operations for stage in operation.stages):
            self.noise = keras.random.SeedGenerator()
        self.built = True

    def call(self, inputs, started=None, kept=None, training=False, inline=False):
        weights, updates = {}, {}
        for operation, members in zip(self.operations, self.members, strict=True):
            for edge, tensors in zip(members, operation.by_edge(operation.tensors(inputs[0].dtype)), strict=True):
                weights[edge] = operation, tensors

        def computed(operation, x, tensors, started):
            return operation.on_edge(x, tensors, operation.training(training), started, inline)

        def result(edge, image, started):
            if edge in self.layers:
                return tf.cast(self.layers[edge](image, training=training), image.dtype)
            operation, tensors = weights[edge]
            if operation.specs:
                y, updates[edge] = computed(operation, image, tensors, started)
            else:  # which is the same on all edges
                if operation not in started:
                    started[operation] = computed(operation, image, tensors, started)
                y, updates[edge] = started[operation]
            if training and any(isinstance(stage, Noise) for stage in operation.stages):
                y += keras.random.normal(tf.shape(y), dtype=y.dtype, seed=self.noise)
            return y

        def edges_from(source, image):
            started = {}
            for edge, (node, _, start) in enumerate(self.edges):
                if start == source:
                    y = result(edge, image, started)
                    yield node, y if kept is None or y is image else y * tf.cast(kept[edge], y.dtype)

        def total(node, images):
            return tf.add_n(images)

        states = []
        for operation, x, begun in zip(self.preprocess, inputs, started or [{}, {}], strict=True):
            y, update = computed(operation, x, operation.tensors(x.dtype), begun)
            operation.keep(update, operation.training(training))
            states.append(y)
        states = connect(states, genotypes.num_nodes(self.pairs), edges_from, total)
        for operation, members in zip(self.operations, self.members, strict=True):
            of_edges = zip(*(updates[edge] for edge in members), strict=True)
            operation.keep([tf.concat(parts, -1) for parts in of_edges], operation.training(training))
        return tf.concat([states[node] for node in self.concat], -1)

    def set_layers(self, model, name):
        """Gives its weights to the layers of `derived.derived_cell` of a name, in a model."""
        for place, operation in enumerate(self.preprocess):
            operation.set_layers(model, [f"{name}_preprocess{place}"])
        for operation, members in zip(self.operations, self.members, strict=True):
            operation.set_layers(model, [f"{name}_edge{edge}" for edge in members])
        for edge, layer in self.layers.items():
            model.get_layer(f"{name}_edge{edge}").set_weights(layer.get_weights())

    def get_config(self):
        return {
            **super().get_config(),
            "pairs": self.pairs,
            "concat": self.concat,
            "channels": self.channels,
            "reduction": self.reduction,
            "reduction_prev": self.reduction_prev,
        }


@keras.saving.register_keras_serializable("darts_tf")
class TrainedNetwork(derived.AuxiliaryLoss, keras.Model):
    """The network of a genotype for `compile` and `fit`, see `derived.cifar_network` for what it computes.

        network = TrainedNetwork(search.genotype(), auxiliary=True, drop_path=True)
        network.compile(darts_tf.optimizers.SGD(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        network.fit(images, labels)
        network.inference_model().save("model.keras")

    Args:
        genotype: `genotypes.Genotype`, or its text.
        network: "cifar" or "imagenet", which says how it begins.
        channels, layers, num_classes, image_shape, auxiliary, drop_path, normalization: as of `derived.cifar_network`.
        auxiliary_weight: what the loss of the auxiliary head counts.

    Call arguments:
        x: images (batch, *image_shape).

    Returns:
        Logits (batch, num_classes), of the type of the variables; while training with an auxiliary head a list of these
        and the head's.

    Attributes:
        synchronized: whether batch norms take the statistics of all replicas while training.
        recompute: whether what is within a cell is computed again in the backward pass, in place of being kept.

    Raises:
        ValueError: as `derived.cifar_network`.
    """

    def __init__(
        self,
        genotype,
        network="cifar",
        channels=36,
        layers=20,
        num_classes=10,
        image_shape=(32, 32, 3),
        auxiliary=False,
        drop_path=False,
        normalization=None,
        auxiliary_weight=0.4,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        genotype = spaces.from_text(genotype) if isinstance(genotype, str) else genotype
        derived.check(genotype, layers)
        self.genotype, self.network, self.channels, self.num_layers = genotype, network, channels, layers
        self.num_classes, self.image_shape = num_classes, tuple(image_shape)
        self.auxiliary, self.auxiliary_weight, self.normalization = auxiliary, auxiliary_weight, normalization
        self.synchronized = self.recompute = False

        self.normalizing = normalization and normalizing(*normalization)
        self.stems = [
            Operation(stages, width, name=f"stem{place}")
            for place, (stages, width) in enumerate(stems(network, channels))
        ]
        self.cells, reduction_prev = [], network == "imagenet"
        for index, (width, reduction) in enumerate(stack(channels, layers)):
            pairs = genotype[2:] if reduction else genotype[:2]
            self.cells.append(TrainedCell(*pairs, width, reduction, reduction_prev, name=f"cell{index}"))
            reduction_prev = reduction
        self.drop_path = DropPath() if drop_path else None
        self.classifier = keras.layers.Dense(num_classes, dtype=self.variable_dtype, name="classifier")
        self.auxiliary_head = None
        self.early = reductions(layers)[1]
        self.build((None, *self.image_shape))

    def build(self, input_shape=None):
        shapes, size = [(None, *self.image_shape)], self.image_shape[:2]
        for stem in self.stems:
            stem.build(shapes[-1])
            size = operations.result_of(stem.stages, size)
            shapes.append((None, *size, stem.channels))
        before, last = shapes[-2:] if len(self.stems) > 1 else shapes[-1:] * 2
        for index, cell in enumerate(self.cells):
            cell.build([before, last])
            size = [-(-length // 2) for length in size] if cell.reduction else size
            before, last = last, (None, *size, len(cell.concat) * cell.channels)
            if self.auxiliary and index == self.early:
                early = keras.Input(last[1:])
                logits = derived.auxiliary_head(early, self.num_classes, self.network)
                self.auxiliary_head = keras.Model(early, logits, name="auxiliary_head")
        if self.normalizing:
            self.normalizing.build(shapes[0])
        if self.drop_path:
            self.drop_path.build(None)
        self.classifier.build((None, last[-1]))
        self.built = True

    def compile(self, *args, jit_compile=False, **kwargs):
        """As `keras.Model.compile`, without XLA unless it is asked for: on CPUs that is slower."""
        super().compile(*args, jit_compile=jit_compile, **kwargs)

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def call(self, x, training=False):
        images = tf.cast(self.normalizing(x) if self.normalizing else x, self.compute_dtype)
        inline, drops = bool(self.jit_compile), training and self.drop_path  # XLA needs all in one graph
        if training and self.synchronized:
            training = kernels.SYNCHRONIZED
            inline = True  # what replicas exchange has its own place in the graph of each
        results = [images]
        for stem in self.stems:
            results.append(stem(results[-1], training=training))
        results = results[-2:] if len(self.stems) > 1 else results[-1:] * 2
        started = [{} for _ in range(2 + len(self.cells))]
        kept = [None] * len(self.cells)
        if drops:
            numbers = [len(cell.edges) for cell in self.cells]
            drawn = tf.unstack(drops.kept([sum(numbers), tf.shape(x)[0], 1, 1, 1]), sum(numbers))
            kept = [[drawn.pop(0) for _ in range(number)] for number in numbers]
        for index, (cell, of_cell) in enumerate(zip(self.cells, kept, strict=True)):
            options = {"kept": of_cell, "training": training, "inline": inline}
            if training and self.recompute:
                results.append(recomputed(cell, results[-2:], **options))
            else:
                results.append(cell(results[-2:], started[index : index + 2], **options))
        logits = self.classifier(tf.reduce_mean(tf.cast(results[-1], self.variable_dtype), [1, 2]))
        if not (training and self.auxiliary):
            return logits
        return [logits, self.auxiliary_head(results[2 + self.early], training=True)]

    @kernels.own_kernels()
    def train_step(self, data):
        return super().train_step(data)

    @kernels.own_kernels()
    def test_step(self, data):
        return super().test_step(data)

    @property
    def output_shape(self):
        """Of the logits."""
        return None, self.num_classes

    @property
    def output(self):
        """The logits, without numbers."""
        return keras.KerasTensor(self.output_shape, self.variable_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape[0], self.num_classes

    def inference_model(self):
        """The network of `derived`, a functional `keras.Model` of standard layers, with copies of the weights.

        It has no auxiliary head and computes in the type of the variables.
        """
        policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy(self.variable_dtype)
        try:
            model = derived.BUILDERS[self.network](
                *(self.genotype, self.channels, self.num_layers, self.num_classes, self.image_shape),
                normalization=self.normalization,
            )
        finally:
            keras.config.set_dtype_policy(policy)
        for place, stem in enumerate(self.stems):
            name = "stem" if self.network == "cifar" else f"stem{place // 2}"
            start = len(self.stems[0].stages) if place == 1 else 0
            stem.set_layers(model, [name], start)
        for index, cell in enumerate(self.cells):
            cell.set_layers(model, f"cell{index}")
        model.get_layer("classifier").set_weights(self.classifier.get_weights())
        return model

    def get_config(self):
        return {
            **super().get_config(),
            "genotype": str(self.genotype),
            "network": self.network,
            "channels": self.channels,
            "layers": self.num_layers,
            "num_classes": self.num_classes,
            "image_shape": self.image_shape,
            "auxiliary": self.auxiliary,
            "drop_path": self.drop_path is not None,
            "normalization": self.normalization and [[float(x) for x in part] for part in self.normalization],
            "auxiliary_weight": self.auxiliary_weight,
        }
