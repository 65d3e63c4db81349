"""Losses of distances: of pairs, of triplets, and of predictions and targets."""

from keras import ops

from keras_ssl import distances
from keras_ssl.shapes import check_one_shape, check_rows


def contrastive(distance, same, margin=1.0, positive_margin=0.0, square=True):
    """The contrastive loss of each pair: `1[same] · d² + 1[different] · max(0, margin − d)²`.

    Args:
        distance: `(…)`, 0 or more, of each pair.
        same: `(…)`, boolean or 1 and 0: whether it is two of a kind.
        margin: of different pairs, above 0: from this distance on they cost nothing.
        positive_margin: of same pairs: up to this distance they cost nothing. The paper has none.
        square: as in the paper; without it the loss is `1[same] · d + 1[different] · max(0, margin − d)`.

    Returns:
        float32 `(…)`. The mean is the number of TensorFlow Addons; the paper has half of it.

    Reference: Hadsell et al., "Dimensionality Reduction by Learning an Invariant Mapping", 2006, eq. 4.
    """
    check_margin("contrastive", margin)
    check_one_shape("contrastive", distance=distance, same=same)
    distance = ops.cast(distance, "float32")
    near, far = ops.relu(distance - positive_margin), ops.relu(margin - distance)
    if square:
        near, far = ops.square(near), ops.square(far)
    return ops.where(ops.cast(same, "bool"), near, far)


def triplet(positive_distance, negative_distance, margin=1.0):
    """The triplet loss: `max(0, d(anchor, positive) − d(anchor, negative) + margin)`.

    Args:
        positive_distance, negative_distance: `(…)`, of any shapes that broadcast. The paper takes squared distances of
            rows of length 1.
        margin: above 0; None for the soft margin, `log(1 + exp(d_ap − d_an))`.

    Returns:
        float32 `(…)`.

    References: Schroff et al., "FaceNet: A Unified Embedding for Face Recognition and Clustering", 2015, eq. 3; Hermans
    et al., "In Defense of the Triplet Loss for Person Re-Identification", 2017, section 2 (the soft margin).
    """
    check_margin("triplet", margin, soft=True)
    violation = ops.cast(positive_distance, "float32") - ops.cast(negative_distance, "float32")
    return ops.softplus(violation) if margin is None else ops.relu(violation + margin)


def cosine(p, z):
    """`2 − 2 · cos(p, z)` of each row: the squared distance of predictions and targets at length 1, in [0, 4].

    Args:
        p: predictions `(n, d)`, any float type.
        z: targets `(n, d)`. BYOL stops the gradient at them; this function does not.

    Returns:
        float32 `(n,)`. BYOL's loss is the mean over rows, of both directions added; SimSiam's negative cosine is
        `cosine(p, z) / 2 − 1`.

    Reference: Grill et al., "Bootstrap Your Own Latent", 2020, eq. 2.
    """
    check_rows("cosine", p=p, z=z)
    return 2.0 * distances.cosine(p, z)


def check_margin(owner, margin, soft=False):
    """Raises `ValueError` for a margin that is not positive and finite."""
    if margin is None and soft:
        return
    if margin is None or not 0.0 < margin < float("inf"):
        way_out = ", or None for the soft margin" if soft else ""
        raise ValueError(f"{owner}: `margin` must be above 0{way_out}; it is {margin!r}.")
