"""Runs one case of `test_replicas` in a process with two logical CPU devices, and prints what it found as JSON."""

import json
import sys

from darts_tf.devices import runtime

runtime.configure(cpu_devices=2)

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from darts_tf import DARTS, SearchNetwork  # noqa: E402
from darts_tf.data import datasets, text  # noqa: E402
from darts_tf.data.tasks import LanguageModel  # noqa: E402
from darts_tf.devices import replicas  # noqa: E402
from darts_tf.devices.cluster import ALONE  # noqa: E402
from darts_tf.methods import distillation, perturbations  # noqa: E402
from darts_tf.methods.curvature import Curvature  # noqa: E402
from darts_tf.methods.darts import architecture_gradient  # noqa: E402
from darts_tf.methods.optimizers import SGD, Adam, AveragedSGD  # noqa: E402
from darts_tf.runs import callbacks  # noqa: E402
from darts_tf.spaces import RecurrentSpace  # noqa: E402
from darts_tf.spaces.cells import genotypes  # noqa: E402
from darts_tf.spaces.cells.derived import cifar_network  # noqa: E402
from darts_tf.spaces.densenas.networks import DenseSupernet  # noqa: E402
from darts_tf.spaces.densenas.space import DenseNAS  # noqa: E402
from darts_tf.spaces.recurrent.genotypes import RecurrentGenotype  # noqa: E402
from darts_tf.spaces.recurrent.networks import RecurrentNetwork  # noqa: E402

STEPS = 3
BLOCKS = json.dumps(
    {
        "channels": [4, 4, 6, 8],
        "layers": [0, 1, 1, 0],
        "stages": [0, 1, 1, 2],
        "strides": [1, 2, 1],
        "reach": [2, 2, 2],
        "heads": ["mb3_k3", "mb1_k5"],
        "stack": ["mb3_k3", "identity"],
    }
)
mirrored = replicas.strategy("mirrored")
single = replicas.strategy("none")


def batches(count, image_shape, twice):
    """`count` pairs of batches of 8 images; with `twice` each image is in a batch twice, once for each replica."""
    draw = np.random.default_rng(0)
    pairs = []
    for _ in range(count):
        x = draw.normal(size=(2, 8, *image_shape)).astype(np.float32)
        y = draw.integers(0, 3, (2, 8)).astype(np.int32)
        if twice:
            x, y = (np.concatenate([value, value], axis=1) for value in (x, y))
        pairs.append(((x[0], y[0]), (x[1], y[1])))
    stacked = tf.nest.map_structure(lambda *values: np.stack(values), *pairs)
    return tf.data.Dataset.from_tensor_slices(stacked)


def cells(**options):
    return SearchNetwork(4, 3, 3, nodes=1, primitives=["skip_connect", "dil_conv_3x3"], **options)


def blocks(**options):
    return DenseSupernet(DenseNAS(BLOCKS), 3, strides=[1, 1, 2, 1], **options)


def searched(strategy, unrolled, sync_batch_norm, twice, make=cells, **options):
    """A search after some steps: in a graph, or eagerly with synchronised batch norms, whose graph is large."""
    with strategy.scope():
        keras.utils.set_random_seed(1)
        search = DARTS(make(sync_batch_norm=sync_batch_norm, **options), unrolled=unrolled)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        search.compile(
            SGD(0.025, global_clipnorm=0.5),
            loss,
            metrics=["accuracy"],
            arch_optimizer=Adam(3e-3),
            run_eagerly=sync_batch_norm,
        )
    history = search.fit(batches(STEPS, (8, 8, 3), twice), verbose=0, shuffle=False).history
    return search, history


def difference(ours, theirs):
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in zip(ours, theirs, strict=True))


def drawn_case(sync_batch_norm, twice):
    """As `search`, where each step draws one operation for each edge."""
    return search_case(False, sync_batch_norm, twice, relaxation="gumbel_hard", partial_channels=2)


def blocks_case(sync_batch_norm, twice):
    """As `search`, of densely connected blocks, whose candidates are drawn if batch norms are not synchronised."""
    relaxation = "softmax" if sync_batch_norm else "drawn_softmax"
    return search_case(False, sync_batch_norm, twice, make=blocks, relaxation=relaxation)


