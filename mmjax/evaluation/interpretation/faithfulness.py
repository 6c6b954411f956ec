"""Do attributions name what the score rests on? Take it away in their order and see how fast the score falls."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.evaluation.interpretation.gradients import Attributions
from mmjax.evaluation.interpretation.scores import Score, as_tree, compiled
from mmjax.stream import Stream
from mmjax.typing import Mapping

__all__ = ["Curves", "relevance_mass", "removal_curves"]


@dataclasses.dataclass(frozen=True)
class Curves:
    """The score while units are removed or put back.

    Attributes:
      fraction: ``[points]`` share of the units that are removed (deletion) or there (insertion), 0 to 1.
      deletion: ``[points, batch]`` the most important units are removed first.
      insertion: ``[points, batch]`` the most important units are put back first.
      random: ``[draws, points, batch]`` units are removed in random order; read backwards it is an insertion.
    """

    fraction: np.ndarray
    deletion: np.ndarray
    insertion: np.ndarray
    random: np.ndarray

    @property
    def areas(self) -> dict[str, np.ndarray]:
        """Areas under the curves ``[batch]``, random order averaged over the draws (backwards it has the same one).

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
    """Deletion and insertion (Petsiuk et al. 2018) over the units of all streams named in ``attributions`` together.

    An attribution shaped as the mask of its stream ranks items, which are removed by the mask; one with more axes
    (pixels ``[batch, frames, h, w]``) ranks parts of items, which are replaced by the baseline. Padding is no unit.
    Units are removed in falling order of the signed attribution: what speaks for the score goes first.

    Args:
      score: ``streams -> [batch]``; a probability is easiest to read.
      points: of a curve, at equal distances from 0 to 1.
      draws: random orders.
      seed: of those.
      baseline: by name, what stands in the place of a removed part, broadcast against the values; default 0.

    Raises:
      ValueError: an attribution that fits no leading axes of its stream.
    """
    units, real = [], []
    for name, values in sorted(attributions.items()):
        stream, values = streams[name], np.asarray(values, np.float64)
        if values.ndim < stream.mask.ndim or values.shape != stream.values.shape[: values.ndim]:
            raise ValueError(
                f"the attribution of {name!r} is {values.shape}; it must have the shape of the mask "
                f"{stream.mask.shape} or of more leading axes of the values {stream.values.shape}"
            )
        mask = np.asarray(stream.mask).reshape(*stream.mask.shape, *(1,) * (values.ndim - stream.mask.ndim))
        units.append(values.reshape(len(values), -1))
        real.append(np.broadcast_to(mask, values.shape).reshape(len(values), -1))
    importance, there = np.concatenate(units, 1), np.concatenate(real, 1)
    fraction = np.linspace(0, 1, points)
    shapes = tuple((name, np.shape(values)) for name, values in sorted(attributions.items()))
    fill = {name: jnp.asarray((baseline or {}).get(name, 0.0)) for name, _ in shapes}
    first = np.round(fraction[:, None] * there.sum(1)).astype(np.int32)  # [points, batch] units that are meant

    def ranks(order_by: np.ndarray) -> np.ndarray:
        order = np.argsort(np.where(there, -order_by, np.inf), axis=1, kind="stable")
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
    """The share of an attribution's magnitude that lies where the evidence is known to be, ``[batch]``.

    The relevance mass accuracy of Arras et al. (2022, eq. 1), of magnitudes instead of positive values. What chance
    would give is the share of the units that are evidence. NaN where the attribution is 0 everywhere.

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
    """The score ``[points, batch]`` with the ``first`` units of the order there, or with the others."""

    def at(count: Any) -> Any:
        kept = (rank < count[:, None]) == insert
        changed, start = dict(streams), 0
        for name, shape in shapes:
            stream, size = streams[name], int(np.prod(shape[1:]))
            keep = kept[:, start : start + size].reshape(shape)
            if keep.ndim == stream.mask.ndim:
                changed[name] = stream.replace(mask=stream.mask & keep)
            else:
                wide = keep.reshape(*shape, *(1,) * (stream.values.ndim - keep.ndim))
                changed[name] = stream.replace(values=jnp.where(wide, stream.values, fill[name]))
            start += size
        return score(changed)

    return jax.lax.map(at, first)
