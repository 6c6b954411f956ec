"""Pictures with all their questions: one example is one picture, the question a nested text ``[questions, words]``."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.datasets.base import SPLITS
from mmjax.datasets.raw.words import encode_padded, fit_tokenizer, stored_texts
from mmjax.datasets.recipe import Columns
from mmjax.extras import extra
from mmjax.stream import Stream

__all__ = ["decode_picture", "pack_questions"]


def decode_picture(content: np.ndarray) -> np.ndarray:
    """The pixels ``[height, width, 3]`` of the bytes of a picture's file."""
    with extra():
        from PIL import Image

    return np.asarray(Image.open(io.BytesIO(content.tobytes())).convert("RGB"), np.uint8)


def pack_questions(
    columns: Columns, answers: Mapping[str, Sequence[np.ndarray]], max_words: int
) -> tuple[Columns, dict[str, Any]]:
    """Pictures as pixels ``[n, 1, height, width, 3]``, questions as ids and mask ``[n, most questions, max_words]``;
    target, index and group of the shape ``[n, most questions]``, index and group -1 in padding.

    Args:
      columns: by split: ``image`` (bytes of files), ``question`` (texts), ``group`` (the number of the picture).
      answers: by split the class of each question of each picture.
      max_words: of a question; longer ones are cut.

    Returns:
      The columns, and the tokenizer of the questions by its stream; its words are those of train.
    """
    texts = {split: [stored_texts(row) for row in columns[split]["question"]] for split in SPLITS}
    tokenizer = fit_tokenizer([question for row in texts["train"] for question in row])
    most = max(len(row) for split in SPLITS for row in texts[split])
    made: Columns = {}
    for split in SPLITS:
        count, first = len(texts[split]), 0
        target, index, group = np.zeros((count, most), np.int32), *(np.full((count, most), -1, np.int32),) * 2
        index, group = index.copy(), group.copy()
        for row, (questions, answer) in enumerate(zip(texts[split], answers[split])):
            asked = len(questions)
            target[row, :asked], index[row, :asked] = answer, np.arange(first, first + asked)
            group[row, :asked] = columns[split]["group"][row]
            first += asked
        pixels = np.stack([decode_picture(image) for image in columns[split]["image"]])[:, None]
        image = Stream(pixels, np.ones(pixels.shape[:2], bool))
        question = encode_padded(tokenizer, texts[split], max_words, most=most)
        made[split] = {"image": image, "question": question, "target": target, "index": index, "group": group}
    return made, {"question": tokenizer}
