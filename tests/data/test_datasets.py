import io
import itertools
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from darts_tf.data import augmentation, datasets, folders
from darts_tf.data import images as sources
from darts_tf.devices.cluster import ALONE, Worker


def save_png(path, image):
    tf.io.write_file(str(path), tf.io.encode_png(image))


ALL = augmentation.Augmentation(padding=2, flip=True, cutout=3)


def images(count, *shape):
    return np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)


@pytest.fixture
def folder(tmp_path):
    for name, sizes in (("cat", [(9, 12), (20, 8)]), ("dog", [(10, 10)] * 5)):
        (tmp_path / name).mkdir()
        for i, size in enumerate(sizes):
            save_png(tmp_path / name / f"{i}.png", images(1, *size, 3)[0])
    return tmp_path


def test_digits():
    data = datasets.load("digits")
    assert len(data.y_train) + len(data.y_test) == 1797
    assert data.image_shape == (8, 8, 1) and data.class_names == list("0123456789")
    assert datasets.load("digits", image_size=12).image_shape == (12, 12, 1)
    assert data.in_words() == "1,442 grey 8x8 images of 10 classes"
    mean, std = data.statistics()
    described = {"image_shape": (8, 8, 1), "class_names": list("0123456789"), "mean": [mean[0]], "std": [std[0]]}
    assert data.description() == described


