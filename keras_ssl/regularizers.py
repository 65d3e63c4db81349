"""Terms that a method can have beside its own, of the backbone's features of each view.

A model is given them by one argument, and logs each of them under its name. `MAE` and `SimMIM` refuse them: their
backbone never sees a whole view.

```python
model = keras_ssl.SimCLR(backbone, regularizers=keras_ssl.regularizers.KoLeo(0.1))
```

One of your own is a class, registered with Keras, that has a `name`, `get_config`, `from_config` and
`__call__(features)`. Features are `(n, views, d)`, of this replica's n images. It returns a term as `objective` does,
weighted already: one value for each of the images, or a scalar of the rows of all replicas.
"""

import keras
from keras import ops

from keras_ssl import distribute, losses
from keras_ssl.saving import check_function

__all__ = ["KoLeo"]

# Among what `embed` gives. Methods don't see it.
_OUTPUT = "features of regularizers"


@keras.saving.register_keras_serializable("keras_ssl")
class KoLeo:
    """The Kozachenko–Leonenko regularizer: features of the global batch spread over the sphere (`losses.koleo`).

    Each view by itself: the other views of an image are not its neighbors. The value is the mean over the views; it is
    0 where the nearest neighbor of each is at a distance of 1, and grows as they come nearer.

    Args:
        weight: above 0. DINOv2: 0.1.
        name: of the term in the logs.

    References: Sablayrolles et al., "Spreading Vectors for Similarity Search", 2019, eq. 4; Oquab et al., "DINOv2:
    Learning Robust Visual Features without Supervision", 2023, section 4.
    """

    def __init__(self, weight=0.1, name="koleo"):
        if not 0.0 < weight < float("inf"):
            raise ValueError(f"KoLeo: `weight` must be above 0; it is {weight!r}.")
        self.weight, self.name = weight, name

    def __call__(self, features):
        width, views = features.shape[2], features.shape[1] or ops.shape(features)[1]
        rows, keys = (ops.reshape(part, (-1, width)) for part in (features, distribute.gather(features)))
        first = distribute.row_offset(ops.shape(features)[0]) * views
        values = ops.reshape(losses.koleo(rows, keys, first, views), (-1, views))
        return self.weight * ops.mean(values, axis=1)

    def get_config(self):
        return {"weight": self.weight, "name": self.name}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def checked_regularizers(model, regularizers):
    """The `regularizers` of a model as a tuple.

    Raises:
        ValueError: for what has no name, a name that the model has already, or what could not be saved.
    """
    given = tuple(regularizers) if isinstance(regularizers, (list, tuple)) else (regularizers,)
    taken, owner = {*model.terms, *model.metric_names}, type(model).__name__
    for one in given:
        check_function(f"{owner}: each of `regularizers`", one, "keras_ssl.regularizers.KoLeo(0.1)")
        name = getattr(one, "name", None)
        if not isinstance(name, str) or not name:
            raise ValueError(f"{owner}: each of `regularizers` has a `name` for the logs; {one!r} has {name!r}.")
        if name in taken:
            raise ValueError(f'{owner}: `regularizers` has a second "{name}": give one of them another name.')
        taken.add(name)
    return given


def check_none(model, why):
    """Refuses the regularizers of a method that gives no features of views.

    Args:
        why: it gives none: the middle of the message.

    Raises:
        ValueError: where the model has some.
    """
    if model.regularizers:
        owner, names = type(model).__name__, ", ".join(one.name for one in model.regularizers)
        raise ValueError(
            f"{owner}: `regularizers` ({names}) are of the backbone's features of whole views, and {why}: leave them "
            "out, or take a method that embeds whole views, such as keras_ssl.VICReg or keras_ssl.DINO."
        )


def with_features(model, outputs, seen, rows):
    """What `embed` gave, with the features of the views in it, if the model has regularizers.

    Args:
        seen: the features that the backbone gave meanwhile: `(n · views, d)` each, the views of an image side by side.
        rows: n of them, as many as there are images.
    """
    if not model.regularizers:
        return outputs
    if not seen:
        raise ValueError(
            f"{type(model).__name__}: `regularizers` are of the backbone's features, and embed() calls neither "
            "self.features nor self.project: let it, or leave them out."
        )
    n = rows.shape[0] or ops.shape(rows)[0]
    return {**outputs, _OUTPUT: ops.concatenate([ops.reshape(x, (n, -1, x.shape[-1])) for x in seen], axis=1)}


def split(model, outputs):
    """`(outputs, terms)`: what the method's own `embed` gave, and the terms of its regularizers."""
    if not model.regularizers:
        return outputs, {}
    own = {name: output for name, output in outputs.items() if name != _OUTPUT}
    return own, {one.name: one(outputs[_OUTPUT]) for one in model.regularizers}
