"""The TFDS side: a builder that writes what a recipe reads, without TensorFlow. Imports TFDS; nothing imports it early.

TFDS's own image, audio and video features need TensorFlow to write arrays, so every feature is a plain tensor.
"""

import dataclasses
import pathlib
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from mmjax.datasets.base import SPLITS
from mmjax.datasets.recipe import Recipe
from mmjax.datasets.sources import verify

__all__ = ["Config", "ExamplesBuilder", "tensor"]


@dataclasses.dataclass(eq=False)
class Config(tfds.core.BuilderConfig):
    """The options of a preparation; its name is their digest, so that each has a folder of its own."""

    options: Any = None


def tensor(*shape: int | None, dtype: Any = np.float32) -> tfds.features.Tensor:
    """A feature of one example; at most one axis is None. Stored as bytes: lists of numbers are slower to read."""
    return tfds.features.Tensor(shape=shape, dtype=dtype, encoding=tfds.features.Encoding.BYTES)


class ExamplesBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Base of the builders of this library.

    Subclasses give ``name``, ``VERSION``, ``recipe`` and ``example_features``, and the source files' instructions in
    ``MANUAL_DOWNLOAD_INSTRUCTIONS``: the manual directory is the folder of source files.
    """

    pkg_dir_path = pathlib.Path(__file__).parent
    recipe: ClassVar[Recipe]

    @property
    def options(self) -> Any:
        """The options of the data set; the defaults where TFDS was given no configuration."""
        options = getattr(self.builder_config, "options", None)
        return self.recipe.options() if options is None else options

    def example_features(self) -> dict[str, Any]:
        """The features of one example; ``target`` and ``group`` are single numbers unless they are among them."""
        raise NotImplementedError(f"{type(self).__name__} must say what an example holds")

    def _info(self) -> tfds.core.DatasetInfo:
        card = self.recipe.card(self.options)
        scalars = {"target": np.float32 if card.num_classes is None else np.int32, "group": np.int32}
        return tfds.core.DatasetInfo(
            builder=self,
            description=card.description,
            features=tfds.features.FeaturesDict({**scalars, **self.example_features()}),
            homepage=None,
            license=card.licence or None,
            disable_shuffling=True,  # the order of the examples is their index
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        folder = None
        if files := self.recipe.files(self.options):
            folder = pathlib.Path(dl_manager.manual_dir)
            verify(self.name, folder, files, self.recipe.fetch)
        columns = self.recipe.read(self.options, folder)
        return {split: self._generate_examples(columns[split]) for split in SPLITS}

    def _generate_examples(self, columns: dict[str, Any]) -> Any:
        for index in range(len(columns["target"])):
            yield index, {name: column[index] for name, column in columns.items()}
