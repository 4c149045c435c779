"""Measures what parts of networks take on a device, for --latency_table of darts_tf.search.

On this machine, of the networks that darts_tf.train makes of what a search finds:

    python -m darts_tf.latency --space=chain --dataset=photos/ --output=here.json
    python -m darts_tf.search --space=chain --dataset=photos/ --latency_table=here.json --max_latency_ms=5

On another one, which needs Python, numpy and ai-edge-litert:

    python -m darts_tf.latency --space=chain --on="ssh pi" --output=pi.json

Or by hand: --archive=latency.zip writes what is to be measured, `python3 latency.zip > measured.json` on the device
does it, and --measured=measured.json makes the table of that.
"""

import dataclasses
import functools
import json
import math
import os
import pathlib
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import zipfile

import numpy as np

from darts_tf import spaces
from darts_tf.cli import commands, files, messages
from darts_tf.cli.configuration import Configuration, option
from darts_tf.cli.messages import RunError, UsageError
from darts_tf.costs import latency
from darts_tf.devices import runner
from darts_tf.runs import budget, sizes, starting
from darts_tf.runs.configurations import SearchConfig

NOTHING = "nothing"  # the model whose time is that of a call


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatencyConfig(Configuration):
    """What `python -m darts_tf.latency` is asked for; what it has in common with a search is as there."""

    dataset: str = option("digits", "Whose images the networks are for, as of darts_tf.search.", topic="Networks")
    data_dir: str | None = option(None, "As of darts_tf.search. Default: as there.", topic="Networks")
    image_size: int | None = option(
        None, "Resize images to this many pixels. Default: as they are.", topic="Networks", least=8, most=8192
    )
    space: str = option("chain", "The space, as of darts_tf.search.", topic="Networks")
    nodes: int | None = option(None, "As of darts_tf.search. Default: the space's.", topic="Networks", least=1)
    primitives: list | None = option(None, "As of darts_tf.search. Default: the space's.", topic="Networks")
    widths: list | None = option(None, "As of darts_tf.search. Default: the space's.", topic="Networks")
    init_channels: int | None = option(
        None, "Of chains, as of darts_tf.search. Default: the space's.", topic="Networks", least=2
    )
    layers: int | None = option(None, "Of mlp, as of darts_tf.search. Default: 4.", topic="Networks", least=1)
    units: int | None = option(None, "Of mlp, as of darts_tf.search. Default: 128.", topic="Networks", least=1)
    batch_norm: bool | None = option(None, "Of mlp, as of darts_tf.search. Default: yes.", topic="Networks")
    operations: str | None = option(None, "As of darts_tf.search. Default: none.", topic="Networks")
    label: str | None = option(None, "Of a table, as of darts_tf.search.", topic="Networks")
    columns: list | None = option(None, "Of a table, as of darts_tf.search. Default: as there.", topic="Networks")
    test_table: str | None = option(None, "Of a table, as of darts_tf.search. Default: none.", topic="Networks")
    test_seed: int = option(0, "Of a table, as of darts_tf.search.", topic="Networks", least=0, most=2**32 - 1)
    threads: int = option(1, "That compute a network.", topic="Device", least=1, most=1024)
    runtime: str = option(
        "tflite",
        "What computes it: TFLite files of float32, or SavedModels; those on this machine only.",
        topic="Device",
        values=("tflite", "saved_model"),
    )
    on: str | None = option(
        None,
        'A command that runs one on the device: "ssh pi". Default: this machine.',
        topic="Device",
    )
    rounds: int = option(15, "In each of which every part has its turn; the median counts.", topic="Device", least=1)
    networks: int = option(
        12,
        "Random networks that are measured as a whole, to fit what the sum of the parts does not have.",
        topic="Device",
        least=0,
        most=1000,
    )
    seed: int = option(0, "Of those networks.", topic="Device", least=0, most=2**32 - 1)
    archive: str | None = option(
        None,
        "Measure nothing: write what is to be measured, a program, to this .zip file. Default: measure.",
        topic="Device",
    )
    measured: str | None = option(None, "What the program has printed, a file. Default: measure.", topic="Device")
    output: str | None = option(
        None,
        "The table, a .json file. If it is there, and of the same device, it gets what it lacks. Default: none, it has "
        "to be given.",
        topic="Device",
    )


