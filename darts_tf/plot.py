"""Draws the two cells of a genotype as an SVG picture.

python -m darts_tf.plot --arch=DARTS_V2 --output=cells.svg
python -m darts_tf.plot --arch=runs/a/genotype.json --output=cells.svg
python -m darts_tf.plot --arch="Genotype(normal=[...], ...)" --output=cells.svg
"""

import html

from absl import flags

from darts_tf import commands, genotypes
from darts_tf.files import write

FLAGS = flags.FLAGS
STEP, ROW, BOX, HEIGHT, LABEL = 260, 56, 64, 38, 100  # pixels: columns, rows, a node's box, the name of an operation


def main(_):
    if not FLAGS.arch or not FLAGS.output:
        raise commands.UsageError(f"--{'output' if FLAGS.arch else 'arch'} is missing, see --help.")
    try:
        genotype = genotypes.read(FLAGS.arch)
    except (OSError, ValueError) as error:
        raise commands.UsageError(f"--arch={FLAGS.arch}: {error}") from error
    write(FLAGS.output, svg(genotype))


def svg(genotype):
    """Both cells of a genotype, one below the other, as the text of an SVG picture for light and dark pages."""
    parts, top, right = [], 0, 0
    for name, pairs, concat in (
        ("normal cell", genotype.normal, genotype.normal_concat),
        ("reduction cell", genotype.reduce, genotype.reduce_concat),
    ):
        cell, width, height = _cell(pairs, list(concat))
        parts.append(f'<g transform="translate(0 {top})"><text class="title" x="16" y="24">{name}</text>{cell}</g>')
        top, right = top + height, max(right, width)
    style = (
        "text{font:12px system-ui,sans-serif;fill:#1f2328}.title{font-weight:600;font-size:15px}"
        ".edge{fill:none;stroke:#57606a;stroke-width:1.3}.node{fill:#ddf4ff;stroke:#0969da}"
        ".end{fill:#dafbe1;stroke:#1a7f37}.op{text-anchor:middle;paint-order:stroke;stroke:#fff;stroke-width:4px}"
        ".id{text-anchor:middle}.page{fill:#fff}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {right} {top}" width="{right}" height="{top}">'
        f'<style>{style}</style><rect class="page" width="100%" height="100%" rx="8"/>{"".join(parts)}</svg>\n'
    )


def _cell(pairs, concat):
    """Elements, width and height of one cell; a node stands right of all that feed it."""
    count = 2 + len(pairs) // 2
    edges = [(source, 2 + place // 2, name) for place, (name, source) in enumerate(pairs)]
    column = {0: 0, 1: 0}
    for node in range(2, count):
        column[node] = 1 + max(column[source] for source, target, _ in edges if target == node)
    labels = {0: "c(k-2)", 1: "c(k-1)", count: "c(k)"} | {node: str(node - 2) for node in range(2, count)}
    column[count] = 1 + max(column.values())
    rows = max(2, count - 1)
    # Inputs stand one above the other; every intermediate node has a row of its own, so that no edge hides another.
    row = (
        {0: 0.15 * rows, 1: 0.85 * (rows - 1)} | {node: node - 2 for node in range(2, count)} | {count: (count - 3) / 2}
    )
    place = {node: (60 + STEP * column[node], 64 + ROW * row[node]) for node in labels}

    drawn = []
    for number, (source, target, name) in enumerate(edges + [(node, count, "") for node in concat]):
        (x0, y0), (x1, y1) = place[source], place[target]
        x0, x1 = x0 + BOX / 2, x1 - BOX / 2
        # The two edges of a node arrive one above the other, each on a straight piece under its label.
        end = x1 - LABEL if name else x1
        y1 += (9 if number % 2 else -9) if name else 0
        middle = (x0 + end) / 2
        drawn.append(
            f'<path class="edge" d="M{x0:g} {y0:g}C{middle:g} {y0:g} {middle:g} {y1:g} {end:g} {y1:g}H{x1:g}"/>'
        )
        if name:
            drawn.append(f'<text class="op" x="{x1 - LABEL / 2:g}" y="{y1 + 4:g}">{html.escape(name)}</text>')
    for node, (x, y) in place.items():
        kind = "node" if 2 <= node < count else "end"
        drawn.append(
            f'<rect class="{kind}" x="{x - BOX / 2:g}" y="{y - HEIGHT / 2:g}" width="{BOX}" height="{HEIGHT}" rx="6"/>'
            f'<text class="id" x="{x:g}" y="{y + 4:g}">{labels[node]}</text>'
        )
    return "".join(drawn), 120 + STEP * column[count], 64 + ROW * rows


if __name__ == "__main__":
    flags.DEFINE_string(
        "arch", None, "A published genotype (DARTS_V2, NASNet, ...), a genotype.json, or the text of a genotype."
    )
    flags.DEFINE_string("output", None, "The SVG file to write.")
    commands.run(main)
