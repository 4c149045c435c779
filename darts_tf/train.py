"""Trains the network of a genotype, from scratch, and measures it on test data that training has not seen.

What a search found on the digits that come with the package, in a few minutes on a laptop:

    python -m darts_tf.train --arch=runs/a/genotype.json

The network of the paper on CIFAR-10 (its recipe: 600 epochs, more than a day on a GPU of 2018):

    python -m darts_tf.train --arch=DARTS_V2 --dataset=cifar10 --output=runs/cifar10

A language model of a recurrent cell, on Python's help, or as in the paper:

    python -m darts_tf.train --space=recurrent --arch=DARTS_V2
    python -m darts_tf.train --space=recurrent --arch=DARTS_V2 --dataset=penn/ --recipe=ptb --output=runs/ptb

The network of a table's rows, whose model.keras takes columns by name:

    python -m darts_tf.train --arch=runs/a/genotype.json --dataset=docs/rents.csv --label=rent

A trained model on other data, measured, or trained on for other classes:

    python -m darts_tf.train --evaluate=runs/b/model.keras --dataset=photos/
    python -m darts_tf.train --init_from=runs/b/model.keras --dataset=photos/ --epochs=20

The run directory gets report.html, config.json, history.csv, model.keras (a plain Keras model, from pixels to logits),
metrics.json and predictions.npz.
"""

import dataclasses
import json
import os
import pathlib

import numpy as np

from darts_tf import spaces
from darts_tf.cli import commands, files, messages
from darts_tf.cli.messages import UsageError
from darts_tf.data.names import is_imagenet
from darts_tf.reports import report
from darts_tf.runs import budget, fitting, recipes, rundirectory, sizes, starting
from darts_tf.runs.configurations import TrainConfig


@dataclasses.dataclass(frozen=True)
class Training:
    """A training that has ended, or the evaluation of a trained model.

    Attributes:
        directory: path of its run directory; None of an evaluation without `output`.
        results: what the model is worth on test data, as in metrics.json, a dict.
        history: a dict per epoch, as in history.csv; empty for an evaluation.
        config: its `TrainConfig`, with the values that were used.
        model: the trained `keras.Model`, from inputs as they are in files to logits.
        task: `darts_tf.data.tasks.Task` of the data.
    """

    directory: pathlib.Path
    results: dict
    history: list
    config: TrainConfig
    model: object
    task: object


def run_training(config, verbose=1):
    """Trains the network of an architecture and measures it, as `python -m darts_tf.train` does.

        training = darts_tf.run_training(darts_tf.TrainConfig(arch="DARTS_V2", epochs=10))
        training.model.predict(images)

    With `evaluate` it only measures a model. Interrupted, a training writes a checkpoint first; with the same `output`
    it goes on.

    Args:
        config: `TrainConfig` with one of `arch`, `init_from` and `evaluate`.
        verbose: what stderr gets, as in Keras: 0 warnings, 1 a bar for the epoch on a terminal, 2 a line per epoch.

    Returns:
        `Training`; None in a worker that is not the chief.

    Raises:
        UsageError: the configuration asks for something that cannot be; a `ValueError`.
        RunError: the loss became NaN, an image that is read on the way is gone, memory does not suffice, or the GPU has
            no deterministic kernel of an operation.
        KeyboardInterrupt: it was interrupted.
    """
    with messages.spoken(verbose), fitting.interruptible():
        return _evaluate(config) if config.evaluate else _train(config)


