"""LARS, the optimizer of the papers' large batches."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_ssl")
class LARS(keras.optimizers.Optimizer):
    """Layer-wise adaptive rate scaling: momentum SGD whose step is in proportion to each weight's own size.

    For a weight w with the gradient g: `d = (g + wd·w) · η·|w| / (|g| + wd·|w|)`, then `m ← µ·m + d`, `w ← w − lr·m`.
    Where |w| or |g| is zero, `d = g`. Biases and the weights of normalisation are excluded: they get neither decay nor
    scaling, which is `m ← µ·m + g`.

    A learning rate for LARS is no learning rate for Adam: recipes scale it with the batch, such as
    `0.2 · batch_size / 256` (BYOL), and warm it up.

    Args:
        learning_rate: a number or a schedule.
        momentum: µ, in [0, 1).
        weight_decay: wd, 0 or more, as a part of the gradient (not decoupled).
        trust_coefficient: η, above 0.
        nesterov: step by `d + µ·m`.
        exclude: variables with this many axes or fewer are excluded: 1 for biases and normalisation, −1 for none.
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
        epsilon=1e-8,
        name="lars",
        **kwargs,
    ):
        # weight_decay stays here: handed to Keras it would be applied once more, to all variables and decoupled.
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        if not 0.0 <= momentum < 1.0:
            raise ValueError(f"LARS: `momentum` must lie in [0, 1); it is {momentum!r}.")
        if not 0.0 <= weight_decay < float("inf"):
            raise ValueError(f"LARS: `weight_decay` must be 0 or more; it is {weight_decay!r}.")
        if not 0.0 < trust_coefficient < float("inf"):
            raise ValueError(f"LARS: `trust_coefficient` must be above 0; it is {trust_coefficient!r}.")
        if not isinstance(exclude, int):
            raise ValueError(f"LARS: `exclude` is a number of axes, −1 for no exclusion; it is {exclude!r}.")
        self.momentum = momentum
        self.decay = weight_decay
        self.trust_coefficient = trust_coefficient
        self.nesterov = nesterov
        self.exclude = exclude
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
        slot = self._momentums[self._get_variable_index(variable)]
        momentum = self.momentum * ops.convert_to_tensor(slot) + gradient
        self.assign(slot, momentum)
        self.assign_sub(variable, rate * (gradient + self.momentum * momentum if self.nesterov else momentum))

    def _scaled(self, gradient, weight):
        size, slope = _norm(weight), _norm(gradient)
        trust = self.trust_coefficient * size / (slope + self.decay * size + self.epsilon)
        moves = ops.logical_and(size > 0.0, slope > 0.0)
        return ops.where(moves, (gradient + self.decay * weight) * ops.cast(trust, weight.dtype), gradient)

    def exclude_from_weight_decay(self, var_list=None, var_names=None):
        """Refused: Keras' decay is another one. `exclude` says which variables are scaled and decayed."""
        raise ValueError(
            "LARS: exclude_from_weight_decay is of Keras' decoupled decay; here `exclude` is a number of axes."
        )

    def get_config(self):
        names = ("momentum", "trust_coefficient", "nesterov", "exclude", "epsilon")
        config = {**super().get_config(), **{name: getattr(self, name) for name in names}}
        return {**config, "weight_decay": self.decay}


def _norm(x):
    return ops.sqrt(ops.sum(ops.square(ops.cast(x, "float32"))))
