"""What losses, distances and miners should give: their formulas in float64, in numpy alone, with exact gradients.

An array has a leading axis: first the numbers themselves, then one copy for each number, with 1e-60·i added to it. The
imaginary part of a copy's result is then the derivative by that number, without the error of a difference. So formulas
use what is analytic, and choose (`where`, largest, smallest) by the real part.
"""

import numpy as np

STEP = 1e-60


def rows_and_gradients(function, *arrays):
    """The rows that `function` gives, and the gradients of their weighted sum."""
    sizes = [array.size for array in arrays]
    copies, first, given = 1 + sum(sizes), 1, []
    for array, size in zip(arrays, sizes):
        copy = np.tile(array.astype("complex128").ravel(), (copies, 1))
        copy[first + np.arange(size), np.arange(size)] += STEP * 1j
        given.append(copy.reshape(copies, *array.shape))
        first += size
    with np.errstate(all="ignore"):
        rows = function(*given)
    rows = rows.reshape(copies, -1)
    slopes = (rows.imag[1:] / STEP) @ weights(rows.shape[1])
    parts = np.split(slopes, np.cumsum(sizes)[:-1])
    return rows.real[0], [part.reshape(array.shape) for part, array in zip(parts, arrays)]


def weights(count):
    """Of the rows in their sum: not all alike, or mistakes of two rows could make up for each other."""
    return np.linspace(1.0, 2.0, count)


def relu(x):
    return np.where(x.real[:1] > 0, x, 0)


def log_one_plus_exp(x):
    large = x.real > 0
    return np.where(large, x, 0) + np.log1p(np.exp(np.where(large, -x, x)))


def log_sum_exp(x, counted):
    """Over the last axis; minus infinity where nothing counts."""
    if not counted.any():
        return np.full(x.shape[:-1], -np.inf + 0j)
    x = x[..., counted]
    highest = x.real.max(axis=-1, keepdims=True)
    return np.log(np.exp(x - highest).sum(axis=-1)) + highest[..., 0]


def normalized(x):
    length = root((x * x).sum(axis=-1))[..., None]
    zero = np.broadcast_to(length[:1] == 0, length.shape)
    return np.where(zero, 0, x / np.where(zero, 1, length))


def root(x):
    zero = np.broadcast_to(x.real[:1] == 0, x.shape)
    return np.where(zero, 0, np.sqrt(np.where(zero, 1, x)))


def cosines(a, b):
    return normalized(a) @ np.swapaxes(normalized(b), -1, -2)


def squared(a, b):
    return ((a - b) ** 2).sum(axis=-1)


def euclidean(a, b):
    return root(squared(a, b))


def cosine(a, b):
    return 1 - (normalized(a) * normalized(b)).sum(axis=-1)


def angular(a, b):
    c = (normalized(a) * normalized(b)).sum(axis=-1)
    flat = np.broadcast_to(abs(c.real[:1]) > 1 - 1e-13, c.shape)
    angle = np.arccos(np.where(flat, 0, c)) / np.pi
    return np.where(flat, np.where(c.real > 0, 0, 1), angle)


def dot_product(a, b):
    return relu(1 - (a * b).sum(axis=-1))


def all_pairs(distance, a, b):
    return distance(a[:, :, None], b[:, None])


# Losses of two views: rows of a, then rows of b.


def partners(n):
    """Of each of the 2n rows: itself, its partner, and a mask of the others."""
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        others = np.ones(2 * n, bool)
        others[[i, j]] = False
        yield i, j, others


def two_views(a, b, temperature, row, negatives=None):
    z = np.concatenate([a, b], axis=1)
    s = cosines(z, z)
    if negatives is not None:
        s = np.concatenate([s, cosines(z, negatives[None])], axis=-1)
    rows = []
    for i, j, others in partners(a.shape[1]):
        others = np.concatenate([others, np.ones(s.shape[-1] - len(others), bool)])
        rows.append(row(s[:, i], j, others, temperature))
    return np.stack(rows, axis=-1)


def nt_xent_row(s, j, others, t):
    return log_one_plus_exp(log_sum_exp(s / t, others) - s[:, j] / t)


def dcl_row(s, j, others, t):
    return log_sum_exp(s / t, others) - s[:, j] / t


