"""Blocks and networks of Single Path One-Shot and NAS-Bench-Macro."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from original import assign, by_stage, relative_error, to_images

from darts_tf.costs import counts
from darts_tf.data.tasks import ImageClassification
from darts_tf.methods.darts import DARTS
from darts_tf.methods.one_shot import Inherited
from darts_tf.methods.optimizers import SGD
from darts_tf.spaces import NasBenchMacro, SinglePathSpace
from darts_tf.spaces.chain.blocks import block
from darts_tf.spaces.chain.description import Description, Stage
from darts_tf.spaces.chain.networks import chain_network
from darts_tf.spaces.chain.space import DescribedChain

TOLERANCE = {"float64": 1e-9, "float32": 1e-4}
OF_SPOS = ("shuffle_k3", "shuffle_k5", "shuffle_k7", "xception")


@pytest.fixture(scope="module")
def spos(spos_file):
    with np.load(spos_file) as file:
        return dict(file)


@pytest.fixture(scope="module")
def macro(macro_file):
    with np.load(macro_file) as file:
        return dict(file)


def part(arrays, prefix):
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def layer_variables(network, renamed):
    """{name in the original: variable} of a network of Keras layers; `renamed` are (pattern, replacement)."""
    kinds = {"kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"}
    kinds |= {"moving_mean": "running_mean", "moving_variance": "running_var"}
    found = {}
    for layer in network.layers:
        name = layer.name
        for pattern, there in renamed:
            name = re.sub(pattern, there, name)
        found |= {f"{name}.{kinds[v.name]}": v for v in layer.variables if v.name in kinds}
    return found


def is_depthwise(name, array):
    return array.ndim == 4 and array.shape[1] == 1


def write(variables, state):
    assert set(variables) == set(state)
    for name, variable in variables.items():
        array = state[name]
        layout = (2, 3, 0, 1) if is_depthwise(name, array) else {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[array.ndim]
        variable.assign(array.transpose(layout))


def originals(value, like):
    value = np.asarray(value)
    layout = (2, 3, 0, 1) if is_depthwise("", like) else {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[value.ndim]
    return value.transpose(layout)


def gradients_of(network, x, y, **options):
    """Logits in training, the loss, and its gradients with respect to the trainable variables."""
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    variables = network.trainable_variables

    @tf.function
    def run():
        with tf.GradientTape() as tape:
            tape.watch([variable.value for variable in variables])
            logits = network(x, training=True, **options)
            loss = cross_entropy(y, logits)
        return (
            logits,
            loss,
            tape.gradient(
                loss, [variable.value for variable in variables], unconnected_gradients=tf.UnconnectedGradients.ZERO
            ),
        )

    logits, loss, gradients = run()
    return logits, loss, {id(variable): gradient for variable, gradient in zip(variables, gradients, strict=True)}


MACRO_NAMES = (
    (r"^(stem|head)_(\d)$", r"\1.\2"),
    (r"^head\.", "out."),
    (r"^layer(\d)_(\d)$", lambda found: f"features.{found[1]}.conv.{int(found[2]) - (int(found[2]) > 6)}"),
)


def description_of_macro(arrays):
    channels, head, *_ = arrays["sizes"].tolist()
    stages = [(2, 2 * channels), (3, 4 * channels), (3, 8 * channels)]
    names = tuple(NasBenchMacro.BLOCKS)
    return Description(tuple(Stage(width, names, layers, 2) for layers, width in stages), channels, 1, head, "relu")


def test_networks_of_nas_bench_macro(macro, dtype):
    description, classes = description_of_macro(macro), int(macro["sizes"][-1])
    for number, key in enumerate(macro["net/archs"]):
        case = part(macro, f"net/{number}/")
        x, y, state = to_images(case["x"], dtype), tf.constant(case["y"]), part(case, "state/")
        names = [NasBenchMacro.BLOCKS[int(digit)] for digit in str(key)]
        network = chain_network(description, names, None, classes, tuple(x.shape[1:]))
        identities = [place for place, name in enumerate(names) if name == "identity"]
        renamed = [(rf"^layer({place})_(\d)$", r"features.\1.downsample.\2") for place in identities]
        variables = layer_variables(network, (*renamed, *MACRO_NAMES))
        write(variables, state)
        errors = {"eval": relative_error(network(x), case["eval/logits"])}
        logits, loss, gradients = gradients_of(network, x, y)
        errors |= {
            "train": relative_error(logits, case["train/logits"]),
            "loss": relative_error(loss, case["train/loss"]),
        }
        for name, value in part(case, "train/grad/").items():
            errors[name] = relative_error(originals(gradients[id(variables[name])], value), value)
        for name, value in part(case, "train/after/").items():
            if name.endswith("running_mean"):  # Keras keeps another variance
                errors[f"after {name}"] = relative_error(variables[name], value)
        assert max(errors.values()) < TOLERANCE[dtype], (key, {k: v for k, v in errors.items() if v > 1e-10})


def supernet_variables(network, name_of):
    """{name in the original: Tensor} of a `ChainSupernet`; `name_of` is of a layer, a candidate and a part of it."""
    found = by_stage(network.classifier, name_of("classifier"))
    if not network.description.bias:
        found = {name: tensor for name, tensor in found.items() if tensor.variable is not None}
    for end in ("stem", "head"):
        found |= by_stage(getattr(network, end), name_of(end))
    for place, layer in enumerate(network.layers_of_chain):
        for candidate, own in enumerate(layer.operations):
            for kind, operation in own.items():
                found |= by_stage(operation, name_of(place, candidate, kind))
    return found


def test_a_supernet_computes_the_path_that_it_is_given(macro, float64):
    """The supernet of three candidates gives what the network of one of them in each layer does, and its gradients."""
    space = DescribedChain(description_of_macro(macro).to_json())
    number = len(macro["net/archs"]) - 1
    case, key = part(macro, f"net/{number}/"), str(macro["net/archs"][number])
    x, y, state = to_images(case["x"]), tf.constant(case["y"]), part(case, "state/")
    network = space.supernet(ImageClassification(tuple(x.shape[1:]), int(macro["sizes"][-1])), "uniform")
    network.build(x.shape)

    def name_of(place, candidate=None, kind=None):
        if candidate is None:
            return {"stem": "stem.", "head": "out.", "classifier": "classifier."}[place]
        if int(key[place]) != candidate:
            return f"other.{place}.{candidate}."
        return f"features.{place}.{'conv' if candidate else 'downsample'}."

    def numbered(name):  # ours have a stage that the original does without
        return re.sub(r"(conv)\.([78])", lambda found: f"{found[1]}.{int(found[2]) - 1}", name)

    tensors = {numbered(name): tensor for name, tensor in supernet_variables(network, name_of).items()}
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("other.")}
    assign(tensors, state)
    mixture = {"layers": np.eye(3)[[int(digit) for digit in key]]}
    logits, loss, gradients = gradients_of(network, x, y, mixture=mixture)
    errors = {"logits": relative_error(logits, case["train/logits"]), "loss": relative_error(loss, case["train/loss"])}
    for name, value in part(case, "train/grad/").items():
        errors[name] = relative_error(tensors[name].of(gradients[id(tensors[name].variable)]), value)
    assert max(errors.values()) < 1e-9, {k: v for k, v in errors.items() if v > 1e-10}
    taken = {id(tensor.variable) for tensor in tensors.values()}
    others = [variable for variable in network.weight_variables if id(variable) not in taken]
    assert others and all(np.abs(gradients[id(variable)]).max() == 0 for variable in others)


def test_counts_of_nas_bench_macro(macro):
    costs = NasBenchMacro().costs(ImageClassification((32, 32, 3), 10))
    for key, parameters, products in zip(
        macro["count/archs"], macro["count/params"], macro["count/flops"], strict=True
    ):
        found = costs(NasBenchMacro.from_notation(f"nas-bench-macro:{key}"))
        assert found == {"parameters": parameters, "multiply_adds": products}


@pytest.mark.parametrize("name", OF_SPOS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", ["plain", "affine"])
def test_blocks_of_single_path_one_shot(spos, float64, name, stride, kind):
    case = part(spos, f"block/{name.replace('_k', '')}/stride{stride}/{kind}/")
    x, dy = (to_images(case[key]) for key in ("x", "dy"))
    made = block(name, x.shape[-1], dy.shape[-1], stride, affine=kind == "affine")
    images = keras.Input(x.shape[1:])
    model = keras.Model(images, made.layers(images, "main"))
    renamed = ((r"^main_beside_(\d+)$", r"branch_proj.\1"), (r"^main_(\d+)$", r"branch_main.\1"))
    variables = layer_variables(model, renamed)
    write(variables, part(case, "state/"))

    @tf.function
    def run():
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = model(x, training=True)
        return y, *tape.gradient(y, [x, [variable.value for variable in model.trainable_variables]], dy)

    errors = {"eval": relative_error(model(x), to_images(case["eval/y"]))}
    y, dx, gradients = run()
    errors |= {
        "y": relative_error(y, to_images(case["train/y"])),
        "dx": relative_error(dx, to_images(case["train/dx"])),
    }
    gradients = {id(v): gradient for v, gradient in zip(model.trainable_variables, gradients, strict=True)}
    for name, value in part(case, "train/grad/").items():
        errors[name] = relative_error(originals(gradients[id(variables[name])], value), value)
    assert max(errors.values()) < 1e-9, errors


@pytest.fixture(scope="module")
def searched(spos, dtype):
    """The one-shot network, as a compiled `DARTS`, and {name: Tensor} of its weights."""
    stem, *channels, head = spos["net/stage_out_channels"].tolist()
    stages = zip(channels, spos["net/stage_repeats"].tolist(), strict=True)
    description = Description(
        tuple(Stage(width, OF_SPOS, layers, 2) for width, layers in stages), stem, 2, head, "relu", False, False
    )
    task = ImageClassification(tuple(spos["net/x"].shape[i] for i in (2, 3, 1)), int(spos["net/classes"]))
    search = DARTS(DescribedChain(description.to_json()).supernet(task, "uniform"))
    search.compile(SGD(0.1), loss=task.loss())
    search.create_variables(to_images(spos["net/x"]), tf.constant(spos["net/y"]))
    found = {}
    for operation, name in operations_of(search.network):
        found |= by_stage(operation, name)
    return search, found


def start(search, tensors, spos):
    """Sets all weights and statistics to those of the file."""
    state = part(spos, "net/state/")
    search.network.classifier.kernel.assign(state["classifier.0.weight"].T)
    assign(tensors, state)
    for operation, name in operations_of(search.network):
        for place, (_, owned) in enumerate(zip(operation.stages, operation.variables_by_stage, strict=True)):
            if owned and owned[-1].path.endswith("moving_mean_and_variance"):
                owned[-1].assign([state[f"{name}{place}.running_{kind}"] for kind in ("mean", "var")])


def operations_of(network):
    yield network.stem, "first_conv."
    yield network.head, "conv_last."
    for place, layer in enumerate(network.layers_of_chain):
        for candidate, own in enumerate(layer.operations):
            for kind, operation in own.items():
                yield operation, f"features.{place}.{candidate}.branch_{'main' if kind == 'main' else 'proj'}."


def mixture_of(path):
    return {"layers": np.eye(len(OF_SPOS))[path]}


@pytest.mark.parametrize("dtype", ["float64"], indirect=True, scope="module")
def test_the_one_shot_network(spos, searched):
    search, tensors = searched
    network, x, y = search.network, to_images(spos["net/x"]), tf.constant(spos["net/y"])
    classes = int(spos["net/classes"])
    smooth = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    variables = network.trainable_variables

    @tf.function
    def run(mixture):
        evaluated = network(x, mixture=mixture)
        with tf.GradientTape() as tape:
            tape.watch([variable.value for variable in variables])
            logits = network(x, training=True, mixture=mixture)
            loss = smooth(tf.one_hot(y, classes), logits)
        plain = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(y, logits)
        gradients = tape.gradient(
            loss, [variable.value for variable in variables], unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        return evaluated, logits, plain, loss, gradients

    for number, path in enumerate(spos["net/archs"]):
        start(search, tensors, spos)
        case = part(spos, f"net/{number}/")
        mixture = {name: tf.constant(rows) for name, rows in mixture_of(path).items()}
        *values, gradients = run(mixture)
        keys = ("eval/logits", "train/logits", "train/cross_entropy", "train/label_smooth")
        errors = {key: relative_error(value, case[key]) for key, value in zip(keys, values, strict=True)}
        gradients = {id(v): gradient for v, gradient in zip(variables, gradients, strict=True)}
        for name, value in part(case, "train/grad/").items():
            if name == "classifier.0.weight":
                errors[name] = relative_error(np.transpose(gradients[id(network.classifier.kernel)]), value)
            else:
                errors[name] = relative_error(tensors[name].of(gradients[id(tensors[name].variable)]), value)
        assert max(errors.values()) < 1e-9, (path, {k: v for k, v in errors.items() if v > 1e-10})


@pytest.mark.parametrize("dtype", ["float64"], indirect=True, scope="module")
def test_batch_norms_are_recalibrated_for_a_path(spos, searched):
    search, tensors = searched
    start(search, tensors, spos)
    case = part(spos, "recalibrate/")
    recalibration = [(to_images(x), None) for x in case["batches"]]
    batches = [(to_images(x), tf.constant(y)) for x, y in zip(case["val_x"], case["val_y"], strict=True)]
    worth = Inherited(search, [(x, tf.zeros(len(x))) for x, _ in recalibration], batches, corrected=False)
    before = [np.array(variable) for variable in search.network.variables]
    accuracy, _ = worth(mixture_of(case["arch"]))
    assert abs(1 - accuracy - case["top1_top5_error"][0]) < 1e-6
    state = part(case, "state/")
    found = {}
    for operation, name in operations_of(search.network):
        for place, owned in enumerate(operation.variables_by_stage):
            if owned and f"{name}{place}.running_mean" in state:
                for kind, value in zip(("mean", "var"), np.array(owned[-1]), strict=True):
                    found[f"{name}{place}.running_{kind}"] = value
    assert set(found) == set(state)
    errors = {name: np.abs(value - state[name]).max() for name, value in found.items()}  # some means are zero
    assert max(errors.values()) < 1e-9, errors
    logits = [search.network(x, mixture=mixture_of(case["arch"])) for x, _ in batches]
    assert relative_error(np.stack(logits), case["val_logits"]) < 1e-9
    worth.restore()
    for variable, value in zip(search.network.variables, before, strict=True):
        assert np.array_equal(variable, value)


def test_counts_of_single_path_one_shot(spos):
    space = SinglePathSpace()
    costs = space.costs(ImageClassification((224, 224, 3), 1000))
    for path, products, parameters in zip(spos["count/archs"], spos["count/flops"], spos["count/params"], strict=True):
        found = space.decode({"layers": list(enumerate(path.tolist()))})
        assert costs(found) == {"parameters": parameters, "multiply_adds": products}
    network = space.network(found, ImageClassification((224, 224, 3), 1000))
    assert counts.of(network) == costs(found)


@pytest.mark.parametrize("dtype", ["float64"], indirect=True, scope="module")
def test_few_batches_leave_nothing_of_the_beginning(spos, searched):
    """As many batches as one likes, all the same, give the statistics of that one."""
    search, tensors = searched
    start(search, tensors, spos)
    case = part(spos, "recalibrate/")
    x, y = to_images(case["batches"][0]), tf.constant(case["val_y"][0])
    found = []
    for count in (1, 3):
        worth = Inherited(search, [(x, y)] * count, [(x, y)])
        worth(mixture_of(case["arch"]))
        found.append([np.array(variable) for variable in search.network.non_trainable_variables])
    for one, three in zip(*found, strict=True):
        np.testing.assert_allclose(one, three, atol=1e-12)
    stem = search.network.stem
    y, _ = stem.stages[0].finish(x, None, [stem.flat_variables[0]], 1, True)
    np.testing.assert_allclose(np.array(stem.moving[0])[0], tf.reduce_mean(y, [0, 1, 2]), atol=1e-9)