def test_npz(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(
        path, x_train=images(9, 8, 10), y_train=np.arange(9)[:, None] % 3, x_test=images(3, 8, 10), y_test=np.arange(3)
    )
    data = datasets.load(str(path))
    assert data.image_shape == (8, 10, 1) and data.y_train.shape == (9,) and data.class_names == ["0", "1", "2"]


def test_folder_of_mixed_sizes(folder):
    data = datasets.load(str(folder), image_size=16)
    assert data.image_shape == (16, 16, 3) and data.class_names == ["cat", "dog"]
    assert (len(data.y_train), len(data.y_test)) == (6, 1)


def test_tensorflow_datasets(tmp_path):
    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(shape=(8, 8, 3)), "label": tfds.features.ClassLabel(num_classes=2)}
    )
    train, test = (
        tf.data.Dataset.from_tensor_slices({"image": images(n, 8, 8, 3), "label": np.arange(n) % 2}) for n in (10, 4)
    )
    without_labels = tf.data.Dataset.from_tensor_slices({"image": images(2, 8, 8, 3), "label": np.array([-1, -1])})
    tfds.dataset_builders.store_as_tfds_dataset(
        name="tiny", config="plain", version="1.0.0", data_dir=tmp_path, features=features,
        split_datasets={"train": train, "validation": test, "test": without_labels},
    )  # fmt: skip
    data = datasets.load("tiny/plain", data_dir=str(tmp_path))
    assert data.x_train.shape == (10, 8, 8, 3) and len(data.y_test) == 4 and data.class_names == ["0", "1"]
    assert {image.tobytes() for image in data.x_train} == {image.tobytes() for image in images(10, 8, 8, 3)}


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda d: d / "missing.npz", "no such file: expected a .npz with x_train"),
        (
            lambda d: np.savez(d / "a.npz", x_train=images(9, 8, 8)) or d / "a.npz",
            "no y_train, x_test, y_test in the file",
        ),
        (lambda d: (d / "b.npz").write_text("no") and d / "b.npz", "not a readable .npz file"),
        (lambda d: d / "empty", "no folders in it: expected one folder of images per class"),
        (lambda d: d / "one", "only the folder cat"),
        (lambda d: d / "bad", r"dog/1.png is not a readable image: expected PNG"),
        (lambda d: d / "few", "fewer than 5 images in each class, of which every fifth is for testing"),
        (lambda d: "no_such_set", "no such dataset: expected digits, a folder"),
    ],
)
def test_unusable_data(make, message, tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("one/cat", "bad/cat", "bad/dog", "few/cat", "few/dog"):
        (tmp_path / name).mkdir(parents=True)
        for number in range(4 if "few" in name else 5):
            save_png(tmp_path / name / f"{number}.png", images(1, 8, 8, 3)[0])
    (tmp_path / "bad/dog/1.png").write_bytes(b"not an image")
    with pytest.raises(datasets.DataError, match=message):
        datasets.load(str(make(tmp_path)))


def test_small_images_are_refused(tmp_path):
    np.savez(
        tmp_path / "a.npz",
        x_train=images(9, 7, 8),
        y_train=np.arange(9) % 2,
        x_test=images(2, 7, 8),
        y_test=np.arange(2),
    )
    with pytest.raises(datasets.DataError, match="the images are 7x8: expected at least 8x8"):
        datasets.load(str(tmp_path / "a.npz"))


def take(seed, count=8, augment=ALL, start=0, **options):
    x, y = images(20, 8, 9, 3), np.arange(20, dtype=np.int32)
    made = datasets.training_batches(
        x, y, 6, (np.zeros(3, np.float32), np.ones(3, np.float32)), augment, seed, **options
    )
    return [(x.numpy(), y.numpy()) for x, y in made(start).take(count)]


def test_batches_depend_on_the_seed_alone():
    for (x, y), (same_x, same_y) in zip(take(seed=1), take(seed=1), strict=True):
        np.testing.assert_array_equal(x, same_x)
        np.testing.assert_array_equal(y, same_y)
    assert any((y != other).any() for (_, y), (_, other) in zip(take(seed=1), take(seed=2), strict=True))


def test_workers_share_every_batch():
    whole, *parts = (take(seed=1, worker=worker) for worker in (ALONE, Worker(0, 3), Worker(1, 3), Worker(2, 3)))
    for (x, y), *shares in zip(whole, *parts, strict=True):
        for index, (share_x, share_y) in enumerate(shares):
            np.testing.assert_array_equal(share_x, x[index::3])
            np.testing.assert_array_equal(share_y, y[index::3])


def test_workers_share_the_images_to_validate():
    x, y = images(21, 8, 8), np.arange(21, dtype=np.int32)
    shares = [list(datasets.evaluation_batches(x, y, 6, worker=Worker(i, 4)).as_numpy_iterator()) for i in range(4)]
    assert [len(batches) for batches in shares] == [4] * 4
    assert min(len(labels) for batches in shares for _, labels in batches) == 1
    assert sorted(label for batches in shares for _, labels in batches for label in labels) == list(range(21))


def test_batches_from_the_middle_are_those_that_follow():
    whole = take(seed=1)
    for start in (2, 3, 5):  # an epoch has 3
        for (x, y), (same_x, same_y) in zip(whole[start:], take(seed=1, start=start), strict=False):
            np.testing.assert_array_equal(x, same_x)
            np.testing.assert_array_equal(y, same_y)


def test_an_epoch_shows_no_image_twice_and_the_next_is_in_another_order():
    labels = [y for _, y in take(seed=0)]
    first, second = np.concatenate(labels[:3]), np.concatenate(labels[3:6])
    assert len(set(first)) == len(set(second)) == 18
    assert (first != second).any()


def test_augmentation():
    plain = {label: x for xs, ys in take(0, 3, augmentation.Augmentation()) for x, label in zip(xs, ys, strict=True)}
    original = images(20, 8, 9, 3)
    for label, x in plain.items():
        np.testing.assert_array_equal(x, original[label])
    flipped = [
        (x == original[label]).all()
        for xs, ys in take(0, 30, augmentation.Augmentation(flip=True))
        for x, label in zip(xs, ys, strict=True)
        if (x == original[label]).all() or (x == original[label][:, ::-1]).all()
    ]
    assert len(flipped) == 180 and 60 < sum(flipped) < 120
    for xs, _ in take(0, 3, augmentation.Augmentation(cutout=3)):
        assert ((xs == 0).all(axis=-1).sum(axis=(1, 2)) <= 9 + 5).all()
        assert ((xs == 0).all(axis=-1).sum(axis=(1, 2)) >= 4).all()


def test_a_search_splits_the_training_images():
    data = datasets.load("digits")
    _, steps, valid = data.search_batches(32, train_portion=0.25)
    assert steps == len(data.y_train) // 4 // 32
    assert sum(len(y) for _, y in valid) == len(data.y_train) - len(data.y_train) // 4
    with pytest.raises(datasets.DataError, match=r"a batch of 800 is larger than a split .*: expected at most 721"):
        data.search_batches(800)


def test_training_images_are_not_normalised_and_some_may_validate():
    data = datasets.load("digits")
    batches, steps, valid = data.batches(32, augmentation.Augmentation(padding=1, cutout=3), train_portion=0.75)
    held_out = np.concatenate([x for x, _ in valid])
    assert steps == round(0.75 * len(data.y_train)) // 32
    assert len(held_out) == len(data.y_train) - round(0.75 * len(data.y_train))
    mean, _ = data.statistics()
    x, _ = next(iter(batches()))
    values = np.unique(x)
    assert set(values[values != mean]) <= set(range(256)) and mean in values
    assert sum(len(y) for _, y in data.test_batches()) == len(data.y_test)
    with pytest.raises(datasets.DataError, match="there are 144 images to train on: expected at most that"):
        data.batches(145, augmentation.Augmentation(), train_portion=0.1)


def test_images_are_fitted_to_a_model():
    data = datasets.load("digits").fitted((10, 12, 3))
    assert data.image_shape == (10, 12, 3) and (data.x_test[..., 0] == data.x_test[..., 2]).all()
    with pytest.raises(datasets.DataError, match="3 channels: the model expects 1"):
        data.fitted((10, 12, 1))


def test_a_folder_of_train_and_test(tmp_path):
    for split, name, number in (("train", "a", 3), ("train", "b", 2), ("test", "a", 1), ("test", "b", 1)):
        for i in range(number):
            path = tmp_path / split / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tf.io.encode_png(images(1, 8, 8, 3)[0].astype(np.uint8)).numpy())
    data = datasets.load(str(tmp_path))
    assert (len(data.x_train), len(data.x_test), data.class_names) == (5, 2, ["a", "b"])
    (tmp_path / "test" / "c").mkdir()
    (tmp_path / "test" / "c" / "0.png").write_bytes(tf.io.encode_png(np.zeros((8, 8, 1), np.uint8)).numpy())
    with pytest.raises(datasets.DataError, match="train and test differ in the class c"):
        datasets.load(str(tmp_path))


