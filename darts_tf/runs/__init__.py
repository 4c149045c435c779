"""A run from its directory to its last epoch: files, checkpoints, callbacks, recipes."""
