"""The TFDS builder of Flickr8k."""

from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mmjax.datasets.builder import ExamplesBuilder, tensor
from mmjax.datasets.flickr8k import RECIPE
from mmjax.datasets.flickr8k.examples import CAPTIONS

__all__ = ["Builder"]


class Builder(ExamplesBuilder, skip_registration=True):
    """One example is one photograph, the bytes of its JPEG file, with its captions as text."""

    name = "flickr8k"
    VERSION = tfds.core.Version(RECIPE.version)
    MANUAL_DOWNLOAD_INSTRUCTIONS = RECIPE.fetch
    recipe = RECIPE

    def example_features(self) -> dict[str, Any]:
        text = tfds.features.Sequence(tfds.features.Text(), length=CAPTIONS)
        return {"image": tensor(None, dtype=np.uint8), "text": text, "target": np.int32}
