"""Makes any Keras image classifier deployable: SavedModel for TF Serving, TFLite for devices.

    python -m export --model=model.keras --output=serving

The rooms: `classifier` (what is exported), `labels` (what its classes are called), `savedmodel` and `tflite` (the two
formats), `decoding` (image files inside a SavedModel), `serving` (files for the server), `locks` (exports beside each
other), `comparison` (what each format is worth), `client` (asks a server).
"""