def touch(folder, *places, count=5):
    """Makes folders with empty files in them: what is in a file is nobody's business before it is read."""
    for place, number in itertools.product(places, range(count)):
        path = folder / place / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize(
    "places, train, test",
    [
        (["Train/a", "Train/b", "Test/a", "Test/b"], 10, 10),
        (["Training/a", "Training/b", "Testing/a", "Testing/b"], 10, 10),
        (["train/a", "train/b", "eval/a", "eval/b"], 10, 10),
        (["TRAIN/a", "TRAIN/b", "Validation/a", "Validation/b", "annotations"], 10, 10),
        (["train/a", "train/b", "test", "val/a", "val/b"], 10, 10),  # the test images have no labels
        (["train/a", "train/b", "test/a", "test/b", "val/a"], 10, 10),
        (["a", "b", "train"], 12, 3),
        (["a", "a/.hidden", "a/deep/.hidden", "b", ".hidden"], 8, 2),
    ],
)
def test_splits(places, train, test, tmp_path):
    touch(tmp_path, *places)
    found = folders.image_files(tmp_path)
    assert ((~found.test).sum(), found.test.sum()) == (train, test)
    assert found.class_names == ["a", "b"] or "train" in places
    used = {os.path.relpath(file, tmp_path).split(os.sep)[0] for file in found.files}
    assert any(f"{tmp_path / 'val'}: not used" in note for note in found.notes) == (
        "val/a" in places and "val" not in used
    )


