"""Makes Keras models of images, text and tables deployable: SavedModel for TF Serving, TFLite for devices.

    python -m export --model=model.keras --output=serving

or, from Python,

    export.run_export(export.ExportConfig(model="model.keras", output="serving"))

The rooms: `run` (the whole export), `models` (what is common to all that can be exported), `classifier`, `language`
and `tabular` (what is exported), `labels` (what its classes or tokens are called), `representative` (data to compare
on),
`savedmodel` and `tflite` (the two formats), `decoding` and `tokenization` (image files and texts inside a SavedModel),
`serving` (files for the server), `locks` (exports beside each other), `comparison` (what each format is worth),
`client` (asks a server).
"""

from export.run import Export, ExportConfig, run_export

__all__ = ["Export", "ExportConfig", "run_export"]
