"""The TFDS builder of Wikipedia cross-modal retrieval."""

from typing import Any

import tensorflow_datasets as tfds

from mmjax.datasets.builder import ExamplesBuilder, tensor
from mmjax.datasets.wiki_crossmodal import RECIPE

__all__ = ["Builder"]


class Builder(ExamplesBuilder, skip_registration=True):
    """One example is one section: its image and its text."""

    name = "wiki_crossmodal"
    VERSION = tfds.core.Version(RECIPE.version)
    MANUAL_DOWNLOAD_INSTRUCTIONS = RECIPE.fetch
    recipe = RECIPE

    def example_features(self) -> dict[str, Any]:
        languages = {name: tensor(self.options.topics) for name in self.options.languages}
        return {"image": tensor(128), "text": tensor(10), **languages}
