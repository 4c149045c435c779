"""What perceptrons that are searched are worth on tables, beside others, at equal time.

    pip install scikit-learn
    python -m benchmarks.tables

The tables are those that come with scikit-learn: wine, breast_cancer, digits (classes), diabetes (a number). A fifth of
the rows is for testing, another one for each seed. The ways:

searched   `darts_tf.search --space=mlp`, and what it finds is trained by `darts_tf.train`
random     keras-tuner's random search over the same space: as long as that search took, networks are trained for
           --trial_epochs and measured on a fifth of the training rows; the best is trained as above
fixed      two hidden layers of 64, trained as above
boosting   scikit-learn's gradient boosting: as long as search and training took together, hyperparameters are drawn and
           measured by cross-validation; the best are fitted

Prints a JSON line for each: accuracy on the test rows in percent, or the mean absolute error, and seconds. Then one for
each table and way, with the mean and the standard deviation over the seeds.

What has a result in --output is not computed again.
"""

import csv
import json
import math
import sys
import tempfile
import time

import numpy as np

from benchmarks import searches

TABLES = ["wine", "breast_cancer", "diabetes", "digits"]
FIXED = "mlp:64:relu,relu"


def main(arguments=None):
    parser = searches.options("tables", __doc__, methods=list(HOW))
    parser.add_argument("--tables", type=searches.names, default=TABLES, help=f"default: {','.join(TABLES)}")
    parser.add_argument("--epochs", type=int, default=50, help="of searches and trainings; default: 50")
    parser.add_argument("--trial_epochs", type=int, default=15, help="of a trial of random search; default: 15")
    parser.set_defaults(seeds=5)
    options = parser.parse_args(arguments)
    results = searches.Results(options.output, {name: getattr(options, name) for name in ("epochs", "trial_epochs")})
    found = {}
    for seed in range(1, options.seeds + 1):
        for table in options.tables:
            source = {"dataset": str(written(table, options.output)), "label": "target", "test_seed": seed}
            seconds = None
            for way in ["searched", *(way for way in options.methods if way != "searched")]:

                def compute(folder, way=way, seed=seed, source=source, seconds=seconds):
                    began = time.monotonic()
                    line = HOW[way](folder, source, seed, options, seconds)
                    return line | {"seconds": round(time.monotonic() - began, 1)}

                line = results.get(compute, table=table, method=way, seed=seed)
                if way == "searched":
                    seconds = line["search_seconds"], line["seconds"]
                found.setdefault((table, way), []).append(line)
    for (table, way), lines in found.items():
        name = "accuracy" if "accuracy" in lines[0] else "error"
        summary = searches.statistics_of(name, [line[name] for line in lines], 2)
        print(json.dumps({"table": table, "method": way, **summary, "seeds": len(lines)}), flush=True)


def written(name, folder):
    """The path of a table of scikit-learn as a CSV file, which is written if it is not there."""
    path = folder / f"{name}.csv"
    if not path.exists():
        from sklearn import datasets

        data = getattr(datasets, f"load_{name}")()
        columns = [f"{column}".replace(" ", "_") for column in data.feature_names]
        target = data.target if name == "diabetes" else [data.target_names[place] for place in data.target]
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*columns, "target"])
            writer.writerows([*row, of] for row, of in zip(data.data.tolist(), target, strict=True))
    return path


def shown(results):
    """What a result is compared by."""
    if "accuracy" in results:
        return {"accuracy": round(100 * results["accuracy"], 2)}
    return {"error": round(results["mean_absolute_error"], 3)}


def trained(folder, architecture, source, seed, options):
    training, _ = searches.train(folder, arch=architecture, **source, seed=seed, epochs=options.epochs)
    return shown(training.results)


def searched(folder, source, seed, options, _):
    began = time.monotonic()
    search, _ = searches.search(folder, **source, space="mlp", seed=seed, epochs=options.epochs)
    seconds = round(time.monotonic() - began, 1)
    architecture = str(search.genotype)
    line = trained(folder.with_name(f"{folder.name}-trained"), architecture, source, seed, options)
    return line | {"search_seconds": seconds, "architecture": architecture}


