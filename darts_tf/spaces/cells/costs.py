"""What the networks of genotypes cost: parameters and multiply-adds."""

import keras
import numpy as np

from darts_tf.costs.counts import multiply_adds, parameters
from darts_tf.ops import operations
from darts_tf.spaces.cells import cell, genotypes, networks


class CellCosts:
    """What the networks of genotypes cost, without building each: every edge adds what its operation has.

    Args: of `networks.cifar_network`.

    Call arguments:
        genotype: `genotypes.Genotype`, every node of which leads to the result of its cell.

    Returns:
        dict of `parameters` and `multiply_adds` of its network, as of the functions above; the latter may be None.
    """

    def __init__(self, channels, layers, num_classes, image_shape):
        self._arguments = channels, layers, num_classes, tuple(image_shape)
        self._known = {}

    def __call__(self, genotype):
        normal, reduce = genotypes.edges(genotype.normal), genotypes.edges(genotype.reduce)
        shapes = (
            (genotypes.num_nodes(pairs), tuple(sorted({source for *_, source in edges if source < 2})), tuple(concat))
            for pairs, edges, concat in ((genotype[0], normal, genotype[1]), (genotype[2], reduce, genotype[3]))
        )
        total = self._once(self._without_edges, *shapes)
        for reduction, edges in ((False, normal), (True, reduce)):
            for _, name, source in edges:
                total = total + self._once(self._edge, name, reduction, source < 2)
        return {"parameters": int(total[0]), "multiply_adds": None if np.isnan(total[1]) else int(total[1])}

    def _once(self, function, *arguments):
        if arguments not in self._known:
            self._known[arguments] = function(*arguments)
        return self._known[arguments]

    def _without_edges(self, *shapes):
        """What all but the edges has, given nodes, inputs that are used and nodes to concatenate of both cells."""
        fields = []
        for nodes, sources, concat in shapes:
            fields += [[("none", source, node) for node in range(2, 2 + nodes) for source in sources], list(concat)]
        genotype = genotypes.Genotype(*fields)
        return _counts(networks.cifar_network(genotype, *self._arguments))

    def _edge(self, name, in_reduction, from_input):
        """What an operation has in all cells of a kind together, on an edge from an input of the cell or a node."""
        channels, layers, _, (*size, _) = self._arguments
        inputs, outputs = [], []
        for index, (cell_channels, reduction) in enumerate(networks.stack(channels, layers)):
            inside = [-(-side // 2) for side in size] if reduction else size
            if reduction == in_reduction:
                images = keras.Input((*(size if from_input else inside), cell_channels))
                stride = cell.edge_stride(0 if from_input else 2, reduction)
                made = operations.make_operation(name, cell_channels, stride, affine=True)
                inputs.append(images)
                outputs.append(operations.layers(made, images, cell_channels, f"edge{index}"))
            size = inside
        return _counts(keras.Model(inputs, outputs)) if inputs else np.zeros(2)


def _counts(model):
    """Both numbers, NaN if one is not known."""
    return np.array([parameters(model), multiply_adds(model)], float)