@pytest.mark.parametrize(
    "places, message",
    [
        (["train/a", "train/b"], "its folder train has none for testing beside it"),
        (["Testing/a", "Testing/b"], "its folder Testing has none to train on"),
        (["a", "b", "val"], "its folder val has none to train on"),
        (["Training", "Testing"], "its folder Training has no folders of classes"),
        (["train/a", "train/b", "test"], "its folder test has no folders of classes .*/train every fifth"),
        (["train/a", "train/b", "Train/a", "test/a"], "folders Train and train: expected one"),
        (["train/a", "train/b", "test/a", "testing/a"], "folders test and testing: expected one"),
        (["train/a", "train/b", "test/a", "test/B"], "train and test differ in the class B"),
        (["a\nb", "c"], r"the class 'a\\nb': expected a name without line breaks"),
        (["a\u2028b", "c"], r"the class 'a\\u2028b'"),
        (["a\udcff", "c"], r"the class 'a\\udcff'"),
    ],
)
def test_what_is_no_split_and_no_class(places, message, tmp_path):
    touch(tmp_path, *places)
    with pytest.raises(datasets.DataError, match=message):
        folders.image_files(tmp_path)


def test_what_is_no_image(tmp_path):
    touch(tmp_path, "a", "b", "c")
    for number in range(3):
        (tmp_path / "c" / f"{number}.png").unlink()
    (tmp_path / "a" / "notes.txt").touch()
    (tmp_path / "README").touch()
    (tmp_path / "a" / "up").symlink_to(tmp_path / "a")
    found = folders.image_files(tmp_path)
    assert len(found.files) == 12
    assert found.notes == [
        "The class c: fewer than 5 images, none of which is for testing.",
        "Files that are not used, of other kinds or outside of the classes' folders: 1 without a suffix, 1 .txt.",
    ]
    for make, message in (
        (os.mkfifo, "is no file but a pipe"),
        (lambda path: path.symlink_to("/dev/zero"), "is no file but a pipe, a socket or a device"),
        (lambda path: path.symlink_to("nothing"), r"cannot be read \(No such file"),
        (lambda path: path.symlink_to(path), "cannot be read"),
    ):
        make(tmp_path / "b" / "x.png")
        with pytest.raises(datasets.DataError, match=rf"b/x.png {message}"):
            folders.image_files(tmp_path)
        (tmp_path / "b" / "x.png").unlink()


def test_every_fifth_of_many_labels():
    labels = np.random.default_rng(0).integers(0, 9, 500)
    test = folders.every_fifth(labels)
    for label in range(9):
        assert np.flatnonzero(test[labels == label]).tolist() == list(range(4, (labels == label).sum(), 5))
    assert folders.every_fifth(np.tile(np.arange(200_000), 5)).sum() == 200_000  # not label by label