def main(config):
    """The command."""
    place = config.archive or config.output
    if not place:
        raise UsageError("--output: expected the .json file to write, see --help.")
    for name, suffix in (("archive", ".zip"), ("output", ".json")):
        path = getattr(config, name)
        if path and pathlib.Path(path).suffix != suffix:
            raise UsageError(f"--{name}={path}: expected a file name that ends in {suffix}.")
    if config.runtime != "tflite" and (config.on or config.archive or config.measured):
        raise UsageError(f"--runtime={config.runtime}: expected tflite for another device.")
    if config.runtime != "tflite" and config.threads > 1:
        raise UsageError(f"--threads={config.threads}: expected 1 with --runtime={config.runtime}.")
    if "text" in spaces.kind(config.space).kinds:
        raise UsageError(f"--space={config.space}: expected a space of images; all recurrent cells are as large.")
    if config.on and not _is_command(config.on):
        raise UsageError(f"--on={config.on}: no such command; expected one such as ssh pi.")
    before = _table(config.output) if config.output else None
    from darts_tf.devices import runtime

    messages.say("Starting TensorFlow ...")
    with runtime.configured(training=False, threads=config.threads):
        _make(config, before)


def _make(config, before):
    """Writes the table, or the archive; `before` is the table that is there, None if there is none."""
    costs, made = _networks(config)
    asked = [part for part in costs.all_parts() if before is None or str(part) not in before.milliseconds]
    models = {NOTHING: _nothing, **{str(part): part.model for part in asked}}
    models |= {f"network {place}": network for place, (_, network) in enumerate(made)}
    messages.say(f"{len(asked)} parts of networks and {len(made)} networks of the space {costs.space.name}")
    if config.archive:
        with files.writing_to(pathlib.Path(config.archive)):
            _write_archive(config, models, pathlib.Path(config.archive))
        messages.result(f"Saved {config.archive}; python3 {config.archive} > measured.json", archive=config.archive)
        return
    how = {"threads": config.threads, "runtime": config.runtime}
    if not (config.measured or config.on):  # before it takes minutes
        _check_device(before, _machine(config) | how, config)
    device, seconds = _measured(config, models)
    device |= how
    _check_device(before, device, config)
    table = _made_of(costs, made, asked, seconds, device, before)
    with files.writing_to(pathlib.Path(config.output)):
        files.write(pathlib.Path(config.output), table.to_json() + "\n")
    messages.result(_told(table, config), output=config.output, **_quality(table))


def _check_device(before, device, config):
    """Raises UsageError if the table that is there, or None, is of another device."""
    if before and before.device != device:
        differ = ", ".join(
            f"{name} {before.device.get(name, 'unknown')}" for name in device if before.device.get(name) != device[name]
        )
        raise UsageError(f"--output={config.output}: it is of another device, {differ}; expected another file.")


def _is_command(text):
    try:
        return bool(shutil.which((shlex.split(text) or [""])[0]))
    except ValueError:  # a quotation that does not end
        return False


def _table(path):
    """The table that a file holds; None if there is no file."""
    if not os.path.lexists(path):
        return None
    try:
        return latency.read(path)
    except (OSError, latency.TableError) as error:
        raise UsageError(f"--output={path}: {getattr(error, 'strerror', None) or error}") from None


def _networks(config):
    """The costs of the networks of a space, and a list of (architecture, function that builds its network)."""
    from darts_tf.search import completed

    names = {field.name for field in dataclasses.fields(SearchConfig)}
    values = {name: value for name, value in config.to_dict().items() if name in names and name in config.given}
    search = SearchConfig(**{**values, "space": config.space}).begun()
    data = starting.load_data(search)
    space, search = completed(search, data)
    for name in config.given & {"layers", "units", "batch_norm"} - sizes.names_of(space):
        value = getattr(config, name)
        raise UsageError(
            f"--{name}={value}: networks of the space {space.name} have it from their training; expected none."
        )
    samples = len(data.y_train)
    costs = budget.derived_costs(space, data.task, search, samples)
    if not hasattr(costs, "all_parts"):
        raise UsageError(f"--space={config.space}: nothing is known about the parts of its networks.")
    options, random = budget.derived_sizes(space, search, samples, space.network), np.random.default_rng(config.seed)

    def drawn():
        strengths = {name: random.random(table.mask.shape) * table.mask for name, table in space.choices.items()}
        return space.decide(strengths)

    architectures = [drawn() for _ in range(config.networks)]
    return costs, [(one, lambda one=one: space.network(one, data.task, **options)) for one in architectures]


def _nothing():
    """The smallest model."""
    import keras

    images = keras.Input((1, 1, 1))
    return keras.Model(images, keras.layers.ReLU()(images))


def _converted(models):
    """(name, TFLite file) of models, {name: function that builds one}; with progress."""
    from darts_tf.devices import tflite

    for name, build in messages.each(models.items(), "Converting"):
        yield name, tflite.of_model(build())


def _write_archive(config, models, path):
    asked = {"threads": config.threads, "rounds": config.rounds, "models": {}}
    with files.replacing(path) as beside, zipfile.ZipFile(beside, "w") as archive:
        for number, (name, content) in enumerate(_converted(models)):
            asked["models"][name] = f"{number}.tflite"
            archive.writestr(f"{number}.tflite", content)
        archive.writestr("models.json", json.dumps(asked))
        archive.write(runner.__file__, "__main__.py")


