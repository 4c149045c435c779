"""Attempts against the export, the client and the converter of checkpoints: models, labels, images, servers, disks."""

import contextlib
import http.server
import io
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import threading
import time
import zipfile

from benchmarks.abuse import Attempt

EXPORT = ["export", "--model=model.keras", "--output=out", "--quantize="]
FLOAT = ["export", "--model=model.keras", "--output=out", "--quantize=none"]
BARE = [*FLOAT, "--nosaved_model"]


def attempts():
    """Yields all of them."""
    yield from labels()
    yield from configurations()
    yield from images()
    yield from models()
    yield from places()
    yield from checkpoints()
    yield from flags_of_the_client()
    yield from answers()
    yield from answers_of_grpc()


def classifier(shape=(8, 8, 1), classes=3, layers=()):
    """A small Keras model."""
    import keras

    keras.utils.set_random_seed(0)
    head = [keras.layers.Flatten(), keras.layers.Dense(classes)]
    return keras.Sequential([keras.Input(shape), *layers, *head])


def saved(folder, **more):
    classifier(**more).save(folder / "model.keras")


def with_files(*files, **more):
    """A `prepare` that saves a small model, and files: (name, text or bytes) pairs."""

    def prepare(folder):
        saved(folder, **more)
        for name, content in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return prepare


def in_process(prepare):
    """A `prepare` that needs Keras does so in a process of its own: the script's own must not start TensorFlow."""

    def forked(folder):
        pid = os.fork()
        if not pid:
            status = 1
            try:
                silent = os.open(os.devnull, os.O_WRONLY)
                os.dup2(silent, 1)
                os.dup2(silent, 2)
                prepare(folder)
                status = 0
            finally:
                os._exit(status)
        if os.waitpid(pid, 0)[1]:
            raise RuntimeError("it failed")

    return forked


