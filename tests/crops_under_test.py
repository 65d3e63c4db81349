"""A method of views of several sizes, for tests in one process and in several."""

import keras
from keras import ops

import keras_ssl
from keras_ssl import augment, distribute, heads, losses
from keras_ssl.testing import tiny_backbone


@keras.saving.register_keras_serializable("tests")
class AllViews(keras_ssl.SelfSupervisedModel):
    """Each large view against every other view, by NT-Xent: a method of any number of views, of any sizes."""

    terms = ("nt_xent",)

    def __init__(self, backbone, views=None, projector=None, one_pass=True, **kwargs):
        super().__init__(backbone, views, **kwargs)
        self.projector = projector
        self.one_pass = one_pass

    def build_heads(self, width):
        if self.projector is None:
            self.projector = heads.mlp([16, 16], name="projector")
        heads.build(self.projector, width)

    def embed(self, views, training):
        features = self.map_views(self.features, views, training, self.one_pass)
        rows = self.map_views(self.projector, features, training, self.one_pass)
        return {f"view_{number}": row for number, row in enumerate(rows)}

    def objective(self, outputs, batch):
        offset = distribute.row_offset(ops.shape(outputs["view_0"])[0])
        everybody = {name: distribute.gather(rows) for name, rows in outputs.items()}
        pairs = [
            losses.nt_xent(rows[0], rows[1], 0.5, keys=keys, row_offset=offset)
            for large in ("view_0", "view_1")
            for other in outputs
            if other > large
            for rows, keys in [[[part[large], part[other]] for part in (outputs, everybody)]]
        ]
        return {"nt_xent": sum(pairs) / len(pairs)}, {}


def light_views(large=28, small=16, count=4):
    """Of few operations: the policies are tested by themselves, and they take long to compile."""
    cuts = {size: [] if size == 28 else [keras.layers.CenterCrop(size, size)] for size in (large, small)}
    changes = [augment.RandomHorizontalFlip(), augment.RandomColorJitter(brightness=0.4)]
    return augment.Views(*[[*cuts[size], *changes] for size in [large] * 2 + [small] * count])


def all_views():
    """For `python -m keras_ssl.testing crops_under_test:all_views`."""
    return AllViews(tiny_backbone((None, None, 1)), light_views())
