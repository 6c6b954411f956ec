"""AVLetters: spoken letters A to Z from the lips (video) and MFCC (audio) (Matthews et al. 2002)."""

import dataclasses

from mmjax.datasets.avletters.examples import HEIGHT, WIDTH, read
from mmjax.datasets.base import Card
from mmjax.datasets.recipe import Recipe
from mmjax.errors import UsageError

__all__ = ["CARD", "RECIPE", "Options"]

CARD = Card(
    name="avletters",
    description=(
        "780 clips: 10 speakers say 26 letters 3 times. Video: grey mouths of 60x80 pixels at 25 per second, averaged "
        f"to {HEIGHT}x{WIDTH}; audio: 26 features (MFCC, energy, deltas) 50 times a second, no waveform. Published "
        "split: repetitions 1 and 2 train (here 1 trains, 2 validates; refit on both), 3 test. Chance and majority: "
        "3.8 %."
    ),
    kinds={"video": "video", "audio": "feature"},
    num_classes=26,
    class_names=tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    group="speaker",
    groups_cross=True,
    noise={
        "video": "pixels in [0, 1] + N(0, severity^2)",
        "audio": "standardised features + N(0, (2 severity)^2)",
    },
    licence="none known for the data: local benchmark only; do not redistribute, show no picture of it",
    source=(
        "github.com/datamllab/automl-in-action-notebooks, commit 1884d93, avletters (removed by the next commit). "
        "Matthews, Cootes, Bangham, Cox & Harvey, IEEE PAMI 24(2) 2002"
    ),
    caution="All speakers are in train and test, as published: the numbers do not speak for new speakers.",
)


@dataclasses.dataclass(frozen=True)
class Options:
    """``split``: ``published`` (by repetition) or ``speakers`` (0-5 train, 6-7 validation, 8-9 test)."""

    split: str = "published"

    def __post_init__(self):
        if self.split not in ("published", "speakers"):
            raise UsageError(f"avletters: split is 'published' or 'speakers', got {self.split!r}")


def _card(options: Options) -> Card:
    if options.split == "published":
        return CARD
    return dataclasses.replace(
        CARD,
        name="avletters (speakers)",
        description=CARD.description.partition("Published")[0]
        + "Speakers 0-5 train, 6-7 validate, 8-9 test: 156 test clips. Chance and majority: 3.8 %.",
        groups_cross=False,
        caution="Two test speakers: the numbers speak for them only.",
    )


def _builder() -> type:
    from mmjax.datasets.avletters.builder import Builder

    return Builder


RECIPE = Recipe(
    card=_card,
    options=Options,
    version="1.0.0",
    split_id=lambda options: {
        "published": "repetition 1 / 2 / 3 (validation: 2; published: 1 and 2 train)",
        "speakers": "speakers 0-5 / 6-7 / 8-9",
    }[options.split],
    read=read,
    builder=_builder,
    files=lambda options: {
        "avletters/avletters_rep1.npz": "27c3882acd440c7787f96758c437cef41d82e0b07d185367f05c9688df1f7ac7",
        "avletters/avletters_rep2.npz": "a6c4118a8935d59fd7fd3a9c566c7af3662ca277ed311b3571895c27d6e2ca13",
        "avletters/avletters_rep3.npz": "1a5b8a6ad6fa60eee8514cea8625f5de99cbb41ab93acc1199e58ff8276e082e",
    },
    fetch=(
        "Fetch avletters of github.com/datamllab/automl-in-action-notebooks at commit 1884d93 and run "
        "'python -m mmjax.datasets.avletters.convert AVLETTERS DIR/avletters'."
    ),
    sequences=lambda options: {"video": None, "audio": None},
)
