"""README.md, BUILD.md and docs/: links, commands and names are right; the commands of each page run in short form."""

import contextlib
import dataclasses
import importlib
import itertools
import pathlib
import re
import shlex
import shutil
import signal

import keras
import numpy as np
import pytest
from PIL import Image

import darts_tf
import darts_tf.tuner
import export
from darts_tf import convert, latency, plot, run_search, run_training, tune
from darts_tf.cli import configuration, messages
from darts_tf.methods import penalties, perturbations, presets, relaxations, selections
from darts_tf.ops import operations
from darts_tf.runs import recipes
from darts_tf.runs.configurations import SearchConfig, TrainConfig
from export import ExportConfig, client, run_export

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "BUILD.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = {
    "darts_tf.search": SearchConfig,
    "darts_tf.train": TrainConfig,
    "darts_tf.tune": tune.TuneConfig,
    "darts_tf.plot": plot.PlotConfig,
    "darts_tf.latency": latency.LatencyConfig,
    "darts_tf.convert": convert.ConvertConfig,
    "export": ExportConfig,
    "export.client": client.ClientConfig,
}
HELP = [ROOT / pathlib.Path(*name.split(".")).with_suffix(".py") for name in COMMANDS if name != "export"]
HELP.append(ROOT / "export" / "__main__.py")
# What one process cannot do, and where it is tested.
NOT_RUN = {
    "--strategy=multi_worker": "several processes: tests/test_search.py",
    "--cpu_devices=2": "TensorFlow has begun with one device: tests/devices/test_replicas.py",
    "--output=/shared/": "a chief and its workers: tests/test_tune.py",
    "--repeat_search": "starts processes: tests/test_tune.py",
    "export.client": "a server: tests/export/test_client.py",
    "--on=": "another device: tests/test_latency.py",
    "--measured=": "the same",
    "--archive=": "the same",
    "--front=": "takes long: tests/test_latency.py, tests/runs/test_one_shot.py",
    "--model=runs/book/model.keras": "a language model: tests/export/test_language.py",
}
# The short form: these instead of what a command says, or does without saying.
TINY = {"epochs": 1, "batch_size": 64, "init_channels": 2, "layers": 1}
SPACE = {"nodes": 1, "primitives": ["skip_connect", "max_pool_3x3"]}
TEXT = {"epochs": 1, "batch_size": 8, "units": 4, "bptt": 8, "dataset": "book.txt"}
CELL = "Genotype(recurrent=[('tanh', 0)], concat=[1])"
SHORT = {
    "darts_tf.search": {**TINY, **SPACE, "layers": 3},
    "darts_tf.train": {**TINY, "auxiliary": False},
    "darts_tf.tune": {**TINY, **SPACE, "max_trials": 2},
    "darts_tf.latency": {"init_channels": 4, "rounds": 1, "networks": 1},
    "export": {"quantize": ["none"]},
}
PERCEPTRON = {"layers": 1, "units": 4}
CHAIN = {"generations": 1, "population": 2, "recalibration_images": 32}
MODELS = (
    "arch",
    "init_from",
    "evaluate",
    "model",
    "search_run",
    "from_supernet",
    "teacher",
)  # flags that name what another command has left


def text_of(page):
    return page.read_text(encoding="utf-8")


def blocks(page, *languages):
    """The code blocks of a page, of some languages."""
    return re.findall(rf"^```(?:{'|'.join(languages)})\n(.*?)^```", text_of(page), re.S | re.M)


def prose(page):
    return re.sub(r"^```.*?^```", "", text_of(page), flags=re.S | re.M)


def code(page):
    """All code of a page, its blocks and what is within a line."""
    return [*blocks(page, "sh", "yaml"), *re.findall(r"`([^`\n]+)`", prose(page))]


def commands(text):
    """(module, arguments) of the commands of this project in a text."""
    for module, rest in re.findall(
        r"python -m ((?:darts_tf|export|benchmarks)[\w.]*)((?:\\\n|\"[^\"\n]*\"|[^\\\n|])*)", text
    ):
        yield module, shlex.split(rest.replace("\\\n", " "), comments=True)


