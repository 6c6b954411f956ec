"""CMU-MOSI out of the files of its publication, in the form that the builder reads.

python -m mmjax.datasets.cmu_mosi.convert BC_LSTM_DATA OUT

``BC_LSTM_DATA`` is the folder ``bc-LSTM/data`` of github.com/declare-lab/multimodal-deep-learning, commit 111b401. The
continuous scores are in another publication and are not converted, so only ``target="label"`` works. Run on the files
of that commit, it gave arrays equal to those that the builder's checksum was taken of.
"""

import csv
import pathlib
import sys

import numpy as np

from mmjax.datasets.converting import command, save
from mmjax.errors import UsageError

__all__ = ["convert"]

MODALITIES = ("text", "audio", "video")


def _table(path: pathlib.Path) -> list[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"cannot read {path}: {error}") from None


def convert(original: pathlib.Path, out: pathlib.Path) -> list[pathlib.Path]:
    """Writes ``mosi_utterance.npz``.

    Raises:
      UsageError: a file that is missing, or rows or labels that do not match between the files.
    """
    ids = [row[0] for row in _table(original / "transcripts.csv")]
    rows: dict[str, list[np.ndarray]] = {name: [] for name in (*MODALITIES, "label", "number", "split_bclstm")}
    for code, part in enumerate(("train", "test")):
        # the first column of this file says which line of the transcripts each row of the feature files is
        number = np.asarray([int(row[0]) for row in _table(original / f"text_{part}.csv")])
        rows["number"].append(number)
        rows["split_bclstm"].append(np.full(len(number), code, np.uint8))
        labels = []
        for name in MODALITIES:
            path = original / name / f"{name}_{part}0.csv"
            table = np.asarray(_table(path), np.float64)
            if len(table) != len(number):
                raise UsageError(f"{path} has {len(table)} rows, text_{part}.csv has {len(number)}")
            rows[name].append(table[:, :-1].astype(np.float32))
            labels.append(table[:, -1].astype(np.uint8))
        if any((label != labels[0]).any() for label in labels):
            raise UsageError(f"the labels of the {part} part differ between the modalities in {original}")
        rows["label"].append(labels[0])
    arrays = {name: np.concatenate(parts) for name, parts in rows.items()}
    number = arrays.pop("number")
    if sorted(number.tolist()) != list(range(len(ids))):
        raise UsageError(f"text_train.csv and text_test.csv do not name each line of {original}/transcripts.csv once")
    parted = [ids[i].rsplit("_", 1) for i in number]
    video_name, video_index = np.unique([video for video, _ in parted], return_inverse=True)
    arrays["video_index"] = video_index.reshape(-1).astype(np.int16)
    arrays["segment"] = np.asarray([int(segment) for _, segment in parted], np.int16)
    order = np.lexsort((arrays["segment"], arrays["video_index"]))
    return save(out, {"mosi_utterance.npz": {"video_name": video_name} | {k: v[order] for k, v in arrays.items()}})


if __name__ == "__main__":
    sys.exit(command("mmjax.datasets.cmu_mosi.convert", "BC_LSTM_DATA", convert, sys.argv[1:]))
