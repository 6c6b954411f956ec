"""Tiny files in the form of the public originals, with made-up content, for the converters and the builders."""

import csv
import pathlib

import numpy as np

VIDEOS = [f"video_{i:02d}" for i in range(20)]  # an underscore in the name, as in some real ones


def cmu_mosi(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """``bc-LSTM/data``: 20 videos of 11 utterances, 14 for training; returns the rows by (video, segment)."""
    random = np.random.RandomState(0)
    ids = sorted(f"{video}_{segment}" for video in VIDEOS for segment in range(1, 12))  # _10 sorts before _2
    widths = {"text": 100, "audio": 73, "video": 100}
    arrays = {name: np.round(random.standard_normal((len(ids), w)), 4) for name, w in widths.items()}
    label = random.randint(0, 2, len(ids))
    folder.mkdir(parents=True)

    def write(path: pathlib.Path, rows: list) -> None:
        path.parent.mkdir(exist_ok=True)
        with path.open("w", newline="") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows(rows)

    write(folder / "transcripts.csv", [[name, "SO, WELL", "93", y] for name, y in zip(ids, label)])
    training = np.asarray([VIDEOS.index(name.rsplit("_", 1)[0]) < 14 for name in ids])
    for part, chosen in (("train", training), ("test", ~training)):
        lines = random.permutation(np.flatnonzero(chosen))  # the files are not in the order of the transcripts
        write(folder / f"text_{part}.csv", [[i, *arrays["text"][i]] for i in lines])
        for name, values in arrays.items():
            write(folder / name / f"{name}_{part}0.csv", [[*values[i], label[i]] for i in lines])
    order = np.lexsort(([int(i.rsplit("_", 1)[1]) for i in ids], [i.rsplit("_", 1)[0] for i in ids]))
    return {name: values[order].astype(np.float32) for name, values in arrays.items()} | {
        "label": label[order],
        "number": np.repeat(np.arange(20), 11),
    }
