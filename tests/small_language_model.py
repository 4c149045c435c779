"""One step of a small language model, as a training leaves it: plain Keras layers."""

import keras

WORDS = ["<eos>", "the", "cat", "sat", "<unk>", "on", "a", "mat", "größer", "日本", ",", "it's", *"bcdefghi"]
CHARACTERS = [*"abcdefghij ,'é日😀\u00a0", "<unk>", "\t", "<eos>"]


def step_of(vocabulary, units=8, policy="float32"):
    """A recurrent cell of 3 nodes with tied embeddings, untrained.

    Args:
        vocabulary: how many tokens there are.
        units: size of the state.
        policy: dtype policy of the layers.
    """
    tokens, state = keras.Input((), dtype="int32", name="tokens"), keras.Input((units,), name="state")
    normal = keras.initializers.RandomNormal(stddev=1.0)
    embedding = keras.layers.ReversibleEmbedding(vocabulary, units, embeddings_initializer=normal, dtype=policy)

    def highway(inputs, before):
        weights = keras.layers.Dense(2 * units, use_bias=False, kernel_initializer=normal, dtype=policy)
        gate, value = keras.ops.split(weights(inputs), 2, axis=1)
        return before + keras.ops.sigmoid(gate) * (keras.ops.tanh(value) - before)

    nodes = [highway(keras.layers.Concatenate(dtype=policy)([embedding(tokens), state]), state)]
    for _ in range(2):
        nodes.append(highway(nodes[-1], nodes[-1]))
    after = keras.layers.Average(dtype="float32")(nodes)
    bias = keras.layers.Embedding(1, vocabulary, embeddings_initializer=normal)(keras.ops.zeros_like(tokens))
    return keras.Model([tokens, state], {"logits": embedding(after, reverse=True) + bias, "state": after})
