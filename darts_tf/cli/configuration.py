"""Configurations: frozen dataclasses, each field of which is a flag of a command.

@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchConfig(Configuration):
    epochs: int = option(50, "Epochs.", topic="Search", least=1)

commands.run(main, SearchConfig)    # main(config) gets what the command line says
SearchConfig(epochs=3)              # the same from Python, with the same checks
"""

import contextlib
import dataclasses
import math
import os
import types
import typing

from absl import flags

from darts_tf.cli.messages import UsageError

KINDS = {int: "a whole number", float: "a number", bool: "True or False", str: "a text", list: "a list of texts"}


def option(default, text, *, topic, least=None, most=None, values=None, repeated=False):
    """A field of a configuration.

    Args:
        default: its value if none is given; of a list always None.
        text: for --help; if the default is None it says what that means ("Default: ...").
        topic: heading in --help.
        least, most: bounds of a number, inclusive.
        values: the texts that are allowed.
        repeated: whether each text of a list has a flag of its own, --text=a --text=b, and may hold commas.
    """
    metadata = {"text": text, "topic": topic, "least": least, "most": most, "values": values, "repeated": repeated}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Configuration:
    """What a run was asked for. A text may be given as a path, numbers and lists as Python has them.

    Attributes:
        given: names of the fields that were given, as opposed to those that have their defaults.

    Raises:
        UsageError: a value is not of the field's kind, or out of range. A `ValueError` for Python.
        TypeError: there is no such field.
    """

    def __new__(cls, **values):
        made = super().__new__(cls)
        object.__setattr__(made, "given", frozenset(values))
        return made

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                value = list(value)
            if kind(field) is float and type(value) is int:
                value = float(value)
            if kind(field) is str and isinstance(value, os.PathLike):
                value = os.fspath(value)
            object.__setattr__(self, field.name, value)
            wrong = complaint(field, value)
            if wrong:
                raise UsageError(f"--{field.name}={value}: expected {wrong}.")

    def replace(self, **values):
        """The same configuration with other values; they do not count as given."""
        made = dataclasses.replace(self, **values)
        object.__setattr__(made, "given", self.given)
        return made

    def completed(self, defaults):
        """The same configuration, with values of `defaults`, a dict, for fields that are None."""
        return self.replace(**{name: value for name, value in defaults.items() if getattr(self, name) is None})

    def taken_over(self, values):
        """The same configuration, with values of a dict for what was not given; names of no field are ignored."""
        fields = {field.name for field in dataclasses.fields(self)} - self.given
        return self.replace(**{name: value for name, value in values.items() if name in fields})

    def to_dict(self):
        """{field: value}, which JSON can hold."""
        return dataclasses.asdict(self)


def kind(field):
    """The type of a field's values: int, float, bool, str or list."""
    annotation = field.type
    if isinstance(annotation, types.UnionType):  # with None
        annotation = next(one for one in typing.get_args(annotation) if one is not type(None))
    return annotation


def complaint(field, value):
    """What a field expects instead of a value, as text; None if the value is valid.

    Args:
        field: of a configuration, see `dataclasses.fields`.
        value: anything that JSON or Python may hold.
    """
    if value is None:
        return None if field.default is None else KINDS[kind(field)]
    if kind(field) is list:
        return None if isinstance(value, list) and all(type(item) is str for item in value) else KINDS[list]
    if kind(field) is float and type(value) is int:
        value = float(value)
    if type(value) is not kind(field):
        return KINDS[kind(field)]
    if isinstance(value, float) and not math.isfinite(value):
        return "a finite number"
    limits = field.metadata
    if limits["values"] and value not in limits["values"]:
        return f"one of {', '.join(limits['values'])}"
    if limits["least"] is not None and value < limits["least"]:
        return f"at least {limits['least']}"
    if limits["most"] is not None and value > limits["most"]:
        return f"at most {limits['most']}"
    return None


class _Parser(flags.ArgumentParser):
    """Of what a command line says of a field.

    Args:
        field: of a configuration, see `dataclasses.fields`.
    """

    def __init__(self, field):
        self.field = field

    def parse(self, argument):
        """The value that a text says; of anything else that itself, as of defaults. ValueError if it is not valid."""
        value = argument
        if isinstance(argument, str):
            with contextlib.suppress(ValueError, KeyError):  # else `complaint` says what is expected
                value = {int: int, float: float, bool: _truth, str: str}[kind(self.field)](argument)
        wrong = complaint(self.field, value)
        if wrong:
            raise ValueError(f"expected {wrong}.")
        return value


def _truth(text):
    return {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}[text.lower()]


def define(config, values=flags.FLAGS):
    """Defines a flag for each field of a configuration class."""
    for field in dataclasses.fields(config):
        named = {"name": field.name, "default": field.default}
        if kind(field) is list:
            make = flags.DEFINE_multi_string if field.metadata["repeated"] else flags.DEFINE_list
            make(**named, help=field.metadata["text"], flag_values=values)
        else:
            parts = {"parser": _Parser(field), "serializer": flags.ArgumentSerializer()}
            described = {"help_string": field.metadata["text"], "boolean": kind(field) is bool}
            flags.DEFINE_flag(flags.Flag(**parts, **named, **described), values)


def said(error):
    """What is wrong with a command line, one line, of what absl raises."""
    return " ".join(str(error).split()).removeprefix("flag ")


def from_flags(config, values=flags.FLAGS):
    """The configuration that flags say, once they are parsed.

    Raises:
        UsageError: a value is out of range.
    """
    given = [field.name for field in dataclasses.fields(config) if not values[field.name].using_default_value]
    return config(**{name: values[name].value for name in given})


def parse(config, arguments):
    """The configuration that a command line says, without the process's own flags.

    Args:
        config: class of a configuration.
        arguments: list of texts, such as "--epochs=3".

    Raises:
        UsageError: a flag does not exist or cannot have its value, or an argument is no flag.
    """
    own = flags.FlagValues()
    define(config, own)
    try:
        rest = own(["", *arguments])[1:]
    except (flags.Error, ValueError, OSError) as error:
        raise UsageError(said(error)) from None
    if rest:
        raise UsageError(f"{rest[0]}: expected flags.")
    return from_flags(config, own)


def topics(config):
    """{topic: list of fields}, those of the class itself before those of its bases."""
    found, owners = {}, [cls for cls in config.__mro__ if dataclasses.is_dataclass(cls)]
    fields = {field.name: field for field in dataclasses.fields(config)}
    for cls in owners:
        with contextlib.suppress(AttributeError):
            for name in cls.__annotations__:
                if name in fields:
                    field = fields.pop(name)
                    found.setdefault(field.metadata["topic"], []).append(field)
    return found
