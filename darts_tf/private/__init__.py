"""What is used of Keras, TensorFlow and keras-tuner that is not public; no other file touches it.

Every docstring has a line "Private: what it uses, of the package and version that it was checked with". A test of each
in `tests/private` shows what is relied on, and fails with that line where another version does otherwise.
"""
