"""A recipe: an optimizer with its schedule, views and arguments, and the sources of all of them."""

import dataclasses
import operator
import warnings

import keras

from keras_ssl.optimizers import Decayed
from keras_ssl.recipes.plan import Head, Made, Sourced

GIVEN = "given"  # the source of what the user set


class Recipe:
    """What to train a method with; `recipe` makes one.

    The schedule counts optimizer steps of the global batch, `images // batch_size` per epoch: it is the same on one
    replica and on many.

    Attributes:
        method, images, batch_size, epochs: of the run.
        source: "paper" or "small".
        why: a sentence: why this one.
        steps_per_epoch, steps: optimizer steps per epoch and in total.
        learning_rate: the schedule's peak.
        notes: sentences on what is not as in the source.
    """

    def __init__(self, method, run, source, why, plan):
        if run.epochs is None and plan.epochs.value is None:
            raise ValueError(
                f"recipe: `epochs` is None, and the paper of {method.__name__} states no number of epochs: write "
                "epochs=…."
            )
        self.method, self.source, self.why = method, source, why
        self._run = run
        self.images, self.batch_size = run.images, run.batch_size
        self.epochs = plan.epochs.value if run.epochs is None else run.epochs
        self.steps_per_epoch = run.images // run.batch_size
        self.steps = self.epochs * self.steps_per_epoch
        self.learning_rate = float(plan.rate.value)
        self.notes = tuple(plan.notes)
        self._plan, self._own_epochs = plan, run.epochs is None

    def replaced(self, learning_rate=None, weight_decay=None, views=None, arguments=None):
        """This recipe with values of your own, whose source is then "given"; what is None stays.

        Args:
            learning_rate: the peak of the schedule, which keeps its form; above 0.
            weight_decay: 0 or more.
            views: `(text, function)`: the views in words, and a function of no arguments that makes them.
            arguments: of the method: a dict, beside those of the recipe and in place of them.

        Returns:
            A new `Recipe`.
        """
        plan, changed = self._plan, {}
        if learning_rate is not None:
            changed["rate"] = Sourced(_number("learning_rate", learning_rate, operator.gt, "above 0"), GIVEN)
        if weight_decay is not None:
            changed["decay"] = Sourced(_number("weight_decay", weight_decay, operator.ge, "0 or more"), GIVEN)
            changed["decay_end"] = None
        if views is not None:
            changed["views"] = Sourced(views[1], GIVEN, views[0])
        if arguments:
            changed["arguments"] = {**plan.arguments, **{key: Sourced(one, GIVEN) for key, one in arguments.items()}}
        return Recipe(self.method, self._run, self.source, self.why, dataclasses.replace(plan, **changed))

    @property
    def schedule(self):
        """A new `keras.optimizers.schedules.LearningRateSchedule`, or a number where the rate is constant."""
        return self._plan.schedule.make(self.learning_rate, self.steps, self.steps_per_epoch)

    @property
    def optimizer(self):
        """A new optimizer with the schedule."""
        return self.make_optimizer()

    def make_optimizer(self, cls=None):
        """An optimizer of another class with this recipe's schedule and weight decay.

        Args:
            cls: a class of `keras.optimizers`; None for the recipe's own. A learning rate fits one optimizer: a
                class that is neither the recipe's nor a parent or child of it gets a warning.
        """
        own = self._plan.optimizer.value
        cls = own if cls is None else cls
        if not (isinstance(cls, type) and issubclass(cls, keras.optimizers.Optimizer)):
            raise ValueError(f"make_optimizer: `cls` is a class, such as keras.optimizers.AdamW; it is {cls!r}.")
        if self._plan.rate.source != GIVEN and not (issubclass(cls, own) or issubclass(own, cls)):
            rest = "it" if own is keras.optimizers.AdamW else f'{own.__name__}, or for AdamW source="small"'
            warnings.warn(
                f"{cls.__name__} gets a learning rate of up to {self.learning_rate:g} from a recipe for "
                f"{own.__name__}, and a rate fits one optimizer: take {rest}, or set your own rate.",
                stacklevel=2,
            )
        options = {name: sourced.value for name, sourced in self._plan.options.items()} if issubclass(cls, own) else {}
        decay, end = self._plan.decay, self._plan.decay_end
        if decay.value or cls is not own or decay.source == GIVEN:  # AdamW has a decay of its own
            options["weight_decay"] = decay.value
        optimizer = cls(learning_rate=self.schedule, **options)
        if end is None:
            return optimizer
        rising = keras.optimizers.schedules.CosineDecay(decay.value, self.steps, alpha=end.value / decay.value)
        return Decayed(optimizer, weight_decay=rising)

    @property
    def views(self):
        """New `keras_ssl.augment.Views`; None for the method's default."""
        make = self._plan.views.value
        return None if make is None else make()

    @property
    def arguments(self):
        """The arguments of the method that the recipe sets: a dict, with new heads each time."""
        values = {name: sourced.value for name, sourced in self._plan.arguments.items()}
        return {name: value.make() if isinstance(value, (Head, Made)) else value for name, value in values.items()}

    def entries(self):
        """`(name, value as text, source)` of each value, the most important first."""
        plan, own = self._plan, self._plan.optimizer.value.__name__
        rate = f"{self.learning_rate:.4g}" + (f" = {plan.rate.rule}" if plan.rate.rule else "")
        schedule = plan.schedule.text(self.learning_rate, self.steps, self.steps_per_epoch)
        epochs = (_text(plan.epochs), plan.epochs.source) if self._own_epochs else (str(self.epochs), "given")
        return [
            ("optimizer", own, plan.optimizer.source),
            ("learning rate", rate, plan.rate.source),
            ("schedule", schedule, plan.schedule.source),
            ("weight decay", _decay_text(plan), plan.decay.source),
            *((f"{own} {name}", _text(sourced), sourced.source) for name, sourced in plan.options.items()),
            ("epochs", *epochs),
            ("views", plan.views.rule or "the method's own", plan.views.source),
            *((name, _text(sourced), sourced.source) for name, sourced in plan.arguments.items()),
        ]

    def describe(self):
        """Lines for a terminal: each value with its rule and its source."""
        lines = self.entries()
        names, texts = (max(len(line[place]) for line in lines) for place in (0, 1))
        table = [f"  {name.ljust(names)}  {text.ljust(texts)}  [{source}]" for name, text, source in lines]
        head = f'{self.method.__name__}, recipe "{self.source}": {self.why}'
        return "\n".join([head, *table, *(f"  Note: {note}" for note in self.notes)])

    @property
    def config(self):
        """A plain dict, for JSON."""
        plan = self._plan
        return {
            "method": self.method.__name__,
            "source": self.source,
            "why": self.why,
            "images": self.images,
            "batch_size": self.batch_size,
            "epochs": self.epochs,
            "steps": self.steps,
            "optimizer": plan.optimizer.value.__name__,
            "learning_rate": self.learning_rate,
            "schedule": plan.schedule.text(self.learning_rate, self.steps, self.steps_per_epoch),
            "weight_decay": plan.decay.value,
            "weight_decay_end": plan.decay_end.value if plan.decay_end else plan.decay.value,
            "optimizer_options": {name: sourced.value for name, sourced in plan.options.items()},
            "views": plan.views.rule or None,
            "arguments": {
                name: str(sourced.value) if isinstance(sourced.value, (Head, Made)) else sourced.value
                for name, sourced in plan.arguments.items()
            },
            "sources": {name: source for name, _, source in self.entries()},
            "notes": list(self.notes),
        }


def _decay_text(plan):
    if plan.decay_end is None:
        return _text(plan.decay)
    return f"{_text(plan.decay)}, by a cosine to {_text(plan.decay_end)}; biases and normalization without"


def _text(sourced):
    value = f"{sourced.value:g}" if isinstance(sourced.value, float) else str(sourced.value)
    return f"{value} = {sourced.rule}" if sourced.rule else value


def _number(name, value, holds, bound):
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not holds(value, 0):
        raise ValueError(f"Recipe: `{name}` is a number {bound}; it is {value!r}.")
    return float(value)
