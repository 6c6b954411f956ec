"""The TFDS builder of pairs of a spoken digit and an image."""

from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mmjax.datasets.builder import ExamplesBuilder, tensor
from mmjax.datasets.fsdd_digits import RECIPE

__all__ = ["Builder"]


class Builder(ExamplesBuilder, skip_registration=True):
    """One example is one recording (16-bit samples of 8 kHz) and one image."""

    name = "fsdd_digits"
    VERSION = tfds.core.Version(RECIPE.version)
    MANUAL_DOWNLOAD_INSTRUCTIONS = RECIPE.fetch
    recipe = RECIPE

    def example_features(self) -> dict[str, Any]:
        return {"image": tensor(28, 28, 1), "audio": tensor(None, dtype=np.int16)}
