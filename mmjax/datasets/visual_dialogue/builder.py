"""The TFDS builder of visual_dialogue."""

from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mmjax.datasets.builder import ExamplesBuilder, tensor
from mmjax.datasets.visual_dialogue import RECIPE
from mmjax.datasets.visual_dialogue.procedure import TURNS

__all__ = ["Builder"]


class Builder(ExamplesBuilder, skip_registration=True):
    """One example is one picture, the bytes of its PNG file, with the questions and replies of a dialogue about it."""

    name = "visual_dialogue"
    VERSION = tfds.core.Version(RECIPE.version)
    MANUAL_DOWNLOAD_INSTRUCTIONS = RECIPE.fetch
    recipe = RECIPE

    def example_features(self) -> dict[str, Any]:
        texts = tfds.features.Sequence(tfds.features.Text(), length=TURNS)
        kinds = tensor(TURNS, dtype=np.int32)
        return {
            "image": tensor(None, dtype=np.uint8),
            "question": texts,
            "reply": texts,
            "kind": kinds,
            "target": np.int32,
        }
