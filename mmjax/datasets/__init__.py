"""Data sets: ``load(name)`` gives splits of examples in memory with a data card.

``from_table`` makes one of your CSV file or data frame, ``from_arrays`` of your arrays.

Each folder here is one data set: its card and options in ``__init__.py``, what reads its source files in
``examples.py``, its TFDS builder in ``builder.py``. Importing this package imports neither TFDS nor scikit-learn.
"""

import dataclasses
import hashlib
import os
from typing import Any

from mmjax.datasets import (
    avletters,
    cmu_mosi,
    daquar,
    digits,
    easy_vqa,
    flickr8k,
    fsdd_digits,
    meld,
    moving_digits,
    multi30k,
    multi30k_flickr8k,
    synthetic,
    uci_mfeat,
    views,
    visual_dialogue,
    wiki_crossmodal,
)
from mmjax.datasets.arrays import from_arrays, from_npz
from mmjax.datasets.base import Card, Dataset
from mmjax.datasets.checks import check, content_sha256
from mmjax.datasets.recipe import Recipe, collate
from mmjax.datasets.sources import cache_folder, data_folder
from mmjax.datasets.store import columns_of, columns_sha256, content_note, prepare
from mmjax.datasets.table import from_table
from mmjax.errors import UsageError

__all__ = [
    "Card",
    "Dataset",
    "card",
    "check",
    "from_arrays",
    "from_npz",
    "from_table",
    "load",
    "names",
    "source",
    "views",
]

_RECIPES: dict[str, Recipe] = {
    "avletters": avletters.RECIPE,
    "cmu_mosi": cmu_mosi.RECIPE,
    "daquar": daquar.RECIPE,
    "digits": digits.RECIPE,
    "easy_vqa": easy_vqa.RECIPE,
    "flickr8k": flickr8k.RECIPE,
    "fsdd_digits": fsdd_digits.RECIPE,
    "meld": meld.RECIPE,
    "moving_digits": moving_digits.RECIPE,
    "multi30k": multi30k.RECIPE,
    "multi30k_flickr8k": multi30k_flickr8k.RECIPE,
    "synthetic": synthetic.RECIPE,
    "uci_mfeat": uci_mfeat.RECIPE,
    "visual_dialogue": visual_dialogue.RECIPE,
    "wiki_crossmodal": wiki_crossmodal.RECIPE,
}


def names() -> tuple[str, ...]:
    """Names that ``load`` knows, sorted."""
    return tuple(sorted(_RECIPES))


def _recipe(name: str) -> Recipe:
    if name not in _RECIPES:
        raise UsageError(f"there is no data set {name!r}; there are {', '.join(names())}")
    return _RECIPES[name]


def card(name: str, **options: Any) -> Card:
    """The data card, without loading anything.

    Raises:
      UsageError: an unknown name or option; the message lists those that are.
    """
    recipe = _recipe(name)
    return recipe.card(recipe.parse(name, options))


def load(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    cache_dir: str | os.PathLike | None = None,
    **options: Any,
) -> Dataset:
    """A data set in memory: ``train``, ``validation`` and ``test`` as batches of NumPy arrays.

    Args:
      name: one of :func:`names`.
      data_dir: the folder of source files, only ever read; default: the variable ``MMJAX_DATA_DIR``. Embedded sets
        need none.
      cache_dir: where the prepared files go; default: ``mmjax`` in the user's cache folder. Embedded sets are made in
        memory and write nothing.
      options: of this data set, see its ``Options``.

    Raises:
      UsageError: one line: an unknown name or option, source files that are missing, truncated or altered, unsound
        data.
    """
    recipe = _recipe(name)
    chosen = recipe.parse(name, options)
    embedded = not recipe.files(chosen)
    builder = None if embedded else prepare(name, recipe, chosen, data_dir, cache_dir)
    stored = recipe.read(chosen, None) if embedded else columns_of(name, builder)
    columns, tokenizers = recipe.at_reading(chosen, stored)
    own = recipe.card(chosen)
    if classes := recipe.class_names(chosen, stored):
        own = dataclasses.replace(own, num_classes=len(classes), class_names=classes)
    splits = collate(recipe, chosen, columns)
    if columns is stored:
        digest = note = content_sha256(splits)
    else:  # what is made at reading follows from options and from the version of a decoder: the files are as they were
        note = columns_sha256(stored)
        digest = hashlib.sha256(f"{note} {sorted(dataclasses.asdict(chosen).items())}".encode()).hexdigest()
    if not embedded:
        content_note(name, builder, note)
    return check(
        Dataset(
            card=own,
            splits=splits,
            version=recipe.version,
            sha256=digest,
            split_id=recipe.split_id(chosen),
            facts=recipe.facts(chosen),
            tokenizers=tokenizers,
            data_dir=data_folder(data_dir),
            cache_dir=None if embedded else cache_folder(cache_dir),
        )
    )


def source(
    name: str,
    split: str,
    *,
    data_dir: str | os.PathLike | None = None,
    cache_dir: str | os.PathLike | None = None,
    **options: Any,
) -> Any:
    """The random-access TFDS source of a split, for Grain: ``len``, ``[index]`` -> dict of NumPy arrays; it pickles.

    Arguments and errors as :func:`load`; ``split`` may be any of TFDS's expressions, such as ``train[:50%]``.
    """
    recipe = _recipe(name)
    return prepare(name, recipe, recipe.parse(name, options), data_dir, cache_dir).as_data_source(split=split)
