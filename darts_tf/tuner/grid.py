"""Every combination, in order."""

import math

from darts_tf.private.keras_tuner import is_tried
from darts_tf.tuner.oracle import RUNNING, STOPPED, ChoiceOracle, values_of


class GridOracle(ChoiceOracle):
    """Tries every combination of values once, the last hyperparameter's first.

    keras_tuner.oracles.GridSearchOracle does the same, but forgets where it was when it is reloaded.
    """

    _place = 0

    def populate_space(self, trial_id):
        while self._place < math.prod(len(values_of(hp)) for hp in self.hyperparameters.space):
            places, rest = {}, self._place
            for hp in reversed(self.hyperparameters.space):
                rest, places[id(hp)] = divmod(rest, len(values_of(hp)))
            self._place += 1
            values = self.assign(lambda hp, values, places=places: values[places[id(hp)]])
            if not is_tried(self, values):
                return {"status": RUNNING, "values": values}
        return {"status": STOPPED, "values": None}

    def learn(self, trial):
        pass

    def get_state(self):
        return {**super().get_state(), "place": self._place}

    def set_state(self, state):
        super().set_state(state)
        self._place = state["place"]
