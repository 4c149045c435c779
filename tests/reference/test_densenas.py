"""DenseNAS: derived paths, chained costs, the supernet with its gradients, and derived networks."""

import ast
import itertools
import json
import re

import numpy as np
import pytest
import tensorflow as tf
from original import assign, by_stage, operation_tensors, relative_error, to_images

from darts_tf.costs import counts
from darts_tf.costs.forms import AddedLog
from darts_tf.methods import relaxations
from darts_tf.ops.stages import Conv, Depthwise
from darts_tf.spaces.densenas import costs
from darts_tf.spaces.densenas import graph as graphs
from darts_tf.spaces.densenas.blocks import EPSILON
from darts_tf.spaces.densenas.networks import DenseSupernet, dense_network
from darts_tf.spaces.densenas.space import DenseNAS, Path

RES = graphs.Graph(  # of their basic blocks, which are derived only
    channels=(32, 48, 56, 64, 72, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256, 272, 288, 480, 496, 512, 512),
    layers=(0, 0, 0, 0, 5, 5, 5, 15, 15, 15, 15, 5, 5, 5, 5, 5, 5, 5, 1, 1, 1, 0),
    stages=(0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 5, 5, 5, 5, 6, 6, 6, 7),
    strides=(1, 2, 2, 2, 1, 2, 1, 1),
    reach=(6,) * 8,
    heads=("basic_block",),
    stack=("basic_block", "identity"),
)


@pytest.fixture(scope="module")
def stored(densenas_file):
    with np.load(densenas_file) as file:
        return dict(file), json.loads(densenas_file.with_suffix(".json").read_text())


def ours(name):
    """Our name of an operation."""
    return "identity" if name == "skip_connect" else re.sub(r"mbconv_k(\d)_t(\d)", r"mb\2_k\1", name)


