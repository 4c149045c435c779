"""The flags that say how large a space's models are: those that its methods take as arguments."""

import dataclasses
import inspect

from darts_tf.cli.messages import UsageError

# Flags that only mean something to spaces that name them: of images, of text, of both.
IMAGES = ("init_channels", "layers", "network", "auxiliary", "drop_path_prob")
TEXT = ("units", "dropout", "dropouth", "dropoutx", "dropouti", "dropoute", "activation_penalty", "temporal_penalty")
SIZES = ("nodes", "primitives", "widths", "batch_norm", *IMAGES, *TEXT)


def of(method, values):
    """The values of a dict, other than None, that a method of a space takes as keyword arguments, a dict."""
    taken = [parameter.name for parameter in inspect.signature(method).parameters.values() if _has_default(parameter)]
    return {name: values[name] for name in taken if values.get(name) is not None and name != "relaxation"}


def names_of(*takers):
    """The names of the parameters of methods and the fields of spaces, a set."""
    found = set()
    for taker in takers:
        fields = dataclasses.is_dataclass(taker)
        found |= {f.name for f in dataclasses.fields(taker)} if fields else set(inspect.signature(taker).parameters)
    return found


def _has_default(parameter):
    return parameter.default is not inspect.Parameter.empty


def check_given(config, space, *methods, searched=True):
    """Raises UsageError for a size that was given and that neither the space nor its methods take.

    Args:
        searched: whether the fields of the space are taken, too.
    """
    taken = names_of(*methods, *([space] if searched else []))
    for name in SIZES:
        value = getattr(config, name, None)
        without = name == "batch_norm"  # the value of a flag that changes nothing where there is none
        if name in config.given and name not in taken and value not in (None, without):
            raise UsageError(f"--{name}={value}: the space {space.name} has no such size; expected none.")
