"""The contract of spaces, as a check that says what is wrong with one."""

import contextlib
import dataclasses
import inspect
import json
import re

import numpy as np

from darts_tf import spaces
from darts_tf.data.tasks import ImageClassification, LanguageModel
from darts_tf.spaces.base import Choices, SearchSpace

TASK, TEXT = ImageClassification((8, 8, 1), 3), LanguageModel((), 5)


class _Values:
    """Draws values as keras-tuner would, and remembers them."""

    def __init__(self, random):
        self._random, self.values = random, {}

    def Choice(self, name, values):  # noqa: N802, as keras-tuner has it
        if name not in self.values:
            self.values[name] = values[self._random.integers(len(values))]
        assert self.values[name] in values, f"{name} is declared with other values than before."
        return self.values[name]

    @contextlib.contextmanager
    def conditional_scope(self, name, values):
        assert name in self.values, f"{name} is no choice that was declared before."
        before = dict(self.values)
        yield
        if before[name] not in values:
            self.values = before

    def Fixed(self, name, value):  # noqa: N802
        return self.values.setdefault(name, value)


def check_space(space, task=None, draws=10):
    """Checks a space: its choices, text, JSON, pictures, hyperparameters, networks and supernet.

    Args:
        space: an object of a registered subclass of `SearchSpace`, small enough that its models are built in seconds.
        task: `darts_tf.data.tasks.Task` to build models for; by default of small images, or of text.
        draws: random architectures to look at.

    Raises:
        AssertionError: it does not do what `SearchSpace` says; the message is one line.
    """
    assert isinstance(space, SearchSpace), f"{type(space).__name__} is no subclass of SearchSpace."
    name = space.name
    known = name and spaces.is_known(space.spec)
    assert known, f"{type(space).__name__} has no name: decorate it by register_space."
    assert dataclasses.is_dataclass(space) and space == dataclasses.replace(space), f"{name} is no frozen dataclass."
    for field in dataclasses.fields(space):
        assert field.default is not dataclasses.MISSING, f"{name}: the field {field.name} has no default."
    fields = {field.name: getattr(space, field.name) for field in dataclasses.fields(space)}
    assert spaces.of({**fields, "space": space.spec}) == space, f"{name}: its spec and its fields say another space."
    choices = space.choices
    _check_choices(name, choices)
    random = np.random.default_rng(0)
    found = [space.decide(_strengths(choices, random)) for _ in range(draws)]
    for architecture in found:
        _check_architecture(space, architecture)
    for _ in range(draws):
        hp = _Values(random)
        architecture = space.declare(hp)
        _check_architecture(space, architecture)
        assert space.architecture_of(hp) == architecture, f"{name}: architecture_of differs from declare."
        again = _Values(random)
        again.values = space.values(architecture)
        assert space.declare(again) == architecture, f"{name}: values of an architecture declare another one."
    _check_models(space, found[0], task or (TEXT if "text" in space.kinds else TASK))


def _check_choices(name, choices):
    assert isinstance(choices, dict) and choices, f"{name}: choices are no dict of tables."
    for table, choice in choices.items():
        assert isinstance(choice, Choices), f"{name}: {table} is {type(choice).__name__}, expected Choices."
        assert str(table).isidentifier(), f"{name}: {table!r} is no identifier."
        assert choice.rows and choice.candidates, f"{name}: {table} has no rows or no candidates."
        for what, texts in (("rows", choice.rows), ("candidates", choice.candidates)):
            assert isinstance(texts, tuple) and all(isinstance(text, str) for text in texts), (
                f"{table}: {what} are no texts."
            )
            assert len(set(texts)) == len(texts), f"{name}: {table} has two {what} of one name."
        rows = sorted(row for rows, _ in choice.groups for row in rows)
        assert rows == list(range(len(choice.rows))), f"{name}: {table} has rows in no group, or in two."
        for rows, keep in choice.groups:
            assert 1 <= keep <= len(rows), f"{name}: {table} keeps {keep} of {len(rows)} rows."
        assert set(choice.candidates) - set(choice.never), f"{name}: no candidate of {table} can be chosen."
        assert set(choice.never) <= set(choice.candidates), f"{name}: {table} never has what it does not have."


def _strengths(choices, random):
    return {name: random.random((len(table.rows), len(table.candidates))) for name, table in choices.items()}


