"""Any optimizer with a learning rate by layer and a schedule of weight decay."""

import keras
from keras import ops

from keras_ssl.depth import depths
from keras_ssl.keras_compat import of_any_backend, variable_index
from keras_ssl.optimizers.lars import LARS


@keras.saving.register_keras_serializable("keras_ssl")
class Decayed(keras.optimizers.Optimizer):
    """Any optimizer with a learning rate by layer, and a weight decay that may be a schedule.

    ```python
    rate = keras.optimizers.schedules.CosineDecay(0.0, 9_000, warmup_target=1e-4, warmup_steps=1_000)
    weight_decay = keras.optimizers.schedules.CosineDecay(0.04, 10_000, alpha=10.0)  # from 0.04 up to 0.4
    optimizer = keras_ssl.optimizers.Decayed(keras.optimizers.AdamW(rate), 0.75, weight_decay)
    model.compile(optimizer)  # a method: the layers are its backbone's
    ```

    A variable that lies d blocks below the top of the backbone (`keras_ssl.depth.depths`) has the learning rate times
    `layer_decay ** d`. What is not the backbone's, such as a projector, has the whole rate. Weight decay is Keras':
    `w ← w · (1 − rate · weight_decay)` before the step, at each variable's own rate.

    Args:
        optimizer: of Keras, or `LARS`. Its learning rate, clipping, averaging, accumulation and loss scale are taken
            over. It is not changed.
        layer_decay: above 0, at most 1; 1 for one rate for all layers. Fine-tuning's usual values: 0.65 to 0.9.
        weight_decay: a number, a `keras.optimizers.schedules.LearningRateSchedule` of the optimizer step, or None for
            the optimizer's own. `LARS` has its decay within: give it there.
        exclude: variables with this many axes or fewer, and where it is 1 or more all biases, have no weight decay: 1
            for biases and normalization, −1 for none. (Keras' own default decays all.)
        backbone: the Keras model whose layers count; None for that of the method that is compiled with it.
        depth: a function of a variable of the backbone to its depth, a number of 0 or more, instead of
            `keras_ssl.depth.depths`. It is not saved, what it gave is.

    Reference: layer decay: Clark et al., "ELECTRA", 2020, appendix A.2; for vision transformers Bao et al., "BEiT",
    2022, appendix; the schedule of weight decay: Caron et al., "Emerging Properties in Self-Supervised Vision
    Transformers", 2021, section 3.2.
    """

    def __init__(
        self,
        optimizer,
        layer_decay=1.0,
        weight_decay=None,
        exclude=1,
        backbone=None,
        depth=None,
        rates=None,
        name="decayed",
    ):
        config = _config_of(optimizer)
        if not (isinstance(layer_decay, (int, float)) and 0.0 < layer_decay <= 1.0):
            raise ValueError(f"Decayed: `layer_decay` must lie above 0 and at most at 1; it is {layer_decay!r}.")
        if not isinstance(exclude, int):
            raise ValueError(f"Decayed: `exclude` is a number of axes, −1 for no exclusion; it is {exclude!r}.")
        taken = {key: config.get(key) for key in _TAKEN_OVER if config.get(key) is not None}
        super().__init__(_deserialized(config["learning_rate"]), name=name, **taken)
        if weight_decay is None and "adam_weight_decay" in config:
            raise ValueError("Decayed: Muon has two weight decays: write `weight_decay`, one for all variables.")
        if weight_decay is None:
            weight_decay = None if isinstance(optimizer, LARS) else config.get("weight_decay") or None
        _check_decay(optimizer, weight_decay)
        self.layer_decay = layer_decay
        self.decay = weight_decay
        self.exclude = exclude
        self.backbone = _Unsaved(backbone)
        self.depth = _Unsaved(depth)
        self._decay_now = None
        self.rates = rates  # of each variable, as a multiple of the learning rate
        rule = {**config, **dict.fromkeys(_TAKEN_OVER), "use_ema": False, "ema_momentum": 0.99, "learning_rate": 0.0}
        # LARS's decay is a part of its step.
        rule["weight_decay"] = config["weight_decay"] if isinstance(optimizer, LARS) else 0.0
        self.optimizer = type(optimizer).from_config({key: rule[key] for key in config})

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        if self.rates is None:
            self.rates = self._rates_of(variables)
        if len(self.rates) != len(variables):
            raise ValueError(
                f"Decayed: it was made for {len(self.rates)} variables, and is built for {len(variables)}: make a new "
                "one, for another model or where other layers are frozen."
            )
        self._decays = [
            len(variable.shape) > self.exclude and not (self.exclude > 0 and variable.name == "bias")
            for variable in variables
        ]
        self.optimizer.build(variables)

    def _rates_of(self, variables):
        if self.layer_decay == 1.0:
            return [1.0] * len(variables)
        backbone = self.backbone.value
        if backbone is None:
            raise ValueError(
                "Decayed: whose layers `layer_decay` counts is not known: pass backbone=, the Keras model. A method of "
                "this library says it itself."
            )
        found = depths(backbone)
        if not any(id(variable) in found for variable in variables):
            raise ValueError(
                f"Decayed: none of the variables that are trained is one of {backbone.name}, the `backbone`."
            )
        if self.depth.value is not None:
            found = {id(variable): _checked_depth(self.depth.value, variable) for variable in backbone.variables}
        return [float(self.layer_decay ** found.get(id(variable), 0)) for variable in variables]

    def update_step(self, gradient, variable, learning_rate):
        place = variable_index(self, variable)
        rate = ops.cast(learning_rate, variable.dtype) * self.rates[place]
        if self._decay_now is not None and self._decays[place]:
            weight = ops.convert_to_tensor(variable)
            self.assign_sub(variable, weight * (rate * ops.cast(self._decay_now, weight.dtype)))
        self.optimizer.update_step(gradient, variable, rate)

    def apply(self, grads, trainable_variables=None):
        # Once a step, and not for each variable: a schedule is a part of the graph.
        self._decay_now = self.decay(self.iterations) if callable(self.decay) else self.decay
        super().apply(grads, trainable_variables)
        # What the other's step depends on, such as Adam's correction of its first steps.
        self.optimizer.iterations.assign(ops.convert_to_tensor(self.iterations))

    @property
    def variables(self):
        return super().variables + self.optimizer.variables

    def save_own_variables(self, store):
        for place, variable in enumerate(super().variables):  # Keras saves the other's by itself
            store[str(place)] = ops.convert_to_numpy(variable)

    def load_own_variables(self, store):
        own = super().variables
        if len(store.keys()) != len(own):
            raise ValueError(f"Decayed: the file has {len(store.keys())} variables of it, and it has {len(own)}.")
        for place, variable in enumerate(own):
            variable.assign(store[str(place)])

    def exclude_from_weight_decay(self, var_list=None, var_names=None):
        """Refused, for Keras does not save it: `exclude` says which variables are not decayed."""
        raise ValueError("Decayed: exclude_from_weight_decay is not saved with a model; here `exclude` is a number.")

    def get_config(self):
        given = self.depth.value is not None or (self.backbone.value is not None and not self.backbone.told)
        if self.rates is None and given and self.layer_decay != 1.0:
            raise ValueError(
                "Decayed: it can't be saved before it knows the variables: train first, or call "
                "model.optimizer.build(model.trainable_variables)."
            )
        config = super().get_config()
        rule = of_any_backend(keras.saving.serialize_keras_object(self.optimizer))
        rule["config"].update({key: config[key] for key in ("learning_rate", *_TAKEN_OVER) if key in rule["config"]})
        decay = self.decay
        return {
            "name": self.name,
            "optimizer": rule,
            "layer_decay": self.layer_decay,
            "weight_decay": keras.saving.serialize_keras_object(decay) if callable(decay) else decay,
            "exclude": self.exclude,
            "rates": self.rates,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**{key: _deserialized(value) for key, value in config.items()})


