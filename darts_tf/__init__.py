"""DARTS, differentiable architecture search (Liu et al., ICLR 2019), on Keras and TensorFlow."""

import importlib
import importlib.abc
import importlib.machinery
import sys

__version__ = "0.1.0"

_PLACES = {
    "DARTS": "methods.darts",
    "SearchNetwork": "spaces.cells.networks",
    "RecurrentSearchNetwork": "spaces.recurrent.networks",
    "RecurrentNetwork": "spaces.recurrent.networks",
    "TrainedNetwork": "spaces.cells.trained",
    "cifar_network": "spaces.cells.derived",
    "imagenet_network": "spaces.cells.derived",
    "inference_model": "spaces.models",
    "Genotype": "spaces.cells.genotypes",
    "PRIMITIVES": "spaces.cells.space",
    "register_operation": "ops.operations",
    "run_search": "search",
    "SearchConfig": "runs.configurations",
    "run_training": "train",
    "TrainConfig": "runs.configurations",
}
__all__ = list(_PLACES)


def __getattr__(name):
    # TensorFlow takes seconds to import: a command's --help should not wait for it.
    if name in _PLACES:
        return getattr(importlib.import_module(f"darts_tf.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})


# Short names of modules, in programs and in saved models, and where their contents are.
_MODULES = {
    "cells": ("spaces.cells.cell", "spaces.cells.derived", "ops.drop_path"),
    "darts": ("methods.darts",),
    "genotypes": ("spaces.cells.genotypes", "spaces"),
    "mixed_op": ("ops.mixed_op",),
    "networks": ("spaces.cells.networks", "spaces.cells.derived", "spaces.models"),
    "operations": ("ops.operations",),
    "optimizers": ("methods.optimizers",),
    "stages": ("ops.stages",),
}


class _ShortNames(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports `darts_tf.stages`, for example, as a module with the names of `darts_tf.ops.stages`."""

    def find_spec(self, name, path, target=None):
        package, _, module = name.partition(".")
        return importlib.machinery.ModuleSpec(name, self) if package == __name__ and module in _MODULES else None

    def exec_module(self, module):
        for place in reversed(_MODULES[module.__name__.partition(".")[2]]):
            names = vars(importlib.import_module(f"{__name__}.{place}"))
            vars(module).update({name: value for name, value in names.items() if not name.startswith("__")})


sys.meta_path.append(_ShortNames())
