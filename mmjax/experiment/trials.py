"""Hyper-parameter search: the setting of a row is chosen on validation among trials, as many for every row.

Trials of a network share its compiled program (``mmjax.search``) and are compared on the first few seeds; then all
seeds are trained with the best. For a fit with a penalty ``C``, trials vary ``C``.
"""

import dataclasses
import functools
import inspect
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from mmjax.experiment.checks import some_shapes
from mmjax.experiment.table import Row
from mmjax.resident import Fit, Prepared
from mmjax.search import Trial, draw_trials, own_weight_decay, uses_dropout
from mmjax.stream import Batch
from mmjax.training import Train, init_state, make_optimizer
from mmjax.typing import Mapping

__all__ = ["SEEDS", "Search", "describe_trials", "fit_chosen", "has_settings", "penalties", "search_fit"]

SEEDS = 2
"""Trials are compared on at least so many seeds, if the row has them."""
PENALTY_FACTOR = 100.0


@dataclasses.dataclass(frozen=True)
class Search:
    """The trials of a row and the chosen one.

    Attributes:
      metric: of validation, by which trials are compared.
      seeds: of the comparison; scores are means over them.
      settings: of each trial, numbers by name; None = as in the row.
      scores: of each trial; None = it diverged.
      chosen: index of the best, the first of equals; 0 where all diverged.
      lower: whether a lower score is better.
      seconds: elapsed.
    """

    metric: str
    seeds: tuple[int, ...]
    settings: tuple[Mapping[str, float | None], ...]
    scores: tuple[float | None, ...]
    chosen: int
    lower: bool
    seconds: float = 0.0

    @classmethod
    def of(
        cls, metric: str, lower: bool, seeds: Sequence[int], settings: Sequence[Mapping], scores: np.ndarray
    ) -> "Search":
        """The search with these scores ``[trials, seeds]``; NaN where a trial diverged."""
        means = np.asarray(scores, np.float64).mean(1)
        of_trials = tuple(float(value) if np.isfinite(value) else None for value in means)
        return cls(metric, tuple(seeds), tuple(settings), of_trials, _best(scores, lower), lower)

    def without_chosen(self) -> "Search":
        """The search with the best trial marked as diverged."""
        scores = tuple(None if place == self.chosen else score for place, score in enumerate(self.scores))
        values = np.asarray([np.nan if score is None else score for score in scores])[:, None]
        return dataclasses.replace(self, scores=scores, chosen=_best(values, self.lower))

    @property
    def rule(self) -> str:
        """In words."""
        of = f"mean of {len(self.seeds)} seeds" if len(self.seeds) > 1 else "one seed"
        return f"setting of best validation {self.metric} ({of}) among {len(self.settings)} trials"

    def record(self) -> dict[str, Any]:
        """Fields for the record's ``method``."""
        trials = [{**setting, "validation": score} for setting, score in zip(self.settings, self.scores)]
        return {
            "trials": len(self.settings),
            "choice": {"trial": self.chosen + 1, **self.settings[self.chosen]},
            "search": {"metric": self.metric, "seeds": list(self.seeds), "trials": trials},
        }


def _best(scores: np.ndarray, lower: bool) -> int:
    means = np.asarray(scores, np.float64).mean(1)
    return int(np.where(np.isfinite(means), means if lower else -means, np.inf).argmin())


def fit_chosen(
    prepared: Prepared, settings: Sequence[Mapping[str, float | None]], lower: bool, run: Callable[..., Fit]
) -> tuple[Fit, Search, Trial]:
    """Searches, then trains all seeds with the best trial; returns the fit, the search and that trial ``[seeds]``.

    A trial that diverges on a seed outside the search is replaced by the next best.

    Args:
      prepared: programs that take trials.
      settings: of the trials, from ``describe_trials``.
      lower: whether a lower value of ``train.select`` is better.
      run: ``prepared.run`` with a label, ``trials 1 of 3`` or ``fit of trial 2``, as first argument.

    Raises:
      UsageError: no trial is finite on all seeds.
    """
    search = _search(prepared, settings, lower, run)
    while True:
        place, last = search.chosen, search.scores[search.chosen] is None
        trial = jax.tree.map(
            lambda x, place=place: np.repeat(x[place], len(prepared.seeds)), draw_trials(len(settings))
        )
        fitted = run(f"fit of trial {place + 1}", trials=trial, strict=last)
        if not fitted.diverged.any():
            return fitted, search, trial
        search = search.without_chosen()


