"""DAQUAR: questions about photographs of rooms (Malinowski & Fritz 2014), full and reduced.

One example is one photograph with all its questions: the question is a nested text ``[questions, words]``, and target,
index and group have an entry for each. The list of answers is closed: an answer is a whole string ("book, scissor" is
one), and those that the official train part gives at least ``min_count`` times are classes. All others are the last
class, ``(not in the list)``, which no model may give (``mmjax.heads.ClosedListHead``): they count as wrong.
"""

import dataclasses

from mmjax.datasets.base import Card
from mmjax.datasets.daquar.examples import UNLISTED, classes, make_streams, read
from mmjax.datasets.recipe import AT_READING, Recipe
from mmjax.errors import UsageError

__all__ = ["RECIPE", "UNLISTED", "Options", "card"]


@dataclasses.dataclass(frozen=True)
class Options:
    """``reduced``: the questions about 37 kinds of objects, 297 of them for test; ``seed``: of the validation
    photographs. For reading, so that none prepares the files anew: ``min_count``, how often an answer stands in the
    official train part to be on the list (3 as in the closed form that is compared with: 263 answers, which hold 84.1 %
    of the test answers; 1: 968 and 90.3 %); ``max_words`` of a question, longer ones are cut.
    """

    reduced: bool = False
    seed: int = 0
    min_count: int = dataclasses.field(default=3, metadata=AT_READING)
    max_words: int = dataclasses.field(default=30, metadata=AT_READING)

    def __post_init__(self):
        for name, least in (("seed", 0), ("min_count", 1), ("max_words", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"daquar: {name} is {least} or more, got {getattr(self, name)}")


def card(options: Options) -> Card:
    """The card; which classes there are follows from the answers of train."""
    sizes = (
        ("3,876 / 297", "781 / 25", "7.7", "15.2") if options.reduced else ("6,795 / 5,673", "794 / 653", "5.0", "9.6")
    )
    questions, photographs, majority, prior = sizes
    return Card(
        name="daquar_reduced" if options.reduced else "daquar",
        description=(
            f"{questions} questions about {photographs} photographs of rooms (NYU-Depth V2), 224x168 pixels; official "
            "split, one sixth of the train photographs, drawn by a seed, are validation. Exact match of the whole "
            f"answer string; answers given fewer than {options.min_count} times in the official train part are not on "
            f"the list and count as wrong. Always '2': {majority} %; most frequent answer by first two words: {prior}."
        ),
        kinds={"image": "image", "question": "text"},
        num_classes=None,  # those of the list, once it is read
        group="photograph",
        noise={"image": "pixels in [0, 1] + N(0, severity^2)", "question": "share of words deleted, 0 to 1"},
        licence="none stated; distributed for research. Local benchmark: show no photograph in public",
        source=(
            "photographs: github.com/tezansahu/VQA-With-Multimodal-Transformers, commit e737e61; questions: "
            "github.com/mateuszmalinowski/visual_turing_test-tutorial, commit 69aace8 (full), github.com/jayantk/lsp, "
            "commit 5eb2e41 (reduced). Malinowski & Fritz, NIPS 2014"
        ),
        closed=True,
        caution="Photographs have half the side of the originals; published rows saw those.",
    )


def _builder() -> type:
    from mmjax.datasets.daquar.builder import Builder

    return Builder


def _files(options: Options) -> dict[str, str]:
    questions = {
        "daquar/qa.894.raw.test.format_triple": "37c13d5619b082c3803ca02ff4f148d20fa08eaf1358cefa35c5efa1f7756230",
        "daquar/qa.894.raw.train.format_triple": "a34688ec55e9301473c7ad1e40fc815c0cd1ba9111d2957adab0a3ff3b79d863",
    }
    reduced = {
        "daquar/qa.37.raw.reduced.test.txt": "631be2d1be007af6dac9619ace0bdde1ba0c447f6ce4f9e459eaa71c00de1235",
        "daquar/qa.37.raw.train.txt": "111a83d1cfd8d530682337ccb5fbfb9528bec999c05b4c1e5c50e9cc7d12d765",
    }
    photographs = "0d83968596134b929cf330f7e95fee251de71e06d3a58e01eb5b5fbae67f08a2"
    return {**(reduced if options.reduced else questions), "daquar/images_224x168_q85.tar": photographs}


RECIPE = Recipe(
    card=card,
    options=Options,
    version="1.0.0",
    split_id=lambda options: (
        f"official{' reduced' if options.reduced else ''}, validation a sixth of the train photographs by seed "
        f"{options.seed}, answers seen {options.min_count} times or more"
    ),
    read=read,
    builder=_builder,
    files=_files,
    fetch=(
        "Put the photographs (a folder images), qa.894.raw.train.format_triple, qa.894.raw.test.format_triple, "
        "qa.37.raw.train.txt and qa.37.raw.reduced.test.txt (see the card for where they are) into one folder and run "
        "'python -m mmjax.datasets.daquar.convert FOLDER DIR/daquar'."
    ),
    class_names=classes,
    at_reading=make_streams,
)