def search_case(unrolled, sync_batch_norm, twice, **options):
    (one, logs), (two, logs_of_two) = (
        searched(strategy, unrolled, sync_batch_norm, twice and strategy is mirrored, **options)
        for strategy in (single, mirrored)
    )
    alphas = [alpha.value.values for alpha in two.network.arch_variables]
    return {
        "weights": difference(one.network.weight_variables, two.network.weight_variables),
        "alphas": difference(one.network.arch_variables, two.network.arch_variables),
        "loss": max(abs(logs[name][0] - logs_of_two[name][0]) for name in ("loss", "arch_loss")),
        "bitwise": all(np.array_equal(value, values[0]) for values in alphas for value in values),
        "moved": max(float(np.abs(alpha).max()) for alpha in map(np.asarray, two.network.arch_variables)),
    }


TOKENS = np.random.default_rng(0).integers(0, 7, 400).astype(np.int32)


def text_case(unrolled):
    """A search of text on one device, and on two that each have every row."""
    task, found = LanguageModel((), 7), []
    for strategy, times in ((single, 1), (mirrored, 2)):
        with strategy.scope():
            keras.utils.set_random_seed(1)
            network = RecurrentSpace(1).supernet(
                task, **dict(units=5, batch_size=4 * times, dropout=0, dropouth=0, dropoutx=0, dropouti=0)
            )
            search = DARTS(network, unrolled, virtual_clipnorm=0.25)
            search.compile(SGD(5.0, 0.0, global_clipnorm=0.25), task.loss(), arch_optimizer=Adam(3e-2))
        parts = [text.Segments(tokens, 4, 5).batches() for tokens in (TOKENS[:200], TOKENS[200:])]
        both = tf.data.Dataset.zip(*parts).map(
            lambda *of, times=times: tf.nest.map_structure(lambda tensor: tf.repeat(tensor, times, axis=0), of)
        )
        search.create_variables(*both.element_spec[0])
        feed = replicas.feed(strategy, both, ALONE)
        logs = search.fit(feed, steps_per_epoch=STEPS, verbose=0, shuffle=False).history
        hidden = [keras.ops.convert_to_numpy(state)[: 4 * times : times] for state in network.hidden.values()]
        found.append((network, [*network.arch_variables, *network.weight_variables], hidden, logs))
    (_, ours, hidden, logs), (two, theirs, hidden_of_two, logs_of_two) = found
    values = [v.value.values for v in (*theirs, *two.hidden.values())]
    return {
        "weights": difference(ours, theirs),
        "hidden": difference(hidden, hidden_of_two),
        "loss": max(abs(logs[name][0] - logs_of_two[name][0]) for name in ("loss", "arch_loss")),
        "bitwise": all(np.array_equal(value, one[0]) for one in values for value in one),
    }


def text_train_case():
    """A training of a language model, its batch split, against one device: averages, hidden states and validation."""
    task, found = LanguageModel((), 7), []
    genotype = RecurrentGenotype([("relu", 0), ("tanh", 1)], [1, 2])
    for strategy in (single, mirrored):
        with strategy.scope():
            keras.utils.set_random_seed(1)
            network = RecurrentNetwork(genotype, 7, 5, 4, dropout=[0] * 5, penalties=(0.5, 0.5))
            network.build()
            for variable in network.trainable_variables:
                variable.assign(20 * variable)
            network.compile(
                AveragedSGD(5.0, 0.0, global_clipnorm=0.25), task.loss(), metrics=task.metrics(), jit_compile=False
            )
            network.optimizer.build(network.trainable_variables)
        network.optimizer.start_averaging()
        feed = replicas.feed(strategy, text.Segments(TOKENS, 4, 5).batches(), ALONE)
        logs = network.fit(feed, steps_per_epoch=10, verbose=0, shuffle=False).history
        once = text.once(TOKENS[:101], 4, 5, devices=strategy.num_replicas_in_sync)
        valid = network.evaluate(replicas.feed(strategy, once, ALONE), verbose=0)
        hidden = [keras.ops.convert_to_numpy(state) for state in network.hidden.values()]
        weights = [*network.trainable_variables, *network.optimizer.averages]
        found.append((weights, hidden, [*logs["loss"], *logs["perplexity"], *valid]))
    ours, theirs = found
    return {name: difference(*pair) for name, *pair in zip(("weights", "hidden", "logs"), ours, theirs, strict=True)}