def parsed(module, arguments):
    """The configuration and the arguments that are no flags."""
    own = [argument for argument in arguments if not re.match(r"--(json|verbose=[012])$", argument)]
    flags = [argument for argument in own if argument.startswith("--")]
    return configuration.parse(COMMANDS[module], flags), [argument for argument in own if argument not in flags]


def name_of(page):
    return str(page.relative_to(ROOT))


every_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


def test_readme_is_short():
    assert len(text_of(ROOT / "README.md").splitlines()) <= 150


@every_page
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?:", link):
            continue
        place, _, heading = link.partition("#")
        target = page.parent / place if place else page
        assert target.exists(), link
        if heading:
            titles = re.findall(r"^#+ (.*)$", prose(target), re.M)
            assert heading in [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles], link


@every_page
def test_files_and_names_exist(page):
    for path in re.findall(r"`((?:darts_tf|export|tests|benchmarks|docs)/[\w./-]*)`", prose(page)):
        assert (ROOT / path).exists(), path
    for name in re.findall(r"`(darts_tf(?:\.\w+)+)`", prose(page)):
        found, parts = darts_tf, name.split(".")[1:]
        for place, part in enumerate(parts, 2):
            if not hasattr(found, part):
                importlib.import_module(".".join(name.split(".")[:place]))
            found = getattr(found, part)


def test_every_room_is_in_the_map():
    rooms = {path.parent.name for path in (ROOT / "darts_tf").glob("*/__init__.py")}
    listed = re.findall(r"^\| `([\w/]+)/` \|", text_of(ROOT / "README.md").partition("## Map")[2], re.M)
    assert rooms == {path.partition("/")[2] for path in listed if path.startswith("darts_tf/")}


def test_every_method_and_part_is_described():
    page = text_of(ROOT / "docs" / "methods.md")
    for name, method in presets.METHODS.items():
        assert f"\n| `{name}` | {method.idea} | {method.source} |" in page
        parts, training = (written(values) for values in (method.parts | method.cells, method.training))
        assert f"\n| `{name}` | {parts} | {training} |" in page
        assert not method.small or written(method.small) in page
    for registry in (relaxations, penalties, perturbations, selections):
        names = [name for name in registry.names() if registry.get(name).__module__ == registry.__name__]
        assert names and not [name for name in names if f"\n| `{name}` |" not in page]
    fields = [field for field in dataclasses.fields(SearchConfig) if field.metadata["topic"] == "Method"]
    assert len(fields) > 10 and not [field.name for field in fields if f"`--{field.name}`" not in page]
    early_stop = next(field for field in fields if field.name == "early_stop")
    assert not [name for name in early_stop.metadata["values"] if f"\n| `{name}` |" not in page]


def test_flags_of_text_have_the_defaults_that_the_page_says():
    page = text_of(ROOT / "docs" / "recurrent.md")
    rows = [row.strip("|").split("|") for row in re.findall(r"^\| `--\w+` \|.*", page, re.M)]
    searches = [SearchConfig(space="recurrent", dataset=name).begun() for name in ("book.txt", "topics")]
    recipes = ("ptb", "wikitext2", "small")
    trainings = [TrainConfig(space="recurrent", arch="DARTS_V2", recipe=name).begun() for name in recipes]
    assert len(rows) > 20
    for flag, _, *shown in rows:
        name = flag.strip(" `-")
        for text, config in zip(shown, [*searches, *trainings], strict=False):
            value = getattr(config, name, "")
            if value is None:
                value = {"vocabulary": "all", "nodes": 8}[name]
            value = {True: "yes", False: "no"}[value] if isinstance(value, bool) else value
            assert value == (float(text) if isinstance(value, int | float) else text.strip()), flag
    topics = ("Text", "Recurrent network")
    fields = [field.name for field in dataclasses.fields(TrainConfig) if field.metadata["topic"] in topics]
    assert not set(fields) - {row[0].strip(" `-") for row in rows}


