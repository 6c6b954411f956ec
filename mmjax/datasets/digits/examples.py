"""The examples of the embedded digits."""

import pathlib
from typing import Any

import numpy as np

from mmjax.datasets.base import SPLITS
from mmjax.datasets.recipe import Columns
from mmjax.datasets.splits import split_groups
from mmjax.extras import extra

__all__ = ["read"]


def read(options: Any, folder: pathlib.Path | None) -> Columns:
    """Halves of the images as vectors of 32 grey values in [0, 1]."""
    with extra():
        from sklearn.datasets import load_digits

    digits = load_digits()
    images, target = (digits.images / 16).astype(np.float32), digits.target.astype(np.int32)
    number = np.arange(len(target), dtype=np.int32)
    codes = split_groups(number, (0.6, 0.2, 0.2), seed=options.seed, strata=target)
    return {
        split: {
            "upper": images[codes == code, :4].reshape(-1, 32),
            "lower": images[codes == code, 4:].reshape(-1, 32),
            "target": target[codes == code],
            "group": number[codes == code],
        }
        for code, split in enumerate(SPLITS)
    }
