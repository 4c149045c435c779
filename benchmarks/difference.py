"""How far the forward difference of equation 8 is from the central one: `python -m benchmarks.difference`.

A second order search on the digits, as `python -m darts_tf.search` begins, is stopped after some steps. There both are
computed on some batches. Prints a JSON line for each of the --steps, with medians over the batches:

product  |forward - central| / |central| of the product of the mixed second derivative and v
alpha    the same of alpha's whole gradient, in which the product counts as much as the learning rate does
cosine   between the two gradients of alpha
first    |first order - central| / |central| of alpha's gradient: what is lost without any product
tf32     on a GPU: |central in TF32 - central| / |central| of alpha's gradient

The networks have kinks, where a unit's sign changes, so that neither is the product by automatic differentiation, which
does not see them.
"""

import json
import statistics

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_list("steps", ["0", "100", "300"], "After how many steps of the search.")
flags.DEFINE_integer("batches", 8, "So many pairs of batches.", lower_bound=1)
flags.DEFINE_integer("init_channels", 8, "Channels of the first cell.", lower_bound=1)
flags.DEFINE_integer("layers", 5, "Cells.", lower_bound=3)


def main(_):
    from darts_tf.devices import runtime

    runtime.configure(tf32=False)
    import tensorflow as tf

    search, batches = make()
    measure = tf.function(distances(search), autograph=False, reduce_retracing=True)
    gradient = tf.function(search.alpha_gradient, autograph=False, reduce_retracing=True)
    done = 0
    for steps in sorted(map(int, FLAGS.steps)):
        if steps > done:
            search.fit(batches.repeat().take(steps - done), verbose=0, shuffle=False)
            done = steps
        pairs = list(batches.shuffle(100, seed=1).take(FLAGS.batches))
        found = [measure(*pair) for pair in pairs]
        if tf.config.list_physical_devices("GPU"):
            found = [one | {"tf32": of_tf32(gradient, *pair)} for one, pair in zip(found, pairs, strict=True)]
        line = {name: float(f"{statistics.median(float(one[name]) for one in found):.3g}") for name in found[0]}
        print(json.dumps({"steps": steps, **line, "batches": len(found)}), flush=True)


def make():
    """A search of the digits and pairs of batches."""
    import keras
    import tensorflow as tf

    from darts_tf import DARTS, SearchNetwork
    from darts_tf.data import datasets
    from darts_tf.methods.optimizers import SGD, Adam

    keras.utils.set_random_seed(0)
    data = datasets.load("digits")
    mean, std = data.statistics()
    x, y = ((data.x_train - mean) / std).astype("float32"), data.y_train
    half = len(x) // 2
    pairs = tf.data.Dataset.from_tensor_slices(((x[:half], y[:half]), (x[half : 2 * half], y[half : 2 * half])))
    search = DARTS(SearchNetwork(FLAGS.init_channels, FLAGS.layers), unrolled=True)
    search.compile(
        SGD(0.025, global_clipnorm=5.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        arch_optimizer=Adam(3e-3),
    )
    batches = pairs.shuffle(half, seed=0).batch(32, drop_remainder=True)
    search.create_variables(*batches.element_spec[0])
    return search, batches


def distance(ours, theirs):
    """|ours - theirs| / |theirs| of two lists of tensors."""
    import tensorflow as tf

    return tf.linalg.global_norm([o - t for o, t in zip(ours, theirs, strict=True)]) / tf.linalg.global_norm(theirs)


def of_tf32(gradient, train, valid):
    """How far a gradient, a function of batches, is in TF32 from what it is in float32."""
    import tensorflow as tf

    exact = gradient(train, valid)
    tf.config.experimental.enable_tensor_float_32_execution(True)
    rough = gradient(train, valid)
    tf.config.experimental.enable_tensor_float_32_execution(False)
    return distance(rough, exact)


def distances(search):
    """Function of a pair of batches -> the numbers of a line, a dict."""
    import tensorflow as tf

    from darts_tf.methods.darts import architecture_gradient, gradient, hessian_vector_product

    def measured(train, valid):
        weights, alphas = search.values()
        given = search.loss_at, weights, alphas
        ahead = search.virtual_step, tf.convert_to_tensor(search.optimizer.learning_rate)
        v = gradient(search.loss_at, ahead[0](gradient(*given, train, of="weights")), alphas, valid, of="weights")
        here = gradient(*given, train, of="alphas")
        products = [hessian_vector_product(*given, train, v, start) for start in (here, None)]
        forward, central = (
            architecture_gradient(*given, train, valid, *ahead, difference=name) for name in ("forward", "central")
        )
        dot = tf.add_n([tf.reduce_sum(f * c) for f, c in zip(forward, central, strict=True)])
        return {
            "product": distance(*products),
            "alpha": distance(forward, central),
            "cosine": dot / (tf.linalg.global_norm(forward) * tf.linalg.global_norm(central)),
            "first": distance(architecture_gradient(*given, train, valid), central),
        }

    return measured


if __name__ == "__main__":
    app.run(main)
