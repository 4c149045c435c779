"""Text: from a name, a file or a folder to numbers of tokens, and from those to batches of a stream."""

import array
import bisect
import codecs
import collections
import dataclasses
import functools
import itertools
import os
import pathlib
import re
import statistics

import numpy as np
import tensorflow as tf

from darts_tf.data import datasets
from darts_tf.data.folders import DataError
from darts_tf.data.images import check_memory
from darts_tf.data.tasks import LanguageModel
from darts_tf.devices.cluster import ALONE

UNKNOWN = "<unk>"  # the token in place of those that the vocabulary lacks
END = "<eos>"  # the token at the end of a line
TOKENS = ("words", "characters")
SUFFIXES = (".txt", ".tokens", ".raw")
SPLITS = ("train", "valid", "test")
VARY = ("none", "search", "train")
TOPICS = "topics"  # of `pydoc_data`
EXPECTED = f"{TOPICS}, a text file, a folder with train.txt, valid.txt and test.txt, or a name from tensorflow-datasets"
FILE = re.compile(r"(?P<before>(.*\.)?)(?P<split>train|valid|validation|val|test)\.(?P<suffix>txt|tokens|raw)", re.I)
NEEDED = 16  # bytes of memory for a byte of text, about
ROWS = 10  # to evaluate on, as in the original
LEAST = 3  # tokens in a row, so that there are two steps: penalties compare one with the next
SHORT = 0.05  # the part of segments that are half as long


@dataclasses.dataclass
class Text:
    """Text as numbers of tokens.

    A line of text is its words, or its characters, and then `<eos>`. Tokens that the vocabulary lacks are `<unk>`.

    train, valid, test: (n,) int32, indices into `vocabulary`.
    vocabulary: the tokens, list of texts, the most frequent ones first; `<unk>` and `<eos>` are among them.
    tokens: what a token is, "words" or "characters".

    Raises:
        DataError: a split has fewer than 3 tokens, or the vocabulary cannot be used.

    Example:
        data = text.load("topics", tokens="characters")
        batches, steps, valid = data.batches(batch_size=64)
        for x, y in batches().take(steps): ...
    """

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    vocabulary: list
    tokens: str = "words"

    def __post_init__(self):
        _check_tokens(self.tokens)
        _check_vocabulary(self.vocabulary)
        for split in SPLITS:
            count = len(getattr(self, split))
            if count < LEAST:
                raise DataError(f"{count} tokens in the {split} split: expected at least {LEAST}.")

    @property
    def task(self):
        """What is asked of this text, `darts_tf.data.tasks.LanguageModel`."""
        return LanguageModel((None,), len(self.vocabulary))

    def description(self):
        """What config.json keeps of the data, a dict."""
        return {"tokens": self.tokens, "vocabulary": self.vocabulary}

    def in_words(self):
        """The text in a few words."""
        return f"{len(self.train):,} {self.tokens}, {len(self.vocabulary):,} of them different"

    def segments(self, batch_size, bptt=35, vary="train", seed=0):
        """The training text as `Segments` in `batch_size` rows: those of `batches` and, if they vary as in a "search",
        of `search_batches`."""
        return self._segments("train", batch_size, bptt, vary, seed)

    def batches(self, batch_size, bptt=35, seed=0, worker=ALONE, devices=1):
        """Batches to train on, of segments that vary as for "train", see `Segments`.

        Args:
            batch_size: rows of a batch, a multiple of the number of workers.
            bptt: steps of a batch, on average: through so many gradients go back.
            seed: int.
            worker: `Worker`, whose share of the rows this is to be.
            devices: how many devices of all workers share the batches of `once`.

        Returns:
            Function of the number of batches that a run has seen already -> endless `tf.data.Dataset` of those that
            follow, see `Segments.batches`; the number of steps in an epoch; a `tf.data.Dataset` of the text for
            validation, see `once`.

        Raises:
            DataError: there are too few tokens for a batch.
        """
        segments = self.segments(batch_size, bptt, "train", seed)
        valid = once(self.valid, bptt=bptt, worker=worker, devices=devices)
        return functools.partial(segments.batches, worker=worker), segments.steps, valid

    def search_batches(self, batch_size, bptt=35, seed=0, worker=ALONE, devices=1):
        """Batches for a search: the training text for the weights, the validation text for alpha.

        The latter is another stream, in as many rows. Its segments are all `bptt` long, and it begins anew where it
        ends, whatever the other one does.

        Args:
            batch_size, bptt, seed, worker, devices: as in `batches`.

        Returns:
            As `batches`; the elements are pairs ((x, y), (x_valid, y_valid)), and segments vary as for "search".

        Raises:
            DataError: there are too few tokens for a batch.
        """
        weights = self.segments(batch_size, bptt, "search", seed)
        alphas = self._segments("valid", batch_size, bptt)
        valid = once(self.valid, bptt=bptt, worker=worker, devices=devices)

        def batches(start=0):
            return tf.data.Dataset.zip(weights.batches(start, worker), alphas.batches(start, worker))

        return batches, weights.steps, valid

    def test_batches(self, batch_size=1, bptt=35):
        """The text for testing once, in `batch_size` rows, as a `tf.data.Dataset`, see `once`."""
        return once(self.test, batch_size, bptt)

    def _segments(self, split, *arguments):
        try:
            return Segments(getattr(self, split), *arguments)
        except DataError as error:
            raise DataError(f"its {split} split: {error}") from None


