"""Measures of features that need no labels: their effective rank, and how they are spread over the sphere.

They compare checkpoints of one method, or say that a run is collapsing. They do not replace labels: values of other
methods, widths or numbers of images do not compare.
"""

import numpy as np

# Below this share of the features' size, what is left of them without their mean is rounding.
_ROUNDING = 1e-12


def rank_me(features):
    """RankMe: the effective number of directions that features use, from 1 to the smaller of their two sides.

    `exp(−Σ p_k log p_k)` with `p_k = σ_k / Σσ + 1e-7` of the singular values σ, the features not centered; 1 where all
    features are 0.

    Args:
        features: `(N, d)`. The paper takes 25,600 rows of the projector's output; with fewer than some d the measure
            grows with N.

    Returns:
        A float.

    Reference: Garrido et al., "RankMe: Assessing the Downstream Performance of Pretrained Self-Supervised
    Representations by Their Rank", 2023, eq. 1 and 2.
    """
    singular = np.linalg.svd(_rows("rank_me", features), compute_uv=False)
    total = singular.sum()
    shares = (singular / total if total > 0.0 else singular) + 1e-7
    return float(np.exp(-np.sum(shares * np.log(shares))))


def alpha_req(features, first=1, last=None):
    """α of a power law `λ_i ∝ i^−α` fitted to the eigenvalues of the features' covariance.

    Near 1 was found with good features; far above it few directions hold all, far below it most hold noise.

    Args:
        features: `(N, d)`.
        first, last: the eigenvalues that are fitted, counted from 1 at the largest; None for all that are above a
            ten-millionth of it.

    Returns:
        A float, by least squares of log λ over log i; 0 where all rows are equal.

    Reference: Agrawal et al., "α-ReQ: Assessing Representation Quality in Self-Supervised Learning by Measuring
    Eigenspectrum Decay", 2022, section 3.
    """
    rows = _rows("alpha_req", features)
    singular = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False)
    if singular[0] <= _ROUNDING * np.linalg.norm(rows):
        return 0.0
    eigenvalues = (singular / singular[0]) ** 2
    places = np.arange(1, len(eigenvalues) + 1)
    fitted = (eigenvalues > 1e-7) & (places >= first)
    fitted &= places <= (last or len(places))
    if fitted.sum() < 2:
        return 0.0
    return float(-np.polyfit(np.log(places[fitted]), np.log(eigenvalues[fitted]), 1)[0])


def alignment(a, b, power=2.0):
    """How near two views of one image are: the mean of `|a − b|^power` of rows at length 1; 0 where they are equal.

    It is as low as it can be where all images have one embedding: it says nothing without `uniformity`.

    Args:
        a, b: `(N, d)`, row i of both is one image.
        power: α of the paper.

    Reference: Wang & Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere", 2020, section 4.1.
    """
    a, b = _rows("alignment", a), _rows("alignment", b)
    if a.shape != b.shape:
        raise ValueError(f"alignment: `a` and `b` are views of the same images; their shapes are {a.shape}, {b.shape}.")
    return float(np.mean(np.linalg.norm(_unit(a) - _unit(b), axis=1) ** power))


def uniformity(features, t=2.0, max_bytes=2**27):
    """How evenly features cover the sphere: the logarithm of the mean of `exp(−t·|x − y|²)` over pairs of rows.

    0 where all rows are one, all zeros too, and lower the more evenly they lie; at t = 2 about −4 at the lowest.

    Args:
        features: `(N, d)`, 2 rows or more; brought to length 1 here.
        t: above 0.
        max_bytes: the similarities in memory at a time.

    Reference: Wang & Isola, 2020, section 4.1.
    """
    rows = _unit(_rows("uniformity", features))
    if len(rows) < 2:
        raise ValueError("uniformity: it is of pairs, so 2 rows or more are needed.")
    if not t > 0.0:
        raise ValueError(f"uniformity: `t` must be above 0; it is {t!r}.")
    lengths = np.square(rows).sum(axis=1)  # 1, or 0 of a row of zeros
    total, step = -np.inf, max(1, max_bytes // (8 * len(rows)))
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        squared = np.maximum(lengths[start : start + step, None] + lengths - 2.0 * part @ rows.T, 0.0)
        squared[np.arange(len(part)), np.arange(start, start + len(part))] = np.inf  # a row with itself is no pair
        nearest = squared.min()  # taken out of the sum, of which nothing is left in float64 at a large t
        total = np.logaddexp(total, np.log(np.exp(-t * (squared - nearest)).sum()) - t * nearest)
    return float(total - np.log(len(rows) * (len(rows) - 1)))


def spread(features):
    """The mean standard deviation of the dimensions of rows at length 1, times √d: 0 where all are one, all zeros too,
    near 1 where they fill the sphere.

    Reference: Chen & He, "Exploring Simple Siamese Representation Learning", 2021, section 4.1.
    """
    rows = _unit(_rows("spread", features))
    return float(rows.std(axis=0).mean() * np.sqrt(rows.shape[1]))


def _unit(rows):
    """Rows at length 1, `(N, d)` float64; a row of zeros stays one."""
    largest = np.abs(rows).max(axis=1, keepdims=True)
    rows = rows / np.where(largest > 0.0, largest, 1.0)  # or the squares of very small and large ones are no float64
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0.0, lengths, 1.0)


def _rows(owner, features):
    """Features as float64 `(N, d)`, the largest number between ½ and 1: no measure depends on the scale of all."""
    features = np.asarray(features, "float64")
    if features.ndim != 2 or not features.size:
        raise ValueError(f"{owner}: features must be (N, d), one row per image; their shape is {features.shape}.")
    if not np.isfinite(features).all():
        raise ValueError(f"{owner}: features hold NaN or infinite values.")
    return np.ldexp(features, -np.frexp(np.abs(features).max())[1])  # by a power of two, which changes no digit
