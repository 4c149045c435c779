import io
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from darts_tf.cli.messages import RunError
from darts_tf.data import datasets, images, streams
from darts_tf.data.augmentation import Augmentation, jittered, middle_part, random_part
from darts_tf.devices.cluster import ALONE, Worker
from darts_tf.runs import fitting


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Nine training images and four for testing, red and blue, of different sizes and formats."""
    root = tmp_path_factory.mktemp("images")
    for split, count in (("train", 9), ("val", 4)):
        for number in range(count):
            red = number % 2
            image = np.zeros((40 + 3 * number, 70 - 4 * number, 3), np.uint8)
            image[..., 0 if red else 2] = 200
            path = root / split / ("red" if red else "blue") / f"{number}.{'jpg' if number % 3 else 'png'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            encode = tf.io.encode_jpeg if number % 3 else tf.io.encode_png
            path.write_bytes(encode(image).numpy())
    return root


def test_batches_from_files(folder):
    stream = streams.load(str(folder), image_size=24)
    assert (len(stream.y_train), stream.class_names, stream.image_shape) == (9, ["blue", "red"], (24, 24, 3))
    assert stream.in_words() == "9 colour 24x24 images of 2 classes"
    assert stream.description()["mean"] == streams.MEAN.tolist()
    batches, steps, valid = stream.batches(4, Augmentation(flip=True, cutout=6), seed=3)
    assert (steps, valid) == (2, None)
    taken, again = (list(batches().take(5).as_numpy_iterator()) for _ in range(2))
    for (x, y), (same_x, same_y) in zip(taken, again, strict=True):
        assert x.shape == (4, 24, 24, 3) and x.dtype == np.float32
        np.testing.assert_array_equal(x, same_x)
        np.testing.assert_array_equal(y, same_y)
    assert any((a[0] != b[0]).any() for a, b in zip(taken[:2], taken[2:4], strict=True))
    other, *_ = stream.batches(4, Augmentation(flip=True, cutout=6), seed=4)
    assert any((a[0] != b[0]).any() for a, b in zip(taken, other().take(5).as_numpy_iterator(), strict=True))

    tested = list(stream.test_batches(3).as_numpy_iterator())
    assert [len(y) for _, y in tested] == [3, 1]
    for x, y in tested:
        assert (np.argmax(x.mean(axis=(1, 2)), axis=1) == np.where(y == 1, 0, 2)).all()
    np.testing.assert_array_equal(np.concatenate([y for _, y in tested]), [0, 0, 1, 1])


def test_an_epoch_is_a_shuffle_of_all_files(folder):
    stream = streams.load(str(folder))

    def shown(epoch, seed):
        epoch = tf.constant(epoch, tf.int64)
        return [image for image, *_ in stream.train(epoch, seed, ALONE).as_numpy_iterator()]

    assert len(set(shown(0, 0))) == 9
    assert shown(0, 0) == shown(0, 0) != shown(1, 0) != shown(1, 1)


def check_shares_and_starts(stream):
    augmentation = Augmentation(flip=True, cutout=6)

    def taken(start=0, **options):
        batches, *_ = stream.batches(4, augmentation, **options)
        return list(batches(start).take(4).as_numpy_iterator())

    whole, later = taken(), taken(start=1)
    halves = [taken(worker=Worker(index, 2)) for index in range(2)]
    for (x, y), *parts in zip(whole, *halves, strict=True):
        for index, (part_x, part_y) in enumerate(parts):
            np.testing.assert_array_equal(part_x, x[index::2])
            np.testing.assert_array_equal(part_y, y[index::2])
    for (x, y), (same_x, same_y) in zip(whole[1:], later, strict=False):
        np.testing.assert_array_equal(x, same_x)
        np.testing.assert_array_equal(y, same_y)


def test_workers_share_batches_and_a_run_goes_on_in_the_middle(folder):
    check_shares_and_starts(streams.load(str(folder), image_size=24))


def test_a_name_of_tensorflow_datasets(tmp_path, folder):
    import tensorflow_datasets as tfds

    class Photos(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            label = tfds.features.ClassLabel(names=["blue", "red"])
            features = tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(None, None, 3)), "label": label})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, manager):
            return {"train": self._generate_examples("train"), "validation": self._generate_examples("val")}

        def _generate_examples(self, split):
            for path in sorted((folder / split).rglob("*.*")):
                yield path.name, {"image": path, "label": path.parent.name}

    Photos(data_dir=tmp_path).download_and_prepare()
    stream = streams.load("photos", image_size=16, data_dir=str(tmp_path))
    batches, steps, _ = stream.batches(3, Augmentation())
    assert (steps, stream.class_names) == (3, ["blue", "red"])
    x, _ = next(iter(batches()))
    assert x.shape == (3, 16, 16, 3)
    tf.random.set_seed(5)  # as a training does

    def shown(epoch):
        return [image for image, *_ in stream.train(tf.constant(epoch, tf.int64), 0, ALONE).as_numpy_iterator()]

    assert sorted(shown(0)) == sorted(shown(1)) and shown(0) == shown(0) != shown(1)
    assert sum(len(y) for _, y in stream.test_batches()) == 4
    check_shares_and_starts(stream)
    with pytest.raises(datasets.DataError, match=r"its images differ in size: .* or darts_tf\.train --recipe=imagenet"):
        datasets.load("photos", data_dir=str(tmp_path))


def test_parts_of_images():
    ramp = np.arange(64, dtype=np.uint8)
    image = np.stack([np.tile(ramp, (48, 1)), np.tile(ramp[:48, None], (1, 64)), np.full((48, 64), 7, np.uint8)], -1)
    encoded = tf.io.encode_png(image)
    middle = middle_part(encoded, (42, 42)).numpy()
    np.testing.assert_allclose(middle, image[3:45, 11:53])
    sizes = []
    for number in range(50):
        part = random_part(encoded, (20, 20), tf.constant([0, number])).numpy()
        assert part.shape == (20, 20, 3) and np.allclose(part[..., 2], 7)
        height, width = (np.ptp(part[..., channel]) + 1 for channel in (1, 0))
        sizes.append(height * width / image[..., 0].size)
    assert min(sizes) < 0.3 and max(sizes) > 0.7


def test_colours_change_within_limits():
    grey = tf.fill([4, 4, 3], 100.0)
    levels = np.array([jittered(grey, tf.constant([1, number])).numpy().mean() for number in range(60)])
    assert 60 - 1e-3 <= levels.min() < 75 and 125 < levels.max() <= 140 + 1e-3


def test_other_depths_are_refused(folder):
    with pytest.raises(datasets.DataError, match="3 channels: the model expects 1"):
        streams.load(str(folder)).fitted((32, 32, 1))
    with pytest.raises(datasets.DataError, match="there are 9 images to train on"):
        streams.load(str(folder)).batches(10, Augmentation())


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Images of all sizes and formats, of three classes."""
    root = tmp_path_factory.mktemp("mixed")
    for label in range(3):
        for number in range(10):
            pixels = np.random.default_rng(10 * label + number).integers(0, 256, (9 + number, 30 - number, 3), np.uint8)
            path = root / str(label) / f"{number}.{('png', 'jpg', 'webp', 'gif', 'bmp')[number % 5]}"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels).convert("L" if number == 5 else "RGB").save(path)
    return root


