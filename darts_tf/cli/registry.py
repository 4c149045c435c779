"""Classes that a flag can name: relaxations, selections, spaces, tasks."""

import inspect
import re


class Registry:
    """Classes by name.

        _relaxations = Registry("relaxation", Relaxation)
        register_relaxation = _relaxations.register    # a class decorator: @register_relaxation("softmax")
        get = _relaxations.get                         # get("softmax") is an object

    Args:
        flag: what names them, without hyphens.
        base: the class that they are subclasses of.

    Attributes:
        members: {name: class}.
    """

    def __init__(self, flag, base):
        self.flag, self.base, self.members = flag, base, {}

    def register(self, name):
        """Class decorator that adds a class, and sets its attribute `name`.

        Raises:
            ValueError: the name has other than letters, digits, _ and -, or the class is no subclass of `base`.
        """
        if not isinstance(name, str) or not re.fullmatch(r"[^\W\d][\w-]*", name):
            raise ValueError(f"{self.flag} {name!r}: expected a name of letters, digits, _ and -.")

        def add(kind):
            if not isinstance(kind, type) or not issubclass(kind, self.base):
                expected = f"{self.base.__module__}.{self.base.__qualname__}"
                raise ValueError(f"{self.flag} {name}: it is {kind!r}; expected a subclass of {expected}.")
            kind.name = name
            self.members[name] = kind
            return kind

        return add

    def names(self):
        """All names, in the order of their registration."""
        return list(self.members)

    def kind(self, name):
        """The class of a name.

        Raises:
            ValueError: there is none.
        """
        if name not in self.members:
            raise ValueError(f"{self.flag}={name}: expected one of {', '.join(self.members)}.")
        return self.members[name]

    def get(self, named, **parameters):
        """An object by the name of its class; an object is returned as it is.

        Args:
            named: name or object.
            parameters: of the class, beside its name.

        Raises:
            ValueError: there is none of this name, or it has no such parameter.
        """
        if isinstance(named, self.base):
            return named
        kind = self.kind(named)
        known = inspect.signature(kind).parameters
        for name in parameters:
            if name not in known:
                raise ValueError(f"{name} with {self.flag}={named}: expected one of {list(known)}.")
        return kind(**parameters)
