"""Selection by perturbation: what a network loses without a candidate decides, not alpha (DARTS-PT)."""

import itertools

import keras
import numpy as np
import tensorflow as tf

from darts_tf.devices import replicas
from darts_tf.methods import perturbations


class Projection:
    """The decisions of DARTS-PT (section 4 and algorithm 1 there), made one after the other.

    First each row gets one candidate: that without which the score is worst. Then each group of rows keeps as many as
    `Choices` says: those without which it is worst. Of equals the first candidate and the first rows stay.

        projection = Projection(space.choices)
        while not projection.done:
            projection.decide(score)
        space.decide(projection.strengths())

    Args:
        choices: {table: `darts_tf.spaces.base.Choices`}.
        candidates: {table: bool array (rows, candidates)}, which rows have which; by default what `choices` says.
        seed: of the orders in which rows and groups are decided, an int.
        rows, groups: {table: sequence of int}, these orders, instead.
        decisions: those made already, of another projection of the same arguments.
        possible: function of {table: bool array (rows, candidates)} that says whether these have an architecture, such
            as one within bounds on its costs; nothing is decided that leaves none. By default they always have.

    Attributes:
        decisions: list of dicts that JSON can hold, {"table", "row", "candidate"} and {"table", "group", "rows"}, which
            are indices, but for the table's name.
    """

    def __init__(self, choices, candidates=None, seed=0, rows=None, groups=None, decisions=(), possible=None):
        self.choices, self._possible = choices, possible
        self.candidates = candidates or {name: table.mask for name, table in choices.items()}
        random = np.random.default_rng(seed)
        self._rows, self._groups = {}, {}
        for name, table in choices.items():
            contested = [place for place, (members, keep) in enumerate(table.groups) if keep < len(members)]
            orders = random.permutation(len(table.rows)), random.permutation(contested)
            self._rows[name] = [int(row) for row in (rows or {}).get(name, orders[0])]
            self._groups[name] = [int(group) for group in (groups or {}).get(name, orders[1])]
        self.decisions = [dict(decision) for decision in decisions]

    def _decided(self, kind, name):
        """{row: candidate} or {group: rows} that are decided in a table."""
        what = {"row": "candidate", "group": "rows"}[kind]
        return {made[kind]: made[what] for made in self.decisions if made["table"] == name and kind in made}

    def _next(self):
        """(table, "row" or "group", which) of the next round, empty if there is none."""
        for kind, orders in (("row", self._rows), ("group", self._groups)):
            left = []
            for name, order in orders.items():
                decided = self._decided(kind, name)
                left += [(name, kind, which) for which in order if which not in decided][:1]
            if left:
                return left
        return []

    @property
    def done(self):
        """Whether all is decided."""
        return not self._next()

    @property
    def rounds(self):
        """How many rounds of decisions there are in all."""
        return sum(max((len(order) for order in orders.values()), default=0) for orders in (self._rows, self._groups))

    def decide(self, score):
        """Makes the next round of decisions: one in each table, of a row or, once all are decided, of a group of rows.

        Args:
            score: function (table, row, candidate) -> number, the larger the better: of the network without that
                candidate, or without the whole row where the candidate is None, and else as `mixture` gives it.

        Returns:
            list of the decisions made, see `decisions`.
        """
        made = []
        for name, kind, which in self._next():
            if kind == "row":
                there = np.flatnonzero(self.candidates[name][which]).tolist()
                options = [{"table": name, "row": which, "candidate": candidate} for candidate in there]
                options = self._that_leave_one(options)
                scores = [score(name, which, one["candidate"]) for one in options] if len(options) > 1 else [0]
                decision = options[int(np.argmin(scores))]
            else:
                rows, keep = self.choices[name].groups[which]
                scores = [score(name, row, None) for row in rows]
                order = np.argsort(scores, kind="stable")
                kept = itertools.combinations(order, keep)
                kept = sorted(kept, key=lambda places, scores=scores: sum(scores[place] for place in places))
                options = [[int(rows[place]) for place in places] for places in kept]
                options = [{"table": name, "group": which, "rows": sorted(own)} for own in options]
                decision = self._that_leave_one(options)[0]
            self.decisions.append(decision)
            made.append(decision)
        return made

    def _that_leave_one(self, options):
        """Those of some decisions after which there still is an architecture; all, if there is none after any."""
        if self._possible is None:
            return options
        before, found = self.decisions, []
        for decision in options:
            self.decisions = [*before, decision]
            if self._possible(self.left()):
                found.append(decision)
        self.decisions = before
        return found or options

    def left(self):
        """{table: bool array (rows, candidates)}: what may be chosen yet."""
        found = {}
        for name, table in self.choices.items():
            found[name] = np.array(self.candidates[name], bool)
            for row, candidate in self._decided("row", name).items():
                found[name][row] = np.arange(len(table.candidates)) == candidate
            for group, kept in self._decided("group", name).items():
                found[name][[row for row in table.groups[group][0] if row not in kept]] = False
        return found

    def fixed(self):
        """What is decided, {table: (bool array (rows, 1), array (rows, candidates))}: which rows, and their weights.

        A row that has a candidate has the weight one for it, a row that does not stay has zeros.
        """
        result = {}
        for name, table in self.choices.items():
            weights = np.zeros((len(table.rows), len(table.candidates)))
            chosen = self._decided("row", name)
            weights[list(chosen), list(chosen.values())] = 1
            for group, kept in self._decided("group", name).items():
                weights[[row for row in table.groups[group][0] if row not in kept]] = 0
            result[name] = np.isin(np.arange(len(table.rows)), list(chosen))[:, None], weights
        return result

    def mixture(self, weights, without=None):
        """Weights of the candidates, as far as they are decided already.

        Args:
            weights: {table: array (rows, candidates)}.
            without: (table, row, candidate) whose weight is zero, all of the row if the candidate is None. The other
                weights stay as they are.

        Returns:
            {table: array like weights}.
        """
        result = {}
        for name, (rows, own) in self.fixed().items():
            result[name] = np.where(rows, own, weights[name]).astype(np.asarray(weights[name]).dtype)
        if without is not None:
            name, row, candidate = without
            result[name][row, slice(None) if candidate is None else candidate] = 0
        return result

    def strengths(self):
        """{table: float64 array (rows, candidates)} for a selection: one for what stays, zero for all else."""
        return {name: weights for name, (_, weights) in self.fixed().items()}


