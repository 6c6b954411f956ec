"""Dialogues about drawings of easy-VQA, made by a seeded procedure whose ceilings are known.

One example is one picture with a dialogue of five turns: questions, of which later ones refer to earlier ones and to
their replies, and a reply of one sentence to each, which is to be said word for word. ``procedure.py`` says how a
dialogue is made, ``ceilings.py`` computes from it what the best rule reaches that sees only a part of it.
"""

import dataclasses
import functools
from typing import Any

from mmjax.datasets.base import Card
from mmjax.datasets.easy_vqa import RECIPE as EASY_VQA
from mmjax.datasets.recipe import Recipe
from mmjax.datasets.visual_dialogue.ceilings import ceilings
from mmjax.datasets.visual_dialogue.examples import known_answers, make_streams, read
from mmjax.datasets.visual_dialogue.procedure import TURNS
from mmjax.errors import UsageError

__all__ = ["CARD", "RECIPE", "Options"]

CARD = Card(
    name="visual_dialogue",
    description=(
        f"A dialogue of {TURNS} turns about each of 3,264 drawings of easy-VQA: a shape (3) in a colour (8), as many "
        "drawings of each of the 24 in a split (2,544 / 192 / 528). Made by a seeded procedure: the person says which "
        "shape and colour they think of (each right half of the time), then asks for shape or colour, for the other "
        "property, whether it is what they think of, what they asked first, or what was said about it last; "
        "probabilities of the turns in datasets/visual_dialogue/procedure.py. A reply is one sentence, and right only "
        "word for word. Computed from the procedure, the best rule is right in 25.6 % of the turns by the question "
        "alone, 63.5 % with the picture, 74.8 % with the history, 100 % with all."
    ),
    kinds={"image": "image", "question": "text", "history": "text"},
    num_classes=None,
    primary_metric="sentence_exact",
    group="picture",
    noise={
        "image": "pixels in [0, 1] + N(0, severity^2)",
        "question": "share of words deleted, 0 to 1",
        "history": "share of words deleted, 0 to 1",
    },
    licence="MIT (pictures)",
    source=f"pictures and what they show: {EASY_VQA.card(EASY_VQA.options()).source}; dialogues: made here",
    caution="Sentences of a procedure: it tests whether history and picture are used, and is no measure of real ones.",
)


@dataclasses.dataclass(frozen=True)
class Options:
    """``seed``: of the validation pictures and of the dialogues."""

    seed: int = 0

    def __post_init__(self):
        if self.seed < 0:
            raise UsageError(f"visual_dialogue: seed is 0 or more, got {self.seed}")


@functools.cache
def _facts(options: Options) -> dict[str, Any]:
    return known_answers(ceilings())


def _builder() -> type:
    from mmjax.datasets.visual_dialogue.builder import Builder

    return Builder


RECIPE = Recipe(
    card=lambda options: CARD,
    options=Options,
    version="1.0.0",
    split_id=lambda options: f"pictures of easy_vqa's split, 24 kinds evenly, seed {options.seed}",
    read=read,
    builder=_builder,
    files=lambda options: EASY_VQA.files(EASY_VQA.options()),
    fetch=EASY_VQA.fetch,
    facts=_facts,
    at_reading=make_streams,
)