def _measured(config, models):
    """What the device is, a dict, and {name: seconds}."""
    if config.measured:
        try:
            return _checked(pathlib.Path(config.measured).read_text(encoding="utf-8", errors="replace"), models, config)
        except OSError as error:
            raise UsageError(f"--measured={config.measured}: {error.strerror}; expected a file.") from None
        except ValueError as error:
            raise UsageError(f"--measured={config.measured}: {error}") from None
    if config.runtime == "tflite":
        return _by_program(config, models)
    runs = {name: _of_saved_model(build()) for name, build in models.items()}
    seconds = runner.measure(runs, config.rounds, functools.partial(messages.each, what="Measuring"))
    return _machine(config), seconds


def _machine(config):
    """What measurements here depend on, a dict: `runner.machine`, with the version of what computes the networks."""
    device = runner.machine()
    if config.runtime == "saved_model":
        import tensorflow as tf

        del device["litert"]
        device["tensorflow"] = tf.__version__
    return device


def _checked(text, models, config):
    """What a program on a device has printed, see `_measured`; ValueError if it is something else."""
    try:
        found = json.loads(text[text.index("{") :])
        device, seconds = found["machine"], found["seconds"]
    except (ValueError, KeyError, TypeError):
        raise ValueError("expected what python3 latency.zip has printed.") from None
    if not isinstance(device, dict) or not isinstance(seconds, dict) or set(seconds) != set(models):
        raise ValueError("it is of other networks; expected the flags that --archive was given.")
    if not all(type(value) in (int, float) and 0 <= value < math.inf for value in seconds.values()):
        raise ValueError("expected seconds that are numbers.")
    if found.get("threads", config.threads) != config.threads:
        raise ValueError(f"it is of {found['threads']} threads; expected --threads={found['threads']}.")
    return device, seconds


def _by_program(config, models):
    """The same by the archive's program, here in a process of its own, or on the device that --on leads to."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "latency.zip"
        _write_archive(config, models, path)
        command, place = [sys.executable, str(path)], "darts_tf_latency.zip"
        if config.on:
            command = [*shlex.split(config.on), f"cat > {place} && python3 {place}; rm -f {place}"]
        messages.say(f"Measuring on {config.on or 'this machine'} ...")
        told = None if messages.verbosity() else subprocess.DEVNULL
        with open(path, "rb") as archive:
            done = subprocess.run(command, stdin=archive, stdout=subprocess.PIPE, stderr=told, check=False)
    try:
        return _checked(done.stdout.decode("utf-8", "replace"), models, config)
    except ValueError:
        if not config.on:
            raise RunError(f"the program that measures ended with exit code {done.returncode}.") from None
        raise UsageError(
            f"--on={config.on}: the program did not end well there; expected python3 with ai-edge-litert."
        ) from None


def _of_saved_model(model):
    """A function that computes a Keras model for one input as its SavedModel does."""
    import tensorflow as tf

    from darts_tf.devices import runtime

    inputs = [tf.random.stateless_normal([1, *x.shape[1:]], [0, 0]) for x in model.inputs]
    function = runtime.traced(model)
    return lambda: function(*inputs)


def _made_of(costs, made, asked, seconds, device, before):
    """The `LatencyTable` of measurements."""
    milliseconds = dict(before.milliseconds) if before else {}
    milliseconds |= {str(part): 1e3 * seconds[str(part)] for part in asked}
    networks = list(before.networks) if before else []
    table = latency.LatencyTable(device, milliseconds, 1e3 * seconds[NOTHING])
    for place, (architecture, _) in enumerate(made):
        total = sum(table.of(part) for part in costs.computed(architecture))
        networks.append([total, 1e3 * seconds[f"network {place}"]])
    return dataclasses.replace(table, networks=networks, fit=latency.fitted(networks))


def _quality(table):
    """How far fitted sums of parts are from networks, a dict."""
    if not table.networks:
        return {}
    factor, offset = table.fit
    errors = [abs(factor * total + offset - real) / real for total, real in table.networks]
    return {
        "networks": len(errors),
        "median_error": round(statistics.median(errors), 4),
        "worst_error": round(max(errors), 4),
    }


def _told(table, config):
    device = ", ".join(f"{name} {value}" for name, value in table.device.items())
    lines = [f"{len(table.milliseconds)} parts on {device}"]
    if table.networks:
        quality = _quality(table)
        lines.append(
            f"Sums of parts differ from {quality['networks']} whole networks by {quality['median_error']:.1%} "
            f"(median), at most {quality['worst_error']:.1%}"
        )
    return "\n".join([*lines, "", f"Saved {config.output}"])


if __name__ == "__main__":
    commands.run(main, LatencyConfig)
