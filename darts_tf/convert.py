"""Turns a checkpoint of the original PyTorch code into a Keras model.

    python -m darts_tf.convert cifar10_model.pt --arch=DARTS_V2 --output=model.keras
    python -m darts_tf.convert weights.npz --arch=runs/a/genotype.json --output=model.keras

The checkpoint is a state dict of a derived network for CIFAR or ImageNet, read by torch
(pip install 'darts-tf[torch]'), or the same tensors as arrays in a .npz file. Channels, cells and classes are read off
it. The model takes pixels from 0 to 255 and normalises them as the original did.
"""

import dataclasses
import os
import pathlib

from darts_tf import spaces
from darts_tf.cli import commands, files, messages
from darts_tf.cli.configuration import Configuration, option
from darts_tf.cli.messages import UsageError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertConfig(Configuration):
    """What `python -m darts_tf.convert` is asked for."""

    arch: str | None = option(
        None, "Its genotype: a published one, a genotype.json, or Genotype(...) text.", topic="Conversion"
    )
    output: str | None = option(None, "The .keras file to write.", topic="Conversion")


def main(config, checkpoint):
    """The command."""
    if not config.arch or not config.output:
        raise UsageError(f"--{'output' if config.arch else 'arch'}: expected a value, see --help.")
    output = pathlib.Path(config.output)
    if output.suffix != ".keras" or os.path.isdir(output) or not os.path.isdir(output.parent):
        raise UsageError(f"--output={output}: expected a file name in an existing folder, ending in .keras.")
    from darts_tf.spaces.cells import pytorch

    try:
        genotype = spaces.read(config.arch)
        if genotype.space.name != "darts":
            raise ValueError("it is of another space: expected a genotype of cells of images, such as DARTS_V2.")
        state = pytorch.read(checkpoint)
        from darts_tf.devices import runtime

        runtime.configure()
        network = pytorch.network_for(state, genotype)
        pytorch.set_weights(network, genotype, state)
    except pytorch.CheckpointError as error:
        raise UsageError(f"{checkpoint}: {error}") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"--arch={config.arch}: {error}") from None
    except ImportError:
        raise UsageError(f"{checkpoint}: reading it takes torch: pip install 'darts-tf[torch]'") from None
    with files.writing_to(output):
        files.save_model(network, output)
    from darts_tf.costs import counts

    shape = "x".join(str(size) for size in network.input_shape[1:])
    classes, parameters = network.output_shape[-1], counts.parameters(network)
    messages.result(
        f"{output}: images {shape}, {classes} classes, {parameters:,} parameters",
        output=output,
        image_shape=network.input_shape[1:],
        classes=classes,
        parameters=parameters,
    )


if __name__ == "__main__":
    commands.run(main, ConvertConfig, arguments=["CHECKPOINT"])
