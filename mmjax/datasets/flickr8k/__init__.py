"""Flickr8k: photographs with five captions each (Hodosh, Young & Hockenmaier 2013), for retrieval and captioning.

One example is one photograph with its five captions: the text is a nested sequence ``[captions, words]``. So a
photograph is decoded and encoded once, all its positives are known where it stands, it is the unit of the split and of
the bootstrap; a captioner says five sentences about one encoded photograph, and is measured against all of them. One
pair an example would put a photograph into a batch as its own negative.
"""

import dataclasses

from mmjax.datasets.base import Card
from mmjax.datasets.flickr8k.examples import SIZE, captions_of, example_of, items_of, make_streams, read
from mmjax.datasets.recipe import AT_READING, Recipe
from mmjax.errors import UsageError

__all__ = ["CARD", "RECIPE", "Options", "captions_of", "example_of", "items_of"]

CARD = Card(
    name="flickr8k",
    description=(
        f"8,000 photographs of people and animals that do something, stretched to {SIZE}x{SIZE} pixels, with five "
        "captions each by five people. Official split 6,000 / 1,000 / 1,000 photographs. Recall at 1, 5, 10 by chance, "
        "both ways: 0.1, 0.5, 1.0 %. The target is the number of the photograph."
    ),
    kinds={"image": "image", "text": "text"},
    num_classes=None,
    primary_metric="",
    group="photograph",
    noise={"image": "pixels in [0, 1] + N(0, severity^2)", "text": "share of words deleted, 0 to 1"},
    licence="none stated; on request for research and education. Local benchmark: show no photograph in public",
    source=(
        "photographs: github.com/RlNZLER/Image-Text-Matching, commit 56a15d9, data/images (removed later); captions: "
        "github.com/CRamyasree/image_caption, commit ad6f9c0; splits: github.com/Sadika1212/Image-Caption-Generator, "
        "commit e45272a. Hodosh, Young & Hockenmaier, JAIR 47 2013"
    ),
    caution="Photographs are 128 pixels a side and stretched; published rows saw the originals.",
)


@dataclasses.dataclass(frozen=True)
class Options:
    """``max_words``: of a caption, longer ones are cut; ``tokenizer``: ``words`` or ``bpe``, fitted on the captions of
    train, or ``minilm``, the word pieces of ``mmjax.pretrained.minilm``; ``vocabulary``: ids at most; ``captions``:
    they are the target, to be said, and no stream: see ``captions_of``. All are for reading: none prepares the files
    anew.
    """

    max_words: int = dataclasses.field(default=32, metadata=AT_READING)
    tokenizer: str = dataclasses.field(default="words", metadata=AT_READING)
    vocabulary: int = dataclasses.field(default=8_000, metadata=AT_READING)
    captions: bool = dataclasses.field(default=False, metadata=AT_READING)

    def __post_init__(self):
        if self.max_words < 1:
            raise UsageError(f"flickr8k: max_words is 1 or more, got {self.max_words}")
        if self.tokenizer not in ("words", "bpe", "minilm"):
            raise UsageError(f"flickr8k: tokenizer is 'words', 'bpe' or 'minilm', got {self.tokenizer!r}")
        if self.vocabulary < 2:
            raise UsageError(f"flickr8k: vocabulary is 2 ids or more, got {self.vocabulary}")


def _builder() -> type:
    from mmjax.datasets.flickr8k.builder import Builder

    return Builder


CAPTIONS_CARD = dataclasses.replace(
    CARD,
    name="flickr8k_captions",
    description=CARD.description.replace("The target is the number of the photograph.", "The target is the captions."),
    kinds={"image": "image"},
    noise={"image": CARD.noise["image"]},
)

RECIPE = Recipe(
    card=lambda options: CAPTIONS_CARD if options.captions else CARD,
    options=Options,
    version="1.0.0",
    split_id=lambda options: "official 6000/1000/1000",
    read=read,
    builder=_builder,
    files=lambda options: {
        "flickr8k/Flickr8k.token.txt": "1e1f3a371ba1a1bf742e6930521c037e046b2bf3fcc2390ba8405e0301ed7689",
        "flickr8k/Flickr_8k.devImages.txt": "18ba829f47f6df1cb830bf7f0506e2ddf333818925299babbd1bbcaf50fdc504",
        "flickr8k/Flickr_8k.testImages.txt": "c0924146c131458ceba45da59670fe9520eadce1e5cafffa16a817672a9b1f17",
        "flickr8k/Flickr_8k.trainImages.txt": "e330ddd5156a4c2d2e2b67bc587e70e588f2d132bd8a10dc54dcb71e58115d8e",
        "flickr8k/images_dev_128.tar": "ac7ad6cfd90f576fd1bb6415bc667b2a157817e6191faf00b06bbab749eea229",
        "flickr8k/images_test_128.tar": "6746d997783e88138099aa05b40c588778e40142d4e98a7ac9d5a24ad391e421",
        "flickr8k/images_train_128.tar": "d00e68104e004e1e521da764864f2bd026f8fa0c4f3fd1e8a62c517929024797",
    },
    fetch=(
        "Put the photographs (a folder images) and Flickr8k.token.txt, Flickr_8k.trainImages.txt, "
        "Flickr_8k.devImages.txt, Flickr_8k.testImages.txt (see the card for where they are) into one folder and run "
        "'python -m mmjax.datasets.flickr8k.convert FOLDER DIR/flickr8k'."
    ),
    at_reading=make_streams,
)
