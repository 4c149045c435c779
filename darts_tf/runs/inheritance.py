"""What the network of a search's next stage takes over from the one before it."""

import keras
import numpy as np

from darts_tf.private.keras import moments_of, place_of


def inherit(search, before):
    """Gives a search the alphas, the weights and the optimizers' state of another one of the same cells.

    Edges keep the weights of the candidates that are left. Where operations see more channels than before, the new
    channels are copies of the old ones, and what reads them divides by how many there are (Net2Net; Chen et al. 2016).

    Args:
        search: compiled `DARTS` of a `SearchNetwork`, all variables of which exist; it is changed.
        before: the other one.
    """
    network, old = search.network, before.network
    pairs = [(variable, old_variable, None) for variable, old_variable in _alike(network, old)]
    known = dict(old.operations())
    for key, (operation, members) in network.operations():
        if key in known:
            source, others = known[key]
            places = [list(others).index(member) for member in members]
            pairs += [
                (variable, old_variable, (spec, len(others), places))
                for spec, variable, old_variable in zip(
                    operation.specs, _variables(operation), _variables(source), strict=True
                )
            ]
    for variable, old_variable, how in pairs:
        _take(variable, old_variable, how)
        if any(variable is one for one in network.weight_variables) and search.optimizer.momentum:
            slots = [
                optimizer.momentums[place_of(one, optimizer)]
                for one, optimizer in ((variable, search.optimizer), (old_variable, before.optimizer))
            ]
            _take(*slots, how)
    for variable, old_variable in zip(network.arch_variables, old.arch_variables, strict=True):
        _take(variable, old_variable)
        moments = moments_of(variable, search.arch_optimizer), moments_of(old_variable, before.arch_optimizer)
        for own, other in zip(*moments, strict=True):
            if own is not None:
                _take(own, other)
    for optimizer, other in (
        (search.optimizer, before.optimizer),
        (search.arch_optimizer, before.arch_optimizer),
    ):
        _take(optimizer.iterations, other.iterations)
        for name in ("_scale", "_good_steps"):  # of `optimizers.SGD` with loss_scale
            if getattr(optimizer, "loss_scale", False):
                _take(getattr(optimizer, name), getattr(other, name))


def _alike(network, old):
    """(variable, variable of the other) of what has nothing to do with candidates: the classifier."""
    return zip(network.classifier.variables, old.classifier.variables, strict=True)


def _variables(operation):
    return [variable for owned in operation.variables_by_stage for variable in owned]


def _take(variable, other, how=None):
    """Assigns another variable's value, or the part of it that `how` says: (spec, groups there, the groups wanted)."""
    value = keras.ops.convert_to_numpy(other)
    if how is not None:
        spec, groups, places = how
        for axis in spec.free:
            is_grouped = axis == spec.free[-1]
            there = value.shape[axis] // (groups if is_grouped else 1)
            wanted = variable.shape[axis] // (len(places) if is_grouped else 1)
            index = np.arange(wanted) % there
            if not is_grouped:  # the channels that a kernel reads
                copies = np.bincount(index, minlength=there)[index]
                value = np.take(value, index, axis) / copies.reshape([-1] + [1] * (value.ndim - axis - 1))
            else:
                value = np.take(value, np.concatenate([place * there + index for place in places]), axis)
    variable.assign(value)
