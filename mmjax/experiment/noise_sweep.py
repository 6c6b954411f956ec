"""Scores of the rows of a table under noise in the test split, at every severity.

Each seed meets some of the draws, all seeds together all of them. The mean over seeds is nearly as precise as with
every seed under every draw, for fewer passes, and an interval over seeds includes the variance of the draw.
"""

import concurrent.futures
import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from mmjax.datasets.base import Dataset
from mmjax.datasets.moments import feature_moments
from mmjax.evaluation.measures.degradation import ALL
from mmjax.evaluation.measures.noise import Noise, default_noises
from mmjax.evaluation.measures.robustness import corrupted, presence
from mmjax.experiment.data import Viewed, apply_view, row_data
from mmjax.experiment.table import Table
from mmjax.experiment.trained_rows import Subject, combine, pattern_name, scores
from mmjax.stream import Batch, where_mask
from mmjax.typing import Mapping

__all__ = ["draws_of_seed", "side_by_side", "sweep", "targets"]

DRAWS_OF_SEED = 2
COPIES_BYTES = 2**25  # 32 MB of noisy copies, of which a view and scales hold several


def sweep(
    table: Table,
    raw: Dataset,
    dataset: Dataset,
    active: Sequence[Subject],
    target: str,
    *,
    severities: Sequence[float],
    draws: int,
    say: Callable[[str], None],
) -> dict[str, np.ndarray]:
    """Scores of the rows under noise on one modality, or on all at once; level 0 is without noise.

    All rows meet the same noise; under "all" each modality meets the noise that it meets alone.

    Args:
      table, raw, dataset: as in ``analyse``.
      active: the rows, with the members of those that combine others.
      target: one of ``targets``.
      severities: of the levels above 0.
      draws: of the noise; each seed meets those of ``draws_of_seed``.
      say: takes a line of progress.

    Returns:
      By row ``[levels, draws of a seed, seeds]``.
    """
    clock, noises = time.perf_counter(), default_noises(raw.card.kinds)
    noises_on = {name: noises[name] for name in (dataset.streams if target == ALL else (target,))}
    met = {s.row.name: [draws_of_seed(seed, draws, table.seeds) for seed in s.seeds] for s in active}
    curves = {name: np.full((len(severities), len(of[0]), len(of)), np.nan) for name, of in met.items()}
    width = _at_once(raw, dataset, len(severities))
    scales = {name: _scale(dataset, name) for name, noise in noises_on.items() if noise.kind == "feature"}
    for draw in range(draws):
        places = {name: [place for place, numbers in enumerate(of) if draw in numbers] for name, of in met.items()}
        seen = [subject for subject in active if places[subject.row.name]]
        if not seen:
            continue
        key = jax.random.fold_in(jax.random.key(0), draw)
        for start in range(0, len(severities), width):
            some = [*severities[start : start + width], *[severities[-1]] * width][:width]  # one shape, one program
            noisy = _noisy(table, raw, dataset, noises_on, scales, some, key)
            for name, values in _scores_under(seen, noisy, width, places):
                for place, column in zip(places[name], values.T):
                    part = curves[name][start : start + width, met[name][place].index(draw), place]
                    part[:] = column[: len(part)]
        say(f"noise on {target}: draw {draw + 1}/{draws}\r")
    result = {}
    for subject in active:
        clean = scores(subject, subject.analysis[pattern_name(subject.streams)], 1)  # [1, seeds]
        values = curves[subject.row.name]
        result[subject.row.name] = np.concatenate([np.broadcast_to(clean, (1, *values.shape[1:])), values])
    size = f"{len(severities)} levels, {draws} draws, {len(active)} rows"
    say(f"noise on {target}: {size}: {time.perf_counter() - clock:.1f} s")
    return result


def draws_of_seed(seed: int, draws: int, seeds: int) -> list[int]:
    """The draws of the noise that a seed meets: two, or as many as ``seeds`` seeds need to cover all of them equally.
    They do not depend on the row.
    """
    each = min(draws, max(DRAWS_OF_SEED, math.ceil(draws / seeds)))
    return [(seed * each + number) % draws for number in range(each)]


