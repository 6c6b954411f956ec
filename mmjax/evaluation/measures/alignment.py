"""How two clouds of embeddings lie to each other: gap, alignment, uniformity, likeness of geometry, equal distribution.

All in float64, of embeddings as they are: those of a shared space are unit vectors.
"""

import numpy as np

from mmjax.correlation import square_distances
from mmjax.errors import UsageError
from mmjax.typing import Float

__all__ = [
    "alignment",
    "linear_cka",
    "mean_discrepancy",
    "median_distance",
    "modality_gap",
    "permutation_test",
    "uniformity",
]


def modality_gap(left: Float[np.ndarray, "rows dim"], right: Float[np.ndarray, "others dim"]) -> float:
    """Distance between the centres of two clouds (Liang et al. 2022).

    Example:
      >>> round(modality_gap(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[-1.0, 0.0], [0.0, -1.0]])), 3)
      1.414
    """
    return float(np.linalg.norm(_wide(left).mean(0) - _wide(right).mean(0)))


def alignment(
    left: Float[np.ndarray, "rows dim"], right: Float[np.ndarray, "rows dim"], *, power: float = 2.0
) -> float:
    """Mean distance of partners, to a power (Wang & Isola 2020); 0 where they coincide.

    Example:
      >>> round(alignment(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 0.0], [1.0, 0.0]])), 6)
      1.0
    """
    return float((np.linalg.norm(_wide(left) - _wide(right), axis=-1) ** power).mean())


def uniformity(values: Float[np.ndarray, "rows dim"], *, sharpness: float = 2.0) -> float:
    """Logarithm of the mean of exp(-sharpness distance^2) over pairs of different rows (Wang & Isola 2020): 0 where all
    coincide, the lower the more evenly they fill the sphere.

    Raises:
      UsageError: fewer than two rows.

    Example:
      >>> uniformity(np.array([[1.0, 0.0], [-1.0, 0.0]]))
      -8.0
    """
    x = _wide(values)
    if len(x) < 2:
        raise UsageError(f"uniformity needs two rows or more, got {len(x)}")
    exponents = -sharpness * square_distances(x, x)[np.triu_indices(len(x), 1)]
    top = exponents.max()
    return float(top + np.log(np.exp(exponents - top).mean()))


def linear_cka(
    left: Float[np.ndarray, "rows left"], right: Float[np.ndarray, "rows right"], *, debiased: bool = True
) -> float:
    """Linear centred kernel alignment of two representations of the same rows (Kornblith et al. 2019): 1 where one is
    the other rotated, scaled and moved. NaN for a constant one.

    Args:
      debiased: with unbiased estimates of the three independence criteria (Song et al. 2012), whose mean is 0 for
        independent rows, so that it may be negative. The plain one grows with width over rows, to 1.

    Raises:
      UsageError: other rows, or too few of them.

    Example:
      >>> x = np.array([[0.0, 1.0], [2.0, 0.0], [3.0, 5.0], [1.0, 1.0], [4.0, 2.0]])
      >>> round(linear_cka(x, 3 * x[:, ::-1] + 1), 6)
      1.0
    """
    x, y = _wide(left), _wide(right)
    least = 4 if debiased else 2
    if len(x) != len(y) or len(x) < least:
        raise UsageError(f"both need the same {least} rows or more, got {len(x)} and {len(y)}")
    grams = [(v - v.mean(0)) @ (v - v.mean(0)).T for v in (x, y)]
    criterion = _unbiased_criterion if debiased else lambda k, m: (k * m).sum()
    both, first, second = criterion(*grams), criterion(grams[0], grams[0]), criterion(grams[1], grams[1])
    return float(both / np.sqrt(first * second)) if first > 0 and second > 0 else float("nan")


