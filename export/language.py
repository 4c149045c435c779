"""A Keras language model that is to be exported: one step of it, from a token to the next ones."""

import dataclasses
import functools

import keras
import numpy as np
import tensorflow as tf

from darts_tf.data.text import END, TOKENS, UNKNOWN
from darts_tf.private.tensorflow import without_variables
from export import labels, models, tokenization
from export.models import ModelError

SIGNATURE = "serving_text"
EXPECTED = (
    "expected the step of a language model, tokens (n,) int32 and state (n, units) float32 to logits (n, vocabulary) "
    "and state (n, units)"
)


@dataclasses.dataclass
class LanguageModel(models.Exported):
    """A language model.

    model: Keras model of one step, from tokens (batch,) int32 and state (batch, units), in this order, to a dict of
        "logits" (batch, vocabulary), those of the next token, and "state" (batch, units). The state at the beginning is
        zero, the token before the first one `<eos>`.
    vocabulary: the tokens in the order of their numbers, texts; `<unk>`, in place of those that it lacks, and `<eos>`,
        which ends a line, are among them.
    tokens: what they are, "words" or "characters", see `tokenization`.
    """

    model: keras.Model
    vocabulary: list
    tokens: str = "words"

    asset = "vocabulary.txt"

    @property
    def names(self):
        return self.vocabulary

    @property
    def units(self):
        """The size of the state."""
        return self.model.inputs[1].shape[1]

    @functools.cached_property
    def numbers(self):
        """{token: its number}."""
        return {token: number for number, token in enumerate(self.vocabulary)}

    def encode(self, text):
        """The numbers of a text's tokens, a list; `<eos>` is not among them."""
        unknown = self.numbers[UNKNOWN]
        return [self.numbers.get(token, unknown) for token in tokenization.split(text, self.tokens)]

    def join(self, numbers):
        """The text of some tokens."""
        return (" " if self.tokens == "words" else "").join(self.vocabulary[number] for number in numbers)

    def step(self, tokens, state):
        """One step by Keras, of arrays.

        Args:
            tokens: (batch,) int32.
            state: (batch, units) float32.

        Returns:
            log_probabilities (batch, vocabulary) of the next token and the next state (batch, units), float32.
        """
        y = self.model.predict_on_batch([tokens, state])
        return tf.nn.log_softmax(y["logits"]).numpy(), y["state"]

    def graph(self, model=None):
        """The model without variables.

        Args:
            model: compute this model instead, of the same inputs and outputs.

        Returns:
            `tf.ConcreteFunction` of `tokens` (batch,) int32 and `state` (batch, units) float32 to a list of the natural
            logarithms of the next token's probabilities, (batch, vocabulary) float32, and the next state.
        """
        model = model or self.model

        def step(tokens, state):
            y = model([tokens, state], training=False)
            return [tf.nn.log_softmax(tf.cast(y["logits"], tf.float32)), tf.cast(y["state"], tf.float32)]

        return without_variables(tf.function(step, autograph=False).get_concrete_function(*self._inputs()))

    def _inputs(self):
        return [tf.TensorSpec([None], tf.int32, "tokens"), tf.TensorSpec([None, self.units], tf.float32, "state")]

    def converted(self, model):
        graph = self.graph(model)

        def step(tokens, state):
            return dict(zip(("log_probabilities", "state"), graph(tokens, state), strict=True))

        return tf.function(step, self._inputs(), autograph=False).get_concrete_function()

    def served(self, top_k=5):
        """`models.Served`, of signatures of any batch size.

        serving_default, one step: `tokens` (batch,) int32 and `state` (batch, units) float32 to `log_probabilities`
            (batch, vocabulary) float32, natural logarithms, of the next token and the next `state`. Numbers that no
            token has stand for `<unk>`.
        serving_text: `text` (batch,) strings in UTF-8 to
            `log_likelihood` (batch,) float32, the sum over the text's tokens of the natural logarithm of each one's
            probability after those before it, the first after `<eos>`; 0 for an empty text;
            `tokens` (batch,) int32, how many there are;
            `next` (batch, top_k) strings and `next_probabilities` (batch, top_k) float32, the tokens that are the
            likeliest to follow, the likeliest first.

        Args:
            top_k: number of tokens that serving_text returns.
        """
        module = tf.Module()
        module.step = self.graph()
        names, count = tf.constant(self.vocabulary), len(self.vocabulary)
        unknown, end = self.numbers[UNKNOWN], self.numbers[END]
        table = tf.lookup.KeyValueTensorInitializer(names, tf.range(count, dtype=tf.int64))
        module.numbers = tf.lookup.StaticHashTable(table, unknown)
        top_k = min(top_k, count)

        def serving_default(tokens, state):
            known = (tokens >= 0) & (tokens < count)
            log_probabilities, state = module.step(tf.where(known, tokens, unknown), state)
            return {"log_probabilities": log_probabilities, "state": state}

        def serving_text(text):
            found = module.numbers.lookup(tokenization.split_in_graph(text, self.tokens))
            lengths = tf.cast(found.row_lengths(), tf.int32)
            tokens = tf.cast(found.to_tensor(unknown), tf.int32)
            batch, longest = tf.unstack(tf.shape(tokens))
            given = tf.pad(tokens, [[0, 0], [1, 0]], constant_values=end)  # (batch, longest + 1)
            following = tf.pad(tokens, [[0, 0], [0, 1]])

            def step(place, state, likelihood, last):
                log_probabilities, state = module.step(given[:, place], state)
                of_next = tf.gather(log_probabilities, following[:, place], batch_dims=1)
                likelihood += tf.where(place < lengths, tf.cast(of_next, tf.float64), 0.0)
                return place + 1, state, likelihood, tf.where((place == lengths)[:, None], log_probabilities, last)

            start = 0, tf.zeros([batch, self.units]), tf.zeros([batch], tf.float64), tf.zeros([batch, count])
            *_, likelihood, last = tf.while_loop(lambda place, *_: place <= longest, step, start)
            best = tf.math.top_k(last, top_k)
            return {
                "log_likelihood": tf.cast(likelihood, tf.float32),
                "tokens": lengths,
                "next": tf.gather(names, best.indices),
                "next_probabilities": tf.exp(best.values),
            }

        text = tf.TensorSpec([None], tf.string, "text")
        signatures = {
            "serving_default": tf.function(serving_default, self._inputs(), autograph=False),
            SIGNATURE: tf.function(serving_text, [text], autograph=False),
        }
        requests = {
            "serving_default": {"tokens": np.array([end], np.int32), "state": np.zeros((1, self.units), np.float32)},
            SIGNATURE: {"text": np.array([self.vocabulary[0].encode()])},
        }
        return models.Served(module, signatures, requests)


