"""Scores of a shared space from the embeddings of both sides of a split, ``[items, 2, slots, dim]``.

Each is of length 1, or zeros where there is none (see ``mmjax.retrieval.Retrieval.keep``). Every item of the split is a
candidate whatever is drawn again: resampling is of queries. Forward, queries are of the first side; backward, of the
second, and an item with five of them has five queries.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from mmjax.evaluation.scores import ranks
from mmjax.evaluation.scores.ranking import average_precisions
from mmjax.evaluation.scores.score import Score
from mmjax.ranking import DIRECTIONS, KS, Sides
from mmjax.stream import Stream

__all__ = ["SCORES", "sides"]

_HITS = {one.name: one.items for one in ranks.SCORES}


def sides(outputs: Any) -> Sides:
    """The embeddings of one seed ``[items, 2, slots, dim]`` as streams."""
    values = np.asarray(outputs, np.float32)
    mask = (values != 0).any(-1)
    return Sides(Stream(values[:, 0], mask[:, 0]), Stream(values[:, 1], mask[:, 1]))


_FOUND: dict[tuple[bytes, tuple[int, ...]], dict[str, Stream]] = {}  # a report asks for those of a row again and again


def _ranks(outputs: Any) -> dict[str, Stream]:
    values = np.ascontiguousarray(outputs, np.float32)
    key = hashlib.blake2b(values.data, digest_size=16).digest(), values.shape
    found = _FOUND.get(key)
    if found is None:
        if len(_FOUND) >= 200:
            _FOUND.clear()
        found = _FOUND[key] = jax.device_get(jax.jit(Sides.ranks)(sides(values)))
    return found


def _hits(ks: tuple[int, ...], ways: tuple[str, ...]) -> Callable[[Any, Any], np.ndarray]:
    """``[items, 2 * ways * ks]``: queries answered within k and queries, of each way and k."""

    def states(outputs: Any, target: Any) -> np.ndarray:
        found = _ranks(outputs)
        columns = []
        for way in ways:
            queries = found[way].mask
            for k in ks:
                right = _HITS[f"recall@{k}"](found[way].values, None) * queries  # type: ignore[misc]
                columns += [right.sum(1), queries.sum(1)]
        return np.stack(columns, axis=1).astype(np.float64)

    return states


def _sum_of_shares(sums: Any) -> np.ndarray:
    sums = np.asarray(sums, np.float64)
    right, queries = sums[..., 0::2], sums[..., 1::2]
    return np.divide(right, queries, out=np.full_like(right, np.nan), where=queries > 0).sum(-1)


def _median(way: str) -> Callable[[Any, Any, Any], np.ndarray]:
    def statistic(outputs: Any, target: Any, weight: Any) -> np.ndarray:
        found = _ranks(outputs)[way]
        item = np.nonzero(found.mask)[0]
        places = found.values[found.mask]
        order = np.argsort(places, kind="stable")
        counts = np.cumsum(np.asarray(weight, np.float64)[:, item[order]], axis=1)
        half = counts[:, -1:] / 2
        places = np.append(places[order], 0)  # where a draw has no query at all
        lower, upper = (counts < half - 1e-9).sum(1), (counts <= half + 1e-9).sum(1)
        median = 1.0 + (places[lower] + places[np.minimum(upper, len(places) - 2)]) / 2
        return np.where(counts[:, -1] > 0, median, np.nan) if len(item) else np.full(len(weight), np.nan)

    return statistic


def _precisions(way: str, chosen: str | None = None) -> Callable[[Any, Any], np.ndarray]:
    """``[items, 2]``: average precision of an item's queries by class, summed, and their number.

    A candidate of the class of the query is right. With ``chosen``, queries are only the items of which that entry of
    the target is true; candidates are all.
    """

    def states(outputs: Any, target: Any) -> np.ndarray:
        both = sides(outputs)
        labels = np.asarray(target["label"] if isinstance(target, Mapping) else target)
        queries, candidates = (both.first, both.second) if way == DIRECTIONS[0] else (both.second, both.first)
        there = np.asarray(candidates.mask)
        owner = np.broadcast_to(labels[:, None], there.shape)[there]
        flat = candidates.values[there]
        asked = np.asarray(queries.mask)
        if chosen is not None:
            asked = asked & np.asarray(target[chosen], bool)[:, None]
        row = np.nonzero(asked)[0]
        precisions = average_precisions(queries.values[asked] @ flat.T, labels[row][:, None] == owner)
        has = ~np.isnan(precisions)
        count = len(labels)
        return np.stack([np.bincount(row[has], some[has], count) for some in (precisions, np.ones(len(row)))], axis=1)

    return states


def _both(chosen: str | None = None) -> Callable[[Any, Any], np.ndarray]:
    ways = [_precisions(way, chosen) for way in DIRECTIONS]
    return lambda outputs, target: np.concatenate([way(outputs, target) for way in ways], axis=1)


def _mean_of_shares(sums: Any) -> np.ndarray:
    return _sum_of_shares(sums) / (np.asarray(sums).shape[-1] // 2)


_WORDS = dict(zip(DIRECTIONS, ("first side sought among the second", "second side sought among the first")))


def _recall_of(k: int, way: str) -> Score:
    convention = f"share of queries of the {_WORDS[way]}, of the whole split, with a right answer among the first {k}"
    ways = {"states": _hits((k,), (way,)), "value": _sum_of_shares}
    return Score.share(f"recall@{k}_{way}", convention, f"recall at {k}, {way}", outputs="other", alone=False, **ways)


def _rsum() -> Score:
    """In percent already, as ``Sides.compute`` and the literature give it."""
    convention = "sum of the recalls at 1, 5 and 10 both ways, in percent (R-sum; 600 is perfect)"
    ways: dict[str, Any] = {"states": _hits(KS, DIRECTIONS), "value": lambda sums: 100 * _sum_of_shares(sums)}
    return Score("rsum", convention, "sum of recalls", "other", digits=1, margin=6.0, alone=False, **ways)


def _median_of(way: str) -> Score:
    """Its pseudo-values tell little of its spread: the jackknife is not consistent for a median (Efron 1979)."""
    convention = f"median over queries of the {_WORDS[way]} of the place of the first right answer, counted from 1"
    return Score(
        f"median_rank_{way}",
        convention,
        f"median rank, {way}",
        "other",
        digits=1,
        higher_is_better=False,
        alone=False,
        statistic=_median(way),
    )


def _map_of(way: str | None, chosen: str | None = None) -> Score:
    suffix = ("" if way is None else f"_{way}") + (f"_{chosen}" if chosen else "")
    of = "both ways, mean of the two" if way is None else f"of the {_WORDS[way]}"
    some = f"; queries are the items that are {chosen}, candidates all" if chosen else ""
    convention = f"mean average precision {of}: right are all candidates of the query's class{some}"
    states = _both(chosen) if way is None else _precisions(way, chosen)
    label = f"mean average precision{'' if way is None else f', {way}'}{f' ({chosen})' if chosen else ''}"
    return Score.share(
        f"map{suffix}", convention, label, outputs="other", alone=False, states=states, value=_mean_of_shares
    )


SCORES = (
    _rsum(),
    *(_recall_of(k, way) for way in DIRECTIONS for k in KS),
    *(_median_of(way) for way in DIRECTIONS),
    *(_map_of(way, chosen) for chosen in (None, "unshared") for way in (None, *DIRECTIONS)),
)
