"""The examples of Wikipedia cross-modal retrieval out of ``wiki.npz`` and ``topics_multilingual.npz``."""

import pathlib
from typing import Any

import numpy as np

from mmjax.datasets.recipe import Columns

__all__ = ["LANGUAGES", "VALIDATION", "read"]

LANGUAGES = ("en", "de", "es")
VALIDATION = 0.1  # of the articles of train


def read(options: Any, folder: pathlib.Path) -> Columns:
    """Sections by the published split; whole articles of train, drawn once for all seeds, validate."""
    with np.load(folder / "wiki_crossmodal" / "wiki.npz") as file:
        arrays = {key: file[key] for key in file.files}
    if options.languages:
        with np.load(folder / "wiki_crossmodal" / "topics_multilingual.npz") as file:
            for name in options.languages:
                for part in ("train", "test"):
                    arrays[f"{name}_{part}"] = file[f"{name}_{options.topics}_{part}"]
    articles = np.unique(arrays["article_train"])
    drawn = np.random.RandomState(0).permutation(articles)[: round(VALIDATION * len(articles))]
    validates = np.isin(arrays["article_train"], drawn)
    tests = np.ones(len(arrays["label_test"]), bool)
    if options.test == "unshared":
        tests = ~np.isin(arrays["article_test"], articles)
    columns = {}
    for split, part, chosen in (
        ("train", "train", ~validates),
        ("validation", "train", validates),
        ("test", "test", tests),
    ):
        streams = {n: arrays[f"{n}_{part}"][chosen].astype(np.float32) for n in ("image", "text", *options.languages)}
        target = arrays[f"label_{part}"][chosen].astype(np.int32) - 1  # the files count from 1
        columns[split] = {**streams, "target": target, "group": arrays[f"article_{part}"][chosen].astype(np.int32)}
    return columns
