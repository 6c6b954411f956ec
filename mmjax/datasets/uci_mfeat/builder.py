"""The TFDS builder of UCI multiple features."""

from typing import Any

import tensorflow_datasets as tfds

from mmjax.datasets.builder import ExamplesBuilder, tensor
from mmjax.datasets.uci_mfeat import RECIPE
from mmjax.datasets.uci_mfeat.examples import WIDTHS

__all__ = ["Builder"]


class Builder(ExamplesBuilder, skip_registration=True):
    """One example is one digit in six views."""

    name = "uci_mfeat"
    VERSION = tfds.core.Version(RECIPE.version)
    MANUAL_DOWNLOAD_INSTRUCTIONS = RECIPE.fetch
    recipe = RECIPE

    def example_features(self) -> dict[str, Any]:
        return {name: tensor(width) for name, width in WIDTHS.items()}
