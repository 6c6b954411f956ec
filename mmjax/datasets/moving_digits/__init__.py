"""Handwritten digits that move over a noisy canvas, and a sentence with one word that helps. Embedded: no files."""

import dataclasses

from mmjax.datasets.base import Card
from mmjax.datasets.moving_digits.examples import CANVAS, DIGIT, INFORMATIVE, VOCABULARY, Truth, read, truth
from mmjax.datasets.recipe import Recipe
from mmjax.errors import UsageError

__all__ = ["CARD", "DIGIT", "INFORMATIVE", "RECIPE", "VOCABULARY", "Options", "Truth", "truth"]

CARD = Card(
    name="moving_digits",
    description=(
        "The 1,797 real handwritten digits of 8x8 pixels that scikit-learn carries, each moving in a straight line "
        f"over a noisy canvas of {CANVAS}x{CANVAS} pixels for 4 to 6 frames and bouncing off its edges, with a "
        "sentence of 4 to 8 words: one of them says that the digit is even or odd, or that it is small (below 5) or "
        "large; the others are drawn at random and say nothing. Given the class the two modalities are independent; "
        "the sentence alone reaches at most 20 %. Where the digit is and which word speaks is known. Split 60/20/20 "
        "by picture with a fixed seed, class by class. Chance and majority: 10 %."
    ),
    kinds={"text": "text", "video": "video"},
    num_classes=10,
    class_names=tuple("0123456789"),
    group="picture",
    noise={"text": "words left out with probability severity", "video": "pixels in [0, 1] + N(0, severity^2)"},
    licence="CC BY 4.0 (UCI); scikit-learn ships the pictures under BSD-3; the sentences are made here",
    source="E. Alpaydin, C. Kaynak, UCI Machine Learning Repository 1998; sklearn.datasets.load_digits",
    caution="Writers are not identified in this set, so the same hand may stand in several splits.",
)


@dataclasses.dataclass(frozen=True)
class Options:
    """What to make.

    Attributes:
      frames: of the longest video; the shortest has two fewer, but at least one.
      words: of the longest sentence; the shortest has half as many.
      noise: standard deviation of Gaussian noise on every pixel, before it is cut to [0, 1].
      copies: videos of each picture, with paths, noise and sentences of their own; they stay in one split.
      seed: of split, paths, noise and sentences.
    """

    frames: int = 6
    words: int = 8
    noise: float = 0.3
    copies: int = 1
    seed: int = 0

    def __post_init__(self):
        for name, lowest in (("frames", 1), ("words", 1), ("copies", 1), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < lowest:
                raise UsageError(f"moving_digits: {name} is an integer from {lowest} up, got {value!r}")
        if not self.noise >= 0:
            raise UsageError(f"moving_digits: noise is a standard deviation from 0 up, got {self.noise!r}")


def _card(options: Options) -> Card:
    changed = [
        f"{field.name} {getattr(options, field.name)}"
        for field in dataclasses.fields(options)
        if getattr(options, field.name) != field.default
    ]
    return dataclasses.replace(CARD, name=f"{CARD.name} ({', '.join(changed)})") if changed else CARD


def _builder() -> type:
    from mmjax.datasets.moving_digits.builder import Builder

    return Builder


RECIPE = Recipe(
    card=_card,
    options=Options,
    version="1.0.0",
    split_id=lambda options: f"60/20/20 by picture and class, {options.copies} of each, seed {options.seed}",
    read=read,
    builder=_builder,
    sequences=lambda options: {"text": options.words, "video": options.frames},
)
