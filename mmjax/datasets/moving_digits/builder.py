"""The TFDS builder of the moving digits."""

from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mmjax.datasets.builder import ExamplesBuilder, tensor
from mmjax.datasets.moving_digits import RECIPE
from mmjax.datasets.moving_digits.examples import CANVAS

__all__ = ["Builder"]


class Builder(ExamplesBuilder, skip_registration=True):
    """One example is one video with its sentence."""

    name = "moving_digits"
    VERSION = tfds.core.Version(RECIPE.version)
    recipe = RECIPE

    def example_features(self) -> dict[str, Any]:
        return {"text": tensor(None, dtype=np.int32), "video": tensor(None, CANVAS, CANVAS, 1, dtype=np.uint8)}
