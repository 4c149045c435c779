"""Models of tables: what is exported of them, and what a server says of rows."""

import json
import pathlib

import keras
import numpy as np
import pytest
from small_server import Servable, Server
from small_table import people

from darts_tf.cli import files, messages
from darts_tf.cli.messages import UsageError
from darts_tf.data import tables
from export import ExportConfig, client, comparison, run_export, tabular, tflite

ROW = {"age (years)": 41, "city": "Basel", "joined": "2015-06-01", "member": True}
ODD = [{}, {"city": None, "age_years": 30}, {"city": "Paris", "joined": "soon"}, {"age_years": "41", "city": "Bern"}]
COLUMNS = ("age_years", "city", "joined", "member")


def run_of(label, folder):
    """What a training leaves, of a network that has not been trained."""
    (folder / "people.csv").write_text("\n".join(people()))
    flags = {"price": {"band": "none"}, "band": {"price": "none"}}[label]
    data = tables.load(str(folder / "people.csv"), label, flags)
    keras.utils.set_random_seed(0)
    x = keras.Input(data.x_train.shape[1:])
    model = data.complete(keras.Model(x, keras.layers.Dense(data.task.outputs)(x)))
    files.save_model(model, folder / label / "model.keras", *data.task.plain())
    config = {"data": data.description(), "dataset": str(folder / "people.csv"), "test_seed": 0}
    (folder / label / "config.json").write_text(json.dumps(config))
    return folder / label / "model.keras"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {label: run_of(label, folder) for label in ("price", "band")}


@pytest.fixture(scope="module")
def exported(runs, tmp_path_factory):
    """The folder, and `Export` of a number and of classes."""
    folder = tmp_path_factory.mktemp("serving")
    done = {}
    for label, path in runs.items():
        config = ExportConfig(model=str(path), output=str(folder), name=label)
        with messages.spoken(0):
            done[label] = run_export(config, verbose=0)
    return folder, done


def raw(row):
    """A row as the Keras model takes it, with what lacks missing."""
    given = {name.replace("age (years)", "age_years"): value for name, value in row.items() if value is not None}
    numbers = {name: np.array([float(given.get(name, np.nan))], np.float32) for name in ("age_years", "member")}
    return {**numbers, **{name: np.array([given.get(name, "")], object) for name in ("city", "joined")}}


def test_what_is_written(exported, runs):
    folder, done = exported
    for label, one in done.items():
        assert not one.failed and one.item == "row" and list(one.tflite) == ["none", "float16", "dynamic"]
        assert all(row["max_difference"] < 0.2 for row in one.rows) and len(one.rows) == 5
        assert ("agreement" in one.rows[0]) == (label == "band")
        assert ("same class" in comparison.table(one.rows)) == (label == "band")
    right, said, probability = done["price"].example
    assert isinstance(right, float) and isinstance(said, float) and probability is None
    assert set(done["band"].example[:2]) <= {"high", "low"}
    model = tabular.load(runs["band"])
    places = json.loads((folder / "tflite" / "band-columns.json").read_text())
    assert len(places) == model.width and places[0]["column"] == "age_years" and places[0]["std"] > 0
    content = pathlib.Path(done["band"].tflite["none"]).read_bytes()
    assert tflite.labels_of(content) == ["high", "low"]
    vector = np.zeros((1, model.width), np.float32)
    for number, place in enumerate(places):  # by the file alone, as a device has to
        if place["column"] == "age_years" and "mean" in place:
            vector[0, number] = (41 - place["mean"]) / place["std"]
        if place["column"] == "member":
            vector[0, number] = (1 - place["mean"]) / place["std"]
        if place in ({"column": "city", "type": "category", "is": "Basel"},) or (
            place["column"] == "joined" and place.get("is") == "missing"
        ):
            vector[0, number] = 1
    row = {name: value for name, value in ROW.items() if name != "joined"}
    np.testing.assert_allclose(comparison.TFLite(content)(vector), model.scores(raw(row)), atol=1e-5)


def test_a_server_is_asked_about_rows(exported, runs):
    with Server(exported[0]) as server:
        for label, path in runs.items():
            model = tabular.load(path)
            for api in (client.Grpc(server.grpc, label), client.Rest(server.rest, label)):
                for row in (ROW, *ODD):
                    found, expected = api.predict_row(row), model.scores(raw(row))[0]
                    if label == "price":
                        assert found == pytest.approx(expected[0], rel=1e-5)
                    else:
                        assert [name for name, _ in found] == [model.labels[i] for i in np.argsort(-expected)]
                        assert found[0][1] == pytest.approx(expected.max(), rel=1e-5)
                for row, message in (
                    ({"agee": 3}, r"no column agee: did you mean age_years\?"),
                    ({"hue": 3}, "no column hue: expected some of "),
                    ({"member": "yes"}, 'column member: "yes"; expected a number'),
                    ({"age_years": [3]}, r"column age_years: \[3\]; expected a number"),
                    ({"city": True}, "column city: true; expected a text"),
                ):
                    with pytest.raises(client.ColumnError, match=message):
                        api.predict_row(row)
        with pytest.raises(client.ServerError, match="has no such model"):
            client.Rest(server.rest, "none").predict_row(ROW)


