"""The examples of easy-VQA out of tars and lists of questions, and what is made of them when they are read."""

import json
import pathlib
import tarfile
from typing import Any

import numpy as np

from mmjax.datasets.questions import pack_questions
from mmjax.datasets.recipe import Columns
from mmjax.errors import UsageError

__all__ = ["ANSWERS", "VALIDATION", "make_streams", "read", "read_questions"]

ANSWERS = ("circle", "green", "red", "gray", "yes", "teal", "black", "rectangle", "yellow", "triangle", "brown",
           "blue", "no")  # fmt: skip
VALIDATION = 400  # pictures; fewer where train has fewer than twice as many


def read_questions(path: pathlib.Path) -> dict[int, tuple[list[str], list[int]]]:
    """Questions and the numbers of their answers by picture, in the order of the file: lists of ``[question, answer,
    picture]``.
    """
    by_picture: dict[int, tuple[list[str], list[int]]] = {}
    for question, answer, picture in json.loads(path.read_text(encoding="utf-8")):
        if answer not in ANSWERS or not question.strip():
            raise UsageError(
                f"{path}: {question!r} of picture {picture} is answered by {answer!r}, which is none of 13"
            )
        questions, answers = by_picture.setdefault(int(picture), ([], []))
        questions.append(question.strip())
        answers.append(ANSWERS.index(answer))
    return by_picture


def read(options: Any, folder: pathlib.Path) -> Columns:
    """Pictures in the order of their numbers: bytes of the PNG files, questions as text, numbers of the answers. The
    group is the number of the picture, those of test after those of train.
    """
    folder = folder / "easy_vqa"
    parts: Columns = {}
    first = 0
    for part in ("train", "test"):
        questions = read_questions(folder / f"questions_{part}.json")
        with tarfile.open(folder / f"images_{part}.tar") as file:
            members = (one for one in file if one.isfile() and one.name.endswith(".png"))
            files = {int(pathlib.PurePath(one.name).stem): file.extractfile(one).read() for one in members}  # type: ignore[union-attr]
        if lacking := sorted(set(questions) - set(files)):
            raise UsageError(f"easy_vqa: {part}: there is no picture {lacking[0]}, of which there are questions")
        numbers = sorted(questions)
        parts[part] = {
            "image": [np.frombuffer(files[number], np.uint8) for number in numbers],
            "question": [questions[number][0] for number in numbers],
            "target": [np.asarray(questions[number][1], np.int32) for number in numbers],
            "group": first + np.arange(len(numbers), dtype=np.int32),
        }
        first += len(numbers)
    count = len(parts["train"]["group"])
    held = np.zeros(count, bool)
    held[np.random.RandomState(options.seed).permutation(count)[: min(VALIDATION, count // 2)]] = True
    columns: Columns = {"test": parts["test"]}
    for split, chosen in (("train", ~held), ("validation", held)):
        columns[split] = {name: [rows[i] for i in np.flatnonzero(chosen)] for name, rows in parts["train"].items()}
    return columns


def make_streams(options: Any, columns: Columns) -> tuple[Columns, dict[str, Any]]:
    """Pixels ``[n, 1, 64, 64, 3]``, questions ``[n, most questions, max_words]``, a class for each question."""
    return pack_questions(columns, {split: rows["target"] for split, rows in columns.items()}, options.max_words)