def fixed(folder, source, seed, options, _):
    return trained(folder, FIXED, source, seed, options)


def random(folder, source, seed, options, seconds):
    import keras
    import keras_tuner

    from darts_tf import spaces, tuner

    data = loaded(source)
    space, headline = spaces.of({"space": "mlp"}), data.task.headline
    recipe = space.training
    model = tuner.GenotypeHyperModel(space=space, task=data.task, learning_rate=recipe["learning_rate"], seed=seed)
    size = min(recipe["batch_size"], len(data.y_train) // 2)
    batches, steps, valid = data.batches(size, seed=seed, train_portion=0.8)
    hyperparameters, name = keras_tuner.HyperParameters(), f"val_{headline.name}"
    space.declare(hyperparameters)
    objective, tried = keras_tuner.Objective(name, headline.direction), []
    oracle = keras_tuner.oracles.RandomSearchOracle(objective, 10_000, seed=seed, hyperparameters=hyperparameters)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        oracle._set_project_dir(place, "trials")
        oracle.verbose = 0
        while not tried or (time.monotonic() - began) * (len(tried) + 1) / len(tried) < seconds[0]:
            keras.utils.clear_session()
            trial = oracle.create_trial("tuner0")
            hp = trial.hyperparameters
            network = model.build(hp)
            epochs = {"epochs": options.trial_epochs, "steps_per_epoch": steps}
            history = model.fit(hp, network, batches(), **epochs, validation_data=valid, shuffle=False)
            value = history.history[name][-1]
            oracle.update_trial(trial.trial_id, {name: value})
            trial.status = "COMPLETED"
            oracle.end_trial(trial)
            tried.append((headline.best_first(value), len(tried), str(tuner.genotype_of(hp, space))))
    architecture = min(tried)[-1]
    return trained(folder, architecture, source, seed, options) | {"trials": len(tried), "architecture": architecture}


def loaded(source):
    """The `darts_tf.data.tables.Table` of flags."""
    from darts_tf.data import tables

    return tables.load(source["dataset"], source["label"], seed=source["test_seed"])


def boosting(folder, source, seed, options, seconds):
    from sklearn import ensemble, model_selection

    from darts_tf.data import columns

    data, random, tried, began = loaded(source), np.random.default_rng(seed), [], time.monotonic()
    classes = data.class_names is not None
    kind = ensemble.GradientBoostingClassifier if classes else ensemble.GradientBoostingRegressor
    while not tried or (time.monotonic() - began) * (len(tried) + 2) / len(tried) < seconds[1]:
        drawn = {
            "n_estimators": int(random.integers(50, 400)),
            "learning_rate": float(10 ** random.uniform(-2.0, -0.3)),
            "max_depth": int(random.integers(1, 6)),
            "subsample": float(random.uniform(0.5, 1.0)),
        }
        drawn = drawn if tried else {}  # the defaults first
        score = model_selection.cross_val_score(
            kind(**drawn, random_state=seed),
            *(data.x_train, data.y_train),
            scoring="accuracy" if classes else "neg_mean_absolute_error",
            cv=3,
        ).mean()
        tried.append((-score, len(tried), drawn))
    fitted = kind(**min(tried)[-1], random_state=seed).fit(data.x_train, data.y_train)
    found = fitted.predict(columns.in_batches(columns.encoder(data.columns), data.columns, data.test))
    if classes:
        return {"accuracy": round(100 * float((found == data.y_test).mean()), 2), "tried": len(tried)}
    mean, deviation = data.label_scale
    error = float(np.abs(found * deviation + mean - data.y_test).mean())
    return {"error": round(error, 3) if math.isfinite(error) else None, "tried": len(tried)}


HOW = {"searched": searched, "random": random, "fixed": fixed, "boosting": boosting}

if __name__ == "__main__":
    sys.exit(main())
