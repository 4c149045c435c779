import numpy as np
import tensorflow as tf
from original import relative_error

from darts_tf.methods import perturbations

EXACT = 1e-9


def cases(path):
    arrays = np.load(path)
    found = sorted({name.split("/")[1] for name in arrays.files if name.startswith("sdarts/")})
    assert found
    for case in found:
        prefix = f"sdarts/{case}/"
        yield {name.removeprefix(prefix): arrays[name] for name in arrays.files if name.startswith(prefix)}


def tables(array):
    return {kind: tf.constant(values, tf.float64) for kind, values in zip(("normal", "reduce"), array, strict=True)}


def both(mixture):
    return np.stack(list(mixture.values()))


def test_perturbations(losses_file, monkeypatch):
    for case in cases(losses_file):
        start, noise = tables(case["start"]), tables(case["noise"])
        candidates = {kind: np.ones(table.shape, bool) for kind, table in start.items()}
        quadratic, linear = (tf.constant(case[name], tf.float64) for name in ("Q", "c"))

        def loss(mixture, quadratic=quadratic, linear=linear):
            p = tf.concat([tf.reshape(table, [-1]) for table in mixture.values()], 0)
            return tf.tensordot(p, 0.5 * tf.linalg.matvec(quadratic, p) + linear, 1)

        epsilon, steps = tf.constant(case["epsilon"], tf.float64), int(case["steps"])
        started = noise if case["random_start"] else None
        adversarial = perturbations.Adversarial()
        adversarial.steps = steps
        step = perturbations.ascending(start, candidates, loss, epsilon, steps)
        trajectory = [adversarial.start(start, candidates, started)]
        for _ in range(steps):
            trajectory.append(step(trajectory[-1]))
        assert relative_error([both(mixture) for mixture in trajectory], case["trajectory"]) < EXACT
        assert relative_error(loss(start), case["loss_before"]) < EXACT
        assert relative_error(loss(trajectory[-1]), case["loss_after"]) < EXACT

        result = adversarial.attacked(start, candidates, loss, epsilon, started)
        assert relative_error(both(result), case["result"]) < EXACT
        assert bool(case["restored"]) == bool(np.allclose(both(result), case["start"]))

        monkeypatch.setattr(perturbations, "_draw", lambda *arguments, noise=noise: noise)
        result = perturbations.get("random")(start, candidates, loss, epsilon, None)
        assert relative_error(both(result), case["random"]) < EXACT
