"""The examples of UCI multiple features out of ``mfeat.npz``."""

import pathlib
from typing import Any

import numpy as np

from mmjax.datasets.base import SPLITS
from mmjax.datasets.recipe import Columns

__all__ = ["WIDTHS", "read"]

WIDTHS = {"fou": 76, "fac": 216, "kar": 64, "pix": 240, "zer": 47, "mor": 6}


def read(options: Any, folder: pathlib.Path) -> Columns:
    """The digits by the split that stands in the file; every digit is a group of its own."""
    with np.load(folder / "uci_mfeat" / "mfeat.npz") as file:
        arrays = {key: file[key] for key in file.files}
    number = np.arange(len(arrays["label"]), dtype=np.int32)
    columns = {}
    for code, split in enumerate(SPLITS):
        chosen = arrays["split"] == code
        columns[split] = {name: arrays[name][chosen] for name in WIDTHS}
        columns[split] |= {"target": arrays["label"][chosen].astype(np.int32), "group": number[chosen]}
    return columns