def test_the_recipe_modern_has_what_the_page_says():
    page, config = text_of(ROOT / "docs" / "train.md"), TrainConfig(arch="DARTS_V2", recipe="modern").begun()
    own = {name: value for name, value in recipes.MODERN.items() if getattr(TrainConfig(), name) is not None}
    bold = re.findall(r"^\| \*\*`(.*?)`\*\* \|", page, re.M)
    assert sorted(f"`{flag}`" for flag in bold) == sorted(written({name: value}) for name, value in own.items())
    assert all(getattr(config, name) == value for name, value in own.items())


def written(values):
    """Flags as docs/methods.md writes them."""
    texts = {name: ",".join(value) if isinstance(value, list) else value for name, value in values.items()}
    flags = [f"--{name}" if value is True else f"--{name}={value}" for name, value in texts.items()]
    return f"`{' '.join(flags)}`" if flags else ""


@every_page
def test_make_targets_exist(page):
    targets = re.findall(r"^([\w-]+):", text_of(ROOT / "Makefile"), re.M)
    for block in code(page):
        assert set(re.findall(r"\bmake ([\w-]+)(?![\w=-])", block)) <= set(targets), block


@pytest.mark.parametrize("source", [*PAGES, *HELP], ids=name_of)
def test_commands_have_flags_that_there_are(source, monkeypatch):
    texts = code(source) if source.suffix == ".md" else [text_of(source).split('"""')[1]]
    for module, arguments in itertools.chain.from_iterable(map(commands, texts)):
        if module.startswith("benchmarks."):
            place = ROOT / module.replace(".", "/")
            assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), module
            continue
        if arguments == ["--help"] or not arguments:
            assert module in COMMANDS
            continue
        config, rest = parsed(module, arguments)
        images = 0 if config.given & {"text", "row"} else max(len(rest), 1)
        expected = {"darts_tf.plot": 1, "darts_tf.convert": 1, "export.client": images}
        assert len(rest) == expected.get(module, 0), arguments
        if hasattr(config, "check"):
            config.check()


def test_what_is_not_run_is_there():
    lines = [shlex.join([module, *rest]) for page in PAGES for module, rest in commands("\n".join(blocks(page, "sh")))]
    for pattern in NOT_RUN:
        assert any(pattern in line for line in lines), pattern


class Short:
    """Runs commands in short form, each form once: what differs in nothing but names gets a copy of what that left.

    Args:
        folder: has images, a model, and run directories, which commands get when they name some that are not there.
    """

    def __init__(self, folder):
        self.folder = folder
        self.left = {}

    def run(self, module, arguments):
        config, rest = self.shortened(module, arguments)
        values = {name: getattr(config, name) for name in sorted(config.given - {"output", "name"})}
        values.update({name: pathlib.Path(values[name]).name for name in MODELS if name in values})
        form = repr((module, values, rest))
        if form not in self.left:
            self.left[form] = RUN[module](config, *rest).absolute()
        elif self.left[form].is_file():
            shutil.copy(self.left[form], config.output)
        elif config.output:
            shutil.copytree(self.left[form], config.output)

    def shortened(self, module, arguments):
        config, rest = parsed(module, arguments)
        values = {name: getattr(config, name) for name in config.given}
        for path in (values[name] for name in MODELS if name in values):
            self._bring(pathlib.Path(path))
        if module in SHORT and (values.get("space") == "recurrent" or getattr(config, "kind", None) == "text"):
            return self._text_shortened(type(config), values), rest
        if getattr(config, "kind", None) == "table":
            more = {"darts_tf.search": PERCEPTRON, "darts_tf.tune": PERCEPTRON | {"max_trials": 2}}.get(module, {})
            return type(config)(**(values | {"epochs": 1} | more)), rest
        short = dict(SHORT.get(module, {}))
        if "primitives" in values or "space" in values:
            short.pop("primitives", None)
        if values.keys() & {"method", "partial_channels"}:
            short["init_channels"] = 4  # which a part of the channels divides
        if values.get("method") in ("auto", "dr-nas"):
            short |= {"init_channels": 12, "epochs": 2}  # for its parts and its stages
        if "chain" in values.get("space", "") or "chain" in values.get("arch", ""):
            short = {name: value for name, value in short.items() if name not in ("nodes", "primitives", "layers")}
        if "mlp" in values.get("space", "") or "mlp" in values.get("arch", ""):
            short = {"epochs": 1, "batch_size": 64}
        if values.get("method") == "spos":
            short |= CHAIN | {"batch_size": 32}
        if "from_supernet" in values:
            return type(config)(**(values | CHAIN | {"max_multiply_adds": None})), rest
        if values.get("space", "").endswith(".json"):
            short.pop("nodes", None)
        if "201" in values.get("space", ""):
            short["layers"] = 1
        if "init_from" in values or "evaluate" in values:  # which have an architecture
            for name in ("init_channels", "layers", "auxiliary"):
                del short[name]
        if "cutout" in values:
            short["cutout_length"] = 4
        if "image_size" in values or "recipe" in values:
            short["image_size"] = 8
        if "dataset" in values:
            short["dataset"] = values["dataset"].replace("cifar10", "photos").rstrip("/")
        rest = [name.replace(".pt", ".npz") for name in rest]
        for path in rest:
            self._bring(pathlib.Path(path))
        return type(config)(**(values | short)), rest

    def _text_shortened(self, kind, values):
        short = dict(TEXT)
        if kind is not TrainConfig:
            short["nodes"] = 1
        if kind is tune.TuneConfig:
            short["max_trials"] = 2
        if "init_from" in values or "evaluate" in values:
            del short["units"]
        if values.get("arch", "").startswith("DARTS"):
            values = values | {"arch": CELL}
        return kind(**(values | short))

    def _bring(self, path):
        if not path.exists() and (self.folder / path).exists():
            run = path if (self.folder / path).is_dir() else path.parent
            if run == pathlib.Path():
                shutil.copy(self.folder / path, path)
            else:
                shutil.copytree(self.folder / run, run)


