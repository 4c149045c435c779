"""What a run finds in its directory, whole, damaged, or of others; no TensorFlow is needed for a refusal."""

import csv
import io
import json
import os
import pathlib
import shutil
import subprocess

import numpy as np
import pytest

from darts_tf import spaces
from darts_tf.cli.messages import UsageError
from darts_tf.methods.evolution import Evolution
from darts_tf.runs import fitting, rundirectory, starting
from darts_tf.runs.configurations import SearchConfig, TrainConfig
from darts_tf.spaces import CellSpace
from darts_tf.spaces.cells import genotypes

GENOTYPE = genotypes.Genotype(*[[("skip_connect", 0), ("max_pool_3x3", 1)], [2]] * 2)
PRIMITIVES = ["skip_connect", "max_pool_3x3"]
COMMANDS = {"search": SearchConfig, "train": TrainConfig}
SPACE = CellSpace(1, PRIMITIVES)
CONFIG = {
    "dataset": "digits",
    "epochs": 2,
    "seed": 0,
    "momentum": 0.9,
    "flip": False,
    "nodes": 1,
    "primitives": PRIMITIVES,
    "versions": {"darts_tf": "1"},
    "data": {"image_shape": [8, 8, 1], "class_names": ["a", "b"]},
}


def make(folder, command, epochs=2):
    """A finished run."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, "command": command}))
    for name in rundirectory.FILES[command]:
        if not (folder / name).exists():
            (folder / name).write_text("")
    (folder / "checkpoints" / "step-00000044.npz").write_text("")
    table = {"cost": "parameters", "fixed": 1.0, "rows": []}
    (folder / "budget.json").write_text(json.dumps([{"cost": "parameters", "most": 2.0, "table": table}]))
    if command == "search":
        one = {"architecture": str(GENOTYPE), "result": 0.5, "loss": 1.0, "parameters": 1.0}
        (folder / "front.json").write_text(json.dumps({"cost": "parameters", "networks": [one]}))
        found = {"evolution": json.loads(Evolution([[0, 1]]).to_json()), "networks": []}
        (folder / "evolution.json").write_text(json.dumps(found))
    text = io.StringIO()
    table = csv.DictWriter(text, ["epoch", "loss", "multiply_adds", "genotype"], lineterminator="\n")
    table.writeheader()
    rows = [{"epoch": n + 1, "loss": 0.5, "multiply_adds": "", "genotype": str(GENOTYPE)} for n in range(epochs)]
    table.writerows(rows)
    if command == "search":
        alphas = {kind: np.zeros((epochs + 1, 2, 2), np.float32) for kind in ("normal", "reduce")}
        np.savez(folder / "alphas.npz", **alphas, primitives=np.array(PRIMITIVES))
    if command == "train":
        found = {"top1": 0.5, "top5": 1, "test_images": 2, "per_class": {}}
        (folder / "metrics.json").write_text(json.dumps(found))
        places, pixels = np.array([0, 1]), np.zeros((1, 8, 8, 1), np.uint8)
        what = {"labels": places, "predicted": places, "probability": places / 2.0, "worst": places[:1]}
        np.savez(folder / "predictions.npz", **what, worst_images=pixels)
    (folder / "history.csv").write_text(text.getvalue())
    return folder


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def directory(command, folder, inputs=(), **flags):
    return starting.directory(COMMANDS[command](output=str(folder), **flags), command, inputs)[0]


def refusal(folder, command="search", **flags):
    """The message with which a command refuses a directory, which stays as it is."""
    before = content(folder) if os.path.isdir(folder) else None
    with pytest.raises(UsageError) as refused:
        directory(command, folder, **flags)
    assert before is None or content(folder) == before
    message = str(refused.value)
    assert "\n" not in message and message.endswith(".")
    return message


def test_a_whole_run_goes_on(tmp_path):
    for command in ("search", "train"):
        folder = make(tmp_path / command, command)
        assert directory(command, folder, resume=True) == folder
    rows = rundirectory.history(tmp_path / "search")
    assert [row["epoch"] for row in rows] == [1, 2] and rows[0]["multiply_adds"] is None and rows[1]["loss"] == 0.5
    assert (
        rundirectory.history(tmp_path)
        is rundirectory.alphas(tmp_path, SPACE.choices)
        is rundirectory.configuration(tmp_path)
        is None
    )


def a_folder(path):
    path.unlink()
    path.mkdir()


def a_loop(path):
    path.unlink()
    path.symlink_to(path.name)


def a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def put(text):
    return lambda path: path.write_text(text)


def changed(**values):
    return lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def arrays(**values):
    def damage(path):
        with np.load(path) as kept:
            found = {**kept, **values}
        np.savez(path, **found)

    return damage


ANY = [put(""), cut, put("null"), put("[1]"), put("5"), put("[" * 100_000), put("\0" * 99), a_folder, a_loop, a_pipe]
OTHER = {
    "config.json": [
        *[put("{}"), changed(command="fly"), changed(command=["search"]), changed(versions=None), changed(data=[])],
        *[
            changed(data={"image_shape": "8x8", "class_names": []}),
            changed(cutout_length="x"),
            changed(cutout_length="2"),
        ],
        *[
            changed(cutout_length=2.5),
            changed(cutout_length=0),
            changed(cutout_length=None),
            changed(seed=True),
            changed(seed=2**32),
            changed(flip="maybe"),
        ],
        *[changed(momentum=float("nan")), changed(momentum=2), changed(dataset=["digits"]), changed(strategy="x")],
    ],
    "history.csv": [put("epoch,loss\n1\n"), put("epoch,loss\n1,x\n"), put("epoch,loss\n2,1\n"), put("loss\n1\n")],
    "alphas.npz": [
        *[arrays(normal=np.zeros((3, 9, 2))), arrays(normal=np.zeros((3, 2, 3))), arrays(primitives=np.zeros(2))],
        *[arrays(**dict.fromkeys(("normal", "reduce"), value)) for value in (np.full((3, 2, 2), np.nan), "x")],
        *[arrays(**dict.fromkeys(("normal", "reduce"), np.zeros((3, 4, 2))))],
    ],
    "metrics.json": [put("{}"), changed(top1="x"), changed(per_class=None)],
    "predictions.npz": [arrays(labels=np.array([0, 9])), arrays(predicted=np.zeros(3, int)), arrays(worst="x")],
}


@pytest.mark.parametrize("name", list(OTHER))
def test_a_damaged_file_is_named(name, tmp_path):
    command = "train" if name in ("metrics.json", "predictions.npz") else "search"
    for number, damage in enumerate([*ANY, *OTHER[name]]):
        folder = make(tmp_path / str(number), command)
        damage(folder / name)
        for flags in [{}, {"resume": True}]:
            assert f"--output={folder}: its {name} " in refusal(folder, command, **flags), number


@pytest.mark.parametrize("damage", [*ANY, put("{}"), changed(command="fly"), changed(versions=None)])
def test_only_what_is_a_run_is_overwritten(damage, tmp_path):
    folder = make(tmp_path / "run", "search")
    damage(folder / "config.json")
    assert "config.json" in refusal(folder, overwrite=True)


@pytest.mark.parametrize(
    "name", ["config.json", "metrics.json", "model.keras", "checkpoints/a.npz", ".7.config.json.a"]
)
def test_what_others_have_is_not_touched(name, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text('{"mine": 1}')
    for flags in ({}, {"overwrite": True}, {"resume": True}):
        assert f"--output={tmp_path}: it" in refusal(tmp_path, **flags)


def test_other_commands_in_a_run(tmp_path):
    folder = make(tmp_path / "run", "search")
    assert "it holds a run of search, not of train" in refusal(folder, "train")
    assert directory("train", folder, overwrite=True) == folder
    (folder / "model.keras").write_text("of another")
    assert "its model.keras is not of the run of search there" in refusal(folder, "train", overwrite=True)
    assert "--resume and --overwrite given" in refusal(folder, resume=True, overwrite=True)
    a_folder(folder / "alphas.npz")
    assert "its alphas.npz is a folder" in refusal(folder, overwrite=True)
    (folder / "alphas.npz").rmdir()
    shutil.rmtree(folder / "checkpoints")
    (folder / "checkpoints").write_text("")
    assert "its checkpoints is no folder" in refusal(folder)


def test_which_files_are_a_run_s(tmp_path):
    folder = make(tmp_path / "run", "search")
    ours = {path.name for path in folder.rglob("*")} - {"config.json", "checkpoints"}
    theirs = ["notes.txt", "model.keras", "checkpoints/mine.npz", "checkpoints/step-1.npz", ".1password", ".2fa"]
    theirs += [".4194302.notes.txt", ".99999999.config.json", ".4194302.config.json.old", "sub/.4194302.config.json"]
    theirs += [f".{os.getppid()}.config.json"]
    (folder / "sub").mkdir()
    left = [".4194302.config.json", f".{os.getpid()}.alphas.npz", "checkpoints/.4194302.step-00000066.npz"]
    for name in (*theirs, *left):
        (folder / name).write_text("")
    assert {path.name for path in rundirectory.results(folder, "search")} == ours
    assert set(rundirectory.left_over(folder)) == {folder / name for name in left}


@pytest.mark.parametrize(
    "name, message",
    [
        ("x" * 300, "File name too long"),
        ("x" * 300 + "/run", "File name too long"),
        ("file", "it is a file"),
        ("file/run", "Not a directory"),
        ("loop", "Too many levels of symbolic links"),
        ("loop/run", "Too many levels of symbolic links"),
        ("nowhere", "No such file or directory"),
        ("a\0b", "embedded null byte"),
    ],
)
def test_places_where_no_run_can_be(name, message, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("no/where")
    assert message in refusal(tmp_path / name)
    with pytest.raises(UsageError, match=message):
        starting.check_evaluation(TrainConfig(output=str(tmp_path / name)))


def test_places_that_may_not_be_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    run = make(tmp_path / "run", "search")
    for folder in (tmp_path / "new", tmp_path / "a" / "b", run):
        assert "cannot be written to; expected a folder to write to." in refusal(folder)


def test_inputs_with_names_that_are_too_long(tmp_path):
    run = tmp_path / "run"
    assert directory("search", run, ["operations"], operations="x" * 300) == run


def test_inputs_in_the_place_of_the_run(tmp_path):
    folder = make(tmp_path / "run", "search")
    for name in (folder, folder / "config.json"):
        with pytest.raises(UsageError, match="is in it; expected another folder"):
            directory("search", folder, ["operations"], operations=str(name))


def test_an_evaluation_replaces_nothing_but_one(tmp_path):
    for command in ("search", "train", "tune"):
        make(tmp_path / command, command)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "metrics.json").write_text('{"mine": 1}')
    (tmp_path / "ours").mkdir()
    shutil.copy(tmp_path / "train" / "metrics.json", tmp_path / "ours")
    (tmp_path / "empty").mkdir()
    for name in ("search", "train", "tune", "theirs", "ours", "train/checkpoints"):
        for overwrite in (False, True):
            config = TrainConfig(output=str(tmp_path / name), overwrite=overwrite)
            if (name, overwrite) == ("ours", True):
                assert starting.check_evaluation(config) == tmp_path / "ours"
                continue
            with pytest.raises(UsageError, match="it already holds files; expected a new name"):
                starting.check_evaluation(config)
    for name in ("empty", "new"):
        assert starting.check_evaluation(TrainConfig(output=str(tmp_path / name))) == tmp_path / name


@pytest.mark.parametrize(
    "done, epochs, written, wrong",
    [
        (44, 2, 2, None),
        (44, 3, 2, None),
        (30, 2, 2, None),  # killed after the epoch was written down, before its checkpoint
        (0, 2, 0, None),
        (0, 2, 1, None),
        (44, 2, 1, "its history.csv ends after epoch 1"),
        (66, 2, 2, "its history.csv ends after epoch 2|its checkpoint is of step 66"),
        (44, 1, 2, "its checkpoint is of step 44, the run has 22"),
        (0, 2, 2, "its checkpoints are gone"),
        (0, 1, 1, None),
    ],
)
def test_what_was_done_agrees_with_what_was_written(done, epochs, written, wrong, tmp_path):
    folder = make(tmp_path / "run", "search", written)
    if not wrong:
        return fitting.check_files_agree(CellSpace(1, PRIMITIVES), folder, done, 22, epochs)
    with pytest.raises(UsageError, match=wrong):
        fitting.check_files_agree(CellSpace(1, PRIMITIVES), folder, done, 22, epochs)


def test_what_must_be_there(tmp_path):
    folder = make(tmp_path / "search", "search")
    other = CellSpace(1, ["a", "b"])
    with pytest.raises(UsageError, match=r"its alphas\.npz is of another search"):
        fitting.check_files_agree(other, folder, 44, 22, 2)
    history = (folder / "history.csv").read_text()
    (folder / "history.csv").write_text(history.replace("Genotype(", "Genotyp("))
    with pytest.raises(UsageError, match=r"its history\.csv is damaged"):
        fitting.check_files_agree(CellSpace(1, PRIMITIVES), folder, 44, 22, 2)
    (folder / "history.csv").write_text(history)
    for name in ("alphas.npz", "history.csv"):
        (folder / name).unlink()
        with pytest.raises(UsageError, match=f"its {name} is gone"):
            fitting.check_files_agree(CellSpace(1, PRIMITIVES), folder, 44, 22, 2)
    folder = make(tmp_path / "train", "train", 1)
    with pytest.raises(UsageError, match="its checkpoints are gone"):
        fitting.check_files_agree(None, folder, 0, 22, 5)
    (folder / "metrics.json").unlink()  # killed after the best model was saved, before the first checkpoint
    fitting.check_files_agree(None, folder, 0, 22, 5)


def test_a_directory_that_is_moved_comes_back(tmp_path, capsys):
    folder = make(tmp_path / "run", "search")
    lock = rundirectory.Lock(folder)
    present = lock.presence()
    present()
    assert not capsys.readouterr().err
    folder.rename(tmp_path / "moved")
    present()
    assert content(folder) == {folder / "config.json": (tmp_path / "moved" / "config.json").read_bytes()}
    assert f"warning: {folder} was moved, removed" in capsys.readouterr().err
    for damage in (pathlib.Path.unlink, put(""), put("{}")):
        damage(folder / "config.json")
        present()
        assert rundirectory.configuration(folder)["command"] == "search"
        assert f"warning: {folder}/config.json was" in capsys.readouterr().err
    with pytest.raises(UsageError, match="another process is at work in it"):
        rundirectory.Lock(folder)
    lock.release()
    rundirectory.Lock(folder).release()


def test_names_of_operations():
    for names, message in (
        (["none", "x"], "--primitives=x: no such"),
        (["none", "noise", "none"], "--primitives=none,noise,none: none is there"),
    ):
        with pytest.raises(UsageError, match=message):
            starting.check_primitives(names, spaces.CellSpace)
    starting.check_primitives(["noise", "none"], spaces.CellSpace)


def test_every_text_file_says_its_encoding():
    here = pathlib.Path(__file__).parents[2]
    line = [
        "grep",
        "-rnE",
        r"read_text\(\)|write_text\([^,]*\)$|\bopen\((\"[rwa]\")?\)|\bopen\(newline",
        "darts_tf",
        "export",
    ]
    assert subprocess.run([*line, "--include=*.py"], cwd=here, capture_output=True, text=True, check=False).stdout == ""
