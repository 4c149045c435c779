"""Draws the two cells of a genotype, as an SVG or a PNG picture.

    python -m darts_tf.plot DARTS_V2 --output=cells.svg
    python -m darts_tf.plot runs/a/genotype.json --output=cells.png

A genotype is a published one (NASNet, AmoebaNet, DARTS_V1, DARTS_V2), a genotype.json, or the text Genotype(...).
"""

import os
import pathlib

from absl import flags

from darts_tf.cli import commands
from darts_tf.cli.files import write
from darts_tf.reports import drawing
from darts_tf.spaces.cells import genotypes

FLAGS = flags.FLAGS
FORMATS = {".svg": drawing.svg, ".png": drawing.png}


def main(argv):
    output = pathlib.Path(FLAGS.output or "")
    if output.suffix.lower() not in FORMATS or not os.path.isdir(output.parent):
        value = f"={FLAGS.output}" if FLAGS.output else ""
        raise commands.UsageError(f"--output{value}: expected a file in an existing folder, ending in .svg or .png.")
    try:
        content = FORMATS[output.suffix.lower()](genotypes.read(argv[1]))
    except (OSError, ValueError) as error:
        raise commands.UsageError(f"{argv[1]}: {error}") from None
    try:
        write(output, content)
    except OSError as error:
        if error.errno in commands.NO_SPACE:
            raise
        raise commands.UsageError(f"--output={output}: {error.strerror}; expected a place to write to.") from None
    commands.result(f"Saved {output}", output=output)


if __name__ == "__main__":
    with commands.topic("Picture"):
        flags.DEFINE_string("output", None, "The .svg or .png file to write.")
    commands.run(main, arguments=["GENOTYPE"])
