"""Attempts against searching and training itself, from Python as a user of Keras would and by the commands."""

from benchmarks.abuse import Attempt, B

OPERATIONS = ("none", "max_pool_3x3", "skip_connect", "sep_conv_3x3")
GENOTYPE = (
    "Genotype(normal=[('skip_connect', 0), ('sep_conv_3x3', 1)], normal_concat=[2], "
    "reduce=[('max_pool_3x3', 0), ('skip_connect', 1)], reduce_concat=[2])"
)


def start(cpu_devices=1, precision="float32"):
    from darts_tf.devices import runtime

    runtime.configure(cpu_devices=cpu_devices, precision=precision)
    import keras

    keras.utils.set_random_seed(0)
    return keras


def numbers(variables):
    return [variable.numpy().copy() for variable in variables]


def pair(size=(8, 8, 1), classes=3, batch=6):
    """A batch of a search."""
    import numpy as np

    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(2, batch, *size)).astype("float32"), draw.integers(0, classes, (2, batch)).astype("int32")
    return (x[0], y[0]), (x[1], y[1])


def batches(steps=2, **options):
    import tensorflow as tf

    return tf.data.Dataset.from_tensors(pair(**options)).repeat(steps)


def searched(network=None, optimizer=None, arch_optimizer=None, unrolled=True, loss=None, compiled=None, **options):
    """A search, compiled."""
    import keras

    from darts_tf import DARTS, SearchNetwork
    from darts_tf.methods.optimizers import SGD, Adam

    options = {"channels": 2, "layers": 3, "num_classes": 3, "nodes": 1, "primitives": OPERATIONS, **options}
    search = DARTS(network or SearchNetwork(**options), unrolled=unrolled)
    search.compile(
        optimizer or SGD(0.05),
        loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        arch_optimizer=arch_optimizer or Adam(0.01),
        **{"metrics": ["accuracy"], **(compiled or {})},
    )
    return search


def fitted(search, data=None, **options):
    """What is wrong with a search that fits."""
    import numpy as np

    history = search.fit(batches() if data is None else data, verbose=0, shuffle=False, **options).history
    values = [value for name, column in history.items() for value in column]
    state = numbers(search.network.variables)
    if not np.isfinite(values).all() or not all(np.isfinite(value).all() for value in state):
        return f"not all is finite: {history}"
    return None


def attempts():
    """Yields all of them."""
    yield from frozen()
    yield from gradients()
    yield from optimizers()
    yield from compiled()
    yield from counts()
    yield from networks()
    yield from devices()
    yield from commands()
    yield from keras_users()


def python(name, call, **options):
    return Attempt(name, call=call, ends=(0,), **options)


def refused(name, call, *words):
    """An attempt that has to end in a ValueError with these words."""

    def tried(folder):
        try:
            call(folder)
        except ValueError as error:
            missing = [word for word in words if word not in str(error)]
            return f"no {missing[0]!r} in: {error}" if missing else None
        return "nobody complained"

    return python(name, tried)


def frozen():
    """What is not trainable stays, what is moves."""
    parts = {
        "the stem": lambda network: [network.stem],
        "a cell": lambda network: [network.cells[1]],
        "all cells": lambda network: network.cells,
        "a preprocessing": lambda network: [network.cells[2].preprocess[0]],
        "an operation of the edges": lambda network: [network.cells[0].mixed_ops[0].grouped[3]],
        "a pool": lambda network: [network.cells[0].mixed_ops[1].shared[1]],
        "the classifier": lambda network: [network.classifier],
        "one alpha": lambda network: [network.alphas["normal"]],
        "all alphas": lambda network: list(network.alphas.values()),
        "the classifier's bias": lambda network: [network.classifier.bias],
        "all": lambda network: [network],
    }

    def attempt(part, unrolled, saved=False):
        def call(folder):
            keras = start()
            from darts_tf import SearchNetwork

            network = SearchNetwork(2, 3, 3, nodes=1, primitives=OPERATIONS)
            network.build((None, 8, 8, 1))
            for kept in parts[part](network):
                kept.trainable = False
            search = searched(network, unrolled=unrolled)
            still = [v for kept in parts[part](network) for v in getattr(kept, "variables", [kept])]
            before = numbers(network.variables)
            wrong = fitted(search)
            if saved:
                search.save(folder / "search.keras")
                search, first = keras.models.load_model(folder / "search.keras"), search
                wrong = wrong or fitted(search) or fitted(first)
                pairs = zip(numbers(search.network.variables), numbers(first.network.variables), strict=True)
                wrong = wrong or (None if all((a == b).all() for a, b in pairs) else "the loaded search goes on apart")
            still = {id(v) for v in still}
            for place, (variable, old) in enumerate(zip(network.variables, before, strict=True)):
                moved = (search.network.variables[place].numpy() != old).any()
                if moved and id(variable) in still:
                    return f"{variable.path} moved"
                if not moved and id(variable) not in still and "alphas" in variable.path:
                    return f"{variable.path} did not move"
            return wrong

        order = "second" if unrolled else "first"
        return python(f"frozen in a search of {order} order: {part}{', saved and loaded' * saved}", call)

    for part in parts:
        yield attempt(part, True)
    for part in ("a cell", "an operation of the edges", "one alpha"):
        yield attempt(part, False)
        yield attempt(part, True, saved=True)

    def own_layer(folder):
        keras = start()
        import darts_tf

        @darts_tf.register_operation("abuse")
        def made(stride, affine, channels):
            return keras.layers.Conv2D(channels, 3, strides=stride, padding="same", trainable=False)

        search = searched(primitives=("skip_connect", "abuse"))
        search.network.build((None, 8, 8, 1))
        kept = [layer for layers in search.network.cells[0].mixed_ops[0].separate.values() for layer in layers]
        before = numbers(v for layer in kept for v in layer.variables)
        wrong = fitted(search)
        after = numbers(v for layer in kept for v in layer.variables)
        return wrong or (None if all((a == b).all() for a, b in zip(before, after, strict=True)) else "it moved")

    yield python("an operation of the user's that is a frozen layer", own_layer)


