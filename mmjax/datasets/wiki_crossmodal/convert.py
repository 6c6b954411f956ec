"""Wikipedia cross-modal retrieval out of the files of its publication, in the form that the builder reads.

python -m mmjax.datasets.wiki_crossmodal.convert FOLDER OUT

``FOLDER`` holds ``raw_features.mat``, ``trainset_txt_img_cat.list`` and ``testset_txt_img_cat.list`` and, for the
streams of languages, ``Topics10/English-10.mat`` ... ``Topics100/Spanish-100.mat``. Run on the files of the commits
that the card names, it gave arrays equal to those that the builder's checksums were taken of.
"""

import pathlib
import sys
from typing import Any

import numpy as np

from mmjax.datasets.converting import command, save
from mmjax.errors import UsageError

__all__ = ["convert", "read_list"]

LANGUAGES = {"en": "English", "de": "German", "es": "Spanish"}
PARTS = {"train": "tr", "test": "te"}


def read_list(path: pathlib.Path) -> tuple[list[str], np.ndarray]:
    """The article and the category of each section: lines ``ARTICLE-SECTION<tab>IMAGE<tab>CATEGORY``."""
    try:
        rows = [line.split("\t") for line in path.read_text().splitlines()]
        return [text.rpartition("-")[0] for text, _, _ in rows], np.asarray([int(c) for _, _, c in rows], np.uint8)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is no list of text, image and category: {error}") from None


def _matlab(path: pathlib.Path) -> dict[str, Any]:
    from scipy.io import loadmat

    try:
        return loadmat(path)
    except Exception as error:  # SciPy raises a kind of its own, and many others for bytes it cannot read
        raise UsageError(f"cannot read {path}: {error}") from None


def _array(file: dict[str, Any], name: str, path: pathlib.Path, rows: int) -> np.ndarray:
    if name not in file or len(file[name]) != rows:
        raise UsageError(f"{path} has no {name!r} of {rows} rows")
    return file[name]


def convert(original: pathlib.Path, out: pathlib.Path) -> list[pathlib.Path]:
    """Writes ``wiki.npz`` and, where there are topics, ``topics_multilingual.npz``.

    Raises:
      UsageError: a file that is missing or of another form, or topics whose images are others: their rows differ.
    """
    arrays: dict[str, np.ndarray] = {}
    lists = {part: read_list(original / f"{part}set_txt_img_cat.list") for part in PARTS}
    names = sorted({name for articles, _ in lists.values() for name in articles})
    path = original / "raw_features.mat"
    features = _matlab(path)
    for part, short in PARTS.items():
        articles, labels = lists[part]
        arrays[f"image_{part}"] = _array(features, f"I_{short}", path, len(labels)).astype(np.float32)
        arrays[f"text_{part}"] = _array(features, f"T_{short}", path, len(labels))
        arrays[f"label_{part}"] = labels
        arrays[f"article_{part}"] = np.searchsorted(names, articles).astype(np.int32)
    files = {"wiki.npz": arrays}
    if (original / "Topics10").is_dir():
        files["topics_multilingual.npz"] = _topics(original, features)
    return save(out, files)


def _topics(original: pathlib.Path, features: dict[str, Any]) -> dict[str, np.ndarray]:
    topics = {}
    for name, language in LANGUAGES.items():
        for count in (10, 100):
            path = original / f"Topics{count}" / f"{language}-{count}.mat"
            file = _matlab(path)
            for part, short in PARTS.items():
                rows = len(features[f"I_{short}"])
                if not np.array_equal(_array(file, f"I_arr_{short}", path, rows), features[f"I_{short}"]):
                    raise UsageError(f"{path} is of other images than raw_features.mat: its rows are others")
                topics[f"{name}_{count}_{part}"] = _array(file, f"{name}_arr_{short}", path, rows).astype(np.float32)
    return topics


if __name__ == "__main__":
    sys.exit(command("mmjax.datasets.wiki_crossmodal.convert", "FOLDER", convert, sys.argv[1:]))
