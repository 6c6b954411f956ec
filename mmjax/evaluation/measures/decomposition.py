"""Partial information decomposition of a discrete joint distribution of two variables and a target (BROJA), in bits.

Information on the target splits into redundant, unique and synergistic parts (Williams & Beer 2010). The definition of
Bertschinger, Rauh, Olbrich, Jost & Ay (Entropy 16, 2014), "BROJA", also of Griffith & Koch (2014): unique information
depends only on the pairs (x1, y) and (x2, y), so it is that in the worst joint with the same pairs.
"""

from typing import Any, NamedTuple

import numpy as np

from mmjax.errors import UsageError
from mmjax.typing import Float, Int, Shaped

__all__ = ["Decomposition", "decompose", "joint_counts", "mutual_information", "predicted_classes", "quantise"]

_UNKNOWNS = 6000  # of the dual: a dense Newton system of 288 MB
_SHRINK = 0.1  # of the barrier, from one centre to the next


class Decomposition(NamedTuple):
    """Atoms in bits, none below 0; they sum to ``information``.

    Attributes:
      redundancy: information that each variable has.
      unique1, unique2: information that only this variable has.
      synergy: information that only both together have.
      information: I(y; x1, x2).
      gap: bound on the distance to the optimum, and on the error of each atom.
    """

    redundancy: float
    unique1: float
    unique2: float
    synergy: float
    information: float
    gap: float


def joint_counts(
    x1: Shaped[np.ndarray, "n ..."], x2: Shaped[np.ndarray, "n ..."], y: Shaped[np.ndarray, " n"]
) -> Int[np.ndarray, "values1 values2 targets"]:
    """Counts of each triple in discrete data; equal rows ``[n, d]`` are one value.

    Raises:
      UsageError: different lengths, or no data.
    """
    columns = [np.asarray(x1), np.asarray(x2), np.asarray(y)]
    if len({len(column) for column in columns}) != 1 or not len(columns[0]):
        raise UsageError(f"x1, x2 and y must have the same length, not 0; got {[len(c) for c in columns]}")
    numbers = [np.unique(c, axis=0, return_inverse=True)[1].ravel() for c in columns]
    shape = tuple(int(number.max()) + 1 for number in numbers)
    return np.bincount(np.ravel_multi_index(numbers, shape), minlength=int(np.prod(shape))).reshape(shape)


def predicted_classes(logits: Float[np.ndarray, "*lead classes"]) -> Int[np.ndarray, "*lead"]:
    """The predicted class, the first of ties: a model's output as a discrete variable."""
    return np.asarray(logits).argmax(-1)


def quantise(values: Float[np.ndarray, "n ..."], bins: int, *, seed: int = 0) -> Int[np.ndarray, " n"]:
    """Continuous values as ``bins`` numbers: scalars by quantiles, vectors ``[n, d]`` by k-means.

    Raises:
      UsageError: fewer than 1 or more bins than items.
    """
    values = np.asarray(values, np.float64).reshape(len(values), -1)
    if not 1 <= bins <= len(values):
        raise UsageError(f"bins must be 1 to the number of items, {len(values)}; got {bins}")
    if values.shape[1] == 1:
        edges = np.quantile(values[:, 0], np.arange(1, bins) / bins)
        return np.searchsorted(edges, values[:, 0])
    from sklearn.cluster import KMeans

    return KMeans(bins, n_init=4, random_state=seed).fit_predict(values).astype(np.int64)


def mutual_information(joint: Any) -> float:
    """I(a; b) of a table ``[a, b]`` of counts or probabilities, in bits."""
    p = np.asarray(joint, np.float64)
    p = p / p.sum()
    product = np.broadcast_to(p.sum(1, keepdims=True) * p.sum(0), p.shape)
    return float((p[p > 0] * np.log2(p[p > 0] / product[p > 0])).sum())