def _search(
    prepared: Prepared, settings: Sequence[Mapping[str, float | None]], lower: bool, run: Callable[..., Fit]
) -> Search:
    """Trains the trials, as many at a time as the row has seeds, and compares them."""
    trials, width, select = draw_trials(len(settings)), len(prepared.seeds), prepared.train.select
    wanted = min(SEEDS, width)
    parts = math.ceil(len(settings) * wanted / width)
    seeds = prepared.seeds[: min(width, parts * width // len(settings))]
    pairs = [(trial, seed) for trial in range(len(settings)) for seed in seeds]
    pairs += pairs[:1] * (parts * width - len(pairs))  # padding: one shape, one program
    scores: list[float] = []
    clock = time.perf_counter()
    for part in range(parts):
        some = pairs[part * width : (part + 1) * width]
        places = np.asarray([trial for trial, _ in some])
        batch = jax.tree.map(lambda x, places=places: x[places], trials)
        fitted = run(f"trials {part + 1} of {parts}", seeds=[seed for _, seed in some], trials=batch, strict=False)
        best = fitted.history[f"validation/{select}"][fitted.epoch, np.arange(width)]
        scores += np.where(fitted.diverged | (fitted.epoch < 0), np.nan, best).tolist()
    table = np.asarray(scores[: len(settings) * len(seeds)]).reshape(len(settings), len(seeds))
    search = Search.of(select, lower, seeds, settings, table)
    return dataclasses.replace(search, seconds=time.perf_counter() - clock)


def describe_trials(count: int, model: nn.Module, train: Train, batch: Batch) -> list[dict[str, float | None]]:
    """The settings of a network's trials as plain numbers, without weight decay or dropout where it has none.

    Args:
      batch: of its data; only shapes are used.
    """
    names = ("params", "dropout", "sample")

    def step(batch: Batch) -> Any:
        keys = dict(zip(names, jax.random.split(jax.random.key(0), 3)))
        tx = make_optimizer(train, 1)
        variables = init_state(model, tx, batch.streams, keys["params"], targets=batch.target).variables
        return model.apply(variables, batch.streams, targets=batch.target, train=True, rngs=keys, mutable=True)

    drops = uses_dropout(step, some_shapes(batch))
    own = own_weight_decay(train.optimizer)
    trials, settings = draw_trials(count), []
    for number in range(count):
        factor, decay, rate = (
            float(x[number]) for x in (trials.learning_rate, trials.weight_decay, trials.dropout_rate)
        )
        setting: dict[str, float | None] = {"learning_rate": _short(factor * train.learning_rate)}
        if own is not None:
            setting["weight_decay"] = _short(own if math.isnan(decay) else decay)
        if drops:
            setting["dropout_rate"] = None if math.isnan(rate) else _short(rate)
        settings.append(setting)
    return settings


def _short(value: float) -> float:
    """Rounded to six digits, the precision of float32."""
    return float(f"{value:.6g}")


def penalties(fit: Callable[..., Any], count: int) -> list[tuple[dict[str, float | None], Callable[..., Any]]]:
    """Settings and fits: the fit itself, then with ``C`` scaled by 0.01 to 100 (log-uniform); only the first
    without a ``C``.
    """
    parameter = inspect.signature(fit).parameters.get("C")
    own = None if parameter is None else parameter.default
    if not isinstance(own, (int, float)):
        return [({}, fit)]
    factors = PENALTY_FACTOR ** np.log10(draw_trials(count).learning_rate.astype(np.float64))
    values = [_short(own * factor) for factor in factors]
    return [({"C": value}, functools.partial(fit, C=value)) for value in values]


def has_settings(row: Row) -> bool:
    """Whether a row has hyper-parameters to search: it is a network, or a fit with a penalty."""
    return row.model is not None or len(penalties(row.combination, 2)) > 1


def search_fit(
    candidates: Sequence[tuple[Mapping[str, float | None], Callable[..., Any]]],
    outputs: Callable[[Callable[..., Any], int], Mapping[str, Any]],
    score: Callable[[Any], float],
    metric: str,
    lower: bool,
    seeds: Sequence[int],
) -> tuple[Search, Callable[..., Any]]:
    """The search and the candidate with the best validation score.

    Args:
      candidates: from ``penalties``.
      outputs: ``(fit, seed) -> outputs by split``; only those of validation are read.
      score: of validation outputs, the metric.
      seeds: on which they are compared.
    """
    scores = np.asarray([[score(outputs(fit, seed)["validation"]) for seed in seeds] for _, fit in candidates])
    search = Search.of(metric, lower, seeds, [setting for setting, _ in candidates], scores)
    return search, candidates[search.chosen][1]
