"""The TFDS builder of MELD."""

from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mmjax.datasets.builder import ExamplesBuilder, tensor
from mmjax.datasets.meld import RECIPE

__all__ = ["Builder"]


class Builder(ExamplesBuilder, skip_registration=True):
    """One example is one dialogue: texts, speakers and both labels of its utterances."""

    name = "meld"
    VERSION = tfds.core.Version(RECIPE.version)
    MANUAL_DOWNLOAD_INSTRUCTIONS = RECIPE.fetch
    recipe = RECIPE

    def example_features(self) -> dict[str, Any]:
        texts = {name: tfds.features.Sequence(tfds.features.Text()) for name in ("text", "speaker")}
        return {**texts, **{name: tensor(None, dtype=np.int32) for name in ("emotion", "sentiment")}}