def debiased_row(s, j, others, t, prior=0.1):
    """Against p, in logarithms: at a low temperature e^(s/T) is no float64 either."""
    log_sum, m = log_sum_exp(s / t, others) - s[:, j] / t, others.sum()
    floor = np.log(m) - (1 + s[:, j]) / t
    enough = log_sum.real[:1] > np.log(m * prior)
    difference = np.log(1 - np.exp(np.where(enough, np.log(m * prior) - log_sum, -1)))
    value = np.where(enough, log_sum + difference - np.log(1 - prior), -np.inf)
    return log_one_plus_exp(np.where(value.real[:1] > floor.real[:1], value, floor))


def nt_xent(a, b, t, negatives=None):
    return two_views(a, b, t, nt_xent_row, negatives)


def dcl(a, b, t):
    return two_views(a, b, t, dcl_row)


def debiased_nt_xent(a, b, t):
    return two_views(a, b, t, debiased_row)


def dclw(a, b, t, sigma=0.5):
    positive = (normalized(a[:1]) * normalized(b[:1])).sum(axis=-1).real / sigma  # no gradient
    share = np.exp(positive - positive.max())
    weight = np.tile(2 - share * positive.shape[1] / share.sum(), 2)
    return dcl(a, b, t) - (weight - 1) * np.tile((normalized(a) * normalized(b)).sum(axis=-1), 2) / t


def hard_nt_xent(a, b, t, concentration=3.0):
    def row(s, j, others, t):
        share = np.exp(concentration * (s[:1].real - 1)) * others  # no gradient
        weight = share / share.sum() * others.sum()
        return log_one_plus_exp(log_sum_exp(s / t + np.log(np.where(others, weight, 1)), others) - s[:, j] / t)

    return two_views(a, b, t, row)


def info_nce(q, k, n, t, valid):
    positive = (normalized(q) * normalized(k)).sum(axis=-1) / t
    return log_one_plus_exp(log_sum_exp(cosines(q, n) / t, valid) - positive)


def barlow_twins(a, b, weight=5e-3):
    def standardized(x):
        x = x - x.mean(axis=1, keepdims=True)
        return x / np.sqrt((x * x).mean(axis=1, keepdims=True) + 1e-5)

    c = np.swapaxes(standardized(a), 1, 2) @ standardized(b) / a.shape[1]
    eye = np.eye(c.shape[-1])
    return ((c - 1) ** 2 * eye + weight * c**2 * (1 - eye)).sum(axis=(1, 2))


def vicreg(a, b, weights=(25.0, 25.0, 1.0)):
    value, width = weights[0] * ((a - b) ** 2).mean(axis=(1, 2)), a.shape[-1]
    for z in (a, b):
        z = z - z.mean(axis=1, keepdims=True)
        c = np.swapaxes(z, 1, 2) @ z / (z.shape[1] - 1)
        deviation = np.sqrt(np.diagonal(c, axis1=1, axis2=2) + 1e-4)
        value = value + weights[1] * relu(1 - deviation).mean(axis=1) / 2
        value = value + weights[2] * (c**2 * (1 - np.eye(width))).sum(axis=(1, 2)) / width
    return value


# Losses of labeled rows. Labels of -1 are of no class.


def masks(labels):
    same = (labels[:, None] == labels[None]) & (labels[:, None] >= 0)
    eye = np.eye(len(labels), dtype=bool)
    return same & ~eye, ~same & ~eye


def supcon(z, t, labels):
    s, (positive, negative), rows = cosines(z, z) / t, masks(labels), []
    for i in range(len(labels)):
        some = positive[i].any()
        share = s[:, i] - log_sum_exp(s[:, i], positive[i] | negative[i])[:, None]
        rows.append(-share[:, positive[i]].mean(axis=-1) if some else np.zeros(len(z)))
    return np.stack(rows, axis=-1) * len(labels) / max(positive.any(axis=1).sum(), 1)


def labeled_nt_xent(z, t, labels):
    s, (positive, negative), rows = cosines(z, z) / t, masks(labels), []
    for i in range(len(labels)):
        below = log_sum_exp(s[:, i], negative[i])[:, None] - s[:, i, positive[i]]
        rows.append(log_one_plus_exp(below).sum(axis=-1))
    return np.stack(rows, axis=-1) * len(labels) / max(positive.sum(), 1)


def multi_similarity(z, labels, alpha=2.0, beta=50.0, base=0.5):
    s, (positive, negative), rows = cosines(z, z) - base, masks(labels), []
    for i in range(len(labels)):
        near = log_one_plus_exp(log_sum_exp(-alpha * s[:, i], positive[i]))
        rows.append(near / alpha + log_one_plus_exp(log_sum_exp(beta * s[:, i], negative[i])) / beta)
    return np.stack(rows, axis=-1)


