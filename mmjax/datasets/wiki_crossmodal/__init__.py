"""Wikipedia cross-modal retrieval: sections of articles, each a text and an image (Rasiwasia et al. 2010)."""

import dataclasses

from mmjax.datasets.base import Card
from mmjax.datasets.recipe import Recipe
from mmjax.datasets.wiki_crossmodal.examples import LANGUAGES, VALIDATION, read
from mmjax.errors import UsageError

__all__ = ["CARD", "RECIPE", "Options"]

CLASSES = ("art", "biology", "geography", "history", "literature", "media", "music", "royalty", "sport", "warfare")
CARD = Card(
    name="wiki_crossmodal",
    description=(
        "2,866 sections of Wikipedia's featured articles with one image each, in 10 categories. Image: a bag of 128 "
        "visual words (SIFT); text: 10 topics (LDA); both sum to 1. Published split 2,173 / 693; for validation "
        f"{VALIDATION:.0%} of the articles are cut from train. Majority of test 15.0 %; mean average precision of "
        "chance 11.9 %."
    ),
    kinds={"image": "feature", "text": "feature"},
    num_classes=10,
    class_names=CLASSES,
    group="article",
    groups_cross=True,
    noise=dict.fromkeys(("image", "text"), "standardised features + N(0, (2 severity)^2)"),
    licence="none stated for the features; the articles are CC BY-SA. Local benchmark, no text or picture is here",
    source=(
        "github.com/TongJiayan/Multimodal-Retrieve, commit 4a30add, data/wiki; topics in three languages: "
        "github.com/adityamogadala/CSquareSUR, commit 8724bb8, Matlab. Rasiwasia et al., ACM Multimedia 2010"
    ),
    caution=(
        "552 of the 693 test sections come from articles that have sections in train, as published; "
        "test='unshared' leaves the other 141."
    ),
)


@dataclasses.dataclass(frozen=True)
class Options:
    """``languages``: which of en, de, es are streams too, topics of the article's text in that language; ``topics``: 10
    or 100 of them; ``test``: ``all``, or ``unshared``: only sections of articles without a section in train.
    """

    languages: tuple[str, ...] = ()
    topics: int = 10
    test: str = "all"

    def __post_init__(self):
        languages = (self.languages,) if isinstance(self.languages, str) else tuple(self.languages)
        object.__setattr__(self, "languages", languages)
        if unknown := [one for one in languages if one not in LANGUAGES]:
            raise UsageError(f"wiki_crossmodal: languages are of {', '.join(LANGUAGES)}, got {unknown[0]!r}")
        if self.topics not in (10, 100):
            raise UsageError(f"wiki_crossmodal: topics is 10 or 100, got {self.topics!r}")
        if self.test not in ("all", "unshared"):
            raise UsageError(f"wiki_crossmodal: test is 'all' or 'unshared', got {self.test!r}")


def _card(options: Options) -> Card:
    unshared = options.test == "unshared"
    names = ("image", "text", *options.languages)
    languages = (
        f" Also {options.topics} topics of the text in {', '.join(options.languages)}, of another model than those of "
        "text: they go with each other and with the articles, but tell little of the category (logistic regression on "
        "10 topics 20 to 22 % of test right, on those of text 67 %)."
    )
    return dataclasses.replace(
        CARD,
        name="wiki_crossmodal (unshared)" if unshared else CARD.name,
        description=CARD.description + languages * bool(options.languages),
        kinds=dict.fromkeys(names, "feature"),
        noise=dict.fromkeys(names, CARD.noise["text"]),
        groups_cross=not unshared,
        caution="" if unshared else CARD.caution,
    )


def _builder() -> type:
    from mmjax.datasets.wiki_crossmodal.builder import Builder

    return Builder


WIKI = {"wiki_crossmodal/wiki.npz": "53866a18770580286d72ddb9124c991be9047ed9ecdb9a3e359567858961fb1a"}
TOPICS = {"wiki_crossmodal/topics_multilingual.npz": "2275f649ba57d0662c8d757f7087c3a73d1959a48ee41707a4b160d1ceea3dc0"}

RECIPE = Recipe(
    card=_card,
    options=Options,
    version="1.0.0",
    split_id=lambda options: (
        f"published 2173/693, {VALIDATION:.0%} of the articles of train validate"
        + ("; test unshared: articles without a section in train" if options.test == "unshared" else "")
    ),
    read=read,
    builder=_builder,
    files=lambda options: {**WIKI, **(TOPICS if options.languages else {})},
    fetch=(
        "Fetch data/wiki of github.com/TongJiayan/Multimodal-Retrieve (commit 4a30add) and Matlab/Topics10 and "
        "Matlab/Topics100 of github.com/adityamogadala/CSquareSUR (commit 8724bb8) into one folder and run "
        "'python -m mmjax.datasets.wiki_crossmodal.convert FOLDER DIR/wiki_crossmodal'."
    ),
)
