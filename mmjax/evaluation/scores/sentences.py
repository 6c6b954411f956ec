"""Scores of sentences that are right or wrong as a whole."""

from typing import Any

import numpy as np

from mmjax.evaluation.scores.bleu import references
from mmjax.evaluation.scores.score import Score
from mmjax.hypotheses import first_texts

__all__ = ["SCORES"]


def _exact(outputs: Any, target: Any) -> np.ndarray:
    right = references(target)
    said = [first_texts(of_seed) for of_seed in outputs]
    return np.asarray([[text in some for text, some in zip(one, right, strict=True)] for one in said], np.float64)


SCORES = (
    Score.share(
        "sentence_exact",
        "share of items whose first hypothesis is one of the references, character by character",
        "exact match",
        outputs="sentences",
        items=_exact,
    ),
)
