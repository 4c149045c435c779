"""Text as tokens, in Python and inside a graph: the same ones."""

import sys

import tensorflow as tf

from darts_tf.data.text import END, UNKNOWN


def split(text, kind):
    """The tokens of a text, a list: what whitespace of Unicode separates, as `str.split` has it, or its characters."""
    return text.split() if kind == "words" else list(text)


def split_in_graph(texts, kind):
    """As `split`, for strings (batch,) in UTF-8; what is not UTF-8 in them becomes U+FFFD, as with `bytes.decode`.

    Returns:
        `tf.RaggedTensor` of strings (batch, tokens).
    """
    texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
    if kind == "characters":
        return tf.strings.unicode_split(texts, "UTF-8")
    spaces = "".join(f"\\x{{{code:x}}}" for code in range(sys.maxunicode + 1) if chr(code).isspace())
    return tf.strings.split(tf.strings.regex_replace(texts, f"[{spaces}]+", " "))


def kind_of(vocabulary):
    """What the tokens of a vocabulary are: characters if none, but for `<unk>` and `<eos>`, is longer than one."""
    return "characters" if all(len(token) == 1 for token in {*vocabulary} - {UNKNOWN, END}) else "words"