def encoded(image, kind, **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def test_all_kinds_of_images(tmp_path):
    """Pixels are Pillow's, but for JPEG."""
    colour = Image.fromarray(images(1, 3, 4, 3)[0]).resize((12, 9))
    grey, several = colour.convert("L"), {"save_all": True, "append_images": [Image.new("RGB", (12, 9))]}
    few, turned = colour.quantize(16), Image.Exif()
    turned[0x0112] = 6  # which says that the image lies on its side
    table = [
        (encoded(colour, "WEBP", lossless=True), colour),
        (encoded(colour.convert("RGBA"), "WEBP", lossless=True), colour),
        (encoded(colour, "WEBP", lossless=True, **several), colour),
        (encoded(few, "GIF", **several), few),
        (encoded(few, "PNG", transparency=3), few),
        (encoded(few, "BMP"), few),
        (encoded(grey.convert("1"), "BMP"), grey.convert("1")),
        (encoded(colour.convert("RGBA"), "BMP"), colour),
        (encoded(colour.convert("RGBA"), "PNG"), colour),
        (encoded(grey.convert("LA"), "PNG"), grey),
        (encoded(Image.fromarray(np.asarray(grey).astype(np.uint16) << 8), "PNG"), grey),
        (encoded(colour.convert("CMYK"), "JPEG", quality=100), None),
        (encoded(colour, "JPEG", exif=turned), None),
    ]
    for number, (content, _) in enumerate(table):
        (tmp_path / f"{number}.png").write_bytes(content)
    read = sources.OnDisk([tmp_path / f"{number}.png" for number in range(len(table))])
    assert read.shape == (len(table), 9, 12, 3) and read.dtype == np.uint8
    for image, (_, expected) in zip(read.array(), table, strict=True):
        if expected:
            np.testing.assert_array_equal(image, np.asarray(expected.convert("RGB")))
    assert sources.OnDisk([tmp_path / "9.png", tmp_path / "10.png"]).shape == (2, 9, 12, 1)


@pytest.mark.parametrize("damage", [b"", b"no image", "half", "huge"])
def test_damaged_images_are_named(damage, tmp_path):
    whole = encoded(Image.fromarray(images(1, 9, 9, 3)[0]), "PNG")
    touch(tmp_path, "a", "b")
    for file in tmp_path.glob("*/*.png"):
        file.write_bytes(whole)
    huge = whole[:16] + b"\0\1\0\0\0\1\0\0" + whole[24:]  # says that it is 65536x65536
    content = {"half": whole[: len(whole) // 2], "huge": huge}.get(damage, damage)
    (tmp_path / "b" / "4.png").write_bytes(content)
    with pytest.raises(datasets.DataError, match=r"b/4\.png is not a readable image.*expected PNG"):
        datasets.load(str(tmp_path), image_size=8)
    with pytest.raises(datasets.DataError, match=r"b/4\.png is not a readable image.*expected PNG"):
        datasets.load(str(tmp_path), image_size=8, stream=True).read(lambda chunks, *_: chunks)


def test_no_trace_per_image_and_what_is_told(folder, monkeypatch):
    traced, told, resize = [], [], tf.image.resize
    monkeypatch.setattr(tf.image, "resize", lambda *args, **options: traced.append(1) or resize(*args, **options))
    assert datasets.load(str(folder), tell=told.append).image_shape == (32, 32, 3)
    assert len(traced) < 7  # the number of images
    assert told[-1] == "Images of 3 sizes, 10x10 to 20x8, are resized to 32x32 (--image_size)."


def whole_npz(**changes):
    whole = {"x_train": images(6, 8, 8), "y_train": np.arange(6) % 3, "x_test": images(3, 8, 8), "y_test": np.arange(3)}
    return {name: value for name, value in (whole | changes).items() if value is not None}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"y_train": np.array(list("abcabc"))}, "labels are <U1: expected integers"),
        ({"y_train": np.arange(6.0)}, "labels are float64: expected integers"),
        ({"y_train": np.eye(6, dtype=int)}, r"labels are \[6, 6\]: expected one integer per image"),
        ({"y_train": np.arange(6) - 1}, "a label is -1: expected integers from 0"),
        ({"y_train": np.arange(6) + 2**33}, "a label is 8589934597: expected integers"),
        ({"y_train": np.arange(0)}, "6 images but 0 labels"),
        ({"x_train": images(6, 8, 8, 0)}, "expected images"),
        *(
            ({"x_train": images(6, 8, 8).astype(kind)}, "expected images .* of uint8")
            for kind in ("g", "m8[s]", "complex64", "bool", "uint32", "uint64", "U3")
        ),
        ({"x_train": images(6, 8, 8) * 1e300}, "NaN or infinite"),
        ({"x_train": np.array([None], object)}, "x_train is an array of Python objects"),
        ({"class_names": np.array(["a", "b"])}, "class_names are <U1.*at least 3 texts"),
        ({"class_names": np.arange(3)}, "class_names are int64.*at least 3 texts"),
        ({"class_names": np.array(["a", "b", "b"])}, "two classes called b"),
        ({"class_names": np.array(["a", "b", "\n"])}, "the class"),
        ({"class_names": np.array(["a", "b", ""])}, "the class ''"),
    ],
)
def test_unusable_arrays(changes, message, tmp_path):
    np.savez(tmp_path / "a.npz", **whole_npz(**changes))
    with pytest.raises(datasets.DataError, match=message):
        datasets.load(str(tmp_path / "a.npz"))


