"""Multi30K: descriptions of photographs translated from English (Elliott et al. 2016), without the photographs.

The part whose photographs are in Flickr8k is the data set ``multi30k_flickr8k``.
"""

import dataclasses

from mmjax.datasets.base import Card
from mmjax.datasets.multi30k.checksums import CHECKSUMS
from mmjax.datasets.multi30k.examples import TESTS, files_of, make_streams, read
from mmjax.datasets.recipe import AT_READING, Recipe
from mmjax.errors import UsageError

__all__ = ["CARD", "LANGUAGES", "RECIPE", "Options", "check_options", "needed"]

LANGUAGES = {"de": "German", "fr": "French"}

CARD = Card(
    name="multi30k",
    description=(
        "31,014 English descriptions of photographs of Flickr30k with a professional translation each: 29,000 to train "
        "on, 1,014 for validation, tests of 2016 (1,000), 2017 (1,000) and of ambiguous verbs (coco, 461). No "
        "photographs. The target is a sentence: ids with an end, and the text of the one reference."
    ),
    kinds={"text": "text"},
    num_classes=None,
    primary_metric="",
    group="photograph",
    noise={"text": "share of words deleted, 0 to 1"},
    licence="none stated in the repository, which asks for citation. Local benchmark",
    source=(
        "github.com/multi30k/dataset, commit a3d2e0d, data/task1/raw; units: github.com/LividWo/Revisit-MMT, commit "
        "dc368d0, data/multi30k-en-{de,fr}. Elliott, Frank, Sima'an & Specia, VL 2016; Elliott et al., WMT 2017"
    ),
)


@dataclasses.dataclass(frozen=True)
class Options:
    """``source``: ``bpe``, the lower-cased, tokenised text in 10,000 joint units on which Wu et al. (ACL 2021)
    measured, or ``raw``, the published text, whose units are fitted on train; ``language``: ``de`` or ``fr``; ``test``:
    ``2016``, ``2017`` or ``coco``; ``max_words``: ids of a sentence with its end, longer ones are cut;
    ``vocabulary``: ids of raw text at most.
    """

    source: str = "bpe"
    language: str = "de"
    test: str = "2016"
    max_words: int = dataclasses.field(default=64, metadata=AT_READING)
    vocabulary: int = dataclasses.field(default=10_000, metadata=AT_READING)

    def __post_init__(self):
        check_options("multi30k", self)
        if str(self.test) not in TESTS:
            raise UsageError(f"multi30k: test is one of {', '.join(TESTS)}, got {self.test!r}")
        object.__setattr__(self, "test", str(self.test))  # the command line reads 2016 as a number


def check_options(name: str, options: "Options") -> None:
    """Raises the error of a wrong option that both parts of Multi30K have."""
    if options.source not in ("bpe", "raw"):
        raise UsageError(f"{name}: source is 'bpe' or 'raw', got {options.source!r}")
    if options.language not in LANGUAGES:
        raise UsageError(f"{name}: language is {' or '.join(map(repr, LANGUAGES))}, got {options.language!r}")
    if options.max_words < 2:
        raise UsageError(f"{name}: max_words is 2 or more (a word and the end), got {options.max_words}")
    if options.vocabulary < 3:
        raise UsageError(f"{name}: vocabulary is 3 ids or more, got {options.vocabulary}")


def needed(options: "Options") -> dict[str, str]:
    """The source files of these options and their checksums."""
    paths = [path for pair in files_of(options.source, options.language, options.test).values() for path in pair]
    units = [f"multi30k_bpe/en-{options.language}.code.gz"] if options.source == "bpe" else []
    return {path: CHECKSUMS[path] for path in paths + units}


def _card(options: Options) -> Card:
    text = {"bpe": "published units", "raw": "raw text"}[options.source]
    language = LANGUAGES[options.language]
    name = CARD.name if options == Options() else f"{CARD.name} (en-{options.language}, {options.test}, {text})"
    return dataclasses.replace(CARD, name=name, description=f"{CARD.description} Here: into {language}, {text}.")


def _builder() -> type:
    from mmjax.datasets.multi30k.builder import Builder

    return Builder


RECIPE = Recipe(
    card=_card,
    options=Options,
    version="1.0.0",
    split_id=lambda options: f"official 29000/1014, test {options.test}",
    read=read,
    builder=_builder,
    files=needed,
    fetch=(
        "Clone github.com/multi30k/dataset (commit a3d2e0d) and, for the published units, github.com/LividWo/"
        "Revisit-MMT (commit dc368d0) into one folder and run "
        "'python -m mmjax.datasets.multi30k.convert FOLDER DIR'."
    ),
    at_reading=make_streams,
)
