"""What happens to images in training, and to their labels."""

import math

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from darts_tf.data import augmentation, datasets, streams, tasks
from darts_tf.data.augmentation import GREY, MOST, OPERATIONS, Augmentation

X = np.random.default_rng(0).integers(30, 200, (20, 11, 12, 3), np.uint8)
Y = np.arange(20, dtype=np.int32) % 3


def of_pillow(name, sign, factor):
    """An operation as Pillow has it, of magnitude 9: a function of an image."""
    options = {"resample": Image.Resampling.BILINEAR, "fillcolor": (int(GREY),) * 3}

    def moved(*data):
        return lambda image: image.transform(image.size, Image.Transform.AFFINE, data, **options)

    return {
        "identity": lambda image: image,
        "shear_x": moved(1, 0.09 * sign, -0.09 * sign * 5.5, 0, 1, 0),
        "shear_y": moved(1, 0, 0, 0.09 * sign, 1, -0.09 * sign * 6),
        "translate_x": moved(1, 0, sign * 0.3 * 150 / 331 * 12, 0, 1, 0),
        "translate_y": moved(1, 0, 0, 0, 1, sign * 0.3 * 150 / 331 * 11),
        "rotate": lambda image: image.rotate(-9 * sign, **options),
        "brightness": lambda image: ImageEnhance.Brightness(image).enhance(factor),
        "color": lambda image: ImageEnhance.Color(image).enhance(factor),
        "contrast": lambda image: ImageEnhance.Contrast(image).enhance(factor),
        "sharpness": lambda image: ImageEnhance.Sharpness(image).enhance(factor),
        "posterize": lambda image: ImageOps.posterize(image, 7),
        "solarize": lambda image: ImageOps.solarize(image, 179),
        "autocontrast": ImageOps.autocontrast,
        "equalize": ImageOps.equalize,
    }[name]


@pytest.mark.parametrize("backwards", [False, True])
def test_operations_are_those_of_pillow(backwards):
    """In one batch, each image by another one; Pillow rounds to bytes."""
    sign, factor = (-1, 0.73) if backwards else (1, 1.27)
    chosen = tf.range(len(OPERATIONS))
    x = tf.constant(X[: len(OPERATIONS)], tf.float32)
    found = augmentation._operation(x, chosen, tf.fill(chosen.shape, backwards), 9 / MOST).numpy()
    for name, image, result in zip(OPERATIONS, X, found, strict=False):
        expected = np.asarray(of_pillow(name, sign, factor)(Image.fromarray(image)), np.float32)
        inner = slice(2, -2) if OPERATIONS.index(name) in range(1, 6) else slice(None)  # those that move pixels
        np.testing.assert_allclose(result[inner, inner], expected[inner, inner], atol=2, err_msg=name)


def batches(augment, start=0, count=4):
    made = datasets.training_batches(X, Y, 6, (0.0, 1.0), augment, seed=3, classes=3)
    return [(x.numpy(), y.numpy()) for x, y in made(start).take(count)]


def test_what_is_drawn_depends_on_the_seed_and_the_step_alone():
    augment = Augmentation(2, True, 3, randaugment=2, magnitude=15.0, mixup=0.2, cutmix=1.0)
    whole = batches(augment)
    for (x, y), (same_x, same_y) in zip(whole[2:], batches(augment, start=2, count=2), strict=True):
        np.testing.assert_array_equal(x, same_x)
        np.testing.assert_array_equal(y, same_y)
    assert whole[0][0].shape == (6, 11, 12, 3) and whole[0][1].shape == (6, 3)


def test_randaugment_changes_each_image_in_its_own_way():
    plain, changed = (batches(Augmentation(randaugment=n), count=3) for n in (0, 1))
    differ = [(x != z).any((1, 2, 3)) for (x, _), (z, _) in zip(plain, changed, strict=True)]
    assert 9 < np.sum(differ) < 18  # of 18 images some are left alone


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_images_and_labels_are_mixed_alike(kind):
    parts = []
    for (x, y), (mixed, labels) in zip(
        batches(Augmentation(), count=12), batches(Augmentation(**{kind: 1.0}), count=12), strict=True
    ):
        one_hot, others = np.eye(3)[y], np.roll(x, 1, 0)
        if kind == "mixup":
            part = float(np.sum((mixed - others) * (x - others)) / np.sum((x - others) ** 2))
            np.testing.assert_allclose(mixed, part * x + (1 - part) * others, atol=1e-3)
        else:
            own, other = (mixed == x).all(-1), (mixed == others).all(-1)
            assert (own | other).all() and (other == other[0]).all()
            rows, columns = other[0].any(1), other[0].any(0)
            assert (other[0] == rows[:, None] & columns).all()  # a rectangle
            part = 1 - other[0].mean()
        np.testing.assert_allclose(labels, part * one_hot + (1 - part) * np.roll(one_hot, 1, 0), atol=1e-5)
        parts.append(part)
    assert max(parts) - min(parts) > 0.2 and len(set(parts)) > 6


def test_shares_are_of_the_beta_distribution_and_half_of_the_batches_are_mixed_in_either_way():
    x, y = tf.reshape(tf.range(128.0), [2, 8, 8, 1]), tf.constant([0, 1])

    def drawn(seeds, **alphas):
        return tf.map_fn(
            lambda seed: Augmentation(**alphas).mixed(x, y, 2, tf.stack([seed, 0])),
            tf.range(seeds),
            fn_output_signature=(tf.float32, tf.float32),
        )

    _, labels = tf.function(lambda: drawn(2000, mixup=0.2))()
    shares = labels[:, 0, 0].numpy()
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(1 / (4 * (2 * 0.2 + 1)), abs=0.01)
    images, _ = tf.function(lambda: drawn(400, mixup=100.0, cutmix=100.0))()
    covered = np.isin(images[:, 0].numpy().reshape(400, -1), x).all(1)  # pixels of one image or the other
    assert 0.4 < covered.mean() < 0.6


def test_the_loss_and_the_accuracy_take_mixtures_and_classes():
    task = tasks.ImageClassification((8, 8, 3), 3)
    logits = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    y, shares = np.array([0, 1, 2, 1, 0]), np.random.default_rng(2).dirichlet([1, 1, 1], 5).astype(np.float32)
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    for smooth in (0.0, 0.1):
        for labels, whole in ((y, np.eye(3)[y]), (shares, shares)):
            expected = -(((1 - smooth) * whole + smooth / 3) * logs).sum(1)
            weights = np.arange(5, dtype=np.float32)
            assert float(task.loss(smooth)(labels, logits)) == pytest.approx(expected.mean(), rel=1e-5)
            assert float(task.loss(smooth)(labels, logits, weights)) == pytest.approx(
                (weights * expected).mean(), rel=1e-5
            )
    (accuracy,) = task.metrics()
    accuracy.update_state(tf.constant(y), logits)
    accuracy.update_state(tf.constant(shares), logits)
    right = [*(logits.argmax(1) == y), *(logits.argmax(1) == shares.argmax(1))]
    assert float(accuracy.result()) == pytest.approx(np.mean(right)) and accuracy.name == "accuracy"


def test_streamed_images_are_mixed(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for place in range(5):
            (tmp_path / name / f"{place}.png").write_bytes(tf.io.encode_png(X[place]).numpy())
    made, _, _ = streams.load(str(tmp_path), 8).batches(4, Augmentation(randaugment=1, mixup=math.pi))
    (_, y), *_ = made().take(1)
    np.testing.assert_allclose(y.numpy().sum(1), 1, rtol=1e-5)
    assert y.shape == (4, 2) and 0 < float(tf.reduce_max(y)) <= 1