def test_unusable_archives(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"

    def refused(message):
        with pytest.raises(datasets.DataError, match=message):
            datasets.load(str(path))

    np.savez(path, **whole_npz())
    good = path.read_bytes()
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("the size was not looked at first"))
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    with zipfile.ZipFile(path, "w") as archive:
        for name in whole_npz():
            archive.writestr(f"{name}.npy", header.getvalue())
    refused(r"x_train says that it is float64\[1000000000000\]")
    monkeypatch.undo()
    for content in (b"", b"no archive", good[: len(good) // 2], good.replace(b"PK\x01\x02", b"PK\x00\x02")):
        path.write_bytes(content)
        refused("not a readable .npz file")
    with path.open("wb") as file:
        np.save(file, images(6, 8, 8))
    refused("not a readable .npz file")
    path.unlink()
    os.mkfifo(path)
    refused("no such file")


def test_names_of_classes_in_an_archive(tmp_path):
    np.savez(tmp_path / "a.npz", **whole_npz(class_names=np.array(["cat", "dog", "fox"])))
    assert datasets.load(str(tmp_path / "a.npz")).class_names == ["cat", "dog", "fox"]


@pytest.mark.parametrize("name", ["", " ", "x" * 300, "loop"])
def test_names_of_no_dataset(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    touch(tmp_path, "a", "b")
    with pytest.raises(datasets.DataError, match="expected digits, a folder"):
        datasets.load(name)


def test_statistics_are_those_of_all_pixels_at_once():
    for x in (images(700, 9, 8, 3), images(700, 9, 8, 1).astype(np.float32) / 7 + 1e3):
        labels = np.arange(len(x)) % 2
        mean, std = datasets.Dataset(x, labels, x, labels, ["a", "b"]).statistics()
        pixels = x.reshape(-1, x.shape[-1]).astype(np.float64)
        np.testing.assert_array_equal(mean, pixels.mean(axis=0).astype(np.float32))
        np.testing.assert_array_equal(std, pixels.std(axis=0).astype(np.float32))


def test_more_than_the_memory_is_refused(monkeypatch):
    read = sources.InMemory(images(4, 8, 8, 1))
    read.shape = (10**9, 1000, 1000, 3)
    with pytest.raises(datasets.DataError, match=r"it takes 3,000,000.0 GB of memory.* expected --stream"):
        read.array()


@pytest.mark.slow
def test_names_of_classes_do_not_depend_on_the_locale(tmp_path):
    for name in ("größe", "日本"):
        (tmp_path / name).mkdir()
        for index in range(5):
            (tmp_path / name / f"{index}.png").write_bytes(b"")
    code = "import pathlib, sys; from darts_tf.data import folders; "
    code += "print(ascii(folders.image_files(pathlib.Path(sys.argv[1])).class_names))"
    environ = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environ, capture_output=True, text=True)
    assert done.stdout.strip() == ascii(["größe", "日本"]), done.stderr


@pytest.mark.parametrize("devices", [2, 3, 8])
def test_every_device_gets_an_image_of_every_batch(devices):
    images = np.zeros((40, 8, 8, 1), np.uint8)
    for count in range(devices, 41):
        batches = datasets.evaluation_batches(images[:count], np.arange(count), 8, devices=devices)
        labels = [y.numpy() for _, y in batches]
        assert min(map(len, labels)) >= devices and np.concatenate(labels).tolist() == list(range(count))
    with pytest.raises(datasets.DataError, match=f"1 images to validate on are fewer than {devices} devices"):
        datasets.evaluation_batches(images[:1], np.zeros(1), 8, devices=devices)
