"""The setting of a row, chosen among trials on validation: as many for every row, test read for the choice alone.

Trials of a network share its compiled program (``mmjax.search``) and are compared on the first few seeds; all seeds are
then trained with the best. A fit that has a penalty ``C`` is tried with others.
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
import jax.numpy as jnp
import numpy as np

from mmjax.experiment.table import Row
from mmjax.resident import Fit, Prepared
from mmjax.search import Trial, draw_trials, own_weight_decay, uses_dropout
from mmjax.stream import Batch
from mmjax.training import Train, init_state, make_optimizer
from mmjax.typing import Mapping

__all__ = ["SEEDS", "Search", "describe_trials", "fit_chosen", "has_settings", "penalties", "search_fit"]

SEEDS = 2
"""On so many seeds at least, where the row has them, trials are compared."""
PENALTY_FACTOR = 100.0


@dataclasses.dataclass(frozen=True)
class Search:
    """What was tried and what was chosen.

    Attributes:
      metric: of validation, by which trials are compared.
      seeds: on which; scores are their means.
      settings: of each trial, plain numbers by name; None = as the row gives it.
      scores: of each trial; None = it diverged.
      chosen: place of the best, the earliest of equals; the first where all diverged.
      lower: whether a lower score is better.
      seconds: what the clock said.
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
        """The search whose trials had these scores ``[trials, seeds]``; NaN where a trial diverged."""
        means = np.asarray(scores, np.float64).mean(1)
        kept = tuple(float(value) if np.isfinite(value) else None for value in means)
        return cls(metric, tuple(seeds), tuple(settings), kept, _best(scores, lower), lower)

    def without_chosen(self) -> "Search":
        """The search with its best trial counted as one that diverged."""
        scores = tuple(None if place == self.chosen else score for place, score in enumerate(self.scores))
        left = np.asarray([np.nan if score is None else score for score in scores])[:, None]
        return dataclasses.replace(self, scores=scores, chosen=_best(left, self.lower))

    @property
    def rule(self) -> str:
        """In words."""
        of = f"mean of {len(self.seeds)} seeds" if len(self.seeds) > 1 else "one seed"
        return f"setting of best validation {self.metric} ({of}) among {len(self.settings)} trials"

    def record(self) -> dict[str, Any]:
        """What stands in the record's ``method``."""
        tried = [{**setting, "validation": score} for setting, score in zip(self.settings, self.scores)]
        return {
            "trials": len(self.settings),
            "choice": {"trial": self.chosen + 1, **self.settings[self.chosen]},
            "search": {"metric": self.metric, "seeds": list(self.seeds), "trials": tried},
        }


def _best(scores: np.ndarray, lower: bool) -> int:
    means = np.asarray(scores, np.float64).mean(1)
    return int(np.where(np.isfinite(means), means if lower else -means, np.inf).argmin())


