"""The picture of a chain."""

from darts_tf.spaces.pictures import Picture


class ChainPicture(Picture):
    def __init__(self, space, architecture, names=None):
        super().__init__(space, "layers")
