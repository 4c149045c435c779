"""Attempts against the way a run counts its steps."""

from benchmarks.abuse import Attempt, B


def attempts():
    """Yields all of them."""

    def epochs_of_22_steps(folder, stdout, stderr):
        last = max(path.name for path in (folder / "run" / "checkpoints").iterdir())
        return None if last == "step-00000044.npz" else f"the last checkpoint is {last}, expected step-00000044.npz"

    for value in (1, 7, 21, 22, 23, 44, 1000):
        yield Attempt(
            f"a search with --steps_per_execution={value}",
            ["darts_tf.search", *B, "--epochs=2", f"--steps_per_execution={value}", "--output=run"],
            ends=(0,),
            check=epochs_of_22_steps,
        )
