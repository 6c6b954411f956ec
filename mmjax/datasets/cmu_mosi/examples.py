"""The examples of CMU-MOSI out of ``mosi_utterance.npz``."""

import pathlib
from typing import Any

import numpy as np

from mmjax.datasets.recipe import Columns
from mmjax.errors import UsageError

__all__ = ["VALIDATION_VIDEOS", "read"]

VALIDATION_VIDEOS = 12


def read(options: Any, folder: pathlib.Path) -> Columns:
    """Utterances in the order of their videos; one fixed draw of the training videos is the validation part."""
    with np.load(folder / "cmu_mosi" / "mosi_utterance.npz") as file:
        arrays = {key: file[key] for key in file.files}
    if options.target not in arrays:
        raise UsageError(f"cmu_mosi: these source files carry no {options.target!r} (the converter has no scores)")
    order = np.lexsort((arrays["segment"], arrays["video_index"]))
    video, test = arrays["video_index"][order], arrays["split_bclstm"][order] == 1
    training = np.unique(video[~test])
    held_out = training[np.random.RandomState(0).permutation(len(training))[:VALIDATION_VIDEOS]]
    validation = np.isin(video, held_out)
    parts = {"train": ~test & ~validation, "validation": validation, "test": test}
    return {
        split: {
            **{name: arrays[name][order][chosen] for name in ("text", "audio", "video")},
            "target": arrays[options.target][order][chosen],
            "group": video[chosen].astype(np.int32),
        }
        for split, chosen in parts.items()
    }
