"""How well a model does without interactions: its empirical multimodally additive projection (EMAP)."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from mmjax.errors import UsageError
from mmjax.evaluation.measures.item_scores import Score, check_counts, finite, sorted_names, tie_tolerant
from mmjax.evaluation.measures.mixing import Mixed
from mmjax.evaluation.measures.robustness import pattern_rows
from mmjax.typing import Float, Int, Shaped

__all__ = ["DRAWS", "ITEMS", "Emap", "background", "emap", "emap_outputs"]

DRAWS = 2  # of the background, for each model
ITEMS = 200  # of a background, or all where there are fewer
_ROWS, _FIRST_ROWS = 65_536, 4096  # of a call; of the first one, which tells how wide the outputs are
_NUMBERS = 2**22  # of the outputs of a call: 32 MB in float64


@dataclasses.dataclass(frozen=True)
class Emap:
    """How well a model does without interactions.

    Attributes:
      score: of the EMAP outputs, ``[seeds, draws]``.
      gap: what the model has over it, ``[seeds, draws]``.
      items: of a background.
    """

    score: np.ndarray
    gap: np.ndarray
    items: int


def background(
    n: int, draw: int = 0, *, items: int = ITEMS, seed: int = 0, model: int = 0
) -> Int[np.ndarray, " items"]:
    """Numbers of ``min(n, items)`` of the ``n`` evaluated items, none twice, sorted.

    Draws of one model overlap as little as possible; each model has draws of its own.
    """
    order = np.random.default_rng((seed, model)).permutation(n)
    return np.sort(np.take(order, np.arange(draw * items, draw * items + min(n, items)), mode="wrap"))


def emap_outputs(
    mixed: Mixed, modalities: Iterable[str], n: int, background: Int[np.ndarray, "... items"]
) -> Float[np.ndarray, "seeds n ..."]:
    """Outputs of the empirical multimodally additive projection (Hessel & Lee 2020) with one background J for all terms

        sum_m mean_j f(x_m of i, the rest of j) - (M - 1) mean_m mean_jk f(x_m of j, the rest of k)

    over j and k in J. With two modalities and all items as J this is their formula; with more it is an additive
    surrogate, not the closest one. An additive f is its own projection for any J. For logits, not probabilities. Takes
    M n |J| passes of fusion and head; half as many with two modalities and all items as J, whose terms coincide.

    Args:
      background: item numbers, the same in every term; ``[seeds, items]`` where seeds have different ones.

    Raises:
      UsageError: no modality, numbers that are no items, outputs that are not a number.
    """
    names, background = sorted_names(modalities), np.asarray(background)
    if not background.size or background.min() < 0 or background.max() >= n:
        raise UsageError(f"the background must be numbers of the {n} items, at least one")
    return _additive(mixed, names, background, n)


def emap(
    mixed: Mixed,
    modalities: Iterable[str],
    target: Shaped[np.ndarray, " n"],
    *,
    score: Score | None = None,
    draws: int = DRAWS,
    items: int = ITEMS,
    seed: int = 0,
    everywhere: bool = True,
) -> Emap:
    """Score of a model without its interactions, and the gap to its own (Hessel & Lee 2020).

    Args:
      target: of the evaluated items.
      everywhere: evaluate all items, ``M n |J|`` passes a draw, or only those of the background, ``M |J|^2`` passes.
      score: default ``share_of_ties``; outputs within 1e-6 of the model's largest output are ties.
      draws: of the background, different for each seed of the model.
      items: of a background.

    Raises:
      UsageError: as ``emap_outputs``.
    """
    names, n = sorted_names(modalities), len(target)
    check_counts(draws=draws, items=items)
    outputs = finite(mixed(pattern_rows(names, names, n)))
    target = np.asarray(target)
    score = score or tie_tolerant(outputs)
    own = np.asarray(score(outputs, target), np.float64)
    pairs: list[tuple[np.ndarray, ...]] = []
    for draw in range(draws):
        if pairs and (items >= n or len(names) == 1):  # every draw is the same
            pairs.append(pairs[0])
            continue
        numbers = np.stack([background(n, draw, items=items, seed=seed, model=model) for model in range(len(outputs))])
        numbers = numbers[0] if items >= n else numbers
        additive = _additive(mixed, names, numbers, n if everywhere else None)
        seen = np.arange(n) if everywhere else numbers
        whole, seen = outputs.copy(), np.broadcast_to(seen, (len(outputs), seen.shape[-1]))
        np.put_along_axis(whole, _widened(seen, whole), additive, axis=1)
        changed = np.asarray(score(whole, target), np.float64)
        if own.shape[1] == n:
            pair = tuple(np.take_along_axis(one, seen, axis=1).mean(-1) for one in (changed, own))
        else:  # a metric of the whole set: computed on the items seen
            parts = [(whole[[i], some], outputs[[i], some], target[some]) for i, some in enumerate(seen)]
            pair = tuple(np.stack([score(one[k][None], one[2])[0, 0] for one in parts]) for k in (0, 1))
        pairs.append(pair)
    projected, whole = (np.stack(part, axis=1) for part in zip(*pairs))
    return Emap(projected, whole - projected, min(n, items))


def _widened(items: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Item numbers ``[seeds, n]`` as an index into outputs ``[seeds, items, ...]`` along their items."""
    return items.reshape(*items.shape, *(1,) * (outputs.ndim - 2))