def _unbiased_criterion(k: np.ndarray, m: np.ndarray) -> float:
    """Of the independence of two kernels, but for a factor (Song et al. 2012, HSIC_1)."""
    n = len(k)
    k, m = (x - np.diag(np.diag(x)) for x in (k, m))
    whole = k.sum() * m.sum() / ((n - 1) * (n - 2))
    return (k * m).sum() + whole - 2 / (n - 2) * (k.sum(0) @ m.sum(0))


def median_distance(values: Float[np.ndarray, "rows dim"]) -> float:
    """Median of the distances between different rows, the usual width of a kernel.

    Example:
      >>> median_distance(np.array([[0.0], [1.0], [3.0]]))
      2.0
    """
    x = _wide(values)
    return float(np.median(np.sqrt(square_distances(x, x)[np.triu_indices(len(x), 1)])))


def mean_discrepancy(
    left: Float[np.ndarray, "rows dim"], right: Float[np.ndarray, "others dim"], *, width: float | None = None
) -> float:
    """Squared maximum mean discrepancy of two samples (Gretton et al. 2012), unbiased: about 0, or below, where they
    are of one distribution.

    Args:
      width: s of the kernel exp(-distance^2 / (2 s^2)); None = the median distance of all rows of both.

    Raises:
      UsageError: fewer than two rows in one, or all rows equal.

    Example:
      >>> round(mean_discrepancy(np.array([[0.0], [0.0]]), np.array([[1.0], [1.0]]), width=1.0), 3)
      0.787
    """
    kernel, n = _joint_kernel(left, right, width)
    return float(_discrepancies(kernel, np.arange(len(kernel))[None] < n)[0])


def permutation_test(
    left: Float[np.ndarray, "rows dim"],
    right: Float[np.ndarray, "others dim"],
    *,
    width: float | None = None,
    draws: int = 999,
    seed: int = 0,
) -> tuple[float, float]:
    """``mean_discrepancy`` and the p-value of equal distributions: the share of divisions of all rows into two that
    differ as much, the observed one among them, so that it is never 0 and exact whatever the sizes.

    Rows of both samples must be independent: for partners test other rows of one modality than of the other.

    Args:
      draws: random divisions.

    Raises:
      UsageError: as ``mean_discrepancy``.

    Example:
      >>> x = np.arange(8.0)[:, None]
      >>> permutation_test(x, x + 20, draws=199)[1] < 0.01, permutation_test(x, x + 0.1, draws=199)[1] > 0.5
      (True, True)
    """
    kernel, n = _joint_kernel(left, right, width)
    rng = np.random.default_rng(seed)
    first = np.arange(len(kernel)) < n
    divisions = np.stack([first, *(rng.permutation(first) for _ in range(draws))])
    found = _discrepancies(kernel, divisions)
    # A division that is the observed one may differ from it by rounding.
    return float(found[0]), float((found >= found[0] - 1e-12).mean())


def _joint_kernel(left: np.ndarray, right: np.ndarray, width: float | None) -> tuple[np.ndarray, int]:
    x, y = _wide(left), _wide(right)
    if min(len(x), len(y)) < 2:
        raise UsageError(f"both samples need two rows or more, got {len(x)} and {len(y)}")
    both = np.concatenate([x, y])
    width = float(median_distance(both)) if width is None else width
    if not width > 0:
        raise UsageError(f"width must be above 0, got {width}: most rows are equal, give one")
    return np.exp(-square_distances(both, both) / (2 * width**2)), len(x)


def _discrepancies(kernel: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The unbiased estimate for each division ``[draws, rows]`` into first and others."""
    inner = kernel - np.diag(np.diag(kernel))
    a, b = first.astype(np.float64), (~first).astype(np.float64)
    n, m = a.sum(1), b.sum(1)
    with_a = a @ inner
    within, between = (with_a * a).sum(1), (with_a * b).sum(1)
    others = inner.sum() - within - 2 * between
    return within / (n * (n - 1)) + others / (m * (m - 1)) - 2 * between / (n * m)


def _wide(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float64)
