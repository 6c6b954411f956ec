"""The TFDS builder of the synthetic suite."""

from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mmjax.datasets.builder import ExamplesBuilder, tensor
from mmjax.datasets.synthetic import RECIPE

__all__ = ["Builder"]


class Builder(ExamplesBuilder, skip_registration=True):
    """One example is one vector or sequence of each modality."""

    name = "synthetic"
    VERSION = tfds.core.Version(RECIPE.version)
    recipe = RECIPE

    def example_features(self) -> dict[str, Any]:
        options = self.options
        dim = options.part.width(options)
        shape = (dim,) if options.length == 1 else (None, dim)
        labels = options.part.facts(options).get("labels")
        target = {"target": tensor(len(labels), dtype=np.int32)} if labels else {}
        return {name: tensor(*shape) for name in options.names} | target