def fit_chosen(
    prepared: Prepared, settings: Sequence[Mapping[str, float | None]], lower: bool, run: Callable[..., Fit]
) -> tuple[Fit, Search, Trial]:
    """All seeds trained with the best of the trials, what was tried, and the best one ``[seeds]``.

    A trial that is finite on the seeds of the search and not on all gives way to the next one.

    Args:
      prepared: programs that take trials.
      settings: of the trials, from ``describe_trials``; their number is that of the trials.
      lower: whether a lower value of ``train.select`` is better.
      run: ``prepared.run``, which is told what it runs, ``trials 1 of 3`` or ``fit of trial 2``, before its arguments.

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
    """Trains the trials, as many at once as the row has seeds, and compares them."""
    trials, width, select = draw_trials(len(settings)), len(prepared.seeds), prepared.train.select
    wanted = min(SEEDS, width)
    parts = math.ceil(len(settings) * wanted / width)
    seeds = prepared.seeds[: min(width, parts * width // len(settings))]
    pairs = [(trial, seed) for trial in range(len(settings)) for seed in seeds]
    pairs += pairs[:1] * (parts * width - len(pairs))  # the last program is filled up
    scores: list[float] = []
    clock = time.perf_counter()
    for part in range(parts):
        some = pairs[part * width : (part + 1) * width]
        places = np.asarray([trial for trial, _ in some])
        given = jax.tree.map(lambda x, places=places: x[places], trials)
        found = run(f"trials {part + 1} of {parts}", seeds=[seed for _, seed in some], trials=given, strict=False)
        best = found.history[f"validation/{select}"][found.epoch, np.arange(width)]
        scores += np.where(found.diverged | (found.epoch < 0), np.nan, best).tolist()
    table = np.asarray(scores[: len(settings) * len(seeds)]).reshape(len(settings), len(seeds))
    search = Search.of(select, lower, seeds, settings, table)
    return dataclasses.replace(search, seconds=time.perf_counter() - clock)


def describe_trials(count: int, model: nn.Module, train: Train, batch: Batch) -> list[dict[str, float | None]]:
    """The trials of a network in plain numbers; what it does not have (weight decay, dropout) is left out.

    Args:
      batch: of its data; only shapes are used.
    """
    some = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a[:2].shape, jnp.result_type(a)), batch)
    names = ("params", "dropout", "sample")

    def step(batch: Batch) -> Any:
        keys = dict(zip(names, jax.random.split(jax.random.key(0), 3)))
        tx = make_optimizer(train, 1)
        variables = init_state(model, tx, batch.streams, keys["params"], targets=batch.target).variables
        return model.apply(variables, batch.streams, targets=batch.target, train=True, rngs=keys, mutable=True)

    drops = uses_dropout(step, some)
    own = own_weight_decay(train.optimizer)
    trials, described = draw_trials(count), []
    for number in range(count):
        factor, decay, rate = (
            float(x[number]) for x in (trials.learning_rate, trials.weight_decay, trials.dropout_rate)
        )
        setting: dict[str, float | None] = {"learning_rate": _short(factor * train.learning_rate)}
        if own is not None:
            setting["weight_decay"] = _short(own if math.isnan(decay) else decay)
        if drops:
            setting["dropout_rate"] = None if math.isnan(rate) else _short(rate)
        described.append(setting)
    return described


def _short(value: float) -> float:
    """Six digits: a trial's numbers are float32."""
    return float(f"{value:.6g}")


def penalties(fit: Callable[..., Any], count: int) -> list[tuple[dict[str, float | None], Callable[..., Any]]]:
    """The fit as it is, then with ``C`` from a hundredth to a hundred times as large (log-uniform); only the first
    where the fit has no ``C``.
    """
    parameter = inspect.signature(fit).parameters.get("C")
    own = None if parameter is None else parameter.default
    if not isinstance(own, (int, float)):
        return [({}, fit)]
    factors = PENALTY_FACTOR ** np.log10(draw_trials(count).learning_rate.astype(np.float64))
    values = [_short(own * factor) for factor in factors]
    return [({"C": value}, functools.partial(fit, C=value)) for value in values]


def has_settings(row: Row) -> bool:
    """Whether there is anything to be tried of a row: it is a network, or a fit with a penalty."""
    return row.model is not None or len(penalties(row.combination, 2)) > 1


def search_fit(
    candidates: Sequence[tuple[Mapping[str, float | None], Callable[..., Any]]],
    outputs: Callable[[Callable[..., Any], int], Mapping[str, Any]],
    score: Callable[[Any], float],
    metric: str,
    lower: bool,
    seeds: Sequence[int],
) -> tuple[Search, Callable[..., Any]]:
    """The candidate of best validation score.

    Args:
      candidates: from ``penalties``.
      outputs: ``(fit, seed) -> outputs by split``; only those of validation are read.
      score: of validation outputs, the metric.
      seeds: on which they are compared.
    """
    scores = np.asarray([[score(outputs(fit, seed)["validation"]) for seed in seeds] for _, fit in candidates])
    search = Search.of(metric, lower, seeds, [setting for setting, _ in candidates], scores)
    return search, candidates[search.chosen][1]
