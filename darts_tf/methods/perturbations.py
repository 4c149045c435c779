"""Perturbations: what the step of the weights does to the mixture, so that the loss is flat around alpha (SmoothDARTS).

Each is an object; `--perturbation` and `DARTS(perturbation=...)` name it.
"""

import numpy as np

from darts_tf.cli.registry import Registry


class Perturbation:
    """What every perturbation is. Objects are without state and may be shared.

    Attributes:
        name: what `register_perturbation` calls it.
        size: how far a weight may be moved, by default at the end of the search; `--perturbation_size`.
        first_size: the same at its start.
        schedule: how the size goes from epoch to epoch, a name of `darts_tf.methods.schedules`.
        normalizes: whether the weights of a row sum to one after it, which they have to do before.
    """

    name = None
    size = 0.3
    first_size = 0.03
    schedule = "linear"
    normalizes = True

    def __call__(self, mixture, candidates, loss, size, seed):
        """The mixture that the weights' step sees.

        Args:
            mixture: {table: tensor (rows, candidates)}, weights of the candidates, without a gradient.
            candidates: {table: bool array (rows, candidates)}, which rows have which.
            loss: function of a mixture -> the training loss of the batch, a scalar, with moving statistics.
            size: scalar.
            seed: int32 tensor (2,).

        Returns:
            Like mixture.
        """
        raise NotImplementedError


_perturbations = Registry("perturbation", Perturbation)
register_perturbation, names, get = _perturbations.register, _perturbations.names, _perturbations.get


def _draw(mixture, candidates, size, seed):
    """{table: tensor like its weights}: noise between -size and size, zero where a row lacks the candidate."""
    import tensorflow as tf

    noise = {}
    for place, (name, weights) in enumerate(mixture.items()):
        own = tf.random.experimental.stateless_fold_in(seed, place)
        drawn = tf.random.stateless_uniform(weights.shape, own, -1, 1, weights.dtype) * tf.cast(size, weights.dtype)
        noise[name] = tf.where(candidates[name], drawn, 0)
    return noise


def projected(mixture, candidates):
    """Weights between 0 and 1 whose rows sum to 1: clipped, then divided by their sum.

    A row without any has its largest, before, alone.
    """
    import tensorflow as tf

    result = {}
    for name, weights in mixture.items():
        there = tf.where(candidates[name], weights, tf.constant(-np.inf, weights.dtype))
        clipped = tf.clip_by_value(there, 0, 1)
        total = tf.reduce_sum(clipped, -1, keepdims=True)
        largest = tf.one_hot(tf.argmax(there, -1), weights.shape[-1], dtype=weights.dtype)
        result[name] = tf.where(total > 0, clipped / tf.where(total > 0, total, 1), largest)
    return result


@register_perturbation("random")
class Random(Perturbation):
    """Adds uniform noise to the weights of the candidates (SDARTS-RS; equation 6 of SmoothDARTS).

    Rows sum to one after it as before.
    """

    def __call__(self, mixture, candidates, loss, size, seed):
        noise = _draw(mixture, candidates, size, seed)
        return projected({name: weights + noise[name] for name, weights in mixture.items()}, candidates)


def ascending(mixture, candidates, loss, size, steps):
    """A step along the sign of the loss's gradient, in a box around a mixture (projected gradient ascent).

    Args:
        mixture, candidates, loss, size: as of a perturbation.
        steps: how many there will be; each is of 2 * size / steps.

    Returns:
        Function of a mixture -> the next. That is within the box and then `projected`, which may leave the box again.
    """
    import tensorflow as tf

    from darts_tf.devices import replicas

    def step(current):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(current)
            value = loss(current)
        gradients = tape.gradient(value, current, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        gradients = replicas.average(tf.nest.map_structure(tf.convert_to_tensor, gradients))
        moved = {}
        for name, weights in current.items():
            box = tf.cast(size, weights.dtype)
            there = weights + 2 * box / steps * tf.sign(gradients[name])
            moved[name] = mixture[name] + tf.clip_by_value(there - mixture[name], -box, box)
        return projected(moved, candidates)

    return step


@register_perturbation("adversarial")
class Adversarial(Perturbation):
    """The weights of the candidates near the mixture that raise the loss most (SDARTS-ADV; equation 7 of SmoothDARTS).

    Found by steps of `ascending` from a random start; the mixture itself if that has the higher loss. Costs nine more
    passes.

    Attributes:
        steps: how many.
    """

    steps = 7

    def __call__(self, mixture, candidates, loss, size, seed):
        return self.attacked(mixture, candidates, loss, size, _draw(mixture, candidates, size, seed))

    def start(self, mixture, candidates, noise=None):
        """Where the steps begin: the mixture with noise, {table: tensor}, if that is given."""
        if noise is None:
            return mixture
        return projected({name: weights + noise[name] for name, weights in mixture.items()}, candidates)

    def attacked(self, mixture, candidates, loss, size, noise=None):
        """The result for a given noise."""
        import tensorflow as tf

        from darts_tf.devices import replicas

        step, found = ascending(mixture, candidates, loss, size, self.steps), self.start(mixture, candidates, noise)
        if replicas.count() > 1:  # which cannot meet within a loop of TensorFlow
            for _ in range(self.steps):
                found = step(found)
        else:  # traced once
            count = tf.constant(0)
            _, found = tf.while_loop(
                lambda count, _: count < self.steps, lambda count, now: (count + 1, step(now)), (count, found)
            )
        before, after = replicas.average([loss(mixture), loss(found)])
        return {name: tf.where(before > after, mixture[name], found[name]) for name in mixture}
