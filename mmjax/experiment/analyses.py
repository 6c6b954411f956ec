"""Analyses of trained rows: presence patterns, noise, and interactions of modalities. Nothing is trained.

Results are stored row by row in ``analysis/`` of the work directory; the report needs only files.
"""

import dataclasses
import functools
import operator
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, cast

import jax
import numpy as np
import optax

from mmjax.batches import take_rows
from mmjax.datasets.base import Dataset
from mmjax.errors import UsageError
from mmjax.evaluation.measures import interactions, item_scores
from mmjax.evaluation.measures.degradation import ALL
from mmjax.evaluation.measures.mixing import Probe
from mmjax.evaluation.measures.necessity import gate
from mmjax.evaluation.measures.robustness import pattern_rows, patterns
from mmjax.evaluation.protocol import CONTROLS
from mmjax.evaluation.report.analyses import record_fields
from mmjax.evaluation.scores import score as find_score
from mmjax.evaluation.store.records import RecordStore
from mmjax.experiment.changes import same_but_code
from mmjax.experiment.identity import modality_dropout
from mmjax.experiment.noise_sweep import side_by_side, sweep, targets
from mmjax.experiment.table import Row, Table
from mmjax.experiment.trained_rows import Subject, load_subjects, pattern_name, truth
from mmjax.source_code import Definitions, changed_definitions, code_digest, reached_definitions
from mmjax.stream import by_index
from mmjax.training import init_state, predict
from mmjax.typing import Mapping

__all__ = ["Measure", "analyse", "changed_measures"]

SCOPES = ("none", "scope", "all")
ASSUMED = ("accuracy", "mae")  # of analyses that name no metric
PER_STEP = "not defined: a label per step, so that an item is no example of its own"
IN_PARTS = "not defined: a target of several parts, which a network may read; a mixture of items has none"
NOTES = (PER_STEP, IN_PARTS)
DRAWS_OF_SENTENCES = 2  # of permutations and of partners, where every pass generates; also of the gate of other rows
CLOUD = 400  # test items in the picture of a shared space
BASELINES = ("mean of logits", "prior-corrected product", "concatenation", "joint transformer", *CONTROLS)