def search_in_short(config):
    search = run_search(config, verbose=0)
    assert (search.directory / "genotype.json").exists()
    assert len(search.history) == (0 if config.from_supernet else config.epochs)
    return search.directory


def training_in_short(config):
    training = run_training(config, verbose=0)
    assert 0 <= training.results.get("top1", 0) <= 1 <= training.results.get("perplexity", 1)
    assert config.evaluate or (training.directory / "model.keras").exists()
    return training.directory or pathlib.Path()


def trials_in_short(config):
    before = signal.getsignal(signal.SIGTERM)
    with messages.spoken(0):
        tune.main(config)
    signal.signal(signal.SIGTERM, before)
    output = pathlib.Path(config.output or max(pathlib.Path("runs").glob("tune-*")))
    assert len((output / "trials.csv").read_text().splitlines()) == 3 and (output / "genotype.json").exists()
    return output


def export_in_short(config):
    exported = run_export(config, verbose=0)
    assert exported.saved_model.is_dir() and list(exported.tflite) == ["none"] and not exported.failed
    return pathlib.Path(config.output)


def file_in_short(command):
    def run(config, given):
        command.main(config, given)
        assert pathlib.Path(config.output).stat().st_size > 1000
        return pathlib.Path(config.output)

    return run


def table_in_short(config):
    latency.main(config)
    path = pathlib.Path(config.archive or config.output)
    assert path.stat().st_size > 500
    return path