def gradients():
    """Gradients that are not there, or no numbers."""

    def unconnected(unrolled, float16=False):
        def call(folder):
            keras = start(precision="float16" if float16 else "float32")
            from darts_tf import SearchNetwork
            from darts_tf.methods.optimizers import SGD

            network = SearchNetwork(2, 3, 3, nodes=1, primitives=OPERATIONS)
            network.unused = keras.layers.Dense(2)
            network.unused.build((None, 3))
            network.build((None, 8, 8, 1))
            before = network.unused.kernel.numpy()
            wrong = fitted(searched(network, SGD(0.05, loss_scale=float16), unrolled=unrolled))
            return wrong or (None if (network.unused.kernel.numpy() == before).all() else "an unused weight moved")

        return python(f"a weight that the loss does not depend on, unrolled={unrolled}, float16={float16}", call)

    yield from (unconnected(False), unconnected(True), unconnected(True, True))

    def embedding(folder):
        keras = start()
        import tensorflow as tf

        class Network(keras.Model):
            def __init__(self):
                super().__init__()
                self.table = self.add_weight(shape=(9, 3), name="table")
                self.alpha = self.add_weight(shape=(4, 3), name="alpha")
                self.built = True

            def build(self, input_shape):
                pass

            def call(self, x, training=False):
                return tf.gather(self.table, x) * tf.gather(self.alpha, x % 4)

            def compute_output_shape(self, input_shape):
                return (*input_shape, 3)

            weight_variables = property(lambda self: [self.table])
            arch_variables = property(lambda self: [self.alpha])

        x, y = tf.constant([0, 3, 8, 2]), tf.constant([0, 1, 2, 0])
        return fitted(searched(Network()), tf.data.Dataset.from_tensors(((x, y), (x, y))))

    yield python("a network of look-ups, whose gradients are sparse", embedding)

    def one_class(folder):
        start()
        return fitted(searched(num_classes=1), batches(classes=1))

    yield python("one class, where the gradient of the weights is zero", one_class)

    def product(v, what):
        def call(folder):
            start()
            import numpy as np
            import tensorflow as tf

            from darts_tf.methods.darts import hessian_vector_product

            def loss(weights, alphas, batch):
                return tf.reduce_sum(weights[0] ** 2 * alphas[0])

            weights, alphas = [tf.constant([1.0, 2.0])], [tf.constant([0.5, 0.5])]
            found = hessian_vector_product(loss, weights, alphas, tf.zeros([]), [tf.constant(v, tf.float32)])
            return None if (np.asarray(found[0]) == 0).all() else f"{np.asarray(found[0])}, expected zero"

        return python(f"finite differences along {what}", call)

    yield product([0.0, 0.0], "nothing")
    yield product([float("inf"), 0.0], "infinity")
    yield product([float("nan"), 1.0], "NaN")
    yield product([1e38, 1e38], "what overflows")
    yield product([1e-42, 0.0], "what is hardly there")

    def half(**given):
        def call(folder):
            start()
            import tensorflow as tf

            from darts_tf.methods.darts import architecture_gradient

            point = [tf.constant([1.0])]

            def loss(weights, alphas, batch):
                return tf.reduce_sum(weights[0] * alphas[0])

            architecture_gradient(loss, point, point, None, None, **given)

        return call

    yield refused("a virtual step without its rate", half(virtual_step=lambda gradients: gradients), "rate")
    yield refused("a rate without a virtual step", half(rate=0.1), "virtual_step")


