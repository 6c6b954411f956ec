"""The TFDS builder of CMU-MOSI."""

from typing import Any

import tensorflow_datasets as tfds

from mmjax.datasets.builder import ExamplesBuilder, tensor
from mmjax.datasets.cmu_mosi import RECIPE

__all__ = ["Builder"]


class Builder(ExamplesBuilder, skip_registration=True):
    """One example is one utterance."""

    name = "cmu_mosi"
    VERSION = tfds.core.Version(RECIPE.version)
    MANUAL_DOWNLOAD_INSTRUCTIONS = RECIPE.fetch
    recipe = RECIPE

    def example_features(self) -> dict[str, Any]:
        return {"text": tensor(100), "audio": tensor(73), "video": tensor(100)}
