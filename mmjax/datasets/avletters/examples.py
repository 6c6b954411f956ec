"""The examples of AVLetters out of one file per repetition."""

import pathlib
from typing import Any

import numpy as np

from mmjax.datasets.base import SPLITS
from mmjax.datasets.recipe import Columns

__all__ = ["HEIGHT", "WIDTH", "read"]

HEIGHT, WIDTH = 30, 40
SPEAKERS = (range(0, 6), range(6, 8), range(8, 10))


def read(options: Any, folder: pathlib.Path) -> Columns:
    """Clips as sequences: video ``[frames, 30, 40, 1]`` of bytes, audio ``[frames, 26]``; the group is the speaker."""
    clips: dict[str, list] = {name: [] for name in ("video", "audio", "label", "speaker", "repetition")}
    for repetition in (1, 2, 3):
        with np.load(folder / "avletters" / f"avletters_rep{repetition}.npz") as file:
            arrays = {key: file[key] for key in file.files}
        clips["video"] += np.split(arrays["video"][..., None], arrays["video_offset"][1:-1])
        clips["audio"] += np.split(arrays["audio"], arrays["audio_offset"][1:-1])
        for name in ("label", "speaker", "repetition"):
            clips[name] += arrays[name].astype(np.int32).tolist()
    columns = {}
    for code, split in enumerate(SPLITS):
        if options.split == "published":
            rows = [i for i, repetition in enumerate(clips["repetition"]) if repetition == code + 1]
        else:
            rows = [i for i, speaker in enumerate(clips["speaker"]) if speaker in SPEAKERS[code]]
        columns[split] = {
            "video": [clips["video"][i] for i in rows],
            "audio": [clips["audio"][i] for i in rows],
            "target": [clips["label"][i] for i in rows],
            "group": [clips["speaker"][i] for i in rows],
        }
    return columns
