"""What a source says about a run, value by value, before it becomes an optimizer."""

import dataclasses

import keras

from keras_ssl import heads

SMALL_SIDE = 64  # images up to this size get the papers' values for CIFAR-10, larger ones those for ImageNet


@dataclasses.dataclass(frozen=True)
class RunSpec:
    """What is known before a recipe is chosen."""

    shape: tuple
    images: int
    batch_size: int
    epochs: int | None
    value_range: tuple

    @property
    def small(self):
        return min(self.shape[:2]) <= SMALL_SIDE


@dataclasses.dataclass(frozen=True)
class Sourced:
    """A value, its source, and the rule that gave it, if there is one."""

    value: object
    source: str
    rule: str = ""


@dataclasses.dataclass(frozen=True)
class Head:
    """A projector that is made when it is asked for, because two models must not share one."""

    widths: tuple
    batch_norm: bool = True
    activation: str = "relu"
    last_batch_norm: bool = False
    last_scale: bool = True

    def _options(self):
        """The arguments of `heads.mlp` that are not its defaults."""
        options = {} if self.last_batch_norm else {"last_batch_norm": False}
        if not self.last_scale:
            options["last_scale"] = False
        if not self.batch_norm:
            options["batch_norm"] = False
        if self.activation != "relu":
            options["activation"] = self.activation
        return options

    def make(self):
        return heads.mlp(list(self.widths), **self._options())

    def __str__(self):
        options = "".join(f", {name}={value!r}" for name, value in self._options().items())
        return f"heads.mlp({list(self.widths)}{options})"


@dataclasses.dataclass(frozen=True)
class Made:
    """A value that is no number and no text, which is made anew each time: two models must not share one."""

    text: str
    make: object

    def __str__(self):
        return self.text


@dataclasses.dataclass(frozen=True)
class Cosine:
    """Linear warm-up from 0, then a cosine.

    Args:
        share: at most this share of the steps is warm-up.
        epochs: at most this many epochs are warm-up; None for the share alone.
        end: of the cosine, as a share of the peak.
        source: of all that.
    """

    share: float
    source: str
    epochs: int | None = None
    end: float = 0.0

    def warm_up(self, steps, steps_per_epoch):
        warm = max(1, int(self.share * steps + 1e-9))
        warm = warm if self.epochs is None else min(warm, self.epochs * steps_per_epoch)
        return min(warm, steps - 1)  # a run of one step begins at its peak, because a rate of 0 trains nothing

    def make(self, peak, steps, steps_per_epoch):
        decay, warm = keras.optimizers.schedules.CosineDecay, self.warm_up(steps, steps_per_epoch)
        if warm == 0:
            return decay(peak, steps, alpha=self.end)
        return decay(0.0, steps - warm, alpha=self.end, warmup_target=peak, warmup_steps=warm)

    def text(self, peak, steps, steps_per_epoch):
        warm = self.warm_up(steps, steps_per_epoch)
        of_warm_up = f"{warm:,} step{'s' if warm != 1 else ''} of warm-up"
        return f"{of_warm_up} from 0, a cosine to {self.end * peak:g} at step {steps:,}"


@dataclasses.dataclass(frozen=True)
class Drops:
    """Constant, and multiplied by `factor` after some epochs of a run of `of` epochs; in proportion for other runs."""

    after: tuple
    of: int
    factor: float
    source: str

    def boundaries(self, steps):
        return [round(steps * epochs / self.of) for epochs in self.after]

    def make(self, peak, steps, steps_per_epoch):
        # Keras' boundary is the last step of the old value.
        values = [peak * self.factor**drops for drops in range(len(self.after) + 1)]
        return keras.optimizers.schedules.PiecewiseConstantDecay([b - 1 for b in self.boundaries(steps)], values)

    def text(self, peak, steps, steps_per_epoch):
        at = ", ".join(f"{boundary:,}" for boundary in self.boundaries(steps))
        return f"times {self.factor:g} at steps {at} of {steps:,}"


@dataclasses.dataclass(frozen=True)
class Constant:
    """One rate from the first step to the last."""

    source: str

    def make(self, peak, steps, steps_per_epoch):
        return peak

    def text(self, peak, steps, steps_per_epoch):
        return f"constant, {steps:,} steps"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a paper, or our measurements, say about a run; each value is `Sourced`.

    Args:
        optimizer: the class.
        rate: the peak of the learning rate.
        schedule: `Cosine`, `Drops` or `Constant`.
        decay: as the optimizer's own argument has it.
        epochs: a value of None where the source has none.
        decay_end: what the weight decay goes to, by a cosine over the run, with biases and normalization left out; None
            where it stays what it is.
        options: further arguments of the optimizer.
        views: a value of None for the method's own; else a function of no arguments.
        arguments: of the method.
        least_batch, least_epochs: the smallest that the source reports; "auto" takes the small recipe below them.
        notes: sentences: what is not as in the source.
    """

    optimizer: Sourced
    rate: Sourced
    schedule: object
    decay: Sourced
    epochs: Sourced
    decay_end: Sourced | None = None
    options: dict = dataclasses.field(default_factory=dict)
    views: Sourced = Sourced(None, "the method's default, see docs/methods.md")
    arguments: dict = dataclasses.field(default_factory=dict)
    least_batch: int = 1
    least_epochs: int = 1
    notes: tuple = ()
