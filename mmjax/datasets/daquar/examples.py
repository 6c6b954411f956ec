"""The examples of DAQUAR out of a tar of photographs and files of questions, and what is made of them when read."""

import collections
import pathlib
import re
import tarfile
from typing import Any

import numpy as np

from mmjax.datasets.base import SPLITS
from mmjax.datasets.questions import pack_questions
from mmjax.datasets.raw.words import stored_texts
from mmjax.datasets.recipe import Columns
from mmjax.errors import UsageError

__all__ = ["UNLISTED", "classes", "make_streams", "questions_file", "read", "read_questions"]

UNLISTED = "(not in the list)"
IMAGES = "images_224x168_q85.tar"
NUMBER = re.compile(r"\bimage(\d+)\b")


def questions_file(part: str, reduced: bool) -> str:
    """The name of the file of a part, ``train`` or ``test``."""
    if reduced:
        return "qa.37.raw.train.txt" if part == "train" else "qa.37.raw.reduced.test.txt"
    return f"qa.894.raw.{part}.format_triple"


def read_questions(path: pathlib.Path, reduced: bool) -> dict[int, tuple[list[str], list[str]]]:
    """Questions and answers by the number of the photograph: three lines each (question, answer, ``image3``), of the
    reduced set two, where the question names it: "in the image3" at its end is left out, any other number is.
    """
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    size = 2 if reduced else 3
    by_photograph: dict[int, tuple[list[str], list[str]]] = {}
    for start in range(0, len(lines), size):
        question, *rest = lines[start : start + size]
        named = NUMBER.findall(question if reduced else (rest or [""])[-1])
        if len(rest) != size - 1 or not named:
            raise UsageError(f"{path}: line {start + 1} begins no question about a photograph: {question!r}")
        questions, answers = by_photograph.setdefault(int(named[-1]), ([], []))
        questions.append(NUMBER.sub("image", re.sub(r"\s+in the image\d+\s*\?$", " ?", question)))
        answers.append(rest[0])
    return by_photograph


def read(options: Any, folder: pathlib.Path) -> Columns:
    """Photographs in the order of their numbers, which are their groups: bytes of the JPEG files, questions and answers
    as text.
    """
    folder = folder / "daquar"
    with tarfile.open(folder / IMAGES) as file:
        members = (one for one in file if one.isfile())
        files = {one.name.rpartition("/")[2]: file.extractfile(one).read() for one in members}  # type: ignore[union-attr]
    parts = {}
    for part in ("train", "test"):
        questions = read_questions(folder / questions_file(part, options.reduced), options.reduced)
        if lacking := sorted(number for number in questions if f"image{number}.jpg" not in files):
            raise UsageError(f"daquar: {part}: there is no image{lacking[0]}.jpg, of which there are questions")
        parts[part] = {
            number: {
                "image": np.frombuffer(files[f"image{number}.jpg"], np.uint8),
                "question": questions[number][0],
                "answer": questions[number][1],
                "target": np.int32(number),
                "group": np.int32(number),
            }
            for number in sorted(questions)
        }
    numbers = np.asarray(list(parts["train"]))
    held = set(np.random.RandomState(options.seed).permutation(numbers)[: max(len(numbers) // 6, 1)].tolist())
    rows = {
        "train": [row for number, row in parts["train"].items() if number not in held],
        "validation": [row for number, row in parts["train"].items() if number in held],
        "test": list(parts["test"].values()),
    }
    return {split: {name: [row[name] for row in rows[split]] for name in rows[split][0]} for split in SPLITS}


def classes(options: Any, columns: Columns) -> tuple[str, ...]:
    """The answers of train and validation, the official train part, that stand there often enough, the most frequent
    first; then what stands for all others.
    """
    counts = collections.Counter(
        answer for split in ("train", "validation") for row in columns[split]["answer"] for answer in stored_texts(row)
    )
    listed = sorted((answer for answer, n in counts.items() if n >= options.min_count), key=lambda a: (-counts[a], a))
    if not listed:
        raise UsageError(f"daquar: no answer stands {options.min_count} times in train: min_count must be smaller")
    return (*listed, UNLISTED)


def make_streams(options: Any, columns: Columns) -> tuple[Columns, dict[str, Any]]:
    """Pixels ``[n, 1, 168, 224, 3]``, questions ``[n, most questions, max_words]``, a class for each question."""
    names = classes(options, columns)
    number = {answer: place for place, answer in enumerate(names)}
    answers = {
        split: [
            np.asarray([number.get(a, len(names) - 1) for a in stored_texts(row)]) for row in columns[split]["answer"]
        ]
        for split in SPLITS
    }
    return pack_questions(columns, answers, options.max_words)
