"""Trains language models of recurrent cells, and an LSTM of as many parameters, on a text, all in the same way.

    python -m benchmarks.language_models --text=jargon.txt

Each seed searches a cell, and trains the networks of it, of DARTS_V2, of ENAS and of a random cell of the space, all of
the same sizes, and a `keras.layers.LSTM` whose embedding, tied to its decoder, is as wide as its state; that width is
the one with which it has as many parameters. The recipe is that of `darts_tf.train --recipe=small`, weight averaging
and the choice of the best epoch included. The published cells were found on Penn Treebank.

Prints a JSON line for each: perplexity of the test and the validation split, parameters, seconds of its epochs. Then a
line per model with the mean, standard deviation and worst of its seeds. The text is split by position.

What has a result in --output is not computed again; a search or training that was interrupted goes on.
"""

import json
import math
import random
import statistics
import sys

from benchmarks import searches

SIZES = {"epochs": 12, "units": 64, "batch_size": 32, "vocabulary": 2000, "search_epochs": 6, "search_units": 64}
MODELS = ("searched", "DARTS_V2", "ENAS", "random", "lstm")


def main(arguments=None):
    parser = searches.options("language_models", __doc__, methods=MODELS, **SIZES)
    parser.add_argument("--text", required=True, help="--dataset of searches and trainings: a text file, or a folder")
    options = parser.parse_args(arguments)
    sizes = {name: getattr(options, name) for name in SIZES}
    results, found = searches.Results(options.output, {"text": options.text, **sizes}), {}
    for seed in range(1, options.seeds + 1):
        for model in options.methods:

            def compute(folder, model=model, seed=seed):
                return trained(folder, model, seed, options)

            line = results.get(compute, model=model, seed=seed)
            found.setdefault(model, []).extend([line] if line else [])
    for line in summaries(found):
        print(json.dumps(line), flush=True)


def trained(folder, model, seed, options):
    """The result of a model, a dict."""
    flags = {"dataset": options.text, "vocabulary": options.vocabulary, "seed": seed}
    more = {}
    if model == "searched":
        sizes = {"units": options.search_units, "epochs": options.search_epochs, "batch_size": options.batch_size}
        sizes |= {"learning_rate": 5.0, "dropout": 0.2, "dropoutx": 0.2}  # as for `topics`
        place = folder.with_name(f"{folder.name}-search")
        search, more["search_seconds"] = searches.search(place, space="recurrent", **flags, **sizes)
        cell = str(search.genotype)
    elif model == "random":
        cell = str(random_cell(random.Random(seed)))
    else:
        cell = "DARTS_V2" if model == "lstm" else model
    flags |= {"units": options.units, "epochs": options.epochs, "batch_size": options.batch_size}
    if model == "lstm":
        run, seconds = train_lstm(folder, **flags)
        cell = None
    else:
        run, seconds = searches.train(folder, arch=cell, space="recurrent", **flags)
    kept = ("perplexity", "validation_perplexity", "parameters")
    return {name: run.results[name] for name in kept} | more | {"seconds": seconds, "genotype": cell}


def random_cell(generator):
    """A cell of the space, each with the same probability."""
    from darts_tf.spaces import RecurrentSpace

    space = RecurrentSpace()
    picks = [
        (generator.choice(rows), space.primitives.index(generator.choice(space.activations)))
        for rows, _ in space.choices["recurrent"].groups
    ]
    return space.decode({"recurrent": picks})


def train_lstm(folder, **flags):
    """As `searches.train`, of an LSTM in place of the cell."""
    from darts_tf import train

    derived = train.derived
    train.derived = lstm
    try:
        return searches.train(folder, arch="DARTS_V2", space="recurrent", **flags)
    finally:
        train.derived = derived


def lstm(architecture, task, config):
    """An LSTM with as many parameters as the network of a cell of eight nodes has."""
    import keras
    import tensorflow as tf

    from darts_tf.spaces.recurrent.cell import States
    from darts_tf.spaces.recurrent.networks import LanguageModel

    vocabulary, wanted = task.outputs, task.outputs * config.units + 20 * config.units**2
    # vocabulary * u + 8 u ** 2 + 4 u parameters without those of the decoder's bias
    linear = vocabulary + 4
    units = round((-linear + math.sqrt(linear**2 + 32 * wanted)) / 16)

    class LSTM(LanguageModel):
        from_logits = True

        def build(self, input_shape=None):
            self._add_weights()
            self.lstm = keras.layers.LSTM(units, return_sequences=True, return_state=True)
            self.lstm.build((None, None, units))
            self.seed_generator = keras.random.SeedGenerator()
            self.built = True

        def _add_weights(self):
            start = keras.initializers.RandomUniform(-0.04, 0.04)
            self.embedding = self.add_weight(shape=(vocabulary, units), initializer=start, name="embedding")
            self.bias = self.add_weight(shape=(vocabulary,), initializer="zeros", name="bias")
            self._add_states(2 * units)

        def call(self, inputs, training=False):
            draw = tf.bitcast(tf.cast(self.seed_generator.next(), tf.uint32), tf.int32) if training else None
            return self._pass(inputs, training, None, draw, False)

        def _weights(self, dtype):
            return None

        def _run(self, tokens, state, weights, training, drop):
            batch = tf.shape(tokens)[0]

            def dropped(name, x):
                mask = drop and drop(name, [batch, 1, units])
                return x if mask is None else x * mask

            x = dropped("inputs", dropped("embedded", tf.gather(tf.convert_to_tensor(self.embedding), tokens)))
            y, *last = self.lstm(x, initial_state=tf.split(state, 2, 1))
            y = dropped("output", y)
            logits = tf.tensordot(y, tf.transpose(self.embedding), 1) + self.bias
            return States(logits, tf.concat(last, 1)[None], y, [])

        def inference_model(self):
            return step_of_lstm(self, vocabulary, units)

    dropout = config.dropout, config.dropouth, config.dropoutx, config.dropouti, config.dropoute
    network = LSTM()
    network._set_up(vocabulary, units, config.batch_size, 1, dropout, (0.0, 0.0))
    return network


def step_of_lstm(network, vocabulary, units):
    """One step of the LSTM as `darts_tf.data.language` measures it."""
    import keras

    layers = keras.layers
    tokens, state = keras.Input((), dtype="int32", name="tokens"), keras.Input((2 * units,), name="state")
    words, cell = layers.ReversibleEmbedding(vocabulary, units), layers.LSTM(units, return_state=True)
    x = layers.Reshape((1, units))(words(tokens))
    y, h, c = cell(x, initial_state=[state[:, :units], state[:, units:]])
    bias = layers.Embedding(1, vocabulary)
    logits = layers.Add()([words(y, reverse=True), bias(layers.Subtract(dtype="int32")([tokens, tokens]))])
    outputs = {"logits": logits, "state": layers.Concatenate()([h, c])}
    model = keras.Model([tokens, state], outputs)
    cell.set_weights(network.lstm.get_weights())
    words.set_weights([network.embedding])
    bias.set_weights([keras.ops.convert_to_numpy(network.bias)[None]])
    return model


def summaries(found):
    """A line for each model."""
    for model, lines in found.items():
        if lines:
            perplexities = [line["perplexity"] for line in lines]
            yield {
                "model": model,
                **searches.statistics_of("perplexity", perplexities, 2),
                "worst": round(max(perplexities), 2),
                "parameters": lines[0]["parameters"],
                "seconds": round(statistics.mean(line["seconds"] for line in lines), 1),
                "seeds": len(lines),
            }


if __name__ == "__main__":
    sys.exit(main())
