"""Language models of recurrent cells: the supernet, the network of a genotype, and one step of it as a plain model."""

import re

import keras
import numpy as np
import tensorflow as tf

from darts_tf.devices import replicas
from darts_tf.ops import highway, kernels
from darts_tf.private.keras import forget_losses
from darts_tf.spaces.cells.cell import rows_from
from darts_tf.spaces.models import Supernet
from darts_tf.spaces.recurrent import cell, genotypes
from darts_tf.spaces.recurrent.cell import Dropout, Weights
from darts_tf.spaces.recurrent.space import RecurrentSpace

RANGE = 0.04  # weights begin between minus and plus this
MORE_ROWS = 10  # an evaluation has up to 9 rows more than there are devices
PASSES = ("weights", "ahead", "alpha", "evaluation")


class LanguageModel(keras.Model):
    """What both networks have: weights, hidden states that go on from batch to batch, dropout, penalties.

    Inputs are {"tokens": int (batch, steps), "begins": bool (batch,)}. Row r of a batch goes on where row r of the
    batch before has ended, but for rows that begin, whose hidden state is zero. Each of `PASSES` that has text of its
    own has a hidden state of its own: the training of the weights, that of alpha, evaluation. Under a distribution
    strategy each replica has the states of its part of the batch.

    A subclass has `_run(tokens, state, training, drop, ...)`, which returns `cell.States`.

    Args:
        vocabulary: number of tokens.
        units: of the hidden state, and of embeddings.
        batch_size: the most rows in a batch of all replicas.
        nodes: of the cell, besides node 0.
        dropout: `Dropout`, or its rates.
        penalties: what the loss of the weights has in addition: of the size of the states that are decoded, and of
            their changes from step to step (Merity et al., 2017), multiples of the mean square.
    """

    def _set_up(self, vocabulary, units, batch_size, nodes, dropout, penalties):
        for name, value in (("vocabulary", vocabulary), ("units", units), ("batch_size", batch_size)):
            if value != int(value) or value < 1:
                raise ValueError(f"{name}={value}: expected at least 1.")
        self.vocabulary, self.units, self.batch_size, self.num_nodes = vocabulary, units, batch_size, nodes
        self.dropout, self.penalties = Dropout(*dropout), tuple(penalties)
        for name, rate in self.dropout._asdict().items():
            if not 0 <= rate < 1:
                raise ValueError(f"dropout of {name}: {rate}; expected a number from 0, below 1.")
        self.has_noise = any(self.dropout)

    def _add_weights(self):
        vocabulary, units = self.vocabulary, self.units

        def add(name, *shape, start=RANGE):
            start = keras.initializers.RandomUniform(-start, start) if start else "zeros"
            return self.add_weight(shape=shape, initializer=start, name=name, autocast=False)

        self.embedding = add("embedding", vocabulary, units)
        self.first = add("first", 2 * units, 2 * units)
        self.node_weights = [add(f"node{node}", units, 2 * units) for node in range(1, self.num_nodes + 1)]
        self.bias = add("bias", vocabulary, start=0)
        self._add_states(units)

    def _add_states(self, width):
        self.hidden = {
            name: self.add_weight(
                shape=(self.batch_size + MORE_ROWS, width),
                initializer="zeros",
                trainable=False,
                autocast=False,
                aggregation="only_first_replica",
                name=f"hidden_{name}",
            )
            for name in PASSES
            if name != "ahead"
        }

    def carried(self, purpose):
        """The variables that a pass changes for the next one of its kind, a list; `purpose` is one of `PASSES`."""
        return [] if purpose == "ahead" else [self.hidden[purpose]]

    def _weights(self, dtype):
        def cast(variable):
            tensor = tf.cast(tf.convert_to_tensor(variable), dtype)
            return tf.stop_gradient(tensor) if kernels.is_frozen(variable) else tensor

        return Weights(*map(cast, (self.embedding, self.first)), [*map(cast, self.node_weights)], cast(self.bias))

    def _pass(self, inputs, training, purpose, draw, exact, **options):
        """Logits of a segment, whose hidden states are kept."""
        purpose = purpose or ("weights" if training else "evaluation")
        tokens, variable = inputs["tokens"], self.hidden["weights" if purpose == "ahead" else purpose]
        dtype = self.variable_dtype if exact else self.compute_dtype
        batch = tf.shape(tokens)[0]
        kept = tf.convert_to_tensor(variable)
        own = kept[_replica() : batch * replicas.count() : replicas.count()]  # as `replicas.split` parts batches
        state = tf.where(inputs["begins"][:, None], tf.zeros([], kept.dtype), own)
        state = tf.ensure_shape(tf.cast(state, dtype), [tokens.shape[0], kept.shape[1]])
        drop = self._dropping(draw) if training and draw is not None else None
        states = self._run(tokens, state, self._weights(dtype), training, drop, **options)
        if purpose != "ahead":
            last = tf.cast(tf.stop_gradient(states.hidden[-1]), kept.dtype)
            last = tf.reshape(tf.transpose(replicas.gather(last), [1, 0, 2]), [-1, kept.shape[1]])
            variable.assign(tf.concat([last, kept[tf.shape(last)[0] :]], 0))
        if training and purpose == "weights":
            self._penalize(states)
        return tf.cast(states.logits, self.variable_dtype)

    def _penalize(self, states):
        """Activation regularisation, and temporal activation regularisation."""
        forget_losses(self)  # of another replica, which has come here since this one has begun
        size, change = self.penalties
        if size:
            self.add_loss(size * tf.reduce_mean(tf.square(tf.cast(states.dropped, self.variable_dtype))))
        if change:
            hidden = tf.cast(states.hidden, self.variable_dtype)
            changes = hidden[1:] - hidden[:-1]
            number = tf.maximum(tf.size(changes), 1)  # none in a segment of one step
            self.add_loss(change * tf.reduce_sum(tf.square(changes)) / tf.cast(number, changes.dtype))

    def _dropping(self, draw):
        """Function of a rate's name and a shape -> the mask, None where nothing is dropped."""

        def drop(name, shape):
            rate = getattr(self.dropout, name)
            if not rate:
                return None
            seed = tf.random.experimental.stateless_fold_in(draw, Dropout._fields.index(name))
            keeps = tf.random.stateless_uniform(shape, seed) >= rate
            return tf.cast(keeps, self.variable_dtype) / (1 - rate)

        return drop

    @property
    def output(self):
        """What `call` gives, without numbers."""
        return keras.KerasTensor((None, None, self.vocabulary), self.variable_dtype)

    def compute_output_shape(self, input_shape):
        return *input_shape["tokens"], self.vocabulary

    def compute_output_spec(self, inputs, **options):
        return keras.KerasTensor((*inputs["tokens"].shape, self.vocabulary), self.variable_dtype)

    def _sizes(self):
        return {
            "vocabulary": self.vocabulary,
            "units": self.units,
            "batch_size": self.batch_size,
            "dropout": list(self.dropout),
            "penalties": list(self.penalties),
        }


