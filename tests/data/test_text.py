import codecs
import itertools
import json
import os
import time

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from darts_tf.data import images, text
from darts_tf.data.folders import DataError
from darts_tf.devices.cluster import ALONE, Worker

LINES = [f"the cat {word} sat" for word in "abacabdefg"]


def put(folder, files):
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(folder)


def words(data, split):
    return [data.vocabulary[number] for number in getattr(data, split)]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_a_file_is_split_by_position(tmp_path, end, mark):
    path = tmp_path / "a.txt"
    path.write_bytes(mark + end.join(LINES).encode() + end.encode())
    data = text.load(str(path))
    assert words(data, "train") == [word for line in LINES[:8] for word in [*line.split(), "<eos>"]]
    assert words(data, "valid") == ["the", "cat", "<unk>", "sat", "<eos>"]  # "f" is not in the training split
    assert words(data, "test") == ["the", "cat", "<unk>", "sat", "<eos>"]
    # The first four are as frequent: the first seen first. <unk> is not there.
    assert data.vocabulary == ["the", "cat", "sat", "<eos>", "a", "b", "c", "d", "e", "<unk>"]
    assert {split.dtype for split in (data.train, data.valid, data.test)} == {np.dtype("int32")}
    assert data.in_words() == "40 words, 10 of them different"
    assert json.loads(json.dumps(data.description())) == {"tokens": "words", "vocabulary": data.vocabulary}
    task = data.task
    assert (task.name, task.outputs, task.headline.name) == ("language_model", 10, "perplexity")


def test_characters_and_what_ends_no_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\n".join(["a\u2028b", "", "<unk>\x0b", *["é日"] * 7]).encode())
    data = text.load(str(path), tokens="characters")
    assert "".join(words(data, "train")) == "a\u2028b<eos><eos><unk>\x0b<eos>" + "é日<eos>" * 5
    assert "<unk>" not in words(data, "train") and data.vocabulary[-1] == "<unk>"
    assert "".join(words(data, "test")) == "é日<eos>"
    assert "characters" in data.in_words()


def test_a_vocabulary_is_capped(tmp_path):
    folder = put(tmp_path, {"train.txt": "b b a a a c\nd <unk> a\n", "valid.txt": "a d\n", "test.txt": "b e\n"})
    whole = text.load(folder)
    assert whole.vocabulary == ["a", "b", "<eos>", "c", "d", "<unk>"]
    data = text.load(folder, vocabulary=4)
    assert data.vocabulary == ["a", "<unk>", "b", "<eos>"]  # c, d and <unk> itself are three
    assert words(data, "train") == [*"bbaaa", "<unk>", "<eos>", "<unk>", "<unk>", "a", "<eos>"]
    assert words(data, "valid") == ["a", "<unk>", "<eos>"] and words(data, "test") == ["b", "<unk>", "<eos>"]
    assert text.load(folder, vocabulary=100).vocabulary == whole.vocabulary
    # A model's own vocabulary.
    data = text.load(folder, vocabulary=["<eos>", "e", "<unk>", "b"])
    assert words(data, "test") == ["b", "e", "<eos>"] and data.train[:3].tolist() == [3, 3, 2]


@pytest.mark.parametrize(
    "names",
    [
        ("train.txt", "valid.txt", "test.txt"),
        ("Train.txt", "validation.txt", "TEST.txt"),
        ("train.txt", "val.txt", "test.txt"),
        ("ptb.train.txt", "ptb.valid.txt", "ptb.test.txt"),
        ("wiki.train.tokens", "wiki.valid.tokens", "wiki.test.tokens"),
    ],
)
def test_folders(tmp_path, names):
    put(tmp_path, {name: f"{split} a\n \n" for name, split in zip(names, ("one", "two", "three"), strict=True)})
    put(tmp_path, {f"more.char.{split}.txt": "other a\n" for split in text.SPLITS})
    put(tmp_path, {"README": "", ".train.txt": "", "train.model.txt": ""})
    data = text.load(str(tmp_path))
    assert words(data, "train") == ["one", "a", "<eos>", "<eos>"]
    assert words(data, "test") == words(data, "valid") == ["<unk>", "a", "<eos>", "<eos>"]


def test_topics():
    data = text.load("topics", vocabulary=2000)
    assert len(data.vocabulary) == 2000 and data.vocabulary.index("<eos>") < 3
    sizes = [len(getattr(data, split)) for split in text.SPLITS]
    assert sizes[0] > 40_000 and min(sizes[1:]) > 4000
    assert 0.01 < (data.test == data.vocabulary.index("<unk>")).mean() < 0.3


