"""Spaces for keras-tuner, and the hypermodel that builds the networks of their architectures."""

import functools
import math

import keras
import keras_tuner

from darts_tf.cli import files
from darts_tf.data.tasks import ImageClassification
from darts_tf.methods.optimizers import SGD
from darts_tf.runs import callbacks, sizes
from darts_tf.spaces import models
from darts_tf.spaces.cells.space import PRIMITIVES, CellSpace

OPERATIONS = tuple(name for name in PRIMITIVES if name != "none")


def genotype_of(hp, space=None):
    """The architecture of hyperparameters that a space has declared, those of a trial's network for example.

    Args:
        hp: `keras_tuner.HyperParameters`.
        space: `darts_tf.spaces.base.SearchSpace`; by default the paper's, of cells of any number of nodes.
    """
    return (space or CellSpace()).architecture_of(hp)


def hyperparameters_of(architecture, primitives=OPERATIONS, space=None):
    """The hyperparameters of an architecture, with the space that they are from; the inverse of `genotype_of`.

    Args:
        architecture: of the space, for example a `Genotype` with both cells of as many nodes.
        primitives: names of the operations of the paper's space.
        space: another `darts_tf.spaces.base.SearchSpace`.

    Returns:
        `keras_tuner.HyperParameters`.

    Raises:
        ValueError: the architecture is not in the space. Says why.
    """
    space = space or CellSpace(max(1, len(architecture.normal) // 2), primitives)
    values = space.values(architecture)
    declared, hp = keras_tuner.HyperParameters(), keras_tuner.HyperParameters()
    space.declare(declared)
    for other in declared.space:
        if isinstance(other, keras_tuner.engine.hyperparameters.Fixed):
            hp.Fixed(other.name, values[other.name])
    space.declare(hp)
    there = {name: values[name] for name in hp.values if name in values}  # conditions may not have been met
    hp.values = there | values
    return hp


class GenotypeHyperModel(keras_tuner.HyperModel):
    """Builds and trains the networks of genotypes, for any tuner and oracle.

    Of images the learning rate falls to 0, of text it stays as it is, whatever the length of a segment.

    Args:
        image_shape: (height, width, depth).
        num_classes: number of classes.
        nodes, primitives: of the paper's space, intermediate nodes of a cell and names of the operations.
        channels, layers: of the networks, or a list to choose from.
        auxiliary: whether to train with an auxiliary head.
        normalization: mean and standard deviation of the pixels per channel, if the networks are to see pixels as they
            are in files.
        learning_rate: at the start of the cosine, or a pair, the smallest and the largest, to tune it.
        drop_path_prob: see `callbacks.DropPathSchedule`.
        weight_decay: L2 decay of the weights.
        momentum, grad_clip: of SGD, and the largest norm of the gradient of all weights.
        seed: int, of all that is random in a trial; None leaves Keras's generators as they are.
        space: another `darts_tf.spaces.base.SearchSpace` instead of the paper's; it takes those sizes that it knows.
        task: `darts_tf.data.tasks.Task`, as of a dataset, in place of `image_shape`, `num_classes` and `normalization`.
        sizes: more sizes of the space's networks, {name: value, or a list to choose from}.

    Example:
        data = text.load("topics")
        model = GenotypeHyperModel(
            space=RecurrentSpace(), task=data.task, sizes={"units": [64, 128]}, learning_rate=20.0, momentum=0.0
        )
    """

    def __init__(
        self,
        image_shape=None,
        num_classes=None,
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
        space=None,
        task=None,
        sizes=None,
        momentum=0.9,
        grad_clip=5.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.space = space or CellSpace(nodes, primitives)
        self.task = task or ImageClassification(tuple(image_shape), num_classes, normalization)
        self.seed, self.sizes = seed, sizes or {}
        self.channels, self.layers, self.learning_rate = channels, layers, learning_rate
        self.momentum, self.grad_clip = momentum, grad_clip
        self.drop_path_prob, self.weight_decay = drop_path_prob, weight_decay
        self.auxiliary = auxiliary

    def build(self, hp):
        """The network of the values of `hp`, compiled, from inputs to logits (batch, ..., classes)."""
        if self.seed is not None:
            keras.utils.set_random_seed(self.seed)
        architecture = self.space.declare(hp)
        wanted = {
            "init_channels": _one_of(hp, "channels", self.channels),
            "layers": _one_of(hp, "layers", self.layers),
            "auxiliary": self.auxiliary,
            "drop_path_prob": self.drop_path_prob,
            **{name: _one_of(hp, name, value) for name, value in self.sizes.items()},
        }
        network = self.space.trained_network(architecture, self.task, **sizes.of(self.space.network, wanted))
        network.compile(
            SGD(self._rate(hp), momentum=self.momentum, l2=self.weight_decay, global_clipnorm=self.grad_clip),
            loss=self.task.loss(),
            metrics=self.task.metrics(),
            jit_compile=False,
        )
        models.create_variables(network)
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
        ours = []
        if "text" not in self.space.kinds:
            ours.append(callbacks.cosine_schedule(self._rate(hp), 0.0, planned))
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

    def _rate(self, hp):
        if isinstance(self.learning_rate, int | float):
            return self.learning_rate
        return hp.Float("learning_rate", *self.learning_rate, sampling="log")


def _one_of(hp, name, value):
    return hp.Choice(name, list(value)) if isinstance(value, list | tuple) else value
