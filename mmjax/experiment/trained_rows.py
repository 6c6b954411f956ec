"""Trained rows read from disk as functions of their input: networks, and rows that combine them."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from mmjax.checkpoint import import_params
from mmjax.datasets.base import Dataset
from mmjax.errors import UsageError
from mmjax.evaluation.measures.mixing import Mixed, Probe, equal_parts
from mmjax.evaluation.scores import Score, score
from mmjax.evaluation.store.records import RecordStore
from mmjax.evaluation.store.schema import HELD_OUT
from mmjax.experiment.checks import abstract_variables
from mmjax.experiment.data import Viewed, row_data
from mmjax.experiment.table import Member, Row, Table
from mmjax.stream import Batch, target_items
from mmjax.tasks import generates
from mmjax.typing import Mapping

__all__ = ["Subject", "combine", "load_subjects", "pattern_name", "scores", "truth"]


@dataclasses.dataclass
class Subject:
    """A finished row as a function of its input.

    Attributes:
      load: reads the trained network; None for a row that combines others.
      parts: how each part of its analysis was computed.
      analysis: the arrays of that.
      seconds: spent on it.
      apart: makes an example of each labelled item (see ``Table.apart``).
      generates: whether it is a network that says sentences.
    """

    row: Row
    seeds: list[int]
    streams: tuple[str, ...]
    data: Dataset
    logits: Mapping[str, np.ndarray]
    load: Callable[[], Probe] | None
    members: tuple["Subject", ...] = ()
    parts: dict[str, Any] = dataclasses.field(default_factory=dict)
    analysis: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    apart: Callable[[Batch], Batch] | None = None
    generates: bool = False

    @property
    def per_step(self) -> bool:
        """Whether an example has a label per step, and so several items that cannot be taken apart."""
        steps = self.data.splits["test"].index.ndim > 1 and self.apart is None
        return steps or any(member.per_step for member in self.members)

    @functools.cached_property
    def single_items(self) -> Batch:
        """The test split with one item an example, whose modalities mixtures exchange."""
        test = self.data.splits["test"]
        return test if self.apart is None else self.apart(test)

    @property
    def in_parts(self) -> bool:
        """Whether the target is no array, so that a network may read it (the words before each, say)."""
        return not isinstance(truth(self), np.ndarray) or any(member.in_parts for member in self.members)

    @property
    def metric(self) -> Score:
        """The primary metric of the data."""
        return score(self.data.card.primary_metric)

    @property
    def items(self) -> int:
        """Number of labelled test items."""
        return int((np.asarray(self.data.splits["test"].index) >= 0).sum())

    @functools.cached_property
    def probe(self) -> Probe | None:
        """The trained networks, read on first use; None for a row that combines others."""
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
        """The first ``seeds`` seeds of the row on mixtures of the test items."""
        if self.probe is not None:
            return self.probe.mixed(self.single_items, seeds)
        return _vote(self.row, self.seeds[:seeds], self.data, self.members)


def load_subjects(table: Table, dataset: Dataset, store: RecordStore, hashes: Mapping[str, str]) -> dict[str, Subject]:
    """The finished networks and rows that combine them, networks first; other fits cannot be applied to new input."""
    viewed: Viewed = {}
    subjects: dict[str, Subject] = {}
    for row in sorted(table.rows, key=lambda row: bool(row.members)):
        records = [r for r in store.records(row.name) if r["method"]["config_hash"] == hashes[row.name]]
        if not records or not store.verify(row.name):
            continue
        seeds = store.seeds(row.name)
        data = row_data(dataset, row, viewed)
        logits = {split: store.logits(row.name, split) for split in HELD_OUT}
        if row.model is not None:
            load = functools.partial(_probe, table, row, store, hashes[row.name], data, len(seeds))
            says = generates(row.task or table.task)
            subject = Subject(row, seeds, data.streams, data, logits, load, apart=table.apart, generates=says)
            subjects[row.name] = subject
        elif row.members and all(m in subjects and len(subjects[m].streams) == 1 for m in row.members):
            members = tuple(subjects[name] for name in row.members)
            streams = tuple(sorted({name for m in members for name in m.streams}))
            subjects[row.name] = Subject(row, seeds, streams, data, logits, None, members)
        if row.name in subjects:
            digest, analysis = store.analysis(row.name) or ({}, {})
            same = digest.get("logits", records[0]["logits_sha256"]) == records[0]["logits_sha256"]
            if same and digest.get("config_hash") == hashes[row.name] and digest.get("seeds") == seeds:
                subjects[row.name].parts |= digest.get("parts", {})
                subjects[row.name].analysis |= analysis
    return subjects


def _probe(table: Table, row: Row, store: RecordStore, config_hash: str, data: Dataset, seeds: int) -> Probe:
    shapes = abstract_variables(row.network, data)
    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct((seeds, *a.shape), a.dtype), shapes)
    try:
        variables = import_params(store.workdir / "checkpoints" / f"{config_hash}.safetensors", like)
    except UsageError as error:
        why = f"row {row.name!r} cannot be measured: {error}; without its file in logits/ it is trained again"
        raise UsageError(why) from None
    chunk = equal_parts(data.splits["test"].size)
    return Probe(row.network, row.task or table.task, variables, chunk=chunk, tokenizers=data.tokenizers)


def _vote(row: Row, seeds: Sequence[int], data: Dataset, members: Sequence[Subject]) -> Mixed:
    """A row that combines others, as a function of item numbers."""

    def of_seeds(rows: Mapping[str, np.ndarray], some: Sequence[int]) -> np.ndarray:
        outputs, present = {}, {}
        for member in members:
            numbers = np.asarray(rows[member.streams[0]])
            outputs[member.row.name] = member.logits["test"][:, np.maximum(numbers, 0)]
            present[member.row.name] = numbers >= 0
        return combine(row, some, data, members, outputs, present)

    def mixed(rows: Mapping[str, np.ndarray]) -> np.ndarray:
        if all(np.ndim(numbers) == 1 for numbers in rows.values()):
            return of_seeds(rows, seeds)
        parts = []
        for place, seed in enumerate(seeds):  # a rule may look at several seeds of a member, all on the seed's items
            own = {name: numbers if np.ndim(numbers) == 1 else numbers[place] for name, numbers in rows.items()}
            parts.append(of_seeds(own, [seed]))
        return np.concatenate(parts)

    return mixed


def combine(
    row: Row,
    seeds: Sequence[int],
    data: Dataset,
    members: Sequence[Subject],
    outputs: Mapping[str, np.ndarray],
    present: Mapping[str, np.ndarray],
) -> np.ndarray:
    """Outputs of ``row.fit`` ``[seeds, ...]`` for these outputs of the members in place of those on test."""
    combined = []
    for seed in seeds:
        voters = {}
        for member in members:
            name, validation = member.row.name, member.logits["validation"]
            seen = {"validation": np.ones(validation.shape[1], bool), "test": present[name]}
            logits = {"validation": validation, "test": outputs[name]}
            voters[name] = Member.of_seed(logits, member.seeds, seed, seen)
        combined.append(np.asarray(row.combination(data, seed, voters)["test"], np.float32))
    return np.stack(combined)


def pattern_name(streams: Sequence[str]) -> str:
    """Name in the analysis of the outputs with only these modalities."""
    return "pattern/" + "+".join(sorted(streams))


def truth(subject: Subject) -> Any:
    """The targets of the test items ``[items, ...]`` in the order of their index."""
    return target_items(subject.data.splits["test"])


def scores(subject: Subject, logits: np.ndarray, copies: int) -> np.ndarray:
    """The primary metric ``[copies, seeds]``, higher is better."""
    target = truth(subject)
    scored = logits.reshape(len(logits), copies, subject.items, *logits.shape[2:])
    return np.stack([subject.metric.worth(scored[:, copy], target) for copy in range(copies)])