def _replica():
    """The place of this replica among all."""
    context = tf.distribute.get_replica_context()
    return 0 if context is None or replicas.count() == 1 else context.replica_id_in_sync_group


@keras.saving.register_keras_serializable("darts_tf")
class RecurrentSearchNetwork(LanguageModel, Supernet):
    """The supernet of recurrent cells: every node mixes all activations of all nodes before it (equation 2).

    Nodes are normalised, by one batch norm that does not learn (section 3.1.2 of the paper).

    Args:
        vocabulary, units, batch_size, dropout, penalties: see `LanguageModel`.
        space: `RecurrentSpace`, or what its fields say.
        relaxation, candidates, edge_normalization: see `Supernet`.

    Call arguments:
        inputs, see `LanguageModel`.
        mixture: {"recurrent": (edges, activations)}, in place of the weights that alphas give.
        draw: seed of dropout in training, int32 (2,); None for none.
        purpose: which of `PASSES` it is; by default that of the weights in training, else evaluation.
        exact: whether to compute in the type of the variables, whatever the dtype policy is.

    Returns:
        Logits (batch, steps, vocabulary), of the type of the variables.
    """

    def __init__(
        self,
        vocabulary=10_000,
        units=300,
        batch_size=256,
        dropout=(0.75, 0.25, 0.75, 0.2, 0.0),
        penalties=(0.0, 1e-3),
        space=None,
        relaxation="softmax",
        candidates=None,
        edge_normalization=False,
        **kwargs,
    ):
        space = RecurrentSpace(**(space or {})) if space is None or isinstance(space, dict) else space
        Supernet.__init__(self, space, vocabulary, relaxation, candidates, edge_normalization, autocast=False, **kwargs)
        self._set_up(vocabulary, units, batch_size, space.nodes, dropout, penalties)
        self._readers = cell.readers(space.edges, space.nodes)

    def build(self, input_shape=None):
        self._add_weights()
        self.moving = [
            self.add_weight(
                shape=(self.units,), initializer=start, trainable=False, autocast=False, name=f"moving_{name}"
            )
            for name, start in (("mean", "zeros"), ("variance", "ones"))
        ]
        self.add_alphas()
        self.built = True

    def parts(self):
        return [("network", (self, None))]

    def call(self, inputs, training=False, mixture=None, draw=None, purpose=None, exact=False):
        mixture = self.mixture() if mixture is None else mixture
        # Whether nobody wants alpha's gradient.
        frozen = purpose == "weights" or all(kernels.is_frozen(variable) for variable in self.arch_variables)
        more = {"mixture": mixture, "frozen": frozen, "keeps": purpose in ("weights", None)}
        return self._pass(inputs, training, purpose, draw, exact, **more)

    def _run(self, tokens, state, weights, training, drop, mixture, frozen, keeps):
        space, dtype = self.space, state.dtype
        chosen = [place for place, name in enumerate(space.primitives) if name != "none"]
        functions = [highway.activation(space.primitives[place]) for place in chosen]
        table = mixture["recurrent"]
        shares = self.edge_weights()
        if shares is not None:
            table *= shares["recurrent"][:, None]
        # Of each node's readers: what the activations count.
        rows = (rows_from(node, space.edges) for node in range(space.nodes))
        parameters = [tf.cast(tf.gather(tf.gather(table, own), chosen, axis=1), dtype) for own in rows]
        if frozen:
            parameters = [tf.stop_gradient(parameter) for parameter in parameters]

        def edges(place, node, products, parameters):
            return highway.mixture(node, products, parameters[place], functions)

        moving = [tf.convert_to_tensor(variable) for variable in self.moving]

        def normalize(node, statistics):
            exact = tf.cast(node, self.variable_dtype)
            if not training:
                mean, variance = moving
            else:
                mean = tf.reduce_mean(exact, 0)
                variance = tf.reduce_mean(tf.square(exact - mean), 0)
                if statistics:
                    now = (tf.stop_gradient(mean), tf.stop_gradient(variance))
                    statistics = [
                        old + (1 - kernels.MOMENTUM) * (new - old) for old, new in zip(statistics, now, strict=True)
                    ]
            node = (exact - mean) * tf.math.rsqrt(variance + kernels.EPSILON)
            return tf.cast(node, dtype), statistics

        statistics = moving if training and keeps else ()
        concat = range(1, space.nodes + 1)
        states = cell.run(tokens, state, weights, self._readers, concat, edges, normalize, parameters, statistics, drop)
        for variable, value in zip(self.moving, states.statistics if statistics else (), strict=False):
            variable.assign(value)
        return states

    def get_config(self):
        space = {"nodes": self.space.nodes, "primitives": list(self.space.primitives)}
        return {
            **keras.Model.get_config(self),
            **self._sizes(),
            "space": space,
            "relaxation": self.relaxation.name,
            "candidates": {name: mask.tolist() for name, mask in self.candidates.items()},
            "edge_normalization": self.edge_normalization,
        }


