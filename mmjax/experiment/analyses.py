"""What is measured of trained rows beyond their scores: presence patterns, noise, and interaction. Nothing is trained.

Everything is kept in ``analysis/`` of the work directory, row by row, so that the report is made from files alone.
"""

import concurrent.futures
import dataclasses
import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from mmjax.checkpoint import import_params
from mmjax.datasets.base import Dataset
from mmjax.errors import UsageError
from mmjax.evaluation import interactions
from mmjax.evaluation.degradation import ALL
from mmjax.evaluation.mixing import Mixed, Probe
from mmjax.evaluation.noise import Noise, default_noises
from mmjax.evaluation.records import HELD_OUT, RecordStore
from mmjax.evaluation.robustness import corrupted, pattern_rows, patterns, right
from mmjax.experiment.checks import abstract_variables
from mmjax.experiment.controls import CONTROLS
from mmjax.experiment.data import row_data
from mmjax.experiment.table import Member, Row, Table
from mmjax.stream import Batch, where_mask
from mmjax.typing import Mapping

__all__ = ["Measure", "analyse"]

BASELINES = ("mean of logits", "prior-corrected product", "concatenation", "joint transformer", *CONTROLS)


@dataclasses.dataclass(frozen=True)
class Measure:
    """What is measured.

    Attributes:
      robustness: whether noise is swept.
      interactions: ``scope`` = EMAP, Shapley values and perceptual scores of the baselines, the controls and the three
        best fusions by validation; ``all`` = of every row; ``none``.
      levels: of noise, above none.
      draws: of the noise, at every level.
      seeds: of interactions, the first ones: EMAP alone takes ``M n 200`` passes a seed and draw.
    """

    robustness: bool = True
    interactions: str = "scope"
    levels: int = 10
    draws: int = 5
    seeds: int = 5

    def __post_init__(self):
        if self.interactions not in ("none", "scope", "all"):
            raise UsageError(f"interactions are none, scope or all, got {self.interactions!r}")
        for name in ("levels", "draws", "seeds"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def severities(self) -> list[float]:
        """Of the levels, none first: 0 to 1."""
        return np.linspace(0, 1, self.levels + 1).tolist()


@dataclasses.dataclass
class _Subject:
    """A finished row that can be probed."""

    row: Row
    seeds: list[int]
    streams: tuple[str, ...]
    data: Dataset
    logits: Mapping[str, np.ndarray]
    load: Callable[[], Probe] | None
    members: tuple["_Subject", ...] = ()
    found: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def probe(self) -> Probe | None:
        """The trained networks, read when they are first needed; None for a row that combines others."""
        return self.load() if self.load else None

    @property
    def network(self) -> Probe:
        """The probe of a network.

        Raises:
          UsageError: the row combines others.
        """
        if self.probe is None:
            raise UsageError(f"row {self.row.name!r} is no network: it has no outputs of its own")
        return self.probe

    @functools.cached_property
    def loops(self) -> bool:
        """Whether the row is a network that scans or convolves."""
        return self.probe is not None and self.probe.loops(self.data.splits["test"])

    def mixed(self, seeds: int | None = None) -> Mixed:
        """The first seeds of the row on mixtures of the test items."""
        if self.probe is not None:
            return self.probe.mixed(self.data.splits["test"], seeds)
        return _vote(self.row, self.seeds[:seeds], self.data, self.members)


def analyse(
    table: Table,
    raw: Dataset,
    dataset: Dataset,
    store: RecordStore,
    hashes: Mapping[str, str],
    *,
    measure: Measure,
    say: Callable[[str], None],
) -> None:
    """Measures every finished row that was not measured in this way before.

    Rows with a label per step, and methods whose fit sees the data itself, have none of these quantities.

    Args:
      table: with its networks resolved.
      raw: the data before the table's view.
      dataset: after it.
      store: with the finished rows.
      hashes: of the rows.
      measure: what to measure.
      say: takes a line of progress.
    """
    subjects = _subjects(table, dataset, store, hashes)
    scope = _scope(store, subjects, measure)
    digests = {name: _wanted(one, hashes[name], measure, name in scope) for name, one in subjects.items()}
    pending = [s for name, s in subjects.items() if not store.analysed(name, digests[name])]
    if not pending:
        return
    needed = {s.row.name for s in pending} | {m.row.name for s in pending for m in s.members}
    active = [s for name, s in subjects.items() if name in needed]
    clock = time.perf_counter()
    for subject, found in zip(active, _side_by_side(_patterns, active)):
        subject.found |= found
    say(f"presence patterns of {len(active)} rows in {time.perf_counter() - clock:.1f} s")
    if measure.robustness:
        clock = time.perf_counter()
        _sweep(table, raw, dataset, active, measure, say)
        say(f"noise: {measure.levels} levels, {measure.draws} draws, {len(active)} rows: "
            f"{time.perf_counter() - clock:.1f} s")  # fmt: skip
    if asked := [subject for subject in pending if "interactions" in digests[subject.row.name]]:
        clock = time.perf_counter()
        for subject, found in zip(asked, _side_by_side(lambda one: _interactions(one, measure.seeds), asked)):
            subject.found |= found
        say(f"interactions of {len(asked)} rows in {time.perf_counter() - clock:.1f} s")
    for subject in pending:
        store.write_analysis(subject.row.name, digests[subject.row.name], subject.found)


def _side_by_side(function: Callable[[_Subject], Any], subjects: Sequence[_Subject]) -> list[Any]:
    """The function of every subject, in their order; on a CPU several at once, since a probe keeps one core busy.

    Models that scan or convolve go one by one: several loops at once may starve XLA's threads until they hang.
    """
    cores = (os.cpu_count() or 1) if jax.default_backend() == "cpu" else 1
    with concurrent.futures.ThreadPoolExecutor(min(cores, 4)) as pool:
        begun = {s.row.name: pool.submit(function, s) for s in subjects if not s.loops}
        done = {name: future.result() for name, future in begun.items()}
    return [done[s.row.name] if s.row.name in done else function(s) for s in subjects]


def _patterns(subject: _Subject) -> dict[str, np.ndarray]:
    """Test logits under every pattern of presence, nothing present among them."""
    kept, test = [*patterns(subject.streams), ()], subject.data.splits["test"]
    if subject.probe is not None:
        outputs = list(subject.probe.patterns(test, kept))
    else:
        mixed = subject.mixed()
        outputs = [mixed(pattern_rows(names, subject.streams, test.size)) for names in kept]
    return {_pattern(names): one for names, one in zip(kept, outputs)}


def _wanted(subject: _Subject, config_hash: str, measure: Measure, interactions: bool) -> dict[str, Any]:
    """What the analysis of a row is to hold, by which one on disk is known again."""
    wanted: dict[str, Any] = {"config_hash": config_hash, "seeds": subject.seeds}
    if measure.robustness:
        wanted["noise"] = {"levels": measure.levels, "draws": measure.draws}
    if interactions:
        wanted["interactions"] = {"rule": "permutation", "seeds": measure.seeds, "emap": "background"}
    return wanted


def _scope(store: RecordStore, subjects: Mapping[str, _Subject], measure: Measure) -> set[str]:
    """Rows of which interactions are measured: baselines, controls, and the three best fusions on validation; or all
    rows of several modalities, or none."""
    rows = [s.row for s in subjects.values() if len(s.streams) > 1]
    if measure.interactions != "scope":
        return {row.name for row in rows} if measure.interactions == "all" else set()

    def score(row: Row) -> float:
        records = store.records(row.name)
        values = [record["validation_metrics"][record["primary"]] for record in records]
        return float(np.mean(values)) * (-1 if records[0]["primary"] == "mae" else 1)

    fused = sorted((row for row in rows if row.role not in BASELINES), key=score, reverse=True)[:3]
    return {row.name for row in rows if row.role in BASELINES} | {row.name for row in fused}


def _subjects(table: Table, dataset: Dataset, store: RecordStore, hashes: Mapping[str, str]) -> dict[str, _Subject]:
    """The finished rows with one label an example, networks first."""
    known: dict[int, Dataset] = {}
    subjects: dict[str, _Subject] = {}
    for row in sorted(table.rows, key=lambda row: bool(row.members)):
        records = [r for r in store.records(row.name) if r["method"]["config_hash"] == hashes[row.name]]
        if not records or not store.verify(row.name):
            continue
        seeds = store.seeds(row.name)
        data = row_data(dataset, row, known)
        if data.splits["test"].index.ndim != 1:
            continue
        logits = {split: store.logits(row.name, split) for split in HELD_OUT}
        if row.model is not None:
            load = functools.partial(_probe, table, row, store, hashes[row.name], data, len(seeds))
            subjects[row.name] = _Subject(row, seeds, data.streams, data, logits, load)
        elif row.members and all(m in subjects and len(subjects[m].streams) == 1 for m in row.members):
            members = tuple(subjects[name] for name in row.members)
            streams = tuple(sorted({name for m in members for name in m.streams}))
            subjects[row.name] = _Subject(row, seeds, streams, data, logits, None, members)
    return subjects


def _probe(table: Table, row: Row, store: RecordStore, config_hash: str, data: Dataset, seeds: int) -> Probe:
    shapes = abstract_variables(row.network, data)
    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct((seeds, *a.shape), a.dtype), shapes)
    try:
        variables = import_params(store.workdir / "checkpoints" / f"{config_hash}.safetensors", like)
    except UsageError as error:
        said = f"row {row.name!r} cannot be measured: {error}; without its file in logits/ it is trained again"
        raise UsageError(said) from None
    return Probe(row.network, row.task or table.task, variables)


