"""Shared spaces in closed form: canonical correlations of two or more views, with kernels, and partial least squares.

The baselines of every learned shared space. A fit takes the training rows of each view by name and gives a projection,
which maps new rows of any of the views into the shared space; in float64, of NumPy alone. The same correlations as an
objective of networks: ``mmjax.losses.total_correlation``.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from mmjax.errors import UsageError
from mmjax.typing import Array, Mapping

__all__ = [
    "KernelProjection",
    "Projection",
    "fit_cca",
    "fit_gcca",
    "fit_kcca",
    "fit_pls",
    "linear_kernel",
    "rbf_kernel",
    "square_distances",
]

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]
_RANK = 1e-10  # of the largest singular value: what is below is rounding, as of histograms that sum to 1


@dataclasses.dataclass(frozen=True)
class Projection:
    """Linear maps of views into a shared space.

    Attributes:
      means: of the training rows, by view.
      maps: ``[features, components]`` by view.
      values: ``[components]``, falling: correlations of CCA, eigenvalues 0 to the number of views of GCCA, covariances
        of PLS.
    """

    means: dict[str, np.ndarray]
    maps: dict[str, np.ndarray]
    values: np.ndarray

    def transform(self, views: Mapping[str, Array]) -> dict[str, np.ndarray]:
        """Coordinates ``[rows, components]`` of some or all of the views.

        Raises:
          UsageError: a view that was not fitted, or of another width.
        """
        return {name: (self._checked(name, rows) - self.means[name]) @ self.maps[name] for name, rows in views.items()}

    def _checked(self, name: str, rows: Array) -> np.ndarray:
        if name not in self.means:
            raise UsageError(f"no view {name!r} was fitted; there are {', '.join(sorted(self.means))}")
        return _wide(name, rows, len(self.means[name]))


@dataclasses.dataclass(frozen=True)
class KernelProjection:
    """Maps of kernels with the training rows into a shared space.

    Attributes:
      kernel: ``(rows, training rows) -> [rows, training rows]``.
      rows: of training, by view.
      centres: mean of the kernel over training rows, ``[training rows]``, by view.
      linear: of the coordinates that the centred kernel gives.
      bases: from centred kernels to coordinates, by view.
    """

    kernel: Kernel
    rows: dict[str, np.ndarray]
    centres: dict[str, np.ndarray]
    bases: dict[str, np.ndarray]
    linear: Projection

    @property
    def values(self) -> np.ndarray:
        """Correlations, falling."""
        return self.linear.values

    def transform(self, views: Mapping[str, Array]) -> dict[str, np.ndarray]:
        """Coordinates ``[rows, components]`` of some or all of the views; errors as of ``Projection``."""
        coordinates = {}
        for name, rows in views.items():
            if name not in self.rows:
                raise UsageError(f"no view {name!r} was fitted; there are {', '.join(sorted(self.rows))}")
            kernel = self.kernel(_wide(name, rows, self.rows[name].shape[1]), self.rows[name])
            coordinates[name] = _centre_kernel(kernel, self.centres[name]) @ self.bases[name]
        return self.linear.transform(coordinates)


def linear_kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Products of rows."""
    return x @ y.T