@keras.saving.register_keras_serializable("darts_tf")
class RecurrentNetwork(LanguageModel):
    """The language model of a genotype, as it is trained (appendix of the paper).

    Args:
        genotype: `RecurrentGenotype`, or what its fields say.
        vocabulary, units, batch_size, dropout, penalties: see `LanguageModel`.

    Call arguments and result are those of `RecurrentSearchNetwork`, without a mixture. Without `draw` each step in
    training draws anew.
    """

    from_logits = True

    def __init__(
        self,
        genotype,
        vocabulary=10_000,
        units=850,
        batch_size=64,
        dropout=(0.75, 0.25, 0.75, 0.2, 0.1),
        penalties=(0.0, 1e-3),
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        self.genotype = genotypes.from_fields(genotype) if isinstance(genotype, dict) else genotype
        self._functions = [highway.activation(name) for name, _ in self.genotype.recurrent]
        nodes = len(self.genotype.recurrent)
        self._set_up(vocabulary, units, batch_size, nodes, dropout, penalties)
        edges = [(node, source) for node, (_, source) in enumerate(self.genotype.recurrent, 1)]
        self._readers = cell.readers(edges, nodes)
        self.seed_generator = keras.random.SeedGenerator()

    def build(self, input_shape=None):
        self._add_weights()
        self.built = True

    def call(self, inputs, training=False, draw=None, purpose=None, exact=False):
        if training and draw is None and self.has_noise:
            draw = tf.bitcast(tf.cast(self.seed_generator.next(), tf.uint32), tf.int32)
        return self._pass(inputs, training, purpose, draw, exact)

    def _run(self, tokens, state, weights, training, drop):
        def edges(place, node, products, parameters):
            gates, candidates = (tf.unstack(part, len(self._readers[place]), 1) for part in tf.unstack(products, 2, 1))
            values = [
                self._functions[reader - 1](one) for reader, one in zip(self._readers[place], candidates, strict=True)
            ]
            return tf.stack([highway.gated(node, *parts) for parts in zip(gates, values, strict=True)])

        return cell.run(tokens, state, weights, self._readers, self.genotype.concat, edges, drop=drop)

    def get_config(self):
        return {**keras.Model.get_config(self), **self._sizes(), "genotype": dict(self.genotype.items())}

    def inference_model(self):
        """One step of it as a plain Keras model, see `step_model`, with copies of its weights."""
        model = step_model(self.genotype, self.vocabulary, self.units)
        copy_weights(self, model)
        return model


def step_model(genotype, vocabulary, units):
    """One step of the language model of a genotype, of standard Keras layers.

        model = step_model(PUBLISHED["DARTS_V2"], 10_000, 850)
        outputs = model([tokens, state])

    Args:
        genotype: `RecurrentGenotype`.
        vocabulary: number of tokens.
        units: of the hidden state.

    Returns:
        Functional `keras.Model` from [tokens int32 (batch,), state (batch, units)] to {"logits": (batch, vocabulary),
        "state": (batch, units)}, the next state.
    """
    layers, exact = keras.layers, keras.config.dtype_policy().variable_dtype
    tokens = keras.Input((), dtype="int32", name="tokens")
    state = keras.Input((units,), dtype=exact, name="state")

    def dense(name, activation=None):
        return layers.Dense(units, activation, use_bias=False, dtype=exact, name=name)

    def highway(before, gate, value, name):
        change = layers.Subtract(dtype=exact, name=f"{name}_change")([value, before])
        change = layers.Multiply(dtype=exact, name=f"{name}_gated")([gate, change])
        return layers.Add(dtype=exact, name=name)([before, change])

    words = layers.ReversibleEmbedding(vocabulary, units, dtype=exact, name="embedding")
    both = layers.Concatenate(dtype=exact, name="input_and_state")([words(tokens), state])
    nodes = [highway(state, dense("node0_gate", "sigmoid")(both), dense("node0_tanh", "tanh")(both), "node0")]
    for node, (name, source) in enumerate(genotype.recurrent, 1):
        before = nodes[source]
        value = dense(f"node{node}_{name}_of_{source}", None if name == "identity" else name)(before)
        gate = dense(f"node{node}_gate", "sigmoid")(before)
        nodes.append(highway(before, gate, value, f"node{node}"))
    averaged, name = [nodes[node] for node in genotype.concat], f"mean_of_{'_'.join(map(str, genotype.concat))}"
    mean = layers.Average if len(averaged) > 1 else layers.Identity
    new = mean(dtype=exact, name=name)(averaged if len(averaged) > 1 else averaged[0])
    nothing = layers.Subtract(dtype="int32", name="nothing")([tokens, tokens])
    bias = layers.Embedding(1, vocabulary, dtype=exact, name="bias")(nothing)
    logits = layers.Add(dtype=exact, name="logits")([words(new, reverse=True), bias])
    outputs = {"logits": logits, "state": new}
    return keras.Model([tokens, state], outputs, name="language_model")


def _matrices(genotype):
    """[(names of the layers of the gate and of the candidate)] of node 0, 1, ... of a `step_model`."""
    nodes = enumerate(genotype.recurrent, 1)
    return [
        ("node0_gate", "node0_tanh"),
        *((f"node{n}_gate", f"node{n}_{name}_of_{source}") for n, (name, source) in nodes),
    ]


def copy_weights(network, model):
    """Gives a `step_model` the weights of a `RecurrentNetwork`."""
    variables = [network.first, *network.node_weights]
    for variable, names in zip(variables, _matrices(network.genotype), strict=True):
        for name, kernel in zip(names, np.split(keras.ops.convert_to_numpy(variable), 2, 1), strict=True):
            model.get_layer(name).kernel.assign(kernel)
    model.get_layer("embedding").embeddings.assign(network.embedding)
    model.get_layer("bias").embeddings.assign(keras.ops.convert_to_numpy(network.bias)[None])


def take_weights(network, model):
    """Gives a `RecurrentNetwork`, which is built, the weights of a `step_model` of its genotype."""
    variables = [network.first, *network.node_weights]
    for variable, names in zip(variables, _matrices(network.genotype), strict=True):
        variable.assign(np.concatenate([keras.ops.convert_to_numpy(model.get_layer(name).kernel) for name in names], 1))
    network.embedding.assign(model.get_layer("embedding").embeddings)
    network.bias.assign(keras.ops.convert_to_numpy(model.get_layer("bias").embeddings)[0])


def genotype_of(model):
    """The genotype of a `step_model`, from the names of its layers.

    Raises:
        ValueError: it is no such model.
    """
    names = [layer.name for layer in model.layers]
    found = [re.fullmatch(r"node([1-9]\d*)_(\w+)_of_(\d+)", name) for name in names]
    nodes = {int(match[1]): (match[2], int(match[3])) for match in found if match}
    means = [name.removeprefix("mean_of_") for name in names if name.startswith("mean_of_")]
    try:
        concat = [int(node) for node in means[0].split("_")] if means else []
        genotype = genotypes.from_fields({"recurrent": [nodes[n] for n in range(1, len(nodes) + 1)], "concat": concat})
        genotypes.check(genotype, {name for name, _ in genotype.recurrent})
    except (KeyError, ValueError):
        raise ValueError("expected a language model that darts_tf.train has saved.") from None
    return genotype
