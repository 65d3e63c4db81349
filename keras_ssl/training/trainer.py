"""How a method is trained: Keras' `compile`, `fit`, `evaluate` and `predict`, and this library's one `train_step`."""

import contextlib
import warnings

import keras
import numpy as np
from keras import ops

from keras_ssl import backbones, backend, batch_norm, distribute, fused, micro_batches, regularizers
from keras_ssl.data import adapter, sharding, streams
from keras_ssl.data.batch import standard_batch
from keras_ssl.data.lazy import LazyArray, blocks
from keras_ssl.data.tf_data import plain_errors
from keras_ssl.keras_compat import is_evaluation_of_fit
from keras_ssl.optimizers import tell_backbone, warn_of_rate
from keras_ssl.optimizers.half_precision import scaled
from keras_ssl.training import agreement, finite, preflight
from keras_ssl.training.run import Run
from keras_ssl.training.step import Step, step_of


class Trainer(keras.Model):
    """Trains what a subclass states: `keras_ssl.SelfSupervisedModel`, which says what a method writes.

    A subclass has `backbone`, `views` and `seed`, embeds a batch in `call` while a step of its own runs, and gives the
    named terms of its loss by `objective`. All that Keras does in `fit` is here; nothing of it knows a method.
    """

    def _init_training(self):
        """What training needs, before anything is built."""
        self.micro_batch_size = None  # set by compile
        self.global_batch_size = None  # set by fit: images of a step, over all replicas
        self.continues_epoch = False  # set by fit: its second part, after the rest of an epoch that was cut off
        self._means = {name: keras.metrics.Mean(name=name) for name in (*self.terms, *self.metric_names)}
        self._notices = set()
        self._creation_strategy = backend.current_strategy()

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
        fused_layers="auto",
    ):
        """Sets the optimizer, and how the step is run; as Keras' own, less what a method brings along itself.

        Args:
            optimizer: a Keras optimizer. `gradient_accumulation_steps` is refused where rows of a batch are compared
                with each other: a mean of small batches is not the large one.
            run_eagerly, steps_per_execution, jit_compile, auto_scale_loss: as of `keras.Model.compile`; the loss is
                scaled where any layer that learns is in mixed_float16, whatever policy the model itself says.
            micro_batch_size: images that are in the network at a time, on each device; it must divide the images of a
                device. The step stays that of the whole batch (`keras_ssl.micro_batches`), but batch normalization
                sees one micro-batch at a time. None for the whole batch at once.
            fused_layers: "auto" to compute batch normalization, and on torch convolutions, by one operation of the
                framework while a step runs on one replica (`keras_ssl.fused`); False to leave them to Keras.
            loss, loss_weights, metrics, weighted_metrics: refused.
        """
        optimizer = keras.optimizers.get(optimizer)
        given = {"loss": loss, "loss_weights": loss_weights, "metrics": metrics, "weighted_metrics": weighted_metrics}
        preflight.check_compile(self, optimizer, micro_batch_size, given)
        fused.check(fused_layers)
        warn_of_rate(optimizer)
        tell_backbone(optimizer, self.backbone)
        self.fused_layers = fused_layers
        self.micro_batch_size = micro_batch_size
        if not self.built and backbones.input_shape(self.backbone):
            # So that summary() and save() know all parts before the first batch; with a shape, which export() asks for.
            self.build(backbones.input_shape(self.backbone))
        self._freeze()  # what was thawed, or frozen, since
        uncompilable = self.views.uncompilable if self.views is not None else []
        if uncompilable and (jit_compile is True or (jit_compile == "auto" and backend.COMPILES_BY_DEFAULT)):
            warnings.warn(
                f"These layers of the views can't be compiled by XLA: {', '.join(uncompilable)}. The whole training "
                "step runs uncompiled because of them."
            )
            jit_compile = False
        options = {
            "run_eagerly": run_eagerly,
            "steps_per_execution": steps_per_execution,
            "jit_compile": jit_compile,
            "auto_scale_loss": auto_scale_loss,
        }
        without = (self.views, *self.frozen_layers())
        super().compile(scaled(optimizer, self, without) if auto_scale_loss else optimizer, **options)
        self._compiled_with = {
            "optimizer": optimizer,
            **options,
            "micro_batch_size": micro_batch_size,
            "fused_layers": fused_layers,
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
                `keras_ssl.data.load`; or a stream of batches: `tf.data.Dataset`, `PyDataset`, torch `DataLoader`, any
                iterable. Pairs that come with whether they are of a kind, `fit((left, right), same)`, and triples,
                `fit((anchors, positives, negatives))`, where the method compares those.
            y: labels, for methods that use them.
            batch_size: images per batch, over all replicas; 256 if None. The last partial batch is dropped.
            validation_data: in any form of `x`, or `(images, labels)`; its last partial batch is dropped as well.
            class_weight, sample_weight: refused.
            epochs, verbose, callbacks, validation_split, shuffle, initial_epoch, steps_per_epoch, validation_steps,
                validation_batch_size, validation_freq: as of `keras.Model.fit`.

        Returns:
            Keras' `History`.
        """
        self._check_can_run("fit", class_weight=class_weight, sample_weight=sample_weight)
        for name, number in (("epochs", epochs), ("initial_epoch", initial_epoch)):
            if not isinstance(number, (int, np.integer)):
                raise TypeError(f"fit: `{name}` is a whole number; it is {number!r}.")
        if validation_split:
            if validation_data is not None:
                raise ValueError("fit: give `validation_data` or `validation_split`, not both.")
            (x, validation_data), y = adapter.split_validation(x, y, self.needs(), validation_split), None
        feed = self._adapt(x, y, "x", batch_size=batch_size, shuffle=shuffle, steps=steps_per_epoch)
        self.global_batch_size = feed.global_batch_size
        self.check_batch_size(feed.global_batch_size)
        if validation_data is not None:
            size = validation_batch_size or feed.global_batch_size
            validation_data = self._adapt(
                *adapter.images_and_labels(validation_data),
                "validation_data",
                batch_size=size,
                steps=validation_steps,
            )
        self._build_for(feed)
        if verbose != 0:
            for about, sentence in preflight.sentences(self, feed, validation_data).items():
                self._notify_once(about, sentence)
        run = Run(self, feed, callbacks, epochs, initial_epoch)
        with feed.reading_ahead(), validation_data.reading_ahead() if validation_data else contextlib.nullcontext():
            return run.train(
                super().fit,
                verbose=verbose,
                validation_data=validation_data and validation_data.for_keras,
                validation_steps=validation_data and validation_data.steps_for_keras,
                validation_freq=validation_freq,
            )

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
        """The method's loss and metrics, with views drawn by a fixed seed; as Keras' own otherwise.

        Batch normalization runs in inference mode, as always in Keras, and the last partial batch does not count: give
        a `batch_size` that divides the images. What the features are worth downstream says `keras_ssl.evaluate`.
        """
        if is_evaluation_of_fit(kwargs):  # which is given what was adapted when `fit` began
            options = {"steps": steps, "callbacks": callbacks, "return_dict": return_dict, **kwargs}
            return super().evaluate(x, verbose=verbose, **options)
        self._check_can_run("evaluate", sample_weight=sample_weight)
        feed = self._adapt(x, y, "x", batch_size=batch_size, steps=steps)
        if not self.built and backend.processes_of(self)[0] > 1:  # each would make heads of its own
            self._build_for(feed)
        agreement.check_same_weights(self, "evaluate:")
        self._notify_once("dropped of evaluate", verbose and preflight.describe_dropped(feed, "evaluate: "))
        options = {"steps": feed.steps_for_keras, "callbacks": callbacks, "return_dict": return_dict, **kwargs}
        with plain_errors(), feed.reading_ahead():
            return super().evaluate(feed.for_keras, verbose=verbose, **options)

    def predict(self, x, batch_size=None, verbose="auto", steps=None, callbacks=None):
        """The backbone's features of images; as Keras' own. Over several processes: `evaluate.extract_features`.

        Args:
            x: images in any form that `fit` takes, a `keras_ssl.data.Split` among them.
            batch_size, verbose, steps, callbacks: as of `keras.Model.predict`.
        """
        if backend.processes_of(self)[0] > 1:
            raise ValueError(
                "predict: Keras can't collect outputs that lie in several processes. Use keras_ssl.evaluate."
                "extract_features(model, images), which computes them in each process by itself."
            )
        x = adapter.images_for_predict(x, self.value_range, rank=self.needs().image_rank)
        if isinstance(x, LazyArray):  # as many pictures in memory as fill a few batches
            some = 16 * (batch_size or 32)
            with contextlib.closing(blocks(x, some)) as parts:
                return np.concatenate([self.predict(part, batch_size, verbose, None, callbacks) for part in parts])
        rows, replicas = len(x) if hasattr(x, "shape") else 0, backend.replicas_of(self)
        if rows and replicas > 1:  # each replica must have as many: the last image is repeated, and cut off again
            sharding.check_size(self, None, batch_size or 32, "batch_size")
            x = np.asarray(x[np.minimum(np.arange(-(-rows // replicas) * replicas), rows - 1)])
        with plain_errors(), streams.up_to_its_end(steps):
            features = super().predict(x, batch_size=batch_size, verbose=verbose, steps=steps, callbacks=callbacks)
        return features[:rows] if rows else features

    def train_on_batch(self, x, y=None, sample_weight=None, class_weight=None, return_dict=False):
        """One step on one batch; as Keras' own, with the checks of `fit`."""
        self._check_can_run("train_on_batch", sample_weight=sample_weight, class_weight=class_weight)
        return super().train_on_batch(self._one_batch(x, y), return_dict=return_dict)

    def test_on_batch(self, x, y=None, sample_weight=None, return_dict=False):
        """The loss of one batch; as Keras' own, with the checks of `evaluate`."""
        self._check_can_run("test_on_batch", sample_weight=sample_weight)
        return super().test_on_batch(self._one_batch(x, y), return_dict=return_dict)

    def predict_on_batch(self, x):
        """The backbone's features of one batch of images; as Keras' own."""
        return super().predict_on_batch(adapter.images_for_predict(x, self.value_range, rank=self.needs().image_rank))

    # On the way into `fit`.

    def needs(self):
        """What this method asks of a batch: `keras_ssl.data.adapter.Needs`."""
        return adapter.Needs(
            method=type(self).__name__,
            value_range=self.value_range,
            seed=self.seed,
            labels=self.uses_labels,
            index=self.uses_index,
            batch_dependent=self.batch_dependent,
            pair_labels=self.uses_pair_labels,
            view_counts=self.view_counts,
            backbone=self.backbone,
        )

    def _one_batch(self, x, y):
        batch = adapter.check_given(x if y is None else (x, y), self.needs())
        self.global_batch_size = len(keras.tree.flatten(batch)[0]) * backend.shard_of(self)[0]
        with backend.scope_of(self):
            self._build(keras.tree.map_structure(lambda part: tuple(part.shape), batch))
        return batch

    def _adapt(self, x, y, what, **options):
        feed = adapter.adapt(x, y, self.needs(), self, what=what, **options)
        if feed.has_unused_labels:
            name = type(self).__name__
            self._notify_once("labels", f"{name} learns without labels: those that were given are not used.")
        if feed.rows is not None:
            self.check_rows(feed.rows)
        if self.micro_batch_size is not None:
            micro_batches.check_size(self.micro_batch_size, feed.global_batch_size, backend.replicas_of(self))
            micro_batches.check_batch_norm(self, self.micro_batch_size)
        return feed

    def _build_for(self, feed):
        """Creates all variables before the first step is traced, the optimizer's as well."""
        with backend.scope_of(self):
            self._build(feed.shapes(), share=True)
            preflight.check_views(self, feed.example)
        if backend.replicas_of(self) > 1:
            batch_norm.warn_of_per_replica_layers(self)

    def _build(self, shapes, share=False):
        share = share or not (self.built and self.optimizer.built)
        self._freeze()  # what was thawed on the teacher itself, behind the model's back
        if not self.built:
            self.build(shapes)
        if not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        if share:
            backend.share_weights(self)

    def _notify_once(self, about, sentence):
        """Prints a sentence, if there is one, once in the life of this model."""
        if sentence and about not in self._notices:
            self._notices.add(about)
            print(f"keras_ssl: {sentence}")

    def _check_can_run(self, method, **weights):
        for name, value in weights.items():
            if value is not None:
                raise ValueError(f"{method}: `{name}` has no meaning for a self-supervised loss: leave it out.")
        if not self.compiled:
            raise ValueError(f"Call compile(optimizer=…) before {method}().")
        preflight.check(self, self._creation_strategy)

    # The step.

    def train_step(self, *args):
        *state, given = args
        batch = standard_batch(given)
        with backend.step_scope(batch, self.optimizer), Step(self, training=True) as step:
            # Nothing but a call stands in here: torch.compile fails on a longer body of two contexts on Python 3.11.
            return self._stateless_train_step(state[0], batch, step) if state else self._train_step(batch, step)

    def _train_step(self, batch, step):
        """TensorFlow and torch: variables are assigned as they change."""
        before = self._before_optimizer()
        logs = fused.run(self, super().train_step, (batch,))
        batch_norm.share_statistics(self)
        self._after_optimizer(step.outputs, before)
        return logs

    def _stateless_train_step(self, state, batch, step):
        """JAX: state goes in and out as values."""
        with keras.StatelessScope(state_mapping=self._mapped(*state[:3])):
            before = self._before_optimizer()
        logs, (trainable, others, optimizer, accumulators) = super().train_step(state, (batch,))
        with keras.StatelessScope(state_mapping=self._mapped(trainable, others, optimizer)) as scope:
            self._after_optimizer(step.outputs, before)
        trainable = [scope.get_current_value(variable) for variable in self.trainable_variables]
        others = [scope.get_current_value(variable) for variable in self.non_trainable_variables]
        return logs, (trainable, others, optimizer, accumulators)

    def _mapped(self, trainable, others, optimizer):
        variables = [*self.trainable_variables, *self.non_trainable_variables, *self.optimizer.variables]
        return list(zip(variables, [*trainable, *others, *optimizer], strict=True))

    def _before_optimizer(self):
        """The optimizer's count, and `(variable, held, value)` of what this step may leave as it is."""
        # Times 1: on TensorFlow and torch a variable changes in place.
        values = [(v, held, ops.stop_gradient(ops.convert_to_tensor(v)) * 1) for v, held in self.held_variables()]
        return ops.convert_to_tensor(self.optimizer.iterations) * 1, values

    def _after_optimizer(self, outputs, before):
        iterations, values = before
        for variable, held, value in values:  # the optimizer's momentum and decay move what has no gradient, too
            variable.assign(ops.where(held, value, ops.convert_to_tensor(variable)))
        # Where accumulation or the scaling of half precision leaves a step out, the optimizer's count stands still.
        stepped = ops.not_equal(ops.convert_to_tensor(self.optimizer.iterations), iterations)
        self.after_optimizer_step(keras.tree.map_structure(ops.stop_gradient, outputs), stepped)
        self.step.assign(self.step + 1)

    def test_step(self, *args):
        *state, given = args
        batch = standard_batch(given)
        with backend.step_scope(batch), Step(self, training=False):
            return super().test_step(*state, (batch,))

    # The loss: the one place that reduces over rows and replicas.

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        outputs, more = regularizers.split(self, y_pred)
        terms, metrics = self.objective(outputs, x)
        terms = {**terms, **more}
        for kind, given, stated in (("terms", terms, self.terms), ("metric_names", metrics, self.metric_names)):
            if set(given) != set(stated):
                raise ValueError(
                    f"{type(self).__name__}.{kind} states {stated}, and objective() gave {tuple(given)}: "
                    "make them agree."
                )
        reduced = {name: self._reduced(name, term) for name, term in terms.items()}
        if training:
            finite.record(self, [reduced[name] for name in self.terms])
        total = sum(reduced.values())
        for name, metric in metrics.items():
            self._reduced(name, metric)
        if self.losses:
            # Regularizers and add_loss of the user's layers: each replica has the whole, and Keras scales it.
            total += backend.share_of_loss(super().compute_loss())
        return backend.sum_as_value(total)

    def _reduced(self, name, values):
        """This replica's share of a term: strategies sum the shares, and their gradients."""
        mean = ops.mean(ops.cast(values, "float32"))
        # Each replica logs the mean of its rows, or the scalar that all share; over equal replicas both average right.
        self._means[name].update_state(backend.mean_over_processes(ops.stop_gradient(mean)))
        return mean / distribute.replicas()

    def check_finite(self):
        """Raises `FloatingPointError` with the name of the first term of the loss that was not finite, if one was."""
        finite.check(self)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        # Keras calls this after the optimizer, with the outputs of the forward pass: what after_optimizer_step() reads.
        step = step_of(self)
        if step is not None:
            step.outputs = y_pred
        return self.get_metrics_result()
