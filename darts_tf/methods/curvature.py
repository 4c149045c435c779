"""How sharp the validation loss is in alpha: the largest eigenvalue of its Hessian (RobustDARTS)."""

import contextlib

import numpy as np
import tensorflow as tf

from darts_tf.methods.darts import gradient
from darts_tf.ops import kernels


class Curvature:
    """The largest eigenvalue of the Hessian of the validation loss in alpha (section 4.1 of RobustDARTS).

    The loss is that of alpha's step, with `l2` of alpha's optimizer: 0.5 * l2 * |alpha| ** 2. "Largest" is algebraic,
    not of the magnitude. It is found by the Lanczos process on exact Hessian-vector products, in the type of the
    network's variables, whatever the dtype policy is. Relaxations that draw, and dropout, draw nothing.

        curvature = Curvature(search)       # a compiled `DARTS`
        curvature(x, y)                     # 0.18, where the search stands now

    Args:
        search: `DARTS`, whose variables exist.

    Batches of one shape share one graph, which is traced at the first of them.

    Raises:
        ValueError: the relaxation has no second derivatives that mean anything.
    """

    def __init__(self, search):
        relaxation = getattr(search.network, "relaxation", None)
        if not getattr(relaxation, "second_order", True):
            raise ValueError(f"curvature with relaxation={relaxation.name}: expected one whose weights are smooth.")
        self._search = search
        self._products = tf.function(self._product, autograph=False)

    def __call__(self, *batch):
        """The largest eigenvalue at a batch; changes nothing.

        Args:
            batch: x, y, and sample_weight if there is one, tensors or arrays.

        Returns:
            float; nan where the loss has no second derivatives that are numbers.
        """
        batch = tf.nest.map_structure(tf.convert_to_tensor, batch)
        there = self._there()
        dtype = self._search.network.arch_variables[0].dtype

        def product(vector):
            whole = np.zeros(there.shape, dtype)
            whole[there] = vector
            return self._products(batch, tf.constant(whole)).numpy()[there].astype(np.float64)

        return largest_eigenvalue(product, int(there.sum()), np.sqrt(np.finfo(dtype).eps))

    def _there(self):
        """Which of alpha's numbers the network has candidates for: bool array, alpha after alpha, row by row."""
        network = self._search.network
        masks = {id(alpha): network.candidates[name] for name, alpha in getattr(network, "alphas", {}).items()}
        parts = [masks.get(id(alpha), np.ones(alpha.shape, bool)) for alpha in network.arch_variables]
        return np.concatenate([np.ravel(part) for part in parts])

    def _product(self, batch, vector):
        """The Hessian times a vector, both of all alphas."""
        search = self._search
        weights, alphas = search.values()
        parts = tf.split(vector, [alpha.shape.num_elements() for alpha in alphas])
        parts = [tf.reshape(part, alpha.shape) for part, alpha in zip(parts, alphas, strict=True)]

        def loss(weights, alphas, batch):
            return search.loss_at(weights, alphas, batch, exact=True)

        with _set(search.network, inline=False, sync_batch_norm=False), kernels.twice_differentiable():
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(alphas)
                first = gradient(loss, weights, alphas, batch, of="alphas")
            none = tf.UnconnectedGradients.ZERO
            second = tape.gradient(first, alphas, output_gradients=parts, unconnected_gradients=none)
        l2 = getattr(search.arch_optimizer, "l2", 0.0)
        return tf.concat([tf.reshape(s + l2 * p, [-1]) for s, p in zip(second, parts, strict=True)], 0)


@contextlib.contextmanager
def _set(network, **values):
    """Sets those of these attributes that a network has, and puts them back.

    Batch norms that are synchronised have wrong second derivatives, those of `tf.nn.moments`. In graphs where the
    operations are written out second derivatives are not the same in each run (TensorFlow 2.21, oneDNN).
    """
    before = {name: getattr(network, name) for name in values if hasattr(network, name)}
    for name in before:
        setattr(network, name, values[name])
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(network, name, value)


def largest_eigenvalue(product, size, tolerance):
    """The largest eigenvalue of a symmetric matrix, by the Lanczos process with full reorthogonalisation.

    Args:
        product: function of a float64 vector (size,) -> the matrix times it.
        size: int, above 0.
        tolerance: by how much the product of the eigenvector found may be off, as a part of the largest magnitude of
            an eigenvalue; the eigenvalue is off by about the square of that.

    Returns:
        float; nan if a product is no number.
    """
    start = np.random.default_rng(0).normal(size=size)
    basis, diagonal, beside = [start / np.linalg.norm(start)], [], []
    while True:
        image = product(basis[-1])
        if not np.isfinite(image).all():
            return float("nan")
        diagonal.append(image @ basis[-1])
        for _ in range(2):  # what rounding leaves of the first time
            image = image - np.transpose(basis) @ (np.asarray(basis) @ image)
        beside.append(np.linalg.norm(image))
        small = np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1)
        values, vectors = np.linalg.eigh(small)
        if len(basis) == size or beside[-1] * abs(vectors[-1, -1]) <= tolerance * np.abs(values).max():
            return float(values[-1])
        basis.append(image / beside[-1])