def train_case():
    """A derived network with synchronised batch norms, the batch split, against one device.

    Two batches make a step, a teacher is listened to, and there are moving averages.
    """
    pairs = [("sep_conv_3x3", 0), ("skip_connect", 1)]
    genotype = genotypes.Genotype(pairs, [2], pairs, [2])
    found = []
    for strategy in (single, mirrored):
        with strategy.scope():
            keras.utils.set_random_seed(1)
            network = cifar_network(genotype, 4, 1, 3, (8, 8, 3), auxiliary=True)
            teacher = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(3)])
            for layer in network.layers:
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.synchronized = True
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            optimizer = SGD(0.025, global_clipnorm=0.5, gradient_accumulation_steps=2)
            network.compile(optimizer, loss, jit_compile=False)
            distillation.distil(network, teacher)
            optimizer.build(network.trainable_variables)
            optimizer.keep_averages(network.trainable_variables, replicas.statistics(network), 0.5)
        start = [keras.ops.convert_to_numpy(variable) for variable in network.variables]
        network.fit(batches(4, (8, 8, 3), False).map(lambda train, _: train), verbose=0, shuffle=False)
        swap, values = callbacks.swapping(network), []
        for _ in range(3):
            values.append([keras.ops.convert_to_numpy(variable) for variable in network.variables])
            swap()
        found.append((start, *values))
    (start, ours, averages, again), (_, theirs, averages_of_two, again_of_two) = found
    return {
        "weights": difference(ours, theirs),
        "averages": difference(averages, averages_of_two),
        "moved": min(difference(ours, start), difference(averages, start), difference(averages, ours)),
        "again": max(difference(ours, again), difference(theirs, again_of_two)),
    }


def overflow_case():
    """What a step with scaled losses changes if the loss of one pass after the other is infinite on the second replica.

    The passes are those of the second order gradient and that of the weights; the last search has no such pass.
    """
    pair = next(iter(batches(1, (8, 8, 3), False)))
    changed, scales, calls = [], [], {0: 0, 1: 0}

    class Overflowing(DARTS):
        def compute_loss(self, *args, **kwargs):
            loss = super().compute_loss(*args, **kwargs)
            context = tf.distribute.get_replica_context()
            if context is None or replicas.count() == 1:
                return loss
            replica = int(tf.get_static_value(context.replica_id_in_sync_group))
            calls[replica] += 1
            here = tf.equal(bad, calls[replica] - 1) if replica == 1 else False
            return loss * tf.where(here, np.inf, 1.0)

    with mirrored.scope():
        bad = tf.Variable(-1)
        keras.utils.set_random_seed(1)
        network = SearchNetwork(2, 3, 3, nodes=1, primitives=["skip_connect", "dil_conv_3x3"])
        search = Overflowing(network, unrolled=True)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        search.compile(SGD(0.025, loss_scale=True), loss, arch_optimizer=Adam(3e-3))
    search.create_variables(*pair[0])
    calls.update({0: 0, 1: 0})
    state = [*network.variables, *search.optimizer.momentums, *search.arch_optimizer.variables[2:]]

    def values():
        return [np.stack([part.numpy() for part in v.value.values]) for v in state]

    for number in (0, 1, 2, 3, 4, -1):
        bad.assign(number)
        before, scale = values(), float(search.optimizer.scale_loss(1.0))
        search.fit(tf.data.Dataset.from_tensors(pair), verbose=0, shuffle=False)
        assert calls == {0: 5, 1: 5}  # it is traced once
        changed.append(max(float(np.abs(now - old).max()) for now, old in zip(values(), before, strict=True)))
        scales.append(float(search.optimizer.scale_loss(1.0)) / scale)
    return {"changed": changed, "scales": scales}