def test_batches_from_disk_are_those_from_memory(mixed):
    memory, disk = (datasets.load(str(mixed), (12, 16), stream=stream) for stream in (False, True))
    assert isinstance(memory.x_train, np.ndarray) and isinstance(disk.x_train, images.OnDisk)
    disk.read(lambda chunks, *_: chunks)
    used = Augmentation(padding=2, flip=True, cutout=5)

    def made(data):
        search, _, valid = data.search_batches(4, used, 3, 0.4)
        train, _, held_out = data.batches(4, used, 3, 0.8, Worker(1, 2))
        return [data.statistics(), *search(1).take(4), *valid, *train(2).take(4), *held_out, *data.test_batches(4)]

    for one, other in zip(made(memory), made(disk), strict=True):
        for x, same_x in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
            np.testing.assert_array_equal(x, same_x)
    fitted = [data.fitted((10, 9, 3)) for data in (datasets.load(str(mixed), (10, 9)), disk)]
    np.testing.assert_array_equal(fitted[0].x_test, fitted[1].x_test.array())


@pytest.mark.parametrize("recipe", ["usual", "imagenet"])
def test_a_file_that_is_damaged_meanwhile_ends_a_training(recipe, mixed, tmp_path):
    folder = shutil.copytree(mixed, tmp_path / "set")
    data = datasets.load(str(folder), 12, stream=True) if recipe == "usual" else streams.load(str(folder), 12)
    batches, steps, _ = data.batches(4, Augmentation())
    damaged = folder / "1" / "3.gif"
    damaged.write_bytes(b"no image")
    wrong = re.escape(f"{damaged}: it is not a readable image. Once it is back, --resume goes on.")
    with pytest.raises(RunError, match=wrong), fitting.explaining_errors():
        list(batches().take(steps))
    damaged.unlink()
    with pytest.raises(RunError, match=f"{damaged}: the file is gone. Once"), fitting.explaining_errors():
        list(batches().take(steps))


def test_images_one_pixel_wide_and_moving_webp_in_parts():
    narrow = tf.io.encode_png(np.zeros((1, 60, 3), np.uint8))
    content, picture = io.BytesIO(), Image.new("RGB", (20, 30), (9, 9, 9))
    picture.save(content, "WEBP", lossless=True, save_all=True, append_images=[Image.new("RGB", (20, 30))])
    for encoded, level in ((narrow, 0), (tf.constant(content.getvalue()), 9)):
        for image in (middle_part(encoded, (8, 8)), random_part(encoded, (8, 8), tf.constant([0, 1]))):
            assert image.shape == (8, 8, 3) and (np.rint(image) == level).all()


def test_only_folders_can_stay_on_disk():
    with pytest.raises(datasets.DataError, match="with --stream: expected a folder"):
        datasets.load("digits", stream=True)
