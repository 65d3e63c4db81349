"""SwAV: each view predicts to which prototypes the other views of its image were dealt."""

import functools
import math

import keras
from keras import ops

from keras_ssl import augment, distribute, heads, losses
from keras_ssl.augment.policies import default_views
from keras_ssl.losses.clusters import check_sinkhorn, check_temperatures, entropy, spread
from keras_ssl.model import SelfSupervisedModel
from keras_ssl.progress import Progress, check_part
from keras_ssl.prototypes import Prototypes, check_count
from keras_ssl.queue import Queue, check_size
from keras_ssl.shapes import OrMore

_CODED = 2  # views that get codes: the first, which are the large crops


@keras.saving.register_keras_serializable("keras_ssl")
class SwAV(SelfSupervisedModel):
    """SwAV (Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments", 2020).

    The embeddings of the first two views are compared with prototypes, and dealt to them so that all prototypes get the
    same share of the global batch (Sinkhorn-Knopp, eq. 3 to 5); each other view of the image predicts that (eq. 1 and
    2). There are no negatives and no teacher: it can't be that all images are dealt to one prototype.

    Batches should be larger than the number of prototypes, or the shares mean little. For smaller ones there is the
    paper's queue: with `memory=3840` the embeddings of past batches are dealt along with the batch.

    Term: `swav`. Metrics: `spread`, the standard deviation of the embeddings' dimensions, times √d: near 1 where they
    fill the sphere, 0 where all are one; `prototypes_used`, the exponential of the entropy of the mean prediction: all
    of them, or 1 where all images are at one.

    Args:
        backbone: a Keras model from images to `(n, features)` or a feature map.
        views: two views or more, of which the first two are dealt: for a backbone of open size the paper's large and
            small crops, `augment.swav(224)`. None for its two large crops alone at the backbone's size
            (`augment.swav(size, locals=0)`), or for images of one channel and up to 64 pixels `augment.small_gray`.
        projector: None for the paper's: 2048 with batch normalization and ReLU, then 128. `keras.layers.Identity()` for
            none.
        prototypes: how many, 2 or more.
        temperature: of the predictions, above 0.
        epsilon, iterations: of `losses.sinkhorn_knopp`.
        memory: embeddings of each of the two views that the queue holds, a batch or more; 0 for no queue. They are
            dealt along once the queue is full. `evaluate` uses the queue, and never changes it.
        frozen_steps: how long the prototypes stay as they begin: a whole number of optimizer steps, or a part of the
            run as a float. The paper: one epoch.
        memory_start: when the queue begins to fill, likewise. The paper: after 15 of 200 epochs.
        one_pass: run the views of one size as one batch, and the projector on all of them, as the authors' code does,
            so that batch normalization sees them together; else one view after the other.
        **kwargs: `value_range`, `seed`, `name`, `dtype`: see `SelfSupervisedModel`.
    """

    terms = ("swav",)
    metric_names = ("spread", "prototypes_used")
    view_counts = (OrMore(2),)
    collapse_advice = (
        "Fewer prototypes than a batch has images, an `epsilon` of 0.05 or less, and a smaller learning rate with "
        "warm-up usually help."
    )

    def __init__(
        self,
        backbone,
        views=None,
        projector=None,
        prototypes=3000,
        temperature=0.1,
        epsilon=0.05,
        iterations=3,
        memory=0,
        frozen_steps=0.01,
        memory_start=0.075,
        one_pass=True,
        **kwargs,
    ):
        check_count("SwAV: `prototypes`", prototypes)
        check_temperatures("SwAV", temperature=temperature)
        check_sinkhorn("SwAV", epsilon, iterations)
        if not isinstance(memory, int) or memory < 0:
            raise ValueError(f"SwAV: `memory` must be a number of embeddings, or 0 for no queue; it is {memory!r}.")
        check_part("SwAV: `frozen_steps`", frozen_steps)
        check_part("SwAV: `memory_start`", memory_start)
        super().__init__(backbone, views, **kwargs)
        self.projector = projector
        self.prototypes = prototypes
        self.temperature = temperature
        self.epsilon = epsilon
        self.iterations = iterations
        self.memory = memory
        self.frozen_steps = frozen_steps
        self.memory_start = memory_start
        self.one_pass = one_pass

    def default_views(self):
        return default_views(self.backbone, self.value_range, functools.partial(augment.swav, locals=0))

    def build_heads(self, width):
        if self.projector is None:
            self.projector = heads.mlp([2048, 128], last_batch_norm=False, name="projector", dtype=self.dtype_policy)
        heads.build(self.projector, width)
        width = heads.width_of(self.projector, width)
        self.scores = Prototypes(self.prototypes, name="prototypes")
        self.scores.build((None, width))
        self.progress = Progress(name="progress")
        self.progress.build()
        self.queue = Queue(self.memory, name="queue") if self.memory else None
        if self.queue is not None:
            self.queue.build((None, _CODED * width))

    def embed(self, views, training):
        features = self.map_views(self.features, views, training, self.one_pass)
        embeddings = self.map_views(self.projector, features, training, self.one_pass)
        return {"embeddings": losses.normalized(ops.stack(embeddings, axis=1))}

    def objective(self, outputs, batch):
        embeddings = outputs["embeddings"]
        scores = ops.unstack(self.scores(embeddings, self.progress.within(self.frozen_steps)), axis=1)
        codes = [self._codes(view, place) for place, view in enumerate(scores[:_CODED])]
        predicted = ops.softmax(distribute.gather(scores[0]) / self.temperature, axis=1)
        return (
            {"swav": losses.swav(scores, codes, self.temperature)},
            {
                "spread": spread(distribute.gather(embeddings[:, 0])),
                "prototypes_used": ops.exp(entropy(ops.mean(predicted, axis=0))),
            },
        )

    def _codes(self, scores, place):
        """The codes of this replica's rows of a view, dealt over the global batch and the queue."""
        everybody, valid = distribute.gather(ops.stop_gradient(scores)), None
        total, count = ops.shape(everybody)[0], ops.shape(scores)[0]
        if self.queue is not None:
            past, held = self.queue.negatives()
            past = ops.split(past, _CODED, axis=1)[place]
            everybody = ops.concatenate([everybody, ops.stop_gradient(self.scores(past))])
            full = ops.logical_and(held, ops.all(held))
            valid = ops.concatenate([ops.ones((total,), "bool"), full])
        codes = losses.sinkhorn_knopp(everybody, self.epsilon, self.iterations, valid)
        return ops.take(codes, distribute.row_offset(count) + ops.arange(count, dtype="int32"), axis=0)

    def after_optimizer_step(self, outputs, stepped):
        if self.queue is not None:
            coded = distribute.gather(outputs["embeddings"])[:, :_CODED]
            begun = ops.logical_not(self.progress.within(self.memory_start))
            rows = ops.reshape(coded, (-1, _CODED * coded.shape[-1]))
            self.queue.push(rows, ops.logical_and(stepped, begun))
        self.progress.tick(stepped)

    def held_variables(self):
        return [(self.scores.kernel, self.progress.within(self.frozen_steps))] if self.frozen_steps else []

    def on_run_begin(self, total_steps, initial_step):
        parts = {"frozen_steps": self.frozen_steps, **({"memory_start": self.memory_start} if self.memory else {})}
        self.progress.on_run_begin(total_steps, initial_step, **parts)

    def check_batch_size(self, batch_size):
        if batch_size is not None and self.memory:
            check_size("SwAV: `memory`", self.memory, batch_size)

    def collapse_losses(self, batch_size):
        return {"all images are as near to one prototype as to any other": math.log(self.prototypes)}