def validation_case():
    """Largest difference of validations on one device and on two, for every number of images up to two batches."""
    (x, y), _ = next(iter(batches(1, (8, 8, 3), False)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    pairs = [("sep_conv_3x3", 0), ("skip_connect", 1)]
    worst = 0.0
    for kind in ("training", "search"):
        models = []
        for strategy in (single, mirrored):
            with strategy.scope():
                keras.utils.set_random_seed(1)
                if kind == "training":
                    model = cifar_network(
                        genotypes.Genotype(pairs, [2], pairs, [2]), 2, 3, 3, (8, 8, 3), auxiliary=True
                    )
                    model.compile(SGD(), loss, metrics=["accuracy"], jit_compile=False)
                else:
                    model = DARTS(SearchNetwork(2, 3, 3, nodes=1, primitives=["skip_connect", "max_pool_3x3"]))
                    model.compile(SGD(), loss, metrics=["accuracy"])
                    model.create_variables(x, y)
                models.append((strategy, model))
        for images in range(2, len(x) + 1) if kind == "training" else (2, 5):
            one, two = (
                model.evaluate(
                    replicas.feed(
                        strategy,
                        datasets.evaluation_batches(x[:images].numpy(), y[:images].numpy(), 4, devices=2),
                        ALONE,
                    ),
                    verbose=0,
                )
                for strategy, model in models
            )
            worst = max(worst, difference(one, two))
    return {"difference": worst}


def statistics_case():
    """The moving mean of a batch norm that is not synchronised, on each replica, before and after they agree."""
    with mirrored.scope():
        norm = keras.layers.BatchNormalization(momentum=0.0)
        model = keras.Sequential([keras.Input((1,)), norm])
        model.compile("sgd", "mse", jit_compile=False)
    model.fit(np.array([[1.0], [3.0], [5.0], [7.0]]), np.zeros([4, 1]), batch_size=4, verbose=0, shuffle=False)

    def means():
        return [value.numpy().item() for value in norm.moving_mean.value.values]

    before = means()
    replicas.averaging_statistics(model)()
    return {"before": before, "after": means()}


def feed_case():
    """Devices of the batches that a search gets: the second device here plays the only GPU of a machine."""
    gpu = tf.config.list_logical_devices("CPU")[1]
    tf.config.list_logical_devices = lambda kind: [gpu] if kind == "GPU" else []
    fed = replicas.feed(single, batches(3, (8, 8, 3), False), ALONE)
    devices = {tensor.device for tensor in tf.nest.flatten(list(fed))}
    search = DARTS(SearchNetwork(2, 3, 3, nodes=1, primitives=["skip_connect", "sep_conv_3x3"]))
    search.compile(SGD(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    loss = search.fit(fed, verbose=0, shuffle=False).history["loss"][0]
    return {"devices": sorted(devices), "loss": loss}


def perturbation_case():
    """What two replicas with a batch each make of a mixture, and one device with both."""
    mixture = {"cell": tf.nn.softmax(tf.random.stateless_normal([4, 3], [0, 0], dtype=tf.float64))}
    there = {"cell": np.ones((4, 3), bool)}
    slopes = tf.random.stateless_normal([2, 4, 3], [0, 1], dtype=tf.float64)

    def attacked(slope):
        def loss(mixture):
            return tf.reduce_sum(slope * mixture["cell"] ** 2)

        size = tf.constant(0.3, tf.float64)
        return perturbations.get("adversarial")(mixture, there, loss, size, tf.constant([3, 4]))["cell"]

    def on_replica():
        return attacked(slopes[tf.distribute.get_replica_context().replica_id_in_sync_group])

    two = mirrored.experimental_local_results(tf.function(lambda: mirrored.run(on_replica))())
    return {
        "equal": bool(np.array_equal(*two)),
        "difference": difference([attacked(tf.reduce_mean(slopes, 0))], two[:1]),
        "alone": difference([attacked(slopes[0])], two[:1]),
    }


def curvature_case():
    """The curvature of a search on one device and of the same on two."""
    (x, y), _ = next(iter(batches(1, (8, 8, 3), False)))
    return {
        strategy: Curvature(searched(which, False, True, False)[0])(x, y)
        for strategy, which in (("single", single), ("mirrored", mirrored))
    }


def averages_case():
    """The gradient of a small problem, its batch split over replicas, with each average left out in turn."""
    draw = np.random.default_rng(0)
    w, a = (tf.constant(draw.normal(size=(4, 4)) / 2) for _ in range(2))
    train, valid = (tf.constant(draw.normal(size=(6, 4))) for _ in range(2))

    def loss(weights, alphas, x):
        return tf.reduce_mean(tf.tanh(tf.tanh(x @ weights[0]) @ (alphas[0] * weights[0])) ** 2)

    def ahead(gradients):
        return [w - 0.5 * gradients[0]]

    @tf.function
    def whole(order):
        return architecture_gradient(loss, [w], [a], train, valid, *order)[0]

    def split(order, left_out):
        def step():
            calls = []

            def average(tensors):
                calls.append(None)
                return tensors if len(calls) - 1 == left_out else replicas.average(tensors)

            half = tf.distribute.get_replica_context().replica_id_in_sync_group
            parts = [tf.split(x, 2)[0] if half == 0 else tf.split(x, 2)[1] for x in (train, valid)]
            (dalpha,) = architecture_gradient(loss, [w], [a], *parts, *order, average=average)
            assert len(calls) == (3 if order else 1)
            return dalpha

        return tf.function(lambda: mirrored.experimental_local_results(mirrored.run(step)))()

    def errors(order, averages):
        exact = whole(order).numpy()
        found = [max(float(np.abs(part - exact).max()) for part in split(order, i)) for i in (None, *range(averages))]
        return [error / float(np.abs(exact).max()) for error in found]

    return {"first": errors((), 1), "second": errors((ahead, 0.5), 3)}


if __name__ == "__main__":
    case, *flags = sys.argv[1:]
    print(json.dumps(globals()[f"{case}_case"](*(flag == "True" for flag in flags))))