def labels():
    """Labels that lines, dicts or encodings lose."""

    def kept(expected):
        def check(folder, stdout, stderr):
            found = [
                (folder / "out/model/1/assets/labels.txt").read_bytes().decode().split("\n")[:-1],
                zipfile.ZipFile(folder / "out/tflite/model-float32.tflite")
                .read("labels.txt")
                .decode()
                .split("\n")[:-1],
            ]
            return None if found == [expected] * 2 else f"labels are {found}, expected {expected}"

        return check

    right = {
        "a byte order mark": (b"\xef\xbb\xbfa\nb\nc\n", ["a", "b", "c"]),
        "CRLF": (b"a\r\nb\r\nc\r\n", ["a", "b", "c"]),
        "no newline at the end": (b"a\nb\nc", ["a", "b", "c"]),
        "a form feed": (b"a\x0cx\nb\nc\n", ["a\x0cx", "b", "c"]),
        "a line separator": ("a\u2028x\nb\u0085\nc\n".encode(), ["a\u2028x", "b\u0085", "c"]),
        "tabs and trailing spaces": (b"a\t\n b  \nc\n", ["a\t", " b  ", "c"]),
        "duplicates": (b"crane\nb\ncrane\n", ["crane", "b", "crane"]),
        "Chinese": ("\u732b\n\u72d7\n\u9e1f\n".encode(), ["\u732b", "\u72d7", "\u9e1f"]),
    }
    for name, (content, expected) in right.items():
        yield Attempt(
            f"labels with {name}",
            [*FLOAT, "--labels=labels.txt"],
            prepare=in_process(with_files(("labels.txt", content))),
            ends=(0,),
            check=kept(expected),
        )
    yield Attempt(
        "labels in Chinese, in the C locale",
        [*FLOAT, "--labels=labels.txt"],
        prepare=in_process(with_files(("labels.txt", right["Chinese"][0]))),
        environ={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        ends=(0,),
        check=kept(right["Chinese"][1]),
    )
    wrong = {
        "a blank line": (b"a\n\nc\n", "line 2"),
        "a blank line at the end": (b"a\nb\n\n", "line 3"),
        "a line of spaces": (b"a\nb\n   \n", "line 3"),
        "Latin-1": (b"a\nb\nc\xfc\n", "line 3"),
        "UTF-16": ("a\nb\nc\n".encode("utf-16"), "line 1"),
        "a zero byte": (b"a\nb\0\nc\n", "line 2"),
        "nothing": (b"", "0 labels"),
        "too few": (b"a\nb\n", "2 labels"),
        "too many": (b"a\nb\nc\nd\n", "4 labels"),
    }
    for name, (content, says) in wrong.items():
        yield Attempt(
            f"labels with {name}",
            [*EXPORT, "--labels=labels.txt"],
            prepare=in_process(with_files(("labels.txt", content))),
            says=f"error: .*{says}",
            check=nothing_written,
        )
    for name in ("missing.txt", ".", "x" * 300, "/proc/self/mem", "/dev/zero"):
        yield Attempt(
            f"--labels={name[:20]}",
            [*EXPORT, f"--labels={name}"],
            prepare=in_process(saved),
            says="error: --labels=",
            check=nothing_written,
        )
    configs = {
        "a list": b"[]",
        "binary": bytes(range(256)),
        "deep": b"[" * 100_000,
        "with data 3": b'{"data": 3}',
        "with class_names 5": b'{"data": {"class_names": 5}}',
        "with numbers as class names": b'{"data": {"class_names": [1, 2, 3]}}',
        "with a dataset that is a list": b'{"dataset": ["x"], "data": 1}',
        "with a text as class names": b'{"data": {"class_names": "abc"}}',
    }
    for name, content in configs.items():
        yield Attempt(
            f"another tool's config.json, {name}",
            FLOAT,
            prepare=in_process(with_files(("config.json", content))),
            ends=(0,),
            check=kept(["0", "1", "2"]),
        )
    names = {
        "of too many classes": ["a"] * 9,
        "of a class with a line break": ["a", "b\nc", "d"],
        "of a class of bytes that are not UTF-8": ["a", "b\udcff", "d"],
        "of a blank class": ["a", " ", "d"],
    }
    for name, found in names.items():
        yield Attempt(
            f"config.json {name}",
            EXPORT,
            prepare=in_process(with_files(("config.json", json.dumps({"data": {"class_names": found}})))),
            says="config.json",
            check=nothing_written,
        )


def nothing_written(folder, stdout, stderr):
    """A `check`."""
    return f"{folder / 'out'} was made" if (folder / "out").exists() else None


def configurations():
    """models.config and batching.config that somebody has edited."""

    policy = "model_version_policy { specific { versions: 1 versions: 2 } }"
    edited = {
        "a comment": ("# kept\nmodel_config_list {\n}\n", ["model"]),
        "a policy of this model": (
            f'model_config_list {{ config {{ name: "model" base_path: "/m" {policy} }} }}',
            ["model"],
        ),
        "labels of versions": (
            'model_config_list { config { name: "model" base_path: "/m" version_labels { key: "stable" value: 1 } } }',
            ["model"],
        ),
        "another model": ('model_config_list { config { name: "cats" base_path: "/cats" } }', ["cats", "model"]),
        "angle brackets and braces in comments": (
            'model_config_list: < # kept }\n config: < name: "cats" base_path: "/cats" >\n> # kept }',
            ["cats", "model"],
        ),
        "a name with a brace": (
            'model_config_list { config { name: "cats}" base_path: "/cats" } }',
            ["cats}", "model"],
        ),
        "Windows line ends": (
            'model_config_list {\r\n config { name: "cats" base_path: "/cats" }\r\n}\r\n',
            ["cats", "model"],
        ),
        "nothing in it": ("", ["model"]),
        "a comment alone": ("# kept", ["model"]),
    }
    for name, (text, names) in edited.items():
        marks = [mark for mark in ("kept", "specific", "stable", "/cats") if mark in text]
        yield Attempt(
            f"models.config with {name}",
            EXPORT,
            prepare=in_process(with_files(("out/models.config", text))),
            ends=(0,),
            check=lambda folder, stdout, stderr, names=names, marks=marks: configuration_is(folder, names, marks),
        )
    broken = {
        "cut": b"model_config_list { config {",
        "binary": b"\xff\xfe\0\0",
        "of another kind": b"custom_model_config { }",
        "JSON": b'{"model_config_list": {}}',
        "with a byte order mark": b"\xef\xbb\xbfmodel_config_list {}",
        "with an unknown field": b"model_config_list { colour: 3 }",
    }
    for name, content in broken.items():
        yield Attempt(
            f"models.config {name}",
            EXPORT,
            prepare=in_process(with_files(("out/models.config", content))),
            ends=(1, 2),
            says="models.config",
            keeps=("out/models.config",),
        )
    yield Attempt(
        "batching.config that was tuned",
        EXPORT,
        prepare=in_process(with_files(("out/batching.config", "max_batch_size { value: 7 }"))),
        ends=(0,),
        keeps=("out/batching.config",),
    )
    yield Attempt(
        "models.config is a folder",
        EXPORT,
        prepare=in_process(with_files(("out/models.config/x", ""))),
        ends=(1, 2),
        says="models.config",
    )
    yield Attempt(
        "four exports at once",
        [
            "bash",
            "-c",
            "for i in 1 2 1 2; do $PYTHON -m export --model=model.keras --output=out --name=m$i --quantize= & done; "
            "wait; ls -d out/m1/2 out/m2/2",
        ],
        prepare=in_process(saved),
        ends=(0,),
        check=lambda folder, stdout, stderr: configuration_is(folder, ["m1", "m2"], []),
        timeout=300,
    )


def configuration_is(folder, names, marks):
    """None if models.config has those models and still those words, or else what is wrong."""
    from google.protobuf import text_format
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

    text = (folder / "out/models.config").read_text()
    found = sorted(m.name for m in text_format.Parse(text, ModelServerConfig()).model_config_list.config)
    lost = [mark for mark in marks if mark not in text]
    if found != sorted(names) or lost:
        return f"models.config has {found}, expected {sorted(names)}; lost: {lost}"
    return None


def image_file(kind, mode="RGB", size=(9, 9), **more):
    """The bytes of an image file."""
    import PIL.Image

    content = io.BytesIO()
    PIL.Image.new(mode, size, **more).save(content, kind)
    return content.getvalue()


def animation(frames, size):
    """A GIF."""
    import PIL.Image

    content = io.BytesIO()
    first, *rest = (PIL.Image.new("L", size, shade % 256) for shade in range(frames))
    first.save(content, "GIF", save_all=True, append_images=rest)
    return content.getvalue()


def images():
    """Encoded images that a server should answer, or refuse, without much memory."""

    def ask(files, expected, depth=3, megabytes=700):
        def call(folder):
            import resource

            import tensorflow as tf

            from export import classifier as classifiers
            from export import savedmodel

            saved(folder, shape=(8, 8, depth))
            version = savedmodel.export(classifiers.load(folder / "model.keras"), folder / "out")
            model = tf.saved_model.load(str(version))
            encoded = tf.constant([*(file() for file in files), image_file("PNG")][: None if files else 0], tf.string)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            start = time.monotonic()
            answer = model.signatures["serving_bytes"](encoded=encoded)
            taken = time.monotonic() - start
            more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000
            found = [bool(label) for label in answer["classes"].numpy()[:, 0]] if encoded.shape[0] else []
            if found != [*expected, True][: None if files else 0]:
                return f"answered {found}, expected {expected} and one more"
            if more > megabytes:
                return f"it took {more:.0f} MB"
            return f"it took {taken:.0f} s" if taken > 30 else None

        return call

    def cut(kind, part):
        return lambda: image_file(kind, size=(90, 90))[:part]

    right = {
        "a JPEG in CMYK": lambda: image_file("JPEG", "CMYK"),
        "a grey BMP": lambda: image_file("BMP", "L"),
        "a BMP with a palette": lambda: image_file("BMP", "P"),
        "a BMP with transparency": lambda: image_file("BMP", "RGBA"),
        "a PNG of 16 bits": lambda: image_file("PNG", "I;16"),
        "a PNG of 1 bit": lambda: image_file("PNG", "1"),
        "a GIF of 3000 frames of 500x500": lambda: animation(3000, (500, 500)),
        "a PNG of 1x1": lambda: image_file("PNG", size=(1, 1)),
    }
    for name, file in right.items():
        for depth in (1, 3, 4):
            yield Attempt(f"{name}, at depth {depth}", call=ask([file], [True], depth), ends=(0,))
    wrong = {
        "a PNG of 12000x12000": lambda: image_file("PNG", "1", (12000, 12000)),
        "a PNG of 1000000x200": lambda: image_file("PNG", "1", (1_000_000, 200)),
        "a JPEG of 16000x16000": lambda: image_file("JPEG", "L", (16000, 16000)),
        "a GIF of 20000x20000": lambda: image_file("GIF", "L", (20000, 20000)),
        "a PNG that says it has 4 billion rows": lambda: image_file("PNG")[:20] + b"\xff" * 4 + image_file("PNG")[24:],
        "a BMP that says it has 2 billion rows": lambda: image_file("BMP")[:22] + b"\xff\xff\xff\x7f" + b"\0" * 99,
        "a GIF of many tiny blocks": lambda: b"GIF89a" + b"\0" * 7 + b"!\xfe" + b"\1a" * 3_000_000,
        "a cut PNG": cut("PNG", 50),
        "a cut JPEG": cut("JPEG", 30),
        "a cut BMP": cut("BMP", 60),
        "a GIF that ends in its header": lambda: b"GIF89a",
        "a TIFF": lambda: image_file("TIFF"),
        "an empty file": lambda: b"",
        "text": lambda: b"no image",
    }
    for name, file in wrong.items():
        yield Attempt(name, call=ask([file], [False]), ends=(0,))
    yield Attempt("a batch of no images", call=ask([], []), ends=(0,))
    yield Attempt(
        "a batch of 20 that are too large",
        call=ask([lambda: image_file("PNG", "1", (12000, 12000))] * 20, [False] * 20),
        ends=(0,),
    )


def models():
    """Files that hold no classifier, or an odd one."""

    def fails(name, make, says=None, ends=(1, 2), command=EXPORT, **more):
        return Attempt(f"a model that is {name}", command, prepare=in_process(make), ends=ends, says=says, **more)

    def functional(build):
        def make(folder):
            import keras

            keras.Model(*build(keras)).save(folder / "model.keras")

        return make

    def head(keras, x, n=3):
        return keras.layers.Dense(n)(keras.layers.Flatten()(x))

    def two_outputs(keras):
        x = keras.Input((8, 8, 1))
        return x, [head(keras, x), head(keras, x)]

    def dict_output(keras):
        x = keras.Input((8, 8, 1))
        return x, {"a": head(keras, x), "b": head(keras, x)}

    def two_inputs(keras):
        x = [keras.Input((8, 8, 1)), keras.Input((8, 8, 1))]
        return x, head(keras, keras.layers.Add()(x))

    def channels_first(keras):
        x = keras.Input((3, 8, 8))
        return x, head(keras, keras.layers.Conv2D(2, 3, data_format="channels_first")(x))

    def any_depth(keras):
        x = keras.Input((8, 8, None))
        return x, head(keras, keras.ops.mean(x, -1))

    def strings(keras):
        x = keras.Input((8, 8, 1), dtype="string")
        return x, head(keras, keras.layers.StringLookup(vocabulary=["a"])(x))

    def one_in_a_dict(keras):
        x = keras.Input((8, 8, 1))
        return {"x": x}, {"y": head(keras, x)}

    def fixed_batch(keras):
        x = keras.Input(batch_shape=(4, 8, 8, 1))
        return x, head(keras, x)

    yield fails("of two outputs", functional(two_outputs), "error: --model=.*it maps")
    yield fails("of a dict of outputs", functional(dict_output), "error: --model=.*it maps")
    yield fails("of two inputs", functional(two_inputs), "error: --model=.*it maps")
    yield fails("of channels first", functional(channels_first), "error: --model=")
    yield fails("of images of any depth", functional(any_depth), "error: --model=")
    yield fails("of strings", functional(strings), "error: --model=")
    yield fails("of one output in a dict", functional(one_in_a_dict), ends=(0,))
    yield fails("of a fixed batch", functional(fixed_batch), ends=(0,))

    def layer(folder):
        import keras

        keras.saving.save_model(keras.layers.Dense(3), folder / "model.keras")

    def optimizer(folder):
        import keras

        keras.saving.save_model(keras.optimizers.SGD(), folder / "model.keras")

    def unbuilt(folder):
        import keras

        keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)]).save(folder / "model.keras")

    def function_in_it(folder):
        import keras

        saved(folder, layers=[keras.layers.Lambda(lambda x: x + 1)])

    def nan(folder):
        import numpy as np

        model = classifier()
        model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
        model.save(folder / "model.keras")

    def hdf5(folder):
        classifier().save(folder / "model.h5")
        (folder / "model.h5").rename(folder / "model.keras")

    def bomb(folder):
        with zipfile.ZipFile(folder / "model.keras", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("metadata.json", "{}")
            with archive.open("config.json", "w", force_zip64=True) as file:
                for _ in range(3000):
                    file.write(b" " * 2**20)

    def zipped(**members):
        def make(folder):
            with zipfile.ZipFile(folder / "model.keras", "w") as archive:
                for name, content in members.items():
                    archive.writestr(name.replace("_", ".", 1), content)

        return make

    def spoilt(change):
        def make(folder):
            saved(folder)
            content = (folder / "model.keras").read_bytes()
            (folder / "model.keras").write_bytes(change(content))

        return make

    line = "error: --model="
    yield fails("a layer", layer, line)
    yield fails("an optimizer", optimizer, line)
    yield fails("never built", unbuilt, line)
    yield fails("with a function in it", function_in_it, line)
    yield fails("of NaN", nan, "NaN")
    yield fails("HDF5", hdf5, line)
    yield fails("a zip bomb", bomb, line, timeout=60)
    yield fails("an empty archive", zipped(), line)
    yield fails("an archive of an empty config", zipped(config_json="{}", metadata_json="{}"), line)
    yield fails("an archive of a deep config", zipped(config_json="[" * 10**5, metadata_json="{}"), line)
    yield fails("an archive without weights", zipped(config_json='{"class_name": "Dense"}', metadata_json="{}"), line)
    yield fails("empty", spoilt(lambda content: b""), line)
    yield fails("cut in half", spoilt(lambda content: content[: len(content) // 2]), line)
    yield fails("without its last bytes", spoilt(lambda content: content[:-100]), line)
    yield fails("with other bytes in the middle", spoilt(lambda c: c[:5000] + b"x" * 500 + c[5500:]), line)
    yield fails("a folder", lambda folder: (folder / "model.keras").mkdir(), line)
    yield fails("a link to itself", lambda folder: (folder / "model.keras").symlink_to("model.keras"), line)
    yield fails("/dev/null", lambda folder: (folder / "model.keras").symlink_to("/dev/null"), line)
    yield Attempt("a model with a name of 300 characters", [*EXPORT, f"--model={'x' * 300}.keras"], says=line)
    yield Attempt("no model of that name", [*EXPORT, "--model=no.keras"], says="no such file")

    def mixed(policy, build):
        def call(folder):
            import keras
            import numpy as np

            from export import classifier as classifiers
            from export import comparison, tflite

            keras.config.set_dtype_policy(policy)
            model = build(keras, np)
            x = np.random.default_rng(1).uniform(0, 255, (4, 8, 8, 1)).astype(np.float32)
            scores = np.asarray(model.predict(x, verbose=0), np.float64)
            expected = np.exp(scores - scores.max(1, keepdims=True))
            expected /= expected.sum(1, keepdims=True)
            model.save(folder / "model.keras")
            keras.config.set_dtype_policy("float32")
            made = classifiers.load(folder / "model.keras")
            for name, found in (
                ("Keras", made.probabilities(x)),
                ("TFLite", comparison.TFLite(tflite.convert(made))(x)),
            ):
                worst = np.abs(found - expected).max()
                if not worst < 0.05:
                    return f"{name}'s probabilities are {worst:.2f} away"
            return None

        return call

    def nested(keras, np):
        inner = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()])
        return keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Rescaling(1 / 255), inner, *ends(keras)])

    def twice_nested(keras, np):
        inner = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.DepthwiseConv2D(3, dilation_rate=2)])
        inner = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Rescaling(1 / 255), inner])
        return keras.Sequential([keras.Input((8, 8, 1)), inner, *ends(keras)])

    def shared(keras, np):
        x = keras.Input((8, 8, 1))
        conv = keras.layers.Conv2D(2, 3)
        y = keras.layers.Add()([conv(x / 255), conv(keras.ops.flip(x, 1) / 255)])
        for layer in ends(keras):
            y = layer(y)
        return keras.Model(x, y)

    def adapted(keras, np):
        layer = keras.layers.Normalization()
        layer.adapt(np.random.default_rng(0).uniform(0, 255, (50, 8, 8, 1)).astype(np.float32))
        return keras.Sequential([keras.Input((8, 8, 1)), layer, *ends(keras)])

    def wrapped(keras, np):
        reshape = keras.layers.Reshape((8, 8))
        inner = keras.layers.TimeDistributed(keras.layers.Dense(4))
        return keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Rescaling(1 / 255), reshape, inner, *ends(keras)])

    def with_casts(keras, np):
        x = keras.Input((8, 8, 1))
        y = keras.ops.cast(keras.ops.cast(x, "float32") / 255, "float16")
        for layer in ends(keras):
            y = layer(y)
        return keras.Model(x, y)

    def augmented(keras, np):
        layers = [keras.layers.RandomFlip(), keras.layers.RandomRotation(0.1), keras.layers.Rescaling(1 / 255)]
        return keras.Sequential([keras.Input((8, 8, 1)), *layers, *ends(keras)])

    def ends(keras):
        return [keras.layers.Flatten(), keras.layers.Dense(3, dtype="float32")]

    for build in (nested, twice_nested, shared, adapted, wrapped, with_casts, augmented):
        for policy in ("mixed_float16", "mixed_bfloat16", "float32"):
            if policy == "float32" and build is with_casts:
                continue
            name = build.__name__.replace("_", " ")
            yield Attempt(f"a model in {policy}, {name}", call=mixed(policy, build), ends=(0,))
    for depth in (2, 5):
        yield Attempt(
            f"a model of images of {depth} channels",
            EXPORT,
            prepare=in_process(lambda folder, depth=depth: saved(folder, shape=(8, 8, depth))),
            ends=(0,),
            says="serving_bytes",
        )
    yield Attempt("--top_k=1000 of 3 classes", [*EXPORT, "--top_k=1000"], prepare=in_process(saved), ends=(0,))
    yield Attempt(
        "--samples=100000 of 200 images",
        [*BARE[:-2], "--quantize=int8", "--nosaved_model", "--samples=100000", "--dataset=digits"],
        prepare=in_process(lambda folder: saved(folder, classes=10)),
        ends=(0,),
    )


