"""Exports a trained Keras image classifier for TF Serving (SavedModel) and for devices (TFLite).

    python -m export --model=runs/a/model.keras --output=serving

writes serving/NAME/1 (then 2, ...), serving/models.config and batching.config for the server, and serving/tflite/.
Any classifier saved by Keras will do, whatever made it; it is expected to take pixels as they are in image files.
The labels are those of the training run beside the model, or of --labels:

    python -m export --model=flowers.keras --labels=flowers.txt --dataset=flowers/ --output=serving

At the end a table compares what was written with the Keras model, on the test images of --dataset.
"""

import importlib.util
import os
import pathlib
import re
import sys

from absl import flags

from darts_tf.cli import commands
from darts_tf.cli.files import write

FLAGS = flags.FLAGS
QUANTIZATIONS = ("none", "float16", "dynamic", "int8")
COMPARED = 1000  # images, at most

with commands.topic("Model"):
    flags.DEFINE_string("model", None, "The .keras file.")
    flags.DEFINE_string("output", None, "A folder for the exported models; made if it is not there.")
    flags.DEFINE_string("name", None, "What the model is called. Default: the file's name without .keras.")

with commands.topic("What to write"):
    flags.DEFINE_boolean("saved_model", True, "Write a SavedModel.")
    flags.DEFINE_integer("top_k", 5, "Classes in its answer to encoded images.", lower_bound=1)
    flags.DEFINE_integer(
        "max_pixels",
        None,
        'Width x height of the largest image file that it decodes; larger ones get the class "". Default: 8192 x 8192.',
        lower_bound=1,
    )
    flags.DEFINE_list(
        "quantize",
        None,
        "TFLite files to write: some of none (float32), float16, dynamic and int8, or '' for no file. Default: all "
        "that is possible; int8 takes images.",
    )
    flags.DEFINE_string(
        "labels", None, "A file of labels, one per line. Default: those of the run that made the model."
    )

with commands.topic("Data"):
    flags.DEFINE_string(
        "dataset",
        None,
        "Typical images, for int8 and the table: a name, a folder or a file as in darts_tf.train. Default: the data of "
        "the run that made the model.",
    )
    flags.DEFINE_string("data_dir", None, "Where tensorflow-datasets keeps its data. Default: its own.")
    flags.DEFINE_integer(
        "image_size", None, "Height and width, for a model that takes images of all sizes.", lower_bound=8
    )
    flags.DEFINE_integer(
        "samples", 200, "Training images from which int8 learns the range of each tensor.", lower_bound=1
    )


def main(_):
    check_flags()
    commands.say("Starting TensorFlow ...")
    from darts_tf.devices import runtime

    runtime.configure(training=False)
    check_packages()
    from export import comparison, decoding, savedmodel, serving, tflite

    classifier = load_classifier()
    data = load_data(classifier)
    quantize = FLAGS.quantize
    if quantize is None:
        quantize = QUANTIZATIONS if data else QUANTIZATIONS[:-1]
    images, labels = test_images(data, classifier)
    expected = classifier.probabilities(images)
    size = pathlib.Path(FLAGS.model).stat().st_size
    rows = [comparison.row("Keras", size, classifier.probabilities, images, expected)]
    name, output = model_name(), pathlib.Path(FLAGS.output)
    version, failed = None, []
    try:
        if FLAGS.saved_model:
            commands.say("Writing the SavedModel ...")
            version = savedmodel.export(classifier, output / name, FLAGS.top_k, FLAGS.max_pixels or decoding.MAX_PIXELS)
            try:
                serving.write_configuration(output)
            except serving.ConfigurationError as error:
                failed.append(str(error))
            if classifier.image_shape[2] not in decoding.DEPTHS:
                commands.warn(
                    f"the SavedModel has no signature {savedmodel.SIGNATURE}: the model takes images of "
                    f"{classifier.image_shape[2]} channels, and image files have 1, 3 or 4."
                )
            size = sum(path.stat().st_size for path in version.rglob("*") if path.is_file())
            rows.append(comparison.row("SavedModel", size, comparison.saved_model(version), images, expected))
        for kind in quantize:
            shown = kind.replace("none", "float32")
            commands.say(f"Converting to TFLite, {shown} ...")
            try:
                content = tflite.convert(classifier, kind, samples(data) if kind == "int8" else None)
            except tflite.ConversionError as error:
                failed.append(f"TFLite {shown}: {error}")
                continue
            (output / "tflite").mkdir(parents=True, exist_ok=True)
            write(output / "tflite" / f"{name}-{shown}.tflite", content)
            rows.append(comparison.row(f"TFLite {shown}", len(content), comparison.tflite(content), images, expected))
    except OSError as error:
        if error.errno in commands.NO_SPACE:
            raise
        where = f"{error.filename}: " if error.filename else ""
        raise commands.UsageError(
            f"--output={output}: {where}{error.strerror or error}; expected a place to write to."
        ) from None

    texts, files = [comparison.table(rows), ""], {}
    if version:
        texts.append(f"Saved {version}/ (docker run ... tensorflow/serving: README.md)")
        files["saved_model"] = version
    if any("TFLite" in row["format"] for row in rows):
        texts.append(f"Saved {output}/tflite/{name}-*.tflite")
        files["tflite"] = output / "tflite"
    if version and labels is not None:
        found, probability = savedmodel.ask(version, images[0])
        actual = classifier.labels[labels[0]]
        texts.append(f"\n{version} takes a test image of class {actual} for {found} ({probability:.1%}).")
    commands.result("\n".join(texts), **files, formats=rows)
    for message in failed:
        print(f"error: {message}", file=sys.stderr)
    sys.exit(1 if failed else 0)