def optimizers():
    """Every argument of Keras does what it does in Keras, or is refused."""

    def trained(optimizer):
        import keras
        import numpy as np
        import tensorflow as tf

        variable = keras.Variable(np.array([1.0, 2.0, -3.0], np.float32))
        optimizer.build([variable])
        step = tf.function(lambda gradient: optimizer.apply([gradient], [variable]))
        for gradient in np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32):
            step(gradient)
        optimizer.finalize_variable_values([variable])
        return variable.numpy()

    def attempt(kind, **options):
        def call(folder):
            keras = start()
            import numpy as np

            from darts_tf.methods import optimizers

            same = {"momentum": 0.9} if kind == "SGD" else {"beta_1": 0.5, "beta_2": 0.99, "epsilon": 1e-8}
            ours = trained(getattr(optimizers, kind)(0.1, l2=0.0, **same, **options))
            theirs = trained(getattr(keras.optimizers, kind)(0.1, **same, **options))
            return None if np.allclose(ours, theirs, atol=1e-5) else f"{ours}, of Keras {theirs}"

        said = ", ".join(f"{name}={value}" for name, value in options.items())
        return python(f"{kind}({said}) as in Keras", call)

    for kind in ("SGD", "Adam"):
        yield attempt(kind, weight_decay=0.1)
        yield attempt(kind, clipnorm=0.5)
        yield attempt(kind, clipvalue=0.3)
        yield attempt(kind, global_clipnorm=0.5)
        yield attempt(kind, use_ema=True, ema_momentum=0.5)
        yield attempt(kind, use_ema=True, ema_overwrite_frequency=2)
        yield attempt(kind, loss_scale_factor=4.0)
        yield attempt(kind, gradient_accumulation_steps=2)
    yield attempt("SGD", nesterov=True)
    yield attempt("Adam", amsgrad=True)

    def virtual(**options):
        def call(folder):
            start()
            import keras
            import numpy as np
            import tensorflow as tf

            from darts_tf.methods.optimizers import SGD

            optimizer, variable = SGD(0.1, **options), keras.Variable(np.array([1.0, -2.0], np.float32))
            optimizer.build([variable])
            gradient = tf.constant([0.3, 0.4])
            optimizer.apply([gradient], [variable])
            ahead = optimizer.virtual_step([gradient], [variable], [tf.convert_to_tensor(variable)])[0]
            optimizer.apply([gradient], [variable])
            return None if np.allclose(ahead, variable.numpy(), atol=1e-6) else f"{ahead}, then {variable.numpy()}"

        return python(f"the virtual step is the next one, with {options}", call)

    for options in ({}, {"nesterov": True}, {"weight_decay": 0.1}, {"nesterov": True, "weight_decay": 0.1}):
        yield virtual(**options)

    def made(kind, **options):
        def call(folder):
            start()
            from darts_tf.methods import optimizers

            getattr(optimizers, kind)(**options)

        return call

    for name, value in {
        "weight_decay": 0.1,
        "use_ema": True,
        "loss_scale_factor": 8.0,
        "gradient_accumulation_steps": 2,
    }.items():
        yield refused(f"loss_scale with {name}", made("SGD", loss_scale=True, **{name: value}), name, "expected")
    yield refused("SGD(l2=-1)", made("SGD", l2=-1), "l2=-1", "expected")
    yield refused("Adam(l2=NaN)", made("Adam", l2=float("nan")), "l2=nan", "expected")

    def fit_with_ema(folder):
        keras = start()
        import numpy as np

        from darts_tf import spaces
        from darts_tf.methods.optimizers import SGD
        from darts_tf.spaces.cells.derived import cifar_network

        network = cifar_network(spaces.from_text(GENOTYPE), 2, 3, 3, (8, 8, 1), auxiliary=True)
        optimizer = SGD(0.05, use_ema=True)
        network.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
        network.fit(*pair()[0], epochs=2, verbose=0)
        averages = numbers(optimizer._model_variables_moving_average)
        pairs = zip(numbers(network.trainable_variables), averages, strict=True)
        return None if all(np.array_equal(a, b) for a, b in pairs) else "the weights are not the averages"

    yield python("a training with averaged weights ends with the averages", fit_with_ema)