def _train(config):
    worker = starting.this_worker(config)
    output, config = starting.directory(config, "train", ["arch", "init_from", "operations", "teacher"], worker)
    config.check()
    architecture = None
    if config.arch and not config.operations:  # whose file may register the space that it is of
        architecture = read_architecture(config)
    if config.kind != "images" and not config.operations:  # of images, that the data is text would be the reason
        starting.check_data_flags(config)
    if config.teacher:
        try:
            files.check_unpacked(config.teacher)
        except ValueError as error:
            raise UsageError(f"--teacher={config.teacher}: {error}") from None
    with starting.tensorflow(config) as strategy:
        starting.import_operations(config)
        if config.arch and config.operations:
            architecture = read_architecture(config)
        with strategy.scope():
            pretrained = load_model(config.init_from, "init_from") if config.init_from else None
            teacher = load_model(config.teacher, "teacher") if config.teacher else None
        if architecture:
            starting.check_kind(config, f"--arch={config.arch}", architecture.space)
        config, data = load_data(config, pretrained, config.init_from)
        config = completed(config, data, architecture.space.sizes if architecture else None)
        check_teacher(teacher, config, data)
        bounded = architecture and carried(config, data, architecture)
        batches, steps, valid = make_batches(data, config, strategy, worker)
        with strategy.scope():
            network = prepare(pretrained, architecture, data, config)
            if teacher:
                teach(network, teacher, config, data)
        found = {"genotype": str(architecture)} if architecture else {}
        with starting.started(output, "train", config, data, strategy, worker, **found) as present:
            if bounded and worker.is_chief:
                bounded.write(output, architecture, tables=False)
            network, checkpoints = fitting.restore(
                lambda done: network, output, config, steps, present, strategy, worker
            )
            if worker.is_chief:
                messages.say(f"Training on {data.in_words()}; results go to {output}/")
            fit(network, batches, steps, valid, config, data, checkpoints, output)
            return _measured(network, config, data, checkpoints, output) if worker.is_chief else None


def _measured(network, config, data, checkpoints, output):
    """Saves what was trained, unless the best of it is there already, and what it is worth."""
    from darts_tf.runs import callbacks

    checkpoints.before_save()
    if data.task.keeps_best or config.early_stopping:
        model = load_model(output / "model.keras", "output")
    else:
        if config.ema:
            callbacks.swapping(network)()
        model = save_trained(network, output / "model.keras", data, config)
    with fitting.explaining_errors():
        results, arrays = data.task.measure(model, data)
    files.write(output / "metrics.json", json.dumps(results, indent=2) + "\n")
    with files.replacing(output / "predictions.npz") as beside, beside.open("wb") as file:
        np.savez_compressed(file, **arrays)
    report.write_report(output)
    return Training(output, results, rundirectory.history(output), config, model, data.task)


def save_trained(network, path, data, config):
    """Saves what is put to use of a network of images or of a table, as a plain Keras model, which it returns."""
    from darts_tf.spaces.models import inference_model

    synchronize_batch_norms(network, False)
    model = data.complete(inference_model(network))
    synchronize_batch_norms(network, config.sync_batch_norm)
    files.save_model(model, path, *data.task.plain())
    return model


def _evaluate(config):
    """Measures the model of --evaluate; with --output, writes metrics.json there, too."""
    starting.check_evaluation(config)
    config.check()
    config = config.begun()
    with starting.tensorflow(config):
        starting.import_operations(config)
        model = load_model(config.evaluate, "evaluate")
        config, data = load_data(config, model, config.evaluate)
        if data.task.outputs != outputs_of(model):
            raise UsageError(
                f"--evaluate={config.evaluate}: it knows {outputs_of(model)} classes, {config.dataset} has "
                f"{data.task.outputs}; expected as many."
            )
        with fitting.explaining_errors():
            results, _ = data.task.measure(model, data)
    output = starting.check_evaluation(config)  # again, since something may be there now
    if output:
        with files.writing_to(output, starting.FOLDER):
            output.mkdir(parents=True, exist_ok=True)
            files.write(output / "metrics.json", json.dumps(results, indent=2) + "\n")
    return Training(output, results, [], config, model, data.task)


def read_architecture(config):
    """The architecture of --arch, of --space where several have one of its name."""
    if config.space and not spaces.is_known(config.space):
        raise UsageError(f"--space={config.space}: expected one of {', '.join(spaces.names())}.")
    try:
        return spaces.read(config.arch, config.space)
    except (OSError, ValueError) as error:
        raise UsageError(f"--arch={config.arch}: {error}") from None


def load_model(path, flag):
    """A model from a `.keras` file: of images of one size, one step of a language model, or of a table."""
    kind = files.kind_of_model(path)
    try:
        model = files.read_model(path)
        model = files.as_classifier(model) if kind == "images" else model
    except ValueError as error:
        raise UsageError(f"--{flag}={path}: {error}") from None
    if kind == "images" and None in model.input_shape[1:]:
        raise UsageError(f"--{flag}={path}: expected a model of one image size, not {model.input_shape}.")
    return model


def outputs_of(model):
    """How many classes or tokens a model knows."""
    return (model.output["logits"] if isinstance(model.output, dict) else model.output).shape[-1]