def test_tensorflow_datasets(tmp_path):
    features = tfds.features.FeaturesDict({"text": tfds.features.Text(), "stars": tfds.features.Scalar(np.int32)})

    def store(name, **splits):
        tfds.dataset_builders.store_as_tfds_dataset(
            name=name, config="plain", version="1.0.0", data_dir=tmp_path, features=features,
            split_datasets={
                split: tf.data.Dataset.from_tensor_slices({"text": texts, "stars": np.zeros(len(texts), np.int32)})
                for split, texts in splits.items()
            },
        )  # fmt: skip

    store("whole", train=["a b\nc"], validation=["a b"], test=["b c", "a"])
    data = text.load("whole/plain", data_dir=str(tmp_path))
    assert sorted(words(data, "train")) == sorted(["a", "b", "<eos>", "c", "<eos>"])
    assert sorted(words(data, "test")) == sorted(["b", "c", "<eos>", "a", "<eos>"])
    store("parts", train=["a b"] * 10, test=["b"])
    told = []
    data = text.load("parts/plain", data_dir=str(tmp_path), tell=told.append)
    assert [len(getattr(data, split)) for split in text.SPLITS] == [24, 3, 3]
    assert told == ["Of the splits of parts/plain only train is used, by position; left out: test."]
    store("other", test=["b"])
    with pytest.raises(DataError, match="its splits are test: expected train, validation and test"):
        text.load("other/plain", data_dir=str(tmp_path))


WHOLE = {"train.txt": "a b\n", "valid.txt": "a b\n", "test.txt": "a b\n"}


@pytest.mark.parametrize(
    "files, message",
    [
        ({**WHOLE, "test.txt": ""}, "its test split is empty: expected text in each of train, valid, test"),
        ({**WHOLE, "valid.txt": "\n \n\n"}, "its valid split is empty"),
        ({**WHOLE, "valid.txt": "a\n"}, "2 tokens in the valid split: expected at least 3"),
        ({**WHOLE, "train.txt": b"a\n\xe9t\xe9\n"}, "train.txt: byte 2 is not UTF-8: expected text in that encoding"),
        ({**WHOLE, "test.txt": codecs.BOM_UTF8 + b"a\xff"}, "test.txt: byte 4 is not UTF-8"),
        ({**WHOLE, "test.txt": "a b\n".encode("utf-16")}, "test.txt: byte 0 is not UTF-8"),
        ({**WHOLE, "test.txt": "a b\n".encode("utf-16-le")}, "test.txt: byte 1 is zero: expected text in UTF-8"),
        ({"train.txt": "a", "test.txt": "b"}, "no valid.txt in it: expected train.txt, valid.txt and test.txt, or"),
        ({"ptb.train.txt": "a"}, "no ptb.valid.txt in it"),
        ({}, "no train.txt in it"),
        ({**WHOLE, "val.txt": "a"}, "files val.txt and valid.txt: expected one of them"),
        ({f"{a}.{name}": "a" for a in "xy" for name in WHOLE}, "files x.train.txt and y.train.txt: expected one"),
    ],
)
def test_unusable_folders(files, message, tmp_path):
    with pytest.raises(DataError, match=message):
        text.load(put(tmp_path, files))


@pytest.mark.parametrize(
    "content, message",
    [
        (b"all in one line", "1 line of text: expected at least 10, which are split by position, or a folder"),
        (b"a\n" * 9, "9 lines of text"),
        (b"", "0 lines of text"),
        (b"a\n" * 9 + b"\n", "its test split is empty"),
        (b"a\nb\xc3(", "byte 3 is not UTF-8"),
    ],
)
def test_unusable_files(content, message, tmp_path):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(DataError, match=message):
        text.load(str(tmp_path / "a"))


