"""Jigsaw: the pieces of an image in another order. Which order is it?"""

import math

import keras
from keras import ops

from keras_ssl import augment, heads, losses
from keras_ssl.augment import patches
from keras_ssl.augment.rng import RowRNG
from keras_ssl.model import SelfSupervisedModel


@keras.saving.register_keras_serializable("keras_ssl")
class Jigsaw(SelfSupervisedModel):
    """Jigsaw puzzles (Noroozi & Favaro, "Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles",
    2016).

    The image is cut in `grid`×`grid` cells and a patch out of each; the patches are put in one of a set of orders, as
    different from each other as can be (`augment.patches.permutations`); one backbone sees each patch, and a classifier
    on all features says which order it is. Two of the paper's guards against shortcuts are built in: patches lie at
    random in their cells, so that edges don't meet, and each is brought to one brightness and contrast. The third is
    for photographs, whose colors a lens shifts: put `augment.RandomGrayscale` into `views`.

    Where the backbone is made for one size of image, patches are brought to that; a backbone of open size,
    `(None, None, channels)`, sees them as they are, which is quicker.

    Term: `jigsaw`. Metric: `jigsaw_accuracy`; chance is 1 / permutations.

    Args:
        backbone: a Keras model from images to `(n, features)` or a feature map.
        views: one view; None for `augment.proxy`.
        head: from all patches' features side by side to one logit a permutation; None for dense layers of 512 and that.
        grid: cells a side, 2 or more. The paper: 3.
        permutations: how many orders, 2 to `(grid²)!`; None for 100, as far as there are so many.
        gap: pixels of a cell that its patch leaves free, at random on either side; None for a seventh of the cell. The
            paper: 11 of 75.
        **kwargs: `value_range`, `seed`, `name`, `dtype`: see `SelfSupervisedModel`.
    """

    terms = ("jigsaw",)
    metric_names = ("jigsaw_accuracy",)
    view_counts = (1,)
    batch_dependent = False
    patch_based = True
    collapse_advice = "A smaller learning rate, more passes or fewer orders usually help; tiny patches say little."

    def __init__(self, backbone, views=None, head=None, grid=3, permutations=None, gap=None, **kwargs):
        if not isinstance(grid, int) or grid < 2:
            raise ValueError(f"Jigsaw: `grid` is the number of cells a side, 2 or more; it is {grid!r}.")
        self._orders = patches.permutations(
            grid**2, min(100, math.factorial(grid**2)) if permutations is None else permutations
        )
        super().__init__(backbone, views, **kwargs)
        self.head = head
        self.grid = grid
        self.permutations = permutations
        self.gap = gap

    def default_views(self):
        return augment.proxy(self.value_range)

    def build_heads(self, width):
        count, pieces = self._orders.shape
        if self.head is None:
            options = {"batch_norm": False, "last_batch_norm": False, "dtype": self.dtype_policy}
            self.head = heads.mlp([512, count], name="head", **options)
        heads.build(self.head, pieces * width, count, "Jigsaw")
        # A saved model keeps the orders that it was trained on, whatever a later version of this library would choose.
        self.orders = self.add_weight(
            shape=(count, pieces), dtype="int32", initializer="zeros", trainable=False, name="orders"
        )
        self.orders.assign(self._orders)

    def geometry(self, side):
        """`(cell, patch)` in pixels, for images of this side; refuses what does not fit."""
        cell = side // self.grid
        gap = max(1, cell // 7) if self.gap is None else self.gap
        if gap < 0 or cell - gap < 1:
            raise ValueError(
                f"Jigsaw: a grid of {self.grid}×{self.grid} in {side} pixels has cells of {cell}, which leaves no "
                f"patch beside a gap of {gap}: make `grid` or `gap` smaller, or images larger."
            )
        return cell, cell - gap

    def embed(self, views, training):
        parts, _, number = self.puzzle(views[0], self.rng("jigsaw"))
        features = self.map_views(self.features, self.resize_to_backbone(parts), training, one_pass=True)
        return {"logits": self.head(ops.concatenate(features, axis=1), training=training), "order": number}

    def puzzle(self, image, rng):
        """`(parts, places, number)`: patches in an order drawn for each image, where they were cut, and which order.

        Returns:
            A list of `grid²` tensors `(n, patch, patch, channels)`; first rows and first columns, `(n, grid²)` each;
            int32 `(n,)`.
        """
        count, pieces = self._orders.shape
        number = ops.cast(rng.uniform("order") * count, "int32")
        cells = ops.take(ops.convert_to_tensor(self.orders), number, axis=0)
        cell, patch = self.geometry(min(image.shape[1:3]))
        places = []
        for name, place in (("rows", cells // self.grid), ("columns", cells % self.grid)):
            free = ops.floor(rng.uniform(name, pieces) * (cell - patch + 1))
            places.append(place * cell + ops.cast(free, "int32"))
        parts = [patches.normalized(part, self.value_range) for part in patches.cut(image, *places, patch)]
        return parts, places, number

    def objective(self, outputs, batch):
        logits, order = outputs["logits"], outputs["order"]
        return (
            {"jigsaw": losses.cross_entropy(logits, order)},
            {"jigsaw_accuracy": losses.correct_predictions(logits, order)},
        )

    def pretext_examples(self, images):
        parts, places, number = self.puzzle(images, RowRNG(self.seed, ops.arange(len(images))))
        orders = ops.convert_to_numpy(self.orders)[ops.convert_to_numpy(number)]
        captions = [[str(cell + 1) for cell in order] for order in orders]
        return {"pictures": parts, "captions": captions, "places": ops.stack(places, axis=-1)}

    def collapse_losses(self, batch_size):
        return {"the features say nothing of the order": math.log(len(self._orders))}