def test_the_command_of_the_client(exported, capsys):
    def ask(**values):
        with pytest.raises(SystemExit) as ended, messages.spoken(as_json=values.pop("as_json", False)):
            client.main(client.ClientConfig(**values), [])
        return ended.value.code

    row = json.dumps(ROW)
    with Server(exported[0]) as server:
        assert ask(row=[row, "{}"], server=server.rest, rest=True, model="price") == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith(f"{row}  ") and float(lines[0].removeprefix(row)) and len(lines) == 2
        assert ask(row=[row], server=server.grpc, model="band", top_k=2, as_json=True) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["row"] == ROW and set(found["classes"]) == {"high", "low"} and len(found["predictions"]) == 2
        with pytest.raises(UsageError, match=r"--row=\{\"agee\": 1\}: no column agee: did you mean age_years"):
            client.main(client.ClientConfig(row=['{"agee": 1}'], server=server.rest, rest=True, model="price"), [])
    for row, message in (("[1]", "no object; expected a JSON object"), ("{", "expected a JSON object of columns")):
        with pytest.raises(UsageError, match=message):
            client.ClientConfig(row=[row]).check()


def test_signatures(exported):
    served = Servable(exported[0] / "band" / "1")
    signature = served.signatures["serving_default"]
    assert set(signature.inputs) == set(signature.defaults) == set(COLUMNS)
    assert served.signatures["serving_examples"].method_name == "tensorflow/serving/classify"
    other = Servable(exported[0] / "price" / "1").signatures["serving_examples"]
    assert other.method_name == "tensorflow/serving/regress" and set(other.outputs) == {"outputs"}
    row = {"age_years": np.array([30.0, np.nan]), "member": np.array([np.nan, 1.0])}
    answer = served.run("serving_default", {**row, "city": [b"", b""], "joined": [b"", b""]})
    assert set(answer["class"].tolist()) <= {b"high", b"low"} and answer["probabilities"].shape == (2, 2)
    alone = served.run("serving_default", {"age_years": np.array([30.0])})  # the rest are values that are missing
    np.testing.assert_allclose(alone["probabilities"], answer["probabilities"][:1], rtol=1e-5)


def test_odd_names_and_other_models(tmp_path):
    names = ("class", "self", "città", "名", "inputs")
    inputs = {name: keras.Input((), name=name) for name in names} | {
        "count": keras.Input((1,), name="count", dtype="int64")
    }
    parts = [keras.layers.Reshape((1,))(inputs[name]) for name in names]
    parts.append(keras.layers.CategoryEncoding(4, output_mode="one_hot")(inputs["count"]))
    scores = keras.layers.Dense(3, "softmax")(keras.layers.Concatenate()(parts))
    files.save_model(keras.Model(inputs, scores), tmp_path / "model.keras")
    model = tabular.load(tmp_path / "model.keras")
    assert model.softmax and model.width is None and model.labels == ["0", "1", "2"]
    with messages.spoken(0):
        done = run_export(ExportConfig(model=str(tmp_path / "model.keras"), output=str(tmp_path / "out")), verbose=0)
    assert not done.failed and not done.tflite and done.example is None
    served = Servable(done.saved_model)
    row = {name: np.array([float(place)], np.float32) for place, name in enumerate(names)} | {"count": np.array([2])}
    assert set(served.signatures["serving_default"].inputs) == set(row)
    np.testing.assert_allclose(served.run("serving_default", row)["probabilities"], model.scores(row), rtol=1e-5)
    examples = [tabular.example(row)]
    np.testing.assert_allclose(
        served.run("serving_examples", {"inputs": examples})["scores"].max(), model.scores(row).max()
    )
    for values, message in (
        ({"quantize": ["int8"]}, "--quantize=int8: columns of a table"),
        ({"quantize": ["none"]}, "has no layer called encoded"),
        ({"image_size": 8}, "--image_size: it is for image classifiers; .* is of a table"),
        ({"vocabulary": "v.txt"}, "--vocabulary: it is for language models"),
    ):
        with pytest.raises(UsageError, match=message):
            run_export(
                ExportConfig(model=str(tmp_path / "model.keras"), output=str(tmp_path / "o"), **values), verbose=0
            )
