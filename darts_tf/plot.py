"""Draws a genotype, its two cells for example, as an SVG or a PNG picture.

    python -m darts_tf.plot DARTS_V2 --output=cells.svg
    python -m darts_tf.plot runs/a/genotype.json --output=cells.png
    python -m darts_tf.plot DARTS_V2 --space=recurrent --output=cell.svg

A genotype is a published one (NASNet, AmoebaNet, DARTS_V1, DARTS_V2; of recurrent cells ENAS, DARTS_V1, DARTS_V2), a
genotype.json, or the text Genotype(...).
"""

import dataclasses
import os
import pathlib

from darts_tf import spaces
from darts_tf.cli import commands, messages
from darts_tf.cli.configuration import Configuration, option
from darts_tf.cli.files import write, writing_to
from darts_tf.cli.messages import UsageError
from darts_tf.reports import drawing

FORMATS = {".svg": drawing.svg, ".png": drawing.png}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlotConfig(Configuration):
    """What `python -m darts_tf.plot` is asked for."""

    output: str | None = option(None, "The .svg or .png file to write.", topic="Picture")
    space: str | None = option(None, "The space of a name that several have. Default: darts.", topic="Picture")
    operations: str | None = option(
        None, "A Python file that registers a space of your own, which the genotype is of.", topic="Picture"
    )


def main(config, genotype):
    """The command."""
    output = pathlib.Path(config.output or "")
    if output.suffix.lower() not in FORMATS or not os.path.isdir(output.parent):
        value = f"={config.output}" if config.output else ""
        raise UsageError(f"--output{value}: expected a file in an existing folder, ending in .svg or .png.")
    if config.operations:
        from darts_tf.devices import runtime
        from darts_tf.runs import starting

        with runtime.configured(training=False):  # which imports TensorFlow quietly; the file may need it
            starting.import_operations(config)
    if config.space and not spaces.is_known(config.space):
        raise UsageError(f"--space={config.space}: expected one of {', '.join(spaces.names())}.")
    try:
        content = FORMATS[output.suffix.lower()](spaces.read(genotype, config.space))
    except (OSError, ValueError) as error:
        raise UsageError(f"{genotype}: {error}") from None
    with writing_to(output):
        write(output, content)
    messages.result(f"Saved {output}", output=output)


if __name__ == "__main__":
    commands.run(main, PlotConfig, arguments=["GENOTYPE"])