def model_name():
    """What the model is called."""
    return FLAGS.name if FLAGS.name is not None else pathlib.Path(FLAGS.model).stem


def check_flags():
    """Raises UsageError for what can be seen without TensorFlow."""
    for flag in ("model", "output"):
        if not FLAGS[flag].value:
            raise commands.UsageError(f"--{flag}: expected a value, see --help.")
    for kind in FLAGS.quantize or []:
        if kind not in QUANTIZATIONS:
            raise commands.UsageError(f"--quantize={kind}: expected some of {', '.join(QUANTIZATIONS)}.")
    from export import serving

    output, name = FLAGS.output, model_name()
    if os.path.exists(output) and not os.path.isdir(output):
        raise commands.UsageError(f"--output={output}: it is a file; expected a folder or a new name.")
    if not re.fullmatch(r"[\w.-]*[A-Za-z_][\w.-]*", name):
        raise commands.UsageError(f"--name={name}: expected letters, digits, '_', '-' and '.'.")
    if name in ("tflite", serving.MODELS, serving.BATCHING):
        raise commands.UsageError(
            f"--name={name}: expected another name, that one is taken by what is written beside it."
        )
    if os.path.lexists(os.path.join(output, name)) and not os.path.isdir(os.path.join(output, name)):
        raise commands.UsageError(f"--name={name}: there is a file of that name in {output}; expected another name.")
    if not FLAGS.saved_model and FLAGS.quantize == []:
        raise commands.UsageError("--nosaved_model and --quantize='': expected something to write.")


def check_packages():
    """Raises UsageError if what only exports need is not installed."""
    for package in ("ai_edge_litert", "tensorflow_serving"):
        if importlib.util.find_spec(package) is None:
            raise commands.UsageError(f"{package} is not installed: pip install 'darts-tf[export]'")


def load_classifier():
    from export import classifier, labels

    names = None
    if FLAGS.labels:
        try:
            names = labels.read(FLAGS.labels)
        except (OSError, labels.LabelError) as error:
            reason = getattr(error, "strerror", None) or error
            raise commands.UsageError(f"--labels={FLAGS.labels}: {reason}; expected one label per line.") from None
    try:
        return classifier.load(FLAGS.model, names, FLAGS.image_size)
    except classifier.ModelError as error:
        raise commands.UsageError(f"--model={FLAGS.model}: {error}") from None


def load_data(model):
    """Images that fit the model, or None if none were named or those of its run are gone."""
    from darts_tf.data import datasets, streams
    from darts_tf.runs import recipes
    from export.labels import beside

    run = beside(FLAGS.model)
    name = FLAGS.dataset or run.get("dataset")
    if not name:
        if "int8" in (FLAGS.quantize or []):
            raise commands.UsageError("--quantize=int8: it learns ranges from images; expected --dataset, too.")
        return None
    random_parts = recipes.is_imagenet(name) or (not FLAGS.dataset and run.get("recipe") == "imagenet")
    where = name, model.image_shape[:2], FLAGS.data_dir or run.get("data_dir")
    try:
        if random_parts:
            loaded = streams.load(*where, commands.say)
        else:  # a few images are enough, so those in files stay there
            loaded = datasets.load(*where, datasets.is_folder(name), commands.say, commands.progress)
        data = loaded.fitted(model.image_shape)
        if len(data.class_names) != len(model.labels):
            raise datasets.DataError(f"it has {len(data.class_names)} classes: the model has {len(model.labels)}.")
        return data
    except datasets.DataError as error:
        if FLAGS.dataset or "int8" in (FLAGS.quantize or []):
            raise commands.UsageError(f"--dataset={name}: {error}") from None
        commands.say(f"Without --dataset={name}, of the run that made the model: {error}")
        return None


def test_images(data, classifier):
    """Some test images and their labels; without data random images and None."""
    import numpy as np

    from darts_tf.data import streams

    if data is None:
        commands.say("No --dataset: comparing on random images.")
        return np.random.default_rng(0).integers(0, 256, (64, *classifier.image_shape)).astype(np.float32), None
    if isinstance(data, streams.Stream):
        images, labels = zip(*data.test_batches().unbatch().take(COMPARED).as_numpy_iterator(), strict=True)
        return np.stack(images), np.stack(labels)
    if isinstance(data.x_train, np.ndarray) and data.x_train.max() <= 1:
        commands.warn(
            "the images of --dataset go up to 1 and those in files up to 255: the model will take the latter for "
            "something else, unless a Rescaling layer in it expects them."
        )
    chosen = np.random.default_rng(0).permutation(len(data.y_test))[:COMPARED]
    return array(data.x_test, chosen), data.y_test[chosen]


def samples(data):
    """Training images, as many as asked for, in random order."""
    import numpy as np

    from darts_tf.data import streams
    from darts_tf.data.augmentation import Augmentation

    if not isinstance(data, streams.Stream):
        return array(data.x_train, np.random.default_rng(1).permutation(len(data.y_train))[: FLAGS.samples])
    batches, *_ = data.batches(min(FLAGS.samples, len(data.y_train)), Augmentation())
    images, _ = next(iter(batches()))
    return images.numpy()


def array(images, chosen):
    """Chosen images of a dataset as float32."""
    from darts_tf.data import datasets
    from darts_tf.data.images import of

    try:
        return of(images)[chosen].array().astype("float32")
    except datasets.DataError as error:
        raise commands.UsageError(f"--dataset: {error}") from None


if __name__ == "__main__":
    commands.run(main)