@dataclasses.dataclass(frozen=True)
class Measure:
    """Which analyses to run.

    Attributes:
      noise: ``scope`` = rows with one label an example; ``all`` = also rows with a label per step, whose networks loop
        over long examples; ``none``.
      interactions: EMAP, Shapley values and perceptual scores; ``scope`` = of the baselines, the controls and the three
        best fusions by validation; ``all`` = of every row; ``none``.
      levels: of noise above 0.
      draws: of the noise, the same at every level; each seed meets some of them (``draws_of_seed``).
      seeds: the first ones, for interactions: EMAP alone takes ``M 200^2`` passes a seed and draw.
    """

    noise: str = "scope"
    interactions: str = "scope"
    levels: int = 10
    draws: int = 5
    seeds: int = 5

    def __post_init__(self):
        for name in ("noise", "interactions"):
            if getattr(self, name) not in SCOPES:
                raise UsageError(f"{name} is measured of {', '.join(SCOPES)}, got {getattr(self, name)!r}")
        for name in ("levels", "draws", "seeds"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def severities(self) -> list[float]:
        """Of the levels, from 0 to 1."""
        return np.linspace(0, 1, self.levels + 1).tolist()


def analyse(
    table: Table,
    raw: Dataset,
    dataset: Dataset,
    store: RecordStore,
    hashes: Mapping[str, str],
    *,
    measure: Measure,
    on_change: str = "ask",
    say: Callable[[str], None],
) -> dict[str, float]:
    """Analyses every finished row that lacks these analyses.

    Only networks and rows that combine them are analysed. Rows with a label per step have no interactions, nor have
    rows whose target is no array, since their networks may read it.

    Args:
      table: with its networks resolved.
      raw: the data before the table's view.
      dataset: after it.
      store: with the finished rows.
      hashes: of the rows.
      measure: what to run.
      on_change: ``keep`` = use results of other code; else compute them anew.
      say: takes a line of progress.

    Returns:
      Seconds by row.
    """
    subjects = load_subjects(table, dataset, store, hashes)
    write = functools.partial(_write, store, hashes)
    same = same_but_code if on_change == "keep" else operator.eq
    how_patterns = {"code": _code("patterns")}
    pending = [one for one in subjects.values() if not same(one.parts.get("patterns"), how_patterns)]
    _run_all("presence patterns", pending, lambda one: write(one, "patterns", how_patterns, _patterns(one)), say)
    _sweep_noise(table, raw, dataset, subjects.values(), measure, same, write, say)
    scope = _scope(store, subjects, measure)
    hows = {name: _how(subject, measure) for name, subject in subjects.items()}
    in_scope = {name: one for name, one in subjects.items() if name in scope}
    asked = [one for name, one in in_scope.items() if not same(one.parts.get("interactions"), hows[name])]

    def interact(subject: Subject) -> None:
        write(subject, "interactions", hows[subject.row.name], _interactions(subject, measure))
        say(f"interactions of {subject.row.name}\r")

    _run_all("interactions", asked, interact, say)
    for subject in subjects.values():
        note = _no_interactions(subject)
        if note and len(subject.streams) > 1 and subject.parts.get("interactions") != note:
            write(subject, "interactions", note, {"interactions/note": np.asarray(note)})
    store.annotate(
        {name: record_fields(one.analysis, one.streams, truth(one), one.metric) for name, one in subjects.items()}
    )
    return {name: one.seconds for name, one in subjects.items()}


def _no_interactions(subject: Subject) -> str | None:
    """Why a row has no interactions, whatever is asked for."""
    return PER_STEP if subject.per_step else IN_PARTS if subject.in_parts and not subject.generates else None


def _how(subject: Subject, measure: Measure) -> dict[str, Any]:
    """How interactions are measured: blanking is for models that met absent modalities in training."""
    how: dict[str, Any] = {"rule": _rule(subject), "seeds": measure.seeds, "code": _code("interactions")}
    how |= {"emap": "backgrounds of each seed"} if _adds_up(subject) else {}
    how |= {"draws": DRAWS_OF_SENTENCES} if subject.generates else {}
    return how | _metric(subject.metric.name)


def _rule(subject: Subject) -> Literal["null", "permutation"]:
    return "null" if modality_dropout(subject.row) else "permutation"


def _adds_up(subject: Subject) -> bool:
    """Whether outputs are such that a sum of several means something: embeddings and sentences are not."""
    return subject.metric.outputs not in ("other", "ranks", "sentences")


def _interactions(subject: Subject, measure: Measure) -> dict[str, np.ndarray]:
    """EMAP, Shapley values, perceptual scores, and by modality the gain of its own input over that of another item."""
    mixed, target, metric = subject.mixed(measure.seeds), truth(subject), subject.metric
    draws = DRAWS_OF_SENTENCES if subject.generates else interactions.PERMUTATIONS
    how: dict[str, Any] = {"rule": _rule(subject), "draws": draws, "additive": _adds_up(subject)}
    arrays = interactions.measure(mixed, subject.streams, target, score=item_scores.score_of(metric), **how)
    batch = subject.data.splits["test"]
    groups = by_index(batch.group, batch.index)
    score = lambda rows: metric.per_item(item_scores.finite(mixed(rows)), target)  # noqa: E731
    given: dict[str, Any] = {"groups": groups, "against": ("incongruent",), "draws": DRAWS_OF_SENTENCES}
    gates = [gate(score, subject.streams, name, subject.items, **given) for name in sorted(subject.streams)]
    gains = [one.against["incongruent"].gain for one in gates]
    numbers = [[gain.mean, gain.lower, gain.upper, gain.p] for gain in gains]
    return arrays | {"gate/gains": np.asarray(numbers), "gate/seeds": np.asarray(len(gates[0].score))}


def _metric(name: str) -> dict[str, str]:
    """The metric of a part, unless it is one of those that older versions left out."""
    return {} if name in ASSUMED else {"metric": name}


@functools.cache
def _definitions(part: str) -> Definitions:
    """The definitions that compute a part of an analysis; cached, since every written file needs them."""
    reached = {"patterns": (_patterns,), "noise": (sweep,), "interactions": (_interactions,)}
    return reached_definitions(*reached[part.partition("/")[0]])


def _code(part: str) -> str:
    return code_digest(_definitions(part))


def changed_measures(store: RecordStore, names: Iterable[str]) -> dict[str, list[str]]:
    """The rows with analyses by other code, and the definitions that differ."""
    changed = {}
    for name in names:
        digest, _ = store.analysis(name) or ({}, {})
        for part, how in digest.get("parts", {}).items():
            stored = how.get("code") if isinstance(how, dict) else None
            if how not in NOTES and stored != _code(part):
                old = store.code(stored) if stored else None
                new = _definitions(part)
                changed[name] = ["code that was not noted"] if old is None else changed_definitions(old, new)
    return changed


def _write(
    store: RecordStore,
    hashes: Mapping[str, str],
    subject: Subject,
    part: str,
    how: Any,
    arrays: Mapping[str, np.ndarray],
) -> None:
    """Adds a part to the analysis of a row and writes it at once."""
    subject.parts[part] = how
    subject.analysis |= arrays
    if isinstance(how, dict):
        store.write_code(how["code"], _definitions(part))
    digest = {
        "config_hash": hashes[subject.row.name],
        "seeds": subject.seeds,
        "logits": store.records(subject.row.name)[0]["logits_sha256"],
        "parts": subject.parts,
    }
    store.write_analysis(subject.row.name, digest, subject.analysis)


def _run_all(
    what: str, pending: Sequence[Subject], function: Callable[[Subject], None], say: Callable[[str], None]
) -> None:
    if pending:
        clock = time.perf_counter()
        side_by_side(function, pending)
        say(f"{what} of {len(pending)} rows in {time.perf_counter() - clock:.1f} s")


def _sweep_noise(
    table: Table,
    raw: Dataset,
    dataset: Dataset,
    subjects: Iterable[Subject],
    measure: Measure,
    same: Callable[[Any, Any], bool],
    write: Callable[..., None],
    say: Callable[[str], None],
) -> None:
    """Sweeps noise over the rows in scope that lack it."""
    if measure.noise == "none":
        return
    how = {"levels": measure.levels, "draws": measure.draws, "key": "by draw", "seeds": "two draws each"}
    how |= {"code": _code("noise")} | _metric(dataset.card.primary_metric)
    scope = [one for one in subjects if measure.noise == "all" or not one.per_step]
    for target in targets(dataset):
        noisy = {target} if target != ALL else set(dataset.streams)
        seen = [one for one in scope if noisy & set(one.streams)]
        if pending := [one for one in seen if not same(one.parts.get(f"noise/{target}"), how)]:
            needed = {s.row.name for s in pending} | {m.row.name for s in pending for m in s.members}
            active = [one for one in seen if one.row.name in needed]
            severities, draws = measure.severities[1:], measure.draws
            curves = sweep(table, raw, dataset, active, target, severities=severities, draws=draws, say=say)
            for subject in pending:
                write(subject, f"noise/{target}", how, {f"noise/{target}": curves[subject.row.name]})


def _patterns(subject: Subject) -> dict[str, np.ndarray]:
    """Test logits under every pattern of presence, including nothing present; where items of one modality are sought
    among those of another, with all there.
    """
    present: list[tuple[str, ...]] = [*patterns(subject.streams), ()] if subject.metric.alone else [subject.streams]
    test = subject.data.splits["test"]
    if subject.probe is not None:
        outputs = list(subject.probe.patterns(test, present))
    else:
        mixed = subject.mixed()
        outputs = [mixed(pattern_rows(names, subject.streams, subject.items)) for names in present]
    clouds = {} if subject.metric.alone or subject.probe is None else _clouds(subject, subject.probe)
    return clouds | {pattern_name(names): one for names, one in zip(present, outputs)}


def _clouds(subject: Subject, probe: Probe) -> dict[str, np.ndarray]:
    """Embeddings of some test items by the network as it begins, for a picture of both sides."""
    test, train, task = subject.data.splits["test"], subject.data.splits["train"], cast(Any, probe.task)
    few = take_rows(test, np.linspace(0, test.size - 1, min(test.size, CLOUD)).astype(int))
    some = take_rows(train, np.arange(min(train.size, 2)))
    state = init_state(probe.model, optax.identity(), some.streams, jax.random.key(0), targets=some.target)
    kept = task.keep(jax.jit(functools.partial(predict, probe.model))(state.variables, few))
    sides = np.asarray([getattr(task, side, side) for side in ("first", "second")])
    return {"clouds/before": np.asarray(kept), "clouds/items": np.asarray(few.index), "clouds/sides": sides}


def _scope(store: RecordStore, subjects: Mapping[str, Subject], measure: Measure) -> set[str]:
    """Rows whose interactions are measured, see ``Measure.interactions``."""
    rows = [s.row for s in subjects.values() if len(s.streams) > 1 and not _no_interactions(s)]
    if measure.interactions != "scope":
        return {row.name for row in rows} if measure.interactions == "all" else set()

    def score(row: Row) -> float:
        records = store.records(row.name)
        values = [record["validation_metrics"][record["primary"]] for record in records]
        return float(np.mean(values)) * find_score(records[0]["primary"]).sign

    candidates = [row for row in rows if row.role not in BASELINES and row.validation_scores != "fitted"]
    fused = sorted(candidates, key=score, reverse=True)[:3]
    return {row.name for row in rows if row.role in BASELINES} | {row.name for row in fused}
