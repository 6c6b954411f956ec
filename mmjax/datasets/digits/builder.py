"""The TFDS builder of the embedded digits."""

from typing import Any

import tensorflow_datasets as tfds

from mmjax.datasets.builder import ExamplesBuilder, tensor
from mmjax.datasets.digits import RECIPE

__all__ = ["Builder"]


class Builder(ExamplesBuilder, skip_registration=True):
    """One example is one digit in two halves."""

    name = "digits"
    VERSION = tfds.core.Version(RECIPE.version)
    recipe = RECIPE

    def example_features(self) -> dict[str, Any]:
        return {"upper": tensor(32), "lower": tensor(32)}