def _check_architecture(space, architecture):
    """Text, JSON and pictures of an architecture, and what is known of it."""
    name = space.name
    space.check(architecture)
    picks = space.picks(architecture)
    assert space.decode(picks) == architecture, f"{name}: decode is not the inverse of picks."
    for table, choice in space.choices.items():
        chosen = dict(picks[table])
        for rows, keep in choice.groups:
            assert sum(row in chosen for row in rows) == keep, f"{name}: picks of {table} keep other than {keep} rows."
        for candidate in chosen.values():
            assert choice.candidates[candidate] not in choice.never, f"{name}: {table} has what it never has."
    text, written = str(architecture), architecture.to_json()
    assert "\n" not in text and "\n" not in written, f"{name}: text or JSON is more than one line."
    assert spaces.from_text(text) == architecture, f"{name}: its text is read as another architecture: {text}"
    assert spaces.from_json(written) == architecture, f"{name}: its JSON is read as another architecture."
    says, own = json.loads(written).get("space", "darts"), architecture.space
    assert says == own.name, f"{name}: its JSON says that it is of {says}, not of {own.name}."
    assert isinstance(space.change(architecture, architecture), str), f"{name}: change is no text."
    strengths = _strengths(space.choices, np.random.default_rng(0))
    pictures = space.pictures(architecture, [other for table in space.choices.values() for other in table.candidates])
    for picture in pictures:
        assert picture.name in space.choices and picture.width > 0 and picture.height > 0, (
            f"{name}: a picture of nothing."
        )
        assert picture.title and picture.shapes, f"{name}: a picture without a title or shapes."
        for weights in (None, strengths[picture.name]):
            assert picture.edges(architecture, weights), f"{name}: the picture of {picture.name} shows no choice."


def _check_models(space, architecture, task):
    """The network and the supernet."""
    import keras
    import tensorflow as tf

    from darts_tf.methods import darts
    from darts_tf.spaces.models import Supernet

    name = space.name
    for method in (space.network, space.supernet):
        for parameter in list(inspect.signature(method).parameters.values())[2 if method == space.network else 1 :]:
            has_default = parameter.default is not inspect.Parameter.empty
            assert has_default, f"{name}: the size {parameter.name} of {method.__name__} has no default."
    small = {"init_channels": 4, "layers": 3, "units": 4, "batch_size": 2}
    sizes = {key: value for key, value in small.items() if key in inspect.signature(space.network).parameters}
    network = space.network(architecture, task, **sizes)
    assert isinstance(network, keras.Model), f"{name}: network is no keras.Model."
    x, y = task.example()
    expected = (*y.shape, task.outputs)
    shape = tuple(network(x).shape)
    assert shape == expected, f"{name}: its network gives {shape}, expected {expected}."
    plain = network.inference_model() if hasattr(network, "inference_model") else network
    for layer in plain.layers:
        module = type(layer).__module__
        assert module.startswith("keras."), f"{name}: its network has a {type(layer).__name__}, no layer of Keras."
    costs = space.costs(task, **{k: v for k, v in small.items() if k in inspect.signature(space.costs).parameters})
    counted = costs(architecture)
    assert {"parameters", "multiply_adds"} <= set(counted), f"{name}: its costs are {counted}."

    sizes = {key: value for key, value in small.items() if key in inspect.signature(space.supernet).parameters}
    supernet = space.supernet(task, **sizes)
    assert isinstance(supernet, Supernet), f"{name}: supernet is no Supernet."
    supernet.build(tf.nest.map_structure(lambda part: (None, *part.shape[1:]), x))
    for table, choice in space.choices.items():
        shape = tuple(supernet.alphas[table].shape)
        of = (len(choice.rows), len(choice.candidates))
        assert shape == of, f"{name}: alphas of {table} are {shape}, expected {of}."
    built = len(supernet.variables)
    shape = tuple(supernet(x, training=True).shape)
    assert shape == expected, f"{name}: its supernet gives {shape}, expected {expected}."
    assert len(supernet.variables) == built, f"{name}: its supernet makes variables when it is called, not in build."
    space.check(supernet.genotype())
    assert type(supernet.genotype()) is type(architecture), f"{name}: its supernet finds other architectures."
    search = darts.DARTS(supernet)
    weights, alphas = (
        [tf.convert_to_tensor(v) for v in some] for some in (supernet.weight_variables, supernet.arch_variables)
    )
    search.compile(optimizer="sgd", arch_optimizer="adam", loss=task.loss())
    for of, values in (("weights", weights), ("alphas", alphas)):
        gradients = darts.gradient(search.loss_at, weights, alphas, (x, y), of=of)
        for gradient, value in zip(gradients, values, strict=True):
            assert np.isfinite(gradient).all(), f"{name}: a gradient with respect to {of} is no number."
            assert gradient.shape == value.shape, f"{name}: a gradient has another shape."
        nonzero = [np.abs(gradient).max() > 0 for gradient in gradients]
        assert any(nonzero), f"{name}: the loss does not depend on the {of}."
    assert re.fullmatch(r"[\w-]+", name), f"{name}: expected letters, digits, _ and -."