def decompose(joint: Any, *, tolerance: float = 1e-9) -> Decomposition:
    """The decomposition of ``joint [x1, x2, y]``, counts or probabilities (Bertschinger et al. 2014, eq. 2 to 5).

    With Q over all joints that have the pairs (x1, y) and (x2, y) of ``joint``, and ``I*`` the minimal I_Q(y; x1, x2):
    synergy I - I*, unique information I* - I(y; x2) and I* - I(y; x1), redundancy I(y; x1) + I(y; x2) - I*. The convex
    problem is solved by Newton's method on the barrier of its dual; a joint with exactly these pairs and a feasible
    dual enclose ``I*``; the ``gap`` is their distance.

    Counts give plug-in estimates: with few examples synergy is biased upwards, under independence by about
    (values1 - 1) (values2 - 1) (targets - 1) / (2 n ln 2) bits.

    Args:
      tolerance: in bits, on ``I*``.

    Raises:
      UsageError: not three axes, negative or no mass, or too many values: quantise them.
      ArithmeticError: the gap stays above 1e-6 bits; no known table does this.
    """
    p = np.asarray(joint, np.float64)
    if p.ndim != 3 or not np.isfinite(p).all() or (p < 0).any() or not p.sum() > 0:
        raise UsageError(f"joint must be [x1, x2, y] with counts or probabilities from 0 up, got {p.shape}")
    p = p / p.sum()
    p = p[p.any((1, 2))][:, p.any((0, 2))][:, :, p.any((0, 1))]
    both = mutual_information(p.reshape(-1, p.shape[2]))
    one, two = mutual_information(p.sum(1)), mutual_information(p.sum(0))
    least, gap = _least_information(p, tolerance)
    least = max(min(least, both, one + two), one, two)  # known bounds on I*, so that no atom is below 0
    atoms = one + two - least, least - two, least - one, max(both - least, 0.0)
    return Decomposition(*map(float, atoms), both, gap)


def _least_information(p: np.ndarray, tolerance: float) -> tuple[float, float]:
    """Upper bound on the minimal I_Q(y; x1, x2) over Q with the pairs of ``p``, and its gap to a lower bound; bits.

    It is H(y) plus the minimum of sum q log(q(y | x1, x2)), whose dual is (nats, c = first + second)

        max sum first[i, y] p1[i, y] + sum second[j, y] p2[j, y]   where   sum_y exp c[i, j, y] <= 1 for every i, j.

    The centre of its barrier ``-t sum log(1 - sum_y exp c)`` gives a joint ``t exp(c) / (1 - sum_y exp c)`` that has
    the pairs and is within ``t`` times the number of constraints of the optimum.
    """
    dual = _Dual(p)
    unknowns, t = dual.start(), 1.0
    best, floor = np.inf, -np.inf
    while t > 1e-14:
        unknowns = dual.centre(unknowns, t)
        floor = max(floor, dual.value(unknowns))
        if dual.cells * t < 10 * tolerance:
            best = min(best, dual.primal(unknowns, t))
            if best - floor < tolerance * np.log(2):
                break
        t *= _SHRINK
    gap = float(max(best - floor, 0.0) / np.log(2))
    if not gap < 1e-6:
        raise ArithmeticError(f"the decomposition is known to {gap:.1e} bits only; merge rare values")
    prior = p.sum((0, 1))
    return (best - prior @ np.log(prior)) / np.log(2), gap


