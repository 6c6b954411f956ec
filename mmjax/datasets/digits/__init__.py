"""Handwritten digits of scikit-learn, upper and lower half as two modalities. Embedded: needs no files."""

import dataclasses

from mmjax.datasets.base import Card
from mmjax.datasets.digits.examples import read
from mmjax.datasets.recipe import Recipe
from mmjax.errors import UsageError

__all__ = ["CARD", "RECIPE", "Options"]

CARD = Card(
    name="digits",
    description=(
        "1,797 real handwritten digits of 8x8 pixels, which scikit-learn carries (the test part of UCI 'Optical "
        "Recognition of Handwritten Digits'). The upper and the lower four rows are two modalities of 32 grey values "
        "in [0, 1] each, so that each half is ambiguous where the other is not. Split 60/20/20 at random with a fixed "
        "seed, class by class. Chance and majority: 10 %."
    ),
    kinds={"upper": "feature", "lower": "feature"},
    num_classes=10,
    class_names=tuple("0123456789"),
    group="example",
    noise={name: "standardised features + N(0, (2 severity)^2)" for name in ("upper", "lower")},
    licence="CC BY 4.0 (UCI); scikit-learn ships it under BSD-3",
    source="E. Alpaydin, C. Kaynak, UCI Machine Learning Repository 1998; sklearn.datasets.load_digits",
    caution="Writers are not identified in this set, so the same hand may stand in several splits.",
)


@dataclasses.dataclass(frozen=True)
class Options:
    """``seed`` of the split; the tables use 0."""

    seed: int = 0

    def __post_init__(self):
        if not isinstance(self.seed, int) or self.seed < 0:
            raise UsageError(f"digits: seed is an integer from 0 up, got {self.seed!r}")


def _builder() -> type:
    from mmjax.datasets.digits.builder import Builder

    return Builder


RECIPE = Recipe(
    card=lambda options: CARD,
    options=Options,
    version="1.0.0",
    split_id=lambda options: f"60/20/20 by class, seed {options.seed}",
    read=read,
    builder=_builder,
)
