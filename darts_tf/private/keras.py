"""What is used of Keras that is not public."""

import io

import keras
import tensorflow as tf


def producer(tensor):
    """The layer or operation of which a tensor of a functional model is the result.

    Private: `KerasTensor._keras_history`, of Keras 3.15.1.

    Args:
        tensor: `keras.KerasTensor`.
    """
    return tensor._keras_history.operation


def layers_within(layer):
    """A layer and all layers within it, at any depth, those of models too.

    Private: `Layer._flatten_layers`, of Keras 3.15.1.

    Args:
        layer: `keras.layers.Layer`, a model for example.

    Returns:
        List of layers, each before those within it. What is saved of a `SearchNetwork` counts in this order.
    """
    return layer._flatten_layers()


def weights_file(model):
    """What `model.save_weights` writes to a `.weights.h5` file, in memory: on a full disk HDF5 itself crashes.

    Private: `keras.src.saving.saving_lib`, its `H5IOStore` and `_save_state`, of Keras 3.15.1.

    Args:
        model: `keras.Model`.

    Returns:
        bytes.
    """
    from keras.src.saving import saving_lib

    content = io.BytesIO()
    store = saving_lib.H5IOStore(content, mode="w")
    saving_lib._save_state(model, weights_store=store, assets_store=None, inner_path="", visited_saveables=set())
    store.close()
    return content.getvalue()


class ModelHooks(keras.Model):
    """A Keras model that says itself whether Keras may build it from the first batch that it trains or evaluates on.

    Under a distribution strategy Keras makes the variables that are missing yet. It takes batches for
    (x, y, sample_weight), and averages those of all replicas to do so.

    Private: `Model._maybe_symbolic_build`, of Keras 3.15.1.
    """

    def is_built_by_keras(self):
        """Whether Keras may do so."""
        return True

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        if self.is_built_by_keras():
            super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)


class GradientHooks:
    """For optimizers, before the Keras optimizer among the bases: what is done to gradients before `update_step`.

    Keras clips what each replica has and then adds gradients up. Here they are first added up and then clipped.

    Keras decays all variables before a step, and makes a step of several batches under a condition, where replicas
    cannot exchange anything. Here `update_step` is called for each batch, has to know whether there is a step, and
    decays.

    Private: `Optimizer._clip_gradients`, `_all_reduce_sum_gradients`, `_apply_weight_decay`, `_backend_update_step`,
    `_backend_apply_gradients`, `_update_model_variables_moving_average`,
    `_overwrite_model_variables_with_average_value`, `_trainable_variables`, `_accumulated_gradients` and `_iterations`,
    of Keras 3.15.1.
    """

    @property
    def batches(self):
        """How many have been applied, a variable."""
        return self._iterations

    @property
    def accumulated(self):
        """Of `gradient_accumulation_steps`: a variable for each that is trained."""
        return self._accumulated_gradients

    def add_up(self, gradients):
        """The sums of gradients, a list of tensors, over the replicas; a subclass has to say how."""
        raise NotImplementedError

    def clip(self, gradients):
        """Gradients, a list of tensors, as `update_step` is to have them; as Keras clips them by default."""
        return super()._clip_gradients(gradients)

    def _clip_gradients(self, gradients):
        return self.clip(self.add_up(gradients))

    def _all_reduce_sum_gradients(self, gradients_and_variables):
        return gradients_and_variables

    def _apply_weight_decay(self, variables):
        pass

    def _backend_apply_gradients(self, gradients, variables):
        if not self.gradient_accumulation_steps:
            super()._backend_apply_gradients(gradients, variables)
            return
        self._backend_update_step(self._clip_gradients(gradients), variables, self.learning_rate)
        if self.use_ema:
            self._update_model_variables_moving_average(self._trainable_variables)
            if self.ema_overwrite_frequency:
                keras.ops.cond(
                    (self.iterations + 1) % self.ema_overwrite_frequency == 0,
                    lambda: self._overwrite_model_variables_with_average_value(self._trainable_variables),
                    lambda: None,
                )

    def _backend_update_step(self, gradients, variables, learning_rate):
        # Read once, not for each variable: with hundreds of them that is seconds of start-up.
        super()._backend_update_step(gradients, variables, tf.convert_to_tensor(learning_rate))


def place_of(variable, optimizer):
    """The place of a variable in the optimizer's lists, `momentums` for example.

    Private: `Optimizer._get_variable_index`, of Keras 3.15.1.

    Args:
        variable: `keras.Variable` or `tf.Variable`, one that the optimizer was built with.
        optimizer: `keras.optimizers.Optimizer`.
    """
    return optimizer._get_variable_index(variable)


def moments_of(variable, optimizer):
    """The moments that Adam keeps of a variable's gradients: the first, the second, and with `amsgrad` the largest.

    Private: `Adam._momentums`, `_velocities` and `_velocity_hats`, of Keras 3.15.1.

    Args:
        variable: `keras.Variable` or `tf.Variable`, one that the optimizer was built with.
        optimizer: `keras.optimizers.Adam`.

    Returns:
        Three `keras.Variable`s; the last is None without `amsgrad`.
    """
    place = place_of(variable, optimizer)
    largest = optimizer._velocity_hats[place] if optimizer.amsgrad else None
    return optimizer._momentums[place], optimizer._velocities[place], largest


def is_decayed(variable, optimizer):
    """Whether an optimizer's `weight_decay` is for this variable, see `Optimizer.exclude_from_weight_decay`.

    Private: `Optimizer._use_weight_decay`, of Keras 3.15.1.

    Args:
        variable: `keras.Variable` or `tf.Variable`, one that the optimizer was built with.
        optimizer: `keras.optimizers.Optimizer`.
    """
    return optimizer._use_weight_decay(variable.value if isinstance(variable, keras.Variable) else variable)


def forget_losses(layer):
    """Takes back what `add_loss` has added to a layer since it was called.

    Private: `Layer._clear_losses`, of Keras 3.15.1.
    """
    layer._clear_losses()
