"""LARS, the optimizer of the papers' large batches, and a guard against its rates with other optimizers."""

import contextlib
import warnings

import keras
from keras import ops

from keras_ssl.keras_compat import variable_index

# A step of these moves every weight by about the rate, whatever the size of the weight and of its gradient. Weights
# begin at a standard deviation of √(2 / fan-in): 0.06 for 64 channels and 3×3 pixels. From 0.05 on, a step is as large
# as the weights are. It is also the smallest peak that the papers' rules for LARS give: 0.2 · B/256 at a batch of 64.
LARS_SIZED = 0.05
_STEP_BY_RATE = (
    keras.optimizers.Adam,  # and AdamW
    keras.optimizers.Nadam,
    keras.optimizers.Adamax,
    keras.optimizers.RMSprop,
    keras.optimizers.Lion,
)


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
        weight_decay: wd, 0 or more, as a part of the gradient (not decoupled).
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
        if not 0.0 <= weight_decay < float("inf"):
            raise ValueError(f"LARS: `weight_decay` must be 0 or more; it is {weight_decay!r}.")
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
        trust = self.trust_coefficient * size / (slope + self.decay * size + self.epsilon)
        moves = ops.logical_and(size > 0.0, slope > 0.0)
        return ops.where(moves, (gradient + self.decay * weight) * ops.cast(trust, weight.dtype), gradient)

    def exclude_from_weight_decay(self, var_list=None, var_names=None):
        """Refused: Keras' decay is another one. `exclude` says which variables are scaled and decayed."""
        raise ValueError(
            "LARS: exclude_from_weight_decay is of Keras' decoupled decay; here `exclude` is a number of axes."
        )

    def get_config(self):
        names = ("momentum", "trust_coefficient", "nesterov", "exclude", "excluded_rate", "epsilon")
        config = {**super().get_config(), **{name: getattr(self, name) for name in names}}
        return {**config, "weight_decay": self.decay}


def _norm(x):
    return ops.sqrt(ops.sum(ops.square(ops.cast(x, "float32"))))


def peak_rate(optimizer):
    """The highest learning rate that an optimizer says it will have, as a float.

    Args:
        optimizer: a Keras optimizer. Of a schedule the numbers in its config are read, by the names that Keras' own
            schedules have: `initial_learning_rate`, `warmup_target`, `values`. A schedule that does not say counts by
            its rate of now.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # under the scaling of half precision
    now, config = float(ops.convert_to_numpy(ops.convert_to_tensor(optimizer.learning_rate))), {}
    with warnings.catch_warnings(), contextlib.suppress(NotImplementedError, TypeError, ValueError):
        warnings.simplefilter("ignore")  # a lambda is no good in a file: Keras says so when one is written
        config = optimizer.get_config()["learning_rate"]
        config = config["config"] if isinstance(config, dict) else {}
    rates = [config.get("initial_learning_rate"), config.get("warmup_target"), *config.get("values", ())]
    return max([now, *(float(rate) for rate in rates if isinstance(rate, (int, float)))])


def warn_of_rate(optimizer):
    """Warns of an optimizer of Adam's kind with a learning rate that was made for LARS.

    Adam, AdamW, Nadam, Adamax, RMSprop and Lion, at 0.05 or more. Others are left alone: LARS and SGD have such rates,
    Adagrad's steps shrink, and LAMB, Adafactor and Muon scale theirs.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    rate = peak_rate(optimizer) if isinstance(optimizer, _STEP_BY_RATE) else 0.0
    if rate >= LARS_SIZED:
        warnings.warn(
            f"The learning rate of {type(optimizer).__name__} goes up to {rate:g}, which is a rate for LARS: each step "
            f"moves every weight by about as much. Take one of 1e-3 to 1e-2, or keras_ssl.optimizers.LARS({rate:g}).",
            stacklevel=3,
        )
