"""The whole export: from the `.keras` file to what a server and devices take, and what that is worth."""

import dataclasses
import functools
import importlib.util
import json
import os
import pathlib
import re

from darts_tf.cli import files, messages
from darts_tf.cli.configuration import Configuration, option
from darts_tf.cli.messages import UsageError
from darts_tf.devices import runner

QUANTIZATIONS = ("none", "float16", "dynamic", "int8")
# Flags that mean something to some models only.
OF_IMAGES = ("image_size", "max_pixels")
OF_TEXT = ("vocabulary",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportConfig(Configuration):
    """What `export.run_export` and `python -m export` are asked for.

        export.run_export(export.ExportConfig(model="runs/a/model.keras", output="serving"))

    Each argument is a flag of `python -m export`, whose --help says what it means. `model` and `output` have to be
    given.

    Raises:
        UsageError: a value is out of range; a `ValueError`.
    """

    model: str | None = option(None, "The .keras file.", topic="Model")
    output: str | None = option(None, "A folder for the exported models; made if it is not there.", topic="Model")
    name: str | None = option(None, "What the model is called. Default: the file's name without .keras.", topic="Model")
    saved_model: bool = option(True, "Write a SavedModel.", topic="What to write")
    top_k: int = option(
        5,
        "Classes in its answer to encoded images or tf.Examples, or next tokens in that to texts.",
        topic="What to write",
        least=1,
    )
    max_pixels: int | None = option(
        None,
        'Width x height of the largest image file that it decodes; larger ones get the class "". Default: 8192 x 8192.',
        topic="What to write",
        least=1,
    )
    quantize: list | None = option(
        None,
        "TFLite files to write: some of none (float32), float16, dynamic and int8, or '' for no file. Default: all "
        "that is possible; int8 takes images, so that language models and those of tables do not have it. Of a table "
        "they take the vector that NAME-columns.json beside them describes.",
        topic="What to write",
    )
    labels: str | None = option(
        None,
        "A file of labels, one per line. Default: those of the run that made the model.",
        topic="What to write",
    )
    vocabulary: str | None = option(
        None,
        "A file of a language model's vocabulary, one token per line. Default: that of the run that made the model.",
        topic="What to write",
    )
    dataset: str | None = option(
        None,
        "Typical images, for int8 and the table, text, or rows: a name, a folder or a file as in darts_tf.train. "
        "Default: the data of the run that made the model.",
        topic="Data",
    )
    data_dir: str | None = option(None, "Where tensorflow-datasets keeps its data. Default: its own.", topic="Data")
    image_size: int | None = option(
        None, "Height and width, for a model that takes images of all sizes.", topic="Data", least=8
    )
    samples: int = option(
        200, "Training images from which int8 learns the range of each tensor.", topic="Data", least=1
    )

    @property
    def model_name(self):
        """What the model is called."""
        return self.name if self.name is not None else pathlib.Path(self.model).stem

    def check(self):
        """Raises UsageError for what can be seen without TensorFlow."""
        for name in ("model", "output"):
            if not getattr(self, name):
                raise UsageError(f"--{name}: expected a value, see --help.")
        for kind in self.quantize or []:
            if kind not in QUANTIZATIONS:
                raise UsageError(f"--quantize={kind}: expected some of {', '.join(QUANTIZATIONS)}.")
        from export import serving

        output, name = self.output, self.model_name
        if os.path.exists(output) and not os.path.isdir(output):
            raise UsageError(f"--output={output}: it is a file; expected a folder or a new name.")
        if not re.fullmatch(r"[\w.-]*[A-Za-z_][\w.-]*", name):
            raise UsageError(f"--name={name}: expected letters, digits, '_', '-' and '.'.")
        if name in ("tflite", serving.MODELS, serving.BATCHING):
            raise UsageError(f"--name={name}: expected another name, that one is taken by what is written beside it.")
        if os.path.lexists(os.path.join(output, name)) and not os.path.isdir(os.path.join(output, name)):
            raise UsageError(f"--name={name}: there is a file of that name in {output}; expected another name.")
        if not self.saved_model and self.quantize == []:
            raise UsageError("--nosaved_model and --quantize='': expected something to write.")


@dataclasses.dataclass(frozen=True)
class Export:
    """An export that has ended.

    Attributes:
        saved_model: folder of the SavedModel's new version, a path; None if none was asked for.
        tflite: {"none", "float16", "dynamic" or "int8": path of the TFLite file}.
        rows: what each format, the Keras model first, is worth: a list of dicts of "format", a text, "bytes",
            "accuracy" on test images if they are known, "max_difference" of a probability from Keras's, "agreement",
            the part of the images with the same first class, "latency_1" and "latency_32", seconds for batches of so
            many images, measured in turns; of TFLite without Python's conversion of numbers. Of a language model the
            agreement is that of the likeliest next token, the seconds are those of one step, and there is "perplexity".
            Of a number there is no agreement, and the difference is that of the number.
        example: what the SavedModel makes of a test image: the class it is of, the class it is taken for, and the
            probability of that; or of test text: a piece of that, the token that is the likeliest to follow, and its
            probability; or of a table what is right of a row, what it says, and the probability of a class, None of a
            number. None without a SavedModel or without test data.
        failed: a line for each thing that could not be written, and why.
        budget: what the search of the model was bounded by: a list of dicts of "cost", "most", "expected" and
            "exported", which is measured here; None if it was not.
        item: what the model is of: "image", "text" or "row".
    """

    saved_model: pathlib.Path | None
    tflite: dict
    rows: list
    example: tuple | None
    failed: list
    budget: list = dataclasses.field(default_factory=list)
    item: str = "image"


def run_export(config, verbose=1):
    """Exports a trained Keras image classifier, language model, or model of a table, as `python -m export` does.

        done = export.run_export(export.ExportConfig(model="runs/a/model.keras", output="serving"))
        done.saved_model, done.tflite["int8"]  # serving/model/1, serving/tflite/model-int8.tflite

    If TensorFlow has begun already, its threads stay as they are. The dtype policy and the graph optimiser are
    afterwards what they were.

    Args:
        config: `ExportConfig` with `model` and `output`.
        verbose: what stderr gets: 0 warnings, 1 or 2 what is done, too.

    Returns:
        `Export`. What cannot be converted is named there; the rest is written.

    Raises:
        UsageError: the configuration asks for something that cannot be, or a package is missing; a `ValueError`.
        OSError: the disk is full.
    """
    with messages.spoken(verbose):
        config.check()
        check_packages()
        messages.say("Starting TensorFlow ...")
        from darts_tf.devices import runtime

        with runtime.configured(training=False):
            return _export(config)


def _export(config):
    from darts_tf.devices.tflite import ConversionError
    from export import comparison, language, representative, tabular, tflite

    model = load(config)
    kinds, samples = config.quantize, lambda: None
    item = "image"
    if isinstance(model, tabular.TableModel):
        item, sample = "row", comparison.Rows(model, *representative.test_rows(config, model))
        kinds = (QUANTIZATIONS[:-1] if model.width else ()) if kinds is None else kinds
    elif isinstance(model, language.LanguageModel):
        item = "text"
        sample = comparison.Text(model, *representative.test_tokens(config, model))
        kinds = QUANTIZATIONS[:-1] if kinds is None else kinds
    else:
        data = representative.load(config, model)
        sample = comparison.Images(model, *representative.test_images(data, model))
        kinds = QUANTIZATIONS[: None if data else -1] if kinds is None else kinds
        samples = functools.cache(lambda: representative.training_images(data, config.samples))
    forms, sizes = {"Keras": sample.keras}, {"Keras": pathlib.Path(config.model).stat().st_size}
    written, version, failed = {}, None, []
    with files.writing_to(pathlib.Path(config.output)):
        if config.saved_model:
            version = write_saved_model(model, config, failed)
            forms["SavedModel"] = sample.saved_model(version)
            sizes["SavedModel"] = sum(path.stat().st_size for path in version.rglob("*") if path.is_file())
        for kind in kinds:
            shown = kind.replace("none", "float32")
            messages.say(f"Converting to TFLite, {shown} ...")
            try:
                content = tflite.convert(model, kind, samples() if kind == "int8" else None)
            except ConversionError as error:
                failed.append(f"TFLite {shown}: {error}")
                continue
            written[kind] = pathlib.Path(config.output) / "tflite" / f"{config.model_name}-{shown}.tflite"
            files.write(written[kind], content)
            forms[f"TFLite {shown}"], sizes[f"TFLite {shown}"] = sample.tflite(content), len(content)
        if written and item == "row" and model.columns:
            path = pathlib.Path(config.output) / "tflite" / f"{config.model_name}-columns.json"
            files.write(path, json.dumps([place for one in model.columns for place in one.places()], indent=1) + "\n")
    folder = pathlib.Path(config.output) / "tflite"
    others = [folder / f"{config.model_name}-{kind.replace('none', 'float32')}.tflite" for kind in QUANTIZATIONS]
    stale = [str(path) for path in others if path.exists() and path not in written.values()]
    if stale:
        messages.warn(f"{', '.join(stale)}: of an earlier export, perhaps of another model.")
    messages.say("Measuring ...")
    rows = comparison.rows(forms, sizes, sample)
    bounded = promised(config, rows)
    return Export(version, written, rows, sample.example(version) if version else None, failed, bounded, item)


def promised(config, rows):
    """What the search of the model was bounded by, with what is true of the exported files.

    Args:
        config: `ExportConfig`, whose model may have budget.json of its training beside it.
        rows: as of `Export`.

    Returns:
        list of {"cost": name, "most": number, "expected": number, "exported": number, None if it was not measured}. A
        latency is measured if it is that of this machine, of one thread.
    """
    try:
        found = json.loads(pathlib.Path(config.model).with_name("budget.json").read_text(encoding="utf-8"))
        known = [{name: one[name] for name in ("cost", "most", "expected")} for one in found]
        devices = [one.get("device") for one in found]
    except (OSError, ValueError, TypeError, KeyError):  # nothing was promised
        return []
    formats = {row["format"]: row for row in rows}
    sizes = {"model_bytes": "TFLite float32", "int8_model_bytes": "TFLite int8"}
    here = {**runner.machine(), "threads": 1, "runtime": "tflite"}
    for one, device in zip(known, devices, strict=True):
        row = formats.get(sizes.get(one["cost"], "TFLite float32"), {})
        real = row.get("bytes") if one["cost"] in sizes else None
        if one["cost"] == "latency_ms" and row and device in (None, here):
            real = 1e3 * row["latency_1"]
        one["exported"] = real
    return known


def check_packages():
    """Raises UsageError if what only exports need is not installed."""
    for package in ("ai_edge_litert", "tensorflow_serving"):
        if importlib.util.find_spec(package) is None:
            raise UsageError(f"{package} is not installed: pip install 'darts-tf[export]'")


def write_saved_model(model, config, failed):
    """Writes the next version and what a server is told of it; what cannot be told is added to `failed`."""
    from export import classifier, decoding, savedmodel, serving

    messages.say("Writing the SavedModel ...")
    output, options = pathlib.Path(config.output), {"top_k": config.top_k}
    if config.max_pixels:
        options["max_pixels"] = config.max_pixels
    version = savedmodel.export(model, output / config.model_name, **options)
    try:
        serving.write_configuration(output)
    except serving.ConfigurationError as error:
        failed.append(str(error))
    if isinstance(model, classifier.Classifier) and model.image_shape[2] not in decoding.DEPTHS:
        messages.warn(
            f"the SavedModel has no signature {classifier.SIGNATURE}: the model takes images of {model.image_shape[2]} "
            "channels, and image files have 1, 3 or 4."
        )
    return version


def load(config):
    """The `classifier.Classifier`, `language.LanguageModel` or `tabular.TableModel` of --model."""
    from export import classifier, language, models, tabular

    def refuse(names, whose, what):
        for name in names:
            if getattr(config, name) is not None:
                raise UsageError(f"--{name}: it is for {whose}; --model={config.model} is {what}.")

    try:
        model = models.read(config.model)
        if not language.is_one(model):
            refuse(OF_TEXT, "language models", "none")
            if not tabular.is_one(model):
                return classifier.load(config.model, texts(config, "labels"), config.image_size, model)
            refuse(OF_IMAGES, "image classifiers", "of a table")
            made = tabular.load(config.model, texts(config, "labels"), model)
            if "int8" in (config.quantize or []):
                raise UsageError(
                    "--quantize=int8: columns of a table, whose values lie far from each other, would be rounded to "
                    "256 steps; expected none, float16 and dynamic, which has 8-bit weights."
                )
            if config.quantize and not made.width:
                raise UsageError(
                    f"--quantize={config.quantize[0]}: --model={config.model} has no layer called encoded, whose "
                    "output a device could give it; expected --quantize=''."
                )
            return made
        refuse(("labels", *OF_IMAGES), "image classifiers", "a language model")
        if "int8" in (config.quantize or []):
            raise UsageError(
                "--quantize=int8: the log-probabilities of a language model would have steps of 1/16, and its state "
                "be rounded at each token; expected none, float16 and dynamic, which has 8-bit weights."
            )
        return language.load(config.model, texts(config, "vocabulary"), model)
    except models.ModelError as error:
        raise UsageError(f"--model={config.model}: {error}") from None


def texts(config, name):
    """The lines of the file that --labels or --vocabulary names; None if it names none."""
    from export import labels

    path = getattr(config, name)
    if not path:
        return None
    try:
        return labels.read(path, tokens=name == "vocabulary")
    except (OSError, labels.LabelError) as error:
        reason = getattr(error, "strerror", None) or error
        one = "token" if name == "vocabulary" else "label"
        raise UsageError(f"--{name}={path}: {reason}; expected one {one} per line.") from None
