"""Scores of a class per step of an item: labels of steps, or the words of a teacher-forced sentence."""

from typing import Any

import numpy as np

from mmjax.evaluation.scores.score import Score

__all__ = ["SCORES"]


def _hits(outputs: Any, target: Any) -> np.ndarray:
    """Numbers of right and of all steps of each item, ``[items, 2]``, without padding."""
    mask = np.asarray(target.mask)
    hits = (np.asarray(outputs).argmax(-1) == np.asarray(target.values)) & mask
    return np.stack([hits.sum(1), mask.sum(1)], axis=1).astype(np.float64)


def _nats(outputs: Any, target: Any) -> np.ndarray:
    """Summed cross-entropy and number of steps of each item, ``[items, 2]``."""
    mask, outputs = np.asarray(target.mask), np.asarray(outputs, np.float64)
    top = outputs.max(-1)
    total = top + np.log(np.exp(outputs - top[..., None]).sum(-1))
    right = np.take_along_axis(outputs, np.where(mask, target.values, 0)[..., None], axis=-1)[..., 0]
    return np.stack([np.where(mask, total - right, 0).sum(1), mask.sum(1)], axis=1)


def _mean(sums: Any) -> np.ndarray:
    of_answers, answers = np.moveaxis(np.asarray(sums), -1, 0)
    return np.divide(of_answers, answers, out=np.full_like(of_answers, np.nan), where=answers > 0.5)


SCORES = (
    Score.share(
        "tokens_accuracy",
        "share of steps, of all items together, whose highest logit is right",
        "accuracy of steps",
        outputs="tokens",
        states=_hits,
        value=_mean,
    ),
    Score(
        "tokens_nats",
        "cross-entropy in nats, mean over the steps of all items together",
        "cross-entropy",
        "tokens",
        unit="nats",
        higher_is_better=False,
        states=_nats,
        value=_mean,
    ),
)