def compiled():
    """Optimizers that a search cannot use, and those that it can."""

    def attempt(options, search=None):
        def call(folder):
            keras = start()
            searched(**{name: make(keras) for name, make in options.items()}, **(search or {}))

        return call

    def scaling(keras):
        return keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1))

    yield refused("a search with LossScaleOptimizer", attempt({"optimizer": scaling}), "LossScaleOptimizer", "expected")
    yield refused("alpha with LossScaleOptimizer", attempt({"arch_optimizer": scaling}), "LossScale", "expected")
    for role, averaged in (("optimizer", "weight_variables"), ("arch_optimizer", "arch_variables")):

        def averages(folder, role=role, averaged=averaged):
            keras = start()
            search = searched(**{role: keras.optimizers.Adam(use_ema=True)})
            wrong = fitted(search, epochs=2)
            variables = numbers(getattr(search.network, averaged))
            means = numbers(getattr(search, role)._model_variables_moving_average)
            same = all((a == b).all() for a, b in zip(variables, means, strict=True))
            return wrong or (None if same else f"{averaged} are not the averages")

        yield python(f"a search whose {role} averages", averages)
    steps = {"optimizer": lambda keras: keras.optimizers.SGD(gradient_accumulation_steps=2)}
    yield refused("gradients accumulated in second order", attempt(steps), "gradient_accumulation_steps", "expected")

    def one_for_both(folder):
        keras = start()
        optimizer = keras.optimizers.Adam()
        searched(optimizer=optimizer, arch_optimizer=optimizer)

    yield refused("one optimizer for weights and alpha", one_for_both, "arch_optimizer", "expected")

    def same(name, role, make):
        """A scale cancels."""

        def call(folder):
            import numpy as np

            start()
            import keras

            from darts_tf.methods import optimizers

            found = []
            for scaled in (False, True):
                keras.utils.set_random_seed(1)
                search = searched(**{role: make(optimizers, scaled)})
                wrong = fitted(search)
                if wrong:
                    return wrong
                found.append(numbers(search.network.variables))
            pairs = zip(*found, strict=True)
            return None if all(np.allclose(a, b, atol=1e-5) for a, b in pairs) else "the scale changes the search"

        return python(name, call)

    yield same(
        "weights with loss_scale_factor",
        "optimizer",
        lambda module, scaled: module.SGD(0.05, loss_scale_factor=1024.0 if scaled else None),
    )
    yield same(
        "alpha with loss_scale_factor",
        "arch_optimizer",
        lambda module, scaled: module.SGD(0.05, loss_scale_factor=1024.0 if scaled else None),
    )
    yield same("alpha with loss_scale", "arch_optimizer", lambda module, scaled: module.SGD(0.05, loss_scale=scaled))

    def kinds(name, **options):
        def call(folder):
            start()
            return fitted(searched(**options))

        return python(f"a search with {name}", call)

    yield kinds("optimizers by name", optimizer="sgd", arch_optimizer="adam")
    yield kinds("RMSprop for both", optimizer="rmsprop", arch_optimizer="rmsprop")

    def scheduled(folder):
        keras = start()
        from darts_tf.methods.optimizers import SGD

        rate = keras.optimizers.schedules.CosineDecay(0.05, 10)
        return fitted(searched(optimizer=SGD(rate), arch_optimizer=SGD(lambda: 0.01)))

    yield python("a search with a schedule and a function as learning rates", scheduled)


def counts():
    """Multiplications of models that are not made of the usual."""

    def attempt(name, make, expected):
        def call(folder):
            keras = start()
            from darts_tf.costs import counts

            found = counts.multiply_adds(make(keras, keras.layers))
            return None if found == expected else f"{found} multiplications, expected {expected}"

        return python(f"multiplications of {name}", call)

    def sequence(shape, layer):
        return lambda keras, layers: keras.Sequential([keras.Input(shape), layer(layers)])

    yield attempt("Conv1D", sequence((10, 3), lambda layers: layers.Conv1D(4, 3)), 8 * 36)
    yield attempt("Conv3D", sequence((5, 6, 7, 2), lambda layers: layers.Conv3D(4, 3, padding="same")), 210 * 216)
    yield attempt("Conv2DTranspose", sequence((4, 5, 3), lambda layers: layers.Conv2DTranspose(6, 3, 2)), 20 * 162)
    yield attempt(
        "SeparableConv1D", sequence((10, 4), lambda layers: layers.SeparableConv1D(6, 3, padding="same")), 360
    )
    yield attempt("EinsumDense", sequence((5, 4), lambda layers: layers.EinsumDense("...x,xy->...y", 6)), 120)
    yield attempt("a recurrent layer", sequence((5, 4), lambda layers: layers.LSTM(6)), None)
    yield attempt("a recurrence written out", sequence((5, 4), lambda layers: layers.GRU(6, unroll=True)), 5 * 180)
    yield attempt(
        "a grouped convolution", sequence((7, 9, 4), lambda layers: layers.Conv2D(6, 3, padding="same", groups=2)), 6804
    )
    yield attempt(
        "a dilated convolution of an odd image",
        sequence((7, 7, 4), lambda layers: layers.DepthwiseConv2D(3, padding="same", dilation_rate=2)),
        1764,
    )
    yield attempt("images of any size", sequence((None, None, 3), lambda layers: layers.Conv2D(4, 3)), None)

    def twice(keras, layers):
        images, dense = keras.Input((4,)), layers.Dense(4)
        return keras.Model(images, dense(dense(images)))

    yield attempt("a layer used twice", twice, 32)

    def attention(keras, layers):
        words = keras.Input((6, 8))
        return keras.Model(words, layers.MultiHeadAttention(2, 4)(words, words))

    yield attempt("attention", attention, 2112)

    def own(keras, layers):
        class Own(layers.Layer):
            def build(self, shape):
                self.matrix = self.add_weight(shape=(shape[-1], 5))

            def call(self, x):
                return x @ self.matrix

        return keras.Sequential([keras.Input((4,)), Own()])

    yield attempt("a layer of the user's", own, 20)


