"""LARS, the optimizer of the papers' large batches."""

import keras
from keras import ops

from keras_ssl.keras_compat import variable_index


@keras.saving.register_keras_serializable("keras_ssl")
class LARS(keras.optimizers.Optimizer):
    """Layer-wise adaptive rate scaling: momentum SGD whose step is in proportion to each weight's own size.

    For a weight w with the gradient g: `d = (g + wd·w) · η·|w| / (|g| + wd·|w|)`, then `m ← µ·m + d`, `w ← w − lr·m`.
    Where |w| or |g| is zero, `d = g`. Biases and the weights of normalization are excluded: they get neither decay nor
    scaling, which is `m ← µ·m + g`.

    A learning rate for LARS is no learning rate for Adam: recipes scale it with the batch, such as
    `0.2 · batch_size / 256` (BYOL), and warm it up.

    Args:
        learning_rate: a number or a schedule.
        momentum: µ, in [0, 1).
        weight_decay: wd, 0 or more, as a part of the gradient (not decoupled); or a
            `keras.optimizers.schedules.LearningRateSchedule` of the optimizer step.
        trust_coefficient: η, above 0.
        nesterov: step by `d + µ·m`.
        exclude: variables with this many axes or fewer are excluded: 1 for biases and normalization, −1 for none.
        excluded_rate: the learning rate of excluded variables as a multiple of the others', 0 or more. Barlow Twins:
            0.0048 / 0.2.
        epsilon: added to the denominator.
        **kwargs: of `keras.optimizers.Optimizer`, such as `clipnorm`.

    Reference: You et al., "Large Batch Training of Convolutional Networks", 2017, eq. 6; the exclusions are those of
    SimCLR's and BYOL's code.
    """

    def __init__(
        self,
        learning_rate=0.2,
        momentum=0.9,
        weight_decay=0.0,
        trust_coefficient=1e-3,
        nesterov=False,
        exclude=1,
        excluded_rate=1.0,
        epsilon=1e-8,
        name="lars",
        **kwargs,
    ):
        # weight_decay stays here: handed to Keras it would be applied once more, to all variables and decoupled.
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        if not 0.0 <= momentum < 1.0:
            raise ValueError(f"LARS: `momentum` must lie in [0, 1); it is {momentum!r}.")
        scheduled = isinstance(weight_decay, keras.optimizers.schedules.LearningRateSchedule)
        if not (scheduled or 0.0 <= weight_decay < float("inf")):
            raise ValueError(f"LARS: `weight_decay` must be 0 or more, or a schedule; it is {weight_decay!r}.")
        if not 0.0 < trust_coefficient < float("inf"):
            raise ValueError(f"LARS: `trust_coefficient` must be above 0; it is {trust_coefficient!r}.")
        if not isinstance(exclude, int):
            raise ValueError(f"LARS: `exclude` is a number of axes, −1 for no exclusion; it is {exclude!r}.")
        if not 0.0 <= excluded_rate < float("inf"):
            raise ValueError(f"LARS: `excluded_rate` must be 0 or more; it is {excluded_rate!r}.")
        self.momentum = momentum
        self.decay = weight_decay
        self.trust_coefficient = trust_coefficient
        self.nesterov = nesterov
        self.exclude = exclude
        self.excluded_rate = excluded_rate
        self.epsilon = epsilon

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._momentums = self.add_optimizer_variables(variables, "momentum")

    def update_step(self, gradient, variable, learning_rate):
        rate = ops.cast(learning_rate, variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        if len(variable.shape) > self.exclude:
            gradient = self._scaled(gradient, ops.convert_to_tensor(variable))
        else:
            rate = rate * self.excluded_rate
        slot = self._momentums[variable_index(self, variable)]
        momentum = self.momentum * ops.convert_to_tensor(slot) + gradient
        self.assign(slot, momentum)
        self.assign_sub(variable, rate * (gradient + self.momentum * momentum if self.nesterov else momentum))

    def _scaled(self, gradient, weight):
        size, slope = _norm(weight), _norm(gradient)
        decay = self.decay(self.iterations) if callable(self.decay) else self.decay
        trust = self.trust_coefficient * size / (slope + decay * size + self.epsilon)
        moves = ops.logical_and(size > 0.0, slope > 0.0)
        decayed = gradient + ops.cast(decay, weight.dtype) * weight
        return ops.where(moves, decayed * ops.cast(trust, weight.dtype), gradient)

    def exclude_from_weight_decay(self, var_list=None, var_names=None):
        """Refused: Keras' decay is another one. `exclude` says which variables are scaled and decayed."""
        raise ValueError(
            "LARS: exclude_from_weight_decay is of Keras' decoupled decay; here `exclude` is a number of axes."
        )

    def get_config(self):
        names = ("momentum", "trust_coefficient", "nesterov", "exclude", "excluded_rate", "epsilon")
        config = {**super().get_config(), **{name: getattr(self, name) for name in names}}
        decay = keras.saving.serialize_keras_object(self.decay) if callable(self.decay) else self.decay
        return {**config, "weight_decay": decay}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        decay = config.get("weight_decay")
        if isinstance(decay, dict):
            config = {**config, "weight_decay": keras.saving.deserialize_keras_object(decay, custom_objects)}
        return super().from_config(config, custom_objects)


def _norm(x):
    return ops.sqrt(ops.sum(ops.square(ops.cast(x, "float32"))))
