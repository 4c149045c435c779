"""What the models of all spaces have in common: their inputs, and what a supernet is."""

import keras
import tensorflow as tf

from darts_tf.methods import relaxations


def inputs(shape, normalization=None):
    """The input of a network, and the same after normalisation if that is asked for.

    Args:
        shape: of one image, (height, width, depth).
        normalization: mean and standard deviation of the pixels per channel, or None.

    Returns:
        Two `keras.KerasTensor` (batch, height, width, depth).
    """
    images = keras.Input(shape, name="images")
    return images, images if normalization is None else normalizing(*normalization)(images)


def normalizing(mean, std):
    """The Keras layer that subtracts the mean of each channel and divides by its standard deviation."""
    mean, variance = [float(value) for value in mean], [float(value) ** 2 for value in std]
    return keras.layers.Normalization(mean=mean, variance=variance, name="normalization")


class Supernet(keras.Model):
    """A model that holds all candidates, and the alphas that choose among them.

    A subclass calls `add_alphas` in `build`, and `mixture` in `call` for the weights of the candidates. Its outputs are
    logits.

    Args:
        space: `darts_tf.spaces.base.SearchSpace`.
        outputs: how many logits there are for one input.
        relaxation: name or object, see `darts_tf.methods.relaxations`.
        **kwargs: of `keras.Model`.

    Attributes:
        alphas: {table: variable (rows, candidates)}, of the space's choices, once the model is built.
    """

    def __init__(self, space, outputs, relaxation="softmax", **kwargs):
        super().__init__(**kwargs)
        self.space, self.outputs_per_input = space, outputs
        self.relaxation = relaxations.get(relaxation)

    def add_alphas(self):
        """Makes the architecture parameters, drawn from a normal distribution of deviation 0.001 as the original's."""
        self.alphas = {
            name: self.add_weight(
                shape=(len(table.rows), len(table.candidates)),
                initializer=keras.initializers.RandomNormal(stddev=1e-3),
                autocast=False,
                name=f"alphas_{name}",
            )
            for name, table in self.space.choices.items()
        }

    def mixture(self):
        """{table: tensor (rows, candidates)}: the weights of the candidates, of the alphas where they stand."""
        return {name: self.relaxation(tf.convert_to_tensor(alpha)) for name, alpha in self.alphas.items()}

    def strengths(self):
        """{table: float64 array (rows, candidates)}: what decides, see `Relaxation.strengths`."""
        return {
            name: self.relaxation.strengths(keras.ops.convert_to_numpy(alpha)) for name, alpha in self.alphas.items()
        }

    def genotype(self, selection="strongest"):
        """The architecture of the current alphas.

        Args:
            selection: name or object, see `darts_tf.methods.selections`.
        """
        return self.space.decide(self.strengths(), selection)

    def compute_output_shape(self, input_shape):
        return input_shape[0], self.outputs_per_input

    @property
    def arch_variables(self):
        """The architecture parameters alpha that are trainable."""
        return [alpha for alpha in self.alphas.values() if self.trainable and alpha.trainable]

    @property
    def weight_variables(self):
        """The trainable variables other than alpha."""
        alphas = {id(alpha) for alpha in self.alphas.values()}
        return [variable for variable in self.trainable_variables if id(variable) not in alphas]

    def get_build_config(self):
        """Also says what is frozen, which Keras saves of functional models only."""
        frozen = {
            "frozen_layers": [place for place, layer in enumerate(self._flatten_layers()) if not layer.trainable],
            "frozen_variables": [place for place, variable in enumerate(self.variables) if not variable.trainable],
        }
        return {**(super().get_build_config() or {}), **frozen}

    def build_from_config(self, config):
        config = dict(config)
        layers, variables = (config.pop(f"frozen_{kind}", ()) for kind in ("layers", "variables"))
        super().build_from_config(config)
        for kind, frozen in ((list(self._flatten_layers()), layers), (self.variables, variables)):
            for place in frozen:
                kind[place].trainable = False