def networks():
    """Derived networks that are saved, copied and trained on."""

    def auxiliary(keras, **options):
        from darts_tf import spaces
        from darts_tf.methods.optimizers import SGD
        from darts_tf.spaces.cells.derived import cifar_network

        network = cifar_network(
            spaces.from_text(GENOTYPE), 2, 3, 3, (8, 8, 1), auxiliary=True, drop_path=True, **options
        )
        network.auxiliary_weight = 0.25
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        network.compile(SGD(0.05), loss, metrics=["accuracy"], jit_compile=False)
        network.fit(*pair()[0], verbose=0)
        return network

    def saved(folder):
        keras = start()
        import numpy as np

        network = auxiliary(keras)
        network.save(folder / "network.keras")
        loaded = keras.models.load_model(folder / "network.keras")
        if loaded.auxiliary_weight != 0.25:
            return f"auxiliary_weight={loaded.auxiliary_weight}"
        ours, theirs = (model.evaluate(*pair()[1], verbose=0) for model in (network, loaded))
        if not np.allclose(ours, theirs, atol=1e-6):
            return f"{ours}, loaded {theirs}"
        for model in (network, loaded):
            model.fit(*pair()[0], verbose=0)
        return None

    yield python("a network with an auxiliary head, saved and loaded", saved)

    def untouched(precision, make):
        def call(folder):
            keras = start(precision=precision)
            import numpy as np

            from darts_tf.spaces import models

            network = auxiliary(keras)
            before = [layer.compute_dtype for layer in network.layers], numbers(network.variables)
            made = make(models, network)
            made.compile("sgd", "mse", jit_compile=False)
            made.fit(pair()[0][0], np.zeros([6, made.output_shape[-1]]), verbose=0)
            after = [layer.compute_dtype for layer in network.layers], numbers(network.variables)
            if before[0] != after[0]:
                return "the precision of the argument changed"
            pairs = zip(before[1], after[1], strict=True)
            return None if all((a == b).all() for a, b in pairs) else "the weights of the argument changed"

        return call

    for precision in ("float32", "bfloat16"):
        yield python(
            f"inference_model leaves its argument as it is, {precision}",
            untouched(precision, lambda models, network: models.inference_model(network)),
        )
        yield python(
            f"with_new_classes leaves its argument as it is, {precision}",
            untouched(
                precision,
                lambda models, network: models.with_new_classes(models.inference_model(network), 4, ([0], [1])),
            ),
        )

    for name, options in {
        "two cells": {"layers": 2},
        "no channels": {"channels": 0},
        "half a channel": {"channels": 2.5},
        "no nodes": {"nodes": 0},
        "no classes": {"num_classes": 0},
        "a negative number of classes": {"num_classes": -3},
        "no stem": {"stem_multiplier": 0},
        "no operations": {"primitives": []},
        "an operation twice": {"primitives": ["skip_connect", "skip_connect"]},
    }.items():

        def call(folder, options=options):
            start()
            from darts_tf import SearchNetwork

            SearchNetwork(**options)

        yield refused(f"a supernet of {name}", call, f"{next(iter(options))}=", "expected")

    for channels in (1, 3, 5):

        def odd(folder, channels=channels):
            start()
            return fitted(searched(channels=channels, nodes=2), batches(size=(9, 13, 2)))

        yield python(f"a supernet of {channels} channels on images of 9x13", odd)

    def small(folder):
        start()
        return fitted(searched(nodes=2), batches(size=(4, 4, 1)))

    yield python("images of 4x4", small)


