"""Makes any Keras image classifier deployable: SavedModel for TF Serving, TFLite for devices.

    python -m export --model=model.keras --output=serving

The rooms: `classifier` (what is exported), `savedmodel` and `tflite` (the two formats), `serving` (files for the
server), `comparison` (what each format is worth), `client` (asks a server).
"""