class Segments:
    """Text in rows, cut into segments of columns: what batches of a stream are made of.

    Row after row holds the text; what does not fill the rows is left out. Each segment is followed by the next one, so
    that each row goes on where it ended. A *pass* goes from the first column to the last, the next pass follows it.
    Since targets are the next column, segments cover all columns but the last. None has one column alone, unless
    `bptt` is 1: one that would be left at the end of a pass joins the segment before it.

    Lengths are drawn from `seed` and the number of the pass (of some passes at once), so that each step can be found
    without those before.

    Args:
        tokens: (n,) int32.
        rows: rows of a batch.
        bptt: length of a segment, of "backpropagation through time".
        vary: how lengths are drawn.
            - "none": all are `bptt`.
            - "search": `bptt // 2` with probability 0.05, else `bptt`.
            - "train": from a normal distribution with a deviation of 5, whose mean is `bptt / 2` with probability 0.05,
              else `bptt`; rounded; at least 5 and at most `bptt + 20`.
        seed: int, at least 0.

    Attributes:
        steps: steps of an epoch, the segments of a pass if all had the mean length. Passes need not end with epochs.

    Raises:
        DataError: there are fewer than 3 tokens for each row.

    Source: Merity et al., "Regularizing and Optimizing LSTM Language Models" (2017), section 5 (variable lengths), and
    the authors' code of DARTS, which draws them so.
    """

    def __init__(self, tokens, rows, bptt=35, vary="none", seed=0):
        if vary not in VARY:
            raise ValueError(f"vary={vary}: expected one of {', '.join(VARY)}.")
        if bptt < 1:
            raise ValueError(f"bptt={bptt}: expected at least 1.")
        if len(tokens) < LEAST * rows:
            raise DataError(f"{len(tokens):,} tokens for {rows:,} rows: expected at least {LEAST * rows:,}.")
        self.rows, self.bptt, self.vary, self.seed = rows, bptt, vary, seed
        self._text = laid(tokens, rows)
        self._columns = self._text.shape[1] - 1  # that have a next one
        smallest, mean = self._lengths()
        self.steps = int(-(-(self._columns - 1) // mean))
        self._most = -(-self._columns // smallest)  # segments of a pass
        self._passes = max(1, 4096 // self._most)  # drawn at once, a block
        self._block = functools.lru_cache(maxsize=4)(self._drawn)
        self._begins = [0]  # the first step of each block, as far as known

    def segment(self, step):
        """(pass, first column, length) of a step; steps count over all passes."""
        block, place = self._find(step)
        return tuple(self._block(block)[place, :3].tolist())

    def scale(self, step):
        """What the learning rate of a step is multiplied by: the length drawn for it, before the end of the text cuts
        it, in parts of `bptt`."""
        block, place = self._find(step)
        return self._block(block)[place, 3].item() / self.bptt

    def batches(self, start=0, worker=ALONE):
        """Endless batches.

        Args:
            start: steps to leave out at the beginning.
            worker: `Worker`; it gets its share of the rows.

        Returns:
            `tf.data.Dataset` of x and y. x is a dict of "tokens", int32 (rows, length), and "begins", bool (rows,):
            whether the row begins anew, so that its hidden state is zero. y is int32 (rows, length), the next token of
            each.
        """
        block, place = self._find(start)
        with tf.device("CPU"):
            text = tf.constant(worker.share(self._text))

        def segments(block):
            drawn = tf.numpy_function(lambda block: self._block(int(block))[:, 1:3], [block], tf.int64, stateful=False)
            return tf.data.Dataset.from_tensor_slices(tf.ensure_shape(drawn, [None, 2]))

        def cut(segment):
            first, length = tf.unstack(segment)
            here = text[:, first : first + length + 1]
            return {"tokens": here[:, :-1], "begins": tf.fill([text.shape[0]], tf.equal(first, 0))}, here[:, 1:]

        found = tf.data.Dataset.counter(block).flat_map(segments).skip(place)
        return found.map(cut).prefetch(tf.data.AUTOTUNE)

    def _lengths(self):
        """The smallest length that is drawn, and the mean."""
        if self.vary == "none":
            return self.bptt, self.bptt
        if self.vary == "search":
            half = self._half
            return half, SHORT * half + (1 - SHORT) * self.bptt
        least, most = self._limits
        means = [
            least + sum(1 - statistics.NormalDist(mean, 5).cdf(length - 0.5) for length in range(least + 1, most + 1))
            for mean in (self.bptt / 2, self.bptt)
        ]
        return least, SHORT * means[0] + (1 - SHORT) * means[1]

    @property
    def _half(self):
        return max(min(2, self.bptt), self.bptt // 2)

    @property
    def _limits(self):
        return 5, self.bptt + 20

    def _drawn(self, block):
        """(segments, 4) int64 of a block of passes: pass, first column, length, and length as it was drawn."""
        shape = self._passes, self._most
        lengths = np.full(shape, self.bptt)
        if self.vary != "none":
            random = np.random.default_rng([self.seed, block])
            short = random.random(shape) < SHORT
            if self.vary == "search":
                lengths[short] = self._half
            else:
                normal = random.normal(np.where(short, self.bptt / 2, self.bptt), 5)
                lengths = np.clip(np.rint(normal), *self._limits).astype(np.int64)
        first = np.cumsum(lengths, axis=1) - lengths
        used = first < self._columns - 1
        is_last = used & ~np.pad(used[:, 1:], ((0, 0), (0, 1)))
        until_end = np.where(is_last, self._columns - first, lengths)
        number = block * self._passes + np.nonzero(used)[0]
        return np.stack([number, first[used], until_end[used], lengths[used]], axis=1)

    def _find(self, step):
        """The block of a step, and its place there."""
        while self._begins[-1] <= step:
            self._begins.append(self._begins[-1] + len(self._block(len(self._begins) - 1)))
        block = bisect.bisect_right(self._begins, step) - 1
        return block, step - self._begins[block]


def laid(tokens, rows):
    """Tokens (n,) in rows of equal length, (rows, n // rows); what does not fill them is left out."""
    columns = len(tokens) // rows
    return np.asarray(tokens[: rows * columns], np.int32).reshape(rows, columns)


def once(tokens, rows=ROWS, bptt=35, worker=ALONE, devices=1):
    """A text once, in segments of one pass.

    Args:
        tokens: (n,) int32.
        rows: how many rows there are at least, if the text is long enough for 3 tokens in each; a multiple of
            `devices` is taken. All tokens count the same, whatever the rows, but for the first of each row, which
            nothing predicts, and fewer than `rows` at the end.
        bptt: length of a segment.
        worker: as in `Segments.batches`.
        devices: how many devices of all workers share the batches.

    Returns:
        Finite `tf.data.Dataset` of elements as those of `Segments.batches`.

    Raises:
        DataError: there are fewer than 3 tokens for each device.
    """
    rows = min(-(-rows // devices), len(tokens) // LEAST // devices) * devices
    if not rows:
        raise DataError(
            f"{len(tokens):,} tokens to evaluate on for {devices} devices: expected at least {LEAST * devices:,}."
        )
    segments = Segments(tokens, rows, bptt)
    batches = segments.batches(worker=worker).take(segments.steps)
    return batches.apply(tf.data.experimental.assert_cardinality(segments.steps))


def is_text(name):
    """Whether `load` knows a name for a text, as far as that can be told without reading it."""
    path = pathlib.Path(name)
    if os.path.isdir(path):  # which a name that is too long is not
        return any(FILE.fullmatch(inner.name) for inner in path.iterdir() if inner.is_file())
    return name == TOPICS or path.suffix in SUFFIXES


def load(
    name,
    tokens="words",
    vocabulary=None,
    data_dir=None,
    tell=lambda line: None,
    progress=lambda parts, total, what: parts,
):
    """Reads a text.

    Args:
        name: what it is.
            - "topics": the texts of `pydoc_data.topics`, which come with Python; another version has another text.
            - a text file, UTF-8: of its lines the first 80 % train, the next 10 % validate and the last 10 % test.
            - a folder with train.txt, valid.txt (or validation.txt, val.txt) and test.txt, as they are or as
              ptb.train.txt, wiki.train.tokens and the like. Where there are several of a kind, those with the shortest
              names count: ptb.train.txt, not ptb.char.train.txt.
            - a name that tensorflow-datasets knows, whose examples have a `text`. Without splits for validation and
              test, its lines are split as those of a file.
        tokens: "words", what spaces separate, or "characters".
        vocabulary: the largest number of tokens, `<unk>` and `<eos>` among them, of which the most frequent ones in the
            training split stay; None for all; or the tokens themselves, a list of texts, for a model that knows those.
        data_dir: where tensorflow-datasets keeps its data; None is its own default.
        tell: called with lines for the user.
        progress: as `darts_tf.cli.messages.progress`.

    Returns:
        `Text`.

    Raises:
        DataError: there is no such text or it cannot be used.
    """
    _check_tokens(tokens)
    if isinstance(vocabulary, int) and vocabulary < 3:
        raise DataError(f"a vocabulary of {vocabulary}: expected at least 3 tokens, {UNKNOWN} and {END} among them.")
    lines = dict(zip(SPLITS, _lines(name, data_dir, tell), strict=True))
    for split in SPLITS:
        if not any(line and not line.isspace() for line in lines[split]):
            raise DataError(f"its {split} split is empty: expected text in each of {', '.join(SPLITS)}.")

    def numbers(split, number_of):
        return _numbers(lines[split], tokens, number_of, progress, f"Reading {split} split")

    def known(split):
        return numbers(split, lambda token: places.get(token, unknown))

    if vocabulary is None or isinstance(vocabulary, int):
        # By the order in which they come first; afterwards by frequency.
        places = collections.defaultdict(itertools.count().__next__)
        first = numbers("train", places.__getitem__)
        order = _most_frequent(list(places), np.bincount(first), vocabulary)
        new = {token: place for place, token in enumerate(order)}
        unknown = new[UNKNOWN]
        train = np.array([new.get(token, unknown) for token in places], np.int32)[first]
        places, vocabulary = new, order
    else:
        _check_vocabulary(vocabulary)
        places = {token: place for place, token in enumerate(vocabulary)}
        unknown = places[UNKNOWN]
        train = known("train")
    return Text(train, known("valid"), known("test"), list(vocabulary), tokens)


def _numbers(lines, tokens, number_of, progress, what):
    """(n,) int32, the numbers of all tokens of some lines."""
    numbers = array.array("i")
    parts = (lines[i : i + 10_000] for i in range(0, len(lines), 10_000))
    for part in progress(parts, len(lines), what):
        for line in part:
            numbers.extend(map(number_of, line.split() if tokens == "words" else line))
            numbers.append(number_of(END))
    return np.array(numbers, np.int32)


def _most_frequent(tokens, counts, size):
    """A vocabulary of at most `size` tokens, the most frequent first; of equally frequent ones the one seen first."""
    counts = dict(zip(tokens, counts.tolist(), strict=True))
    others = [token for token in counts if token not in (UNKNOWN, END)]
    others.sort(key=counts.get, reverse=True)
    left_out = others[size - 2 :] if size else []
    unknown = counts.setdefault(UNKNOWN, 0)
    counts[UNKNOWN] = unknown + sum(counts.pop(token) for token in left_out)
    return sorted(counts, key=counts.get, reverse=True)


def _check_tokens(tokens):
    if tokens not in TOKENS:
        raise DataError(f"tokens of {tokens}: expected {' or '.join(TOKENS)}.")


def _check_vocabulary(vocabulary):
    missing = [token for token in (UNKNOWN, END) if token not in vocabulary]
    if missing:
        raise DataError(f"a vocabulary without {missing[0]}: expected {UNKNOWN} and {END} in it.")
    if len(set(vocabulary)) < max(3, len(vocabulary)):
        raise DataError(f"a vocabulary of {len(set(vocabulary))} different tokens: expected at least 3, each once.")


def _lines(name, data_dir, tell):
    """The lines of the three splits."""
    if not name.strip():
        raise DataError(f"expected {EXPECTED}.")
    if name == TOPICS:
        from pydoc_data.topics import topics

        return _by_position(_split_lines("\n".join(topics[key] for key in sorted(topics))))
    path = pathlib.Path(name)
    if os.path.isdir(path):
        files = _files(path)
        _check_size(sum(file.stat().st_size for file in files))
        return [_split_lines(_decoded(file.read_bytes(), file.name)) for file in files]
    if os.path.exists(path):
        if not path.is_file():  # a pipe, for example, might never end
            raise DataError("it is no file but a pipe, a socket or a device: expected a text file.")
        _check_size(path.stat().st_size)
        return _by_position(_split_lines(_decoded(path.read_bytes())))
    if path.is_absolute() or path.suffix in SUFFIXES or name.startswith((".", "~")):
        raise DataError(f"no such file: expected {EXPECTED}.")
    return _from_tfds(name, data_dir, tell)


def _check_size(size):
    check_memory(NEEDED * size, "a smaller text")


def _split_lines(text):
    """Lines that end with \\n or \\r\\n, and no others: for `str.splitlines` there are many more."""
    lines = text.replace("\r\n", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]


def _by_position(lines):
    """Lines for training, validation and testing."""
    if len(lines) < 10:
        count = f"{len(lines)} line{'' if len(lines) == 1 else 's'}"
        raise DataError(
            f"{count} of text: expected at least 10, which are split by position, or a folder with train.txt, "
            "valid.txt and test.txt."
        )
    train, valid = len(lines) * 8 // 10, len(lines) * 9 // 10
    return lines[:train], lines[train:valid], lines[valid:]


def _decoded(content, name=None):
    """The text in the bytes of a file, whose name is told if there is another one beside it."""
    place = f"{name}: " if name else ""
    begins = len(codecs.BOM_UTF8) if content.startswith(codecs.BOM_UTF8) else 0
    try:
        text = content[begins:].decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{place}byte {error.start + begins:,} is not UTF-8: expected text in that encoding.") from None
    if "\0" in text:
        raise DataError(f"{place}byte {content.index(0):,} is zero: expected text in UTF-8.")
    return text


def _files(folder):
    """The files of the three splits in a folder."""
    found = collections.defaultdict(dict)
    for path in sorted(folder.iterdir()):
        match = FILE.fullmatch(path.name)
        if match and path.is_file() and not path.name.startswith("."):
            split = match["split"].lower()
            split = "valid" if split.startswith("val") else split
            files = found[match["before"].count("."), match["before"], match["suffix"]]
            if split in files:
                raise DataError(f"files {files[split].name} and {path.name}: expected one of them.")
            files[split] = path
    whole = sorted(key for key, files in found.items() if len(files) == len(SPLITS))
    if len(whole) > 1 and whole[0][0] == whole[1][0]:
        names = [found[key]["train"].name for key in whole[:2]]
        raise DataError(f"files {names[0]} and {names[1]}: expected one of them.")
    if whole:
        return [found[whole[0]][split] for split in SPLITS]
    _, before, suffix = key = min(found, default=(0, "", "txt"))
    missing = next(split for split in SPLITS if split not in found[key])
    expected = "train.txt, valid.txt and test.txt, or ptb.train.txt, wiki.train.tokens and so on"
    raise DataError(f"no {before}{missing}.{suffix} in it: expected {expected}.")


def _from_tfds(name, data_dir, tell):
    builder = datasets.prepared_builder(name, data_dir, ("text",), f"{EXPECTED}, such as tiny_shakespeare")
    splits = builder.info.splits
    if "train" not in splits:
        raise DataError(f"its splits are {', '.join(splits)}: expected train, validation and test.")

    def lines(split):
        texts = [example["text"] for example in builder.as_dataset(split=split).as_numpy_iterator()]
        if not all(isinstance(text, bytes) for text in texts):
            raise DataError("its text is no text: expected one text per example.")
        return [line for text in texts for line in _split_lines(_decoded(text, split))]

    names = ["train", "validation", "test"]
    if set(names) <= set(splits):
        _check_size(sum(splits[split].num_bytes for split in names))
        return [lines(split) for split in names]
    unused = [split for split in splits if split != "train"]
    if unused:
        tell(f"Of the splits of {name} only train is used, by position; left out: {', '.join(unused)}.")
    _check_size(splits["train"].num_bytes)
    return _by_position(lines("train"))