def devices():
    """Each image counts once, whatever the number of devices."""

    def equal(count, kind):
        def call(folder):
            keras = start(cpu_devices=count)
            import numpy as np

            from darts_tf import spaces
            from darts_tf.data import datasets
            from darts_tf.devices import replicas
            from darts_tf.devices.cluster import ALONE
            from darts_tf.spaces.cells.derived import cifar_network

            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            pairs, size = [], 2 * count
            for strategy in (replicas.strategy("none"), replicas.strategy("mirrored")):
                with strategy.scope():
                    keras.utils.set_random_seed(1)
                    if kind == "training":
                        model = cifar_network(spaces.from_text(GENOTYPE), 2, 3, 3, (8, 8, 1))
                        model.compile("sgd", loss, metrics=["accuracy"], jit_compile=False)
                    else:
                        model = searched()
                        model.create_variables(*(np.asarray(part) for part in pair()[0]))
                pairs.append((strategy, model))
            (x, y), _ = pair(batch=2 * size)
            for images in range(count, 2 * size + 1):
                found = []
                for strategy, model in pairs:
                    valid = datasets.evaluation_batches(x[:images], y[:images], size, devices=count)
                    found.append(model.evaluate(replicas.feed(strategy, valid, ALONE), verbose=0))
                if not np.allclose(*found, atol=1e-5):
                    return f"of {images} images: {found}"
            return None

        return python(f"validation of a {kind} on {count} devices", call)

    for count in (2, 3):
        for kind in ("training", "search"):
            yield equal(count, kind)

    def split(images):
        def prepare(folder):
            import numpy as np

            draw = np.random.default_rng(0)
            x, y = draw.integers(0, 255, (images, 8, 8, 1)).astype(np.uint8), np.arange(images) % 3
            np.savez(folder / "data.npz", x_train=x, y_train=y, x_test=x[:7], y_test=y[:7])

        return prepare

    small = ["--layers=3", "--init_channels=4", "--epochs=1", "--output=run"]
    for count, images, portion in ((2, 37, 0.5), (2, 33, 0.97), (3, 40, 0.5)):
        enough = images - round(portion * images) >= count
        yield Attempt(
            f"a training on {count} devices that validates on {images - round(portion * images)} images",
            [
                *("darts_tf.train", f"--arch={GENOTYPE}", "--strategy=mirrored", f"--cpu_devices={count}"),
                *("--dataset=data.npz", f"--train_portion={portion}", "--batch_size=6", *small),
            ],
            prepare=split(images),
            ends=(0,) if enough else (2,),
            says="test accuracy" if enough else "are fewer than",
        )
        yield Attempt(
            f"a search on {count} devices that validates on {images - round(portion * images)} of {images} images",
            [
                *("darts_tf.search", "--strategy=mirrored", f"--cpu_devices={count}", "--dataset=data.npz"),
                *(f"--train_portion={min(portion, 0.7)}", "--batch_size=6", "--nodes=1"),
                *("--primitives=skip_connect,max_pool_3x3", *small),
            ],
            prepare=split(images),
            ends=(0,),
            says="Saved",
        )
    yield Attempt(
        "two machines that validate on 19 images",
        [
            "bash",
            "-c",
            'for i in 0 1; do export TF_CONFIG=\'{"cluster": {"worker": ["localhost:29411", "localhost:29412"]}, '
            '"task": {"type": "worker", "index": \'$i\'}}\'; $PYTHON -m darts_tf.train "$@" & done; '
            "wait -n && wait -n",
            "bash",
            *(f"--arch={GENOTYPE}", "--strategy=multi_worker", "--dataset=data.npz", "--train_portion=0.5"),
            *("--batch_size=4", *small),
        ],
        prepare=split(37),
        ends=(0,),
        says="test accuracy",
        timeout=300,
    )


def commands():
    """Sizes at the edge, by the commands."""

    def sized(height, width, images=40, classes=3):
        def prepare(folder):
            import numpy as np

            draw = np.random.default_rng(0)
            x = draw.integers(0, 255, (images, height, width, 1)).astype(np.uint8)
            y = np.arange(images) % classes
            np.savez(folder / "data.npz", x_train=x, y_train=y, x_test=x[:7], y_test=y[:7])

        return prepare

    own = ["darts_tf.search", *B, "--dataset=data.npz", "--epochs=1", "--batch_size=4", "--output=run"]
    done = {"ends": (0,), "says": "Saved"}
    yield Attempt("a search on images of 8x8", own, prepare=sized(8, 8), **done)
    yield Attempt("a search on images of 9x13", own, prepare=sized(9, 13), **done)
    yield Attempt("a search on images of 17x8", own, prepare=sized(17, 8), **done)
    yield Attempt("a search on images of 7x8", own, prepare=sized(7, 8), says="error: --dataset=data.npz: .*expected")
    yield Attempt("a search of one class", own, prepare=sized(8, 8, classes=1), says="error: --dataset.*expected")
    yield Attempt("a search with batches of one image", [*own, "--batch_size=1"], prepare=sized(8, 8), **done)
    yield Attempt(
        "a search with batches larger than the data",
        [*own, "--batch_size=100"],
        prepare=sized(8, 8),
        says="error: --batch_size=100.*expected",
    )
    yield Attempt("a search of one node", [*own, "--nodes=1"], prepare=sized(8, 8), **done)
    yield Attempt("a search of 2 channels", [*own, "--init_channels=2"], prepare=sized(8, 8), **done)
    yield Attempt("a search of one channel", [*own, "--init_channels=1"], prepare=sized(8, 8), says="error: .*channels")
    yield Attempt("a search of 3 channels", [*own, "--init_channels=3"], prepare=sized(8, 8), says="expected an even")
    yield Attempt("a search of two cells", [*own, "--layers=2"], prepare=sized(8, 8), says="error: .*layers")
    for precision in ("bfloat16", "float16"):
        yield Attempt(
            f"a search in {precision} of 6 channels on 9x13",
            [*own, f"--precision={precision}", "--init_channels=6", "--unrolled"],
            prepare=sized(9, 13),
            **done,
        )
        yield Attempt(
            f"a training in {precision} of 5 channels on 9x13",
            [
                *("darts_tf.train", f"--arch={GENOTYPE}", "--dataset=data.npz", "--epochs=1", "--batch_size=4"),
                *("--output=run", "--layers=3", "--init_channels=5", "--auxiliary", f"--precision={precision}"),
            ],
            prepare=sized(9, 13),
            ends=(0,),
            says="test accuracy",
        )
    yield Attempt("a search by XLA", [*own, "--jit_compile", "--nodes=1"], prepare=sized(8, 8), timeout=240, **done)
    for layers in (1, 2):
        yield Attempt(
            f"a training of {layers} cells with an auxiliary head",
            [
                *("darts_tf.train", f"--arch={GENOTYPE}", "--dataset=data.npz", "--epochs=1", "--batch_size=4"),
                *("--output=run", f"--layers={layers}", "--init_channels=2", "--auxiliary", "--train_portion=0.5"),
            ],
            prepare=sized(8, 8),
            ends=(0,),
            says="test accuracy",
        )


