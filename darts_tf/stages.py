"""What operations of your own are made of, see `darts_tf.ops.stages`."""

from darts_tf.ops.stages import *  # noqa: F403
