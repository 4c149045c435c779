"""The genotypes as a space for keras-tuner, and the hypermodel that builds their networks."""

import functools
import itertools
import math

import keras
import keras_tuner

from darts_tf.cli import files
from darts_tf.methods.optimizers import SGD
from darts_tf.ops.operations import PRIMITIVES
from darts_tf.runs import callbacks
from darts_tf.spaces.cells import genotypes, networks
from darts_tf.spaces.cells.genotypes import Genotype, node_name

KINDS = ("normal", "reduce")
OPERATIONS = tuple(name for name in PRIMITIVES if name != "none")


def declare(hp, nodes=4, primitives=OPERATIONS):
    """Declares the space: for each node of both cells a choice of two distinct inputs, and of an operation on each.

    `normal_0_inputs` is "c(k-2) c(k-1)", say, `normal_0_operation1` the operation on the first of them. What a genotype
    says beyond that is fixed, and no oracle draws it: the order of the two edges of each node, and which nodes make the
    result.

    Args:
        hp: `keras_tuner.HyperParameters`.
        nodes: intermediate nodes of a cell.
        primitives: names of the operations.

    Returns:
        The `Genotype` of the values that `hp` has.
    """
    for kind in KINDS:
        for node in range(nodes):
            pairs = itertools.combinations(range(node + 2), 2)
            hp.Choice(f"{kind}_{node}_inputs", [" ".join(map(node_name, pair)) for pair in pairs])
            for place in (1, 2):
                hp.Choice(f"{kind}_{node}_operation{place}", list(primitives))
        hp.Fixed(f"{kind}_order", "<" * nodes)
        hp.Fixed(f"{kind}_concat", " ".join(node_name(node) for node in range(2, 2 + nodes)))
    return genotype_of(hp)


def genotype_of(hp):
    """The genotype of hyperparameters that `declare` has declared.

    Args:
        hp: `keras_tuner.HyperParameters`.
    """
    values, fields = hp.values, {}
    index = {node_name(node): node for node in range(2 + len(values["normal_order"]))}
    for kind in KINDS:
        pairs = []
        for node, order in enumerate(values[f"{kind}_order"]):
            inputs = values[f"{kind}_{node}_inputs"].split()
            edges = [(values[f"{kind}_{node}_operation{place}"], index[name]) for place, name in enumerate(inputs, 1)]
            pairs += edges if order == "<" else edges[::-1]
        fields[kind] = pairs
        fields[f"{kind}_concat"] = [index[name] for name in values[f"{kind}_concat"].split()]
    return Genotype(**fields)


def hyperparameters_of(genotype, primitives=OPERATIONS):
    """The hyperparameters of a genotype, with the space that they are from; the inverse of `genotype_of`.

    Args:
        genotype: `Genotype`, both cells of as many nodes.
        primitives: names of the operations.

    Returns:
        `keras_tuner.HyperParameters`.

    Raises:
        ValueError: the genotype is not in the space. Says why.
    """
    genotypes.check(genotype, list(primitives))
    nodes = len(genotype.normal) // 2
    if len(genotype.reduce) != 2 * nodes:
        raise ValueError(f"the cells have {nodes} and {len(genotype.reduce) // 2} nodes: expected as many in both.")
    values = {}
    for kind in KINDS:
        order = ""
        for node in range(nodes):
            edges = getattr(genotype, kind)[2 * node : 2 * node + 2]
            sources = [source for _, source in edges]
            if sources[0] == sources[1]:
                name = node_name(sources[0])
                raise ValueError(f"{kind} feeds node {node} from {name} twice: expected two distinct inputs.")
            order += "<" if sources[0] < sources[1] else ">"
            values[f"{kind}_{node}_inputs"] = " ".join(map(node_name, sorted(sources)))
            for place, (name, _) in enumerate(sorted(edges, key=lambda edge: edge[1]), 1):
                values[f"{kind}_{node}_operation{place}"] = name
        values[f"{kind}_order"] = order
        values[f"{kind}_concat"] = " ".join(map(node_name, getattr(genotype, f"{kind}_concat")))
    hp = keras_tuner.HyperParameters()
    for kind in KINDS:
        for field in ("order", "concat"):
            hp.Fixed(f"{kind}_{field}", values[f"{kind}_{field}"])
    declare(hp, nodes, primitives)
    hp.values |= values
    return hp


