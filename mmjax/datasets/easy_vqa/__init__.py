"""easy-VQA: questions about drawings of one coloured shape (Zhou 2019).

One example is one picture with all its questions: the question is a nested text ``[questions, words]``, and target,
index and group have an entry for each. So a picture is encoded once, is the unit of the split and of the bootstrap, and
no question about a picture of train stands in validation.
"""

import dataclasses

from mmjax.datasets.base import Card
from mmjax.datasets.easy_vqa.examples import ANSWERS, VALIDATION, make_streams, read
from mmjax.datasets.recipe import AT_READING, Recipe
from mmjax.errors import UsageError

__all__ = ["CARD", "RECIPE", "Options"]

CARD = Card(
    name="easy_vqa",
    description=(
        "48,248 questions about 5,000 drawings, 64x64 pixels, of a circle, rectangle or triangle in one of 8 colours: "
        "which shape, which colour, and whether the picture has or has not a shape or colour. 13 answers. Official "
        f"split 4,000 / 1,000 pictures; {VALIDATION} of train, drawn by a seed, are validation. Majority (yes) 37.3 %, "
        "the most frequent answer of each of the 107 questions 67.0 %: what passes this looks at the picture."
    ),
    kinds={"image": "image", "question": "text"},
    num_classes=len(ANSWERS),
    class_names=ANSWERS,
    group="picture",
    noise={"image": "pixels in [0, 1] + N(0, severity^2)", "question": "share of words deleted, 0 to 1"},
    licence="MIT",
    source="github.com/vzhou842/easy-VQA, commit 3b553bb, easy_vqa/data",
)


@dataclasses.dataclass(frozen=True)
class Options:
    """``seed``: of the validation pictures; ``max_words``: of a question, longer ones are cut (none has more than 10
    with its mark); it is for reading and prepares nothing anew.
    """

    seed: int = 0
    max_words: int = dataclasses.field(default=10, metadata=AT_READING)

    def __post_init__(self):
        if self.seed < 0 or self.max_words < 1:
            raise UsageError(f"easy_vqa: seed is 0 or more and max_words 1 or more, got {self.seed}, {self.max_words}")


def _builder() -> type:
    from mmjax.datasets.easy_vqa.builder import Builder

    return Builder


RECIPE = Recipe(
    card=lambda options: CARD,
    options=Options,
    version="1.0.0",
    split_id=lambda options: f"official 4000/1000, validation {VALIDATION} train pictures by seed {options.seed}",
    read=read,
    builder=_builder,
    files=lambda options: {
        "easy_vqa/images_test.tar": "b0e9bfcab6fb67d5cf0277bdca1dac8997cc14cb41afd74187f25240a14910f9",
        "easy_vqa/images_train.tar": "183b0adcc4a990aae910983ca7ab54d501a355f91ad2622c140207f3a84c1ba3",
        "easy_vqa/questions_test.json": "0d4630a51bafec65343e2f6af9cdd20cf8eae214344ef57636202eec409553f7",
        "easy_vqa/questions_train.json": "bb67697636aed0e65631d4266824aebeae5c833b0f37ed781e20752e85617ec5",
    },
    fetch=(
        "Clone github.com/vzhou842/easy-VQA (commit 3b553bb) and run "
        "'python -m mmjax.datasets.easy_vqa.convert easy-VQA/easy_vqa/data DIR/easy_vqa'."
    ),
    at_reading=make_streams,
)
