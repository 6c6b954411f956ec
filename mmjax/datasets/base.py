"""What a data set is here: splits of examples in memory, and the card that says what they are."""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from mmjax.stream import Batch, target_items

__all__ = ["KINDS", "SPLITS", "Card", "Dataset"]

SPLITS = ("train", "validation", "test")
KINDS = ("text", "image", "audio", "video", "feature")


@dataclasses.dataclass(frozen=True)
class Card:
    """The data card.

    Attributes:
      name: of the data set, with its variant in the name where variants exist.
      description: one paragraph: what, from where, how split.
      kinds: kind of each stream: text, image, audio, video or feature.
      num_classes: number of classes; None for a score.
      class_names: their names, in order.
      closed: whether the last class stands for the answers that are not on a closed list: no model may give it.
      primary_metric: the metric of the tables, e.g. ``accuracy``; empty = the first of the task's scores.
      metric: its name with its convention, where the field has several, e.g. ``acc2_has0`` (see
        ``mmjax.evaluation.statistics.published``); empty = the primary metric.
      group: what a group is: video, speaker, recording; the unit of splitting and of the bootstrap.
      groups_cross: whether groups cross the splits (a published split that lets them is used, and the table says so).
      noise: physical scale of each stream's noise at severities 0 and 1, e.g. ``{"audio": "SNR 30 to -10 dB"}``.
      licence: of the data.
      source: where the originals come from, with citation.
      caution: what a reader of a table must know; printed on its face. Empty = nothing.
    """

    name: str
    description: str
    kinds: dict[str, str]
    num_classes: int | None
    class_names: tuple[str, ...] = ()
    primary_metric: str = "accuracy"
    metric: str = ""
    group: str = "example"
    groups_cross: bool = False
    noise: dict[str, str] = dataclasses.field(default_factory=dict)
    licence: str = ""
    source: str = ""
    caution: str = ""
    closed: bool = False


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set in memory.

    Attributes:
      splits: ``train``, ``validation`` and ``test``; each a ``Batch`` of NumPy arrays that holds all its examples.
      version: of the builder.
      sha256: of the content (sources or arrays), so that a record names what it was measured on.
      split_id: names the split, e.g. ``bclstm-62/31, validation 12 of 62 videos``.
      facts: known answers of a synthetic set (Bayes accuracy, bits of synergy), else empty.
      tokenizers: what made the ids of a text, by stream (``tokenizers.Tokenizer``), where this library did.
      sample_rates: of waveforms in Hz, by stream, where they are known.
      data_dir: the folder of source files that it was loaded from, where a view finds published weights beside them;
        None = there was none.
      cache_dir: the folder of prepared files, where a view may keep what took long (features of a frozen tower).
      transient: splits that are met once (noisy copies, a person's picture): a view keeps nothing of them.
    """

    card: Card
    splits: dict[str, Batch]
    version: str
    sha256: str
    split_id: str
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    tokenizers: dict[str, Any] = dataclasses.field(default_factory=dict)
    sample_rates: dict[str, int] = dataclasses.field(default_factory=dict)
    data_dir: pathlib.Path | None = None
    cache_dir: pathlib.Path | None = None
    transient: tuple[str, ...] = ()

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the modalities, sorted."""
        return tuple(sorted(self.splits["train"].streams))

    @property
    def multi_label(self) -> bool:
        """Whether an item has a vector of labels, 0 or 1 for each class."""
        batch = self.splits["train"]
        return bool(self.card.num_classes) and np.ndim(batch.target) > np.ndim(batch.index)

    def majority(self, split: str = "test") -> float:
        """Share of the most frequent class among the labelled items of ``split``: what ignoring the input reaches.

        Raises:
          ValueError: the target is a score.
        """
        if self.card.num_classes is None:
            raise ValueError(f"{self.card.name} has scores, not classes: there is no majority class")
        batch = self.splits[split]
        labels = np.asarray(target_items(batch))
        counts = np.bincount(labels, minlength=self.card.num_classes)
        return float(counts[: -1 if self.card.closed else None].max() / labels.size)
