"""What the plans of several papers share: optimizer, schedule and how the rate goes with the batch."""

import keras

from keras_ssl.optimizers import LARS
from keras_ssl.recipes.plan import Cosine, Plan, Sourced

CODE = "the authors' code"


def linear(base, run, batch=256):
    """The linear scaling rule: `(value, rule)`."""
    return base * run.batch_size / batch, f"{base:g} · {run.batch_size} / {batch}"


def lars(run, paper, rate, decay, epochs, least_batch, least_epochs, end=0.0, options=None, notes=(), **more):
    """Large batches: LARS, 10 epochs of warm-up, a cosine.

    `rate` is (base, source) at a batch of 256, `decay` and `epochs` are `Sourced`s.
    """
    value, rule = linear(rate[0], run)
    options = {"momentum": Sourced(0.9, CODE), "trust_coefficient": Sourced(1e-3, CODE), **(options or {})}
    if run.epochs is not None and run.epochs < 100:
        notes = (f"10 epochs of warm-up are for runs of 100 and more: here it is a tenth of {run.epochs}.", *notes)
    return Plan(
        optimizer=Sourced(LARS, f"{paper}; biases and normalization have no decay and no scaling"),
        rate=Sourced(value, rate[1], rule),
        schedule=Cosine(0.1, paper, epochs=10, end=end),
        decay=decay,
        epochs=epochs,
        options=options,
        least_batch=least_batch,
        least_epochs=least_epochs,
        notes=notes,
        **more,
    )


# Momentum SGD. The rate goes with the batch. Those that label themselves report one batch size, and their rate drops.


def sgd(run, source, rate, batch, schedule, epochs, nesterov=True, decay=5e-4, **more):
    value, rule = linear(rate, run, batch)
    # In the papers decay is a part of the gradient, so momentum makes it 1 / (1 − 0.9) times as large; Keras takes it
    # off the weight, beside the momentum.
    decay = Sourced(10 * decay, source, f"{decay:g} / (1 − 0.9), as Keras applies weight decay outside the momentum")
    return Plan(
        optimizer=Sourced(keras.optimizers.SGD, source),
        rate=Sourced(value, source if run.batch_size == batch else f"{source}; by batch: Goyal et al. 2017", rule),
        schedule=schedule,
        decay=decay,
        epochs=epochs,
        options={"momentum": Sourced(0.9, source), "nesterov": Sourced(nesterov, CODE)},
        **{"least_batch": batch, "least_epochs": epochs.value, **more},
    )
