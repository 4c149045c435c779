"""What benchmarks of whole searches share: their flags, results that are kept, images, a search."""

import argparse
import gzip
import json
import pathlib
import statistics

import numpy as np


def options(name, text, **defaults):
    """The flags of a benchmark, an `argparse.ArgumentParser`.

    Args:
        name: of its module.
        text: its docstring.
        defaults: of `methods`, if there are any, and of the flags of `darts_tf.search` that the searches get.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if "methods" in defaults:
        listed = ",".join(defaults.pop("methods"))
        parser.add_argument("--methods", type=names, default=listed, help=f"some of --method; default: {listed}")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each, with seeds from 1; default: 3")
    parser.add_argument(
        "--output", type=pathlib.Path, default=f"runs/{name}", help=f"folder of results and runs; default: runs/{name}"
    )
    for flag, value in defaults.items():
        parser.add_argument(f"--{flag}", type=type(value), default=value, help=f"of the runs; default: {value}")
    return parser


def names(text):
    return text.split(",")


class Results:
    """The results in a folder: results.jsonl has a line for each; what has one is not computed again.

    Args:
        folder: a path.
        settings: dict of all that results depend on, as JSON holds it.

    Raises:
        SystemExit: the folder has results of other settings.
    """

    def __init__(self, folder, settings):
        self.folder, self._path = folder, folder / "results.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        kept, settings = folder / "settings.json", json.dumps(settings, indent=2) + "\n"
        if not kept.exists():
            kept.write_text(settings)
        if kept.read_text() != settings:
            raise SystemExit(f"--output={folder}: it has results of other flags, see {kept}; expected another folder.")
        self._lines = [json.loads(line) for line in self._path.read_text().splitlines()] if self._path.exists() else []

    def get(self, compute, **key):
        """Prints and returns the result of a key, a dict.

        Args:
            compute: function of a folder for its run -> dict. Where it raises ValueError or RunError that is printed,
                not kept.
            key: what is computed; the result has it, too.

        Returns:
            The result; None if there is none.
        """
        from darts_tf.cli import messages

        found = next((line for line in self._lines if key.items() <= line.items()), None)
        if not found:
            name = "-".join(map(str, key.values()))
            messages.say(f"{name} ...")
            try:
                found = key | compute(self.folder / name)
            except (ValueError, messages.RunError) as error:
                print(json.dumps(key | {"error": str(error)}), flush=True)
                return None
            self._lines.append(found)
            with self._path.open("a") as file:
                file.write(json.dumps(found) + "\n")
        print(json.dumps(found), flush=True)
        return found


def search(folder, **flags):
    """A search that goes on if its folder has a part of it already, and its seconds of all epochs.

    Args:
        folder: its run directory.
        flags: of `SearchConfig`.
    """
    import keras

    import darts_tf

    keras.utils.clear_session()
    found = darts_tf.run_search(darts_tf.SearchConfig(output=str(folder), **flags), verbose=2)
    return found, seconds(found)


def train(folder, **flags):
    """A training, as `search`, and its seconds; flags are those of `TrainConfig`."""
    import keras

    import darts_tf

    keras.utils.clear_session()
    found = darts_tf.run_training(darts_tf.TrainConfig(output=str(folder), **flags), verbose=2)
    return found, seconds(found)


def seconds(run):
    """What the epochs of a run took, tracing and validation included."""
    return round(sum(row["seconds"] for row in run.history), 1)


def statistics_of(name, values, decimals=4):
    """{name: mean, name_deviation}; the deviation of one value is None."""
    deviation = round(statistics.stdev(values), decimals) if len(values) > 1 else None
    return {name: round(statistics.mean(values), decimals), f"{name}_deviation": deviation}


def idx(folder):
    """The images and labels in a folder of IDX files, such as Debian's dataset-fashion-mnist: a dict of arrays."""

    def read(name):
        with gzip.open(pathlib.Path(folder) / f"{name}-ubyte.gz") as file:
            content = file.read()
        dimensions = content[3]
        shape = np.frombuffer(content, ">i4", dimensions, 4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)

    files = {"x_train": "train-images-idx3", "y_train": "train-labels-idx1"}
    files |= {"x_test": "t10k-images-idx3", "y_test": "t10k-labels-idx1"}
    return {key: read(name) for key, name in files.items()}


def first_images(path, train_images, place):
    """Writes a .npz file, as --dataset takes it, with the first training images and all test images.

    Args:
        path: a .npz file of this kind, or a folder of IDX files.
        train_images: how many of them.
        place: its path; what is there is left as it is.

    Returns:
        Its path.
    """
    if not place.exists():
        if pathlib.Path(path).is_dir():
            arrays = idx(path)
        else:
            with np.load(path) as file:
                arrays = dict(file)
        arrays |= {name: arrays[name][:train_images] for name in ("x_train", "y_train")}
        np.savez(place, **arrays)
    return place
