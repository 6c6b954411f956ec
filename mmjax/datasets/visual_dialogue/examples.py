"""The examples of visual_dialogue: pictures of easy-VQA with a dialogue each, and what is made of them when read."""

import pathlib
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from mmjax.datasets.base import SPLITS
from mmjax.datasets.easy_vqa.examples import ANSWERS
from mmjax.datasets.easy_vqa.examples import read as read_pictures
from mmjax.datasets.questions import decode_picture
from mmjax.datasets.raw.words import encode_padded, fit_tokenizer, stored_texts
from mmjax.datasets.recipe import Columns
from mmjax.datasets.visual_dialogue.pictures import shown
from mmjax.datasets.visual_dialogue.procedure import COLOURS, KINDS, SHAPES, TURNS, draw
from mmjax.errors import UsageError
from mmjax.hypotheses import encode_texts
from mmjax.stream import Stream

__all__ = ["END_ID", "history_ids", "make_streams", "question_ids", "read"]

END_ID = 0
"""The tokenizer's unknown id, which no reply holds: a reply ends with it."""


def read(options: Any, folder: pathlib.Path) -> Columns:
    """Pictures of which shape and colour are known, as many of each of the 24 kinds in a split, with a dialogue each.

    Which pictures stay follows from their order, the dialogue of one from ``seed`` and its number alone.
    """
    columns: Columns = {}
    for split, rows in read_pictures(SimpleNamespace(seed=options.seed), folder).items():
        facts = [shown(asked, [ANSWERS[i] for i in said]) for asked, said in zip(rows["question"], rows["target"])]
        of_kind: dict[Any, list[int]] = {(shape, colour): [] for shape in SHAPES for colour in COLOURS}
        for place, fact in enumerate(facts):
            if fact is not None:
                of_kind[fact].append(place)
        fewest = min(map(len, of_kind.values()))
        if not fewest:
            raise UsageError(f"visual_dialogue: {split} lacks pictures of one of the 24 kinds")
        chosen = sorted(place for places in of_kind.values() for place in places[:fewest])
        said = [_dialogue(options.seed, rows["group"][place], facts[place]) for place in chosen]
        columns[split] = {
            "image": [rows["image"][place] for place in chosen],
            "question": [[question for _, question, _ in one] for one in said],
            "reply": [[answer for _, _, answer in one] for one in said],
            "kind": [np.asarray([KINDS.index(turn.kind) for turn, _, _ in one], np.int32) for one in said],
            "target": np.zeros(len(chosen), np.int32),  # made of the replies at reading
            "group": np.asarray([rows["group"][place] for place in chosen], np.int32),
        }
    return columns


def _dialogue(seed: int, number: int, picture: Any) -> list[tuple[Any, str, str]]:
    return draw(np.random.default_rng([seed, int(number)]), picture)


def make_streams(options: Any, columns: Columns) -> tuple[Columns, dict[str, Any]]:
    """Pixels ``[n, 1, 64, 64, 3]``, a question for each turn ``[n, turns, words]``, and for each the turns before it,
    question and reply together, ``[n, turns, turns - 1, words]``.

    The target is a dict: ``tokens`` (ids of the reply and ``END_ID``, ``[n, turns, words]``), ``text`` (its bytes) and
    ``kind`` of the turn.
    """
    asked = {split: [stored_texts(row) for row in columns[split]["question"]] for split in SPLITS}
    said = {split: [stored_texts(row) for row in columns[split]["reply"]] for split in SPLITS}
    words = fit_tokenizer([text for rows in (asked["train"], said["train"]) for row in rows for text in row])
    made: Columns = {}
    for split in SPLITS:
        n = len(asked[split])
        pixels = np.stack([decode_picture(image) for image in columns[split]["image"]])[:, None]
        turns = [list(zip(*row)) for row in zip(asked[split], said[split])]
        made[split] = {
            "image": Stream(pixels, np.ones(pixels.shape[:2], bool)),
            "question": question_ids(words, asked[split]),
            "history": history_ids(words, turns),
            "target": {
                "tokens": _replies(words, said[split]),
                "text": _bytes(said[split]),
                "kind": np.stack(columns[split]["kind"]),
            },
            "index": np.arange(n * TURNS, dtype=np.int32).reshape(n, TURNS),
            "group": np.repeat(np.asarray(columns[split]["group"])[:, None], TURNS, 1),
        }
    lengths = [made[split]["target"]["tokens"].mask.shape[-1] for split in SPLITS]
    if len(set(lengths)) > 1:  # of all splits the longest
        for split in SPLITS:
            target = made[split]["target"]
            after = [(0, 0), (0, 0), (0, max(lengths) - target["tokens"].mask.shape[-1])]
            target["tokens"] = Stream(*(np.pad(x, after) for x in (target["tokens"].values, target["tokens"].mask)))
    return made, dict.fromkeys(("question", "history", "reply"), words)


WORDS, HISTORY_WORDS = 16, 24


def question_ids(tokenizer: Any, dialogues: list[list[str]]) -> Stream:
    """Ids ``[n, turns, 16]`` of the questions of dialogues."""
    return encode_padded(tokenizer, dialogues, WORDS)


def history_ids(tokenizer: Any, dialogues: list[list[tuple[str, str]]]) -> Stream:
    """Ids ``[n, turns, before, 24]``: for each turn of dialogues, given as question and reply, what came before it.

    A dialogue of 5 turns has 5 histories, of 0 to 4 turns; the last turn's own texts are read by none.
    """
    texts = [[f"{question} {answer}" for question, answer in one] for one in dialogues]
    turns = max(map(len, texts))
    whole = encode_padded(tokenizer, texts, HISTORY_WORDS)
    before = np.tri(turns, k=-1, dtype=bool)[:, : max(turns - 1, 1)]
    shape = (len(texts), turns, before.shape[1], HISTORY_WORDS)
    values = np.broadcast_to(whole.values[:, None, : before.shape[1]], shape)
    mask = np.broadcast_to(whole.mask[:, None, : before.shape[1]], shape) & before[None, :, :, None]
    return Stream(np.where(mask, values, 0), mask)


def _replies(tokenizer: Any, dialogues: list[list[str]]) -> Stream:
    """Ids of the replies, each with its end."""
    longest = max(len(text.split()) for row in dialogues for text in row) + 1
    stream = encode_padded(tokenizer, dialogues, longest)
    ends = np.arange(longest) == stream.mask.sum(-1, keepdims=True)
    return Stream(np.where(ends, END_ID, stream.values).astype(np.int32), stream.mask | ends)


def _bytes(dialogues: list[list[str]]) -> Stream:
    """The replies as references ``[n, turns, 1, bytes]``."""
    flat = encode_texts([[text] for row in dialogues for text in row])
    return Stream(*(x.reshape(len(dialogues), TURNS, *x.shape[1:]) for x in (flat.values, flat.mask)))


def known_answers(ceilings: Mapping[str, Any]) -> dict[str, Any]:
    """The ceilings in the form in which tables print what is known of a data set."""
    whole = "question+history+image"
    alone = {name: value for name, value in ceilings.items() if isinstance(value, float) and name != whole}
    return {"bayes_accuracy": ceilings[whole], "bayes_accuracy_alone": alone, "ceilings": dict(ceilings)}
