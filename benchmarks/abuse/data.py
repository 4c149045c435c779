"""Attempts against what reads images: folders, splits, files of all kinds, archives, names."""

import io
import itertools
import os
import socket
import struct
import unicodedata
import zipfile
import zlib

import numpy as np
from PIL import Image

from benchmarks.abuse import Attempt, B

SEARCH = ("darts_tf.search", *B, "--epochs=1", "--batch_size=2", "--output=run")
TRAIN = (
    *("darts_tf.train", "--arch=DARTS_V2", "--epochs=1", "--batch_size=2", "--layers=1", "--init_channels=4"),
    *("--noauxiliary", "--output=run"),
)
IMAGENET = ("--recipe=imagenet", "--image_size=32", "--network=cifar")


def attempts():
    """Yields all of them."""
    for kind in (splits, no_splits, oddities, damaged, formats, names, archives, sizes, streams):
        yield from kind()


def picture(number=0, size=(10, 12), mode="RGB"):
    """A picture of few colours, another for each number."""
    random = np.random.default_rng(number)
    return Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8)).convert(mode)


def save(path, number=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(number, **options).save(path)


def classes(folder, *names, count=5):
    """Makes folders of classes with some images each."""
    for name, number in itertools.product(names, range(count)):
        save(folder / name / f"{number}.png", number)


def encoded(image, kind, **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def no_run(folder, stdout, stderr):
    if (folder / "run").exists():
        return "it left a run directory"
    lines = [line for line in stderr.splitlines() if line.startswith("error:")]
    return None if len(lines) == 1 else f"{len(lines)} lines of errors"


def refused(name, prepare, says, command=SEARCH, dataset="set", flags=(), **more):
    return Attempt(name, [*command, f"--dataset={dataset}", *flags], prepare=prepare, says=says, check=no_run, **more)


def loaded(name, prepare, wrong, dataset="set", **options):
    """An attempt that is to be read; `wrong` is a function of the `Dataset` and the folder -> None or a sentence."""

    def call(folder):
        from darts_tf.data import datasets

        return wrong(datasets.load(str(folder / dataset) if dataset else dataset, **options), folder)

    return Attempt(name, call=call, prepare=prepare)


def of(train, test, names=("a", "b")):
    """Function of a dataset that compares its numbers of images and its classes."""

    def wrong(data, folder):
        found = len(data.y_train), len(data.y_test), tuple(data.class_names)
        return None if found == (train, test, tuple(names)) else f"it found {found}"

    return wrong


def splits():
    pairs = [
        *(("Train", "Test"), ("Training", "Testing"), ("train", "eval"), ("TRAIN", "TEST"), ("train", "val")),
        *(("train", "valid"), ("train", "validation"), ("training", "validation"), ("Train", "Validation")),
        *(("train", "TESTING"), ("training", "test"), ("Training", "Val"), ("tRaIn", "Eval")),
    ]
    for train, test in pairs:

        def prepare(folder, train=train, test=test):
            classes(folder / "set" / train, "a", "b", count=3)
            classes(folder / "set" / test, "a", "b", count=1)

        yield loaded(f"split {train} and {test}", prepare, of(6, 2))

    def with_both(folder):
        classes(folder / "set/train", "a", "b")
        classes(folder / "set/val", "a", "b", count=2)
        classes(folder / "set/test", "a", "b", count=1)

    yield loaded("split with val and test: test counts", with_both, of(10, 2))
    yield Attempt(
        "split with val and test: it is said",
        [*SEARCH, "--dataset=set", "--batch_size=99"],
        prepare=with_both,
        says=r"set/val: not used",
        check=no_run,
    )

    def flat_test(folder):
        classes(folder / "set/train", "a", "b")
        classes(folder / "set/val", "a", "b", count=1)
        classes(folder / "set", "test")

    yield loaded("split with val of classes and a flat test", flat_test, of(10, 2))

    def annotated(folder):
        classes(folder / "set/train", "a", "b")
        classes(folder / "set/test", "a", "b", count=1)
        (folder / "set/annotations").mkdir()
        (folder / "set/annotations/a.xml").write_text("<a/>")

    yield loaded("split beside annotations", annotated, of(10, 2))

    def hidden(folder):
        for path in ("set/train", "set/test"):
            classes(folder / path, "a", "b", ".ipynb_checkpoints")
            classes(folder / path / "a", ".ipynb_checkpoints", count=3)

    yield loaded("split with hidden folders at two depths", hidden, of(10, 10))

    def linked(folder):
        classes(folder / "elsewhere", "a", "b")
        (folder / "set").mkdir()
        (folder / "set/train").symlink_to(folder / "elsewhere")
        (folder / "set/test").symlink_to(folder / "elsewhere")

    yield loaded("split by links", linked, of(10, 10))
    yield loaded(
        "a class called train",
        lambda folder: classes(folder / "set", "bus", "car", "train"),
        of(12, 3, ("bus", "car", "train")),
    )
    yield loaded(
        "a class called Training, nested in no folder",
        lambda folder: classes(folder / "set", "Resting", "Training"),
        of(8, 2, ("Resting", "Training")),
    )


def no_splits():
    table = {
        "only train": (["train/a", "train/b"], "train"),
        "only Training": (["Training/a", "Training/b"], "Training"),
        "only test": (["test/a", "test/b"], "test"),
        "only val": (["val/a", "val/b"], "val"),
        "val and test": (["val/a", "val/b", "test/a", "test/b"], "test"),
        "train and test without classes": (["train", "test"], "no folders of classes"),
        "Training and Testing without classes": (["Training", "Testing"], "no folders of classes"),
        "train of classes and a flat test": (["train/a", "train/b", "test"], "test has no folders of classes"),
        "train of classes and a flat validation": (["train/a", "train/b", "validation"], "validation has no folders"),
        "a flat train and test of classes": (["train", "test/a", "test/b"], "train has no folders of classes"),
        "Train twice": (["Train/a", "Train/b", "train/a", "train/b", "test/a", "test/b"], "Train and train"),
        "train and training": (["train/a", "train/b", "training/a", "test/a", "test/b"], "train and training"),
        "test twice": (["train/a", "train/b", "Test/a", "Test/b", "test/a", "test/b"], "Test and test"),
        "test and testing": (["train/a", "train/b", "testing/a", "test/a", "test/b"], "test and testing"),
        "val twice": (["train/a", "train/b", "val/a", "val/b", "valid/a", "valid/b"], "val and valid"),
        "classes beside test": (["cats", "dogs", "test"], "test"),
        "classes beside val": (["cats", "dogs", "val"], "val"),
        "classes beside Testing": (["cats", "dogs", "Testing"], "Testing"),
        "train and test differ": (["train/a", "train/b", "test/a", "test/c"], "differ in the class"),
        "train and test differ in case": (["train/a", "train/b", "test/a", "test/B"], "differ in the class"),
        "one class in train and test": (["train/a", "test/a"], "only the folder a"),
        "flat train twice": (["train", "Train"], "Train and train"),
    }
    for name, (folders, says) in table.items():

        def prepare(folder, folders=folders):
            classes(folder / "set", *folders)

        yield refused(f"no split: {name}", prepare, rf"error: --dataset=set: .*{says}.*expected")

    def empty_test(folder):
        classes(folder / "set/train", "a", "b")
        (folder / "set/test").mkdir()

    yield refused("no split: an empty test", empty_test, "test has no folders of classes")

    def empty_class(folder):
        classes(folder / "set/train", "a", "b")
        classes(folder / "set/test", "a")
        (folder / "set/test/b").mkdir()

    yield refused("no split: an empty class in test", empty_class, "no images in its folder b")


def oddities():
    """Things in folders that are no images; they are images of class a that would be trained on, or for testing."""

    def pipe(path):
        os.mkfifo(path)

    def plug(path):
        server = socket.socket(socket.AF_UNIX)
        folder = os.open(path.parent, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{folder}/{path.name}")  # whose length is limited otherwise
        server.close()
        os.close(folder)

    table = {
        "a pipe": pipe,
        "a socket": plug,
        "a device": lambda path: path.symlink_to("/dev/zero"),
        "a link to nothing": lambda path: path.symlink_to("nothing.png"),
        "a link to itself": lambda path: path.symlink_to(path),
    }
    for (name, make), command in itertools.product(table.items(), (SEARCH, (*SEARCH, "--stream"))):
        place = "a/1.png" if command == SEARCH else "b/4.png"

        def prepare(folder, make=make, place=place):
            classes(folder / "set", "a", "b")
            (folder / "set" / place).unlink()
            make(folder / "set" / place)

        how = "streamed" if "--stream" in command else "read"
        yield refused(f"{name} among the images, {how}", prepare, place, command, timeout=30)

    def loop(folder):
        classes(folder / "set", "a", "b")
        (folder / "set/a/again").symlink_to(folder / "set/a")
        (folder / "set/a/up").symlink_to(folder / "set")

    yield loaded("links that go round in circles", loop, lambda data, _: None if len(data.y_train) < 16 else "twice")

    def folder_of_png(folder):
        classes(folder / "set", "a", "b")
        classes(folder / "set/a", "inside.png", count=5)

    yield loaded("a folder called inside.png", folder_of_png, of(12, 3))

    def hidden(folder):
        classes(folder / "set", "a", "b", ".git")
        classes(folder / "set/a", ".ipynb_checkpoints", count=9)
        classes(folder / "set/a/deep", ".thumbnails", count=9)
        (folder / "set/a/._0.png").write_bytes(b"of a Mac")

    yield loaded("hidden files and folders at all depths", hidden, of(8, 2))

    def others(folder):
        classes(folder / "set", "a", "b")
        for name in ("a/notes.txt", "a/Thumbs.db", "b/0.tiff", "README", "labels.csv"):
            (folder / "set" / name).write_text("no image")

    yield Attempt(
        "other files are counted",
        [*SEARCH, "--dataset=set", "--batch_size=99"],
        prepare=others,
        says=r"not used.*: .*1 \.txt",
        check=no_run,
    )
    yield refused("an empty folder", lambda folder: (folder / "set").mkdir(), "no folders in it")
    yield refused("images without folders", lambda folder: save(folder / "set/0.png"), "no folders in it")
    yield refused("one class", lambda folder: classes(folder / "set", "a"), "only the folder a")

    def empty_class(folder):
        classes(folder / "set", "a", "b")
        (folder / "set/c").mkdir()

    yield refused("a class without images", empty_class, "no images in its folder c")
    yield refused(
        "a class of hidden images",
        lambda folder: (classes(folder / "set", "a", "b"), save(folder / "set/c/.hidden.png")),
        "no images in its folder c",
    )


def png(width, height, pixels, depth=8, colour=2):
    """A PNG file of these bytes of pixels, whatever its header says."""

    def part(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(pixels)) + part(b"IEND", b"")


def damaged():
    whole = {kind: encoded(picture(size=(40, 50)), kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP")}
    table = {
        "zero bytes .png": b"",
        "zero bytes .webp": b"",
        "text .png": b"no image",
        "HTML .jpg": b"<!DOCTYPE html><html>404</html>",
        "zeros .png": bytes(1000),
        "half a PNG .png": whole["PNG"][: len(whole["PNG"]) // 2],
        "half a JPEG .jpg": whole["JPEG"][: len(whole["JPEG"]) // 2],
        "half a GIF .gif": whole["GIF"][: len(whole["GIF"]) // 2],
        "half a BMP .bmp": whole["BMP"][: len(whole["BMP"]) // 2],
        "half a WebP .webp": whole["WEBP"][: len(whole["WEBP"]) // 2],
        "only the start of a JPEG .jpg": whole["JPEG"][:30],
        "only the start of a PNG .png": whole["PNG"][:30],
        "a PNG without pixels .png": png(40, 50, b""),
        "a PNG that promises 60000x60000 .png": png(60000, 60000, b"0"),
        "a PNG of 0x0 .png": png(0, 0, b""),
        "a PDF .png": b"%PDF-1.4\n" + bytes(500),
        "PostScript .png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n/x {loop} def\n%%EOF\n",
        "an SVG .png": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    }
    for name, content in table.items():
        kind = name.rpartition(" ")[2]
        for how, place in (("read", "a/1"), ("streamed", "b/4")):

            def prepare(folder, content=content, place=place + kind):
                classes(folder / "set", "a", "b")
                (folder / "set" / place).with_suffix(".png").unlink()
                (folder / "set" / place).write_bytes(content)

            flags = ["--image_size=16", *(["--stream"] if how == "streamed" else [])]
            yield refused(f"{name}, {how}", prepare, f"set/{place}{kind} .*expected", flags=flags)


def formats():
    rgb = picture(3, (3, 4)).resize((40, 30))
    grey = np.asarray(rgb.convert("L")).astype(int)
    wide = Image.fromarray((grey * 257).astype(np.uint16))
    several = {"save_all": True, "append_images": [picture(4, (30, 40))]}
    rotated = Image.Exif()
    rotated[0x0112] = 6
    table = {  # bytes, suffix, what is expected, how far off it may be
        "WebP": (encoded(rgb, "WEBP", lossless=True), ".webp", rgb, 0),
        "WebP, upper case": (encoded(rgb, "WEBP", lossless=True), ".WEBP", rgb, 0),
        "WebP with transparency": (encoded(rgb.convert("RGBA"), "WEBP", lossless=True), ".webp", rgb, 0),
        "WebP that moves": (encoded(rgb, "WEBP", lossless=True, **several), ".webp", rgb, 0),
        "WebP that moves, called PNG": (encoded(rgb, "WEBP", lossless=True, **several), ".png", rgb, 0),
        "GIF that moves": (encoded(rgb.quantize(64), "GIF", **several), ".gif", rgb.quantize(64), 0),
        "16-bit PNG": (encoded(wide, "PNG"), ".png", rgb.convert("L"), 1),
        "1-bit PNG": (encoded(rgb.convert("1"), "PNG"), ".png", rgb.convert("1").convert("L"), 0),
        "PNG with a palette": (encoded(rgb.quantize(64), "PNG"), ".png", rgb.quantize(64), 0),
        "PNG with a transparent colour": (
            *(encoded(rgb.quantize(64), "PNG", transparency=3), ".png", rgb.quantize(64), 0),
        ),
        "PNG with transparency": (encoded(rgb.convert("RGBA"), "PNG"), ".png", rgb, 0),
        "grey PNG with transparency": (encoded(rgb.convert("LA"), "PNG"), ".png", rgb.convert("L"), 0),
        "PNG called JPEG": (encoded(rgb, "PNG"), ".jpg", rgb, 0),
        "BMP with a palette": (encoded(rgb.quantize(64), "BMP"), ".bmp", rgb.quantize(64), 0),
        "1-bit BMP": (encoded(rgb.convert("1"), "BMP"), ".bmp", rgb.convert("1").convert("L"), 0),
        "32-bit BMP": (encoded(rgb.convert("RGBA"), "BMP"), ".bmp", rgb, 0),
        "grey BMP": (encoded(rgb.convert("L"), "BMP"), ".bmp", rgb.convert("L"), 0),
        "JPEG of four inks": (encoded(rgb.convert("CMYK"), "JPEG", quality=100), ".jpg", rgb, 60),
        "progressive JPEG": (encoded(rgb, "JPEG", progressive=True, quality=100), ".JPG", rgb, 60),
        "grey JPEG": (encoded(rgb.convert("L"), "JPEG", quality=100), ".jpeg", rgb.convert("L"), 20),
        "JPEG that says it lies on its side": (
            *(encoded(rgb, "JPEG", quality=100, subsampling=0, exif=rotated), ".jpg", rgb, 20),
        ),
        "JPEG of several pictures": (encoded(rgb, "MPO", quality=100, subsampling=0, **several), ".jpg", rgb, 20),
    }
    for name, (content, suffix, image, distance) in table.items():
        pixels = np.asarray(image if image.mode == "L" else image.convert("RGB")).astype(int)
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels

        def prepare(folder, content=content, suffix=suffix):
            for label, number in itertools.product("ab", range(5)):
                path = folder / "set" / label / f"{number}{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)

        def wrong(data, folder, pixels=pixels, distance=distance):
            if data.image_shape != pixels.shape:
                return f"the images are {data.image_shape}"
            off = np.abs(data.x_train.astype(int) - pixels).max()
            return None if off <= distance else f"pixels are {off} off"

        yield loaded(name, prepare, wrong)

    def mixed(folder):
        for label, (number, mode) in itertools.product("ab", enumerate(("L", "RGB", "RGBA", "LA", "1"))):
            save(folder / "set" / label / f"{number}.png", number, mode=mode)

    def is_grey(data, folder):
        if data.image_shape != (10, 12, 3):
            return f"the images are {data.image_shape}"
        return None if (np.ptp(data.x_train[0], axis=-1) == 0).all() else "the grey image has colours"

    yield loaded("grey, colour and transparency together", mixed, is_grey)

    def narrow(folder):
        classes(folder / "set", "a", "b")
        save(folder / "set/a/0.png", size=(10, 1))
        save(folder / "set/b/4.png", size=(1, 1))
        save(folder / "set/b/3.png", size=(3, 5000))

    for size in (None, 16, (8, 30)):
        yield loaded(f"images one pixel wide and very long ones, to {size}", narrow, of(8, 2), image_size=size)
    yield Attempt(
        "what happens to images of several sizes is said",
        [*SEARCH, "--dataset=set", "--batch_size=99"],
        prepare=narrow,
        says=r"Images of 4 sizes, 1x1 to 3x5000, are resized to 32x32",
        check=no_run,
    )


def names():
    for what, name in {
        "a newline": "a\nb",
        "a tab": "a\tb",
        "an escape": "a\x1b[31m",
        "a delete": "a\x7f",
        "a next line": "a\x85b",
        "a line separator": "a\u2028b",
        "a paragraph separator": "a\u2029b",
        "no UTF-8": "a\udcff",
    }.items():
        yield refused(
            f"a class with {what} in its name",
            lambda folder, name=name: classes(folder / "set", name, "b"),
            r"the class '?\"?a\\",
        )
        if what in ("a newline", "no UTF-8"):
            yield refused(
                f"a class with {what} in its name, streamed",
                lambda folder, name=name: classes(folder / "set", name, "b"),
                r"the class '?\"?a\\",
                (*SEARCH, "--stream"),
            )
    composed, apart = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    accepted = {
        "differ in Unicode normalisation": (composed, apart),
        "differ in case": ("A", "a"),
        "are of 255 bytes": ("a" * 255, "b" * 255),
        "are emoji with joiners": ("👩\u200d🔬", "🦊"),
        "are right to left": ("خروف", "ماعز"),
        "begin with a dash": ("--help", "-1"),
        "are spaces": (" ", "  "),
        "hold quotes and stars": ("'*'", '"?"'),
        "are numbers": ("0", "00"),
        "end in .png": ("a.png", "b.jpg"),
    }
    for what, pair in accepted.items():
        yield loaded(
            f"classes that {what}",
            lambda folder, pair=pair: classes(folder / "set", *pair),
            lambda data, _, pair=pair: None if data.class_names == sorted(pair) else f"it found {data.class_names}",
        )

    def odd_files(folder):
        classes(folder / "set", "a", "b", count=3)
        for name in ("\udcff\udcfe.png", "a\nb.png", "x" * 251 + ".png", "{}%s*.png", "[1].png"):
            for label in "ab":
                save(folder / "set" / label / name)

    for stream in (False, True):
        more = {"stream": True} if stream else {}

        def whole(data, folder):
            x = data.x_train
            x = x.array() if hasattr(x, "array") else x
            return None if x.shape == (14, 10, 12, 3) and len(data.y_test) == 2 else f"it found {x.shape}"

        yield loaded(f"files of odd names, {'streamed' if stream else 'read'}", odd_files, whole, **more)

    def damaged_odd_file(folder):
        classes(folder / "set", "a", "b")
        (folder / "set/a/\udcff.png").write_bytes(b"no image")

    yield refused("a damaged file whose name is no UTF-8", damaged_odd_file, r"\.png.* is not a readable image")

    def here(folder):
        classes(folder, "a", "b")

    for command, flags in (
        (SEARCH, ()),
        (TRAIN, ()),
        (TRAIN, IMAGENET),
        (("darts_tf.tune", "--max_trials=1", "--epochs=1", "--output=run"), ()),
        ((*SEARCH, "--stream"), ()),
    ):
        yield refused(
            f"no --dataset at all: {command[0]} {command[-1]} {flags[:1]}", here, "expected digits", command, "", flags
        )
    for what, dataset in {
        "a space": " ",
        "300 characters": "x" * 300,
        "5000 characters": "x/" * 2500,
        "an image": "image.png",
        "a link to itself": "loop",
        "a device": "/dev/zero",
        "a missing folder": "no/such/folder",
        "an address": "https://example.com/images",
        "a missing .npz": "no.npz",
        "control characters": "a\x1b[31m\nb",
    }.items():

        def prepare(folder):
            save(folder / "image.png")
            (folder / "loop").symlink_to(folder / "loop")

        yield refused(f"--dataset is {what}", prepare, r"error: --dataset=(.|\n)*expected", dataset=dataset, timeout=60)
    yield loaded("a folder called set.npz", lambda folder: classes(folder / "set.npz", "a", "b"), of(8, 2), "set.npz")


def arrays(**changes):
    """What a `.npz` file holds."""
    random = np.random.default_rng(0)
    whole = {
        "x_train": random.integers(0, 256, (12, 8, 8, 3), np.uint8),
        "y_train": np.arange(12) % 3,
        "x_test": random.integers(0, 256, (6, 8, 8, 3), np.uint8),
        "y_test": np.arange(6) % 3,
    }
    return {name: value for name, value in (whole | changes).items() if value is not None}


def archive(folder, **changes):
    np.savez(folder / "set.npz", **arrays(**changes))


def rewritten(path, change):
    """Puts each member of an archive through a function of its name and its bytes."""
    with zipfile.ZipFile(path) as before:
        members = {name: before.read(name) for name in before.namelist()}
    with zipfile.ZipFile(path, "w") as after:
        for name, content in members.items():
            after.writestr(name, change(name, content))


def archives():
    images = arrays()["x_train"]
    labels = arrays()["y_train"]
    one_hot = np.eye(3, dtype=int)[labels]
    table = {
        "text labels": ({"y_train": labels.astype(str)}, "labels are <U"),
        "bytes as labels": ({"y_train": labels.astype("S2")}, "labels are .S"),
        "empty labels": ({"y_train": labels[:0]}, "12 images but 0 labels"),
        "empty labels of floats": ({"y_train": np.array([])}, "labels are float64"),
        "no images and no labels": ({"x_train": images[:0], "y_train": labels[:0]}, "expected as many, and some"),
        "no test images": ({"x_test": images[:0], "y_test": labels[:0]}, "expected as many, and some"),
        "labels of floats": ({"y_train": labels.astype(float)}, "labels are float64: expected integers"),
        "labels of NaN": ({"y_train": labels * np.nan}, "labels are float64: expected integers"),
        "labels that are true or false": ({"y_train": labels > 0}, "labels are bool: expected integers"),
        "complex labels": ({"y_train": labels * 1j}, "labels are complex128"),
        "labels of dates": ({"y_train": labels.astype("M8[s]")}, "labels are datetime64"),
        "one-hot labels": ({"y_train": one_hot}, r"\(n,\) or \(n, 1\)"),
        "labels (1, n)": ({"y_train": labels[None]}, r"\(n,\) or \(n, 1\)"),
        "a single label": ({"y_train": np.array(3)}, r"\(n,\) or \(n, 1\)"),
        "labels of five dimensions": ({"y_train": labels.reshape(12, 1, 1, 1, 1)}, r"\(n,\) or \(n, 1\)"),
        "negative labels": ({"y_train": labels - 1}, "a label is -1"),
        "negative test labels": ({"y_test": arrays()["y_test"] - 1}, "a label is -1"),
        "a label of 2^33": ({"y_train": np.append(labels[1:], 2**33)}, "a label is 8589934592"),
        "a label of 2^63": (
            {"y_train": np.append(labels[1:], 2**63).astype(np.uint64)},
            "a label is 9223372036854775808",
        ),
        "too few labels": ({"y_train": labels[:5]}, "12 images but 5 labels"),
        "one class": ({"y_train": labels * 0, "y_test": arrays()["y_test"] * 0}, "at least 2 classes"),
        "depth 0": ({"x_train": images[..., :0], "x_test": images[:6, ..., :0]}, "expected images"),
        "images of longdouble": ({"x_train": images.astype(np.longdouble)}, "expected images"),
        "images of timedelta": ({"x_train": images.astype("m8[s]")}, "expected images"),
        "complex images": ({"x_train": images.astype(complex)}, "expected images"),
        "images of bool": ({"x_train": images > 9}, "expected images"),
        "images of uint32": ({"x_train": images.astype(np.uint32)}, "expected images"),
        "images of uint64": ({"x_train": images.astype(np.uint64)}, "expected images"),
        "images of text": ({"x_train": images.astype(str)}, "expected images"),
        "images of objects": ({"x_train": np.array([None, "a"], object)}, "Python objects"),
        "images with named fields": (*({"x_train": np.zeros((12, 8, 8, 3), [("ä", np.uint8)])}, "expected"),),
        "flat images": ({"x_train": images.reshape(12, -1)}, "expected images"),
        "a single image": ({"x_train": images[0]}, "expected"),
        "NaN in images": ({"x_train": images * np.float32("nan")}, "NaN or infinite"),
        "infinity in test images": ({"x_test": np.full((6, 8, 8, 3), np.inf)}, "NaN or infinite"),
        "images beyond float32": ({"x_train": images * 1e300}, "NaN or infinite"),
        "test images of another size": ({"x_test": np.zeros((6, 9, 9, 3), np.uint8)}, "expected one shape"),
        "test images of another depth": ({"x_test": np.zeros((6, 8, 8, 1), np.uint8)}, "expected one shape"),
        "7x7 images": ({"x_train": images[:, :7, :7]}, "at least 8x8"),
        "images of 0x0": ({"x_train": images[:, :0, :0]}, "at least 8x8"),
        "no y_test": ({"y_test": None}, "no y_test in the file"),
        "two names for three classes": ({"class_names": np.array(["a", "b"])}, "at least 3 texts"),
        "numbers as names": ({"class_names": np.arange(3)}, "at least 3 texts"),
        "a name with a newline": ({"class_names": np.array(["a", "b\n", "c"])}, r"the class 'b\\n'"),
        "an empty name": ({"class_names": np.array(["a", "", "c"])}, "the class ''"),
        "one name twice": ({"class_names": np.array(["a", "b", "b"])}, "two classes called b"),
        "names of other bytes": ({"class_names": np.array([b"a", b"\xff", b"c"])}, "class_names"),
        "objects as names": ({"class_names": np.array(["a", None, "c"], object)}, "Python objects"),
        "a table of names": ({"class_names": np.array([["a"], ["b"], ["c"]])}, "at least 3 texts"),
    }
    for name, (changes, says) in table.items():
        yield refused(
            f".npz: {name}",
            lambda folder, changes=changes: archive(folder, **changes),
            says,
            dataset="set.npz",
        )

    def promise(shape):
        def change(name, content):
            if name != "x_train.npy":
                return content
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
            return header.getvalue() + b"0" * 100

        return lambda folder: (archive(folder), rewritten(folder / "set.npz", change))

    def cut(part):
        def prepare(folder):
            archive(folder)
            content = (folder / "set.npz").read_bytes()
            (folder / "set.npz").write_bytes(content[: int(part * len(content))])

        return prepare

    def flipped(folder):
        archive(folder)
        content = bytearray((folder / "set.npz").read_bytes())
        content[400] ^= 255
        (folder / "set.npz").write_bytes(content)

    def encrypted(folder):
        archive(folder)
        content = bytearray((folder / "set.npz").read_bytes())
        for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            place = content.find(mark)
            while place >= 0:
                content[place + offset] |= 1
                place = content.find(mark, place + 1)
        (folder / "set.npz").write_bytes(content)

    def deflated_damage(folder):
        np.savez_compressed(folder / "set.npz", **arrays())
        content = bytearray((folder / "set.npz").read_bytes())
        content[200:400] = bytes(200)
        (folder / "set.npz").write_bytes(content)

    def other(name, content):
        return content if name != "y_train.npy" else b"no array"

    files = {
        "zero bytes": lambda folder: (folder / "set.npz").write_bytes(b""),
        "text": lambda folder: (folder / "set.npz").write_text("no archive"),
        "a renamed .npy": lambda folder: np.save((folder / "set.npz").open("wb"), images),
        "a pickle": lambda folder: (folder / "set.npz").write_bytes(b"\x80\x04\x95\x00."),
        "an empty archive": lambda folder: zipfile.ZipFile(folder / "set.npz", "w").close(),
        "half of it": cut(0.5),
        "all but the end": cut(0.99),
        "a flipped byte": flipped,
        "a damaged compressed one": deflated_damage,
        "an encrypted one": encrypted,
        "a promise of 1e12 elements": promise((10**12,)),
        "a promise of 1e18 images": promise((10**18, 8, 8, 3)),
        "a promise of less than nothing": promise((-1, 8, 8, 3)),
        "a member that is no array": lambda folder: (archive(folder), rewritten(folder / "set.npz", other)),
        "a pipe": lambda folder: os.mkfifo(folder / "set.npz"),
    }
    for name, prepare in files.items():
        yield refused(f".npz: {name}", prepare, "error: --dataset=set.npz: .*expected", dataset="set.npz", timeout=30)

    def read(name, changes, wrong, **options):
        return loaded(f".npz: {name}", lambda folder: archive(folder, **changes), wrong, "set.npz", **options)

    both = arrays()["x_train"], arrays()["x_test"]
    for dtype in ("int8", "uint16", "int16", "int32", "int64", "float16", "float32", "float64", ">f4", ">u2"):

        def trains(data, folder):
            from darts_tf.data import datasets

            batches, *_ = data.search_batches(2, augmentation=datasets.Augmentation(1, True, 2))
            values = next(iter(batches()))[0][0].numpy()
            return None if values.shape == (2, 8, 8, 3) and np.isfinite(values).all() else "no batch of numbers"

        changes = {f"x_{split}": x.astype(dtype) for split, x in zip(("train", "test"), both, strict=True)}
        yield read(f"images of {dtype}", changes, trains)
        if dtype in ("int8", "int64", "float16", ">u2"):
            yield read(f"images of {dtype}, resized", changes, trains, image_size=(8, 8))
    three = {"class_names": np.array(["cat", "dog", "fox"])}
    yield read("names of classes", three, of(12, 6, ("cat", "dog", "fox")))
    yield read("labels (n, 1)", {"y_train": labels[:, None]}, of(12, 6, "012"))
    yield read("labels of uint8", {"y_train": labels.astype(np.uint8)}, of(12, 6, "012"))
    yield read("columns first", {"x_train": np.asfortranarray(images)}, of(12, 6, "012"))


def sizes():
    yield refused(
        "4 images per class", lambda folder: classes(folder / "set", "a", "b", count=4), "fewer than 5 images"
    )
    yield refused(
        "2 images per class", lambda folder: classes(folder / "set", "a", "b", count=2), "fewer than 5 images"
    )

    def uneven(folder):
        classes(folder / "set", "a", "b")
        classes(folder / "set", "c", count=2)

    yield Attempt(
        "a class of which no image is for testing is named",
        [*SEARCH, "--dataset=set", "--batch_size=99"],
        prepare=uneven,
        says="class c: fewer than 5 images, none of which is for testing",
        check=no_run,
    )
    for command in (SEARCH, (*SEARCH, "--stream"), TRAIN, (*TRAIN, "--stream"), (*TRAIN, *IMAGENET)):
        how = " ".join([command[0], *(flag for flag in ("--stream", "--recipe=imagenet") if flag in command)])
        yield refused(
            f"fewer images than a batch: {how}",
            lambda folder: classes(folder / "set", "a", "b"),
            r"error: --batch_size=64: .*expected at most",
            command,
            flags=["--batch_size=64"],
        )

    def one_test_image(folder):
        classes(folder / "set/train", "a", "b")
        classes(folder / "set/test", "a", "b", count=1)
        (folder / "set/test/b/0.png").unlink()
        (folder / "set/test/b").rmdir()

    yield refused("test images of one class", one_test_image, "differ in the class|at least 2")

    def many_classes(folder):
        label = np.arange(100_000)
        x = np.zeros((100_000, 8, 8), np.uint8)
        np.savez_compressed(folder / "set.npz", x_train=x, y_train=label, x_test=x[:9], y_test=label[:9])

    yield loaded(
        "100,000 classes",
        many_classes,
        lambda data, _: None if len(data.class_names) == 100_000 else "other classes",
        "set.npz",
    )

    def every_fifth(folder):
        from darts_tf.data import folders

        folders.every_fifth(np.tile(np.arange(100_000), 5))

    yield Attempt("every fifth image of 100,000 classes", call=every_fifth, timeout=10)
    yield refused(
        "a batch for more images than there are for alpha",
        lambda folder: classes(folder / "set", "a", "b"),
        "larger than a split",
        flags=["--batch_size=5", "--train_portion=0.7"],
    )


def streams():
    def narrow(folder):
        classes(folder / "set/train", "a", "b")
        classes(folder / "set/test", "a", "b")
        save(folder / "set/train/a/0.png", size=(30, 1))
        save(folder / "set/test/b/0.png", size=(1, 30))

    def finished(folder, stdout, stderr):
        return None if (folder / "run/metrics.json").exists() else "no metrics.json"

    yield Attempt(
        "ImageNet's recipe, images one pixel wide",
        [*TRAIN, *IMAGENET, "--dataset=set"],
        prepare=narrow,
        ends=(0,),
        check=finished,
    )
    for kind, place in itertools.product(("text", "half"), ("train/a/1.jpg", "test/b/0.jpg")):

        def prepare(folder, kind=kind, place=place):
            classes(folder / "set/train", "a", "b")
            classes(folder / "set/test", "a", "b")
            whole = encoded(picture(size=(40, 50)), "JPEG")
            (folder / "set" / place).write_bytes(b"no image" if kind == "text" else whole[: len(whole) // 2])

        yield Attempt(
            f"ImageNet's recipe, {kind} in {place}",
            [*TRAIN, *IMAGENET, "--dataset=set"],
            prepare=prepare,
            ends=(1, 2),
            says=f"error: .*{place}",
        )

    def webp(folder):
        classes(folder / "set/train", "a", "b")
        classes(folder / "set/test", "a", "b")
        more = {"save_all": True, "append_images": [picture(4, (30, 40))]}
        (folder / "set/train/a/9.webp").write_bytes(encoded(picture(size=(30, 40)), "WEBP", **more))
        (folder / "set/test/a/9.png").write_bytes(encoded(picture(size=(30, 40)), "WEBP", **more))

    yield Attempt(
        "ImageNet's recipe, WebP that moves",
        [*TRAIN, *IMAGENET, "--dataset=set"],
        prepare=webp,
        ends=(0,),
        check=finished,
    )
    for dataset in ("digits", "set.npz"):
        yield refused(f"--stream of {dataset}", archive, "expected a folder", (*SEARCH, "--stream"), dataset)
    yield refused("--stream of a name", archive, "expected", (*SEARCH, "--stream"), "cifar10")

    def equal(folder):
        import tensorflow as tf

        from darts_tf.data import datasets

        sets = [datasets.load(str(folder / "set"), 16, stream=stream) for stream in (False, True)]
        used = datasets.Augmentation(2, True, 4)
        made = [data.search_batches(2, augmentation=used, seed=5)[0]().take(9) for data in sets]
        for pair in zip(*made, strict=True):
            for one, other in zip(*map(tf.nest.flatten, pair), strict=True):
                if (one.numpy() != other.numpy()).any():
                    return "batches differ"
        return None

    def mixed(folder):
        for label, number in itertools.product("abc", range(10)):
            suffix = ("png", "jpg", "webp", "gif", "bmp")[number % 5]
            save(folder / "set" / label / f"{number}.{suffix}", number, size=(9 + number, 30 - 2 * number))

    yield Attempt("batches from disk are those from memory", call=equal, prepare=mixed)

    search = f"$PYTHON -m {' '.join(SEARCH)} --dataset=set --nodes=1"

    def same_results(folder, stdout, stderr):
        alphas = [np.load(folder / name / "alphas.npz") for name in ("run", "streamed")]
        return (
            None if all((alphas[0][kind] == alphas[1][kind]).all() for kind in ("normal", "reduce")) else "they differ"
        )

    yield Attempt(
        "a search from disk finds what one from memory does",
        [
            "bash",
            "-c",
            f"{search} --image_size=8 && {search} --image_size=8 --stream --output=streamed",
        ],
        prepare=mixed,
        ends=(0,),
        timeout=300,
        check=same_results,
    )
    yield Attempt(
        "a run from memory goes on from disk",
        [
            "bash",
            "-c",
            f"{search} --image_size=8 && {search} --stream --resume",
        ],
        prepare=mixed,
        ends=(0,),
        timeout=300,
    )
    yield Attempt(
        "an image that is damaged while a training reads it",
        [
            "bash",
            "-c",
            f"$PYTHON -m {' '.join(TRAIN)} --dataset=set --image_size=8 --stream --epochs=500 --verbose=2 & "
            "until [ -e run/history.csv ]; do sleep 0.2; done; echo no image > set/a/0.png; wait $!",
        ],
        prepare=mixed,
        ends=(1,),
        timeout=300,
        says=r"error: .*a/0\.png: it is not a readable image.*--resume goes on",
    )