# What an optimizer does around its step: `Decayed` does it, in the place of the one that it is given.
_TAKEN_OVER = (
    "clipnorm",
    "global_clipnorm",
    "clipvalue",
    "use_ema",
    "ema_momentum",
    "ema_overwrite_frequency",
    "loss_scale_factor",
    "gradient_accumulation_steps",
)


def tell_backbone(optimizer, backbone):
    """Tells a `Decayed` that was given no backbone whose layers count; other optimizers are left alone."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # under the scaling of half precision
    if isinstance(optimizer, Decayed) and optimizer.backbone.value is None:
        optimizer.backbone = _Unsaved(backbone, told=True)


class _Unsaved:
    """Holds an object that is not the optimizer's own: Keras saves and tracks what stands in an attribute itself.

    `told`: a method told it, and will tell it again after loading.
    """

    def __init__(self, value, told=False):
        self.value, self.told = value, told


def _config_of(optimizer):
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise ValueError(f"Decayed: `optimizer` is one of keras.optimizers or LARS; it is {optimizer!r}.")
    # They do more than a step of each variable by itself.
    if isinstance(optimizer, Decayed) or type(optimizer).__name__ in ("LossScaleOptimizer", "MultiOptimizer", "Nadam"):
        raise ValueError(
            f"Decayed: {type(optimizer).__name__} does more than a step of each variable by itself: take another, such "
            "as keras.optimizers.AdamW. (For half precision Keras puts its LossScaleOptimizer around this one.)"
        )
    if optimizer.built:
        raise ValueError("Decayed: `optimizer` has trained already: make a new one.")
    return optimizer.get_config()


def _deserialized(value):
    return keras.saving.deserialize_keras_object(value) if isinstance(value, dict) else value


def _check_decay(optimizer, decay):
    if isinstance(optimizer, LARS) and decay is not None:
        raise ValueError(
            "Decayed: LARS has its weight decay within its step: LARS(weight_decay=…), not `weight_decay`."
        )
    if isinstance(decay, keras.optimizers.schedules.LearningRateSchedule) or decay is None:
        return
    if not (isinstance(decay, (int, float)) and 0.0 <= decay < float("inf")):
        raise ValueError(
            "Decayed: `weight_decay` is 0 or more, or a schedule such as keras.optimizers.schedules.CosineDecay(0.04, "
            f"steps, alpha=10.0); it is {decay!r}."
        )


def _checked_depth(function, variable):
    depth = function(variable)
    if not (isinstance(depth, (int, float)) and depth >= 0):
        raise ValueError(f"Decayed: `depth` must give 0 or more; for {variable.path} it gave {depth!r}.")
    return depth
