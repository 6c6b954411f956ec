"""Sanity check of attributions: do they depend on the learned weights? Compares them with those of random weights."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax

from mmjax.evaluation.interpretation.gradients import Attributions, per_item
from mmjax.evaluation.interpretation.scores import compiled, model_score
from mmjax.stream import Stream, where_mask
from mmjax.training import init_state
from mmjax.typing import Bool, Float, Key, Mapping, PyTree

__all__ = ["rank_correlation", "reinitialise", "weight_randomisation"]


def rank_correlation(
    first: Float[np.ndarray, "b *unit"], second: Float[np.ndarray, "b *unit"], mask: Bool[np.ndarray, "b *unit"]
) -> Float[np.ndarray, " b"]:
    """Spearman's correlation of two attributions over the real units of each example.

    NaN where an example has fewer than two units, or all are equal.
    """
    from scipy.stats import rankdata

    result = np.full(len(first), np.nan)
    for i, real in enumerate(np.asarray(mask, bool)):
        ranks = [rankdata(np.asarray(values[i])[real]) for values in (first, second)]
        if real.sum() > 1 and min(r.std() for r in ranks) > 0:
            result[i] = np.corrcoef(*ranks)[0, 1]
    return result


def reinitialise(model: nn.Module, streams: Mapping[str, Stream], seed: int = 0) -> PyTree:
    """Freshly initialised variables of the model."""
    return compiled(_begin, "model", effort=0)(model, dict(streams), jax.random.key(seed))


def _begin(model: nn.Module, streams: dict[str, Stream], key: Key) -> PyTree:
    return init_state(model, optax.identity(), streams, key).variables


def weight_randomisation(
    model: nn.Module,
    variables: PyTree,
    streams: Mapping[str, Stream],
    attribute: Callable[[Any, Mapping[str, Stream]], Attributions],
    *,
    target: Any = None,
    stages: Sequence[str] = ("head", "fusion", ""),
    absolute: bool = True,
    seed: int = 0,
) -> dict[str, dict[str, np.ndarray]]:
    """Rank correlation of attributions before and after randomising the weights, from the output down.

    The cascading randomisation of Adebayo et al. (2018, section 3.1): after stage ``i`` the parameters of stages 0 to
    ``i`` are random. Attributions that stay similar do not explain what was learned.

    Args:
      attribute: ``(score, inputs) -> attributions``, such as ``integrated_gradients``.
      target: ``[batch]`` the class explained in every stage; None = the trained model's prediction.
      stages: prefixes of names of parameters; "" = all of them. Stages without parameters are skipped.
      absolute: compare magnitudes; False = signed values. Where the input is mostly 0, magnitudes of products with it
        stay similar for any weights (the paper, section 5): report both.
      seed: of the random weights.

    Returns:
      By stage (the last as ``all``) and modality ``[batch]``: over words by the sum of their vectors' attributions,
      else over values.
    """
    score, inputs = model_score(model, variables, streams, target)
    fresh = reinitialise(model, streams, seed)

    def attributions(variables: PyTree) -> dict[str, np.ndarray]:
        other, inputs = model_score(model, variables, streams, score.target)
        result = attribute(other, inputs)
        words = per_item({name: result[name] for name in result if name in other.ids}, inputs)
        result = {name: np.asarray(value, np.float64) for name, value in {**result, **words}.items()}
        return {name: np.abs(value) for name, value in result.items()} if absolute else result

    def units(name: str, like: np.ndarray) -> np.ndarray:
        return np.broadcast_to(where_mask(np.asarray(inputs[name].mask), like), like.shape)

    original, params, result = attributions(variables), dict(variables["params"]), {}
    for stage in stages:
        chosen = [name for name in params if name.startswith(stage)]
        if not chosen:
            continue
        params |= {name: fresh["params"][name] for name in chosen}
        changed = attributions({**variables, "params": params})
        result[stage or "all"] = {
            name: rank_correlation(value, changed[name], units(name, value)) for name, value in original.items()
        }
    return result
