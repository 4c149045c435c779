"""Tables: reading, types, what is refused, and what Keras makes of columns."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from small_table import people

from darts_tf.data import columns, rows, tables
from darts_tf.data.columns import Column
from darts_tf.data.folders import DataError
from darts_tf.data.names import column_name, is_table


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "people.csv"
    path.write_text("\n".join(people()) + "\n")
    return path


def load(path, label="price", types=None, **options):
    return tables.load(str(path), label, {"band": "none"} | (types or {}) if label == "price" else types, **options)


@pytest.fixture(scope="module")
def loaded(path):
    """The table, and what the user was told and warned of."""
    told, warned = [], []
    return load(path, tell=told.append, warn=warned.append), "\n".join(told), "\n".join(warned)


def test_types_are_inferred_and_told(loaded):
    data, told, warned = loaded
    assert {one.name: one.type for one in data.columns} == {
        "age_years": "number",
        "city": "category",
        "joined": "date",
        "member": "boolean",
    }
    assert [line.split() for line in told.splitlines()[1:4]] == [
        ["numbers:", "age_years", "(10", "missing)"],
        ["booleans:", "member"],
        ["dates:", "joined", "(8", "missing)"],
    ]
    assert "city (4; 9 missing)" in told and "price, a number" in told
    assert "the column id numbers the rows: it is left out; --columns=id:number keeps it." in warned
    assert "the column note has another value in every row" in warned and "same has one value only" in warned
    assert data.in_words() == "80 rows of 4 columns, label price: a number"


def test_a_part_to_test_on_is_split_off_by_seed(path, loaded):
    data = loaded[0]
    again, other = load(path), load(path, seed=1)
    assert len(data.y_train) == 80 and len(data.y_test) == 20
    np.testing.assert_array_equal(again.x_train, data.x_train)
    assert not np.array_equal(other.y_test, data.y_test)
    classes = load(path, "city")
    counts = np.bincount(np.concatenate([classes.y_train, classes.y_test]))
    np.testing.assert_array_equal(np.bincount(classes.y_test), np.rint(0.2 * counts))
    assert classes.class_names == ["Basel", "Bern", "Genf"] and len(classes.y_train) + len(classes.y_test) == 86


def test_labels_are_standardised_and_the_whole_model_gives_them_back(loaded):
    data = loaded[0]
    assert abs(data.y_train.mean()) < 1e-5 and abs(data.y_train.std() - 1) < 1e-5
    x = keras.Input(data.x_train.shape[1:])
    zero = keras.Model(x, keras.layers.Dense(1, kernel_initializer="zeros")(x))
    model = data.complete(zero)
    assert {tensor.name: tensor.dtype for tensor in model.inputs} == {
        "age_years": "float32",
        "city": "string",
        "joined": "string",
        "member": "float32",
    }
    predicted = columns.in_batches(model, data.columns, data.test, size=7)
    np.testing.assert_allclose(predicted, np.full((20, 1), data.label_scale[0]), rtol=1e-6)


def test_vectors(loaded, tmp_path):
    data = loaded[0]
    mean, missing = data.x_train.mean(0), data.x_train[:, 1]
    assert data.x_train.shape == (80, sum(one.width for one in data.columns)) and data.x_train.dtype == np.float32
    assert abs(mean[0]) < 1e-5 and missing.sum() == 10 and (data.x_train[missing > 0, 0] == 0).all()
    encoder = columns.encoder(data.columns)
    rows = {
        "age_years": np.array([45, np.nan, np.inf], np.float32),
        "city": np.array(["Bern", "", "Paris"], object),
        "joined": np.array(["2015-03-01", "", "soon"], object),
        "member": np.array([1, np.nan, 0], np.float32),
    }
    found = columns.in_batches(encoder, data.columns, rows)
    places = [place for one in data.columns for place in one.places()]
    assert len(places) == found.shape[1]
    at = {(place["column"], place.get("is", "value")): number for number, place in enumerate(places)}
    age = data.columns[0]
    np.testing.assert_allclose(found[:, 0], [(45 - age.mean) / age.std, 0, 0], rtol=1e-5)
    np.testing.assert_array_equal(found[:, at["age_years", "missing"]], [0, 1, 1])
    np.testing.assert_array_equal(found[:, at["city", "Bern"]], [1, 0, 0])
    np.testing.assert_array_equal(found[:, at["city", ""]], [0, 1, 0])
    assert not found[2, at["city", ""] : at["city", "Genf"] + 1].any()
    joined = next(one for one in data.columns if one.name == "joined")
    np.testing.assert_allclose(found[0, at["joined", "value"]], (15 + 2 / 12 - joined.mean) / joined.std, rtol=1e-5)
    np.testing.assert_array_equal(found[:, at["joined", "missing"]], [0, 1, 1])
    encoder.save(tmp_path / "encoder.keras")
    again = columns.in_batches(keras.models.load_model(tmp_path / "encoder.keras"), data.columns, rows)
    np.testing.assert_array_equal(again, found)  # of layers that Keras knows by itself
    config = json.loads(json.dumps({one.name: one.to_config() for one in data.columns}))
    assert tuple(Column.from_config(name, values) for name, values in config.items()) == data.columns


def test_dates_keep_their_order_to_minutes():
    texts = ["1999-12-31", "2000-01-01", "2000-01-31", "2000-02-01", "2020-02-28 23:50", "2020-02-28T23:59:59"]
    numbers = columns._date_numbers(np.array(texts, object))
    assert (np.diff(numbers) > 0).all() and numbers[1] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("kind", ["number", "category"])
def test_the_type_of_the_label_says_what_is_asked(kind, tmp_path):
    lines = [f"{row % 7},{row % 4},{row % 3}" for row in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,label", *lines]))
    data = load(tmp_path / "t.csv", "label", types={"label": kind, "a": "category", "b": "none"})
    assert (data.class_names is None) == (kind == "number") and [one.type for one in data.columns] == ["category"]
    assert load(tmp_path / "t.csv", "label").class_names == ["0", "1", "2"]  # few whole numbers


@pytest.mark.parametrize("values, classes", [("0 1 NA", "0 1"), ("true false ?", "false true"), ("red NA", "NA red")])
def test_labels_that_are_missing(values, classes, tmp_path):
    """Where the others are numbers or booleans; else a class may be called so."""
    lines = [f"{row % 7},{value}" for row in range(30) for value in values.split()]
    (tmp_path / "t.csv").write_text("\n".join(["a,b", *lines]))
    assert load(tmp_path / "t.csv", "b").class_names == classes.split()


def test_columns_that_are_called_like_layers(tmp_path):
    """Of models of tables, or of operations of Keras."""
    names = ["label", "encoded", "cast", "where", "functional", "isfinite", "logical_not", "zeros_like", "table", "y"]
    lines = [",".join(str((row * place) % 7 + row / 8) for place in range(1, len(names) + 1)) for row in range(40)]
    (tmp_path / "t.csv").write_text("\n".join([",".join(names), *lines]))
    data = load(tmp_path / "t.csv", "y")
    inputs = keras.Input((len(data.columns),))
    model = data.complete(keras.Model(inputs, keras.layers.Dense(1)(inputs)))
    found = {tensor.name for tensor in model.inputs}
    assert {"label", "encoded_column", "cast_column"} < found and len(found) == len(names) - 1


def test_a_separator_in_the_name_of_a_column(tmp_path):
    lines = [f"{row % 7};{row % 2}" for row in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(['"a, b, c";y', *lines]))
    assert [one.name for one in load(tmp_path / "t.csv", "y").columns] == ["a_b_c"]


def test_what_tables_of_pandas_have():
    """Dates, and values that are missing; lists are refused."""
    import datetime

    days = [datetime.date(2020, 1, 1), None, datetime.date(2020, 1, 3)]
    found = rows._plain(np.array(days, object), "day")
    assert found.dtype.kind == "M" and np.isnat(found).tolist() == [False, True, False]
    with pytest.raises(DataError, match="the column a has lists: expected one value in each row"):
        rows._plain(np.array([np.zeros(3), None], object), "a")


def test_a_second_file_is_the_test_part(path, tmp_path):
    rows = people()
    (tmp_path / "test.csv").write_text("\n".join([rows[0], *rows[5:9]]))
    data = load(path, test=str(tmp_path / "test.csv"))
    assert len(data.y_train) == 100 and len(data.y_test) == 4
    np.testing.assert_allclose(data.y_test, [float(row.split(",")[-2]) for row in rows[5:9]])
    (tmp_path / "test.csv").write_text("\n".join(row.partition(",")[2].partition(",")[2] for row in rows[:9]))
    with pytest.raises(DataError, match=r"no column age_years \(the test part\)"):
        load(path, test=str(tmp_path / "test.csv"))


def test_a_model_has_its_own_columns_and_classes(path, loaded):
    known = load(path, "city").description()
    other = load(path, "member", known={**known, "columns": {"price": known["columns"]["price"]}})
    assert [one.name for one in other.columns] == ["price"] and other.class_names == ["False", "true"]
    assert load(path, "city", known={**known, "class_names": ["Genf", "Bern", "Basel"]}).class_names[0] == "Genf"
    with pytest.raises(DataError, match="the label price is a column that the model takes"):
        load(path, "price", known=known)
    with pytest.raises(DataError, match="the label city is 'Basel' in line 4: expected one of Bern"):
        load(path, "city", known={**known, "class_names": ["Bern", "Rom"]})


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "the file is empty"),
        ("a,label\n", "names of columns and no rows"),
        (
            "a:label\n1:2\n",
            "its first line, 'a:label', is one column: expected columns separated by commas, semicolons",
        ),
        ("a,b,label\n1,2,3\n4,5\n", "line 3 has 2 values, the first line 3"),
        ('a,b,label\n1,"2\n3",4\n\n4,5,6,7\n', "line 5 has 4 values, the first line 3"),
        ("a,a,label\n1,2,3\n", "two columns called 'a'"),
        ("a b,a-b,label\n1,2,3\n", "the columns a b and a-b are both called a_b"),
        (b"a,label\nz\xfcrich,1\n", "byte 0xfc in line 2 is not UTF-8"),
        ("a,label\n1,2\n".encode("utf-16"), "it is UTF-16: expected UTF-8"),
        ("a,label\n1,2\n\0,2\n", "line 3 has a zero byte"),
        ('a,label\n1,2\n"x"y,3\n', "line 3: "),
        ("a,lable\n1,2\n3,4\n", r"no column label \(--label\): did you mean lable\?"),
        ("a,class\n1,2\n3,4\n", r"no column label \(--label\): expected one of a, class"),
        ("a,label\n" + "1,x\n2,x\n" * 9, "only the class x: expected at least 2 classes"),
        ("a,label\n" + "1,2.5\n2,2.5\n" * 9, "the label label is 2.5 in all rows"),
        ("a,label\n" + "1,x\n2,y\n" * 9 + "inf,x\n", "the column a has 'inf' in line 20, which is infinite"),
        ("a,label\n" + "1,x\n2,y\n" * 9 + "1e39,x\n", "the column a has 1e[+]39 in line 20: expected finite numbers"),
        ("a,label\n" + "1,x\n2,y\n" * 9 + "old,x\n", "a is of mixed types: 'old' in line 20, where 18 of 19 rows"),
        ("a;label\n" + "1,5;x\n2,5;y\n" * 9, "the column a has decimal commas, '1,5'"),
        ("a,label\n" + '"1,000",x\n"2,000",y\n' * 9, "decimal points and no separators of thousands"),
        ("a,label\n" + "1,x\n1,y\n" * 9, "no column says anything about the label"),
        ("a,label\n1,x\n2,y\n", "2 rows, of which a fifth is for testing"),
        ("a,label\n1,\n2,\n", "no row has a label, which is the label"),
    ],
)
def test_what_is_refused(content, message, tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message) as refused:
        load(path, "label")
    assert "\n" not in str(refused.value)


def test_values_that_are_not_of_a_type_that_is_said(path):
    for kind, message in (
        ("number", "the column city has 'Bern' in line 2, which is no number: expected numbers"),
        ("date", "the column city has 'Bern' in line 2, which is no date: expected YYYY-MM-DD"),
        ("colour", "--columns=city:colour: expected one of number, boolean, date, category, none"),
    ):
        with pytest.raises(DataError, match=message):
            load(path, types={"city": kind})
    with pytest.raises(DataError, match="--columns=price:date: expected number or category, since it is the label"):
        load(path, types={"price": "date"})
    with pytest.raises(DataError, match=r"no column cty \(--columns\): did you mean city"):
        load(path, types={"cty": "number"})


def test_other_files(path, tmp_path):
    random = np.random.default_rng(0)
    x, y = random.normal(size=(50, 3)), random.integers(0, 3, 50)
    np.savez(tmp_path / "matrix.npz", x=x, y=y)
    data = tables.load(str(tmp_path / "matrix.npz"))
    assert [one.name for one in data.columns] == ["x0", "x1", "x2"] and data.class_names == ["0", "1", "2"]
    np.savez(tmp_path / "parts.npz", x_train=x, y_train=y, x_test=x[:5], y_test=y[:5])
    assert len(tables.load(str(tmp_path / "parts.npz")).y_test) == 5
    days = np.datetime64("2020-01-01") + np.arange(50)
    np.savez(tmp_path / "columns.npz", city=np.array(["a", "b"] * 25), day=days, old=x[:, 0] > 0, size=x[:, 1])
    data = tables.load(str(tmp_path / "columns.npz"), "size")
    assert [one.type for one in data.columns] == ["category", "date", "boolean"]
    (tmp_path / "t.tsv").write_text(path.read_text().replace(",", "\t"))
    np.testing.assert_array_equal(load(tmp_path / "t.tsv").x_train, load(path).x_train)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"pandas|not a readable \.parquet"):
        load(tmp_path / "t.parquet")
    for name, message in (("gone.csv", "no such file"), (str(tmp_path), "it is no table: expected a .csv")):
        with pytest.raises(DataError, match=message):
            load(name)
    for labels in (np.eye(50)[:, :3], np.float64(3), y[:7]):
        np.savez(tmp_path / "odd.npz", x=x, y=labels)
        with pytest.raises(DataError, match=r"y is \[.*\]: expected a label for each of 50 rows"):
            tables.load(str(tmp_path / "odd.npz"))
    np.savez(tmp_path / "odd.npz", a=np.arange(3), b=np.arange(4))
    with pytest.raises(DataError, match=r"arrays of other lengths, a \[3\], b \[4\]"):
        tables.load(str(tmp_path / "odd.npz"), "a")


def test_a_dataset_of_tensorflow_datasets(tmp_path):
    features = tfds.features.FeaturesDict(
        {
            "size": {"width": np.float32, "pair": tfds.features.Tensor(shape=(2,), dtype=np.float32)},
            "city": tfds.features.Text(),
            "kind": tfds.features.ClassLabel(names=["small", "large"]),
        }
    )

    class Builder(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        name = "sizes"

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for row in range(40):
                size = {"width": row % 7, "pair": [row % 3, row % 5]}
                yield row, {"size": size, "city": f"city {row % 4}", "kind": row % 2}

    Builder(data_dir=str(tmp_path)).download_and_prepare()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tfds, "builder", lambda name, data_dir: Builder(data_dir=data_dir))
        data = tables.load("sizes", "kind", data_dir=str(tmp_path))
    assert data.class_names == ["small", "large"] and len(data.y_test) == 8
    assert sorted(one.name for one in data.columns) == ["city", "pair0", "pair1", "width"]


def test_names(tmp_path):
    assert [column_name(text, 3) for text in ("age (years)", "2nd", "città", "%")] == [
        *("age_years", "_2nd", "città", "column_3")
    ]
    np.savez(tmp_path / "images.npz", x_train=np.zeros((2, 8, 8), np.uint8))
    np.savez(tmp_path / "matrix.npz", x_train=np.zeros((2, 8)))
    assert is_table("a.CSV") and is_table(str(tmp_path / "matrix.npz")) and is_table("wine_quality", "quality")
    assert not is_table(str(tmp_path / "images.npz")) and not is_table("digits") and not is_table("gone.npz")


def test_batches(loaded):
    data = loaded[0]
    batches, steps, valid = data.batches(16, seed=3, train_portion=0.75)
    x, y = next(iter(batches()))
    assert steps == 3 and x.shape == (16, data.x_train.shape[1]) and y.dtype == tf.float32
    assert sum(len(y) for _, y in valid) == 20
    (weights, alphas) = next(iter(data.search_batches(16)[0]()))
    assert weights[0].shape == alphas[0].shape
    with pytest.raises(DataError, match="there are 80 rows to train on"):
        data.batches(81)
