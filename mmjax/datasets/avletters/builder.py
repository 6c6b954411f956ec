"""The TFDS builder of AVLetters."""

from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mmjax.datasets.avletters import RECIPE
from mmjax.datasets.avletters.examples import HEIGHT, WIDTH
from mmjax.datasets.builder import ExamplesBuilder, tensor

__all__ = ["Builder"]


class Builder(ExamplesBuilder, skip_registration=True):
    """One example is one clip."""

    name = "avletters"
    VERSION = tfds.core.Version(RECIPE.version)
    MANUAL_DOWNLOAD_INSTRUCTIONS = RECIPE.fetch
    recipe = RECIPE

    def example_features(self) -> dict[str, Any]:
        return {"video": tensor(None, HEIGHT, WIDTH, 1, dtype=np.uint8), "audio": tensor(None, 26)}