def _vote(row: Row, seeds: Sequence[int], data: Dataset, members: Sequence[_Subject]) -> Mixed:
    """A row that combines others, as a function of which item each modality comes from."""

    def mixed(rows: Mapping[str, np.ndarray]) -> np.ndarray:
        outputs, present = {}, {}
        for member in members:
            taken = np.asarray(rows[member.streams[0]])
            outputs[member.row.name] = member.logits["test"][:, np.maximum(taken, 0)]
            present[member.row.name] = taken >= 0
        return _combine(row, seeds, data, members, outputs, present)

    return mixed


def _combine(
    row: Row,
    seeds: Sequence[int],
    data: Dataset,
    members: Sequence[_Subject],
    outputs: Mapping[str, np.ndarray],
    present: Mapping[str, np.ndarray],
) -> np.ndarray:
    """What ``row.fit`` makes of the members' validation outputs and these in place of the test ones."""
    combined = []
    for seed in seeds:
        voters = {}
        for member in members:
            name, place = member.row.name, member.seeds.index(seed)
            order = [*range(place, len(member.seeds)), *range(place)]
            runs = tuple({"validation": member.logits["validation"][i], "test": outputs[name][i]} for i in order)
            seen = {"validation": np.ones(member.logits["validation"].shape[1], bool), "test": present[name]}
            voters[name] = Member(runs[0], seen, runs)
        combined.append(np.asarray(row.combination(data, seed, voters)["test"], np.float32))
    return np.stack(combined)


