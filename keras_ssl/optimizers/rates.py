"""A guard against the learning rates of LARS with other optimizers."""

import contextlib
import warnings

import keras
from keras import ops

from keras_ssl.optimizers.decayed import Decayed

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


def peak_rate(optimizer):
    """The highest learning rate that an optimizer says it will have, as a float.

    Args:
        optimizer: a Keras optimizer. Of a schedule the numbers in its config are read, by the names that Keras' own
            schedules have: `initial_learning_rate`, `warmup_target`, `values`. Another schedule is
            judged by the rate that it has now.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # under the scaling of half precision
    now, config = float(ops.convert_to_numpy(ops.convert_to_tensor(optimizer.learning_rate))), {}
    with warnings.catch_warnings(), contextlib.suppress(NotImplementedError, TypeError, ValueError):
        warnings.simplefilter("ignore")  # a lambda is no good in a file: Keras says so when one is written
        config = keras.optimizers.Optimizer.get_config(optimizer)["learning_rate"]
        config = config["config"] if isinstance(config, dict) else {}
    rates = [config.get("initial_learning_rate"), config.get("warmup_target"), *config.get("values", ())]
    return max([now, *(float(rate) for rate in rates if isinstance(rate, (int, float)))])


def warn_of_rate(optimizer):
    """Warns of an optimizer of Adam's kind with a learning rate that was made for LARS.

    Adam, AdamW, Nadam, Adamax, RMSprop and Lion, at 0.05 or more. Others are left alone: LARS and SGD have such rates,
    Adagrad's steps shrink, and LAMB, Adafactor and Muon scale theirs.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    by_rate = isinstance(optimizer.optimizer if isinstance(optimizer, Decayed) else optimizer, _STEP_BY_RATE)
    rate = peak_rate(optimizer) if by_rate else 0.0
    if rate >= LARS_SIZED:
        warnings.warn(
            f"The learning rate of {type(optimizer).__name__} goes up to {rate:g}, which is a rate for LARS: each step "
            f"moves every weight by about as much. Take one of 1e-3 to 1e-2, or keras_ssl.optimizers.LARS({rate:g}).",
            stacklevel=3,
        )
