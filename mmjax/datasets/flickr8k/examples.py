"""The examples of Flickr8k out of tars and captions, and what is made of them when they are read."""

import io
import pathlib
import tarfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.data import Example
from mmjax.datasets.base import SPLITS
from mmjax.datasets.raw.words import encode, encode_padded, stored_texts, tokenizer_of
from mmjax.datasets.recipe import Columns
from mmjax.errors import UsageError
from mmjax.extras import extra
from mmjax.hypotheses import encode_texts
from mmjax.stream import Stream

__all__ = [
    "CAPTIONS",
    "SIZE",
    "captions_of",
    "decode",
    "example_of",
    "items_of",
    "make_streams",
    "read",
    "read_captions",
]

CAPTIONS, SIZE = 5, 128
PARTS = {"train": "train", "validation": "dev", "test": "test"}


def read_captions(path: pathlib.Path) -> dict[str, list[str]]:
    """The captions of each photograph in their order: lines ``NAME.jpg#0<tab>caption``."""
    captions: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        key, _, caption = line.partition("\t")
        name, _, number = key.rpartition("#")
        there = captions.setdefault(name, [])
        if not caption.strip() or number != str(len(there)):
            raise UsageError(f"{path}: caption {key!r} of a photograph with {len(there)} before it: {line!r}")
        there.append(caption.strip())
    return captions


def read(options: Any, folder: pathlib.Path) -> Columns:
    """Photographs of the official splits in the order of their lists: bytes of the JPEG files, captions as text."""
    folder = folder / "flickr8k"
    captions, columns, first = read_captions(folder / "Flickr8k.token.txt"), {}, 0
    for split in SPLITS:
        names = (folder / f"Flickr_8k.{PARTS[split]}Images.txt").read_text().split()
        with tarfile.open(folder / f"images_{PARTS[split]}_128.tar") as file:
            files = {one.name: file.extractfile(one).read() for one in file if one.isfile()}  # type: ignore[union-attr]
        if lacking := [name for name in names if name not in files or len(captions.get(name, ())) != CAPTIONS]:
            raise UsageError(f"flickr8k: {split}: {lacking[0]} has no photograph or not {CAPTIONS} captions")
        number = np.arange(first, first + len(names), dtype=np.int32)
        first += len(names)
        columns[split] = {
            "image": [np.frombuffer(files[name], np.uint8) for name in names],
            "text": [captions[name] for name in names],
            "target": number,
            "group": number,
        }
    return columns


def decode(image: np.ndarray, size: int = SIZE) -> np.ndarray:
    """The pixels ``[size, size, 3]`` of the bytes of a JPEG file; a smaller size is the mean of its pixels' areas."""
    with extra():
        from PIL import Image

    picture = Image.open(io.BytesIO(image.tobytes())).convert("RGB")
    if picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling.BOX)
    return np.asarray(picture, np.uint8)


def make_streams(options: Any, columns: Columns) -> tuple[Columns, dict[str, Any]]:
    """Photographs as pixels ``[n, 1, 128, 128, 3]``, captions as ids and mask ``[n, 5, max_words]`` or the target."""
    texts = {split: [stored_texts(row) for row in columns[split]["text"]] for split in SPLITS}
    train = [caption for row in texts["train"] for caption in row]
    most = max(options.max_words, 2)
    tokenizer, marks = tokenizer_of(options.tokenizer, train, size=options.vocabulary, max_words=most)
    made = {}
    for split in SPLITS:
        rows = columns[split]
        pixels = np.stack([decode(image) for image in rows["image"]])[:, None]
        streams = {"image": Stream(pixels, np.ones(pixels.shape[:2], bool))}
        if options.captions:
            made[split] = {**rows, **streams, "target": captions_of(tokenizer, texts[split], options.max_words)}
        else:
            made[split] = {
                **rows,
                **streams,
                "text": encode_padded(tokenizer, texts[split], options.max_words, marks=marks),
            }
    return made, {"text": tokenizer}


def captions_of(tokenizer: Any, texts: Sequence[Sequence[str]], max_words: int) -> dict[str, Stream]:
    """What is to be said of each photograph.

    Returns:
      ``tokens``: ids ``[n, captions, max_words + 1]``, each caption with an end, whose id is the size of the
      vocabulary; ``text``: the captions as they are, see ``mmjax.hypotheses.encode_texts``.
    """
    words = encode_padded(tokenizer, texts, max_words)
    values, mask = (np.pad(x, ((0, 0), (0, 0), (0, 1))) for x in (words.values, words.mask))
    length = words.mask.sum(-1, keepdims=True)
    there = np.asarray([[place < len(row) for place in range(mask.shape[1])] for row in texts])[..., None]
    np.put_along_axis(values, length, np.where(there, tokenizer.get_vocab_size(), 0).astype(np.int32), axis=-1)
    np.put_along_axis(mask, length, there, axis=-1)
    return {"tokens": Stream(values, mask), "text": encode_texts(texts)}


def items_of(size: int = SIZE, max_words: int = 32) -> dict[str, tuple[Any, tuple[int, ...], Any]]:
    """What ``mmjax.data.Records`` needs to know of the streams."""
    return {"image": (1, (size, size, 3), np.uint8), "text": ((CAPTIONS, max_words), (), np.int32)}


def example_of(tokenizer: Any, size: int = SIZE) -> Callable[[Mapping[str, Any], Any], Example]:
    """``to_example`` of ``mmjax.data.Records``: decodes the photograph and numbers the words when a batch needs them.

    Args:
      tokenizer: e.g. ``load("flickr8k").tokenizers["text"]``.

    Example::

        source = mmjax.datasets.source("flickr8k", "train")
        records = Records(source, flickr8k.example_of(tokenizer), flickr8k.items_of())
    """

    def to_example(record: Mapping[str, Any], generator: Any) -> Example:
        ids, _ = encode(tokenizer, stored_texts(record["text"]), length=10_000)
        text = [np.zeros(0, np.int32) if sentence is None else sentence for sentence in ids]
        image = decode(record["image"], size)[None]
        return Example({"image": image, "text": text}, record["target"], int(record["group"]))

    return to_example
