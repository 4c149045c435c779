import json

import numpy as np

from darts_tf.methods import guards


def test_stops_of_robust_darts(robust_file):
    stored = json.loads(robust_file.with_suffix(".json").read_text())
    logged = [(run, stored["logged_parameters"]) for run in stored["logged"]]
    runs = [*logged, *((run, run["parameters"]) for run in stored["synthetic"])]
    stopped = 0
    for run, named in runs:
        total, window, frequency = (named[name] for name in ("total_epochs", "window", "ev_freq"))
        averages, middles = guards.local_averages(run["epochs"], run["eigenvalues"], total, window, frequency)
        assert np.allclose(averages, run["ev_local_avg"], 1e-9, 0)
        assert {str(epoch): middle for epoch, middle in middles.items()} == run["la_epochs"]

        def stop(count, run=run, named=named, total=total, window=window, frequency=frequency):
            return guards.sharpness(
                run["epochs"][:count],
                run["eigenvalues"][:count],
                total,
                window,
                frequency,
                named["factor"],
                named["es_start_epoch"],
                named["delta"],
            )

        found = stop(len(run["epochs"]))
        assert bool(found) == run["stop"]
        assert (found.epoch if found else total - 1) == run["stop_epoch"] == run["genotype_of_epoch"]
        assert (found and found.noticed) == run["noticed_at_epoch"]
        stopped += run["stop"]
        if found:  # not before it can be told
            place = run["epochs"].index(found.noticed)
            assert stop(place) is None and stop(place + 1) == found
    assert 0 < stopped < len(runs)