def keras_users():
    """A search as any Keras model."""

    def user(name):
        return lambda function: made.append(python(f"a user of Keras: {name}", function))

    made = []

    @user("validation_data")
    def _(folder):
        start()
        search = searched()
        wrong = fitted(search, validation_data=pair()[1], epochs=2)
        return wrong or (None if "val_accuracy" in search.history.history else "no val_accuracy")

    @user("evaluate before fit")
    def _(folder):
        start()
        search = searched()
        loss, _ = search.evaluate(*pair()[0], verbose=0)
        return fitted(search) if 0 < loss < 10 else f"loss {loss}"

    @user("predict before fit")
    def _(folder):
        start()
        search = searched()
        shape = search.predict(pair()[0][0], verbose=0).shape
        return fitted(search) if shape == (6, 3) else f"{shape}"

    def continued(unrolled, optimizer=None):
        def call(folder):
            keras = start()
            search = searched(unrolled=unrolled, optimizer=optimizer)
            wrong = fitted(search)
            search.save(folder / "search.keras")
            loaded = keras.models.load_model(folder / "search.keras")
            for role in ("optimizer", "arch_optimizer"):
                ours, theirs = (numbers(getattr(model, role).variables) for model in (search, loaded))
                if not all((a == b).all() for a, b in zip(ours, theirs, strict=True)):
                    return f"another state of the {role}"
            wrong = wrong or fitted(search) or fitted(loaded)
            pairs = zip(numbers(search.network.variables), numbers(loaded.network.variables), strict=True)
            return wrong or (None if all((a == b).all() for a, b in pairs) else "it goes on apart")

        return python(f"a user of Keras: saved and loaded, unrolled={unrolled}, {optimizer}", call)

    made += [continued(False), continued(True), continued(True, "adam")]

    @user("train_on_batch and test_on_batch")
    def _(folder):
        start()
        search = searched()
        losses = [search.train_on_batch(*pair())[0] for _ in range(3)]
        search.test_on_batch(*pair()[0])
        return None if losses[-1] < losses[0] else f"{losses}"

    for steps in (2, 5):

        @user(f"steps_per_execution={steps} of 3 steps")
        def _(folder, steps=steps):
            start()
            search = searched(compiled={"steps_per_execution": steps})
            wrong = fitted(search, batches(3))
            count = int(search.optimizer.iterations)
            return wrong or (None if count == 3 else f"{count} steps, expected 3")

    @user("callbacks of all kinds")
    def _(folder):
        keras = start()
        callbacks = [
            keras.callbacks.EarlyStopping("val_loss", patience=1, restore_best_weights=True),
            keras.callbacks.ModelCheckpoint(folder / "best.keras", save_best_only=True),
            keras.callbacks.ModelCheckpoint(folder / "last.weights.h5", save_weights_only=True),
            keras.callbacks.ReduceLROnPlateau("val_loss", patience=0, factor=0.5, min_delta=100),
            keras.callbacks.CSVLogger(folder / "log.csv"),
            keras.callbacks.TerminateOnNaN(),
        ]
        search = searched()
        wrong = fitted(search, callbacks=callbacks, validation_data=pair()[1], epochs=3)
        loaded = keras.models.load_model(folder / "best.keras")
        loaded.load_weights(folder / "last.weights.h5")
        rate = float(search.optimizer.learning_rate)
        return wrong or fitted(loaded) or (None if rate < 0.05 else f"the rate is still {rate}")

    @user("BackupAndRestore")
    def _(folder):
        keras = start()
        search = searched()
        backup = keras.callbacks.BackupAndRestore(folder / "backup", delete_checkpoint=False)
        wrong = fitted(search, callbacks=[backup], epochs=2)
        again = searched()
        again.create_variables(*next(iter(batches()))[0])
        seen = []
        watch = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: seen.append(epoch))
        backup = keras.callbacks.BackupAndRestore(folder / "backup", delete_checkpoint=False)
        wrong = wrong or fitted(again, callbacks=[backup, watch], epochs=3)
        return wrong or (None if seen == [2] else f"epochs {seen}, expected the third alone")

    for unrolled in (False, True):

        @user(f"run_eagerly, unrolled={unrolled}")
        def _(folder, unrolled=unrolled):
            start()
            return fitted(searched(unrolled=unrolled, compiled={"run_eagerly": True}))

    @user("save_weights and load_weights")
    def _(folder):
        start()
        search, other = searched(), searched()
        wrong = fitted(search) or fitted(other)
        search.save_weights(folder / "search.weights.h5")
        other.load_weights(folder / "search.weights.h5")
        pairs = zip(numbers(search.network.variables), numbers(other.network.variables), strict=True)
        return wrong or (None if all((a == b).all() for a, b in pairs) else "other weights")

    @user("one-hot labels")
    def _(folder):
        keras = start()
        data = batches().map(lambda *parts: tuple((x, keras.ops.one_hot(y, 3)) for x, y in parts))
        return fitted(searched(loss=keras.losses.CategoricalCrossentropy(from_logits=True)), data)

    @user("a last batch that is smaller")
    def _(folder):
        start()
        return fitted(searched(), batches(1).concatenate(batches(1, batch=2)))

    @user("a second fit with another size of images")
    def _(folder):
        start()
        search = searched()
        return fitted(search) or fitted(search, batches(size=(11, 9, 1)))

    @user("a summary")
    def _(folder):
        start()
        search = searched()
        wrong = fitted(search)
        search.summary()
        return wrong

    @user("compiled twice")
    def _(folder):
        start()
        search = searched()
        wrong = fitted(search)
        again = searched()
        search.compile(again.optimizer, again.loss, arch_optimizer=again.arch_optimizer, jit_compile=False)
        return wrong or fitted(search)

    @user("arrays")
    def _(folder):
        start()
        return fitted(searched(), pair()[0][0], y=pair()[0][1], batch_size=2, epochs=2, validation_split=0.2)

    @user("arrays of NumPy's type, alpha's beside them")
    def _(folder):
        start()
        (x, y), (arch_x, arch_y) = pair()
        data = {"y": y.astype("int64"), "arch_data": (arch_x.astype("float64"), arch_y[:, None])}
        return fitted(searched(), x.astype("float64"), **data)

    @user("datasets beside each other, alpha's the shorter one")
    def _(folder):
        start()
        return fitted(searched(), batches(3).map(lambda t, v: t), arch_data=batches(1).map(lambda t, v: v))

    def weighted(**options):
        def call(folder):
            keras = start()
            import numpy as np

            (x, y), _ = pair()
            found = []
            for one in (options, {"sample_weight": np.where(y == 0, 2.0, 1.0)}):
                keras.utils.set_random_seed(1)
                search = searched()
                wrong = fitted(search, x, y=y, batch_size=2, **one)
                if wrong:
                    return wrong
                found.append(numbers(search.network.variables))
            pairs = zip(*found, strict=True)
            return None if all((a == b).all() for a, b in pairs) else "other weights of samples, another search"

        return call

    made.append(python("a user of Keras: class weights are sample weights", weighted(class_weight={0: 2.0})))

    @user("sample weights of batches")
    def _(folder):
        start()
        return fitted(searched(), batches().map(lambda t, v: ((*t, t[1]), v)))

    def wrongly(name, fit, *words):
        def call(folder):
            start()
            fit(searched())

        made.append(refused(f"a user of Keras: {name}", call, *words))

    wrongly(
        "batches that are no pairs", lambda search: search.fit(batches().map(lambda t, v: t), verbose=0), "arch_data"
    )
    wrongly("arrays without labels", lambda search: search.fit(pair()[0][0], verbose=0), "x and y", "expected")
    wrongly("a generator", lambda search: search.fit(iter(batches()), verbose=0), "Iterator", "expected")
    wrongly("one image", lambda search: search.fit(*(a[:1] for a in pair()[0]), verbose=0), "arch_split", "expected")
    wrongly("a loss of probabilities", lambda search: search.compile("sgd", "ce"), "logits", "from_logits=True")
    wrongly(
        "the order of arguments that was",
        lambda search: search.compile(search.optimizer, search.arch_optimizer, search.loss),
        "arch_optimizer",
        "expected",
    )
    wrongly("images without labels", lambda search: search.fit(batches().map(lambda t, v: (t[0], v[0]))), "expected")
    wrongly("train_on_batch with a batch", lambda search: search.train_on_batch(*pair()[0]), "expected")
    wrongly("validation_split", lambda search: search.fit(batches(), validation_split=0.5), "validation_split")
    wrongly(
        "class weights and sample weights",
        lambda search: search.fit(batches().map(lambda t, v: ((*t, t[1]), v)), class_weight={0: 2.0}, verbose=0),
        "class_weight",
        "expected",
    )
    yield from made