def test_what_is_no_text(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    for name, message in [
        (str(tmp_path / "missing"), "no such file: expected topics, a text file, a folder with train.txt"),
        ("missing.txt", "no such file"),
        ("no_such_set", "no such dataset: expected topics, a text file, .* such as tiny_shakespeare"),
        (" ", "expected topics"),
        (str(tmp_path / "pipe"), "it is no file but a pipe"),
    ]:
        with pytest.raises(DataError, match=message):
            text.load(name)
    for options, message in [
        ({"tokens": "lines"}, "tokens of lines: expected words or characters"),
        ({"vocabulary": 2}, "a vocabulary of 2: expected at least 3 tokens, <unk> and <eos> among them"),
        ({"vocabulary": ["a", "<unk>", "b"]}, "a vocabulary without <eos>"),
        ({"vocabulary": ["a", "<unk>", "<eos>", "a"]}, "a vocabulary of 3 different tokens: .* each once"),
    ]:
        with pytest.raises(DataError, match=message):
            text.load("topics", **options)
    folder = put(tmp_path / "whole", WHOLE)
    monkeypatch.setattr(text, "check_memory", lambda size, instead: images.check_memory(size * 10**20, instead))
    with pytest.raises(DataError, match=r"GB of memory, .* are free: expected a smaller text"):
        text.load(folder)


def test_segments_follow_each_other():
    for vary, columns, bptt in itertools.product(text.VARY, (3, 5, 36, 37, 300), (2, 3, 7, 35)):
        segments = text.Segments(np.arange(2 * columns), 2, bptt, vary, seed=3)
        place, number, per_pass = 0, 0, []
        for step in range(200):
            found, first, length = segments.segment(step)
            if first == 0 and step:
                assert place == columns - 1  # a pass ends with the last column that has a next one
                place, number = 0, number + 1
                per_pass.append(step)
            assert (found, first) == (number, place) and 2 <= length <= bptt + 21
            ends = first + length == columns - 1
            drawn = segments.scale(step) * bptt
            assert length == pytest.approx(drawn) or (ends and length <= drawn + 1)
            place += length
        if vary == "none":
            assert set(np.diff([0, *per_pass])) == {segments.steps}
        elif len(per_pass) > 20:
            assert np.diff(per_pass).mean() == pytest.approx(segments.steps, abs=1.2)


def test_lengths_are_drawn_as_they_should_be():
    tokens, steps = np.zeros(100_000, np.int32), range(2800)
    search, train = (text.Segments(tokens, 1, 35, vary, seed=1) for vary in ("search", "train"))
    lengths = np.array([round(search.scale(step) * 35) for step in steps])
    assert set(lengths) == {17, 35} and (lengths == 17).mean() == pytest.approx(0.05, abs=0.015)
    lengths = np.array([round(train.scale(step) * 35) for step in steps])
    assert lengths.min() >= 5 and lengths.max() <= 55
    assert np.median(lengths) == 35 and lengths.mean() == pytest.approx(0.975 * 35, abs=0.4)
    assert (lengths < 25).mean() == pytest.approx(0.06, abs=0.02) and 4.5 < lengths[lengths > 24].std() < 5.3
    least, mean = text.Segments(tokens, 1, 4, "train")._lengths()
    drawn = text.Segments(tokens, 1, 4, "train")._drawn(0)[:, 3]
    assert drawn.min() == least == 5 and drawn.mean() == pytest.approx(mean, abs=0.2)


def test_lengths_depend_on_the_seed_and_differ_between_passes():
    tokens = np.zeros(300, np.int32)

    def found(seed):
        segments = text.Segments(tokens, 1, 35, "train", seed)
        return [segments.segment(step) for step in range(60)]

    assert found(1) == found(1) != found(2)
    passes = [[row[1:] for row in found(1) if row[0] == number] for number in range(4)]
    assert passes[0] != passes[1] != passes[2]


def test_a_late_step_is_found_fast():
    segments = text.Segments(np.zeros(2 * 90, np.int32), 2, 35, "train")
    began = time.process_time()
    number, first, length = segments.segment(1_000_000)
    assert time.process_time() - began < 10
    assert number > 200_000 and first + length <= 89


def same(ours, theirs):
    tf.nest.map_structure(np.testing.assert_array_equal, ours, theirs)


def taken(batches, count):
    return list(batches.take(count).as_numpy_iterator())


@pytest.mark.parametrize("vary", text.VARY)
def test_batches_from_any_step_are_those_that_follow(vary):
    segments = text.Segments(np.arange(4 * 60 + 3, dtype=np.int32), 4, 6, vary, seed=5)
    batches = taken(segments.batches(), 60)
    for step, (x, y) in enumerate(batches):
        number, first, length = segments.segment(step)
        rows = np.arange(4)[:, None] * 60 + np.arange(first, first + length)
        same((x, y), ({"tokens": rows, "begins": np.full(4, first == 0)}, rows + 1))
        assert x["tokens"].dtype == y.dtype == np.int32
    assert sum(x["begins"].all() for x, _ in batches) == number + 1 > 3
    # Another object, which knows nothing of the steps before.
    again = text.Segments(np.arange(4 * 60 + 3, dtype=np.int32), 4, 6, vary, seed=5)
    for start in (0, 1, 13, 57):
        same(taken(again.batches(start), 3), batches[start : start + 3])
    block = len(segments._block(0))  # across the border of what is drawn at once
    around = taken(segments.batches(block - 2), 4)
    same(taken(text.Segments(np.arange(243), 4, 6, vary, seed=5).batches(block), 2), around[2:])


def test_workers_share_the_rows_of_a_batch():
    segments = text.Segments(np.arange(6 * 30), 6, 5, "train")
    whole = taken(segments.batches(3), 9)
    for index in range(3):
        worker = Worker(index, 3)
        mine = segments.batches(3, worker)
        assert mine.element_spec[0]["tokens"].shape.as_list() == [2, None] == mine.element_spec[1].shape.as_list()
        assert mine.element_spec[0]["begins"] == tf.TensorSpec([2], tf.bool)
        same(taken(mine, 9), tf.nest.map_structure(worker.share, whole))


@pytest.mark.parametrize("count, devices, rows", [(1000, 1, 10), (1000, 4, 12), (20, 1, 6), (20, 4, 4), (3, 1, 1)])
def test_a_text_once(count, devices, rows):
    found = text.once(np.arange(count), bptt=7, devices=devices)
    batches = list(found.as_numpy_iterator())
    assert len(found) == len(batches)  # Keras warns where it is not known
    tokens = np.concatenate([x["tokens"] for x, _ in batches], axis=1)
    targets = np.concatenate([y for _, y in batches], axis=1)
    columns = count // rows
    whole = np.arange(rows * columns).reshape(rows, columns)
    same((tokens, targets), (whole[:, :-1], whole[:, 1:]))
    assert [x["begins"].all() for x, _ in batches] == [True] + [False] * (len(batches) - 1)
    if devices > 1:
        parts = [taken(text.once(np.arange(count), bptt=7, devices=devices, worker=Worker(i, 2)), 99) for i in (0, 1)]
        assert sum(len(part[0][1]) for part in parts) == rows
    with pytest.raises(DataError, match="5 tokens to evaluate on for 2 devices: expected at least 6"):
        text.once(np.arange(5), devices=2)


def tiny():
    return text.Text(*(np.arange(n, dtype=np.int32) % 5 for n in (90, 50, 25)), ["<unk>", "<eos>", *"abc"])


def test_batches_to_train_on():
    data = tiny()
    batches, steps, valid = data.batches(4, bptt=6, seed=2, devices=2)
    segments = data.segments(4, 6, seed=2)
    same(taken(batches(5), 7), taken(segments.batches(5), 7))
    assert steps == segments.steps and len(segments._text) == 4
    same(taken(valid, 99), taken(text.once(data.valid, bptt=6, devices=2), 99))
    assert [y.shape[0] for _, y in taken(data.test_batches(), 99)] == [1]
    with pytest.raises(DataError, match="its train split: 90 tokens for 31 rows: expected at least 93"):
        data.batches(31)


def test_a_search_has_two_streams():
    data = tiny()
    batches, steps, _ = data.search_batches(5, bptt=4, seed=2)
    segments = data.segments(5, 4, "search", seed=2)
    alphas = text.Segments(data.valid, 5, 4)
    assert (steps, alphas.steps) == (segments.steps, 2)
    for start in (0, 3):
        pairs = taken(batches(start), 12)
        same([train for train, _ in pairs], taken(segments.batches(start), 12))
        same([valid for _, valid in pairs], taken(alphas.batches(start), 12))
        assert [valid[0]["begins"].all() for _, valid in pairs] == [(start + i) % 2 == 0 for i in range(12)]
    worker = Worker(1, 5)
    share, *_ = data.search_batches(5, bptt=4, seed=2, worker=worker, devices=5)
    same(taken(share(3), 12), tf.nest.map_structure(worker.share, taken(batches(3), 12)))
    with pytest.raises(DataError, match="its valid split: 50 tokens for 17 rows: expected at least 51"):
        data.search_batches(17)
    assert data.search_batches(5, worker=ALONE, devices=2)[2].element_spec[1].shape[0] == 10
