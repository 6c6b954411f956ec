"""The TFDS builder of the part of Multi30K with photographs."""

from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mmjax.datasets.builder import ExamplesBuilder, tensor
from mmjax.datasets.multi30k_flickr8k import RECIPE

__all__ = ["Builder"]


class Builder(ExamplesBuilder, skip_registration=True):
    """One example is a photograph, the bytes of its JPEG file, with a sentence and its translation as text."""

    name = "multi30k_flickr8k"
    VERSION = tfds.core.Version(RECIPE.version)
    MANUAL_DOWNLOAD_INSTRUCTIONS = RECIPE.fetch
    recipe = RECIPE

    def example_features(self) -> dict[str, Any]:
        names = ("text", "target", *(("merges",) if self.options.source == "bpe" else ()))
        return {"image": tensor(None, dtype=np.uint8), **{name: tfds.features.Text() for name in names}}