RUN = {
    "darts_tf.search": search_in_short,
    "darts_tf.train": training_in_short,
    "darts_tf.tune": trials_in_short,
    "darts_tf.plot": file_in_short(plot),
    "darts_tf.latency": table_in_short,
    "darts_tf.convert": file_in_short(convert),
    "export": export_in_short,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory, request):
    """`Short`, and all that the pages take for granted: images, and what commands of other pages leave."""
    folder = tmp_path_factory.mktemp("docs")
    random = np.random.default_rng(0)
    for name, brightness in (("cats", 0), ("dogs", 100)):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(100):
            pixels = brightness + random.integers(0, 100, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{number}.png")
    (folder / "imagenet").mkdir()
    for link in ("flowers", "imagenet/train", "imagenet/val"):
        (folder / link).symlink_to(folder / "photos")
    (folder / "flowers.txt").write_text("rose\ntulip\n")
    lines = [" ".join(random.choice(["the", "cat", "sat", "on", "a", "mat"], 6)) for _ in range(100)]
    (folder / "book.txt").write_text("\n".join(lines))
    (folder / "cells.json").write_text(*blocks(ROOT / "docs" / "spaces.md", "json"))
    state = request.config.getoption("reference") / "cifar_DARTS_V2_auxiliary.npz"
    if state.exists():
        with np.load(state) as arrays:
            tensors = {name: arrays[name] for name in arrays if name.startswith("state/")}
        np.savez(folder / "cifar10_model.npz", **{name.removeprefix("state/"): tensors[name] for name in tensors})
    short = Short(folder)
    with contextlib.chdir(folder):
        short.run("darts_tf.search", ["--dataset=photos", "--image_size=32", "--output=runs/cifar10"])
        short.run(
            "darts_tf.train", ["--arch=runs/cifar10/genotype.json", "--dataset=photos", "--output=runs/cifar10-trained"]
        )
        short.run("darts_tf.train", [f"--arch={CELL}", "--output=runs/book"])
        short.run("darts_tf.search", ["--space=mlp", "--output=runs/mlp"])
    shutil.copy(folder / "runs" / "cifar10-trained" / "model.keras", folder / "flowers.keras")
    return short


@pytest.fixture
def short(made, tmp_path, monkeypatch):
    """`Short` in a folder of the page's own, which has the images."""
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    for name in ("photos", "flowers", "imagenet", "flowers.txt", "cells.json", "book.txt"):
        (tmp_path / name).symlink_to(made.folder / name)
    monkeypatch.chdir(tmp_path)
    return made


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in ("extend.md", "measured.md")], ids=name_of)
def test_commands_of_the_page(page, short):
    for module, arguments in commands("\n".join(blocks(page, "sh"))):
        line = shlex.join([module, *arguments])
        if module in COMMANDS and not any(pattern in line for pattern in NOT_RUN):
            short.run(module, arguments)


def replaced(function, usual=(), **short):
    """A function that takes the same arguments, with others for some of them, and with others if there are none."""
    return lambda *args, **kwargs: function(*args, **(dict(usual) | kwargs | short))


WITH_PYTHON = [ROOT / "docs" / name for name in ("python.md", "train.md", "recurrent.md", "budget.md", "tutorial.md")]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name_of)
def test_python_of_the_page(page, short, monkeypatch):
    monkeypatch.setattr(operations, "_REGISTRY", dict(operations._REGISTRY))
    for place, name, usual, less in (
        (darts_tf, "SearchConfig", {}, SHORT["darts_tf.search"]),
        (darts_tf, "TrainConfig", {}, SHORT["darts_tf.train"]),
        (export, "ExportConfig", {}, {"quantize": ["int8"], "samples": 10}),
        (darts_tf, "SearchNetwork", SPACE, {"channels": 2, "layers": 3}),
        (darts_tf, "RecurrentSearchNetwork", {}, {"units": 4}),
        (darts_tf, "cifar_network", {}, {"channels": 2, "layers": 1}),
        (darts_tf, "TrainedNetwork", {}, {"channels": 2, "layers": 1, "image_shape": (8, 8, 3)}),
        (darts_tf.tuner, "GenotypeHyperModel", SPACE, {"image_shape": (8, 8, 3), "channels": [2, 4], "layers": 1}),
        (darts_tf.tuner, "RegularizedEvolutionOracle", {}, {"max_trials": 2}),
    ):
        monkeypatch.setattr(place, name, replaced(getattr(place, name), usual, **less), raising=False)
    for name in ("search", "get_best_models"):  # of trials that are processes
        monkeypatch.setattr(darts_tf.tuner.DARTSTuner, name, lambda self: None)
    shutil.copytree(short.folder / "runs", "runs")
    x, y = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype("float32"), np.arange(64) % 10
    names = {"keras": keras, "images": x, "x": x, "y": y, "x_test": x, "y_test": y, "x_alpha": x, "y_alpha": y}
    for block in blocks(page, "python"):
        exec(re.sub(r"epochs=\d+", "epochs=1", block).replace("steps_per_epoch=steps", "steps_per_epoch=2"), names)
