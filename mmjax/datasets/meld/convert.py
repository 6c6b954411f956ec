"""MELD out of the tables of its publication, in the form that the builder reads.

python -m mmjax.datasets.meld.convert FOLDER OUT

``FOLDER`` is ``data/MELD`` of github.com/declare-lab/MELD, commit 2d2011b: ``{train,dev,test}_sent_emo.csv``. It was
run on a fixture of that form; of the tables themselves the converted ones were at hand.
"""

import csv
import gzip
import json
import pathlib
import sys
from typing import Any

from mmjax.datasets.converting import command
from mmjax.datasets.meld.examples import EMOTIONS, FILES, SENTIMENTS
from mmjax.datasets.sources import write_manifest
from mmjax.errors import UsageError

__all__ = ["convert"]

PARTS = {"train": "train", "validation": "dev", "test": "test"}
COLUMNS = (
    "Utterance",
    "Speaker",
    "Emotion",
    "Sentiment",
    "Dialogue_ID",
    "Utterance_ID",
    "Season",
    "Episode",
    "StartTime",
    "EndTime",
)


def convert(original: pathlib.Path, out: pathlib.Path) -> list[pathlib.Path]:
    """Writes a compressed file of JSON lines for each split, an utterance a line, in the order of the table.

    Raises:
      UsageError: a table that is missing or of another form, or a label that is none.
    """
    out.mkdir(parents=True, exist_ok=True)
    for split, name in FILES.items():
        path = original / f"{PARTS[split]}_sent_emo.csv"
        try:
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise UsageError(f"cannot read {path}: {error}") from None
        lines = [json.dumps(_utterance(path, number, row), ensure_ascii=False) for number, row in enumerate(rows)]
        content = "".join(line + "\n" for line in lines).encode()
        (out / name).write_bytes(gzip.compress(content, mtime=0))  # no time: the same bytes again
    write_manifest(out, list(FILES.values()))
    return [out / name for name in FILES.values()]


def _utterance(path: pathlib.Path, number: int, row: dict[str, Any]) -> dict[str, Any]:
    """One line; apostrophes of the C1 set are plain ones."""
    where = f"{path}: utterance {number}"
    if lacking := [name for name in COLUMNS if row.get(name) is None]:
        raise UsageError(f"{where} has no {lacking[0]}; the columns are {', '.join(COLUMNS)}")
    for name, known in (("Emotion", EMOTIONS), ("Sentiment", SENTIMENTS)):
        if row[name] not in known:
            raise UsageError(f"{where}: {name} {row[name]!r} is none of {', '.join(known)}")
    try:
        numbers = {name: int(row[name]) for name in ("Dialogue_ID", "Utterance_ID", "Season", "Episode")}
        times = {name: _seconds(row[name]) for name in ("StartTime", "EndTime")}
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from None
    return {
        "dialogue": numbers["Dialogue_ID"],
        "utterance": numbers["Utterance_ID"],
        "speaker": row["Speaker"].replace("\x92", "’"),
        "text": row["Utterance"].replace("\x92", "’"),
        "emotion": row["Emotion"],
        "sentiment": row["Sentiment"],
        "season": numbers["Season"],
        "episode": numbers["Episode"],
        "start": times["StartTime"],
        "end": times["EndTime"],
    }


def _seconds(time: str) -> float:
    """``00:16:16,059`` as 976.059."""
    hours, minutes, seconds = time.replace(",", ".").split(":")
    return round(3600 * int(hours) + 60 * int(minutes) + float(seconds), 3)


if __name__ == "__main__":
    sys.exit(command("mmjax.datasets.meld.convert", "FOLDER", convert, sys.argv[1:]))
