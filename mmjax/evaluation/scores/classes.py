"""Scores of one class an item: accuracy, F1, balanced accuracy, AUROC."""

import functools
from typing import Any

import numpy as np

from mmjax.evaluation.scores.ranking import auroc
from mmjax.evaluation.scores.score import Score

__all__ = ["SCORES", "right"]


def right(outputs: Any, target: Any) -> np.ndarray:
    """1 where the highest logit is the target's; the first class of a tie counts."""
    return (np.asarray(outputs).argmax(-1) == np.asarray(target)).astype(np.float64)


def _counts(outputs: Any, target: Any) -> Any:
    """Hits, items and predictions of each class, concatenated ``[items, 3 classes]``; sparse: three entries an item."""
    from scipy.sparse import csr_array

    n, classes = np.shape(outputs)
    target, predicted = np.asarray(target, np.int64), np.asarray(outputs).argmax(-1)
    rows = np.tile(np.arange(n), 3)
    columns = np.concatenate([target, classes + target, 2 * classes + predicted])
    values = np.concatenate([(target == predicted).astype(np.float64), np.ones(2 * n)])
    return csr_array((values, (rows, columns)), shape=(n, 3 * classes))


def _f1(sums: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """F1 of each class, its items and its predictions, ``[..., classes]``; F1 is 0 where both are 0."""
    hits, actual, predicted = np.split(np.asarray(sums), 3, axis=-1)
    return 2 * hits / np.maximum(actual + predicted, 1e-9), actual, predicted


def _f1_macro(sums: Any) -> np.ndarray:
    f1, actual, predicted = _f1(sums)
    seen = actual + predicted > 0.5
    return np.where(seen, f1, 0).sum(-1) / np.maximum(seen.sum(-1), 1)


def _f1_weighted(sums: Any) -> np.ndarray:
    f1, actual, _ = _f1(sums)
    return (f1 * actual).sum(-1) / np.maximum(actual.sum(-1), 1e-9)


def _balanced(sums: Any) -> np.ndarray:
    hits, actual, _ = np.split(np.asarray(sums), 3, axis=-1)
    occurs = actual > 0.5
    return np.where(occurs, hits / np.maximum(actual, 1e-9), 0).sum(-1) / np.maximum(occurs.sum(-1), 1)


def _auroc(outputs: Any, target: Any, weight: Any) -> np.ndarray:
    """One class against the others, by log-odds; with two classes both give the same, so one is enough."""
    outputs = np.asarray(outputs, np.float64)
    top = outputs.max(-1, keepdims=True)
    mass = np.exp(outputs - top)
    rest = np.maximum(mass.sum(-1, keepdims=True) - mass, 1e-300)
    odds = outputs - top - np.log(rest)
    classes = [1] if outputs.shape[-1] == 2 else range(outputs.shape[-1])
    return np.nanmean(np.stack([auroc(odds[:, one], np.asarray(target) == one, weight) for one in classes]), axis=0)


_share = functools.partial(Score.share, outputs="classes")

SCORES = (
    _share("accuracy", "share of right answers, all items", "accuracy", items=right),
    _share(
        "accuracy_balanced",
        "mean over the classes that occur of the share of their items that is right",
        "balanced accuracy",
        states=_counts,
        value=_balanced,
    ),
    _share("f1_macro", "F1 of each class, plain mean", "macro F1", states=_counts, value=_f1_macro),
    _share(
        "f1_weighted",
        "F1 of each class, weighted by its items",
        "weighted F1",
        states=_counts,
        value=_f1_weighted,
    ),
    _share(
        "auroc",
        "area under the ROC curve, each class against the others, plain mean over classes that occur",
        "AUROC",
        chance=0.5,
        statistic=_auroc,
    ),
    # Two conventions for binary sentiment; the data contain the items of either.
    _share(
        "acc2_has0",
        "two classes, score >= 0 against score < 0, neutral items kept",
        "accuracy (acc2_has0)",
        items=right,
    ),
    _share(
        "acc2_non0",
        "two classes, positive against negative, neutral items left out",
        "accuracy (acc2_non0)",
        items=right,
    ),
    _share(
        "acc7",
        "score rounded and clipped to -3 .. 3, seven classes",
        "accuracy (acc7)",
        items=right,
    ),
)
