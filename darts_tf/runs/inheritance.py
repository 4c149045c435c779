"""What the network of a search's next stage takes over from the one before it."""

import keras
import numpy as np

from darts_tf.private.keras import moments_of, place_of
from darts_tf.spaces.models import ORDERED


def inherit(search, before):
    """Gives a search the alphas, the weights and the optimizers' state of another one of the same space.

    Edges keep the weights of the candidates that are left. Where operations see more channels than before, the new
    channels are copies of the old ones, and what reads them divides by how many there are (Net2Net; Chen et al. 2016);
    candidates that are Keras layers begin anew there.

    Args:
        search: compiled `DARTS` of a `Supernet`, all variables of which exist; it is changed.
        before: the other one.
    """
    known, trained = dict(before.network.parts()), {id(variable) for variable in search.network.weight_variables}
    for key, part in search.network.parts():
        for variable, other, how in _pairs(part, known[key]) if key in known else ():
            _take(variable, other, how)
            if id(variable) in trained and search.optimizer.momentum:
                _take(_slot(variable, search.optimizer), _slot(other, before.optimizer), how)
    for variable, other in zip(search.network.arch_variables, before.network.arch_variables, strict=True):
        _take(variable, other)
        moments = moments_of(variable, search.arch_optimizer), moments_of(other, before.arch_optimizer)
        for own, old in zip(*moments, strict=True):
            if own is not None:
                _take(own, old)
    for name in ("optimizer", "arch_optimizer"):
        _take(getattr(search, name).iterations, getattr(before, name).iterations)
    if search.optimizer.loss_scale:
        for variable, other in zip(search.optimizer.scaling, before.optimizer.scaling, strict=True):
            _take(variable, other)


def _slot(variable, optimizer):
    return optimizer.momentums[place_of(variable, optimizer)]


def _pairs(part, other):
    """(variable, the other's variable, how) of two parts of supernets, see `Supernet.parts` and `_take`."""
    (layer, edges), (old, old_edges) = part, other
    if edges == ORDERED:
        return [(*pair, ORDERED) for pair in zip(layer.variables, old.variables, strict=True)]
    if edges is None:
        pairs = list(zip(layer.variables, old.variables, strict=True))
        return [(*pair, None) for pair in pairs] if all(one.shape == two.shape for one, two in pairs) else []
    places = [old_edges.index(edge) for edge in edges]
    owned = zip(layer.specs, layer.flat_variables, old.flat_variables, strict=True)
    return [(variable, one, (spec, len(old_edges), places)) for spec, variable, one in owned]


def _take(variable, other, how=None):
    """Assigns another variable's value, or the part of it that `how` says.

    Args:
        how: None, `ORDERED`, or (spec, groups there, the groups wanted).
    """
    value = keras.ops.convert_to_numpy(other)
    if how == ORDERED:
        value = value[tuple(slice(size) for size in variable.shape)]
    elif how is not None:
        spec, groups, places = how
        *inputs, grouped = spec.free
        for axis in inputs:  # the channels that a kernel reads
            index = np.arange(variable.shape[axis]) % value.shape[axis]
            copies = np.bincount(index)[index]
            value = np.take(value, index, axis) / copies.reshape([-1] + [1] * (value.ndim - axis - 1))
        there, wanted = value.shape[grouped] // groups, variable.shape[grouped] // len(places)
        index = np.arange(wanted) % there
        value = np.take(value, np.concatenate([place * there + index for place in places]), grouped)
    variable.assign(value)