def graph_of(name, stored):
    if name != "tiny":
        return {"mbv2": graphs.PRESETS["mbv2"], "res": RES}[name]
    config = stored["tiny"]["config"]
    parameters, scale = config["search_params"], config["search_params"]["net_scale"]
    sizes = dict(zip(scale["stage"], scale["fm_sizes"], strict=False))
    sizes[max(scale["stage"])] = scale["fm_sizes"][-1]
    sizes = [size for _, size in sorted(sizes.items())]
    return graphs.Graph(
        channels=[*scale["chs"], config["optim"]["last_dim"]],
        layers=[*scale["num_layers"], 0],
        stages=scale["stage"],
        strides=[1, *(before // after for before, after in itertools.pairwise(sizes))],
        reach=[*parameters["adjoin_connect_nums"], 1][: len(sizes)],
        heads=[ours(name) for name in parameters["PRIMITIVES_head"]],
        stack=[ours(name) for name in parameters["PRIMITIVES_stack"]],
    )


def tables(graph, arrays, prefix, betas="betas", heads="head", stack="stack"):
    """Their arrays, one for each block, as our tables."""
    space = DenseNAS(graph.to_json())
    masks = {name: table.mask for name, table in space.choices.items()}
    routing = np.zeros(masks["routing"].shape)
    for block, row in enumerate(routing):
        own = arrays[f"{prefix}{betas}/{block}"]
        row[: len(own)] = own
    result = {"routing": routing}
    for name, theirs in (("heads", heads), ("stack", stack)):
        blocks = range(graph.blocks - 2)
        rows = [arrays[key] for block in blocks if (key := f"{prefix}{theirs}/{block}") in arrays]
        result[name] = np.concatenate([row for row in rows if len(row)]).astype(np.float64)
        assert result[name].shape == masks[name].shape
    return result


def softmax(alphas, masks):
    strengths = relaxations.Softmax().strengths
    return {name: strengths(np.where(masks[name], alpha, relaxations.NEVER)) for name, alpha in alphas.items()}


@pytest.mark.parametrize("name", ["tiny", "mbv2", "res"])
def test_graph(stored, name):
    expected, graph = stored[1][name]["graph"], graph_of(name, stored[1])
    assert list(graph.channels) == expected["block_chs"] and list(graph.layers) == expected["num_block_layers"]
    sizes = [expected["block_fm_sizes"][0]]
    for block, config in enumerate(expected["output_configs"]):
        assert list(graph.targets(block)) == config["out_id"]
        assert [graph.stride(block, target) for target in graph.targets(block)] == config["strides"]
    for block, config in enumerate(expected["input_configs"], 1):
        assert graph.sources(block) == config["in_block_idx"]
        assert [block - source - 1 for source in graph.sources(block)] == config["beta_idx"]
        sizes.append(sizes[config["in_block_idx"][0]] // config["strides"][0])
    assert sizes == expected["block_fm_sizes"]
    assert graphs.graph(graph.to_json()) == graph


@pytest.mark.parametrize("name", ["tiny", "mbv2", "res"])
def test_derive(stored, name):
    arrays, graph = stored[0], graph_of(name, stored[1])
    space = DenseNAS(graph.to_json())
    masks = {table: choices.mask for table, choices in space.choices.items()}
    assert stored[1][name]["derive"]
    for case, expected in enumerate(stored[1][name]["derive"]):
        strengths = softmax(tables(graph, arrays, f"derive/{name}/{case}/"), masks)
        path, probability = graph.likeliest_path(strengths["routing"])
        assert path == expected["path"], case
        assert probability == pytest.approx(expected["path_probability"], rel=1e-12)
        found = space.decide(strengths)
        space.check(found)
        assert [graph.channels[number] for number in found.numbers] == expected["chs"]
        chosen = [block for block in expected["arch"] if len(block) > 2 and block[1] != "mbconv_k3_t1"]
        assert [list(block.operations) for block in space.path(found)] == [
            [ours(head), *map(ours, layers)] for _, head, layers, _, _ in chosen
        ]
        assert [[block.channels, block.stride] for block in space.path(found)] == [
            [channels, stride] for (_, channels), _, _, _, stride in chosen
        ]


def cost_of(graph, listed):
    """Their list of costs as ours."""
    first, blocks, last, classifier = listed
    routing = np.zeros(DenseNAS(graph.to_json()).choices["routing"].mask.shape)
    for source, cost in zip(graph.sources(graph.blocks - 1), last, strict=True):
        routing[source, graph.blocks - 2 - source] = cost
    heads = [row for heads, _ in blocks for row in heads]
    counts = graph.layers[1:-1]  # their list has layers of blocks that have none
    stack = [row for (_, layers), count in zip(blocks, counts, strict=True) for row in layers[:count]]
    return first + classifier, {"routing": routing, "heads": np.array(heads), "stack": np.array(stack)}


def candidates(graph, arrays, prefix):
    """Which candidates take part, as masks."""
    masks = {name: table.mask for name, table in DenseNAS(graph.to_json()).choices.items()}
    for name, theirs in (("heads", "head_index"), ("stack", "stack_index")):
        found = [
            arrays[f"{prefix}{theirs}/{block}"]
            for block in range(graph.blocks)
            if f"{prefix}{theirs}/{block}" in arrays
        ]
        index = np.concatenate([rows for rows in found if len(rows)])
        masks[name] = np.zeros_like(masks[name])
        np.put_along_axis(masks[name], index.astype(int), True, 1)
    return masks


def masked_softmax(alphas, masks):
    return {name: tf.nn.softmax(tf.where(masks[name], alpha, relaxations.NEVER)) for name, alpha in alphas.items()}


def largest_error(graph, arrays, prefix, gradients, scale=1.0):
    expected = tables(graph, arrays, prefix, "dbetas", "dhead", "dstack")
    return max(relative_error(gradients[name].numpy() * scale, value) for name, value in expected.items())


def cases(arrays, prefix):
    return sorted({name.removeprefix(prefix).split("/")[0] for name in arrays if name.startswith(prefix)})


def test_chained_cost(stored):
    arrays, graph = stored[0], graph_of("mbv2", stored[1])
    cost = cost_of(graph, stored[1]["mbv2"]["latency_list"])
    assert cases(arrays, "mbv2/")
    for case in cases(arrays, "mbv2/"):
        prefix = f"mbv2/{case}/"
        masks = candidates(graph, arrays, prefix)
        alphas = {name: tf.constant(table) for name, table in tables(graph, arrays, prefix).items()}
        with tf.GradientTape() as tape:
            tape.watch(alphas)
            value = costs.chained(graph, cost, masked_softmax(alphas, masks))
        assert relative_error(value, arrays[f"{prefix}cost"]) < 1e-12
        assert largest_error(graph, arrays, prefix, tape.gradient(value, alphas)) < 1e-9


def supernet_tensors(network):
    """{name in the original: Tensor} of a supernet."""

    def of_block(operation, prefix):
        convolutions = [place for place, stage in enumerate(operation.stages) if isinstance(stage, Conv | Depthwise)]
        parts, names = ("_expand_conv", "_depthwise_conv", "_project_conv")[-len(convolutions) :], {}
        for part, place in zip(parts, convolutions, strict=True):
            names |= {f"_{place}": f"{part}.0", f"_{place + 1}": f"{part}.1"}
        found = operation_tensors(operation, "")
        return {f"{prefix}{names[place]}.{weight}": tensor for (place, weight), tensor in found.items()}

    graph = network.graph
    found = by_stage(network.stem, "input_block.") | of_block(network.first, "head_block.")
    for row, (source, target) in enumerate(graph.heads_of):
        for place, operations in enumerate(network.heads[row].operations):
            branch = graph.sources(target).index(source)
            found |= of_block(
                operations["main"], f"blocks.{target - 1}.head_layer.head_branches.{branch}._ops.{place}."
            )
    for row, (block, layer) in enumerate(graph.layers_of):
        for place, operations in enumerate(network.stack[row].operations):
            if operations:
                found |= of_block(
                    operations["main"], f"blocks.{block - 1}.stack_layers.stack_layers.{layer}._ops.{place}."
                )
    for branch, operation in enumerate(network.last):
        found |= by_stage(operation, f"conv1_1_block.conv1_1_branches.{branch}.conv1_1.")
    return found | by_stage(network.classifier, "classifier.")


@pytest.mark.parametrize("case", ["two", "all"])
def test_supernet(stored, float64, case):
    arrays, graph, prefix = stored[0], graph_of("tiny", stored[1]), f"tiny/{case}/"
    weights = {name.removeprefix("tiny/w/"): value for name, value in arrays.items() if name.startswith("tiny/w/")}
    assert float(arrays["tiny/bn_eps"]) == EPSILON
    network = DenseSupernet(graph.to_json(), len(weights["classifier.bias"]))
    x, y = to_images(arrays["tiny/x"]), tf.constant(arrays["tiny/y"])
    network.build(x.shape)
    tensors = supernet_tensors(network)
    assert set(tensors) == set(weights)
    assign(tensors, weights)
    for name, table in tables(graph, arrays, "tiny/").items():
        network.alphas[name].assign(table)
    masks = candidates(graph, arrays, prefix)
    base, factor = arrays["tiny/log_base_factor"].tolist()
    add_log = AddedLog(factor, base)
    cost = {kind: cost_of(graph, stored[1]["tiny"][f"{kind}_list"]) for kind in ("latency", "flops")}
    trained = [variable.value for variable in network.weight_variables]

    @tf.function(autograph=False)
    def run():
        alphas = {name: tf.convert_to_tensor(alpha) for name, alpha in network.alphas.items()}
        with tf.GradientTape() as tape:
            tape.watch(alphas)
            mixture = masked_softmax(alphas, masks)
            logits = network(x, training=True, mixture=mixture)
            cross_entropy = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
        of_alphas, of_weights = tape.gradient(cross_entropy, [alphas, trained])
        estimates, gradients = {}, {}
        for kind, one in cost.items():
            with tf.GradientTape() as tape:
                tape.watch(alphas)
                estimates[kind] = costs.chained(graph, one, masked_softmax(alphas, masks))
                value = add_log(tf.zeros([], tf.float64), estimates[kind])
            gradients[kind] = tf.nest.map_structure(tf.add, of_alphas, tape.gradient(value, alphas))
        losses = {kind: add_log(cross_entropy, one) for kind, one in estimates.items()}
        return logits, cross_entropy, estimates, losses, gradients, of_weights

    logits, cross_entropy, estimates, losses, gradients, of_weights = run()
    errors = {
        "logits": relative_error(logits, arrays[f"{prefix}logits"]),
        "cross_entropy": relative_error(cross_entropy, arrays[f"{prefix}cross_entropy"]),
    }
    for kind in cost:
        errors[f"{kind} cost"] = relative_error(estimates[kind], arrays[f"{prefix}{kind}/cost"])
        errors[f"{kind} loss"] = relative_error(losses[kind], arrays[f"{prefix}{kind}/loss"])
        errors[kind] = largest_error(graph, arrays, f"{prefix}{kind}/", gradients[kind])
    by_variable = dict(zip(map(id, network.weight_variables), of_weights, strict=True))
    for name, value in arrays.items():
        if name.startswith(f"{prefix}grad/"):
            tensor = tensors[name.removeprefix(f"{prefix}grad/")]
            errors[name] = relative_error(tensor.of(by_variable[id(tensor.variable)]), value)
    assert max(errors.values()) < 1e-9, errors


def test_counts(stored):
    """Of derived networks, which are built as they are, for images of ImageNet."""
    for case in stored[1]["counts"]:
        blocks = [ast.literal_eval(line) for line in case["config"].split("|")]
        channels = [width for (_, width), *_ in blocks]
        graph, place, texts = graphs.PRESETS["mbv2"], 0, []
        for width, (_, head, layers, *_) in zip(channels[1:-1], blocks[1:-1], strict=True):
            place = graph.channels.index(width, place + 1)
            texts.append(" ".join([str(place), ours(head), *map(ours, layers)]))
        space = DenseNAS()
        path = Path(space, {"blocks": tuple(texts)})
        space.check(path)
        network = dense_network(path, channels[0], 1000)
        assert counts.parameters(network) == case["params"]
        assert counts.multiply_adds(network) == round(case["mult_adds_m"] * 1e6)
