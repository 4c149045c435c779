"""What language models cost: a step of one, since all of as many nodes are as large."""

from darts_tf.costs import tables
from darts_tf.ops.parts import Part
from darts_tf.spaces.recurrent.networks import step_model


class Costs(tables.Costs):
    """The costs of the language models of a space.

    Args:
        space: `RecurrentSpace`.
        vocabulary: how many tokens there are.
        units: of the hidden state.
    """

    def __init__(self, space, vocabulary, units):
        self._sizes = vocabulary, units
        nodes = space.decide({name: table.mask for name, table in space.choices.items()})
        super().__init__(space, [self._step(nodes)], {})

    def parts_of(self, architecture):
        return [self._step(architecture)]

    def _step(self, architecture):
        return Step(f"step of {len(architecture.recurrent)} nodes", (self._sizes,), architecture)


class Step(Part):
    """One step of the model of an architecture, which is in the place of `layers`; `shapes` has both sizes."""

    def model(self):
        return step_model(self.layers, *self.shapes[0])
