"""Losses of masked patches: how far what is predicted lies from what was hidden. What could be seen counts nothing."""

from keras import ops

from keras_ssl.shapes import check_one_a_row, check_one_shape

# Added to the variance of a patch, as in MAE's code: a patch of one color is all 0.
_EPSILON = 1e-6


def masked_squared(predicted, target, masked):
    """MAE's loss: the mean square over the numbers of the masked patches of each row.

    Args:
        predicted, target: `(n, patches, numbers)`, any float type. For MAE's normalized pixels, `target` goes through
            `normalized_patches` first.
        masked: `(n, patches)`, boolean or 0 and 1: what was hidden.

    Returns:
        float32 `(n,)`; 0 for a row of which nothing is masked. Where all rows mask equally many patches, as MAE's do,
        its mean is the loss of the paper and its code.

    Reference: He et al., "Masked Autoencoders Are Scalable Vision Learners", 2022, section 3.
    """
    return _mean_of_masked("masked_squared", ops.square, predicted, target, masked)


def masked_absolute(predicted, target, masked):
    """SimMIM's loss: the mean absolute difference over the numbers of the masked patches of each row.

    Args:
        predicted, target, masked: as of `masked_squared`.

    Returns:
        float32 `(n,)`.

    Reference: Xie et al., "SimMIM: a Simple Framework for Masked Image Modeling", 2022, eq. 1.
    """
    return _mean_of_masked("masked_absolute", ops.abs, predicted, target, masked)


def normalized_patches(patches):
    """Each patch less its mean, divided by its standard deviation: what MAE predicts with `normalize=True`.

    As in the authors' code the variance is divided by the numbers less one, and 1e-6 is added to it.

    Args:
        patches: `(n, patches, numbers)`, in units in which the images spread over about 1.

    Returns:
        float32, of the same shape.
    """
    patches = ops.cast(patches, "float32")
    centered = patches - ops.mean(patches, axis=-1, keepdims=True)
    return centered / patch_deviations(patches)


def patch_deviations(patches):
    """What `normalized_patches` divides by: float32 `(n, patches, 1)`."""
    patches = ops.cast(patches, "float32")
    centered = patches - ops.mean(patches, axis=-1, keepdims=True)
    variance = ops.sum(ops.square(centered), axis=-1, keepdims=True) / (patches.shape[-1] - 1)
    return ops.sqrt(variance + _EPSILON)


def mean_of_visible(target, masked):
    """The mean over all numbers of what is not masked, float32 `(n, 1, 1)`: the best guess of who sees no shapes."""
    target, visible = ops.cast(target, "float32"), 1.0 - ops.cast(masked, "float32")
    seen = ops.sum(ops.mean(target, axis=-1) * visible, axis=1)
    return (seen / ops.maximum(ops.sum(visible, axis=1), 1.0))[:, None, None]


def _mean_of_masked(owner, cost, predicted, target, masked):
    check_one_shape(owner, predicted=predicted, target=target)
    check_one_a_row(owner, ("target", target), masked=masked)
    difference = ops.cast(predicted, "float32") - ops.cast(target, "float32")
    masked = ops.cast(masked, "float32")
    each = ops.mean(cost(difference), axis=-1) * masked
    return ops.sum(each, axis=1) / ops.maximum(ops.sum(masked, axis=1), 1.0)
