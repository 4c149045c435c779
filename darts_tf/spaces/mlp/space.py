"""The space of multilayer perceptrons: of each hidden layer whether it is there, its activation and its width."""

import contextlib
import dataclasses
from typing import ClassVar

from darts_tf.costs import bounds
from darts_tf.spaces.base import Architecture, Choices, SearchSpace, checked_widths, every_row, register_space

CONNECTIONS = DENSE, RESIDUAL, NONE = ("dense", "residual", "none")
ACTIVATIONS = ("relu", "tanh", "gelu", "swish", "identity")
WIDTHS = ("0.25", "0.5", "0.75", "1")
MOST_LAYERS, MOST_UNITS = 100, 100_000
PLAIN = "no_batch_norm"


class Perceptron(Architecture):
    """The hidden layers of a perceptron.

    As text it is `mlp:128:relu*0.5,none,tanh+`: the units of the widest layer, and of each layer its activation, its
    width where that is not 1, and a + where its input is added to it. Without batch norms it begins
    `mlp:128,no_batch_norm:`.

    Attributes:
        chosen: {"connections": ..., "activations": ..., "widths": ...}; the last two have None where there is no layer.
    """

    @property
    def layers(self):
        """(connection, activation, width as a number) of each layer; the last two are None where there is none."""
        rows = zip(*(self.chosen[name] for name in ("connections", "activations", "widths")), strict=True)
        return [(connection, name, width and float(width)) for connection, name, width in rows]

    def __str__(self):
        told = str(self.space.units) if self.space.batch_norm else f"{self.space.units},{PLAIN}"
        return f"{self.space.notation}{told}:{','.join(_text(*layer) for layer in self.layers)}"


def _text(connection, activation, width):
    if connection == NONE:
        return NONE
    return f"{activation}{'' if width == 1 else f'*{width:g}'}{'+' if connection == RESIDUAL else ''}"