class Projected(perturbations.Perturbation):
    """In place of a perturbation of the weights' step: the mixture as far as a projection has decided it.

    For the epochs of training between two decisions: `DARTS(network, perturbation=Projected(projection))`, whose
    `alpha_moves` is False; `set` after each decision. Make it in the scope of the strategy.
    """

    name = "projected"
    normalizes = False

    def __init__(self, projection):
        self._variables = {
            name: [tf.Variable(tf.zeros(part.shape), trainable=False) for part in parts]
            for name, parts in projection.fixed().items()
        }
        self.set(projection)

    def set(self, projection):
        """Takes over what is decided now."""
        for name, parts in projection.fixed().items():
            for variable, part in zip(self._variables[name], parts, strict=True):
                variable.assign(part.astype(np.float32))

    def __call__(self, mixture, candidates, loss, size, seed):
        result = {}
        for name, weights in mixture.items():
            rows, own = (tf.cast(tf.convert_to_tensor(part), weights.dtype) for part in self._variables[name])
            result[name] = tf.where(rows > 0, own, weights)
        return result


class Evaluation:
    """How good a search's network is with given weights of its candidates.

        evaluation = Evaluation(search, batches)
        loss, correct, samples = evaluation(mixture)

    Args:
        search: a compiled `DARTS`, whose variables exist.
        batches: iterable of (x, y) or (x, y, sample_weight), such as a `tf.data.Dataset`; gone through each time.
        criterion: "accuracy" or "loss", what `score` tells.

    Raises:
        ValueError: there is no such criterion, or the network computes only one candidate of a row.
    """

    def __init__(self, search, batches, criterion="accuracy"):
        if criterion not in ("accuracy", "loss"):
            raise ValueError(f"criterion={criterion}: expected accuracy or loss.")
        relaxation = getattr(search.network, "relaxation", None)
        if getattr(relaxation, "hard", False):
            raise ValueError(
                f"selection by perturbation with relaxation={relaxation.name}: expected one that mixes all candidates."
            )
        self._search, self._batches, self._criterion = search, batches, criterion
        self._step = tf.function(self._of_batch, autograph=False, reduce_retracing=True)

    def _of_batch(self, batch, mixture):
        network = self._search.network
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        carries = hasattr(network, "carried")  # hidden states, of several purposes
        options, carried = ({"purpose": "evaluation"}, network.carried("evaluation")) if carries else ({}, [])
        with keras.StatelessScope(collect_losses=True) as scope:
            outputs = network(x, training=True, mixture=mixture, **options)
            loss = self._search.compute_loss(x, y, outputs, sample_weight, training=True) * replicas.count()
            after = [scope.get_current_value(variable) for variable in carried]
        for variable, value in zip(carried, after, strict=True):
            variable.assign(value)
        labels, size = y, tf.reduce_prod(tf.shape(outputs)[:-1])
        if self._criterion == "loss":
            return loss, tf.zeros([], tf.int32), size
        if y.shape.rank == outputs.shape.rank and y.shape[-1] != 1:
            labels = tf.argmax(y, -1)
        right = tf.equal(tf.reshape(tf.argmax(outputs, -1), [-1]), tf.reshape(tf.cast(labels, tf.int64), [-1]))
        return loss, tf.reduce_sum(tf.cast(right, tf.int32)), size

    def __call__(self, mixture):
        """Goes through the batches, with batch norms that take their statistics of the batch; changes nothing.

        A recurrent network goes through the text with its hidden states for evaluation.

        Args:
            mixture: {table: array (rows, candidates)}.

        Returns:
            The mean loss of the samples, tokens where they are text, how many are right (0 where the criterion is the
            loss), and how many there are.
        """
        mixture = {name: tf.convert_to_tensor(weights) for name, weights in mixture.items()}
        total, right, samples = 0.0, 0, 0
        for batch in self._batches:
            loss, correct, size = (part.numpy() for part in self._step(batch, mixture))
            total, right, samples = total + float(loss) * int(size), right + int(correct), samples + int(size)
        return total / samples, right, samples

    def score(self, mixture):
        """The criterion as a number that is larger for better networks."""
        loss, correct, _ = self(mixture)
        return -loss if self._criterion == "loss" else correct