def load_data(config, model, path):
    """The configuration and the dataset, made to fit a model if there is one, which is at a path.

    Text for a model is read with the model's tokens, a table with its columns, which are in the config.json beside it.
    """
    if config.kind == "images":
        return config, starting.load_data(config, model and model.input_shape[1:], config.takes_random_parts)
    known = (starting.saved_configuration(pathlib.Path(path).parent) or {}) if model else {}
    if config.kind == "table":
        return _load_table(config, model, path, known)
    vocabulary = None
    if model:
        for name in ("tokens", "vocabulary", "units"):
            if name in config.given:
                raise UsageError(f"--{name}={getattr(config, name)}: expected none, the model of {path} has its own.")
        vocabulary = known.get("data", {}).get("vocabulary")
        if not vocabulary or len(vocabulary) != outputs_of(model):
            raise UsageError(f"{path}: there is no vocabulary of it; expected the config.json of its run beside it.")
        config = config.replace(tokens=known["data"]["tokens"])
    return config, starting.load_data(config, vocabulary=vocabulary)


def _load_table(config, model, path, known):
    """The configuration and the `Table`; `known` is what the config.json beside a model says."""
    if not model:
        return config, starting.load_data(config)
    described = known.get("data", {})
    if set(described.get("columns", ())) != {tensor.name for tensor in model.inputs}:
        expected = "expected a model of a table, and the config.json of its run beside it"
        raise UsageError(f"{path}: its columns are not known; {expected}.")
    own = {"label": described["label"]}
    if os.path.abspath(config.dataset) == os.path.abspath(known.get("dataset") or ""):  # the same rows are for testing
        own |= {name: known[name] for name in ("test_seed", "test_table") if known.get(name) is not None}
    config = config.taken_over(own)
    data = starting.load_data(config, table=described)
    if config.evaluate and data.label != described["label"]:
        raise UsageError(f"--label={config.label}: expected {described['label']}, which the model of {path} knows.")
    return config, data