class GenotypeHyperModel(keras_tuner.HyperModel):
    """Builds and trains the networks of genotypes, for any tuner and oracle.

    Args:
        image_shape, num_classes, auxiliary, normalization: as of `networks.cifar_network`.
        nodes, primitives: as of `declare`.
        channels, layers: as of `networks.cifar_network`, or a list to choose from.
        learning_rate: at the start of the cosine, or a pair, the smallest and the largest, to tune it.
        drop_path_prob: see `callbacks.DropPathSchedule`.
        weight_decay: L2 decay of the weights.
        seed: int, of all that is random in a trial; None leaves Keras's generators as they are.
    """

    def __init__(
        self,
        image_shape,
        num_classes,
        nodes=4,
        primitives=OPERATIONS,
        channels=16,
        layers=5,
        learning_rate=0.025,
        drop_path_prob=0.0,
        weight_decay=3e-4,
        auxiliary=False,
        normalization=None,
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.seed = seed
        self.image_shape, self.num_classes = image_shape, num_classes
        self.nodes, self.primitives = nodes, primitives
        self.channels, self.layers, self.learning_rate = channels, layers, learning_rate
        self.drop_path_prob, self.weight_decay = drop_path_prob, weight_decay
        self.auxiliary, self.normalization = auxiliary, normalization

    def build(self, hp):
        """The network of the values of `hp`, compiled, from images to logits (batch, num_classes)."""
        if self.seed is not None:
            keras.utils.set_random_seed(self.seed)
        genotype = declare(hp, self.nodes, self.primitives)
        network = networks.cifar_network(
            genotype,
            self._one_of(hp, "channels"),
            self._one_of(hp, "layers"),
            self.num_classes,
            self.image_shape,
            auxiliary=self.auxiliary,
            drop_path=self.drop_path_prob > 0,
            normalization=self.normalization,
        )
        network.compile(
            SGD(self._rate(hp), momentum=0.9, l2=self.weight_decay, global_clipnorm=5.0),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
            jit_compile=False,
        )
        network.save_weights = functools.partial(files.save_weights, network)  # which keras-tuner calls
        return network

    def fit(self, hp, model, *args, epochs=1, planned_epochs=None, fit_verbose=0, **kwargs):
        """As `model.fit`, with the learning rate and the drop path rate of each epoch.

        Args:
            planned_epochs: the epochs in which the learning rate falls to 0, where they are not `epochs`.
            fit_verbose: `verbose` of `model.fit`; keras-tuner has a `verbose` of its own.

        Raises:
            keras_tuner.errors.FailedTrialError: the loss, of training or validation, became NaN or infinite.
        """
        planned = planned_epochs or epochs
        ours = [callbacks.cosine_schedule(self._rate(hp), 0.0, planned)]
        ours.append(callbacks.DropPathSchedule(self.drop_path_prob, planned))
        nan = callbacks.StopOnNaN()
        theirs = kwargs.pop("callbacks", None) or []
        kwargs["verbose"] = fit_verbose
        history = model.fit(*args, epochs=epochs, callbacks=[*ours, nan, *theirs], **kwargs)
        if nan.epoch:
            raise keras_tuner.errors.FailedTrialError(f"the loss became NaN in epoch {nan.epoch}.")
        losses = history.history.get("val_loss", [])
        bad = [epoch for epoch, loss in zip(history.epoch, losses, strict=False) if not math.isfinite(loss)]
        if bad:
            raise keras_tuner.errors.FailedTrialError(f"the loss of validation became NaN in epoch {bad[0] + 1}.")
        return history

    def _one_of(self, hp, name):
        value = getattr(self, name)
        return value if isinstance(value, int) else hp.Choice(name, list(value))

    def _rate(self, hp):
        if isinstance(self.learning_rate, int | float):
            return self.learning_rate
        return hp.Float("learning_rate", *self.learning_rate, sampling="log")
