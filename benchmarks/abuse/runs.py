"""Attempts against runs: their directories, what is damaged in them, interruptions, flags, genotypes and pictures."""

import io
import json
import os
import shutil

import numpy as np

from benchmarks.abuse import Attempt, B

SEARCH = ("darts_tf.search", *B, "--epochs=1")
RESUME = ("darts_tf.search", "--output=search", "--resume")
TRAIN = ("darts_tf.train", "--layers=1", "--init_channels=4", "--epochs=1")
ARCH = (
    "Genotype(normal=[('skip_connect', 0), ('skip_connect', 1)], normal_concat=[2], "
    "reduce=[('skip_connect', 0), ('max_pool_3x3', 1)], reduce_concat=[2])"
)
LONG = "x" * 300
ONE_LINE = r"(?m)^error: .+\.$"
KEPT = ("search/**/*", "train/**/*", "tune/*", "other/**/*")


def attempts():
    """Yields all of them."""
    yield from damaged()
    yield from strangers()
    yield from evaluations()
    yield from flags()
    yield from places()
    yield from steps()
    yield from operations()
    yield from texts()
    yield from pictures()
    yield from streams()
    yield from disks()
    yield from accidents()


def attempt(name, command, prepare=None, **more):
    return Attempt(name, command, prepare=prepare, **more)


# What may have become of a file. Each is a function of its path.


def put(content):
    def damage(path):
        path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)

    return damage


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: 2 * len(content) // 3])


def a_folder(path):
    path.unlink()
    path.mkdir()


def a_file(path):
    shutil.rmtree(path)
    path.write_text("")


