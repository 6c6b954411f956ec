"""Scores of any number of labels an item; a logit above 0 predicts the label."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from mmjax.evaluation.scores.ranking import auroc, average_precision
from mmjax.evaluation.scores.score import Score

__all__ = ["SCORES"]


def _sets(outputs: Any, target: Any) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true labels, bool."""
    return np.asarray(outputs) > 0, np.asarray(target) > 0.5


def _counts(outputs: Any, target: Any) -> np.ndarray:
    """Hits, occurrences and predictions of each label, ``[items, 3 labels]``."""
    predicted, true = _sets(outputs, target)
    return np.concatenate([predicted & true, true, predicted], axis=-1).astype(np.float64)


def _f1_micro(sums: Any) -> np.ndarray:
    hits, actual, predicted = (part.sum(-1) for part in np.split(np.asarray(sums), 3, axis=-1))
    return 2 * hits / np.maximum(actual + predicted, 1e-9)


def _f1_macro(sums: Any) -> np.ndarray:
    hits, actual, predicted = np.split(np.asarray(sums), 3, axis=-1)
    return (2 * hits / np.maximum(actual + predicted, 1e-9)).mean(-1)


def _f1_items(outputs: Any, target: Any) -> np.ndarray:
    predicted, true = _sets(outputs, target)
    hits, either = (predicted & true).sum(-1), predicted.sum(-1) + true.sum(-1)
    return np.where(either > 0, 2 * hits / np.maximum(either, 1), 1.0)


def _exact(outputs: Any, target: Any) -> np.ndarray:
    predicted, true = _sets(outputs, target)
    return (predicted == true).all(-1).astype(np.float64)


def _over_labels(curve: Callable[[Any, Any, Any], np.ndarray]) -> Callable[[Any, Any, Any], np.ndarray]:
    """The unweighted mean over the labels for which the area is defined; NaN if for none."""

    def statistic(outputs: Any, target: Any, weight: Any) -> np.ndarray:
        outputs, true = np.asarray(outputs, np.float64), np.asarray(target) > 0.5
        areas = np.stack([curve(outputs[:, one], true[:, one], weight) for one in range(outputs.shape[1])])
        defined = np.isfinite(areas)
        total = np.where(defined, areas, 0).sum(0)
        return np.divide(total, defined.sum(0), out=np.full(total.shape, np.nan), where=defined.any(0))

    return statistic


_share = functools.partial(Score.share, outputs="labels")

SCORES = (
    _share(
        "labels_f1_micro",
        "F1 of all labels' counts together, a logit above 0 is a yes",
        "micro F1",
        states=_counts,
        value=_f1_micro,
    ),
    _share(
        "labels_f1_macro",
        "F1 of each label (0 where it neither occurs nor is given), plain mean",
        "macro F1",
        states=_counts,
        value=_f1_macro,
    ),
    _share(
        "labels_f1_items",
        "F1 of each item's set of labels (1 where both sets are empty), mean over items",
        "F1 of items",
        items=_f1_items,
    ),
    _share("labels_exact", "share of items all of whose labels are right", "exact match", items=_exact),
    _share(
        "labels_auroc",
        "area under the ROC curve of each label, plain mean over labels that have both answers",
        "AUROC",
        chance=0.5,
        statistic=_over_labels(auroc),
    ),
    _share(
        "labels_map",
        "average precision of each label, plain mean over labels that occur",
        "mean average precision",
        statistic=_over_labels(average_precision),
    ),
)
