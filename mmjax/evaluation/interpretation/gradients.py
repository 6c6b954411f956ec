"""Gradient-based attributions of a score to the values of the input.

Streams must hold floats (as from ``model_score``); attributions have the shape of their values and are exactly 0 in
padding and absent modalities. Streams of integers get none.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.evaluation.interpretation.scores import Score, as_tree, compiled
from mmjax.stream import Stream, apply_mask
from mmjax.typing import Mapping

__all__ = ["Attributions", "completeness", "gradient_times_input", "integrated_gradients", "per_item", "per_modality"]

Attributions = dict[str, Any]
"""By the name of the stream, shaped as its values or as their leading axes, summed over the others."""


def integrated_gradients(
    score: Score, streams: Mapping[str, Stream], baseline: Mapping[str, Any] | None = None, *, steps: int = 64
) -> Attributions:
    """``(x - b) * integral of the gradient from b to x`` along the straight line (Sundararajan et al. 2017, eq. 1).

    All streams move together; masks stay. The sum over an example is ``score(x) - score(b)`` (completeness). The
    integral is computed by Gauss-Legendre quadrature.

    Args:
      score: ``streams -> [batch]``; an example's number depends on that example alone.
      streams: of floats.
      baseline: by name, arrays that broadcast against the values; default 0.
      steps: points of the quadrature, one gradient each; increase it if ``completeness`` shows a gap.

    Raises:
      ValueError: no stream of floats, a baseline of an unknown stream, ``steps`` below 1.
    """
    if steps < 1:
        raise ValueError(f"{steps=} must be at least 1")
    return compiled(_integrated, "steps")(as_tree(score), dict(streams), _baseline(streams, baseline), steps)


def _integrated(score: Score, streams: dict[str, Stream], baseline: dict[str, Any], steps: int) -> Attributions:
    values = {name: streams[name].zeroed.values for name in baseline}
    baseline = {name: apply_mask(base, streams[name].mask) for name, base in baseline.items()}
    nodes, weights = np.polynomial.legendre.leggauss(steps)  # on [-1, 1]
    change = {name: values[name] - baseline[name] for name in values}

    def add(total: Attributions, point: tuple[Any, Any]) -> tuple[Attributions, None]:
        share, weight = point
        point_values = {name: baseline[name] + share * change[name] for name in values}
        slope = _gradient(score, streams, point_values)
        return {name: total[name] + weight * slope[name] for name in total}, None

    points = (jnp.asarray((nodes + 1) / 2, jnp.float32), jnp.asarray(weights / 2, jnp.float32))
    mean, _ = jax.lax.scan(add, {name: jnp.zeros_like(change[name]) for name in change}, points)
    return {name: apply_mask(change[name] * mean[name], streams[name].mask) for name in change}


def gradient_times_input(score: Score, streams: Mapping[str, Stream]) -> Attributions:
    """``x * gradient`` (Shrikumar et al. 2016): the first-order share of each value; exact for a linear score.

    Raises:
      ValueError: no stream of floats.
    """
    return compiled(_times_input, "names", effort=0)(as_tree(score), dict(streams), tuple(_baseline(streams, None)))


def _times_input(score: Score, streams: dict[str, Stream], names: tuple[str, ...]) -> Attributions:
    values = {name: streams[name].zeroed.values for name in names}
    slope = _gradient(score, streams, values)
    return {name: apply_mask(values[name] * slope[name], streams[name].mask) for name in names}


def completeness(
    score: Score,
    streams: Mapping[str, Stream],
    attributions: Attributions,
    baseline: Mapping[str, Any] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The sum of an example's attributions ``[batch]`` and what it should be, ``score(x) - score(b)`` ``[batch]``."""
    base = _baseline(streams, baseline)
    at_base = {name: s.replace(values=base[name]).zeroed if name in base else s for name, s in streams.items()}
    call = compiled(_call, effort=0)
    change = call(as_tree(score), dict(streams)) - call(as_tree(score), at_base)
    total = sum(np.asarray(a, np.float64).reshape(len(a), -1).sum(1) for a in attributions.values())
    return np.asarray(total), np.asarray(change, np.float64)


def per_item(attributions: Attributions, streams: Mapping[str, Stream]) -> Attributions:
    """Summed over the axes of an item: one number per word, frame or sample, shaped as the mask."""
    shapes = {name: (*streams[name].mask.shape, -1) for name in attributions}
    return {name: values.reshape(shapes[name]).sum(-1) for name, values in attributions.items()}


def per_modality(attributions: Attributions) -> dict[str, Any]:
    """Summed over a whole stream, ``[batch]``: of integrated gradients they add up to the change of the score."""
    return {name: values.reshape(values.shape[0], -1).sum(-1) for name, values in attributions.items()}


def _call(score: Score, streams: dict[str, Stream]) -> Any:
    return score(streams)


def _gradient(score: Score, streams: Mapping[str, Stream], values: Mapping[str, Any]) -> Attributions:
    """The gradient of each example's score by its own values."""

    def total(values: Mapping[str, Any]) -> Any:
        return score({**streams, **{name: streams[name].replace(values=values[name]) for name in values}}).sum()

    return jax.grad(total)(dict(values))


def _baseline(streams: Mapping[str, Stream], baseline: Mapping[str, Any] | None) -> dict[str, Any]:
    """A baseline for every stream of floats, shaped as its values."""
    floats = [name for name, s in sorted(streams.items()) if jnp.issubdtype(s.values.dtype, jnp.floating)]
    baseline = baseline or {}
    if not floats:
        raise ValueError(f"no stream of floats among {sorted(streams)}: make the score with model_score")
    if unknown := sorted(set(baseline) - set(floats)):
        raise ValueError(f"a baseline of {unknown[0]!r} is given; the streams of floats are {floats}")
    values = {name: streams[name].values for name in floats}
    return {k: jnp.broadcast_to(jnp.asarray(baseline.get(k, 0.0), v.dtype), v.shape) for k, v in values.items()}