def square_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of every row of one to every row of the other, ``[rows, others]``.

    Example:
      >>> square_distances(np.array([[0.0], [1.0]]), np.array([[3.0]])).tolist()
      [[9.0], [4.0]]
    """
    squares = (x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * x @ y.T
    return np.maximum(squares, 0)


def rbf_kernel(gamma: float) -> Kernel:
    """``exp(-gamma distance^2)``."""

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.exp(-gamma * square_distances(x, y))

    return kernel


def fit_cca(views: Mapping[str, Array], components: int, *, ridge: float = 0.0) -> Projection:
    """Canonical correlation analysis (Hotelling 1936): directions of two views whose coordinates correlate most, each
    of variance 1 in training and uncorrelated with the others.

    Args:
      views: ``[rows, features]`` of two views, by name.
      components: number of directions, at most the smaller rank.
      ridge: added to the variances of all features, as in ridge regression (Vinod 1976): coordinates have variance 1
        with it.

    Raises:
      UsageError: not two views, different rows, values that are not finite, or more components than there are.

    Example:
      >>> x = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 5.0], [3.0, 1.0]])
      >>> fit_cca({"image": x, "text": x @ [[1.0, 2.0], [0.0, 1.0]]}, 2).values.round(6)
      array([1., 1.])
    """
    first, second = _two(views)
    whitened = {name: _Whitened.of(rows, ridge) for name, rows in (first, second)}
    left, right = (whitened[name] for name, _ in (first, second))
    u, values, vt = np.linalg.svd(left.basis.T @ right.basis, full_matrices=False)
    _check_components(components, len(values))
    maps = {first[0]: left.back @ u[:, :components], second[0]: right.back @ vt[:components].T}
    # Shrunk bases are no longer orthonormal, but their products stay below 1 but for rounding.
    return Projection({name: w.mean for name, w in whitened.items()}, maps, np.minimum(values[:components], 1))


def fit_gcca(views: Mapping[str, Array], components: int, *, ridge: float = 0.0) -> Projection:
    """Generalised canonical correlation analysis of any number of views (MAXVAR: Carroll 1968, Kettenring 1971): the
    coordinates of variance 1 that the views together predict best by linear regression. Of two views it spans CCA.

    Args:
      views: ``[rows, features]`` by name.
      components: number of directions.
      ridge: of the regressions, added to the variances of all features.

    Raises:
      UsageError: fewer than two views, and as ``fit_cca``.

    Example:
      >>> x = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 5.0], [3.0, 1.0]])
      >>> fit_gcca({"image": x, "text": -x, "sound": x[:, :1]}, 1).values.round(6)
      array([3.])
    """
    rows = _some(views)
    whitened = {name: _Whitened.of(x, ridge) for name, x in rows.items()}
    u, s, _ = np.linalg.svd(np.concatenate([w.basis for w in whitened.values()], axis=1), full_matrices=False)
    _check_components(components, int((s > _RANK * s[0]).sum()))
    shared = u[:, :components] * np.sqrt(len(u) - 1)
    maps = {name: w.back @ (w.basis.T @ shared) / np.sqrt(len(u) - 1) for name, w in whitened.items()}
    return Projection({name: w.mean for name, w in whitened.items()}, maps, s[:components] ** 2)


def fit_pls(views: Mapping[str, Array], components: int, *, scale: bool = False) -> Projection:
    """Partial least squares of two views by one singular value decomposition (PLS-SVD: Bookstein; Wegelin 2000):
    orthogonal directions whose coordinates have the greatest covariances.

    Args:
      views: ``[rows, features]`` of two views, by name.
      components: number of directions, at most the smaller width.
      scale: gives each feature variance 1 first.

    Raises:
      UsageError: as ``fit_cca``.

    Example:
      >>> x = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 5.0], [3.0, 1.0]])
      >>> fit_pls({"image": x, "text": x[:, :1]}, 1).values.round(3)  # (5/3)^2 + (5/6)^2 = 1.863^2
      array([1.863])
    """
    (one, x), (other, y) = _two(views)
    means = {one: x.mean(0), other: y.mean(0)}
    widths = {name: v.std(0, ddof=1) if scale else np.ones(v.shape[1]) for name, v in ((one, x), (other, y))}
    widths = {name: np.where(width > 0, width, 1) for name, width in widths.items()}
    centred = [(v - means[name]) / widths[name] for name, v in ((one, x), (other, y))]
    u, values, vt = np.linalg.svd(centred[0].T @ centred[1] / (len(x) - 1), full_matrices=False)
    _check_components(components, len(values))
    maps = {one: u[:, :components], other: vt[:components].T}
    return Projection(means, {name: m / widths[name][:, None] for name, m in maps.items()}, values[:components])


def fit_kcca(
    views: Mapping[str, Array], components: int, *, kernel: Kernel = linear_kernel, ridge: float = 0.1
) -> KernelProjection:
    """Kernel canonical correlation analysis (Akaho 2001; Hardoon et al. 2004): ``fit_cca`` in the kernels' features, by
    the coordinates of the training rows there. With the linear kernel it is ``fit_cca`` with the same ridge.

    Args:
      views: ``[rows, features]`` of two views, by name.
      components: number of directions.
      kernel: of both views, e.g. ``rbf_kernel(gamma)``.
      ridge: added to the variances of all features of the kernel. Without it any two views of a kernel of full rank
        correlate perfectly.

    Raises:
      UsageError: a ridge of 0 or less, and as ``fit_cca``.

    Example:
      >>> angle = np.linspace(0, 6, 20)
      >>> views = {"image": np.c_[np.cos(angle), np.sin(angle)], "text": angle[:, None]}
      >>> (fit_kcca(views, 1, kernel=rbf_kernel(1.0), ridge=1e-3).values > 0.9).all()
      np.True_
    """
    if ridge <= 0:
        raise UsageError(f"ridge must be above 0, got {ridge}: without it kernels of full rank correlate perfectly")
    rows = dict(_two(views))
    centres, bases, coordinates = {}, {}, {}
    for name, x in rows.items():
        raw = kernel(x, x)
        centres[name] = raw.mean(0)
        values, vectors = np.linalg.eigh(_centre_kernel(raw, centres[name]))
        keep = values > max(values[-1], 0) * _RANK
        bases[name] = vectors[:, keep] / np.sqrt(values[keep])
        coordinates[name] = vectors[:, keep] * np.sqrt(values[keep])
    return KernelProjection(kernel, rows, centres, bases, fit_cca(coordinates, components, ridge=ridge))


@dataclasses.dataclass(frozen=True)
class _Whitened:
    """``basis`` [rows, rank] = centred rows @ ``back`` / sqrt(rows - 1); orthonormal columns but for the ridge."""

    mean: np.ndarray
    basis: np.ndarray
    back: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray, ridge: float) -> "_Whitened":
        if ridge < 0:
            raise UsageError(f"ridge is 0 or more, got {ridge}")
        mean = rows.mean(0)
        u, s, vt = _decompose(rows - mean, exact=ridge == 0)
        deviation = np.sqrt(s**2 / (len(rows) - 1) + ridge)
        return cls(mean, u * (s / np.sqrt(len(rows) - 1) / deviation), vt.T / deviation)


def _decompose(rows: np.ndarray, *, exact: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Singular value decomposition without directions that are rounding.

    Of many more rows than features it is that of their products, at a tenth of the time and with half the digits,
    unless ``exact``: under a ridge, directions of next to no variance do not count.
    """
    if exact or len(rows) < 4 * rows.shape[1]:
        u, s, vt = np.linalg.svd(rows, full_matrices=False)
        keep = s > _RANK * max(s[0], 1e-300)
        return u[:, keep], s[keep], vt[keep]
    values, vectors = np.linalg.eigh(rows.T @ rows)
    keep = values[::-1] > 1e-14 * max(values[-1], 1e-300)
    s, v = np.sqrt(values[::-1][keep]), vectors[:, ::-1][:, keep]
    return rows @ v / s, s, v.T