def gone(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def a_loop(path):
    gone(path)
    path.symlink_to(path.name)


def a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def changed(**values):
    def damage(path):
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return damage


def arrays(**values):
    """Other arrays in a .npz; those that are None are left out."""

    def damage(path):
        with np.load(path) as kept:
            found = {**{name: kept[name] for name in kept.files}, **values}
        content = io.BytesIO()
        np.savez(content, **{name: value for name, value in found.items() if value is not None})
        path.write_bytes(content.getvalue())

    return damage


def replaced(old, new):
    def damage(path):
        path.write_text(path.read_text().replace(old, new, 1))

    return damage


NO_FILE = {
    "empty": put(""),
    "cut": cut,
    "junk": put(bytes(range(256)) * 9),
    "a folder": a_folder,
    "a loop": a_loop,
    "null": put("null"),
    "a list": put("[]"),
    "a number": put("5"),
    "brackets": put("[" * 100_000),
}
CONFIGS = {
    **{name: damage for name, damage in NO_FILE.items()},
    "{}": put("{}"),
    "a text": put('"x"'),
    "NaN": put("NaN"),
    "UTF-16": put("{}".encode("utf-16")),
    "epochs: text": changed(epochs="x"),
    "epochs: null": changed(epochs=None),
    "epochs: 1.5": changed(epochs=1.5),
    "learning rate: NaN": changed(learning_rate=float("nan")),
    "primitives: numbers": changed(primitives=[1, 2]),
    "primitives: an unknown one": changed(primitives=["skip_connect", "x"]),
    "dataset: a list": changed(dataset=["digits"]),
    "command: train": changed(command="train"),
    "data: null": changed(data=None),
    "data: no names": changed(data={"image_shape": [8, 8, 1]}),
    "nodes: another": changed(nodes=3),
    "strategy: none such": changed(strategy="x"),
    "seed: true": changed(seed=True),
}
HISTORIES = {
    **{name: NO_FILE[name] for name in ("empty", "cut", "a folder")},
    "a pipe": a_pipe,
    "gone": gone,
    "only its head": lambda path: path.write_text(path.read_text().split("\n")[0] + "\n"),
    "an epoch that is a text": replaced("\n1,", "\nx,"),
    "another epoch": replaced("\n1,", "\n7,"),
    "a loss that is a text": replaced("\n1,0.", "\n1,zero."),
    "another genotype": replaced("Genotype(", "Genotyp("),
    "zeros": lambda path: path.write_bytes(b"\0" * path.stat().st_size),
    "more columns": replaced("\n1,", "\n1,1,1,1,"),
}
ALPHAS = {
    **{name: NO_FILE[name] for name in ("empty", "cut", "a folder")},
    "gone": gone,
    "without reduce": arrays(reduce=None),
    "without primitives": arrays(primitives=None),
    "of other edges": arrays(normal=np.zeros((2, 9, 2)), reduce=np.zeros((2, 9, 2))),
    "of numbers that are no numbers": arrays(normal=np.full((2, 5, 2), np.nan)),
    "of texts": arrays(normal=np.full((2, 5, 2), "x")),
    "of objects": arrays(normal=np.array([{}], object)),
    "of the start alone": lambda path: arrays(normal=np.zeros((1, 5, 2)), reduce=np.zeros((1, 5, 2)))(path),
}
CHECKPOINTS = {
    **{name: NO_FILE[name] for name in ("empty", "cut", "junk", "a folder", "a loop")},
    "without a step": arrays(step=None),
    "of a step that is a text": arrays(step=np.array("x")),
    "of a step that is a list": arrays(step=np.array([22, 22])),
    "of another step": arrays(step=np.array(7)),
    "of a negative step": arrays(step=np.array(-22)),
    "of another shape": arrays(arr_0=np.zeros(3, np.float32)),
    "of objects": arrays(arr_0=np.array([{}], object)),
}


def newest(folder):
    return next(folder.glob("search/checkpoints/*.npz"))


def damaged():
    """Files of a finished run."""

    def spoil(name, damage):
        return lambda folder: damage(folder / name)

    for what, damage in CONFIGS.items():
        ways = {"--resume": RESUME, "the same command": (*SEARCH, "--output=search")}
        for way in ways if what in ("{}", "a list") else ["--resume"]:
            yield attempt(
                f"config.json is {what}, {way}",
                ways[way],
                spoil_and_keep("config.json", damage),
                runs=("search",),
                says=ONE_LINE,
                keeps=("search/**/*",) if what != "nodes: another" else ("search/[!c]*", "search/checkpoints/*"),
            )
    for what in ("{}", "a list", "cut", "a folder"):
        yield attempt(
            f"config.json is {what}, --overwrite",
            (*SEARCH, "--output=search", "--overwrite"),
            spoil_and_keep("config.json", CONFIGS[what]),
            runs=("search",),
            says=ONE_LINE,
            keeps=("search/**/*",),
        )
    for name, damages in (("history.csv", HISTORIES), ("alphas.npz", ALPHAS)):
        for what, damage in damages.items():
            yield attempt(
                f"{name} is {what}",
                RESUME,
                spoil_and_keep(name, damage),
                runs=("search",),
                says=rf"(?m)^error: --output=search: .*{name.replace('.', '[.]')}.*\.$",
                keeps=("search/[!c]*", "search/checkpoints/*"),
            )
    for what, damage in CHECKPOINTS.items():
        yield attempt(
            f"the checkpoint is {what}",
            RESUME,
            lambda folder, damage=damage: damage(newest(folder)),
            runs=("search",),
            says=r"(?m)^error: --output=search: .*\.$",
            keeps=("search/[!c]*", "search/checkpoints/*"),
        )
    for what in NO_FILE:
        for name in ("metrics.json", "predictions.npz"):
            if what not in (("empty", "cut", "a folder") if name == "predictions.npz" else ("null", "a list", "cut")):
                continue
            yield attempt(
                f"{name} of a training is {what}",
                ("darts_tf.train", "--output=train", "--resume"),
                lambda folder, name=name, what=what: NO_FILE[what](folder / "train" / name),
                runs=("train",),
                says=rf"(?m)^error: --output=train: its {name.replace('.', '[.]')} .*\.$",
                keeps=("train/[!c]*",),
            )
    for name in ("genotype.json", "report.html"):
        for what in ("empty", "cut", "gone"):
            yield attempt(
                f"{name} of a finished search is {what}: it is written again",
                RESUME,
                spoil("search/" + name, {**NO_FILE, "gone": gone}[what]),
                runs=("search",),
                ends=(0,),
                check=lambda folder, *_, name=name: wrong_result(folder / "search", name),
            )
    for name in ("checkpoints", "checkpoints/*"):
        for way, command in (("--resume", RESUME), ("the same command", (*SEARCH, "--output=search"))):
            yield attempt(
                f"{name} of a finished search is gone, {way}",
                command,
                lambda folder, name=name: [gone(path) for path in folder.glob(f"search/{name}")],
                runs=("search",),
                says=r"(?m)^error: --output=search: its checkpoints are gone.*\.$",
                keeps=("search/[!c]*",),
            )
        yield attempt(
            f"{name} of a finished training is gone",
            ("darts_tf.train", "--output=train", "--resume"),
            lambda folder, name=name: [gone(path) for path in folder.glob(f"train/{name}")],
            runs=("search", "train"),
            says=r"(?m)^error: --output=train: its checkpoints are gone.*\.$",
            keeps=("train/[!c]*",),
        )
    for name in ("checkpoints", "tensorboard"):

        def prepare(folder, name=name):
            shutil.rmtree(folder / "search" / name, ignore_errors=True)
            (folder / "search" / name).write_text("")

        yield attempt(
            f"{name} is a file", (*RESUME, "--tensorboard"), prepare, runs=("search",), says=ONE_LINE, keeps=KEPT
        )


def spoil_and_keep(name, damage):
    return lambda folder: damage(folder / "search" / name)


def wrong_result(folder, name):
    if name == "genotype.json" and not (folder / name).read_text().endswith("]}\n"):
        return "it is no genotype"
    if name == "report.html" and "</html>" not in (folder / name).read_text():
        return "it is no report"
    return None


def strangers():
    """Files that are of no run of ours."""
    theirs = ("config.json", "metrics.json", "model.keras", "history.csv", "genotype.json", "report.html", "notes.txt")

    def folder_of(*names):
        def prepare(folder):
            (folder / "other").mkdir()
            for name in names:
                (folder / "other" / name).parent.mkdir(exist_ok=True)
                (folder / "other" / name).write_text('{"mine": 1}')

        return prepare

    for names in [*[(name,) for name in theirs], theirs, ("checkpoints/mine.npz",), (".1password",)]:
        for flag in ("--overwrite", "--resume", "--nooverwrite"):
            if len(names) == 1 and flag != "--overwrite" and names[0] not in ("config.json", ".1password"):
                continue
            yield attempt(
                f"a stranger's {', '.join(names)} with {flag}",
                (*SEARCH, "--output=other", flag),
                folder_of(*names),
                says=ONE_LINE,
                keeps=("other/*", "other/.*", "other/*/*"),
            )

    hidden = (".1password", ".2fa", ".7.notes.txt", ".99999999.config.json", ".123.config.json.bak", ".0.")
    places = [*hidden, *[f"checkpoints/{name}" for name in hidden], *[f"sub/{name}" for name in hidden]]

    def hide(folder):
        (folder / "search" / "sub").mkdir()
        for name in places:
            (folder / "search" / name).write_text("mine")

    kept = ("search/.*", "search/*/.*", "search/notes.txt", "search/model.keras", "search/checkpoints/mine.npz")
    yield attempt("hidden files of others, --resume", RESUME, hide, runs=("search",), ends=(0,), keeps=kept)
    yield attempt(
        "hidden files of others, --overwrite",
        (*SEARCH, "--output=search", "--overwrite"),
        hide,
        runs=("search",),
        ends=(0,),
        keeps=kept,
    )

    def more(folder):
        for name in ("notes.txt", "model.keras", "checkpoints/mine.npz", "metrics.json", "predictions.npz"):
            (folder / "search" / name).write_text("mine")

    kept += ("search/metrics.json", "search/predictions.npz")
    yield attempt(
        "files of others in a run to overwrite",
        (*SEARCH, "--output=search", "--overwrite"),
        more,
        runs=("search",),
        ends=(0,),
        keeps=kept,
    )
    yield attempt(
        "a training overwrites a search that has a model.keras of another",
        (*TRAIN, f"--arch={ARCH}", "--output=search", "--overwrite"),
        more,
        runs=("search",),
        says=ONE_LINE,
        keeps=("search/**/*",),
    )
    yield attempt(
        "what a killed process left is removed",
        RESUME,
        lambda folder: [
            (folder / "search" / name).write_text("half")
            for name in (".4194303.config.json", "checkpoints/.4194302.step-00000044.npz")
        ],
        runs=("search",),
        ends=(0,),
        check=lambda folder, *_: (
            "it is still there" if [*folder.glob("search/.4*"), *folder.glob("search/*/.4*")] else None
        ),
    )
    yield attempt(
        "a run to overwrite that has a folder in place of a file",
        (*SEARCH, "--output=search", "--overwrite"),
        lambda folder: a_folder(folder / "search" / "alphas.npz"),
        runs=("search",),
        says=ONE_LINE,
        keeps=KEPT,
    )
    for other in ("train", "tune"):
        yield attempt(
            f"a search in the directory of a {other}",
            (*SEARCH, f"--output={other}"),
            runs=(other,),
            says=ONE_LINE,
            keeps=KEPT,
        )


def evaluations():
    """--evaluate must not touch a run."""
    evaluate = ("darts_tf.train", "--evaluate=train/model.keras")
    for output in ("train", "search", "tune", "other", "train/checkpoints"):
        for flag in ("--nooverwrite", "--overwrite"):

            def prepare(folder):
                (folder / "other").mkdir()
                (folder / "other" / "metrics.json").write_text('{"mine": 1}')

            yield attempt(
                f"--evaluate into {output} {flag}",
                (*evaluate, f"--output={output}", flag),
                prepare,
                runs=("train", "search", "tune"),
                says=ONE_LINE,
                keeps=KEPT,
            )
    yield attempt(
        "--evaluate into a folder of 300 letters", (*evaluate, f"--output={LONG}"), runs=("train",), says=ONE_LINE
    )
    yield attempt("--evaluate into a file", (*evaluate, "--output=train/model.keras"), runs=("train",), says=ONE_LINE)
    yield attempt("--evaluate into /proc", (*evaluate, "--output=/proc/x"), runs=("train",), says=ONE_LINE)
    yield attempt(
        "--evaluate into a new folder",
        (*evaluate, "--output=a/b"),
        runs=("train",),
        ends=(0,),
        check=lambda folder, *_: None if (folder / "a/b/metrics.json").is_file() else "no metrics.json",
        keeps=KEPT,
    )
    yield attempt("--evaluate a model of 300 letters", ("darts_tf.train", f"--evaluate={LONG}.keras"), says=ONE_LINE)
    yield attempt("--evaluate with an empty --dataset", (*evaluate, "--dataset="), runs=("train",), says="--dataset=")


def flags():
    """Values that no run can have."""
    of_search = ("learning_rate", "learning_rate_min", "weight_decay", "arch_learning_rate", "arch_weight_decay")
    of_search += ("momentum", "grad_clip", "train_portion")
    for name in of_search:
        for value in ("nan", "inf") if name in ("learning_rate", "grad_clip", "weight_decay") else ("nan",):
            yield attempt(
                f"search --{name}={value}", (*SEARCH, f"--{name}={value}", "--output=run"), says=rf"^error: .*{name}"
            )
    for name in ("auxiliary_weight", "drop_path_prob", "gamma", "label_smooth", "train_portion", "weight_decay"):
        command = (*TRAIN, f"--arch={ARCH}", "--output=run", f"--{name}=nan")
        yield attempt(f"train --{name}=nan", command, says=rf"^error: .*{name}")
    yield attempt("tune --temperature=nan", ("darts_tf.tune", "--temperature=nan"), says="^error: .*temperature")
    yield attempt("tune --worker_timeout=inf", ("darts_tf.tune", "--worker_timeout=inf"), says="^error: .*worker_time")
    for seed in (-1, 2**32, 10**30):
        for command in (SEARCH, (*TRAIN, f"--arch={ARCH}"), ("darts_tf.tune", "--max_trials=1")):
            if command is not SEARCH and seed != 2**32:
                continue
            yield attempt(
                f"{command[0]} --seed={seed}", (*command, "--output=run", f"--seed={seed}"), says="^error: .*seed"
            )
    yield attempt("the largest seed", (*SEARCH, f"--seed={2**32 - 1}", "--output=run"), ends=(0,))
    for name in ("epochs", "batch_size", "layers", "nodes", "image_size", "init_channels"):
        yield attempt(f"--{name}=10^30", (*SEARCH, f"--{name}={10**30}", "--output=run"), says=rf"error: .*{name}")
    for name in ("checkpoint_every", "steps_per_execution"):
        yield attempt(f"--{name}=10^30", (*SEARCH, f"--{name}={10**30}", "--output=run"), ends=(0, 2))
    for value in ("skip_connect,skip_connect", "skip_connect,max_pool_3x3,skip_connect", ",", "skip_connect,", "none"):
        for command in ("search", "tune"):
            line = (f"darts_tf.{command}", *B[:-1], f"--primitives={value}", "--epochs=1", "--output=run")
            line = [flag for flag in line if command == "search" or "layers=3" not in flag]
            yield attempt(
                f"{command} --primitives={value}", line, says="^(Starting TensorFlow ...\n)?error: .*primitives"
            )
    yield attempt("an empty --dataset", (*SEARCH, "--dataset=", "--output=run"), says="error: --dataset=")
    yield attempt("a --dataset of blanks", (*SEARCH, "--dataset=  ", "--output=run"), says="error: --dataset=")
    yield attempt(
        "--resume --overwrite", (*RESUME, "--overwrite"), runs=("search",), says="error: .*--overwrite", keeps=KEPT
    )
    yield attempt("--flagfile that is not there", (*SEARCH, "--flagfile=no/such"), says="^error: ")


def places():
    """Where a run may be told to write, or to read."""
    names = {
        "of 300 letters": LONG,
        "in a folder of 300 letters": f"{LONG}/run",
        "of 5000 letters": "/".join(["x" * 99] * 50),
        "in a file": "file/run",
        "that is a file": "file",
        "that is a loop": "loop",
        "in a loop": "loop/run",
        "that is a link to nowhere": "nowhere",
        "in /proc": "/proc/run",
        "in /sys": "/sys/run",
        "that is /dev/null": "/dev/null",
        "with a lone surrogate": b"run\xff".decode("utf-8", "surrogateescape"),
        "with control characters": "run\n\x1b[31m",
    }

    def prepare(folder):
        (folder / "file").write_text("mine")
        (folder / "loop").symlink_to("loop")
        (folder / "nowhere").symlink_to("no/where")

    for what, name in names.items():
        for command in (SEARCH, (*TRAIN, f"--arch={ARCH}")):
            if command is not SEARCH and what not in ("of 300 letters", "that is a loop", "with a lone surrogate"):
                continue
            good = what.startswith("with")
            yield attempt(
                f"{command[0]} --output {what}",
                (*command, f"--output={name}"),
                prepare,
                ends=(0,) if good else (2,),
                says=None if good else r"(?m)^error: --output=.*\.$",
                keeps=("file",),
            )
    for name in ("arch", "init_from", "operations", "dataset", "evaluate"):
        for what, path in (("of 300 letters", LONG), ("that is a loop", "loop"), ("that is a folder", "search")):
            more = () if name in ("arch", "init_from", "evaluate") else (f"--arch={ARCH}",)
            output = () if name == "evaluate" else ("--output=run",)
            yield attempt(
                f"--{name} {what}",
                ("darts_tf.train", "--epochs=1", *more, *output, f"--{name}={path}"),
                prepare,
                runs=("search",),
                says=rf"(?m)^error: --{name}=.*\.?$",
            )


def steps():
    """--steps_per_execution must not change a run."""

    def check(folder, *_):
        import csv

        def rows(name):
            with open(folder / name / "history.csv", newline="") as file:
                return [{key: v for key, v in row.items() if key != "seconds"} for row in csv.DictReader(file)]

        names = sorted(path.name for path in folder.glob("run/checkpoints/*"))
        last = sorted(path.name for path in folder.glob("search/checkpoints/*"))[-1]
        if names[-1] != last:
            return f"the last checkpoint is {names[-1]}"
        return None if rows("run") == rows("search") else "history.csv is another"

    for value in (7, 11, 22, 23, 1000):
        yield attempt(
            f"search --steps_per_execution={value}",
            (*SEARCH, f"--steps_per_execution={value}", "--output=run"),
            runs=("search",),
            ends=(0,),
            check=check,
        )
    for value, every in ((7, 5), (1000, 3)):
        yield attempt(
            f"search --steps_per_execution={value} --checkpoint_every={every}",
            (*SEARCH, f"--steps_per_execution={value}", f"--checkpoint_every={every}", "--output=run"),
            runs=("search",),
            ends=(0,),
            check=check,
        )
    for value in (7, 1000):

        def check_training(folder, *_):
            names = sorted(path.name for path in folder.glob("run/checkpoints/*"))
            return None if names == ["step-00000045.npz"] else f"checkpoints are {names}"

        yield attempt(
            f"train --steps_per_execution={value}",
            (*TRAIN, f"--arch={ARCH}", f"--steps_per_execution={value}", "--output=run"),
            ends=(0,),
            check=check_training,
        )
    killed = (
        "$PYTHON -m darts_tf.search {flags} --epochs=3 --output=run {value} & pid=$!; "
        "while ! ls run/checkpoints/step-*{step}.npz >/dev/null 2>&1; do sleep 0.02; kill -0 $pid || exit 9; done; "
        "kill -{signal} $pid; wait $pid; "
        "$PYTHON -m darts_tf.search --output=run --resume && ls run/checkpoints"
    )
    for value, step, signal in ((44, "22", "KILL"), (1000, "22", "TERM"), (5, "44", "INT")):
        line = killed.format(flags=" ".join(B), value=f"--steps_per_execution={value}", step=step, signal=signal)
        yield attempt(
            f"--steps_per_execution={value}, {signal} after step {step}, resumed",
            ("bash", "-mc", line),
            ends=(0,),
            check=lambda folder, stdout, stderr: (
                None if "step-00000066.npz" in stdout and "step-00000088" not in stdout else "not at step 66"
            ),
        )


OPERATION = """
import darts_tf
from darts_tf.stages import BatchNorm, Conv, Depthwise, ReLU
import keras
@darts_tf.register_operation("mine")
def mine({parameters}):
    {body}
"""


def operations():
    """Files of --operations."""
    bodies = {
        "returns None": "return None",
        "returns a number": "return 5",
        "returns a list of numbers": "return [1, 2]",
        "raises": "raise RuntimeError('no')",
        "exits": "import sys; sys.exit(0)",
        "divides by zero": "1 / 0",
        "ignores the stride": "return [ReLU(), Conv(), BatchNorm(affine)]",
        "has too large a stride": "return [Depthwise(3, 2 * stride)]",
        "changes the channels": "return keras.layers.Conv2D(7, 1, stride)",
        "loses the edge": "return keras.layers.MaxPooling2D(2, stride)",
        "flattens": "return keras.layers.Flatten()",
        "returns a class": "return keras.layers.Dropout",
        "returns a function": "return lambda x: x",
        "recurses": "return mine(stride, affine)",
    }
    files = {what: OPERATION.format(parameters="stride, affine", body=body) for what, body in bodies.items()}
    files |= {
        "takes nothing": OPERATION.format(parameters="", body="return []"),
        "takes something else": OPERATION.format(parameters="stride, affine, size", body="return []"),
        "is None": "import darts_tf\ndarts_tf.register_operation('mine')(None)",
        "is a number": "import darts_tf\ndarts_tf.register_operation('mine')(5)",
        "has a number for a name": "import darts_tf\ndarts_tf.register_operation(5)(lambda stride, affine: [])",
        "has None for a name": "import darts_tf\ndarts_tf.register_operation(None)(lambda stride, affine: [])",
        "has an empty name": "import darts_tf\ndarts_tf.register_operation('')(lambda stride, affine: [])",
        "has a comma in its name": "import darts_tf\ndarts_tf.register_operation('a,b')(lambda stride, affine: [])",
        "exits while it is read": "import sys; sys.exit(0)",
        "exits with a text": "import sys; sys.exit('bye')",
        "is no Python": "def (",
        "is binary": "\0\1\2",
        "needs a module that is not there": "import no_such_module",
        "is of many lines that fail": "raise ValueError('a\\nb\\nc')",
    }
    for what, content in files.items():
        yield attempt(
            f"an operation that {what}",
            (*SEARCH[:-2], "--epochs=1", "--primitives=skip_connect,mine", "--operations=mine.py", "--output=run"),
            lambda folder, content=content: (folder / "mine.py").write_text(content),
            says=r"(?m)^error: --operations=mine\.py: .*\.?$",
            check=lambda folder, *_: "there is a run" if (folder / "run").exists() else None,
        )
    for command in ("train", "tune"):
        line = (f"darts_tf.{command}", "--operations=mine.py", "--output=run")
        yield attempt(
            f"an operation that returns None, in {command}",
            (*line, *((f"--arch={ARCH}",) if command == "train" else ())),
            lambda folder: (folder / "mine.py").write_text(files["returns None"]),
            says=r"(?m)^error: --operations=mine\.py: .*mine",
        )


def genotype(**fields):
    pairs = [["skip_connect", 0], ["skip_connect", 1]]
    return {"normal": pairs, "normal_concat": [2], "reduce": pairs, "reduce_concat": [2], **fields}


def texts():
    """Genotypes as texts and files."""
    fields = {
        "a node of infinity": {"normal": [["skip_connect", float("inf")], ["skip_connect", 1]]},
        "a concatenated infinity": {"normal_concat": [float("inf")]},
        "a node of 1.5": {"normal": [["skip_connect", 0.5], ["skip_connect", 1]]},
        "a node of true": {"normal": [["skip_connect", True], ["skip_connect", 1]]},
        "a node of text": {"normal": [["skip_connect", "0"], ["skip_connect", 1]]},
        "a negative node": {"normal": [["skip_connect", -1], ["skip_connect", 1]]},
        "a node of 10^30": {"normal": [["skip_connect", 10**30], ["skip_connect", 1]]},
        "a source after its node": {"reduce": [["skip_connect", 5], ["skip_connect", 1]]},
        "itself as a source": {"reduce": [["skip_connect", 2], ["skip_connect", 1]]},
        "an empty concatenation": {"normal_concat": []},
        "no nodes": {"normal": []},
        "three pairs": {"normal": [["skip_connect", 0]] * 3},
        "a number for an operation": {"normal": [[5, 0], ["skip_connect", 1]]},
        "null for an operation": {"normal": [[None, 0], ["skip_connect", 1]]},
        "a lone surrogate": {"normal": [["\ud800", 0], ["skip_connect", 1]]},
        "control characters": {"normal": [["a\x00\x1b[31m\n", 0], ["skip_connect", 1]]},
        "an empty name": {"normal": [["", 0], ["skip_connect", 1]]},
        "a name of 100,000 letters": {"normal": [["x" * 100_000, 0], ["skip_connect", 1]]},
        "text for a list": {"normal_concat": "23"},
        "a list for everything": {"normal": [[[["skip_connect"]]]]},
        "null for a list": {"reduce": None},
        "a million concatenated nodes": {"normal_concat": [2] * 1_000_000},
    }
    contents = {what: json.dumps(genotype(**change)) for what, change in fields.items()}
    contents |= {
        "brackets": "[" * 100_000,
        "braces": '{"a":' * 100_000,
        "nothing": "",
        "200 MB of blanks": " " * 200_000_000,
        "UTF-16": json.dumps(genotype()).encode("utf-16"),
        "junk": bytes(range(256)),
    }
    for what, content in contents.items():
        for command in ("plot", "train"):
            if command == "train" and what not in ("a node of infinity", "brackets", "a lone surrogate", "UTF-16"):
                continue
            line = ("darts_tf.plot", "g.json", "--output=g.svg")
            line = line if command == "plot" else (*TRAIN, "--arch=g.json", "--output=run")
            yield attempt(
                f"{command} a genotype.json with {what}",
                line,
                lambda folder, content=content: put(content)(folder / "g.json"),
                says=r"^error: .*g\.json: .*\.$",
                check=lambda folder, *_: "a picture" if (folder / "g.svg").exists() else None,
                timeout=30,
            )
    pairs = "[('skip_connect', 0), ('skip_connect', 1)]"
    given = {
        "a range without an end": f"Genotype(normal={pairs}, normal_concat=range(2, 99999999999), reduce={pairs}, "
        "reduce_concat=[2])",
        "a range of 10^30": f"Genotype(normal={pairs}, normal_concat=range(2, {10**30}), reduce={pairs}, "
        "reduce_concat=[2])",
        "a range by 0": f"Genotype(normal={pairs}, normal_concat=range(2, 9, 0), reduce={pairs}, reduce_concat=[2])",
        "a range of texts": f"Genotype(normal={pairs}, normal_concat=range('x'), reduce={pairs}, reduce_concat=[2])",
        "brackets": "Genotype(" + "(" * 50_000,
        "signs": "Genotype(normal=" + "-" * 50_000 + "1)",
        "a call": "Genotype(normal=open('x', 'w'))",
        "1e999": f"Genotype(normal=[('skip_connect', 1e999), ('skip_connect', 1)], normal_concat=[2], reduce={pairs}, "
        "reduce_concat=[2])",
        "true": f"Genotype(normal={pairs}, normal_concat=[True, 2], reduce={pairs}, reduce_concat=[2])",
        "a line break": f"Genotype(normal={pairs},\n normal_concat=[])",
        "nothing": "",
        "an escape": "\x1b[2J",
        "a surrogate": b"\xff".decode("utf-8", "surrogateescape"),
        "a folder": ".",
        "a device": "/dev/zero",
    }
    for what, text in given.items():
        yield attempt(f"plot {what}", ("darts_tf.plot", text, "--output=g.svg"), says=r"^error: .*\.$", timeout=30)


def pictures():
    """Pictures, large and elsewhere."""

    def of(nodes):
        pairs = [["sep_conv_3x3", source] for node in range(nodes) for source in (0, node + 1)]
        concat = list(range(2, nodes + 2))
        content = json.dumps(genotype(normal=pairs, reduce=pairs, normal_concat=concat, reduce_concat=concat))
        return lambda folder: (folder / "g.json").write_text(content)

    for nodes, kind, ends in ((30, "png", (0,)), (120, "png", (0, 2)), (200, "png", (0, 2)), (200, "svg", (0,))):
        yield attempt(
            f"a {kind} of {nodes} nodes",
            ("bash", "-c", f"ulimit -v 6000000; $PYTHON -m darts_tf.plot g.json --output=g.{kind}"),
            of(nodes),
            ends=ends,
            says=r"Saved|^error: .*\.$",
            timeout=60,
        )
    for what, output in (
        ("of 300 letters", f"{LONG}.svg"),
        ("in a loop", "loop/g.svg"),
        ("that is a folder", "folder.svg"),
        ("in /proc", "/proc/g.svg"),
        ("without an ending", "g"),
    ):

        def prepare(folder):
            (folder / "loop").symlink_to("loop")
            (folder / "folder.svg").mkdir()

        yield attempt(
            f"a picture {what}", ("darts_tf.plot", "NASNet", f"--output={output}"), prepare, says=r"^error: .*\.$"
        )


TERMINAL = """
import os, pty, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_IGN)
child, end = pty.fork()
if not child:
    os.execv(sys.executable, [sys.executable, "-m", "darts_tf.search", *sys.argv[1:]])
said = b""
while b"1/2" not in said:
    said += os.read(end, 100)
os.close(end)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def streams():
    """Standard streams that are closed or broken, and other locales."""
    flags = " ".join((*B, "--epochs=2", "--output=run"))
    finished = lambda folder, *_: None if (folder / "run/genotype.json").is_file() else "it did not end"  # noqa: E731
    alphas_alone = "ls run/checkpoints | grep -q step-00000044.npz"
    for what, line in {
        "stderr is closed": f"$PYTHON -m darts_tf.search {flags} 2>&-",
        "stdout is closed": f"$PYTHON -m darts_tf.search {flags} >&-",
        "all are closed": f"$PYTHON -m darts_tf.search {flags} <&- >&- 2>&-",
        "stderr leads to nobody": f"$PYTHON -m darts_tf.search {flags} 2> >(sleep 0.1)",
        "stdout leads to nobody": f"$PYTHON -m darts_tf.search {flags} | true; {alphas_alone}",
        "stderr is full": f"$PYTHON -m darts_tf.search {flags} 2>/dev/full",
        "stderr leads to nobody with a line per epoch": f"$PYTHON -m darts_tf.search {flags} --verbose=2 2> >(true)",
        "a terminal that goes away": f"$PYTHON terminal.py {flags}",
    }.items():
        yield attempt(
            what,
            ("bash", "-c", line),
            lambda folder: (folder / "terminal.py").write_text(TERMINAL),
            ends=(0,),
            check=finished,
        )
    yield attempt(
        "stdout is full",
        ("bash", "-c", f"$PYTHON -m darts_tf.search {flags} >/dev/full"),
        ends=(1,),
        says="^error|\nerror",
    )
    for environ in (
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii:strict"},
        {"PYTHONIOENCODING": "cp1252:strict"},
        {"PYTHONIOENCODING": "utf-16"},
    ):

        def prepare(folder):
            from PIL import Image

            for name in ("größe", "日本"):
                (folder / "bilder ü" / name).mkdir(parents=True)
                for index in range(40):
                    Image.new("L", (8, 8), index).save(folder / "bilder ü" / name / f"{index}.png")

        name = " ".join(f"{key}={value}" for key, value in environ.items())
        yield attempt(
            f"{name}: search",
            (*SEARCH, "--dataset=bilder ü", "--batch_size=8", "--output=läufe"),
            prepare,
            ends=(0,),
            environ=environ,
        )
        yield attempt(
            f"{name}: train",
            (*TRAIN, f"--arch={ARCH}", "--dataset=bilder ü", "--batch_size=8", "--output=läufe"),
            prepare,
            ends=(0,),
            environ=environ,
        )


def disks():
    """Disks that are full, or may not be written to; they take root."""
    small = "unshare -m bash -c 'mkdir -p disk && mount -t tmpfs -o size={size},{more} tmpfs disk && {line}'"
    search = f"$PYTHON -m darts_tf.search {' '.join(B)} --epochs=4 --output=disk/run"
    for size in ("4k", "16k", "64k", "100k", "160k"):
        yield attempt(
            f"a disk of {size}",
            ("bash", "-c", small.format(size=size, more="rw", line=f"{search}; code=$?; ls -A disk/run; exit $code")),
            ends=(1, 2),
            says=r"(?m)^error: .*No space left on device.*\.$",
            check=lambda folder, stdout, stderr: (
                "a traceback" if "Traceback" in stderr else "left over" if "\n." in stdout else None
            ),
        )
    evaluate = "$PYTHON -m darts_tf.train --evaluate=train/model.keras --output=disk"
    again = "cp -r search/. disk/ && mount -o remount,ro disk && $PYTHON -m darts_tf.search --output=disk"
    for what, line in {
        "a search on a disk that is read-only": f"mount -o remount,ro disk && {search}",
        "a search goes on on a disk that is read-only": f"{again} --resume",
        "a search overwrites on a disk that is read-only": f"{again} --overwrite",
        "an evaluation on a disk that is read-only": f"mount -o remount,ro disk && {evaluate}",
    }.items():
        yield attempt(
            what,
            ("bash", "-c", small.format(size="64m", more="rw", line=line)),
            runs=("search", "train"),
            says=r"(?m)^error: --output=disk.*\.$",
        )
    for what, line in {
        "a folder that is immutable": f"mkdir disk && chattr +i disk && {search}; code=$?; chattr -i disk; exit $code",
        "a run that is immutable": (
            "chattr +i search && $PYTHON -m darts_tf.search --output=search --resume; "
            "code=$?; chattr -i search; exit $code"
        ),
    }.items():
        yield attempt(what, ("bash", "-c", line), runs=("search",), says=r"(?m)^error: --output=.*\.$", keeps=KEPT)


def accidents():
    """What happens to a run directory while the run is at work."""
    line = (
        f"$PYTHON -m darts_tf.search {' '.join(B)} --epochs=4 --output=run & pid=$!; "
        "while [ ! -e run/{file} ]; do sleep 0.02; kill -0 $pid || exit 9; done; {what}; wait $pid"
    )
    first = "checkpoints/step-00000022.npz"
    for name, what in {
        "the folder is removed": "rm -rf run",
        "the folder is moved": "mv run moved",
        "config.json is removed": "rm run/config.json",
        "history.csv is removed": "rm run/history.csv",
        "alphas.npz is removed": "rm run/alphas.npz",
        "the checkpoints are removed": "rm -rf run/checkpoints",
        "report.html is removed": "rm run/report.html",
        "history.csv is emptied": ": > run/history.csv",
        "config.json is emptied": ": > run/config.json",
        "alphas.npz is emptied": ": > run/alphas.npz",
    }.items():
        yield attempt(
            f"{name} during a search",
            ("bash", "-c", line.format(file=first, what=what) + " && $PYTHON -m darts_tf.search --output=run --resume"),
            ends=(0,),
            says="Going on after epoch 4",
            timeout=300,
        )
    for name, what in {
        "history.csv becomes a folder": "rm -f run/history.csv && mkdir run/history.csv",
        "checkpoints becomes a file": "rm -r run/checkpoints && : > run/checkpoints",
        "the folder becomes a file": "rm -r run && : > run",
    }.items():
        yield attempt(
            f"{name} during a search",
            ("bash", "-c", line.format(file=first, what=what)),
            ends=(1,),
            says=r"(?m)^error: .*run.*\.$",
            timeout=300,
        )
    for what in ("rm -rf run", "mv run moved"):
        yield attempt(
            f"{what} while the first epoch is written down",
            ("bash", "-c", line.format(file="genotype.json", what=what) + " && ls run/config.json"),
            ends=(0,),
            timeout=300,
        )
