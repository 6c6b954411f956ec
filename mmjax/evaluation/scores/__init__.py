"""Primary metrics by name, each with its convention; ``register`` adds a custom one."""

from mmjax.errors import UsageError
from mmjax.evaluation.scores import (
    bleu,
    captions,
    classes,
    labels,
    ranks,
    retrieval,
    sentences,
    tokens,
    values,
    vectors,
)
from mmjax.evaluation.scores.score import OUTPUTS as OUTPUTS
from mmjax.evaluation.scores.score import Outputs as Outputs
from mmjax.evaluation.scores.score import Score as Score

__all__ = ["OUTPUTS", "Outputs", "Score", "register", "score", "scores"]

_SCORES: dict[str, Score] = {}


def register(new: Score) -> Score:
    """Adds a metric for use in tables.

    Raises:
      UsageError: the name is taken.
    """
    if new.name in _SCORES:
        raise UsageError(f"there is a score {new.name!r} already: {_SCORES[new.name].convention}")
    _SCORES[new.name] = new
    return new


def score(name: str) -> Score:
    """The metric of that name.

    Raises:
      UsageError: an unknown name; the message lists the registered ones.
    """
    if name not in _SCORES:
        raise UsageError(f"no score {name!r}; there are {', '.join(sorted(_SCORES))}")
    return _SCORES[name]


def scores(outputs: str | None = None) -> dict[str, Score]:
    """All metrics by name, or those of one kind of outputs (see ``OUTPUTS``)."""
    return {name: one for name, one in _SCORES.items() if outputs in (None, one.outputs)}


_FILES = (classes, values, vectors, labels, ranks, tokens, retrieval, bleu, captions, sentences)
for _one in (part for file in _FILES for part in file.SCORES):
    register(_one)
