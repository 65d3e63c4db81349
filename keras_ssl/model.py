"""The base of all methods: images → views → embed → objective → terms."""

import keras
from keras import ops

from keras_ssl import backbones, backend, batch_norm, distribute, lora, micro_batches, saving
from keras_ssl.augment.layer import check_channels_last, checked_range
from keras_ssl.augment.rng import RowRNG
from keras_ssl.augment.views import as_views
from keras_ssl.data import adapter
from keras_ssl.data.batch import image_shape, standard_batch
from keras_ssl.keras_compat import of_any_backend, single_call
from keras_ssl.one_pass import map_views as together
from keras_ssl.optimizers.half_precision import policy_of
from keras_ssl.regularizers import checked_regularizers, with_features
from keras_ssl.training import step as steps
from keras_ssl.training.trainer import Trainer


class SelfSupervisedModel(Trainer):
    """Trains a backbone without labels. The base of every method; a method writes what it embeds and its objective.

    `model(images)` and `model.predict(images)` give the backbone's features. In `fit` and `evaluate` the same model
    makes views of the images, embeds them, and minimizes the sum of its objective's terms. The backbone is the object
    that was passed: after `fit` it is trained, and remains a plain Keras model.

    A method is a subclass, usually of under a hundred lines. It states the class attributes below this text and writes
    the methods of the section "What a method writes": `build_heads`, `embed` and `objective`, and of the others what it
    needs. Every argument of its `__init__` is kept as an attribute of the same name: that is what is saved.

    Args:
        backbone: a Keras model from images to `(n, features)` or to a feature map `(n, height, width, channels)`; or
            from series, tables or volumes, with a feature map `(n, time, channels)` or of three inner axes. It sees its
            input in its own value range.
        views: `keras_ssl.augment.Views`, or the layers of one view, of which as many are drawn as the method takes: a
            Keras layer, a list of layers, or a `keras.Sequential` of them. None for the method's own
            (`default_views`), or where it has none and batches hold views of your own, `{"views": (a, b)}`.
        value_range: lowest and highest value of the images; None for inputs without a range, such as series, which are
            then only checked to be finite. It is kept as (−∞, ∞).
        seed: integer, of the views and of the order of the images.
        regularizers: terms beside the method's own, such as `keras_ssl.regularizers.KoLeo(0.1)`: one or a list.
        pooling: of a ViT's tokens `(n, tokens, width)`: "class", "mean", or None for the class token if there is one.
        **kwargs: `name`, and `dtype`, the backbone's unless given.
    """

    # What a method states.

    terms = ()
    """Names of the terms of its loss."""
    metric_names = ()
    """Names of what it logs beside them. (`metrics` is Keras' own.)"""
    batch_dependent = True
    """Whether a row's loss depends on the other rows of its batch."""
    uses_labels = False
    """Whether a batch needs labels, `"label"`."""
    uses_index = False
    """Whether a batch needs each image's number in the array, `"index"`."""
    uses_pair_labels = False
    """Whether a batch may say which of its pairs of views are of a kind, `"same"`."""
    patch_based = False
    """Whether the backbone is shown patches: one of open size, `(None, None, channels)`, takes them as they are."""
    view_counts = None
    """How many views of an image it takes: a tuple of numbers; None for any."""
    collapse_advice = (
        "A smaller learning rate with a longer warm-up, and views that leave more of the image, usually help."
    )
    """What usually helps where nothing is learned: a sentence, for the alarm."""

    def __init__(self, backbone, views=None, value_range=(0, 255), seed=0, pooling=None, regularizers=(), **kwargs):
        backbone = backbones.checked(backbone)
        kwargs.setdefault("dtype", policy_of(backbone))
        # Images of 0 … 255 would lose their last bits in half precision; each layer below casts for itself.
        super().__init__(autocast=False, **kwargs)
        self.backbone = backbone
        self.value_range = checked_range(self, value_range, required=False)
        self.seed = int(seed)
        self.pooling = pooling
        self.regularizers = checked_regularizers(self, regularizers)
        self.terms = (*self.terms, *(one.name for one in self.regularizers))
        self.projector = None  # a method's head between the features and what its objective compares
        self.views = self.default_views() if views is None else as_views(views, self.view_counts)
        if self.views is not None:
            self.views.check_value_range(self.value_range)
            self._check_view_count(len(self.views.branches), "`views` make")
        self._init_training()

    # What a method writes.

    def default_views(self):
        """The views where `views` is None: `keras_ssl.augment.Views`, or None where batches hold views of their own."""
        return None

    def build_heads(self, width):
        """Creates and builds the heads, for pooled features of `(n, width)`."""

    def embed(self, views, training):
        """Named tensors of the views: a dict, each `(n, …)` with a row for each image of this replica."""
        raise NotImplementedError(f"{type(self).__name__} must define embed(views, training).")

    def objective(self, outputs, batch):
        """The loss of what `embed` gave, in named terms.

        Args:
            outputs: what `embed` gave.
            batch: the batch, with `"label"`, `"same"` or `"index"` where the method uses them.

        Returns:
            A tuple `(terms, metrics)`: a dict by name each, of either one value per row of this replica, or a scalar of
            the rows of all replicas (`keras_ssl.distribute.gather`). Terms are already weighted; the loss is their sum.
            The reduction over rows and replicas is the trainer's alone.
        """
        raise NotImplementedError(f"{type(self).__name__} must define objective(outputs, batch).")

    def after_optimizer_step(self, outputs, stepped):
        """Updates what changes once per optimizer step, after it: a teacher, a queue.

        Args:
            outputs: what `embed` gave in this step.
            stepped: boolean scalar tensor, whether there was a step: accumulation and half precision leave some out.
        """

    def held_variables(self):
        """Pairs of a variable and whether a step leaves it as it is, a boolean scalar tensor: prototypes at first."""
        return []

    def on_run_begin(self, total_steps, initial_step):
        """Called by `fit` before its first step, for what depends on how long it will train.

        Args:
            total_steps: optimizer steps of the whole run; None where a stream's length is not known.
            initial_step: how many of them are done already.
        """

    def frozen_layers(self):
        """Layers of teachers, whose variables no optimizer moves and whose losses do not count: each has `freeze()`."""
        return []

    def collapse_losses(self, batch_size):
        """A dict of sentence to loss: where the loss stays when nothing is learned, at this global batch size.

        A loss of 0 is also what success looks like: `keras_ssl.callbacks.CollapseMonitor` then asks the spread.
        """
        return {}

    def pretext_examples(self, images):
        """What the method asks about images, to be looked at: arguments of `keras_ssl.evaluate.plots.pretext_task`.

        Args:
            images: `(n, height, width, channels)`, views as `views` makes them.

        Returns:
            A dict of `pictures`, what the network is shown, `captions`, the answers, and `places` for patches; None
            where nothing but the views is shown.
        """
        return None

    def check_batch_size(self, batch_size):
        """Raises `ValueError` where the method can't train on batches of this many images, over all replicas."""

    def check_rows(self, rows):
        """Raises `ValueError` where the method can't train on an array of this many images."""

    def check_logs(self, logs):
        """Raises `ValueError` where what an epoch logged shows that nothing can be learned."""

    # Building.

    def build(self, input_shape=None):
        check_channels_last(type(self).__name__)
        if self.built:
            return self._check_rebuilt(image_shape(input_shape))
        saving.check_arguments(self, SelfSupervisedModel)
        shape = image_shape(input_shape) or backbones.input_shape(self.backbone)
        if not self.backbone.built:
            self.backbone.build(shape)
            backbones.check_ends(self.backbone)
        images = keras.KerasTensor(backbones.input_shape(self.backbone) or shape, "float32")
        features = self.backbone.compute_output_spec(images)
        if isinstance(features, (dict, list, tuple)):
            names = list(features) if isinstance(features, dict) else f"{len(features)} tensors"
            raise ValueError(
                f"`backbone` must give one tensor, and {self.backbone.name} gives {names}: let its call return the one "
                "that you want, or cut it: keras.Model(backbone.inputs[0], backbone.get_layer(name).output)."
            )
        features = tuple(features.shape)
        if len(features) not in (2, 3, 4, 5) or features[-1] is None:
            raise ValueError(
                "`backbone` must give (n, features) or a feature map, (n, height, width, channels), (n, time, "
                f"channels) or (n, depth, height, width, channels), and {self.backbone.name} gives "
                f"{features}. Cut it at a layer that does: keras.Model(backbone.inputs[0], "
                "backbone.get_layer(name).output)."
            )
        backbones.check_pooling(self.backbone, features, self.pooling)
        if self.views is not None:
            self.views.build_for(self.backbone, shape)
        counter = {"dtype": "int32", "initializer": "zeros", "trainable": False}
        self.step = self.add_weight(shape=(), name="step", **counter)
        # Which term was the first that was not finite, counted from 1, and at which step.
        self.first_nonfinite = self.add_weight(shape=(2,), name="broken", **counter)
        self.build_heads(features[-1])
        self._built_heads = True
        for layer in self._layers_beside_backbone():
            batch_norm.use_global_statistics(layer)

    def _check_rebuilt(self, shape):
        """Building again changes nothing; a shape that the backbone can't take is refused, as it is the first time."""
        takes = backbones.input_shape(self.backbone)
        if shape is None or takes is None:
            return
        if self.views is not None:
            self.views.build_for(self.backbone, shape)
        elif any(a and b and a != b for a, b in zip(shape[1:], takes[1:])):
            raise ValueError(f"build: {self.backbone.name} takes {tuple(takes[1:])}, and this is {tuple(shape[1:])}.")

    def _layers_beside_backbone(self):
        return [layer for layer in self.layers if layer is not self.backbone and layer is not self.views]

    def _check_view_count(self, count, who):
        if self.view_counts is not None and count not in self.view_counts:
            needed = " or ".join(map(str, self.view_counts))
            raise ValueError(f"{type(self).__name__} takes {needed} view(s) of an image, and {who} {count}.")

    @property
    def trainable(self):
        return keras.Model.trainable.fget(self)

    @trainable.setter
    def trainable(self, value):
        keras.Model.trainable.fset(self, value)  # in every layer below, the teacher's as well
        self._freeze()

    def _freeze(self):
        built = getattr(self, "_built_heads", False)
        for layer in (*lora.within(self.backbone), *self.frozen_layers()) if built else ():
            layer.freeze()

    @property
    def losses(self):
        """The losses that layers add, without those of copies: a teacher has its student's layers, and no say."""
        copies = {id(loss) for layer in self.frozen_layers() for loss in layer.losses}
        return [loss for loss in super().losses if id(loss) not in copies]

    # The forward pass.

    def call(self, inputs, training=None):
        step = steps.step_of(self)
        if step is not None:
            if backend.STATELESS_STEPS:
                return single_call(lambda batch: self._embed_batch(batch, step.training), inputs)
            return self._embed_batch(inputs, step.training)
        if isinstance(inputs, (dict, tuple, list)):
            batch = standard_batch(inputs)
            inputs = batch["image"] if "image" in batch else batch["views"][0]
        return self.backbone(ops.cast(inputs, "float32"), training=training)

    def features(self, images, training=None):
        """The backbone's features as the heads see them: `(n, width)`, a feature map by its mean, tokens by one."""
        if steps.running() is None:
            adapter.images_for_predict(images, self.value_range, "images")
        features = self.backbone(images, training=training)
        return steps.noted(self, backbones.pooled(features, self.backbone, self.pooling, images.shape))

    def map_views(self, function, views, training, one_pass):
        """`function(images, training=…)` of each view: a list, one per view, in their order.

        Args:
            one_pass: run the views of one size as one batch, so that batch normalization sees all of them; else one
                view after another. The views of an image lie side by side, so that ghost batches and micro-batches
                hold all of them. A head that shall see views of all sizes together is a second call, of features.
        """
        if one_pass:
            return together(function, views, training)
        return [function(view, training=training) for view in views]

    def project(self, images, training=None):
        """What the objective compares: the projection of the features, or, without a projector, the features."""
        features = self.features(images, training=training)
        return features if self.projector is None else self.projector(features, training=training)

    def rng(self, purpose, rows=None):
        """The `RowRNG` of the rows that are being embedded, for what a method draws beside its views.

        Args:
            purpose: string; draws of another purpose are independent of these.
            rows: int32 `(n,)`, for n draws of the whole batch, the same on all replicas: numbers of what is drawn.
        """
        return steps.running().rng.fold_in(purpose) if rows is None else steps.batch_rng(rows).fold_in(purpose)

    def resize_to_backbone(self, patches):
        """Patches in the size that the backbone takes: resized where that is fixed, else as they are.

        Args:
            patches: a list of tensors `(n, size, size, channels)`.
        """
        return backbones.resize_to_backbone(self.backbone, patches)

    def _embed_batch(self, batch, training):
        """What `embed` gives of the batch's views, in one go or micro-batch by micro-batch."""
        if "same" in batch and not self.uses_pair_labels:
            raise ValueError(
                f'{type(self).__name__} takes both views of a pair as being of a kind, and this batch has "same": '
                "leave out the pairs that are not, and the entry, or train a keras_ssl.Siamese."
            )
        count = ops.shape(keras.tree.flatten(batch)[0])[0]
        rows = distribute.row_offset(count) + ops.arange(count, dtype="int32")

        def embed(part):
            steps.running().features = []
            outputs = self.embed(self._views_of(part["batch"], part["rows"], training), training=training)
            return with_features(self, outputs, steps.running().features, part["rows"])

        whole = {"batch": batch, "rows": rows}
        if self.micro_batch_size is None:
            return embed(whole)
        return micro_batches.embed(self, steps.on_any_thread(embed), whole, self.micro_batch_size)

    def _views_of(self, batch, rows, training):
        rng = RowRNG(self.seed, rows).fold_in(self.step if training else steps.EVALUATION)
        steps.running().rng = rng
        if "views" in batch:
            self._check_view_count(len(batch["views"]), "this batch has")
            return tuple(ops.cast(view, "float32") for view in batch["views"])
        if self.views is None:
            raise ValueError(
                f"{type(self).__name__} has no `views` to make of images: pass views=keras_ssl.augment.simclr(size), "
                'or batches {"views": (view_a, view_b)}.'
            )
        return self.views(batch["image"], rng=rng)

    # Saving.

    def get_config(self):
        config = {"name": self.name, "dtype": keras.dtype_policies.serialize(self.dtype_policy)}
        saving.check_arguments(self, SelfSupervisedModel)
        for name in saving.init_arguments(type(self), SelfSupervisedModel):
            config[name] = keras.saving.serialize_keras_object(getattr(self, name))
        return config

    @classmethod
    def from_config(cls, config):
        return cls(**saving.arguments_of(config))

    def get_compile_config(self):
        return of_any_backend(keras.saving.serialize_keras_object(self._compiled_with)) if self.compiled else {}

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(of_any_backend(config)))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def save_own_variables(self, store):
        super().save_own_variables(store)
        saving.save_seed_states(self, store)

    def load_own_variables(self, store):
        own = {name: store[name] for name in list(store.keys()) if not saving.is_seed_state(name)}
        if list(own) == ["0"]:  # files of the first version have the step alone
            own["1"] = ops.convert_to_numpy(self.first_nonfinite)
        super().load_own_variables(own)
        saving.load_seed_states(self, store)