def ask(version, text):
    """The likeliest next token, and its probability, that a SavedModel gives a text."""
    model = tf.saved_model.load(str(version))
    answer = model.signatures[SIGNATURE](text=tf.constant([text]))
    return answer["next"][0, 0].numpy().decode(), float(answer["next_probabilities"][0, 0])


def is_one(model):
    """Whether a Keras model is meant as a language model: it has the input "tokens", of integers, or "state"."""
    try:
        named = any(tensor.name == "tokens" and "int" in tensor.dtype for tensor in model.inputs)
        return named or (isinstance(model.output, dict) and "state" in model.output)
    except (AttributeError, TypeError, ValueError):  # a model that does not know its inputs
        return False


def load(path, vocabulary=None, model=None):
    """Reads a language model.

    Args:
        path: a `.keras` file.
        vocabulary: the tokens; None takes those of the config.json that a training run leaves beside the model.
        model: what `models.read` has made of the file, if it has been read.

    Returns:
        `LanguageModel`.

    Raises:
        ModelError: the file cannot be read, needs layers that Keras does not have, is no language model, or its
            vocabulary is missing or does not fit.
    """
    model = _checked(model or models.read(path))
    models.check_size(model)
    said = labels.beside(path, "vocabulary")
    where = "--vocabulary" if vocabulary is not None else "the config.json beside it"
    vocabulary = said.get("vocabulary") if vocabulary is None else vocabulary
    count = model.output["logits"].shape[1]
    if vocabulary is None:
        raise ModelError("it has no config.json with a vocabulary beside it: expected --vocabulary, a token per line.")
    _check_vocabulary(vocabulary, count, where)
    kind = said.get("tokens")
    kind = kind if kind in TOKENS else tokenization.kind_of(vocabulary)
    model = models.in_float32(model)
    made = LanguageModel(model, list(vocabulary), kind)
    tokens = np.random.default_rng(0).integers(0, count, 4, np.int32)
    models.computed(lambda: made.step(tokens, np.zeros((4, made.units), np.float32)), "tokens")
    return made


def _checked(model):
    """A Keras model with its inputs in order, if it has the form of a language model."""
    try:
        inputs = {tensor.name: tensor for tensor in model.inputs}
        outputs = model.output if isinstance(model.output, dict) else dict(enumerate(model.outputs))
    except (AttributeError, TypeError, ValueError):
        raise ModelError(f"it is a {type(model).__name__} that does not know its inputs: {EXPECTED}.") from None
    given, result = (
        ", ".join(f"{name} {tensor.shape} {tensor.dtype}" for name, tensor in tensors.items())
        for tensors in (inputs, outputs)
    )
    wrong = ModelError(f"it maps {given} to {result}: {EXPECTED}.")
    if inputs.keys() != {"tokens", "state"} or outputs.keys() != {"logits", "state"}:
        raise wrong
    tokens, state, logits = inputs["tokens"], inputs["state"], outputs["logits"]
    shapes = [tensor.shape for tensor in (tokens, state, logits, outputs["state"])]
    if [len(shape) for shape in shapes] != [1, 2, 2, 2] or any(shape[0] is not None for shape in shapes):
        raise wrong
    if None in (state.shape[1], logits.shape[1]) or shapes[1] != shapes[3] or not tokens.dtype.startswith("int"):
        raise wrong
    return keras.Model([tokens, state], outputs)


def _check_vocabulary(vocabulary, count, where):
    if len(vocabulary) != count:
        raise ModelError(f"it has {count} outputs and there are {len(vocabulary)} tokens in {where}: expected as many.")
    try:
        for number, token in enumerate(vocabulary):
            labels.check(token, f"token {number} in {where}", token=True)
    except labels.LabelError as error:
        raise ModelError(f"{error}: expected --vocabulary, a token per line.") from None
    for token in (UNKNOWN, END):
        if token not in vocabulary:
            raise ModelError(f"there is no {token} in {where}: expected {UNKNOWN} and {END} among the tokens.")
    if len(set(vocabulary)) < count:
        twice = next(token for number, token in enumerate(vocabulary) if token in vocabulary[:number])
        raise ModelError(f"token {twice} is there twice in {where}: expected each once.")
