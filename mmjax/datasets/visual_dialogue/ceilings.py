"""What can be known from each part of a dialogue, computed from its law alone.

A ceiling is the share of right replies of the best rule that sees a part: the sum, over all that the part may show, of
the probability of the most likely reply. All dialogues are gone through with their probabilities; nothing is drawn.
"""

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from mmjax.datasets.visual_dialogue.procedure import COLOURS, KINDS, SHAPES, TURNS, Turn, options, reply

__all__ = ["PARTS", "ceilings"]

PARTS = ("question", "question+history", "question+image", "question+history+image")
PICTURES = tuple(itertools.product(SHAPES, COLOURS))
WORLDS = tuple(itertools.product(PICTURES, PICTURES))  # the picture, and what is thought of


def ceilings(law: np.ndarray | None = None) -> dict[str, Any]:
    """The ceiling of each of ``PARTS``, over all turns, and under ``kinds`` those of each kind of turn alone, for the
    rule that is best over all; and the shares of the kinds.

    Args:
      law: probability of each picture ``[shapes, colours]``; None = all equally likely.

    Example:
      >>> round(ceilings()["question+history+image"], 6)
      1.0
    """
    law = np.full((len(SHAPES), len(COLOURS)), 1 / 24) if law is None else np.asarray(law, float)
    weight = np.asarray([_share(law, picture, thought) for picture, thought in WORLDS])
    picture_code = np.repeat(np.arange(24), 24)
    thought_code = np.tile(np.arange(24), 24)
    replies: dict[str, int] = {}
    seen: dict[str, dict[Any, dict[str, Any]]] = {part: {} for part in PARTS}
    shares = dict.fromkeys(KINDS, 0.0)
    for before, turn, probability in _prefixes():
        said = np.stack([_codes(before[:n], one, replies) for n, one in enumerate((*before, turn))])
        mass = weight * probability
        shares[turn.kind] += probability
        asked = _asked(turn)
        opened = thought_code if not before else np.full(len(WORLDS), -1)
        views = {
            "question": (asked, [opened]),
            "question+image": (asked, [opened, picture_code]),
            # the wordings of all turns, what was thought of, and the replies to them
            "question+history": (tuple(_asked(one) for one in (*before, turn)), [thought_code, *said[:-1]]),
        }
        views["question+history+image"] = (
            *views["question+history"][:1],
            [*views["question+history"][1], picture_code],
        )
        for part, (key, columns) in views.items():
            table = seen[part].setdefault(key, {"kind": turn.kind, "rows": []})
            table["rows"].append((np.stack([*columns, said[-1]]), mass))
    found: dict[str, Any] = {}
    by_kind: dict[str, dict[str, float]] = {kind: {} for kind in KINDS}
    for part, tables in seen.items():
        of_kind = dict.fromkeys(KINDS, 0.0)
        for table in tables.values():
            of_kind[table["kind"]] += _best(table["rows"])
        found[part] = sum(of_kind.values()) / TURNS
        for kind, value in of_kind.items():
            by_kind[kind][part] = value / shares[kind]
    return found | {"kinds": by_kind, "shares": {kind: share / TURNS for kind, share in shares.items()}}


def _asked(turn: Turn) -> tuple[str, str]:
    """What a question shows of its turn: ``other`` does not say which property."""
    return turn.kind, turn.about if turn.kind in ("open", "thought") else ""


def _share(law: np.ndarray, picture: tuple[str, str], thought: tuple[str, str]) -> float:
    share = law[SHAPES.index(picture[0]), COLOURS.index(picture[1])]
    for real, guess, names in zip(picture, thought, (SHAPES, COLOURS)):
        share *= 0.5 if real == guess else 0.5 / (len(names) - 1)
    return float(share)


def _prefixes() -> Iterator[tuple[tuple[Turn, ...], Turn, float]]:
    """Every turn of every dialogue: the turns before it, itself, and its probability."""
    pending: list[tuple[tuple[Turn, ...], float]] = [((), 1.0)]
    while pending:
        before, probability = pending.pop()
        for turn, share in options(before).items():
            yield before, turn, probability * share
            if len(before) + 1 < TURNS:
                pending.append(((*before, turn), probability * share))


@functools.cache
def _texts(turn: Turn, first: Turn | None, said: Turn | None) -> tuple[str, ...]:
    """The reply in each world; what came before matters by the first turn or by the last one about the picture."""
    before = tuple(one for one in (first, said) if one is not None)
    return tuple(reply(before, turn, picture, thought) for picture, thought in WORLDS)


def _codes(before: tuple[Turn, ...], turn: Turn, numbers: dict[str, int]) -> np.ndarray:
    """The number of the reply in each world."""
    said = next((one for one in reversed(before) if one.about), None)
    texts = _texts(turn, before[0] if turn.kind == "first" else None, said if turn.kind == "last" else None)
    return np.asarray([numbers.setdefault(text, len(numbers)) for text in texts])


def _best(rows: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """The sum, over what is seen (all rows but the last), of the mass of the most likely reply (the last row)."""
    columns = np.concatenate([values for values, _ in rows], axis=1) + 1  # from 0 up
    mass = np.concatenate([weights for _, weights in rows])
    seen = np.zeros(columns.shape[1], np.int64)
    for column in columns[:-1]:  # one number for all that is seen: there are few replies
        seen = seen * (int(column.max()) + 1) + column
    views, place = np.unique(seen, return_inverse=True)
    sums = np.zeros((len(views), columns[-1].max() + 1))
    np.add.at(sums, (place, columns[-1]), mass)
    return float(sums.max(1).sum())
