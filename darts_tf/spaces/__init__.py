"""What may be chosen: the spaces, by name, and their architectures."""

from darts_tf.spaces.base import from_json, from_text, get, names, of, read, register_space
from darts_tf.spaces.cells.space import CellSpace

__all__ = ["CellSpace", "from_json", "from_text", "get", "names", "of", "read", "register_space"]
