"""The best network of a finished table, ready for something new: no data set is read."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmjax import tables
from mmjax.checkpoint import read_params
from mmjax.datasets.base import SPLITS, Dataset
from mmjax.errors import UsageError
from mmjax.evaluation.scores import score
from mmjax.evaluation.store.records import RecordStore
from mmjax.experiment.inputs import Inputs, read_inputs
from mmjax.experiment.settings import describe
from mmjax.experiment.table import Matched, Row, Table
from mmjax.stream import Batch, Stream
from mmjax.tasks import Task
from mmjax.typing import Mapping, PyTree

__all__ = ["Trained", "load_trained", "numbered_words", "of_each_example", "one_of_kind", "unknown_note"]

Fits = Callable[[Row, Inputs], bool]


@dataclasses.dataclass(frozen=True)
class Trained:
    """One trained network of a finished table.

    Attributes:
      variables: of the seed that is best on validation.
      streams: names of the streams that the row sees, before its view.
    """

    workdir: pathlib.Path
    table: Table
    row: Row
    seed: int
    variables: PyTree
    inputs: Inputs

    @property
    def model(self) -> Any:
        """The network."""
        return self.row.network

    @property
    def task(self) -> Task:
        """Its task."""
        return self.row.task or self.table.task

    @property
    def by(self) -> str:
        """Who answers: a line."""
        return f"by {self.row.name!r}, seed {self.seed}, of {self.workdir}\n"

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the streams that the row sees."""
        return tuple(self.row.streams or self.inputs.streams)

    def stream_of(self, kind: str, *, seen: bool = True) -> str:
        """The only stream of a kind among those that the row sees, or of the data set.

        Raises:
          UsageError: there is none, or more than one.
        """
        name = one_of_kind(self.inputs, kind, self.streams if seen else None)
        if name is None:
            raise UsageError(f"row {self.row.name!r} of {str(self.workdir)!r} has not one stream of {kind}")
        return name

    def prepare(self, streams: Mapping[str, Stream]) -> dict[str, Stream]:
        """New raw examples after the views of table and row, with the streams of the row alone.

        Raises:
          UsageError: a view that is not of each example alone, and so needs the data that it was fitted on.
        """
        for owner, view in (("table", self.table.view), (f"row {self.row.name!r}", self.row.view)):
            if view is not None and not _is_of_each(view):
                raise UsageError(
                    f"the view of the {owner} is fitted on its data; mark it mmjax.answers.trained.of_each_example "
                    "where it is not"
                )
        count = len(next(iter(streams.values())).mask)
        number = np.zeros(count, np.int32)
        batch = Batch(dict(streams), number, np.ones(count, np.float32), np.arange(count, dtype=np.int32), number)
        card = dataclasses.replace(self.inputs.card, groups_cross=True)
        data = Dataset(
            card, dict.fromkeys(SPLITS, batch), "", "", "", tokenizers=self.inputs.tokenizers, transient=SPLITS
        )
        for view in (self.table.view, self.row.view):
            data = view(data) if view else data
        return {name: data.splits["test"].streams[name] for name in self.streams}

    def outputs(self, streams: Mapping[str, Stream]) -> Any:
        """What the network gives for prepared streams."""
        run = jax.jit(functools.partial(self.model.apply, train=False))
        return run(self.variables, dict(streams))


def of_each_example(view: Any) -> Any:
    """Marks a view that changes every example by itself and learns nothing of the others, so that a person's picture
    can go through it.
    """
    view.of_each_example = True
    return view


def _is_of_each(view: Any) -> bool:
    return bool(getattr(view.func if isinstance(view, functools.partial) else view, "of_each_example", False))


