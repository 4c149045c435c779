"""Exports a trained Keras model for TF Serving (SavedModel) and for devices (TFLite).

    python -m export --model=runs/a/model.keras --output=serving

writes serving/NAME/1 (then 2, ...), serving/models.config and batching.config for the server, and serving/tflite/.
Any classifier saved by Keras will do, whatever made it; it is expected to take pixels as they are in image files.
A model of a table takes its columns by their names.
The labels are those of the training run beside the model, or of --labels:

    python -m export --model=flowers.keras --labels=flowers.txt --dataset=flowers/ --output=serving

A language model is one step from a token to the next ones, as darts_tf.train leaves it for --space=recurrent; the
vocabulary is that of the run, or of --vocabulary.

At the end a table compares what was written with the Keras model, on the test images, or the test text, of --dataset.
"""

import json
import sys

from darts_tf.cli import commands, messages
from export import ExportConfig, run_export


def main(config):
    """The command."""
    done = run_export(config, messages.verbosity())
    from export import comparison

    texts, files = [comparison.table(done.rows), ""], {}
    texts += [comparison.budget_table(done.budget), ""] if done.budget else []
    if done.saved_model:
        texts.append(f"Saved {done.saved_model}/ (docker run ... tensorflow/serving: docs/serve.md)")
        files["saved_model"] = done.saved_model
    if done.tflite:
        folder = next(iter(done.tflite.values())).parent
        texts.append(f"Saved {folder}/{config.model_name}-*.tflite")
        files["tflite"] = folder
    if done.example:
        given, found, probability = done.example
        if "perplexity" in done.rows[0]:
            given, found = (json.dumps(text, ensure_ascii=False) for text in (given, found))
            texts.append(f"\n{done.saved_model} goes on after {given} with {found} ({probability:.1%}).")
        elif probability is None:
            texts.append(f"\n{done.saved_model} says {found:,.6g} of a test row that has {given:,.6g}.")
        else:
            what = f"a test {done.item} of class {given}"
            texts.append(f"\n{done.saved_model} takes {what} for {found} ({probability:.1%}).")
    messages.result("\n".join(texts), **files, formats=done.rows, budget=done.budget)
    for message in done.failed:
        print(f"error: {message}", file=sys.stderr)
    sys.exit(1 if done.failed else 0)


if __name__ == "__main__":
    commands.run(main, ExportConfig)