def lifted(z, labels, margin=1.0):
    d, (positive, negative), rows = all_pairs(euclidean, z, z), masks(labels), []
    for i in range(len(labels)):
        row = np.zeros(len(z), "complex128")
        for j in np.flatnonzero(positive[i]):
            both = np.concatenate([margin - d[:, i, negative[i]], margin - d[:, j, negative[j]]], axis=-1)
            if both.shape[-1]:
                row = row + relu(log_sum_exp(both, np.ones(both.shape[-1], bool)) + d[:, i, j]) ** 2 / 2
        rows.append(row)
    return np.stack(rows, axis=-1) * len(labels) / max(positive.sum(), 1)


def n_pairs(similarity, labels):
    rows = []
    for i in range(len(labels)):
        targets = (labels == labels[i]) & (labels[i] >= 0)
        targets[i] = True
        every = np.ones(len(labels), bool)
        rows.append(-(similarity[:, i] - log_sum_exp(similarity[:, i], every)[:, None])[:, targets].mean(axis=-1))
    return np.stack(rows, axis=-1)


# Miners, on distances `d` with the leading axis: lists of (anchor, positive distance, negative distance, weight).


def hard(d, positive, negative):
    for i in range(d.shape[1]):
        if positive[i].any() and negative[i].any():
            row = d[0, i].real
            far, near = np.where(positive[i], row, -np.inf).argmax(), np.where(negative[i], row, np.inf).argmin()
            yield i, d[:, i, far], d[:, i, near], 1.0


def semi_hard(d, positive, negative):
    for i, j in np.argwhere(positive):
        row = d[0, i].real
        farther = negative[i] & (row > row[j])
        if farther.any():
            yield i, d[:, i, j], d[:, i, np.where(farther, row, np.inf).argmin()], 1.0
        elif negative[i].any():
            yield i, d[:, i, j], d[:, i, np.where(negative[i], row, -np.inf).argmax()], 1.0


def easy_positive(d, positive, negative):
    for i in range(d.shape[1]):
        row = d[0, i].real
        near = np.where(positive[i], row, np.inf).argmin()
        beyond = negative[i] & (row > row[near])
        if positive[i].any() and beyond.any():
            yield i, d[:, i, near], d[:, i, np.where(beyond, row, np.inf).argmin()], 1.0


def all_triplets(d, positive, negative):
    for i, j in np.argwhere(positive):
        for k in np.flatnonzero(negative[i]):
            yield i, d[:, i, j], d[:, i, k], 1.0


def within_margin(d, positive, negative, low=0.0, high=0.2):
    for i, near, far, _ in all_triplets(d, positive, negative):
        if low < np.float32(far[0].real) - np.float32(near[0].real) <= high:
            yield i, near, far, 1.0


def distance_weighted(d, positive, negative, width=16):
    for i, j in np.argwhere(positive):
        row = np.clip(d[0, i].real, 0.5, 1.99)
        usable = negative[i] & (d[0, i].real < 1.4)
        usable = usable if usable.any() else negative[i]
        log_q = (width - 2) * np.log(row) + (width - 3) / 2 * np.log(1 - row**2 / 4)
        share = np.where(usable, np.exp(log_q.min() - log_q), 0)
        for k in np.flatnonzero(usable):
            yield i, d[:, i, j], d[:, i, k], share[k] / share.sum()


def mined(miner, d, positive, negative):
    """Of each anchor the weighted sums of positive distances and of negative ones: `(copies, 2n)`."""
    near, far = np.zeros((2, *d.shape[:2]), "complex128")
    for i, one, other, weight in miner(d, positive, negative):
        near[:, i] += weight * one
        far[:, i] += weight * other
    return np.concatenate([near, far], axis=1)


def triplets_of(miner, z, labels, distance=euclidean, margin=1.0):
    """TripletHard (rows without a triplet count) and TripletSemiHard (the mean over triplets): the rows."""
    d = all_pairs(distance, z, z)
    rows, count = np.zeros(d.shape[:2], "complex128"), 0
    for i, near, far, _ in miner(d, *masks(labels)):
        rows[:, i] += relu(near - far + margin)
        count += 1
    return rows * (1.0 if miner is hard else len(labels) / max(count, 1))
