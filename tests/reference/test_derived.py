import re

import numpy as np
import pytest
import tensorflow as tf
from original import relative_error
from weights import take_weights

from darts_tf.spaces.cells import derived, pytorch
from darts_tf.spaces.cells.genotypes import PUBLISHED
from darts_tf.spaces.cells.trained import TrainedNetwork
from darts_tf.spaces.models import inference_model

TOLERANCE = {"float64": 1e-9, "float32": 1e-4}


def check(file, dtype, kind, x=None):
    """Logits with the moving statistics and with those of the batch, and of the auxiliary head if there is one."""
    name, auxiliary = re.match(r"[a-z]+_(\w+?)(_auxiliary)?$", file.stem).groups()
    if name not in PUBLISHED:
        pytest.skip(f"{name} is not a published genotype")
    arrays = np.load(file)
    state = {key.removeprefix("state/"): value for key, value in arrays.items() if key.startswith("state/")}
    x = tf.constant((arrays["x"] if x is None else x).transpose(0, 2, 3, 1), dtype)
    stem = state["stem.0.weight"] if "stem.0.weight" in state else state["stem0.3.weight"]
    sizes = {
        "channels": len(stem) // (3 if "stem.0.weight" in state else 1),
        "layers": 1 + max(int(key.split(".")[1]) for key in state if key.startswith("cells.")),
        "num_classes": len(state["classifier.bias"]),
        "image_shape": x.shape[1:],
        "auxiliary": bool(auxiliary),
        "drop_path": True,
    }
    network = derived.BUILDERS[kind](PUBLISHED[name], **sizes)
    pytorch.set_weights(network, PUBLISHED[name], state)
    trained = TrainedNetwork(PUBLISHED[name], kind, **sizes)
    take_weights(trained, network)
    errors = {"deployed": relative_error(inference_model(network)(x), arrays["eval/logits"])}
    for mode in ("eval", "train"):
        logits = network(x, training=mode == "train")
        logits, *head = logits if auxiliary else [logits]
        errors[mode] = relative_error(logits, arrays[f"{mode}/logits"])
        if head and mode == "train":
            errors["head"] = relative_error(head[0], arrays["train/logits_aux"])
    logits = [trained(x), *(trained(x, training=True) if auxiliary else [trained(x, training=True)])]
    for key, ours in zip(("eval/logits", "train/logits", "train/logits_aux"), logits, strict=False):
        errors[f"trained, {key}"] = relative_error(ours, arrays[key])
    assert max(errors.values()) < TOLERANCE[dtype], errors


def test_cifar(cifar_file, dtype):
    check(cifar_file, dtype, "cifar")


def test_imagenet(imagenet_file, dtype):
    height, width = np.ogrid[:224, :224]
    image = 224 * height + width
    x = np.stack([[np.sin(0.013 * image * (c + 1) + b) for c in range(3)] for b in range(2)])
    check(imagenet_file, dtype, "imagenet", x)
