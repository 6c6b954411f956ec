"""MNIST out of its idx files, in the form that the builder reads.

python -m mmjax.datasets.fsdd_digits.convert_mnist MNIST OUT

``MNIST`` holds ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and
``t10k-labels-idx1-ubyte``, each plain or with ``.gz``. Never run on a download of the originals, only on files of their
form that were made from the same images.
"""

import gzip
import pathlib
import sys
import zlib

import numpy as np

from mmjax.datasets.converting import command, save
from mmjax.errors import UsageError

__all__ = ["convert", "read_idx"]

SHARD = 20_000


def read_idx(folder: pathlib.Path, name: str, ndim: int) -> np.ndarray:
    """The bytes of an idx file: magic 0, 0, 8, ``ndim``; ``ndim`` big-endian sizes; then the values."""
    path = folder / name
    if not path.is_file():
        path = folder / f"{name}.gz"
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"cannot read {folder / name} (plain or .gz): {error}") from None
    shape = np.frombuffer(content[4 : 4 + 4 * ndim], ">u4").astype(int)
    start = 4 + 4 * ndim
    if content[:4] != bytes([0, 0, 8, ndim]) or len(content) != start + shape.prod():
        raise UsageError(f"{path} is no idx file of bytes with {ndim} axes, or it is truncated")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def convert(original: pathlib.Path, out: pathlib.Path) -> list[pathlib.Path]:
    """Writes ``mnist_train_0of3.npz`` ... of 20,000 images each and ``mnist_test.npz``.

    Raises:
      UsageError: a file that is missing, truncated or of another form.
    """
    arrays = {}
    for part, name in (("train", "train"), ("test", "t10k")):
        images = read_idx(original, f"{name}-images-idx3-ubyte", 3)
        labels = read_idx(original, f"{name}-labels-idx1-ubyte", 1)
        if len(images) != len(labels):
            raise UsageError(f"{original}: {len(images)} {name} images but {len(labels)} labels")
        arrays[part] = images, labels
    images, labels = arrays["train"]
    shards = -(-len(images) // SHARD)
    files = {
        f"mnist_train_{i}of{shards}.npz": {
            "image": images[i * SHARD : (i + 1) * SHARD],
            "label": labels[i * SHARD : (i + 1) * SHARD],
        }
        for i in range(shards)
    }
    return save(out, files | {"mnist_test.npz": dict(zip(("image", "label"), arrays["test"]))})


if __name__ == "__main__":
    sys.exit(command("mmjax.datasets.fsdd_digits.convert_mnist", "MNIST", convert, sys.argv[1:]))