def places():
    """Folders and disks to write to."""
    for name in ("models.config", "batching.config", "tflite", "..", ".", "a/b", "3", "x" * 300, "a\nb", ""):
        yield Attempt(
            f"--name={name[:20]!r}",
            [*EXPORT, f"--name={name}"],
            prepare=in_process(saved),
            says="error: --(name|output)=",
            ends=(2,),
        )
    outputs = {
        "a file": ("here", lambda folder: (folder / "here").write_text("")),
        "below a file": ("here/out", lambda folder: (folder / "here").write_text("")),
        "a link to itself": ("here", lambda folder: (folder / "here").symlink_to("here")),
        "of 300 characters": ("x" * 300, lambda folder: None),
        "in /proc": ("/proc/here", lambda folder: None),
        "a link to nothing": ("here/out", lambda folder: (folder / "here").symlink_to("/nowhere/at/all")),
    }
    for name, (output, prepare) in outputs.items():
        yield Attempt(
            f"--output is {name}",
            [*EXPORT[:2], f"--output={output}", "--quantize="],
            prepare=in_process(lambda folder, prepare=prepare: (saved(folder), prepare(folder))),
            says="error: --output=",
        )
    yield Attempt(
        "the model's folder is a file",
        EXPORT,
        prepare=in_process(with_files(("out/model", "mine"))),
        says="error: --(name|output)=",
        keeps=("out/model",),
    )
    yield Attempt(
        "the folder for TFLite is a file",
        BARE,
        prepare=in_process(with_files(("out/tflite", "mine"))),
        says="error: --output=",
        keeps=("out/tflite",),
    )
    versions = {"0007": "8", "99999999999999999999": "1", "7x": "1", "-3": "1", "\u0663": "1", "0": "1"}
    for there, expected in versions.items():
        yield Attempt(
            f"after a version {there}",
            EXPORT,
            prepare=in_process(with_files((f"out/model/{there}/x", "mine"))),
            ends=(0,),
            keeps=(f"out/model/{there}/x",),
            check=lambda folder, stdout, stderr, expected=expected: (
                None if (folder / "out/model" / expected / "saved_model.pb").exists() else f"no version {expected}"
            ),
        )
    yield Attempt(
        "after the last version that there can be",
        EXPORT,
        prepare=in_process(with_files(("out/model/9223372036854775807/x", "mine"))),
        says="error: --output=",
        ends=(1, 2),
        keeps=("out/model/9223372036854775807/x",),
    )
    yield Attempt(
        "version 3 is a file",
        EXPORT,
        prepare=in_process(with_files(("out/model/3", "mine"))),
        ends=(0,),
        keeps=("out/model/3",),
    )
    for left in (".4194303", ".4194303.17"):
        yield Attempt(
            f"a killed export left {left}",
            EXPORT,
            prepare=in_process(with_files((f"out/model/{left}/variables/x", ""), ("out/model/.mine/x", "mine"))),
            ends=(0,),
            keeps=("out/model/.mine/x",),
            check=lambda folder, stdout, stderr, left=left: (
                f"{left} is still there" if (folder / "out/model" / left).exists() else None
            ),
        )
    for size in (1, 12, 40):
        yield Attempt(
            f"a disk of {size * 4} KiB",
            ["bash", "-c", f"mkdir out && mount -t tmpfs -o size={size * 4}k none out && "
             "{ $PYTHON -m export --model=model.keras --output=out; code=$?; "
             "[ -z \"$(find out -name '.[0-9]*')\" ] || code=99; umount out; exit $code; }"],
            prepare=in_process(lambda folder: saved(folder, shape=(32, 32, 3))),
            ends=(1, 2),
            says="error: .*[Nn]o space",
        )  # fmt: skip
    yield Attempt(
        "killed while it writes, and again",
        ["bash", "-c", "$PYTHON -m export --model=model.keras --output=out --quantize= & pid=$!; "
         "while ! ls out/model/.[0-9]* > /dev/null 2>&1; do sleep 0.05; kill -0 $pid || exit 9; done; kill -9 $pid; "
         "$PYTHON -m export --model=model.keras --output=out --quantize="],
        prepare=in_process(saved),
        ends=(0,),
    )  # fmt: skip


