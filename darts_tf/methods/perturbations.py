"""Perturbations: what the step of the weights does to the mixture, so that the loss is flat around alpha (SmoothDARTS).

Each is an object; `--perturbation` and `DARTS(perturbation=...)` name it.
"""

from darts_tf.cli.registry import Registry


class Perturbation:
    """What every perturbation is. Objects are without state and may be shared.

    Attributes:
        name: what `register_perturbation` calls it.
        size: how far a weight may be moved, by default at the end of the search; `--perturbation_size`.
        schedule: how the size goes from epoch to epoch, a name of `darts_tf.methods.schedules`.
    """

    name = None
    size = 0.3
    schedule = "linear"

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
