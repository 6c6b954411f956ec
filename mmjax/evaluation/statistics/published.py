"""Published numbers as targets: whether a row reproduces one, and whether their metrics are comparable."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.errors import UsageError
from mmjax.evaluation.scores import Score, score, scores
from mmjax.typing import Mapping

__all__ = ["STATUSES", "check_metric", "judge", "metrics"]

STATUSES = ("reproduced", "consistent (wide)", "close", "not reproduced", "cannot run")


def metrics() -> dict[str, str]:
    """The convention of each metric by name; numbers of different names are never compared."""
    return {name: one.convention for name, one in scores().items()}


def check_metric(name: str, paper: str, row: str) -> None:
    """Passes if a published number is comparable with that of a row.

    Raises:
      UsageError: an unknown metric, or two conventions.
    """
    conventions = metrics()
    for metric in (name, paper):
        if metric not in conventions:
            names = ", ".join(conventions)
            raise UsageError(f"row {row!r}: {metric!r} is no metric with a convention; there are {names}")
    if name != paper:
        raise UsageError(
            f"row {row!r} measures {name} ({conventions[name]}), its paper reports {paper} ({conventions[paper]}): "
            "numbers of two conventions are not compared"
        )


def judge(
    paper: Mapping[str, Any] | None, values: Sequence[float] | None, metric: Score | None = None
) -> dict[str, Any] | None:
    """The target of a row with its status.

    The difference is ours minus the published number, with its interval over our seeds; the published number is exact
    unless it has a standard deviation. ``reproduced``: the difference is within the bound and its interval within twice
    the bound, so noise alone is no reproduction; ``consistent (wide)``: the interval includes zero, but it is no
    reproduction; ``close``: the difference is within twice the bound; ``not reproduced``: none of these;
    ``cannot run``: with the reason.

    Args:
      paper: ``value`` and ``source``, ``checked``, ``metric``, ``split``, ``tolerance``, ``sd``, ``runs``,
        ``cannot_run``; ``sd`` over the paper's runs, 1 if their number is not given.
      values: of each seed, in units of the metric; None = not run. Fewer than three have no interval.
      metric: its factor converts them to the units of the published number; None = accuracy. The bound is the row's
        tolerance, else the metric's margin (1 percentage point), else 1 % of the published number.
    """
    if paper is None:
        return None
    nothing = {"tolerance": None, "difference": None, "difference_interval": None}
    target = {name: paper.get(name) for name in ("value", "metric", "split", "source", "checked")} | nothing
    if paper.get("cannot_run"):
        return target | {"status": "cannot run", "reason": paper["cannot_run"]}
    if values is None or not len(values):
        return target | {"status": "cannot run", "reason": "not run"}
    metric = metric or score("accuracy")
    ours = metric.factor * np.asarray(values, np.float64)
    margin = 0.01 * abs(paper["value"]) if metric.margin is None else metric.factor * metric.margin
    bound = paper.get("tolerance") or margin
    difference = float(ours.mean() - paper["value"])
    interval = _interval(ours - paper["value"], paper.get("sd"), paper.get("runs") or 1)
    target |= {"tolerance": float(bound), "difference": difference, "difference_interval": interval}
    return target | {"status": _status(difference, interval, bound), "reason": paper.get("reason", "")}


def _interval(differences: np.ndarray, sd: float | None, runs: int) -> list[float] | None:
    """95 % interval of the mean difference: Student's, or Welch's if the published number has an sd."""
    from scipy.special import stdtrit

    count = differences.size
    if count < 3:
        return None
    ours, theirs = differences.var(ddof=1) / count, (sd or 0.0) ** 2 / runs
    terms = ours**2 / (count - 1) + (theirs**2 / (runs - 1) if runs > 1 else 0.0)  # the sd of one run counts as exact
    freedom = min((ours + theirs) ** 2 / terms, 1e9) if terms > 0 else 1e9
    half = stdtrit(freedom, 0.975) * np.sqrt(ours + theirs)
    return [float(differences.mean() - half), float(differences.mean() + half)]


def _status(difference: float, interval: Sequence[float] | None, bound: float) -> str:
    rounding = 1e-9  # tolerated at the bounds
    distance = abs(difference) - rounding
    widest = distance if interval is None else max(abs(end) for end in interval) - rounding
    if distance <= bound and widest <= 2 * bound:
        return "reproduced"
    if interval is not None and interval[0] <= 0 <= interval[1]:
        return "consistent (wide)"
    return "close" if distance <= 2 * bound else "not reproduced"
