"""Tables as data: rows of methods on one data set. Files in ``experiments/`` each define one, with a lab note."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn

from mmjax.datasets.base import Dataset
from mmjax.errors import UsageError
from mmjax.evaluation.protocol import ROLES, VALIDATION
from mmjax.stream import Batch
from mmjax.tasks import Task
from mmjax.training import Train
from mmjax.typing import Mapping

__all__ = ["Matched", "Member", "Paper", "Row", "Table"]

View = Callable[[Dataset], Dataset]
NAMED = ("mean of logits", "prior-corrected product", "concatenation", "joint transformer")
"""Roles that rows of these names have by default."""
FEEDS = ("resident", "streaming")
Outputs = Mapping[str, Any]
"""``{"validation": [items, classes], "test": [items, classes]}``, rows by the index of the item."""


@dataclasses.dataclass(frozen=True)
class Paper:
    """A published number.

    Attributes:
      value: in the units of the table's metric, percent for accuracy.
      source: publication, and place in it.
      checked: whether it was verified there; else it is shown as unchecked.
      metric: its name with its convention (see ``mmjax.evaluation.statistics.published``); None = that of the data.
      split: the split that it is of, if not the table's.
      tolerance: largest deviation of a reproduction, same units; None = 1 point (for errors 1 % of the number).
      sd: standard deviation over the paper's runs, same units; None = not published, the number counts as exact.
      runs: number of those.
      cannot_run: why it cannot be reproduced here; empty = it can be attempted.
      reason: why the row does not reproduce it, if known.
    """

    value: float
    source: str
    checked: bool = False
    metric: str | None = None
    split: str = ""
    tolerance: float | None = None
    sd: float | None = None
    runs: int | None = None
    cannot_run: str = ""
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Member:
    """One of the rows that a row combines, for one seed.

    Attributes:
      outputs: logits ``[items, classes]`` by split (``validation``, ``test``), in the order of the items.
      present: whether the item has any of the member's modalities, ``[items]`` by split.
      runs: the outputs of all its seeds, in cyclic order from this one.
    """

    outputs: Outputs
    present: Outputs
    runs: tuple[Outputs, ...] = ()

    @classmethod
    def of_seed(cls, outputs: Outputs, seeds: Sequence[int], seed: int, present: Outputs) -> "Member":
        """The member for one seed, from outputs ``[seeds, items, classes]`` by split."""
        place = seeds.index(seed)
        order = [*range(place, len(seeds)), *range(place)]
        runs = tuple({split: values[one] for split, values in outputs.items()} for one in order)
        return cls(runs[0], present, runs)


@dataclasses.dataclass(frozen=True)
class Matched:
    """A network whose width is chosen to have as many parameters as another row.

    Attributes:
      build: ``width -> network``, larger with the width.
      like: name of the row.
    """

    build: Callable[[int], nn.Module]
    like: str


@dataclasses.dataclass(frozen=True)
class Row:
    """One method.

    Attributes:
      name: unique in its table, without a dot.
      model: a network ``(streams, *, targets, train) -> outputs``, or ``Matched``; or
      fit: a method that is none: ``(data, seed, members) -> {"validation": logits, "test": logits}``, where
        ``members`` is a ``Member`` for each row named in the field of that name, for the same seed.
      streams: the modalities it sees, after its view; None = all.
      section: its heading; gains are computed within a section.
      view: changes the table's data for this row (for example, packs a video's utterances into one example).
      members: rows whose stored outputs ``fit`` combines; they run first.
      varies: whether ``fit`` depends on the seed; if not, it runs once.
      baseline: whether the row may be "the best single modality" when it has one stream.
      role: in the protocol (see ``mmjax.evaluation.protocol``); empty = a method, or the role of its name.
      validation_scores: ``held out`` (nothing was fitted on validation), ``cross-fitted`` (each item by a fit on
        others) or ``fitted`` (on the same items: they select nothing, and no temperature is fitted on them).
      train: instead of the table's.
      task: instead of the table's.
      seeds: number of seeds, instead of the table's.
      trials: number of trials, instead of the table's, for rows that take hours.
      feed: instead of the table's.
      versus: name of a row over which its gain is computed instead of over single modalities, where none can be asked
        alone: a closed form, an earlier method.
      paper: the published number to compare with.
      notes: for the reader.
    """

    name: str
    model: nn.Module | Matched | None = None
    fit: Callable[..., Outputs] | None = None
    streams: Sequence[str] | None = None
    section: str = ""
    view: View | None = None
    members: tuple[str, ...] = ()
    varies: bool = True
    baseline: bool = True
    role: str = ""
    validation_scores: str = "held out"
    train: Train | None = None
    task: Task | None = None
    seeds: int | None = None
    trials: int | None = None
    feed: str | None = None
    versus: str = ""
    paper: Paper | None = None
    notes: str = ""

    def __post_init__(self):
        if (self.model is None) == (self.fit is None):
            raise UsageError(f"row {self.name!r} needs either model= or fit=")
        if "." in self.name:
            raise UsageError(f"row {self.name!r} has a dot in its name; --set could not reach it")
        if not self.role and self.name in NAMED:
            object.__setattr__(self, "role", self.name)
        if self.role and self.role not in ROLES:
            raise UsageError(f"row {self.name!r} has the role {self.role!r}; the roles are: {', '.join(ROLES)}")
        if self.validation_scores not in VALIDATION:
            raise UsageError(f"row {self.name!r}: {self.validation_scores=} is none of {', '.join(VALIDATION)}")

    @property
    def network(self) -> nn.Module:
        """The model.

        Raises:
          UsageError: the row is no network, or its width is not resolved yet.
        """
        if self.model is None:
            raise UsageError(f"row {self.name!r} is no network: nothing is trained")
        if isinstance(self.model, Matched):
            raise UsageError(
                f"the width of row {self.name!r} follows from the data: mmjax.experiment.equal_parameters finds it"
            )
        return self.model

    @property
    def combination(self) -> Callable[..., Outputs]:
        """The fit.

        Raises:
          UsageError: the row is a network.
        """
        if self.fit is None:
            raise UsageError(f"row {self.name!r} is a network: it has no fit=")
        return self.fit


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of methods on one data set, one protocol for all rows.

    Attributes:
      title: printed above the table.
      dataset: name of a data set of ``mmjax.datasets``, or a ``Dataset`` of one's own arrays.
      task: loss and metrics.
      rows: the methods.
      options: of the data set's builder.
      view: prepares the data for all rows (standardising, whitening).
      train: how models are trained.
      seeds: number of seeds; they are 0, 1, 2, ...
      trials: number of settings of each row to choose from on validation, the row's own first: learning rate, weight
        decay and dropout of a network, the penalty ``C`` of a fit; see ``mmjax.experiment.trials``.
      feed: of the networks: ``resident`` trains all seeds of a row at once with the data on the device; ``streaming``
        one after the other, each over all devices on batches from the host, without refit or trials.
      references: published rows that are not run here: ``(name, Paper)``.
      also: names of further scores of the task, printed behind that of the table.
      judged: those of ``also`` that have intervals, gains and verdicts of their own.
      note: printed under the title.
      extra: rows left out unless named with ``--rows`` (long ones).
      folds: values of ``options.fold`` that ``fold=all`` pools.
      limit: examples of each split; None = all (a smoke run has few).
      fraction: share of train, before the view; None = all of it. See ``mmjax.evaluation.measures.efficiency.subset``.
      apart: makes an example of each labelled item of a split, where an example has several (questions about one
        picture) that networks answer independently; interactions are measured on these. See
        ``mmjax.datasets.views.take_apart``. None = the items of an example belong together.
    """

    title: str
    dataset: str | Dataset
    task: Task
    rows: Sequence[Row]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    view: View | None = None
    train: Train = dataclasses.field(default_factory=Train)
    seeds: int = 5
    trials: int = 1
    feed: str = "resident"
    references: Sequence[tuple[str, Paper]] = ()
    also: tuple[str, ...] = ()
    judged: tuple[str, ...] = ()
    note: str = ""
    extra: tuple[str, ...] = ()
    folds: tuple[Any, ...] = ()
    limit: int | None = None
    fraction: float | None = None
    apart: Callable[[Batch], Batch] | None = None

    def __post_init__(self):
        object.__setattr__(self, "rows", tuple(self.rows))
        names = [row.name for row in self.rows]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UsageError(f"row {twice[0]!r} stands twice in {self.title!r}")
        if lost := sorted({*self.judged} - {*self.also}):
            raise UsageError(f"{self.title!r} judges by {lost[0]!r}, which is not among its further scores (also)")
        for owner, part in (("the table", self), *((f"row {row.name!r}", row) for row in self.rows)):
            for name, count in (("trials", part.trials), ("seeds", part.seeds)):
                if count is not None and count < 1:
                    raise UsageError(f"{name} of {owner} must be at least 1, got {count}")
            if part.feed not in (*FEEDS, *([None] if isinstance(part, Row) else [])):
                raise UsageError(f"feed of {owner} must be {' or '.join(FEEDS)}, got {part.feed!r}")
        for row in self.rows:
            self.pick([*row.members, *([row.versus] if row.versus else [])])
            if isinstance(row.model, Matched) and not isinstance(self.pick([row.model.like])[0].model, nn.Module):
                raise UsageError(f"row {row.name!r} is to match {row.model.like!r}, which is no network of given width")

    def streams_batches(self, row: Row) -> bool:
        """Whether the row is a network on the streaming feed."""
        return row.model is not None and (row.feed or self.feed) == "streaming"

    def pick(self, names: Sequence[str]) -> tuple[Row, ...]:
        """The named rows, in the order of the table.

        Raises:
          UsageError: an unknown name; the message lists the right ones.
        """
        own = {row.name for row in self.rows}
        for name in names:
            if name not in own:
                raise UsageError(f"no row {name!r}; the rows are: {'; '.join(row.name for row in self.rows)}")
        return tuple(row for row in self.rows if row.name in set(names))

    def split_names(self, text: str) -> list[str]:
        """Names of rows in a text separated by commas; names may contain commas.

        Raises:
          UsageError: an unknown name, or none at all.
        """
        own, parts, names = {row.name for row in self.rows}, text.split(","), []
        while parts:
            ends = [n for n in range(len(parts), 0, -1) if ",".join(parts[:n]).strip() in own]
            count = ends[0] if ends else 1
            if name := ",".join(parts[:count]).strip():
                names.append(name)
            parts = parts[count:]
        if not names:
            raise UsageError(f"{text!r} names no row; the rows are: {'; '.join(row.name for row in self.rows)}")
        self.pick(names)
        return names

    def chosen(self, names: Sequence[str] | None) -> tuple[Row, ...]:
        """The rows to run: the named ones with their members, or all but the extra ones. Members come first."""
        wanted: set[str] = set()
        pending = [row.name for row in self.rows if row.name not in self.extra] if names is None else list(names)
        while pending:
            (row,) = self.pick([pending.pop()])
            wanted.add(row.name)
            pending += [name for name in row.members if name not in wanted]
        return tuple(sorted(self.pick(tuple(wanted)), key=lambda row: bool(row.members)))