def project(search, batches, tune=None, criterion="accuracy", seed=0, decisions=(), possible=None, progress=None):
    """Decides by perturbation what the architecture of a search is.

        projection = project(search, validation_batches, tune=train_some_epochs)
        architecture = search.network.space.decide(projection.strengths())

    Args:
        search: a compiled `DARTS` whose network is a `darts_tf.spaces.models.Supernet`; its alphas stay as they are.
        batches, criterion: see `Evaluation`.
        tune: function of the `Projection`, called between two rounds of decisions: trains the weights for some epochs,
            with the mixture of `Projected`.
        seed: of the orders, see `Projection`.
        decisions: of a projection that was interrupted, see there.
        possible: see `Projection`.
        progress: function (projection, decisions made), called after each round, before `tune`.

    Returns:
        `Projection`, done.
    """
    network = search.network
    projection = Projection(network.space.choices, network.candidates, seed, decisions=decisions, possible=possible)
    evaluation = Evaluation(search, batches, criterion)
    weights = {name: tensor.numpy() for name, tensor in network.mixture().items()}
    while not projection.done:
        made = projection.decide(lambda *without: evaluation.score(projection.mixture(weights, without)))
        if progress:
            progress(projection, made)
        if tune and not projection.done:
            tune(projection)
    return projection