def completed(config, data, own=None):
    """The configuration, completed by the recipe, and by a space's own defaults of sizes, a dict."""
    starting.check_data_flags(config)
    config = config.completed(starting.data_defaults(config, data))
    if config.kind == "text":
        return config
    usual = "imagenet" if is_imagenet(config.dataset) else recipes.training(len(data.y_train))
    usual = "table" if config.kind == "table" else usual
    recipe = config.recipe or usual
    if recipe not in recipes.TRAINING:
        raise UsageError(f"--recipe={recipe}: expected one of {', '.join(recipes.TRAINING)} for images and tables.")
    defaults = recipes.TRAINING[recipe] | (own or {}) | {"recipe": recipe}
    smallest = min(data.image_shape[:2]) if config.kind == "images" else 0
    if config.cutout_length >= smallest:  # which would leave nothing of many images
        defaults["cutout"] = False
    if config.kind == "table":
        defaults |= {"flip": False, "cutout": False}
        if data.class_names is None:
            defaults["label_smooth"] = 0.0
    if config.init_from:
        defaults |= {"network": None, "init_channels": None, "layers": None, "auxiliary": False, "drop_path_prob": 0.0}
    config = config.completed(defaults)
    if "warmup_epochs" not in config.given:
        config = config.replace(warmup_epochs=min(config.warmup_epochs, config.epochs // 2))
    config = starting.fitted_batches(config, data, config.train_portion)
    config.check()  # of the recipe's values, too
    starting.check_cutout(config, data)
    if config.randaugment and not data.has_bytes:
        raise UsageError(f"--randaugment={config.randaugment}: expected images of bytes, from 0 to 255.")
    if config.class_weight != "none" and data.class_names is None:
        raise UsageError(f"--class_weight={config.class_weight}: expected none with a label that is a number.")
    try:
        data.task.loss(config.label_smooth)
    except ValueError as error:
        raise UsageError(f"--{error}") from None
    return config


def carried(config, data, architecture):
    """The `Budget` of the search of --arch; None, with a warning, if it was that of networks of another size."""
    found = budget.carried(config.arch, architecture)
    own = budget.dimensions(architecture.space, data.task, config.to_dict())
    for name, value in (found.networks or {}).items():
        if own.get(name) != value:
            messages.warn(
                f"--arch={config.arch} was found within bounds for networks of {name} {value}; this one, of "
                f"{own.get(name)}, is not told of them."
            )
            return None
    return found


def make_batches(data, config, strategy, worker):
    """Training batches as a function of the steps that are done, steps per epoch, and validation batches or None."""
    from darts_tf.devices import replicas

    batches, steps, valid = starting.batches_of(data.batches, config, strategy, worker)
    if config.early_stopping and valid is None:
        wrong = (
            f"--train_portion={config.train_portion}: of {len(data.y_train)} {data.items} that leaves none to validate"
        )
        raise UsageError(f"{wrong}; expected less.")
    if config.gradient_accumulation > steps:
        wrong = f"--gradient_accumulation={config.gradient_accumulation}"
        raise UsageError(f"{wrong}: expected at most {steps}, as many batches as an epoch has.")
    weigh = weighing(data) if config.class_weight == "balanced" else lambda batches: batches

    def feed(start):
        return replicas.feed(strategy, weigh(batches(start)), worker)

    return feed, steps, valid and replicas.feed(strategy, valid, worker)


def weighing(data):
    """Function of batches -> the same with a weight for each sample: classes count as if all had as many samples.

    A class of n of all N samples of C classes counts N / (C n), in the mean 1 (King & Zeng, 2001). In a mixture of
    samples each of them counts by itself, so that the loss is the sum of w_c y_c (-log p_c) over the classes: the
    weight of the mixture is the sum of w_c y_c, its label what each class has of that.
    """
    import tensorflow as tf

    counts = np.bincount(data.y_train, minlength=len(data.class_names))
    weights = (len(data.y_train) / (np.count_nonzero(counts) * np.maximum(counts, 1))).astype(np.float32)

    def weigh(x, y):
        if y.shape.rank == 1:
            return x, y, tf.gather(weights, y)
        parts = y * weights
        total = tf.reduce_sum(parts, 1)
        return x, parts / total[:, None], total

    return lambda batches: batches.map(weigh)


def prepare(pretrained, architecture, data, config):
    """The network to train, compiled."""
    import keras

    from darts_tf.spaces import models

    keras.utils.set_random_seed(config.seed)
    task = data.task
    network = adapted(pretrained, task, config) if pretrained else derived(architecture, task, config)
    network.autocast = False  # pixels reach their normalisation as they are, also those that float16 cannot hold
    network.compile(
        optimizer(network, task, config),
        loss=task.loss(config.label_smooth or 0.0),
        metrics=task.metrics(),
        jit_compile=config.jit_compile,
        auto_scale_loss=False,  # the optimizer does it
    )
    synchronize_batch_norms(network, config.sync_batch_norm)
    models.create_variables(network)
    if config.ema:
        from darts_tf.devices import replicas

        network.optimizer.keep_averages(network.trainable_variables, replicas.statistics(network), config.ema)
    return network


def optimizer(network, task, config):
    """The optimizer of --optimizer."""
    from darts_tf.methods.optimizers import SGD, Adam, AveragedSGD

    same = {
        "global_clipnorm": config.grad_clip,
        "loss_scale": config.precision == "float16",
        "gradient_accumulation_steps": config.gradient_accumulation if config.gradient_accumulation > 1 else None,
    }
    if config.optimizer == "adamw":
        made = Adam(config.learning_rate, 0.9, l2=0.0, weight_decay=config.weight_decay, **same)
        made.exclude_from_weight_decay([one for one in network.trainable_variables if len(one.shape) < 2])
        return made
    kind = AveragedSGD if task.keeps_best else SGD
    own = {"momentum": config.momentum, "nesterov": config.nesterov, "l2": config.weight_decay}
    return kind(config.learning_rate, **own, **same)


def check_teacher(teacher, config, data):
    """Raises UsageError for a teacher, or None, that does not know these images and classes."""
    if teacher is None:
        return
    wrong = None
    if files.kind_of_model(config.teacher) != "images":
        wrong = "it is no model of images"
    elif teacher.input_shape[1:] != tuple(data.image_shape):
        wrong = f"it takes images {teacher.input_shape[1:]}, those of {config.dataset} are {tuple(data.image_shape)}"
    elif outputs_of(teacher) != data.task.outputs:
        wrong = f"it knows {outputs_of(teacher)} classes, {config.dataset} has {data.task.outputs}"
    if wrong:
        raise UsageError(f"--teacher={config.teacher}: {wrong}; expected a model of the same images and classes.")


def teach(network, teacher, config, data):
    """Lets a network learn from a teacher, see `darts_tf.methods.distillation`."""
    from darts_tf.methods import distillation

    (x, _), *_ = data.test_batches(32).take(1)
    probabilities = distillation.gives_probabilities(teacher(x, training=False))
    distillation.distil(network, teacher, config.teacher_weight, config.teacher_temperature, probabilities)


def derived(architecture, task, config):
    """The network of --arch."""
    space = architecture.space
    sizes.check_given(config, space, space.network, searched=False)
    try:
        network = space.trained_network(architecture, task, **sizes.of(space.network, config.to_dict()))
    except ValueError as error:
        raise UsageError(f"--arch={config.arch}: {error}") from None
    if config.recompute:
        if not hasattr(network, "recompute"):
            raise UsageError(f"--recompute with --arch={config.arch}: expected a genotype of cells of images.")
        network.recompute = True
    return network


def adapted(pretrained, task, config):
    """The network of --init_from."""
    from darts_tf.data import columns
    from darts_tf.spaces.models import with_new_classes
    from darts_tf.spaces.recurrent import networks

    try:
        if config.kind == "table":
            return with_new_classes(columns.network_of(pretrained), task.outputs)
        if config.kind == "images":
            return with_new_classes(pretrained, task.outputs, task.normalization)
        architecture = networks.genotype_of(pretrained)
        units = pretrained.output["state"].shape[-1]
        network = derived(architecture, task, config.replace(units=units))
        network.build()
        networks.take_weights(network, pretrained)
        return network
    except ValueError as error:
        raise UsageError(f"--init_from={config.init_from}: {error}") from None


def synchronize_batch_norms(network, synchronized):
    """Whether batch norms take the statistics of all replicas while training."""
    from darts_tf.private.keras import layers_within

    for layer in layers_within(network):
        if hasattr(layer, "synchronized"):
            layer.synchronized = synchronized


def fit(network, batches, steps, valid, config, data, checkpoints, output):
    """Trains the network; the chief keeps a record of it."""
    from darts_tf.reports import callbacks as reporting
    from darts_tf.runs import callbacks

    rate, task = config.learning_rate, data.task
    epochs = config.epochs - config.warmup_epochs
    schedule = (
        callbacks.exponential_schedule(rate, config.gamma)
        if config.gamma
        else callbacks.cosine_schedule(rate, config.learning_rate_min, epochs)
    )
    schedule = callbacks.warmup_schedule(rate, config.warmup_epochs, schedule)
    nan = callbacks.StopOnNaN()
    record = callbacks.History(output, checkpoints.done // steps)
    used = [schedule, *starting.rate_by_length(data, config, "train", checkpoints), nan]
    if task.keeps_best or config.early_stopping:
        place = output if checkpoints.worker.is_chief else None
        done = callbacks.BestModel.done(record.rows, task.headline)
        if checkpoints.worker.count > 1:  # of whom only the chief has the files
            from darts_tf.devices import replicas

            done = json.loads(replicas.from_chief(network.distribute_strategy, json.dumps(done).encode()))
        best = (
            callbacks.BestAverage(place, task.headline, done, config.nonmono, save_step)
            if task.keeps_best
            else callbacks.BestModel(
                *(place, task.headline, done),
                lambda network, path: save_trained(network, path, data, config),
                config.early_stopping,
            )
        )
        network.stop_training = best.has_ended
        used.append(best)
    if config.ema:
        used.append(callbacks.MovingAverages())
    if not task.keeps_best:
        used.append(callbacks.DropPathSchedule(config.drop_path_prob, config.epochs))
    if checkpoints.worker.is_chief:
        used += [record, reporting.Report(output)]
        used += [reporting.tensorboard(output)] if config.tensorboard else []
    fitting.fit(network, batches, steps, config, valid, used, checkpoints, task.headline)
    nan.raise_if_stopped(f"what {output}/ has of the epochs before")


def save_step(network, path):
    """Saves one step of a language model as a plain Keras model."""
    files.save_model(network.inference_model(), path)


def main(config):
    """The command."""
    training = run_training(config, messages.verbosity())
    if training is None:
        return
    table, results = training.task.table(training.results), training.results
    if config.evaluate:
        messages.result(table, **results)
        return
    output = training.directory
    saved = f"Saved {output}/model.keras, metrics.json and report.html"
    bounded = "".join(f"{line}\n" for line in budget.in_words(rundirectory.budget(output) or []))
    messages.result(f"\n{table}\n{bounded}\n{saved}", output=output, **(training.history[-1] | results))


if __name__ == "__main__":
    commands.run(fitting.rejoining(main), TrainConfig)