def _sweep(
    table: Table,
    raw: Dataset,
    dataset: Dataset,
    active: Sequence[_Subject],
    measure: Measure,
    say: Callable[[str], None],
) -> None:
    """Accuracy of every row at every level of noise on every modality and on all, for every draw and seed.

    All rows meet the same noise; noise on all modalities at once is drawn anew.
    """
    noises = default_noises(raw.card.kinds)
    severities = measure.severities[1:]
    for place, target in enumerate(_targets(dataset)):
        touched = {name: noises[name] for name in (dataset.streams if target == ALL else (target,))}
        seen = [subject for subject in active if set(touched) & set(subject.streams)]
        curves: dict[str, list[np.ndarray]] = {subject.row.name: [] for subject in seen}
        for draw in range(measure.draws):
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), place), draw)
            noisy = _noisy(table, raw, dataset, touched, severities, key)
            for name, values in _scores_under(seen, noisy, len(severities)):
                curves[name].append(values)
            say(f"noise on {target}: draw {draw + 1}/{measure.draws}\r")
        for subject in seen:
            clean = _right(subject, subject.found[_pattern(subject.streams)], 1)  # [1, seeds]
            values = np.stack(curves[subject.row.name])  # [draws, levels, seeds]
            none = np.broadcast_to(clean, (len(values), *clean.shape))
            subject.found[f"noise/{target}"] = np.concatenate([none, values], axis=1).swapaxes(0, 1)


def _targets(dataset: Dataset) -> list[str]:
    return [*dataset.streams, *([ALL] if len(dataset.streams) > 1 else [])]


def _pattern(streams: Sequence[str]) -> str:
    return "pattern/" + "+".join(sorted(streams))


