"""The TFDS builder of Multi30K."""

from typing import Any

import tensorflow_datasets as tfds

from mmjax.datasets.builder import ExamplesBuilder
from mmjax.datasets.multi30k import RECIPE

__all__ = ["Builder"]


class Builder(ExamplesBuilder, skip_registration=True):
    """One example is a sentence and its translation, as text."""

    name = "multi30k"
    VERSION = tfds.core.Version(RECIPE.version)
    MANUAL_DOWNLOAD_INSTRUCTIONS = RECIPE.fetch
    recipe = RECIPE

    def example_features(self) -> dict[str, Any]:
        names = ("text", "target", *(("merges",) if self.options.source == "bpe" else ()))
        return {name: tfds.features.Text() for name in names}
