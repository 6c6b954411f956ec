"""The TFDS builder of easy-VQA."""

from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mmjax.datasets.builder import ExamplesBuilder, tensor
from mmjax.datasets.easy_vqa import RECIPE

__all__ = ["Builder"]


class Builder(ExamplesBuilder, skip_registration=True):
    """One example is one picture, the bytes of its PNG file, with its questions as text and their answers' numbers."""

    name = "easy_vqa"
    VERSION = tfds.core.Version(RECIPE.version)
    MANUAL_DOWNLOAD_INSTRUCTIONS = RECIPE.fetch
    recipe = RECIPE

    def example_features(self) -> dict[str, Any]:
        questions = tfds.features.Sequence(tfds.features.Text())
        image, answers = tensor(None, dtype=np.uint8), tensor(None, dtype=np.int32)
        return {"image": image, "question": questions, "target": answers}