def _noisy(
    table: Table, raw: Dataset, dataset: Dataset, noises: Mapping[str, Noise], severities: Sequence[float], key: Any
) -> Dataset:
    """The data with a copy of the test split for every severity, as the table's rows see it.

    Noise on features is in units of their deviation on train, whether or not the table's view standardised them.
    """
    scales = {name: _scale(dataset, name) for name, noise in noises.items() if noise.kind == "feature"}

    def view(copies: Batch) -> Batch:
        seen = dataclasses.replace(raw, splits={**raw.splits, "test": copies})
        return _rescaled((table.view(seen) if table.view else seen).splits["test"], scales)

    if any(noise.raw for noise in noises.values()):
        test = corrupted(raw.splits["test"], noises, severities, key, view=view)
    else:
        test = corrupted(_rescaled(dataset.splits["test"], scales), noises, severities, key)
    test = _rescaled(jax.tree.map(np.asarray, test), scales, back=True)
    return dataclasses.replace(dataset, splits={**dataset.splits, "test": test})


def _scale(dataset: Dataset, name: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean and deviation of each feature over the real items of train; None where they are standardised already."""
    stream = dataset.splits["train"].streams[name]
    items = np.asarray(stream.values)[np.asarray(stream.mask)].astype(np.float64)
    mean, deviation = items.mean(0), items.std(0)
    deviation = np.where(deviation > 1e-6, deviation, 1.0)
    near = np.abs(mean).max() < 1e-3 and np.abs(deviation - 1).max() < 1e-3
    return None if near else (mean, deviation)


def _rescaled(batch: Batch, scales: Mapping[str, Any], back: bool = False) -> Batch:
    """The batch with features in units of ``scales``, or back from them; padding stays as it is."""
    streams = dict(batch.streams)
    for name, scale in scales.items():
        if scale is None:
            continue
        values, (mean, deviation) = np.asarray(streams[name].values), scale
        changed = (values * deviation + mean if back else (values - mean) / deviation).astype(np.float32)
        mask = np.asarray(streams[name].mask)
        streams[name] = streams[name].replace(values=np.where(where_mask(mask, values), changed, values))
    return batch.replace(streams=streams)


def _scores_under(seen: Sequence[_Subject], noisy: Dataset, copies: int) -> Iterator[tuple[str, np.ndarray]]:
    """Name and ``[levels, seeds]`` of every row; networks first, whose outputs the combining rows take."""
    known: dict[int, Dataset] = {}
    trained = [subject for subject in seen if subject.probe is not None]
    batches = {subject.row.name: row_data(noisy, subject.row, known).splits["test"] for subject in trained}

    def forward(subject: _Subject) -> np.ndarray:
        return subject.network.outputs(batches[subject.row.name])

    outputs = {s.row.name: logits for s, logits in zip(trained, _side_by_side(forward, trained))}
    for subject in seen:
        if subject.probe is not None:
            logits = outputs.pop(subject.row.name) if len(subject.streams) > 1 else outputs[subject.row.name]
        else:
            of, present = {}, {}
            for member in subject.members:
                name, (stream,) = member.row.name, member.streams
                clean = member.found[_pattern(member.streams)]
                of[name] = outputs[name] if name in outputs else np.tile(clean, (1, copies, *(1,) * (clean.ndim - 2)))
                present[name] = np.asarray(noisy.splits["test"].streams[stream].present)
            logits = _combine(subject.row, subject.seeds, subject.data, subject.members, of, present)
        yield subject.row.name, _right(subject, logits, copies)


def _truth(subject: _Subject) -> np.ndarray:
    test = subject.data.splits["test"]
    return np.asarray(test.target)[np.argsort(test.index)]


def _right(subject: _Subject, logits: np.ndarray, copies: int) -> np.ndarray:
    """Share of right answers ``[copies, seeds]``; of scores, minus the mean absolute error."""
    target = _truth(subject)
    scored = logits.reshape(len(logits), copies, len(target), *logits.shape[2:])
    return np.stack([right(scored[:, copy], target).mean(-1) for copy in range(copies)])


def _interactions(subject: _Subject, seeds: int) -> dict[str, np.ndarray]:
    return interactions.measure(subject.mixed(seeds), subject.streams, _truth(subject))
