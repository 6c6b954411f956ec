"""Faithfulness of attributions: how fast the score falls when input is removed in their order."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.evaluation.interpretation.gradients import Attributions
from mmjax.evaluation.interpretation.scores import Score, as_tree, compiled
from mmjax.stream import Stream, where_mask
from mmjax.typing import Mapping

__all__ = ["Curves", "relevance_mass", "removal_curves"]


@dataclasses.dataclass(frozen=True)
class Curves:
    """The score as units are removed or inserted.

    Attributes:
      fraction: ``[points]`` share of the units that are removed (deletion) or present (insertion), 0 to 1.
      deletion: ``[points, batch]`` the most important units are removed first.
      insertion: ``[points, batch]`` the most important units are inserted first.
      random: ``[draws, points, batch]`` units are removed in random order; reversed it is an insertion.
    """

    fraction: np.ndarray
    deletion: np.ndarray
    insertion: np.ndarray
    random: np.ndarray

    @property
    def areas(self) -> dict[str, np.ndarray]:
        """Areas under the curves ``[batch]``, random order averaged over the draws (the same for its insertion).

        Faithful attributions have deletion below random and insertion above it.
        """
        curves = {"deletion": self.deletion, "insertion": self.insertion, "random": self.random.mean(0)}
        return {name: np.trapezoid(values, self.fraction, axis=0) for name, values in curves.items()}


def removal_curves(
    score: Score,
    streams: Mapping[str, Stream],
    attributions: Attributions,
    *,
    points: int = 11,
    draws: int = 5,
    seed: int = 0,
    baseline: Mapping[str, Any] | None = None,
) -> Curves:
    """Deletion and insertion (Petsiuk et al. 2018) over the units of all streams in ``attributions`` together.

    An attribution shaped as the mask of its stream ranks items, which are removed by the mask; one with more axes
    (pixels ``[batch, frames, h, w]``) ranks parts of items, which are replaced by the baseline. Padding is excluded.
    Units are removed in decreasing order of the signed attribution.

    Args:
      score: ``streams -> [batch]``; probabilities are easiest to read.
      points: of a curve, evenly spaced from 0 to 1.
      draws: number of random orders.
      seed: of the random orders.
      baseline: by name, the value of removed parts, broadcast against the values; default 0.

    Raises:
      ValueError: an attribution that does not match the leading axes of its stream.
    """
    units, real = [], []
    for name, values in sorted(attributions.items()):
        stream, values = streams[name], np.asarray(values, np.float64)
        if values.ndim < stream.mask.ndim or values.shape != stream.values.shape[: values.ndim]:
            raise ValueError(
                f"the attribution of {name!r} is {values.shape}; it must have the shape of the mask "
                f"{stream.mask.shape} or of more leading axes of the values {stream.values.shape}"
            )
        units.append(values.reshape(len(values), -1))
        mask = np.broadcast_to(where_mask(np.asarray(stream.mask), values), values.shape)
        real.append(mask.reshape(len(values), -1))
    importance, valid = np.concatenate(units, 1), np.concatenate(real, 1)
    fraction = np.linspace(0, 1, points)
    shapes = tuple((name, np.shape(values)) for name, values in sorted(attributions.items()))
    fill = {name: jnp.asarray((baseline or {}).get(name, 0.0)) for name, _ in shapes}
    first = np.round(fraction[:, None] * valid.sum(1)).astype(np.int32)  # [points, batch] number of units

    def ranks(order_by: np.ndarray) -> np.ndarray:
        order = np.argsort(np.where(valid, -order_by, np.inf), axis=1, kind="stable")
        rank = np.empty(order.shape, np.int32)
        np.put_along_axis(rank, order, np.arange(order.shape[1], dtype=np.int32)[None], axis=1)
        return rank

    def curve(rank: np.ndarray, insert: bool) -> np.ndarray:
        run = compiled(_curve, "shapes")
        return np.asarray(run(as_tree(score), dict(streams), fill, rank, first, insert, shapes=shapes), np.float64)

    random, rank = np.random.RandomState(seed), ranks(importance)
    shuffled = [curve(ranks(random.random_sample(importance.shape)), False) for _ in range(draws)]
    chance = np.reshape(shuffled, (draws, points, len(importance)))
    return Curves(fraction, curve(rank, False), curve(rank, True), chance)


def relevance_mass(attribution: Any, evidence: Any) -> np.ndarray:
    """The share of an attribution's magnitude on the known evidence, ``[batch]``.

    The relevance mass accuracy of Arras et al. (2022, eq. 1), with magnitudes instead of positive values. By chance it
    is the share of the units that are evidence. NaN where the attribution is 0 everywhere.

    Args:
      attribution: ``[batch, *units]``; 0 in padding.
      evidence: bool of the same shape.
    """
    size = np.abs(np.asarray(attribution, np.float64)).reshape(len(attribution), -1)
    inside = np.where(np.asarray(evidence).reshape(size.shape), size, 0).sum(1)
    with np.errstate(invalid="ignore"):
        return inside / size.sum(1)


def _curve(
    score: Score,
    streams: dict[str, Stream],
    fill: dict[str, Any],
    rank: Any,
    first: Any,
    insert: Any,
    shapes: tuple[tuple[str, tuple[int, ...]], ...],
) -> Any:
    """The score ``[points, batch]`` with the ``first`` units of the order inserted, or deleted."""

    def at(count: Any) -> Any:
        present = (rank < count[:, None]) == insert
        changed, start = dict(streams), 0
        for name, shape in shapes:
            stream, size = streams[name], int(np.prod(shape[1:]))
            keep = present[:, start : start + size].reshape(shape)
            if keep.ndim == stream.mask.ndim:
                changed[name] = stream.replace(mask=stream.mask & keep)
            else:
                values = jnp.where(where_mask(keep, stream.values), stream.values, fill[name])
                changed[name] = stream.replace(values=values)
            start += size
        return score(changed)

    return jax.lax.map(at, first)
