"""Published numbers as targets: whether a row reproduces one, and under which convention either was measured."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.errors import UsageError
from mmjax.typing import Mapping

__all__ = ["METRICS", "STATUSES", "check_metric", "judge"]

STATUSES = ("reproduced", "close", "not reproduced", "cannot run")

METRICS = {
    "accuracy": "share of right answers, all items",
    "acc2_has0": "two classes, score >= 0 against score < 0, neutral items kept",
    "acc2_non0": "two classes, positive against negative, neutral items left out",
    "acc7": "score rounded and clipped to -3 .. 3, seven classes",
    "f1_weighted": "F1 of each class, weighted by its items",
    "f1_macro": "F1 of each class, plain mean",
    "mae": "mean absolute error",
    "bleu4_tok_lc": "BLEU-4, tokenised, lower case",
}
"""Names of metrics carry their convention; numbers of different names are never compared."""


def check_metric(name: str, paper: str, row: str) -> None:
    """Passes if a published number may stand beside a measured one.

    Raises:
      UsageError: the name of a metric that is not known, or two conventions.
    """
    for metric in (name, paper):
        if metric not in METRICS:
            raise UsageError(f"row {row!r}: {metric!r} is no metric with a convention; there are {', '.join(METRICS)}")
    if name != paper:
        raise UsageError(
            f"row {row!r} measures {name} ({METRICS[name]}), its paper reports {paper} ({METRICS[paper]}): "
            "numbers of two conventions are not compared"
        )


def judge(
    paper: Mapping[str, Any] | None, values: Sequence[float] | None, *, scale: float = 100.0
) -> dict[str, Any] | None:
    """The target of a row with its status.

    ``reproduced``: the mean over seeds lies within the tolerance of the published number; ``close``: within twice the
    tolerance; ``not reproduced``: neither; ``cannot run``: the reason stands beside it.

    Args:
      paper: ``value`` and ``source``, ``checked``, ``metric``, ``split``, ``tolerance``, ``cannot_run``.
      values: of each seed, in units of the metric; None = not run.
      scale: what turns them into the units of the published number. The default tolerance is 1 percentage point (of
        other metrics 1 % of the published number) or two standard deviations over seeds, whichever is larger.
    """
    if paper is None:
        return None
    target = {name: paper.get(name) for name in ("value", "metric", "split", "source", "checked")}
    if paper.get("cannot_run"):
        return target | {"tolerance": None, "status": "cannot run", "reason": paper["cannot_run"]}
    if values is None or not len(values):
        return target | {"tolerance": None, "status": "cannot run", "reason": "not run"}
    ours = scale * np.asarray(values, np.float64)
    least = 1.0 if scale == 100 else 0.01 * abs(paper["value"])
    tolerance = paper.get("tolerance") or max(least, 2 * ours.std(ddof=1) if ours.size > 1 else 0.0)
    distance = abs(ours.mean() - paper["value"]) - 1e-9  # rounding does not move a number over a bound
    status = "reproduced" if distance <= tolerance else "close" if distance <= 2 * tolerance else "not reproduced"
    return target | {"tolerance": float(tolerance), "status": status, "reason": paper.get("reason", "")}