def load_trained(workdir: str | pathlib.Path, fits: Fits, what: str, row: str | None = None) -> Trained:
    """The network of a finished or half-finished table that is best on validation, among those that fit.

    Args:
      workdir: of the table; where there is none of that name, ``runs/NAME`` is meant.
      fits: which rows can do what is asked.
      what: is asked, for messages: "answers questions about a picture".
      row: its name, instead of the best.

    Raises:
      UsageError: no work directory of a table, no such row, none that fits, or a table that has changed since.
    """
    folder = pathlib.Path(workdir)
    usual = pathlib.Path("runs") / folder
    folder = usual if not folder.is_dir() and usual.is_dir() else folder
    store = RecordStore(folder)
    config = store.config()
    if "rows" not in config:
        raise UsageError(f"{str(folder)!r} is no work directory of a table, so nothing in it {what}")
    inputs = read_inputs(folder)
    table = tables.find(str(config["table"]).removesuffix("-smoke"))
    stored = {one["name"]: one for one in config["rows"]}
    candidates = [one for one in table.rows if one.model is not None and not isinstance(one.model, Matched)]
    candidates = [one for one in candidates if one.name in stored and fits(one, inputs)]
    if not candidates:
        raise UsageError(f"{str(folder)!r} is a run of {config['table']}: no network of it {what}")
    if row is not None:
        table.pick([row])
        if row not in (names := [one.name for one in candidates]):
            raise UsageError(f"row {row!r} is no network that {what}; these do: {'; '.join(names)}")
        candidates = [one for one in candidates if one.name == row]
    found = []
    for one in candidates:
        records = [r for r in store.records(one.name) if r["method"]["config_hash"] == stored[one.name]["config_hash"]]
        values = [score(r["primary"]).sign * r["validation_metrics"][r["primary"]] for r in records]
        if values:
            found.append((float(np.mean(values)), one, records[int(np.argmax(values))]))
    if not found:
        untrained = "; ".join(one.name for one in candidates)
        raise UsageError(f"{str(folder)!r} has no trained row yet among: {untrained}")
    _, best, record = max(found, key=lambda one: one[0])
    if json.loads(json.dumps(describe(best.model))) != stored[best.name]["method"]:
        raise UsageError(f"row {best.name!r} is another network by now than the one trained in {str(folder)!r}")
    seeds = [r["seed"] for r in store.records(best.name)]
    whole = read_params(folder / "checkpoints" / f"{stored[best.name]['config_hash']}.safetensors")
    place = seeds.index(record["seed"])
    return Trained(folder, table, best, record["seed"], jax.tree.map(lambda x: jnp.asarray(x[place]), whole), inputs)


def one_of_kind(inputs: Inputs, kind: str, names: Sequence[str] | None = None) -> str | None:
    """The only stream of a kind among the named ones (None = all); None where there is none, or more than one."""
    found = [name for name, form in inputs.streams.items() if form.kind == kind and (names is None or name in names)]
    return found[0] if len(found) == 1 else None


def numbered_words(inputs: Inputs, name: str, text: str, what: str = "question") -> tuple[Stream, list[str]]:
    """A text as a stream of one example (of one item, where texts are nested), and its words that the run never met.

    Raises:
      UsageError: no words, none that the run knows, or no tokenizer of the run's own.
    """
    if not text.strip():
        raise UsageError(f"the {what} is empty")
    if name not in inputs.tokenizers:
        raise UsageError(f"the run has no tokenizer of {name!r}: its words were numbered elsewhere")
    *nested, most = inputs.streams[name].lengths
    encoding = inputs.tokenizers[name].encode(text)
    ids = np.asarray(encoding.ids[:most], np.int32)
    spans = [text[start:stop] for start, stop in encoding.offsets]
    unknown = [word for word, number in zip(spans, encoding.ids) if number == 0]
    known = [word for word, number in zip(spans, encoding.ids) if number != 0 and any(map(str.isalnum, word))]
    if not known:
        raise UsageError(f"the run knows no word of the {what} {text!r}: it met none of them in training")
    values, mask = np.zeros(most, np.int32), np.arange(most) < len(ids)
    values[: len(ids)] = ids
    shape = (1, *(1 for _ in nested), most)
    return Stream(values.reshape(shape), mask.reshape(shape)), unknown


def unknown_note(words: Sequence[str], end: str = "") -> str:
    """A line about words that the run never met; nothing where it met all."""
    return f"note: the run has never met {', '.join(map(repr, words))}{end}\n" if words else ""
