"""DARTS, differentiable architecture search (Liu et al., ICLR 2019), on Keras and TensorFlow."""

import importlib

__version__ = "0.1.0"

_PLACES = {
    "DARTS": "methods.darts",
    "SearchNetwork": "spaces.cells.networks",
    "cifar_network": "spaces.cells.networks",
    "imagenet_network": "spaces.cells.networks",
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
