"""The TFDS builder of DAQUAR."""

from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mmjax.datasets.builder import ExamplesBuilder, tensor
from mmjax.datasets.daquar import RECIPE

__all__ = ["Builder"]


class Builder(ExamplesBuilder, skip_registration=True):
    """One example is one photograph, the bytes of its JPEG file, with its questions and answers as text."""

    name = "daquar"
    VERSION = tfds.core.Version(RECIPE.version)
    MANUAL_DOWNLOAD_INSTRUCTIONS = RECIPE.fetch
    recipe = RECIPE

    def example_features(self) -> dict[str, Any]:
        texts = tfds.features.Sequence(tfds.features.Text())
        return {"image": tensor(None, dtype=np.uint8), "question": texts, "answer": texts, "target": np.int32}
