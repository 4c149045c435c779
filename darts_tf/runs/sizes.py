"""The flags that say how large a space's models are: those that its methods take as arguments."""

import dataclasses
import inspect

from darts_tf.cli.messages import UsageError

# Flags that only mean something to spaces that name them: of images, of text, of both.
IMAGES = ("init_channels", "layers", "network", "auxiliary", "drop_path_prob")
TEXT = ("units", "dropout", "dropouth", "dropoutx", "dropouti", "dropoute", "activation_penalty", "temporal_penalty")
SIZES = ("nodes", "primitives", "widths", *IMAGES, *TEXT)


def of(method, values):
    """The values of a dict, other than None, that a method of a space takes as keyword arguments, a dict."""
    taken = [parameter.name for parameter in inspect.signature(method).parameters.values() if _has_default(parameter)]
    return {name: values[name] for name in taken if values.get(name) is not None and name != "relaxation"}


def _has_default(parameter):
    return parameter.default is not inspect.Parameter.empty


def check_given(config, space, *methods):
    """Raises UsageError for a size that was given and that neither the space nor its methods take."""
    taken = {field.name for field in dataclasses.fields(space)}
    taken |= {name for method in methods for name in inspect.signature(method).parameters}
    for name in SIZES:
        if name in config.given and name not in taken and getattr(config, name) not in (None, False):
            value = getattr(config, name)
            raise UsageError(f"--{name}={value}: the space {space.name} has no such size; expected none.")
