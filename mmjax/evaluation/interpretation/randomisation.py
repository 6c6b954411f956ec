"""Do attributions depend on what the model learned? Compare them with those of a model whose weights are drawn anew."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax

from mmjax.evaluation.interpretation.gradients import Attributions, per_item
from mmjax.evaluation.interpretation.scores import compiled, model_score
from mmjax.stream import Stream
from mmjax.training import init_state
from mmjax.typing import Bool, Float, Key, Mapping, PyTree

__all__ = ["rank_correlation", "reinitialise", "weight_randomisation"]


def rank_correlation(
    first: Float[np.ndarray, "b *unit"], second: Float[np.ndarray, "b *unit"], mask: Bool[np.ndarray, "b *unit"]
) -> Float[np.ndarray, " b"]:
    """Spearman's correlation of two attributions over the real units of each example; ties share their mean rank.

    NaN where an example has fewer than two units, or equal ones only.
    """
    from scipy.stats import rankdata

    result = np.full(len(first), np.nan)
    for i, chosen in enumerate(np.asarray(mask, bool)):
        ranks = [rankdata(np.asarray(values[i])[chosen]) for values in (first, second)]
        if chosen.sum() > 1 and min(r.std() for r in ranks) > 0:
            result[i] = np.corrcoef(*ranks)[0, 1]
    return result


def reinitialise(model: nn.Module, streams: Mapping[str, Stream], seed: int = 0) -> PyTree:
    """Variables of the model as before any training."""
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
    """Rank correlation of attributions with those of the same model with weights drawn anew, from the output down.

    The cascading randomisation of Adebayo et al. (2018, section 3.1): after stage ``i`` the parameters of stages 0 to
    ``i`` are fresh. Attributions that stay alike do not explain what was learned.

    Args:
      attribute: ``(score, inputs) -> attributions``, such as ``integrated_gradients``.
      target: ``[batch]`` the class explained in every stage; None = the one that the trained model predicts.
      stages: beginnings of names of the model's parameters; "" = all of them. Stages without parameters are left out.
      absolute: compares magnitudes; False compares signed values. Magnitudes of a product with the input stay alike
        where the input is mostly 0, whatever the weights are (the paper, section 5): read both.
      seed: of the fresh weights.

    Returns:
      By stage (the last as ``all``) and modality ``[batch]``: over words by the sum of their vectors' attributions,
      over single values elsewhere.
    """
    score, inputs = model_score(model, variables, streams, target)
    fresh = reinitialise(model, streams, seed)

    def attributions(variables: PyTree) -> dict[str, np.ndarray]:
        other, given = model_score(model, variables, streams, score.target)
        found = attribute(other, given)
        words = per_item({name: found[name] for name in found if name in other.ids}, given)
        found = {name: np.asarray(value, np.float64) for name, value in {**found, **words}.items()}
        return {name: np.abs(value) for name, value in found.items()} if absolute else found

    def units(name: str, like: np.ndarray) -> np.ndarray:
        mask = np.asarray(inputs[name].mask)
        return np.broadcast_to(mask.reshape(*mask.shape, *(1,) * (like.ndim - mask.ndim)), like.shape)

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