@register_space("mlp")
@dataclasses.dataclass(frozen=True)
class MLP(SearchSpace):
    """Up to `layers` hidden layers, of images or of tables.

    Three tables of alphas, each with a row for each layer: `connections` (h = layer(x), "dense"; h = x + layer(x),
    "residual"; h = x, "none"; the first layer is dense), `activations`, and `widths`. A narrower layer has the first of
    the units, as has what narrower layers are added to: the others stay as they are.

    Args:
        layers: hidden layers at the most, 1 to 100.
        units: of the widest layer, 1 to 100,000.
        primitives: names of the activations that each layer chooses among, any of Keras that sees each number alone.
        widths: the parts of the units that a layer may have, texts of numbers above 0 up to 1, which is one of them.
        batch_norm: whether there is a batch norm between the product of matrices and the activation.

    Raises:
        ValueError: an argument is out of range.
    """

    layers: int = 4
    units: int = 128
    primitives: tuple = ACTIVATIONS
    widths: tuple = WIDTHS
    batch_norm: bool = True

    kinds: ClassVar = ("images", "table")
    notation: ClassVar = "mlp:"
    has_paths: ClassVar = True
    sizes: ClassVar = {"init_channels": None, "layers": None, "dropout": 0.0}
    searching: ClassVar = {"epochs": 50, "batch_size": 64, "learning_rate": 0.1, "arch_learning_rate": 0.02}
    training: ClassVar = {"epochs": 50, "batch_size": 64, "learning_rate": 0.1}

    def __post_init__(self):
        if not 1 <= self.layers <= MOST_LAYERS:
            raise ValueError(f"layers={self.layers}: expected 1 to {MOST_LAYERS} hidden layers.")
        if not 1 <= self.units <= MOST_UNITS:
            raise ValueError(f"units={self.units}: expected 1 to {MOST_UNITS:,}.")
        object.__setattr__(self, "primitives", tuple(self.primitives))
        if not self.primitives or len(set(self.primitives)) < len(self.primitives) or NONE in self.primitives:
            raise ValueError(f"primitives={','.join(self.primitives)}: expected activations, each once.")
        object.__setattr__(self, "widths", checked_widths(self.widths))

    @property
    def choices(self):
        rows = tuple(f"layer {row + 1}" for row in range(self.layers))
        groups = tuple(((row,), 1) for row in range(self.layers))
        allowed = tuple(tuple(row > 0 or name == DENSE for name in CONNECTIONS) for row in range(self.layers))
        return {
            "connections": Choices("Connections", rows, CONNECTIONS, groups, allowed=allowed),
            "activations": every_row("Activations", rows, self.primitives),
            "widths": every_row("Widths", rows, self.widths),
        }

    @staticmethod
    def check_primitive(name):
        from darts_tf.ops import highway

        highway.activation(name)

    def units_of(self, width, units=None):
        """The units of a layer.

        Args:
            width: the part of the units that it has, a number or a text.
            units: of the widest; by default the space's.
        """
        return max(round(float(width) * (units or self.units)), 1)

    def left(self, candidates):
        """As of any space: the units that the widest of the widths has, 0 where there is no layer."""
        is_layer = candidates["connections"][:, :-1].any(1)
        widest = [self.units_of(self.widths[there.nonzero()[0][-1]]) for there in candidates["widths"]]
        rows = self.choices["widths"].rows
        return {row: units if there else 0 for row, units, there in zip(rows, widest, is_layer, strict=True)}

    def supernet(self, task, relaxation="softmax", sync_batch_norm=False, candidates=None, limits=()):
        """All hidden layers with all their candidates, see `networks.PerceptronSupernet`."""
        from darts_tf.spaces.mlp.networks import PerceptronSupernet

        return PerceptronSupernet(
            self,
            task.outputs,
            sync_batch_norm,
            relaxation=relaxation,
            candidates=candidates,
            limits=limits,
        )

    def network(self, architecture, task, units=None, dropout=0.0):
        """The perceptron of an architecture, see `networks.perceptron`.

        Args:
            units: of the widest layer; by default those of the architecture's space.
            dropout: rate of dropout after each hidden layer.
        """
        from darts_tf.spaces.mlp.networks import perceptron

        return perceptron(architecture, task.outputs, task.input_shape, units, dropout, task.normalization)

    def decode(self, picks):
        chosen = super().decode(picks).chosen
        there = [connection != NONE for connection in chosen["connections"]]
        for name in ("activations", "widths"):
            chosen[name] = tuple(one if has else None for one, has in zip(chosen[name], there, strict=True))
        return Perceptron(self, chosen)

    def picks(self, architecture):
        """The inverse of `decode`; of layers that are not there the first candidates."""
        return super().picks(self._filled(architecture))

    def check(self, architecture):
        super().check(self._filled(architecture))

    def _filled(self, architecture):
        chosen = dict(architecture.chosen)
        there = [connection != NONE for connection in chosen.get("connections") or ()]
        for name in ("activations", "widths"):
            first = self.choices[name].candidates[0]
            own = chosen.get(name) or ()
            chosen[name] = tuple(one if has else first for one, has in zip(own, there, strict=False))
        return Perceptron(self, chosen)

    def declare(self, hp):
        """Declares the space for keras-tuner; a layer that is not there has no activation and no width."""
        chosen = {name: [] for name in self.choices}
        for row, there in enumerate(self._names()):
            chosen["connections"].append(hp.Choice(f"connections_{row}", there["connections"]))
            layers = [name for name in there["connections"] if name != NONE]
            with hp.conditional_scope(f"connections_{row}", layers) if row else contextlib.nullcontext():
                for name in ("activations", "widths"):
                    value = hp.Choice(f"{name}_{row}", there[name])
                    chosen[name].append(value if chosen["connections"][row] != NONE else None)
        return Perceptron(self, {name: tuple(rows) for name, rows in chosen.items()})

    def values(self, architecture):
        self.check(architecture)
        return {
            f"{name}_{row}": architecture.chosen[name][row]
            for row in range(self.layers)
            for name in self.choices
            if architecture.chosen[name][row] is not None
        }

    def _names(self):
        """For each row {table: names of its candidates}."""
        return [{name: table.names(row) for name, table in self.choices.items()} for row in range(self.layers)]

    @classmethod
    def from_notation(cls, text):
        """The `Perceptron` of a text.

        Raises:
            ValueError: it is not of this form, or not in a space.
        """
        told, colon, layers = text.removeprefix(cls.notation).partition(":")
        units, comma, plain = told.partition(",")
        if not units.isdecimal() or len(units) > 9 or not colon or (comma and plain != PLAIN):
            expected = "expected the units of the widest layer and the layers, as in mlp:128:relu*0.5,none,tanh+"
            raise ValueError(f"Not a perceptron: {text[:200]!r}: {expected}.")
        chosen = {"connections": [], "activations": [], "widths": []}
        for layer in layers.split(",", MOST_LAYERS):
            name, star, width = layer.removesuffix("+").partition("*")
            is_layer = layer != NONE
            try:
                width = f"{float(width if star else 1):g}"
            except ValueError:
                raise ValueError(f"Not a perceptron: {layer[:100]!r}: expected a width such as relu*0.5.") from None
            chosen["connections"].append((RESIDUAL if layer.endswith("+") else DENSE) if is_layer else NONE)
            chosen["activations"].append(name if is_layer else None)
            chosen["widths"].append(width if is_layer else None)
        names, widths = ({one for one in chosen[key] if one is not None} for key in ("activations", "widths"))
        more = tuple(sorted(names - set(ACTIVATIONS)))
        space = cls(len(chosen["widths"]), int(units), (*ACTIVATIONS, *more), (*WIDTHS, *widths), not comma)
        return Perceptron(space, {name: tuple(rows) for name, rows in chosen.items()})

    def pictures(self, architecture, names=None, units=None):
        """As of any space: one for all tables."""
        from darts_tf.spaces.mlp.picture import PerceptronPicture

        return [PerceptronPicture(self, units)]

    def costs(self, task, units=None):
        """As of any space, without building each network: what a layer costs depends on how wide its input is."""
        from darts_tf.spaces.mlp.costs import Costs

        return Costs(self, task, units)

    def cost_of(self, table, picks):
        from darts_tf.spaces.mlp.costs import of_picks

        return of_picks(table, picks)

    def expected(self, table, mixture, shares=None):
        from darts_tf.spaces.mlp.costs import expected

        return expected(table, mixture)

    def cheapest(self, table):
        from darts_tf.spaces.mlp.costs import cheapest

        return cheapest(table, self.choices["connections"].mask)

    def within(self, strengths, costs, most):
        from darts_tf.spaces.mlp.costs import strongest

        return self.decode(strongest(bounds.Options(self.choices, strengths, costs, most)))