def _centre_kernel(kernel: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Products of features less their training mean."""
    return kernel - kernel.mean(1, keepdims=True) - centre[None] + centre.mean()


def _wide(name: str, rows: Any, width: int | None = None) -> np.ndarray:
    x = np.asarray(rows, np.float64)
    if x.ndim != 2 or width not in (None, x.shape[1]):
        raise UsageError(f"view {name!r} is [rows, {'features' if width is None else width}], got {x.shape}")
    return x


def _some(views: Mapping[str, Array]) -> dict[str, np.ndarray]:
    rows = {name: _wide(name, views[name]) for name in sorted(views)}
    counts = {name: len(x) for name, x in rows.items()}
    if len(rows) < 2 or len(set(counts.values())) != 1 or min(counts.values()) < 2:
        raise UsageError(f"a shared space needs two views or more of the same two rows or more, got rows {counts}")
    for name, x in rows.items():
        if not np.isfinite(x).all():
            raise UsageError(f"view {name!r} has values that are not finite, first in row {_first_bad(x)}")
    return rows


def _first_bad(x: np.ndarray) -> int:
    return int(np.flatnonzero(~np.isfinite(x).all(1))[0])


def _two(views: Mapping[str, Array]) -> tuple[tuple[str, np.ndarray], tuple[str, np.ndarray]]:
    if len(views) != 2:
        raise UsageError(f"two views are needed, got {', '.join(sorted(views)) or 'none'}; of more: fit_gcca")
    one, other = _some(views).items()
    return one, other


def _check_components(components: int, most: int) -> None:
    if not 1 <= components <= most:
        raise UsageError(f"components are 1 to {most}, the smallest rank, got {components}")
