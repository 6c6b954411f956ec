"""Multi30K with photographs: the part whose photographs are in Flickr8k (Elliott et al. 2016; Hodosh et al. 2013)."""

import dataclasses

from mmjax.datasets import flickr8k, multi30k
from mmjax.datasets.base import Card
from mmjax.datasets.multi30k import LANGUAGES, check_options
from mmjax.datasets.multi30k_flickr8k.examples import make_streams, read
from mmjax.datasets.recipe import AT_READING, Recipe

__all__ = ["CARD", "RECIPE", "Options"]

CARD = Card(
    name="multi30k_flickr8k",
    description=(
        "English descriptions of photographs with a professional translation each: the rows of Multi30K whose "
        "photograph is in Flickr8k's splits, 6,914 of 29,000 to train on, 238 of 1,014 for validation, 239 of 1,000 "
        "for the test of 2016. Photographs are 128 pixels a side and stretched. The target is a sentence: ids with an "
        "end, and the text of the one reference."
    ),
    kinds={"image": "image", "text": "text"},
    num_classes=None,
    primary_metric="",
    group="photograph",
    noise={"image": "pixels in [0, 1] + N(0, severity^2)", "text": "share of words deleted, 0 to 1"},
    licence="none stated; photographs on request for research and education. Local benchmark: show none in public",
    source=f"{multi30k.CARD.source}; photographs: {flickr8k.CARD.source}",
    caution=(
        "A fourth of Multi30K: published numbers are for all of it. Photographs of Flickr8k's own test are in train: a "
        "model trained here must not be measured there."
    ),
)


@dataclasses.dataclass(frozen=True)
class Options:
    """As those of ``multi30k``: ``source`` (``bpe`` or ``raw``), ``language`` (``de`` or ``fr``), ``max_words``,
    ``vocabulary``. The test is that of 2016.
    """

    source: str = "bpe"
    language: str = "de"
    max_words: int = dataclasses.field(default=64, metadata=AT_READING)
    vocabulary: int = dataclasses.field(default=10_000, metadata=AT_READING)

    def __post_init__(self):
        check_options("multi30k_flickr8k", self)


CHECKSUMS = {
    "multi30k_flickr8k/test_2016_flickr.jsonl": "a64ced5920c18b0789890d4a44af45d387d17216f686cfe1a4880a0e1d840fe1",
    "multi30k_flickr8k/train.jsonl": "9642dead499230506d31f4c25e44fba9bf3ee6038e41657294c6292946adf0e0",
    "multi30k_flickr8k/val.jsonl": "20f3acf7287cbb47aebde72b88e8cabbd173869c9e767b94ed24ee4139934938",
}


def _files(options: Options) -> dict[str, str]:
    units = multi30k.Options(source=options.source, language=options.language)
    of_units = multi30k.needed(units) if options.source == "bpe" else {}
    tars = {path: sha for path, sha in flickr8k.RECIPE.files(None).items() if path.endswith(".tar")}
    return {**CHECKSUMS, **of_units, **tars}


def _card(options: Options) -> Card:
    text = {"bpe": "published units", "raw": "raw text"}[options.source]
    name = CARD.name if options == Options() else f"{CARD.name} (en-{options.language}, {text})"
    description = f"{CARD.description} Here: into {LANGUAGES[options.language]}, {text}."
    return dataclasses.replace(CARD, name=name, description=description)


def _builder() -> type:
    from mmjax.datasets.multi30k_flickr8k.builder import Builder

    return Builder


RECIPE = Recipe(
    card=_card,
    options=Options,
    version="1.0.0",
    split_id=lambda options: "Multi30K's 2016 splits, rows with a photograph in Flickr8k: 6914/238/239",
    read=read,
    builder=_builder,
    files=_files,
    fetch=(
        "Make the folders multi30k, multi30k_bpe and flickr8k (see those data sets), then run "
        "'python -m mmjax.datasets.multi30k_flickr8k.convert FOLDER DIR', FOLDER being that of multi30k's converter."
    ),
    at_reading=make_streams,
)