def _additive(
    mixed: Mixed, names: tuple[str, ...], background: np.ndarray, n: int | None = None
) -> Float[np.ndarray, "seeds seen ..."]:
    """``emap_outputs`` of all ``n`` items, or of those of the background alone."""
    seen = background if n is None else np.arange(n)
    if len(names) == 1:
        return finite(mixed({names[0]: seen}))
    alike = np.array_equal(seen, background)
    if alike and len(names) == 2:
        alone = _means_of_pairs(mixed, names, background)
    else:
        alone = [_mean_over(mixed, names, name, seen, background) for name in names]
    inside = alone
    if not alike:
        places = np.broadcast_to(background, (len(alone[0]), background.shape[-1]))
        inside = [np.take_along_axis(one, _widened(places, one), axis=1) for one in alone]
    centre = sum(one.mean(1, keepdims=True) for one in inside) / len(names)
    return sum(alone) - (len(names) - 1) * centre


def _mean_over(mixed: Mixed, names: Sequence[str], name: str, seen: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Outputs ``[seeds, n, ...]`` with ``name`` of each item seen and the rest of one of ``items``, mean over those."""
    rest = [other for other in names if other != name]
    return np.concatenate([part.mean(2) for part in _grids(mixed, [name], rest, seen, items)], axis=1)


def _means_of_pairs(mixed: Mixed, names: Sequence[str], items: np.ndarray) -> list[np.ndarray]:
    """The same of two modalities and the same items, for both: one grid of mixtures holds them."""
    first: list[np.ndarray] = []
    second: Any = 0.0
    for part in _grids(mixed, names[:1], names[1:], items, items):
        first.append(part.mean(2))
        second = second + part.sum(1)
    return [np.concatenate(first, axis=1), second / items.shape[-1]]


def _grids(
    mixed: Mixed, own: Sequence[str], rest: Sequence[str], seen: np.ndarray, items: np.ndarray
) -> Iterator[np.ndarray]:
    """Outputs ``[seeds, some, items, ...]`` with ``own`` of some items seen and ``rest`` of each of ``items``."""
    n, count = seen.shape[-1], items.shape[-1]
    start, step = 0, max(1, _FIRST_ROWS // count)
    while start < n:
        some = seen[..., start : start + step]
        width = some.shape[-1]
        rows = {name: np.repeat(some, count, axis=-1) for name in own}
        rows |= {name: np.concatenate([items] * width, axis=-1) for name in rest}
        outputs = finite(mixed(rows))
        outputs = outputs.reshape(len(outputs), width, count, *outputs.shape[2:])
        yield outputs
        start += width
        numbers = count * len(outputs) * math.prod(outputs.shape[3:])  # of the outputs for one item
        step = max(1, min(_ROWS // count, _NUMBERS // numbers))
