"""Gives a network that is trained the weights of a derived one."""

import numpy as np


def take_weights(network, model):
    """Gives a built `TrainedNetwork` those of a functional model of the same genotype and sizes."""
    ends = np.cumsum([0, *(int(np.prod(weight.shape)) for weight in network.weights)])
    for weight, start, end in zip(network.weights, ends[:-1], ends[1:], strict=True):
        weight.assign(np.arange(start, end).reshape(weight.shape))
    places, values = network.inference_model(), np.full(ends[-1], np.nan)
    for layer in places.layers:
        for place, weight in zip(layer.get_weights(), model.get_layer(layer.name).get_weights(), strict=True):
            values[place.astype(int)] = weight
    for weight, start, end in zip(network.weights, ends[:-1], ends[1:], strict=True):
        if not np.isnan(values[start:end]).any():
            weight.assign(values[start:end].reshape(weight.shape))
    for layer in network.auxiliary_head.layers if network.auxiliary_head else ():
        if layer.weights:
            layer.set_weights(model.get_layer(layer.name).get_weights())
