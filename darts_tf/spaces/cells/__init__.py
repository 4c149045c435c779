"""The paper's space: a normal and a reduction cell, stacked to a network."""
