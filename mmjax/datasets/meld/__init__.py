"""MELD, text alone: emotion and sentiment of utterances in dialogues of several speakers (Poria et al. 2019).

One example is one dialogue: the text is a nested sequence ``[utterances, words]``, the target a label per utterance. So
a model sees what was said before and after, and the dialogue is the unit of the split and of the bootstrap.
"""

import dataclasses

from mmjax.datasets.base import Card
from mmjax.datasets.meld.examples import EMOTIONS, FILES, SENTIMENTS, make_streams, read
from mmjax.datasets.recipe import AT_READING, Recipe
from mmjax.errors import UsageError

__all__ = ["CARD", "RECIPE", "TRAIN_COUNTS", "Options"]

TRAIN_COUNTS = (4_710, 1_205, 268, 683, 1_743, 271, 1_109)
"""Utterances of train by emotion, for weights of classes."""

CARD = Card(
    name="meld",
    description=(
        "13,708 utterances of 1,432 dialogues of the series Friends, with the name of each one's speaker; seven "
        "emotions. Official split 1,038 / 114 / 280 dialogues (one of the published 1,039 is not in the released "
        "file), 9,989 / 1,109 / 2,610 utterances. Text alone: the recordings are not public in that repository. "
        "Streams: words of each utterance, its speaker (numbered by frequency in train, others 0), and the number of "
        "the speaker within the dialogue (party). Test 48.1 % neutral."
    ),
    kinds={"text": "text", "speaker": "text", "party": "text"},
    num_classes=len(EMOTIONS),
    class_names=EMOTIONS,
    primary_metric="f1_weighted",
    group="dialogue",
    noise={name: "share of items deleted, 0 to 1" for name in ("text", "speaker", "party")},
    licence="GPL-3.0 of the repository; the dialogue is that of a TV series: research use, publish no texts",
    source=(
        "github.com/declare-lab/MELD, commit 2d2011b, data/MELD/*_sent_emo.csv. Poria et al., ACL 2019 "
        "(arXiv 1810.02508)"
    ),
    caution="Six speakers say 83 % of all splits, and 279 of the 280 test dialogues are of episodes that train has.",
)


@dataclasses.dataclass(frozen=True)
class Options:
    """``target``: ``emotion`` (seven) or ``sentiment`` (three); ``max_words``: of an utterance, longer ones are cut;
    ``tokenizer``: ``words`` or ``bpe``, fitted on train, or ``minilm``, the word pieces of ``mmjax.pretrained.minilm``;
    ``vocabulary``: ids at most of the first two; ``speakers``: frequent ones with a number of their own. All are for
    reading: none prepares the files anew.
    """

    target: str = dataclasses.field(default="emotion", metadata=AT_READING)
    max_words: int = dataclasses.field(default=48, metadata=AT_READING)
    tokenizer: str = dataclasses.field(default="words", metadata=AT_READING)
    vocabulary: int = dataclasses.field(default=8_000, metadata=AT_READING)
    speakers: int = dataclasses.field(default=15, metadata=AT_READING)

    def __post_init__(self):
        if self.target not in ("emotion", "sentiment"):
            raise UsageError(f"meld: target is 'emotion' or 'sentiment', got {self.target!r}")
        if self.tokenizer not in ("words", "bpe", "minilm"):
            raise UsageError(f"meld: tokenizer is 'words', 'bpe' or 'minilm', got {self.tokenizer!r}")
        for name, least in (("max_words", 2), ("vocabulary", 2), ("speakers", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"meld: {name} is {least} or more, got {getattr(self, name)}")


def _card(options: Options) -> Card:
    if options.target == "emotion":
        return CARD
    return dataclasses.replace(CARD, name="meld (sentiment)", num_classes=len(SENTIMENTS), class_names=SENTIMENTS)


def _builder() -> type:
    from mmjax.datasets.meld.builder import Builder

    return Builder


RECIPE = Recipe(
    card=_card,
    options=Options,
    version="1.0.0",
    split_id=lambda options: "official 1038/114/280 dialogues",
    read=read,
    builder=_builder,
    files=lambda options: {
        f"meld_text/{FILES['train']}": "bfaa0b26686ff8db1c76f5986d859e115476391cb3f2a6a5d6122e21bbc8edb1",
        f"meld_text/{FILES['validation']}": "7f4252cb2835f2f27a23c12522cc0350b0d4faa09dabfae2b7f497d3f2b3aa4c",
        f"meld_text/{FILES['test']}": "db6aff43da30e17f1ee073a3efc7ca4e28b611253c852c4d71cf85d1c69e68c5",
    },
    fetch=(
        "Fetch data/MELD of github.com/declare-lab/MELD (commit 2d2011b) and run 'python -m "
        "mmjax.datasets.meld.convert FOLDER DIR/meld_text'."
    ),
    at_reading=make_streams,
)
