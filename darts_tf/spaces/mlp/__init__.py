"""Multilayer perceptrons: how deep, how wide, which activations, which layers are added to their input."""
