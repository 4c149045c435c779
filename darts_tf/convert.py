"""Turns a checkpoint of the original PyTorch code into a Keras model.

    python -m darts_tf.convert cifar10_model.pt --arch=DARTS_V2 --output=model.keras
    python -m darts_tf.convert weights.npz --arch=runs/a/genotype.json --output=model.keras

The checkpoint is a state dict of a derived network for CIFAR or ImageNet, read by torch
(pip install 'darts-tf[torch]'), or the same tensors as arrays in a .npz file. Channels, cells and classes are read off
it. The model takes pixels from 0 to 255 and normalises them as the original did.
"""

import os
import pathlib

from absl import flags

from darts_tf.cli import commands, files
from darts_tf.spaces.cells import genotypes, pytorch


def main(argv):
    if not flags.FLAGS.arch or not flags.FLAGS.output:
        raise commands.UsageError(f"--{'output' if flags.FLAGS.arch else 'arch'}: expected a value, see --help.")
    output = pathlib.Path(flags.FLAGS.output)
    if output.suffix != ".keras" or os.path.isdir(output) or not os.path.isdir(output.parent):
        raise commands.UsageError(f"--output={output}: expected a file name in an existing folder, ending in .keras.")
    arch = flags.FLAGS.arch
    try:
        genotype = genotypes.read(arch)
        state = pytorch.read(argv[1])
        from darts_tf.devices import runtime

        runtime.configure()
        from darts_tf.costs import counts

        network = pytorch.network_for(state, genotype)
        pytorch.set_weights(network, genotype, state)
    except pytorch.CheckpointError as error:
        raise commands.UsageError(f"{argv[1]}: {error}") from None
    except (OSError, ValueError) as error:
        raise commands.UsageError(f"--arch={arch}: {error}") from None
    except ImportError:
        raise commands.UsageError(f"{argv[1]}: reading it takes torch: pip install 'darts-tf[torch]'") from None
    try:
        files.save_model(network, output)
    except OSError as error:
        if error.errno in commands.NO_SPACE:
            raise
        raise commands.UsageError(
            f"--output={output}: {error.strerror or error}; expected a place to write to."
        ) from None
    shape = "x".join(str(size) for size in network.input_shape[1:])
    classes, parameters = network.output_shape[-1], counts.parameters(network)
    commands.result(
        f"{output}: images {shape}, {classes} classes, {parameters:,} parameters",
        output=output,
        image_shape=network.input_shape[1:],
        classes=classes,
        parameters=parameters,
    )


if __name__ == "__main__":
    with commands.topic("Conversion"):
        flags.DEFINE_string("arch", None, "Its genotype: a published one, a genotype.json, or Genotype(...) text.")
        flags.DEFINE_string("output", None, "The .keras file to write.")
    commands.run(main, arguments=["CHECKPOINT"])