def checkpoints():
    """State dicts that are none."""

    def convert(name, change, says="error: ", ends=(2,), file="model.npz", arguments=(), check=None, **more):
        def prepare(folder):
            if isinstance(change, bytes):
                (folder / file).write_bytes(change)
                return
            import numpy as np

            state = original(np)
            changed = change(np, state)
            np.savez(folder / file, **(state if changed is None else changed))

        command = ["darts_tf.convert", file, "--arch=DARTS_V2", "--output=out.keras", *arguments]
        return Attempt(f"a checkpoint {name}", command, prepare=prepare, ends=ends, says=says, check=check, **more)

    def with_array(name, make):
        def change(np, state):
            state[name] = make(np)

        return change

    def whole(folder):
        import numpy as np

        np.savez(folder / "model.npz", **original(np))

    line = "error: model.npz: "
    yield convert("of the original", lambda np, state: None, "3 classes", (0,))
    stem = "stem.0.weight"
    yield convert("without a tensor", lambda np, state: without(state, "classifier.weight"), line)
    yield convert("with a tensor too many", with_array("more.weight", lambda np: np.ones(3)), line)
    yield convert("with a scalar", with_array(stem, lambda np: np.array(3.0)), line)
    yield convert("with a vector", with_array(stem, lambda np: np.ones(12)), line)
    yield convert("with 5 dimensions", with_array(stem, lambda np: np.ones((12, 3, 3, 3, 1))), line)
    yield convert("with a scalar as batch norm", with_array("stem.1.weight", lambda np: np.array(1.0)), line)
    yield convert("with 3 dimensions", with_array("classifier.weight", lambda np: np.ones((2, 2, 2))), line)
    yield convert("with a scalar as bias", with_array("classifier.bias", lambda np: np.array(1.0)), line)
    yield convert("with cells.3000", with_array("cells.3000.preprocess0.op.1.weight", lambda np: np.ones(1)), line)
    yield convert("with cells.-1", with_array("cells.-1.preprocess0.op.1.weight", lambda np: np.ones(1)), line)
    yield convert("with cells." + "9" * 20, with_array(f"cells.{'9' * 20}.x", lambda np: np.ones(1)), line)
    yield convert("with cells.9...9", with_array(f"cells.{'9' * 5000}.x", lambda np: np.ones(1)), line)
    yield convert("of no channels", with_array(stem, lambda np: np.ones((0, 3, 3, 3))), line)
    yield convert("of 2 channels", with_array(stem, lambda np: np.ones((2, 3, 3, 3))), line)
    yield convert("of images of 7 channels", with_array(stem, lambda np: np.ones((12, 7, 3, 3))), line)
    yield convert("of images of no channels", with_array(stem, lambda np: np.ones((12, 0, 3, 3))), line)
    yield convert("of no classes", with_array("classifier.bias", lambda np: np.ones(0)), line)
    yield convert("with NaN", with_array("stem.1.weight", lambda np: np.full(12, np.nan)), line)
    yield convert("with infinities", with_array("stem.1.weight", lambda np: np.full(12, np.inf)), line)
    yield convert("with numbers beyond float32", with_array("stem.1.weight", lambda np: np.full(12, 1e300)), line)
    yield convert("with strings", with_array("stem.1.weight", lambda np: np.array(["x"] * 12)), line)
    yield convert("with strings as bias", with_array("classifier.bias", lambda np: np.array(["x"] * 3)), line)
    yield convert("with objects", with_array("stem.1.weight", lambda np: np.array([None] * 12)), line)
    yield convert("with complex numbers", with_array("stem.1.weight", lambda np: np.ones(12, complex)), line)
    yield convert("with a tensor twice", with_array("stem_1.weight", lambda np: np.ones(12)), line)
    yield convert("with nothing in it", lambda np, state: {}, line)
    yield convert("with one array", lambda np, state: {"x": np.ones(3)}, line)
    yield convert("that is empty", b"", line)
    yield convert("that is text", b"no", line)
    yield convert("that is a pickle", b"\x80\x04N.", "error: model.pkl: ", file="model.pkl")
    yield convert("of torch, without torch or broken", b"no", "error: model.pt: ", file="model.pt")
    yield convert("for another --arch", lambda np, state: None, "error: ", arguments=["--arch=NASNet"])
    yield convert(
        "for an --arch of 300 characters", lambda np, s: None, "error: --arch", arguments=["--arch=" + "x" * 300]
    )
    for output in ("out.h5", "no/out.keras", "folder.keras", "x" * 300 + ".keras", "/proc/out.keras", "out"):
        attempt = convert(f"to {output[:20]}", lambda np, s: None, "error: --output=", arguments=[f"--output={output}"])
        yield dataclass_replaced(attempt, lambda folder: (folder / "folder.keras").mkdir())

    yield Attempt(
        "a checkpoint to a full disk",
        ["bash", "-c", "mkdir out && mount -t tmpfs -o size=8k none out && "
         "{ $PYTHON -m darts_tf.convert model.npz --arch=DARTS_V2 --output=out/out.keras; code=$?; "
         "[ -z \"$(ls -A out)\" ] || code=99; umount out; exit $code; }"],
        prepare=whole,
        ends=(1, 2),
        says="error: .*[Nn]o space",
    )  # fmt: skip

    def lying(folder):
        header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (4000000000,), }"
        array = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header.ljust(117) + b"\n"
        with zipfile.ZipFile(folder / "model.npz", "w") as archive:
            archive.writestr("stem.0.weight.npy", array)

    def bomb(folder):
        header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000,), }"
        with (
            zipfile.ZipFile(folder / "model.npz", "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open("stem.0.weight.npy", "w", force_zip64=True) as file,
        ):
            file.write(b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header.ljust(117) + b"\n")
            for _ in range(4000):
                file.write(bytes(10**6))

    command = ["darts_tf.convert", "model.npz", "--arch=DARTS_V2", "--output=out.keras"]
    yield Attempt("a checkpoint that lies about its size", command, prepare=lying, says=line)
    yield Attempt("a checkpoint that is a zip bomb", command, prepare=bomb, says=line)
    yield Attempt("a checkpoint that is a folder", command, prepare=lambda f: (f / "model.npz").mkdir(), says=line)
    yield Attempt("a checkpoint that is not there", command, says=line)


def dataclass_replaced(attempt, prepare):
    """The attempt, with something more to prepare."""
    import dataclasses

    return dataclasses.replace(attempt, prepare=lambda folder: (attempt.prepare(folder), prepare(folder)))


def without(state, name):
    """The state dict without one tensor."""
    return {key: array for key, array in state.items() if key != name}


def original(np):
    """A state dict of the original, of one cell of DARTS_V2 and 3 classes."""
    shapes = {"stem.0.weight": (12, 3, 3, 3), "classifier.weight": (3, 32), "classifier.bias": (3,)}
    for place, channels in (("stem.1", 12), ("cells.0.preprocess0.op.2", 8), ("cells.0.preprocess1.op.2", 8)):
        shapes |= {f"{place}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}
    shapes |= {f"cells.0.preprocess{number}.op.1.weight": (8, 12, 1, 1) for number in (0, 1)}
    return {name: np.ones(shape, np.float32) for name, shape in shapes.items()}


def flags_of_the_client():
    """Command lines and files of the client; no server answers."""
    client = ["export.client", "a.png", "--rest", "--server=localhost:1"]

    def image(folder):
        (folder / "a.png").write_bytes(b"x")

    def ask(name, *more, says="error: ", ends=(2,), prepare=image, command=client):
        return Attempt(f"client {name}", [*command, *more], prepare=prepare, says=says, ends=ends, timeout=30)

    for value in ("inf", "nan", "0", "-1", "1e300", "1e9", "x", ""):
        yield ask(f"--timeout={value}", f"--timeout={value}", says="error: .*timeout")
    for value in (
        *(
            "a b:80",
            "localhost",
            "localhost:",
            ":80",
            "localhost:99999",
            "localhost:0",
            "localhost:-1",
            "::1:80",
            "[::1]",
        ),
        *(
            "http://localhost:80",
            "localhost:80/v1",
            "user@localhost:80",
            "localhost:\u0668\u0660",
            "",
            "a\nb:80",
            "[a b]:80",
        ),
    ):
        yield ask(f"--server={value!r}", f"--server={value}", says="error: --server=.*expected HOST:PORT")
    for value in ("[::1]:1", "localhost:1", "x" * 70 + ":80", "no.such.host.invalid:80", "\u00fc" * 70 + ":80"):
        yield ask(f"--server={value[:20]}", f"--server={value}", "--timeout=5", says="no server answers|did not answer")
    for value in ("99999999999999999999999", "0", "x"):
        yield ask(f"--version={value}", f"--version={value}", says="error: .*version")
    for flag in ("--model=", "--model=a b", "--model=a\udcff", "--signature="):
        yield ask(repr(flag), flag, says=f"error: {flag.split('=')[0]}=")
    yield ask("--rest --grpc", "--grpc", says="expected one of them")
    yield ask("--top_k=0", "--top_k=0", says="top_k")
    files = {
        "missing": lambda folder: None,
        "a folder": lambda folder: (folder / "a.png").mkdir(),
        "a link to itself": lambda folder: (folder / "a.png").symlink_to("a.png"),
        "endless": lambda folder: (folder / "a.png").symlink_to("/dev/zero"),
        "unreadable": lambda folder: (folder / "a.png").symlink_to("/proc/self/mem"),
    }
    for name, prepare in files.items():
        yield ask(f"with a file that is {name}", says="error: a.png: ", ends=(1,), prepare=prepare)
    yield ask(
        "with a file name of 300 characters", says="error: x+: ", ends=(1,), command=[client[0], "x" * 300, *client[2:]]
    )
    yield ask("without files", command=[client[0], *client[2:]], says="expected IMAGE")
    yield ask("over gRPC, nobody there", "--norest", "--timeout=5", says="no server answers")
    yield ask("over gRPC, --timeout=nan", "--norest", "--timeout=nan", says="timeout")
    yield ask("over gRPC, --model=a\\udcff", "--norest", "--model=a\udcff", says="--model=")


RIGHT = {"predictions": [{"classes": ["cat", "dog"], "probabilities": [0.75, 0.25]}]}


@contextlib.contextmanager
def http_server(answer):
    """A server on this machine that answers each request by `answer(handler)`; yields "localhost:PORT"."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            with contextlib.suppress(OSError, KeyError):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                answer(self)

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("localhost", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"localhost:{server.server_address[1]}"
    finally:
        server.shutdown()


def client(server, *more, rest=True, limit=25):
    """Exit code, stdout and stderr of the client that asks a server about one file; None if it does not end."""
    pathlib.Path("a.png").write_bytes(b"x")
    flags = ["--rest"] if rest else []
    command = [sys.executable, "-m", "export.client", "a.png", f"--server={server}", *flags, "--timeout=3", *more]
    try:
        strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}  # as where the locale is of UTF-8
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=strict, check=False)
    except subprocess.TimeoutExpired:
        return None, "", ""
    return done.returncode, done.stdout, done.stderr


def judged(code, stdout, stderr, ends, says):
    """None, or a sentence that says what is wrong; raises if there was a traceback."""
    if code is None:
        return "the client did not end"
    if "Traceback" in stderr:
        raise RuntimeError(stderr.strip().splitlines()[-1])
    if code not in ends or not re.search(says, stdout + stderr):
        return f"exit code {code}: {(stdout + stderr).strip()[-200:]}"
    return None


def answers():
    """What servers that are none, or are broken, say over HTTP."""

    def send(body, status=200, length=None, headers=()):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()

        def answer(handler):
            handler.send_response(status)
            handler.send_header("Content-Length", str(len(content) if length is None else length))
            for key, value in headers:
                handler.send_header(key, value)
            handler.end_headers()
            handler.wfile.write(content)

        return answer

    def drip(handler):
        handler.send_response(200)
        handler.end_headers()
        for _ in range(60):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.5)

    def drip_headers(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(60):
            handler.wfile.write(f"X-{number}: 1\r\n".encode())
            handler.wfile.flush()
            time.sleep(0.5)

    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(b" " * 65536)

    def endless_header(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            handler.wfile.write(b"x" * 65536)

    def raw(content):
        return lambda handler: handler.wfile.write(content)

    def ask(name, answer, says="not as TF Serving does", ends=(2,), more=()):
        def call(folder):
            with http_server(answer) as server:
                return judged(*client(server, *more), ends, says)

        return Attempt(f"a server that answers {name}", call=call, ends=(0,), timeout=60)

    def row(**changed):
        return {"predictions": [RIGHT["predictions"][0] | changed]}

    yield ask("rightly", send(RIGHT), "cat 75.0%", (0,))
    strange = {
        "a list": [],
        "a text": "hi",
        "a number": 3,
        "null": None,
        "no predictions": {"x": 1},
        "predictions that are a dict": {"predictions": {"a": 1}},
        "no rows": {"predictions": []},
        "rows that are numbers": {"predictions": [1, 2]},
        "no classes": {"predictions": [{"probabilities": [1.0]}]},
        "no probabilities": {"predictions": [{"classes": ["a"]}]},
        "classes that are a text": row(classes="ab"),
        "classes that are numbers": row(classes=[1, 2]),
        "classes that are null": row(classes=None),
        "fewer probabilities": row(probabilities=[1.0]),
        "probabilities that are texts": row(probabilities=["1", "0"]),
        "probabilities that are null": row(probabilities=[None, None]),
        "probabilities that are lists": row(probabilities=[[1.0], [0.0]]),
        "empty lists": row(classes=[], probabilities=[]),
        "NaN": row(probabilities=[float("nan"), 0.5]),
        "infinity": row(probabilities=[float("inf"), 0.5]),
        "a probability of 7": row(probabilities=[7.0, 0.5]),
        "a probability of 400 digits": row(probabilities=[10**400, 0.5]),
    }
    for name, body in strange.items():
        yield ask(name, send(body))
    yield ask("HTML", send(b"<html>Welcome</html>"))
    yield ask("nothing", send(b""))
    yield ask("binary", send(bytes(range(256))))
    yield ask("JSON of great depth", send(b"[" * 200_000))
    yield ask("less than it says", send(b'{"predictions"', length=1000))
    yield ask("20 MB", send(b'{"predictions": "' + b"x" * 20_000_000 + b'"}'))
    yield ask("HTML with 404", send(b"<html>no</html>", 404))
    yield ask("HTML with 500", send(b"<html>no</html>", 500))
    yield ask("an error of TF Serving", send({"error": "out\nof order"}, 500), "refused the request: out of order")
    yield ask("that there is no such model", send({"error": "Servable not found"}, 404), "has no such model")
    yield ask("less than it says with 500", send(b"{", 500, 1000))
    yield ask("an error that is no text", send({"error": {"a": [1]}}, 400), "refused")
    yield ask("an error about JSON", send({"error": "JSON could not be decoded"}, 400), "refused", (2,))
    yield ask("204", send(b"", 204))
    for target in ("http://localhost:1/", "file:///etc/passwd", "/v1/models/x:predict", ""):
        yield ask(f"a redirect to {target!r}", send(b"", 302, headers=[("Location", target)]))
    yield ask("a byte in a while", drip, "did not answer within 3 s")
    yield ask("a header in a while", drip_headers, "did not answer within 3 s")
    yield ask("without end", endless, "not as TF Serving does|did not answer")
    yield ask("a header without end", endless_header, "not as TF Serving does|did not answer")
    yield ask("another protocol", raw(b"SSH-2.0-OpenSSH_9.6\r\n"), "not as TF Serving does|no server answers")
    yield ask("and hangs up", raw(b""), "no server answers|not as TF Serving does")
    yield ask("a status that is no number", raw(b"HTTP/1.1 OK\r\n\r\n"), "not as TF Serving does")
    yield ask("nothing for long", lambda handler: time.sleep(20), "did not answer within 3 s")
    equal = row(classes=["crane", "crane"], probabilities=[0.75, 0.25])
    two = ("--json", "--top_k=2")
    yield ask("two classes of one name, as JSON", send(equal), r'0.75.*"crane", 0.25', (0,), two)
    yield ask("odd names, as JSON", send(row(classes=["a\n\udcff", "b\0"])), r"a\\n\\udcff", (0,), two)
    yield ask("odd names", send(row(classes=["a\udcff", "b"])), "75.0%", (0,))
    yield ask("the class of what it cannot decode", send(row(classes=["", ""])), "cannot decode", (1,))

    def silent(folder):
        with socket.socket() as listening:
            listening.bind(("localhost", 0))
            listening.listen()
            port = listening.getsockname()[1]
            for rest in (True, False):
                wrong = judged(*client(f"localhost:{port}", rest=rest, limit=40), (2,), "did not answer within 3 s")
                if wrong:
                    return wrong
        return None

    yield Attempt("a server that accepts and says nothing", call=silent, ends=(0,))


def answers_of_grpc():
    """What broken servers say over gRPC."""

    def ask(name, outputs, says="not as TF Serving does", ends=(2,)):
        def call(folder):
            import concurrent.futures

            import grpc
            import numpy as np
            import tensorflow as tf
            from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

            class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
                def Predict(self, request, context):  # noqa: N802
                    made = {key: tf.make_tensor_proto(value) for key, value in outputs(np).items()}
                    for tensor in made.values():
                        if name == "a huge shape":
                            tensor.tensor_shape.dim[1].size = 1 << 40
                        if name == "a shape that does not fit":
                            tensor.tensor_shape.dim[0].size = 7
                    return predict_pb2.PredictResponse(outputs=made)

            server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
            prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
            port = server.add_insecure_port("localhost:0")
            server.start()
            try:
                return judged(*client(f"localhost:{port}", "--timeout=20", rest=False, limit=60), ends, says)
            finally:
                server.stop(None)

        return Attempt(f"over gRPC, a server that answers {name}", call=call, ends=(0,))

    def outputs(**changed):
        def make(np):
            right = {"classes": [[b"cat", b"dog"]], "probabilities": np.array([[0.75, 0.25]], np.float32)}
            right |= {key: value(np) for key, value in changed.items() if value}
            return {key: value for key, value in right.items() if changed.get(key, True)}

        return make

    yield ask("rightly", outputs(), "cat 75.0%", (0,))
    yield ask("without classes", outputs(classes=None))
    yield ask("without probabilities", outputs(probabilities=None))
    yield ask("nothing", outputs(classes=None, probabilities=None))
    yield ask("classes that are numbers", outputs(classes=lambda np: np.ones((1, 2))))
    yield ask("probabilities that are texts", outputs(probabilities=lambda np: [[b"1", b"0"]]))
    yield ask(
        "probabilities that are whole numbers of a vector", outputs(probabilities=lambda np: np.ones(2, np.int32))
    )
    yield ask("scalars", outputs(classes=lambda np: b"cat", probabilities=lambda np: np.float32(1)))
    yield ask("no rows", outputs(classes=lambda np: np.zeros((0, 2), "S1"), probabilities=lambda np: np.zeros((0, 2))))
    yield ask(
        "no columns", outputs(classes=lambda np: np.zeros((1, 0), "S1"), probabilities=lambda np: np.zeros((1, 0)))
    )
    yield ask("fewer probabilities", outputs(probabilities=lambda np: np.ones((1, 1), np.float32)))
    yield ask("NaN", outputs(probabilities=lambda np: np.full((1, 2), np.nan, np.float32)))
    yield ask("classes that are not UTF-8", outputs(classes=lambda np: [[b"\xff", b"a"]]))
    yield ask("a huge shape", outputs(probabilities=lambda np: np.ones((1, 1), np.float32)))
    yield ask("a shape that does not fit", outputs())
    yield ask("20 MB", outputs(classes=lambda np: [[b"x" * 20_000_000, b"y"]]), "refused the request|TF Serving does")
    yield ask("the class of what it cannot decode", outputs(classes=lambda np: [[b"", b""]]), "cannot decode", (1,))