def _at_once(raw: Dataset, dataset: Dataset, levels: int) -> int:
    """Number of levels whose copies of the test split are in memory together; all for a small split."""
    size = max(sum(leaf.nbytes for leaf in jax.tree.leaves(data.splits["test"].streams)) for data in (raw, dataset))
    return math.ceil(levels / math.ceil(levels / min(max(1, COPIES_BYTES // max(size, 1)), levels)))


def targets(dataset: Dataset) -> list[str]:
    """What noise is applied to: each modality, and all at once if there are several."""
    return [*dataset.streams, *([ALL] if len(dataset.streams) > 1 else [])]


def _noisy(
    table: Table,
    raw: Dataset,
    dataset: Dataset,
    noises: Mapping[str, Noise],
    scales: Mapping[str, Any],
    severities: Sequence[float],
    key: Any,
) -> Dataset:
    """The data, after the table's view, with a copy of the test split for every severity.

    Noise on features is in units of their deviation on train, whether or not the view standardised them.
    """

    def view(copies: Batch) -> Batch:
        seen = dataclasses.replace(raw, splits={**raw.splits, "test": copies}, transient=("test",))
        return _rescaled(apply_view(table, seen).splits["test"], scales)

    if any(noise.raw for noise in noises.values()):
        test = corrupted(raw.splits["test"], noises, severities, key, view=view)
    else:
        test = corrupted(_rescaled(dataset.splits["test"], scales), noises, severities, key)
    test = _rescaled(jax.tree.map(np.asarray, test), scales, back=True)
    return dataclasses.replace(dataset, splits={**dataset.splits, "test": test}, transient=("test",))


def _scale(dataset: Dataset, name: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean and deviation of each feature over the real items of train; None if already standardised."""
    stream = dataset.splits["train"].streams[name]
    mean, deviation = feature_moments(np.asarray(stream.values), np.asarray(stream.mask))
    deviation = np.where(deviation > 1e-6, deviation, 1.0)
    near = np.abs(mean).max() < 1e-3 and np.abs(deviation - 1).max() < 1e-3
    return None if near else (mean, deviation)


def _rescaled(batch: Batch, scales: Mapping[str, Any], back: bool = False) -> Batch:
    """The batch with features in units of ``scales``, or ``back`` from them; padding is unchanged."""
    streams = dict(batch.streams)
    for name, scale in scales.items():
        if scale is None:
            continue
        values, (mean, deviation) = np.asarray(streams[name].values), scale
        changed = (values * deviation + mean if back else (values - mean) / deviation).astype(np.float32)
        mask = np.asarray(streams[name].mask)
        streams[name] = streams[name].replace(values=np.where(where_mask(mask, values), changed, values))
    return batch.replace(streams=streams)


def _scores_under(
    seen: Sequence[Subject], noisy: Dataset, copies: int, places: Mapping[str, Sequence[int]]
) -> Iterator[tuple[str, np.ndarray]]:
    """Name and scores ``[levels, seeds]`` of every row, for its seeds at these places; networks come before the rows
    that combine their outputs."""
    viewed: Viewed = {}
    test = noisy.splits["test"]
    trained = [subject for subject in seen if subject.probe is not None]
    combined = {member.row.name for subject in seen for member in subject.members}
    batches = {subject.row.name: row_data(noisy, subject.row, viewed).splits["test"] for subject in trained}

    def forward(subject: Subject) -> np.ndarray:
        name = subject.row.name  # a rule may use any seed of its members
        return subject.network.outputs(batches[name], None if name in combined else places[name])

    outputs = {s.row.name: logits for s, logits in zip(trained, side_by_side(forward, trained))}
    for subject in seen:
        name = subject.row.name
        if subject.probe is not None:
            logits = outputs[name][places[name]] if name in combined else outputs.pop(name)
        else:
            of, present = {}, {}
            for member in subject.members:
                (stream,) = member.streams
                clean = member.analysis[pattern_name(member.streams)]
                noise_free = np.tile(clean, (1, copies, *(1,) * (clean.ndim - 2)))
                of[member.row.name] = outputs.get(member.row.name, noise_free)
                present[member.row.name] = presence(test.replace(streams={stream: test.streams[stream]}))
            seeds = [subject.seeds[place] for place in places[name]]
            logits = combine(subject.row, seeds, subject.data, subject.members, of, present)
        yield name, scores(subject, logits, copies)


def side_by_side(function: Callable[[Subject], Any], subjects: Sequence[Subject]) -> list[Any]:
    """``map`` over subjects; on a CPU several at once, since a probe keeps one core busy.

    Models that scan or convolve use several cores and run one by one. The time is added to each subject's ``seconds``.
    """

    def timed(subject: Subject) -> Any:
        clock = time.perf_counter()
        try:
            return function(subject)
        finally:
            subject.seconds += time.perf_counter() - clock

    cores = (os.cpu_count() or 1) if jax.default_backend() == "cpu" else 1
    with concurrent.futures.ThreadPoolExecutor(min(cores, 4)) as pool:
        begun = {s.row.name: pool.submit(timed, s) for s in subjects if not s.loops}
        done = {name: future.result() for name, future in begun.items()}
    return [done[s.row.name] if s.row.name in done else timed(s) for s in subjects]
