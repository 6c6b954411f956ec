"""Scores of retrieval from the rank of the right answer among the candidates, counted from 0."""

from typing import Any

import numpy as np

from mmjax.evaluation.scores.score import Score

__all__ = ["SCORES"]


def _recall(k: int) -> Score:
    def within(outputs: Any, target: Any) -> np.ndarray:
        return (np.asarray(outputs) < k).astype(np.float64)

    convention = f"share of queries with the right answer among the first {k}"
    return Score.share(f"recall@{k}", convention, f"recall at {k}", outputs="ranks", items=within)


def _reciprocal(outputs: Any, target: Any) -> np.ndarray:
    return 1.0 / (1.0 + np.asarray(outputs, np.float64))


SCORES = (
    *(_recall(k) for k in (1, 5, 10)),
    Score("mrr", "mean of 1 over the place, counted from 1", "mean reciprocal rank", "ranks", items=_reciprocal),
)
