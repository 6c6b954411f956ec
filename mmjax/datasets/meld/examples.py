"""The examples of MELD out of its converted files, and what is made of them when they are read."""

import collections
import gzip
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.datasets.base import SPLITS
from mmjax.datasets.raw.words import encode_padded, stored_texts, tokenizer_of
from mmjax.datasets.recipe import Columns
from mmjax.datasets.streams import pad
from mmjax.errors import UsageError
from mmjax.stream import Stream

__all__ = ["EMOTIONS", "FILES", "SENTIMENTS", "make_streams", "read", "within"]

EMOTIONS = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
SENTIMENTS = ("neutral", "positive", "negative")
FILES = {"train": "meld_train.jsonl.gz", "validation": "meld_valid.jsonl.gz", "test": "meld_test.jsonl.gz"}


def read(options: Any, folder: pathlib.Path) -> Columns:
    """Dialogues of the official splits in the order of the files: texts, speakers, labels of their utterances."""
    columns, first = {}, 0
    for split in SPLITS:
        dialogues: dict[int, list[dict]] = {}
        with gzip.open(folder / "meld_text" / FILES[split], "rt", encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                dialogues.setdefault(row["dialogue"], []).append(row)
        rows = [sorted(one, key=lambda row: row["utterance"]) for one in dialogues.values()]
        columns[split] = {
            "text": [[row["text"] for row in one] for one in rows],
            "speaker": [[row["speaker"] for row in one] for one in rows],
            "emotion": [np.asarray([EMOTIONS.index(row["emotion"]) for row in one], np.int32) for one in rows],
            "sentiment": [np.asarray([SENTIMENTS.index(row["sentiment"]) for row in one], np.int32) for one in rows],
            "target": np.zeros(len(rows), np.int32),  # made of the labels at reading
            "group": np.arange(first, first + len(rows), dtype=np.int32),
        }
        first += len(rows)
    return columns


def make_streams(options: Any, columns: Columns) -> tuple[Columns, dict[str, Any]]:
    """Utterances as ids ``[n, utterances, max_words]``, speakers ``[n, utterances]``, a label per utterance.

    ``speaker``: 1, 2, ... for the most frequent speakers of train, 0 for all others. ``party``: 0, 1, ... in the order
    in which speakers begin to speak in the dialogue, so that two others are told apart.
    """
    texts = {split: [_strings(row) for row in columns[split]["text"]] for split in SPLITS}
    names = {split: [_strings(row) for row in columns[split]["speaker"]] for split in SPLITS}
    steps = max(len(row) for rows in texts.values() for row in rows)
    train = [text for row in texts["train"] for text in row]
    tokenizer, marks = tokenizer_of(options.tokenizer, train, size=options.vocabulary, max_words=options.max_words)
    counts = collections.Counter(name for row in names["train"] for name in row)
    frequent = sorted(counts, key=lambda name: (-counts[name], name))[: options.speakers]
    number = {name: place + 1 for place, name in enumerate(frequent)}
    made = {}
    for split in SPLITS:
        rows = columns[split]
        targets, mask = pad(rows[options.target], steps)
        index = np.full(mask.shape, -1, np.int32)
        index[mask] = np.arange(mask.sum())
        speakers = [np.asarray([number.get(name, 0) for name in row], np.int32) for row in names[split]]
        made[split] = {
            "text": encode_padded(tokenizer, texts[split], options.max_words, most=steps, marks=marks),
            "speaker": Stream(*pad(speakers, steps)),
            "party": Stream(*pad([within(row) for row in names[split]], steps)),
            "target": targets,
            "index": index,
            "group": np.where(mask, np.asarray(rows["group"])[:, None], -1),
        }
    return made, {"text": tokenizer}


def within(names: Sequence[str]) -> np.ndarray:
    """The number of each name in the order of first appearance.

    Example:
      >>> within(["Ross", "Joey", "Ross"]).tolist()
      [0, 1, 0]
    """
    seen: dict[str, int] = {}
    return np.asarray([seen.setdefault(name, len(seen)) for name in names], np.int32)


def _strings(values: Sequence[Any]) -> list[str]:
    texts = stored_texts(values)
    if not texts:
        raise UsageError("meld: a dialogue without an utterance")
    return texts
