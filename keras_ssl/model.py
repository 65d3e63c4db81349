"""The base of all methods: images → views → embed → objective → terms, in the one `train_step` of this library."""

import contextlib
import inspect
import threading
import warnings

import keras
import numpy as np
from keras import ops

from keras_ssl import batch_norm, data, distribute, micro_batches
from keras_ssl.augment.draws import Draws
from keras_ssl.augment.layer import checked_range
from keras_ssl.augment.views import Views
from keras_ssl.batches import Batches, Checked, SetEpoch, check_images, standard_batch
from keras_ssl.keras_gaps import as_one_call, flatten_layers, nothing_lost
from keras_ssl.optimizers import warn_of_rate

# Which model runs a training or test step on this thread; everywhere else a model is its backbone. It is per thread,
# for TensorFlow's strategies run each replica's step on a thread of its own.
_running = threading.local()

# The step that an evaluation draws its views for: no training step has it, so that the views are its own, and they are
# the same at every evaluation, so that val_loss compares between epochs.
_EVALUATION = -1


class SelfSupervisedModel(keras.Model):
    """Trains a backbone without labels. The base of every method; a method writes what it embeds and its objective.

    `model(images)` and `model.predict(images)` give the backbone's features. In `fit` and `evaluate` the same model
    makes views of the images, embeds them, and minimises the sum of its objective's terms. The backbone is the object
    that was passed: after `fit` it is trained, and remains a plain Keras model.

    A method is a subclass, usually of under a hundred lines, that states

    - `terms` and `figures`: the names of the terms of its loss and of the figures it logs beside them;
    - `couples_batch`: whether a row's loss depends on the other rows of its batch;
    - `uses_labels`, and `numbers_images`: whether a batch needs each image's number, `"index"`, in the array;
    - `view_counts`: how many views of an image it takes, a tuple of numbers; None for any;
    - `compares_pairs`: whether a batch may say of its pairs of views which are of a kind, `"same"`;
    - `sees_patches`: whether the backbone is shown patches, which one of open size, `(None, None, channels)`, takes as
      they are: what tells the command to make such a one;
    - `build_heads(width)`: creates and builds its heads, for pooled features of `(n, width)`;
    - `embed(views, training)`: a dict of named tensors whose first axis is the batch's;
    - `objective(outputs, batch)`: `(terms, figures)`, each a dict by name of either one value a row of this replica, or
      a scalar of the rows of all replicas (`keras_ssl.distribute.gather`). Terms are already weighted; the loss is
      their sum, and the reduction over rows and replicas is done here alone;
    - `tick(outputs, stepped)`: what changes once an optimizer step, after it (a teacher, a queue);
    - `begin_run(steps, done)`: what depends on how long `fit` will train; `frozen_layers()`: a teacher;
    - `trivial_losses(batch_size)`: the losses at which nothing is learned; `what_helps`: a sentence for who is there;
    - `task(images)`: what it asks about images, to be looked at;
    - `check_batch_size(batch_size)`: refuses what the method can't train on.

    Every argument of its `__init__` is kept as an attribute of the same name, as in scikit-learn: that is what is
    saved.

    Args:
        backbone: a Keras model from images to `(n, features)` or to a feature map `(n, height, width, channels)`. It
            sees images in their own value range.
        views: `keras_ssl.augment.Views`; None where batches hold views of your own, `{"views": (a, b)}`.
        value_range: lowest and highest value of the images.
        seed: integer, of the views and of the order of the images.
        **kwargs: `name`, and `dtype`, the backbone's unless given.
    """

    terms = ()
    figures = ()
    couples_batch = True
    uses_labels = False
    numbers_images = False
    sees_patches = False
    compares_pairs = False
    view_counts = None
    what_helps = "A smaller learning rate with a longer warm-up, and views that leave more of the image, usually help."

    def __init__(self, backbone, views=None, value_range=(0, 255), seed=0, **kwargs):
        if not isinstance(backbone, keras.layers.Layer):
            raise TypeError(f"`backbone` must be a Keras model; it is a {type(backbone).__name__}.")
        if views is not None and not isinstance(views, Views):
            raise TypeError(
                f"`views` must be keras_ssl.augment.Views, such as keras_ssl.augment.simclr(32); it is {views!r}."
            )
        kwargs.setdefault("dtype", backbone.dtype_policy)
        # Images of 0 … 255 would lose their last bits in half precision; each layer below casts for itself.
        super().__init__(autocast=False, **kwargs)
        self.backbone = backbone
        self.views = views
        self.value_range = checked_range(self, value_range)
        self.seed = int(seed)
        self.micro_batch_size = None  # set by compile
        self.images_a_step = None  # set by fit: over all replicas
        self.goes_on = False  # set by fit: its second half, after the rest of an epoch that was cut off
        self._check_view_ranges()
        if views is not None:
            self._check_view_count(len(views.branches), "`views` make")
        self._means = {name: keras.metrics.Mean(name=name) for name in (*self.terms, *self.figures)}
        self._said = set()
        self._made_under = distribute.current()

    # What a method writes.

    def build_heads(self, width):
        """Creates and builds the heads, for pooled features of `(n, width)`."""

    def embed(self, views, training):
        """Named tensors of the views: a dict, each `(n, …)` with a row for each image of this replica."""
        raise NotImplementedError(f"{type(self).__name__} must define embed(views, training).")

    def objective(self, outputs, batch):
        """`(terms, figures)` of what `embed` gave."""
        raise NotImplementedError(f"{type(self).__name__} must define objective(outputs, batch).")

    def tick(self, outputs, stepped):
        """Updates what changes once an optimizer step. `stepped`: boolean scalar tensor, whether there was one."""

    def begin_run(self, steps, done):
        """Called by `fit` before its first step: `steps` optimizer steps are the whole run, None where a stream's
        length is not known, and `done` of them lie behind it."""

    def frozen_layers(self):
        """Layers with copies of the student's, whose variables no optimizer moves: each has a `freeze()`."""
        return []

    def trivial_losses(self, batch_size):
        """A dict of sentence to loss: where the loss stays when nothing is learned, at this global batch size.

        A loss of 0 here is also what success looks like: `keras_ssl.callbacks.CollapseMonitor` then asks the spread of
        the embeddings.
        """
        return {}

    def task(self, images):
        """What the method asks about images: the arguments of `keras_ssl.evaluate.plots.task` beside them.

        Args:
            images: `(n, height, width, channels)`, views as `views` makes them.

        Returns:
            A dict of `pictures`, what the network is shown, `captions`, the answers, and `places` for patches; None
            where nothing but the views is shown.
        """
        return None

    def check_batch_size(self, batch_size):
        """Raises `ValueError` where the method can't train on batches of this many images, over all replicas."""

    # Building.

    def build(self, input_shape=None):
        if keras.config.image_data_format() != "channels_last":
            raise ValueError('Images are (n, height, width, channels): set image_data_format to "channels_last".')
        shape = _image_shape(input_shape) or _input_shape(self.backbone)
        if not self.backbone.built:
            self.backbone.build(shape)
        images = keras.KerasTensor(_input_shape(self.backbone) or shape, "float32")
        features = tuple(self.backbone.compute_output_spec(images).shape)
        if len(features) not in (2, 4) or features[-1] is None:
            raise ValueError(
                f"`backbone` must give (n, features) or (n, height, width, channels), and {self.backbone.name} gives "
                f"{features}. Cut it at a layer that does: keras.Model(backbone.input, layer.output)."
            )
        if self.views is not None:
            self._build_views(shape)
        self.step = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False, name="step")
        # Which term was the first that was not finite, counted from 1, and at which step.
        self.broken = self.add_weight(shape=(2,), dtype="int32", initializer="zeros", trainable=False, name="broken")
        self.build_heads(features[-1])
        self._built_heads = True
        for layer in self._layers_beside_backbone():
            batch_norm.use_global_statistics(layer)

    def _build_views(self, shape):
        expected = _input_shape(self.backbone)
        made = self.views.compute_output_shape(shape)[0]
        if expected and any(a and b and a != b for a, b in zip(expected[1:], made[1:])):
            raise ValueError(
                f"`views` make images of {made[1:]}, and {self.backbone.name} takes {expected[1:]}: give the policy "
                "the backbone's size."
            )
        if not self.views.built:
            self.views.build(shape)

    def _layers_beside_backbone(self):
        return [layer for layer in self.layers if layer is not self.backbone and layer is not self.views]

    def _check_view_count(self, count, who):
        if self.view_counts is not None and count not in self.view_counts:
            needed = " or ".join(map(str, self.view_counts))
            raise ValueError(f"{type(self).__name__} takes {needed} view(s) of an image, and {who} {count}.")

    def _check_view_ranges(self):
        for layer in flatten_layers(self.views) if self.views is not None else ():
            theirs = getattr(layer, "value_range", None)
            if theirs is not None and tuple(float(end) for end in theirs) != self.value_range:
                raise ValueError(
                    f"The view layer {layer.name} has value_range={tuple(theirs)}, and the model has "
                    f"{self.value_range}: give both the range of your images."
                )

    @property
    def trainable(self):
        return keras.Model.trainable.fget(self)

    @trainable.setter
    def trainable(self, value):
        keras.Model.trainable.fset(self, value)  # in every layer below, the teacher's as well
        self._freeze()

    def _freeze(self):
        for layer in self.frozen_layers() if getattr(self, "_built_heads", False) else ():
            layer.freeze()

    @property
    def losses(self):
        """The losses that layers add, without those of copies: a teacher has its student's layers, and no say."""
        copies = {id(loss) for layer in self.frozen_layers() for loss in layer.losses}
        return [loss for loss in super().losses if id(loss) not in copies]

    # The forward pass.

    def call(self, inputs, training=None):
        step = getattr(_running, "step", None)
        if step is not None and step.model is self:
            if distribute.steps_are_stateless():
                return as_one_call(lambda batch: self._embed_batch(batch, step.training), inputs)
            return self._embed_batch(inputs, step.training)
        if isinstance(inputs, (dict, tuple, list)):
            batch = standard_batch(inputs)
            inputs = batch["image"] if "image" in batch else batch["views"][0]
        return self.backbone(ops.cast(inputs, "float32"), training=training)

    def features(self, images, training=None):
        """The backbone's features as the heads see them: `(n, width)`, a feature map by its mean."""
        return pooled(self.backbone(images, training=training))

    def encode(self, function, views, training, one_pass):
        """`function(images, training)` of each view: a list, one a view.

        Args:
            one_pass: run the views as one batch, so that batch normalisation sees all of them; else one after another.
                The views of an image lie side by side, so that ghost batches and micro-batches hold all of them.
        """
        if not one_pass:
            return [function(view, training) for view in views]
        side_by_side = ops.reshape(ops.stack(views, axis=1), (-1, *views[0].shape[1:]))
        embedded = function(side_by_side, training)
        embedded = ops.reshape(embedded, (-1, len(views), *embedded.shape[1:]))
        return [embedded[:, number] for number in range(len(views))]

    def projected(self, images, training=None):
        """What the objective compares: the projection of the features, or, without a projector, the features."""
        return self.features(images, training=training)

    def draws(self, purpose):
        """The `Draws` of the rows that are being embedded, for what a method draws beside its views.

        Args:
            purpose: string; draws of another purpose are independent of these.
        """
        return _running.step.draws.fold(purpose)

    def for_backbone(self, patches):
        """Patches in the size that the backbone takes: resized where that is fixed, else as they are.

        Args:
            patches: a list of tensors `(n, size, size, channels)`.
        """
        shape = _input_shape(self.backbone) or (None, None, None, None)
        height, width = (fixed or side for fixed, side in zip(shape[1:3], patches[0].shape[1:3]))
        if (height, width) == tuple(patches[0].shape[1:3]):
            return patches
        return [ops.image.resize(patch, (height, width)) for patch in patches]

    def _embed_batch(self, batch, training):
        """What `embed` gives of the batch's views, in one go or micro-batch by micro-batch."""
        if "same" in batch and not self.compares_pairs:
            raise ValueError(
                f'{type(self).__name__} takes both views of a pair as being of a kind, and this batch has "same": '
                "leave out the pairs that are not, and the entry, or train a keras_ssl.Siamese."
            )
        count = ops.shape(keras.tree.flatten(batch)[0])[0]
        rows = distribute.first_row(count) + ops.arange(count, dtype="int32")

        def embed(part):
            return self.embed(self._views_of(part["batch"], part["rows"], training), training=training)

        whole = {"batch": batch, "rows": rows}
        if self.micro_batch_size is None:
            return embed(whole)
        return micro_batches.embed(self, embed, whole, self.micro_batch_size)

    def _views_of(self, batch, rows, training):
        draws = Draws(self.seed, rows).fold(self.step if training else _EVALUATION)
        _running.step.draws = draws
        if "views" in batch:
            self._check_view_count(len(batch["views"]), "this batch has")
            return tuple(ops.cast(view, "float32") for view in batch["views"])
        if self.views is None:
            raise ValueError(
                f"{type(self).__name__} has no `views` to make of images: pass views=keras_ssl.augment.simclr(size), "
                'or batches {"views": (view_a, view_b)}.'
            )
        return self.views(batch["image"], draws=draws)

    # The loss: the one place that reduces over rows and replicas.

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        terms, figures = self.objective(y_pred, x)
        for kind, given, stated in (("terms", terms, self.terms), ("figures", figures, self.figures)):
            if set(given) != set(stated):
                raise ValueError(
                    f"{type(self).__name__}.{kind} states {stated}, and objective() gave {tuple(given)}: "
                    "make them agree."
                )
        reduced = {name: self._reduced(name, term) for name, term in terms.items()}
        if training:
            self._mark_broken([reduced[name] for name in self.terms])
        total = sum(reduced.values())
        for name, figure in figures.items():
            self._reduced(name, figure)
        if self.losses:
            total += super().compute_loss()  # regularisers and add_loss of the user's layers, scaled by Keras
        return total

    def _reduced(self, name, values):
        """This replica's share of a term: strategies sum the shares, and their gradients."""
        mean = ops.mean(ops.cast(values, "float32"))
        # Each replica logs the mean of its rows, or the scalar that all share; over equal replicas both average right.
        self._means[name].update_state(ops.stop_gradient(mean))
        return mean / distribute.replicas()

    def _mark_broken(self, terms):
        """Keeps the number of the first term that is not finite: `Watch` reads it now and then; the step goes on."""
        wrong = ops.stop_gradient(ops.cast(ops.logical_not(ops.isfinite(ops.stack(terms))), "float32"))
        wrong = distribute.global_sum(wrong) > 0.0
        number = ops.cast(ops.argmax(ops.cast(wrong, "int32")), "int32") + 1
        now = ops.stack([number, ops.cast(ops.convert_to_tensor(self.step), "int32")])
        broken = ops.convert_to_tensor(self.broken)
        self.broken.assign(ops.where(ops.logical_and(ops.any(wrong), broken[0] == 0), now, broken))

    def check_finite(self):
        """Raises `FloatingPointError` with the name of the first term of the loss that was not finite, if one was."""
        number, step = ops.convert_to_numpy(self.broken)
        if number:
            self.broken.assign([0, 0])
            raise FloatingPointError(
                f"{type(self).__name__}: the term {self.terms[number - 1]!r} of the loss became NaN or infinite at "
                f"step {step}, and what was trained since is lost. A smaller learning rate or a longer warm-up usually "
                "helps; with half precision try float32. Load the last checkpoint, or make the model anew."
            )

    def check_logs(self, logs):
        """Raises `ValueError` where what an epoch logged shows that nothing can be learned."""

    def check_rows(self, rows):
        """Raises `ValueError` where the method can't train on an array of this many images."""

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        # Keras calls this after the optimizer, with the outputs of the forward pass: what tick() reads.
        step = getattr(_running, "step", None)
        if step is not None:
            step.outputs = y_pred
        return self.get_metrics_result()

    # The step.

    def train_step(self, *args):
        *state, given = args
        batch = standard_batch(given)
        with distribute.after(batch), _Step(self, training=True) as step:
            # Nothing but a call stands in here: torch.compile fails on a longer body of two contexts on Python 3.11.
            return self._stateless_train_step(state[0], batch, step) if state else self._train_step(batch, step)

    def _train_step(self, batch, step):
        """TensorFlow and torch: variables are assigned as they change."""
        before = ops.convert_to_tensor(self.optimizer.iterations) * 1
        logs = super().train_step((batch,))
        self._after_optimizer(step.outputs, before)
        return logs

    def _stateless_train_step(self, state, batch, step):
        """JAX: state goes in and out as values."""
        with keras.StatelessScope(state_mapping=list(zip(self.optimizer.variables, state[2]))):
            before = ops.convert_to_tensor(self.optimizer.iterations)
        logs, (trainable, others, optimizer, metrics) = super().train_step(state, (batch,))
        mapping = [
            *zip(self.trainable_variables, trainable),
            *zip(self.non_trainable_variables, others),
            *zip(self.optimizer.variables, optimizer),
        ]
        with keras.StatelessScope(state_mapping=mapping) as scope:
            self._after_optimizer(step.outputs, before)
        others = [scope.get_current_value(variable) for variable in self.non_trainable_variables]
        return logs, (trainable, others, optimizer, metrics)

    def _after_optimizer(self, outputs, before):
        # Where accumulation or the scaling of half precision leaves a step out, the optimizer's count stands still.
        stepped = ops.not_equal(ops.convert_to_tensor(self.optimizer.iterations), before)
        self.tick(keras.tree.map_structure(ops.stop_gradient, outputs), stepped)
        self.step.assign(self.step + 1)

    def test_step(self, *args):
        *state, given = args
        batch = standard_batch(given)
        with distribute.after(batch), _Step(self, training=False):
            return super().test_step(*state, (batch,))

    # What the user calls.

    def compile(
        self,
        optimizer="adam",
        loss=None,
        loss_weights=None,
        metrics=None,
        weighted_metrics=None,
        run_eagerly=False,
        steps_per_execution=1,
        jit_compile="auto",
        auto_scale_loss=True,
        micro_batch_size=None,
    ):
        """Sets the optimizer, and how the step is run; as Keras' own, less what a method brings along itself.

        Args:
            optimizer: a Keras optimizer. `gradient_accumulation_steps` is refused where rows of a batch are compared
                with each other: a mean of small batches is not the large one.
            run_eagerly, steps_per_execution, jit_compile, auto_scale_loss: as of `keras.Model.compile`.
            micro_batch_size: images that are in the network at a time, on each device; it must divide the images of a
                device. The step stays that of the whole batch (`keras_ssl.micro_batches`), but batch normalisation
                sees one micro-batch at a time. None for the whole batch at once.
            loss, loss_weights, metrics, weighted_metrics: refused.
        """
        given = {"loss": loss, "loss_weights": loss_weights, "metrics": metrics, "weighted_metrics": weighted_metrics}
        for name, value in given.items():
            if value is not None:
                raise ValueError(
                    f"compile: `{name}` is {value!r}, but {type(self).__name__} brings its loss and figures itself. "
                    f"Leave `{name}` out; for downstream figures pass keras_ssl.callbacks.KNNProbe to `fit`."
                )
        optimizer = keras.optimizers.get(optimizer)
        warn_of_rate(optimizer)
        if self.couples_batch and (getattr(optimizer, "gradient_accumulation_steps", None) or 1) > 1:
            raise ValueError(
                f"compile: the optimizer has gradient_accumulation_steps={optimizer.gradient_accumulation_steps}, but "
                f"{type(self).__name__} compares the rows of a batch, and the mean of small batches is not the large "
                "batch: it would see fewer negatives, or coarser statistics. Leave accumulation out."
            )
        if micro_batch_size is not None and not (isinstance(micro_batch_size, int) and micro_batch_size > 0):
            raise ValueError(f"compile: `micro_batch_size` must be a positive integer; it is {micro_batch_size!r}.")
        self.micro_batch_size = micro_batch_size
        if not self.built and _input_shape(self.backbone):
            self.build()  # so that summary() and save() know all parts before the first batch
        uncompilable = self.views.uncompilable if self.views is not None else []
        if uncompilable and (jit_compile is True or (jit_compile == "auto" and keras.backend.backend() == "jax")):
            warnings.warn(
                f"These layers of the views can't be compiled by XLA: {', '.join(uncompilable)}. The whole training "
                "step runs uncompiled because of them."
            )
            jit_compile = False
        super().compile(
            optimizer=optimizer,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=jit_compile,
            auto_scale_loss=auto_scale_loss,
        )
        self._compiled_with = {
            "optimizer": optimizer,
            "run_eagerly": run_eagerly,
            "steps_per_execution": steps_per_execution,
            "jit_compile": jit_compile,
            "auto_scale_loss": auto_scale_loss,
            "micro_batch_size": micro_batch_size,
        }

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        shuffle=True,
        class_weight=None,
        sample_weight=None,
        initial_epoch=0,
        steps_per_epoch=None,
        validation_steps=None,
        validation_batch_size=None,
        validation_freq=1,
    ):
        """Trains; as Keras' own, with batches of one size and an order that is a function of (seed, epoch).

        Args:
            x: images `(N, height, width, channels)`; a dict `{"image": …}` or `{"views": (a, b)}`; a split of
                `keras_ssl.data.load`; or a stream of batches: `tf.data.Dataset`, `PyDataset`, torch `DataLoader`.
            y: labels, for methods that use them.
            batch_size: images a batch, over all replicas; 256 if None.
            validation_data: in any form of `x`, or `(images, labels)`.
            class_weight, sample_weight: refused.
            epochs, verbose, callbacks, validation_split, shuffle, initial_epoch, steps_per_epoch, validation_steps,
                validation_batch_size, validation_freq: as of `keras.Model.fit`.

        Returns:
            Keras' `History`.
        """
        self._refuse_weights("fit", class_weight=class_weight, sample_weight=sample_weight)
        self._assert_compiled("fit")
        distribute.prepare(self, self._made_under)
        if validation_split:
            if not 0.0 < validation_split < 1.0:
                raise ValueError(f"fit: `validation_split` must lie between 0 and 1; it is {validation_split!r}.")
            if validation_data is not None:
                raise ValueError("fit: give `validation_data` or `validation_split`, not both.")
            whole = self._arrays(x, y, "validation_split")
            kept = int(len(keras.tree.flatten(whole)[0]) * (1.0 - validation_split))
            x, y = keras.tree.map_structure(lambda array: array[:kept], whole), None
            validation_data = keras.tree.map_structure(lambda array: array[kept:], whole)
        batches = self._batches(x, y, batch_size, shuffle, steps_per_epoch)
        self.images_a_step = self._global_size(batches)
        self.check_batch_size(self.images_a_step)
        callbacks = _with_callback(callbacks, Watch())
        if isinstance(batches, Batches):
            callbacks = _with_callback(callbacks, SetEpoch(batches, epochs))
        if validation_data is not None:
            images, labels = validation_data, None
            if isinstance(validation_data, (tuple, list)):
                images, labels = (*validation_data, None)[:2]
            size = validation_batch_size or self._global_size(batches)
            held_out = self._batches(images, labels, size, False, None, "validation_data")
            self._check_micro_batches(held_out)
            validation_data = self._feed(held_out)
        self._check_micro_batches(batches)
        if verbose != 0:
            replicas = distribute.description(self, self._global_size(batches))
            if replicas:
                self._say(replicas, replicas)
            self._say_dropped(batches)
        feed = self._feed(batches)
        self._build_for(feed)
        if distribute.replicas_of(self) > 1:
            batch_norm.warn_of_per_replica_layers(self)
        for callback in _each(callbacks):
            if hasattr(callback, "before_run"):
                callback.before_run(self)
        options = {
            "verbose": verbose,
            "validation_data": validation_data,
            "shuffle": False,
            "steps_per_epoch": None if isinstance(batches, Batches) else steps_per_epoch,
            "validation_steps": validation_steps,
            "validation_freq": validation_freq,
        }
        resume = next((callback for callback in _each(callbacks) if hasattr(callback, "restore")), None)
        if resume is not None:  # the last, for it keeps what the others log
            callbacks = [*(callback for callback in _each(callbacks) if callback is not resume), resume]
        initial_epoch, first = (resume and resume.restore(self, batches)) or (initial_epoch, 0)
        steps = steps_per_epoch or batches.steps
        self._begin_run(epochs, steps, initial_epoch, first)
        with contextlib.ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            stack.enter_context(nothing_lost(self))
            if resume is not None:
                stack.enter_context(resume.during_run())
            if batches.steps is None and steps_per_epoch is None:
                # A stream of unknown length ends when it ends; Keras would say that it ran out of data.
                warnings.filterwarnings("ignore", "Your input ran out of data")
            history, self.goes_on = None, False
            if first and initial_epoch < epochs:
                # The rest of an epoch is a run of its own, for Keras counts on epochs of one length.
                with batches.rest_of_epoch(first):
                    options_of_rest = {**options, "initial_epoch": initial_epoch, "epochs": initial_epoch + 1}
                    history = super().fit(self._feed(batches), callbacks=callbacks, **options_of_rest)
                initial_epoch += 1
            if history is None or (initial_epoch < epochs and not self.stop_training):
                if history is not None:
                    self.goes_on = True
                    # Keras ended the rest as a run (averaged weights, what on_train_end did): take what was saved.
                    resume.restore(self, batches)
                history = super().fit(feed, callbacks=callbacks, epochs=epochs, initial_epoch=initial_epoch, **options)
        if resume is not None:
            history.history = resume.history
            history.epoch = list(range(len(next(iter(resume.history.values()), ()))))
        return history

    def evaluate(
        self,
        x=None,
        y=None,
        batch_size=None,
        verbose="auto",
        sample_weight=None,
        steps=None,
        callbacks=None,
        return_dict=False,
        **kwargs,
    ):
        """The method's loss and figures, with views drawn by a fixed seed; as Keras' own otherwise.

        Batch normalisation runs in inference mode, as in every Keras evaluation. For what the features are worth
        downstream, see `keras_ssl.evaluate`.
        """
        self._refuse_weights("evaluate", sample_weight=sample_weight)
        self._assert_compiled("evaluate")
        if not kwargs.get("_use_cached_eval_dataset"):  # Keras' fit comes back here with what was fed before
            distribute.prepare(self, self._made_under)
            batches = self._batches(x, y, batch_size, False, None)
            self._check_micro_batches(batches)
            x = self._feed(batches)
        return super().evaluate(x, verbose=verbose, steps=steps, callbacks=callbacks, return_dict=return_dict, **kwargs)

    def predict(self, x, batch_size=None, verbose="auto", steps=None, callbacks=None):
        """The backbone's features of images; as Keras' own. Over several processes: `evaluate.extract_features`."""
        if distribute.processes_of(self)[0] > 1:
            raise ValueError(
                "predict: Keras can't collect outputs that lie in several processes. Use keras_ssl.evaluate."
                "extract_features(model, images), which computes them in each process by itself."
            )
        rows, replicas = len(x) if hasattr(x, "shape") else 0, distribute.replicas_of(self)
        if rows and replicas > 1:  # each replica must have as many: the last image is repeated, and cut off again
            distribute.refuse_size(self, None, batch_size or 32, "batch_size")
            x = np.asarray(x[np.minimum(np.arange(-(-rows // replicas) * replicas), rows - 1)])
        features = super().predict(x, batch_size=batch_size, verbose=verbose, steps=steps, callbacks=callbacks)
        return features[:rows] if rows else features

    # Data on its way in.

    @property
    def _parts_used(self):
        more = (("label",) if self.uses_labels else ()) + (("index",) if self.numbers_images else ())
        return ("image", "views", "same", *more)

    def _arrays(self, x, y, what):
        if isinstance(x, data.Split) and x.dataset is None:
            x, y = x.images, x.labels if self.uses_labels and y is None else y
        if not isinstance(x, (dict, tuple, list)) and data.is_stream(x) and not hasattr(x, "shape"):
            raise ValueError(f"`{what}` needs arrays, and this is a {type(x).__name__}: split the stream yourself.")
        if isinstance(x, (tuple, list)) and y is None:
            raise ValueError(
                f"`{what}` is a bare {type(x).__name__} of {len(x)}. Write fit(images, labels) for labels, or "
                '{"views": (view_a, view_b)} for views of your own.'
            )
        return standard_batch(x if y is None else (x, y))

    def _batches(self, x, y, batch_size, shuffle, steps, what="x"):
        """`Batches`, `Checked` or, for a stream of TensorFlow, `(dataset, batch_size, steps)` with checks in it."""
        if isinstance(x, data.Split) and x.dataset is not None:
            x = x.dataset
        if data.is_tf_dataset(x) or isinstance(x, keras.utils.PyDataset) or _is_iterable_stream(x):
            if batch_size is not None and what == "x":
                raise ValueError(
                    f"`batch_size` is {batch_size}, but a stream comes in batches of its own: leave it out."
                )
            if data.is_tf_dataset(x):
                stream = _Stream(*data.checked_stream(x, self.value_range, self._parts_used))
            else:
                stream = Checked(x, self.value_range, self._parts_used)
            self._check_parts(stream.parts, what)
            self._check_stream(stream, what)
            return stream
        arrays = self._arrays(x, y, what)
        self._check_parts({*arrays, "index"}, what)
        if self.uses_labels:
            _check_labels(type(self).__name__, arrays["label"], what)
        if self.numbers_images and "index" not in arrays:
            if what == "validation_data":
                raise ValueError(
                    f"`validation_data`: {type(self).__name__} makes each training image a class, and held-out images "
                    "belong to none: leave it out."
                )
            arrays["index"] = np.arange(len(keras.tree.flatten(arrays)[0]), dtype="int32")
        arrays = {name: part for name, part in arrays.items() if name in self._parts_used}
        arrays = keras.tree.map_structure(_array_like, arrays)
        rows = {len(array) for array in keras.tree.flatten(arrays)}
        if len(rows) > 1:
            raise ValueError(f"`{what}`: images, views and labels must be of one length; they have {sorted(rows)}.")
        rows, batch_size = rows.pop(), batch_size or 256
        if batch_size < 2 and self.couples_batch:
            raise ValueError(
                f"`batch_size` is {batch_size}: {type(self).__name__} compares images, and needs 2 or more."
            )
        if rows < batch_size:
            raise ValueError(
                f"`{what}` holds {rows} images, fewer than a batch of {batch_size}: pass batch_size={rows} or less."
            )
        self.check_rows(rows)
        for name in ("image", "views"):
            for images in keras.tree.flatten(arrays.get(name, ())):
                if hasattr(images, "__array_interface__"):
                    check_images(images, self.value_range, what)
        distribute.refuse_size(self, rows, batch_size, what)
        about = {"batch_size": batch_size, "the model's seed": self.seed, "the number of steps": steps or 0}
        distribute.refuse_differing(self, arrays, about, what)
        return Batches(arrays, batch_size, shuffle, self.seed, steps, share=distribute.share_of(self))

    def _check_parts(self, parts, what):
        """Says what is not used, and refuses what lacks something."""
        name = type(self).__name__
        if "label" in parts and not self.uses_labels:
            self._say("labels", f"{name} learns without labels: those that were given are not used.")
        if self.uses_labels and "label" not in parts:
            raise ValueError(f"`{what}`: {name} was made with labels=True and needs them: write fit(images, labels).")
        if self.numbers_images and "index" not in parts:
            raise ValueError(
                f'`{what}`: {name} makes each image a class, and needs its number: {{"image": …, "index": …}}.'
            )

    def _check_stream(self, stream, what):
        distribute.refuse_size(self, None, self._global_size(stream), what)
        if distribute.processes_of(self)[0] == 1:
            return
        about = {"the size of a batch": stream.batch_size, "the number of batches": stream.steps or 0}
        if distribute.share_of(self)[0] > 1:
            first = next(iter(stream.dataset)) if isinstance(stream, _Stream) else stream[0]
            distribute.refuse_shared(self, keras.tree.map_structure(ops.convert_to_numpy, first), about, what)
        elif isinstance(stream, Checked):
            distribute.refuse_differing(self, stream[0], about, what)
        # else a tf.data.Dataset, which TensorFlow deals to the workers as its options say.

    def _global_size(self, batches):
        """Images of a batch over all processes; those of a stream on JAX are this process's."""
        shares = 1 if isinstance(batches, Batches) else distribute.share_of(self)[0]
        return batches.batch_size * shares

    def _feed(self, batches):
        if isinstance(batches, _Stream):
            return batches.dataset
        return data.feed(batches, distribute.dealing_order(self, batches.batch_size))

    def _build_for(self, feed):
        """Creates all variables before the first step is traced, the optimizer's as well."""
        with distribute.scope_of(self):
            self._freeze()  # what was thawed on the teacher itself, behind the model's back
            if not self.built:
                first = next(iter(feed)) if data.is_tf_dataset(feed) else feed[0]
                self.build(keras.tree.map_structure(lambda part: tuple(part.shape), first))
            if not self.optimizer.built:
                self.optimizer.build(self.trainable_variables)

    def _begin_run(self, epochs, steps, initial_epoch, first):
        together = getattr(self.optimizer, "gradient_accumulation_steps", None) or 1
        total = None if steps is None else epochs * steps // together
        self.begin_run(total, ((steps or 0) * initial_epoch + first) // together)

    def _check_micro_batches(self, batches):
        if self.micro_batch_size is not None:
            micro_batches.check_size(self.micro_batch_size, self._global_size(batches), distribute.replicas_of(self))
            micro_batches.check_batch_norm(self, self.micro_batch_size)

    def _say_dropped(self, batches):
        left = batches.rows % batches.batch_size if isinstance(batches, Batches) else 0
        if left:
            self._say(
                "dropped",
                f"{batches.rows} images make {batches.steps_a_pass} batches of {batches.batch_size}; the {left} that "
                f"are left over {'are others in each pass' if batches.shuffle else 'at the end are not used'}.",
            )

    def _say(self, about, sentence):
        """Prints a sentence, once in the life of this model."""
        if about not in self._said:
            self._said.add(about)
            print(f"keras_ssl: {sentence}")

    def _refuse_weights(self, method, **given):
        for name, value in given.items():
            if value is not None:
                raise ValueError(f"{method}: `{name}` has no meaning for a self-supervised loss: leave it out.")

    def _assert_compiled(self, method):
        if not self.compiled:
            raise ValueError(f"Call compile(optimizer=…) before {method}().")

    # Saving.

    def get_config(self):
        config = {"name": self.name, "dtype": keras.dtype_policies.serialize(self.dtype_policy)}
        for name in _init_arguments(type(self)):
            config[name] = keras.saving.serialize_keras_object(getattr(self, name))
        return config

    @classmethod
    def from_config(cls, config):
        return cls(**{name: keras.saving.deserialize_keras_object(value) for name, value in config.items()})

    def get_compile_config(self):
        return keras.saving.serialize_keras_object(self._compiled_with) if self.compiled else {}

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def _seed_states(self):
        """The states of all seed generators below: they are in `variables`, and Keras saves `weights` alone."""
        weights = {id(weight) for weight in self.weights}
        return [variable for variable in self.variables if id(variable) not in weights]

    def save_own_variables(self, store):
        super().save_own_variables(store)
        for place, state in enumerate(self._seed_states()):
            store[f"seed_{place}"] = ops.convert_to_numpy(state)

    def load_own_variables(self, store):
        names = list(store.keys())
        super().load_own_variables({name: store[name] for name in names if not name.startswith("seed_")})
        for place, state in enumerate(self._seed_states()):
            if f"seed_{place}" in names:  # absent in files of another library, or of a model without random layers
                state.assign(store[f"seed_{place}"][...])


def pooled(features):
    """`(n, width)`: features as they are, and a feature map by its mean."""
    return ops.mean(features, axis=(1, 2)) if len(features.shape) == 4 else features


class Watch(keras.callbacks.Callback):
    """Stops a run that can't learn: where a term is not finite, or where an epoch's figures say so.

    The step itself keeps what it finds, and it is read every so many batches: no step waits for the host.
    """

    def __init__(self, every=100):
        super().__init__()
        self.every, self.seen = every, 0

    def on_train_batch_end(self, batch, logs=None):
        # With steps_per_execution this is not called for every batch.
        if batch // self.every != self.seen:
            self.seen = batch // self.every
            self.model.check_finite()

    def on_epoch_begin(self, epoch, logs=None):
        self.seen = 0

    def on_epoch_end(self, epoch, logs=None):
        self.model.check_finite()
        self.model.check_logs(logs or {})


class _Step:
    """Marks this thread as running a step of a model, until the step ends or fails."""

    def __init__(self, model, training):
        self.model, self.training, self.outputs, self.draws = model, training, None, None

    def __enter__(self):
        self._outer = getattr(_running, "step", None)
        _running.step = self
        return self

    def __exit__(self, *exception):
        _running.step = self._outer


class _Stream:
    def __init__(self, dataset, batch_size, steps, parts):
        self.dataset, self.batch_size, self.steps, self.parts = dataset, batch_size, steps, parts


def _is_iterable_stream(x):
    return (
        not isinstance(x, (dict, tuple, list, data.ImageFiles)) and not hasattr(x, "shape") and hasattr(x, "__iter__")
    )


def _check_labels(method, labels, what):
    """Refuses labels that make no pairs, where a method makes its pairs by labels."""
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iub" or labels.ndim not in (1, 2) or (labels.ndim == 2 and labels.shape[1] != 1):
        raise ValueError(
            f"`{what}`: labels must be one integer an image, and are {labels.dtype} of shape {labels.shape}: write "
            'labels.astype("int32"), or argmax(axis=1) for one-hot rows.'
        )
    _, counts = np.unique(labels, return_counts=True)
    if len(counts) < 2 or counts.max() < 2:
        nothing = "all images have one label" if len(counts) < 2 else "no two images have one label"
        raise ValueError(f"`{what}`: {nothing}, so there is nothing for {method} to learn from labels.")


def _array_like(array):
    if hasattr(array, "__array_interface__") or isinstance(array, data.ImageFiles):
        return array
    return ops.convert_to_numpy(array)


def _with_callback(callbacks, callback):
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks.append(callback)
        return callbacks
    callbacks = [] if callbacks is None else callbacks
    return [callback, *(callbacks if isinstance(callbacks, (list, tuple)) else [callbacks])]


def _each(callbacks):
    return callbacks.callbacks if isinstance(callbacks, keras.callbacks.CallbackList) else callbacks


def _input_shape(backbone):
    """The shape that the backbone was made for, or None where it is open."""
    with contextlib.suppress(AttributeError, ValueError):
        shape = backbone.input_shape
        if isinstance(shape, tuple) and all(not isinstance(part, tuple) for part in shape):
            return shape
    return None


def _image_shape(input_shape):
    """The shape of the images in whatever shapes Keras gives to `build`: a shape, or a dict of shapes."""
    if isinstance(input_shape, dict):
        input_shape = input_shape.get("image") or input_shape.get("views")
    if input_shape and isinstance(input_shape[0], (tuple, list)):
        input_shape = input_shape[0]
    return tuple(input_shape) if input_shape else None


def _init_arguments(cls):
    """The names of all arguments that `cls` and its bases, up to this one, take by name."""
    names = []
    for base in cls.__mro__[: cls.__mro__.index(SelfSupervisedModel) + 1]:
        if "__init__" in vars(base):
            parameters = list(inspect.signature(base.__init__).parameters.values())[1:]
            names += [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.name not in names]
    return names