class _Dual:
    """The dual problem; its unknowns are the ``first[i, y]`` and ``second[j, y]`` whose pair has mass."""

    def __init__(self, p: np.ndarray):
        self.pairs = p.sum(1), p.sum(0)  # [i, y], [j, y]
        self.support = [pair > 0 for pair in self.pairs]
        self.allowed = self.support[0][:, None] & self.support[1][None]  # [i, j, y]
        self.cells = int(self.allowed.any(-1).sum())
        self.linear = np.concatenate([pair[has] for pair, has in zip(self.pairs, self.support)])
        if self.linear.size > _UNKNOWNS:
            raise UsageError(f"{self.linear.size} pairs of a value and a target are too many (> {_UNKNOWNS}): quantise")

    def start(self) -> np.ndarray:
        return np.full(self.linear.size, 0.5 * np.log(0.5 / self.allowed.shape[2]))

    def value(self, unknowns: np.ndarray) -> float:
        return float(self.linear @ unknowns)

    def exponentials(self, unknowns: np.ndarray) -> np.ndarray:
        """``exp c [i, j, y]``, 0 where no mass is possible."""
        first, second = (np.full(has.shape, -np.inf) for has in self.support)
        first[self.support[0]], second[self.support[1]] = np.split(unknowns, [int(self.support[0].sum())])
        return np.exp(first[:, None] + second[None])

    def centre(self, unknowns: np.ndarray, t: float) -> np.ndarray:
        """Newton's method with halved steps from a feasible point to the minimum of barrier minus objective / t."""
        current = self._objective(unknowns, t)
        for _ in range(60):
            step, decrement = self._newton(unknowns, t)
            size = 1.0
            while True:
                moved = unknowns + size * step
                value = self._objective(moved, t)
                if value <= current - 0.25 * size * decrement:
                    break
                size /= 2
                if size < 1e-6:  # as central as rounding allows
                    return unknowns
            unknowns, current = moved, value
            if decrement < 1e-9:  # this step squares it
                break
        return unknowns

    def primal(self, unknowns: np.ndarray, t: float) -> float:
        """Objective of a joint with the exact pairs, nats; infinite if rounding prevents them."""
        exponentials = self.exponentials(unknowns)
        q = t * exponentials / (1 - exponentials.sum(-1, keepdims=True))
        first, second = self.pairs
        for _ in range(2000):  # scaling to the pairs, off by rounding only
            q *= _ratio(first, q.sum(1))[:, None]
            q *= _ratio(second, q.sum(0))[None]
            if (error := np.abs(q.sum(1) - first).max()) < 1e-14:
                break
        if error > 1e-12:
            return np.inf
        total = np.broadcast_to(q.sum(-1, keepdims=True), q.shape)
        return float((q[q > 0] * np.log(q[q > 0] / total[q > 0])).sum())

    def _objective(self, unknowns: np.ndarray, t: float) -> float:
        slack = 1 - self.exponentials(unknowns).sum(-1)
        return np.inf if (slack <= 0).any() else -self.value(unknowns) / t - np.log(slack).sum()

    def _newton(self, unknowns: np.ndarray, t: float) -> tuple[np.ndarray, float]:
        from scipy.linalg import cho_factor, cho_solve

        exponentials = self.exponentials(unknowns)
        q = exponentials / (1 - exponentials.sum(-1, keepdims=True))
        (rows, columns, classes), diagonal = q.shape, np.arange(q.shape[2])
        first, second = q.sum(1), q.sum(0)
        hessian = np.zeros((rows + columns, classes, rows + columns, classes))
        for i in range(rows):
            cross = q[i, :, :, None] * q[i, :, None, :]  # [j, y, y']
            cross[:, diagonal, diagonal] += q[i]
            hessian[i, :, rows:] = cross.transpose(1, 0, 2)
            hessian[i, :, i] = cross.sum(0)
            for j in range(columns):
                hessian[rows + j, :, rows + j] += cross[j]
        has_mass = np.concatenate([part.ravel() for part in self.support])
        hessian = hessian.reshape(has_mass.size, has_mass.size)[np.ix_(has_mass, has_mass)]
        gradient = np.concatenate([first.ravel(), second.ravel()])[has_mass] - self.linear / t
        scale = 1 / np.sqrt(np.diag(hessian))
        hessian *= scale[:, None] * scale
        # singular: shifting mass between first[:, y] and second[:, y] changes nothing; a ridge picks one such step
        hessian[np.diag_indices_from(hessian)] += 1e-14 * len(scale)
        # only first x second is filled in, the upper triangle
        step = -scale * cho_solve(cho_factor(hessian, overwrite_a=True), scale * gradient)
        return step, float(-gradient @ step)


def _ratio(target: np.ndarray, current: np.ndarray) -> np.ndarray:
    return np.divide(target, current, out=np.zeros_like(target), where=current > 0)
