import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from darts_tf import augmentation, datasets
from darts_tf.workers import ALONE, Worker


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
    tfds.dataset_builders.store_as_tfds_dataset(
        name="tiny", config="plain", version="1.0.0", data_dir=tmp_path, features=features,
        split_datasets={"train": train, "test": test},
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
    _, steps, valid = datasets.search_batches(data, 32, train_portion=0.25)
    assert steps == len(data.y_train) // 4 // 32
    assert sum(len(y) for _, y in valid) == len(data.y_train) - len(data.y_train) // 4
    with pytest.raises(datasets.DataError, match=r"a batch of 800 is larger than a split .*: expected at most 721"):
        datasets.search_batches(data, 800)


def test_training_images_are_not_normalised_and_some_may_validate():
    data = datasets.load("digits")
    batches, steps, valid = data.batches(32, augmentation.Augmentation(padding=1, cutout=3), portion=0.75)
    held_out = np.concatenate([x for x, _ in valid])
    assert steps == round(0.75 * len(data.y_train)) // 32
    assert len(held_out) == len(data.y_train) - round(0.75 * len(data.y_train))
    mean, _ = data.statistics()
    x, _ = next(iter(batches()))
    values = np.unique(x)
    assert set(values[values != mean]) <= set(range(256)) and mean in values
    assert sum(len(y) for _, y in data.test_batches()) == len(data.y_test)
    with pytest.raises(datasets.DataError, match="there are 144 images to train on: expected at most that"):
        data.batches(145, augmentation.Augmentation(), portion=0.1)


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
