"""Word vectors out of a text file (GloVe, Pennington et al. 2014; word2vec and fastText write the same form).

A line is a word and its numbers, separated by spaces; a first line of two numbers (how many words, how wide) is
skipped. Files are the user's: e.g. ``glove.6B.50d.txt`` of nlp.stanford.edu/projects/glove (lower-case words).
"""

import hashlib
import os
import pathlib
from collections.abc import Collection
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mmjax.errors import UsageError
from mmjax.layers import TokenEmbedding
from mmjax.pretrained.tower import Tower
from mmjax.stream import Reduction, Stream, masked_mean
from mmjax.typing import Dtype, Mapping

__all__ = ["FileVectors", "WordVectors", "glove", "read_word_vectors"]


class FileVectors(NamedTuple):
    """What of a file is used.

    Attributes:
      vectors: ``[width]`` float32 by word.
      mean: of all words of the file, ``[width]``.
      lacking: the words that were asked for and are not there, sorted.
      sha256: of the file.
    """

    vectors: Mapping[str, np.ndarray]
    mean: np.ndarray
    lacking: tuple[str, ...]
    sha256: str


def read_word_vectors(path: str | os.PathLike, words: Collection[str]) -> FileVectors:
    """The vectors of some words. The whole file is read, a line at a time, and only what is asked for is kept.

    Args:
      path: of a text file, UTF-8.
      words: as the file spells them (GloVe's 6B files: lower case).

    Raises:
      UsageError: no such file, or a line that is not a word with as many numbers as the first; none of the words.
    """
    path, wanted = pathlib.Path(path), set(words)
    found: dict[str, np.ndarray] = {}
    digest, total, count = hashlib.sha256(), np.zeros(0), 0
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                digest.update(line)
                word, *rest = line.rstrip(b"\r\n ").rsplit(b" ", len(total)) if len(total) else line.split()
                if number == 1 and len(rest) == 1 and word.isdigit() and rest[0].isdigit():
                    continue  # a heading
                try:
                    numbers = np.asarray(rest, np.float32)
                except ValueError:
                    numbers = np.zeros(0, np.float32)
                if not len(total):
                    total = np.zeros(len(numbers))
                if not len(numbers) or len(numbers) != len(total) or not np.isfinite(numbers).all():
                    numbers_of = f"{len(total)} numbers" if len(total) else "its numbers"
                    raise UsageError(f"{path}: line {number} must be a word and {numbers_of}: {line[:40]!r}")
                total, count = total + numbers, count + 1
                if (text := word.decode(errors="replace")) in wanted:
                    found.setdefault(text, numbers)
    except (FileNotFoundError, IsADirectoryError):
        raise UsageError(f"no word vectors at {path}: give the path of a text file such as glove.6B.50d.txt") from None
    if not found:
        raise UsageError(f"{path}: none of the {len(wanted)} words has a vector there; is it of another language?")
    lacking = tuple(sorted(wanted - found.keys()))
    return FileVectors(found, (total / count).astype(np.float32), lacking, digest.hexdigest())


class WordVectors(nn.Module):
    """A vector per word, and no more: ids ``[batch, words]`` to ``[batch, words, dim]``; of nested ids ``[batch,
    sentences, words]`` the words of each sentence are pooled to ``[batch, sentences, dim]``.

    Attributes:
      dim: width of the vectors.
      vocab_size: ids run from 0 to ``vocab_size - 1``.
      pool: how the words of a nested sentence become one.

    Raises:
      ValueError: no stream of ids.

    Example:
      >>> words = Stream.of(jnp.array([[1, 4, 2]]))
      >>> WordVectors(dim=3, vocab_size=5).init_with_output(jax.random.key(0), words)[0].values.shape
      (1, 3, 3)
    """

    dim: int
    vocab_size: int
    pool: Reduction = masked_mean
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, stream: Stream, *, train: bool = False) -> Stream:
        ids, mask = stream.values, stream.mask
        if ids.shape != mask.shape or ids.ndim not in (2, 3) or not jnp.issubdtype(ids.dtype, jnp.integer):
            raise ValueError(f"expected integer ids with a mask of their shape, got {ids.dtype} {ids.shape}")
        words = ids.reshape(-1, ids.shape[-1]), mask.reshape(-1, ids.shape[-1])
        vectors = TokenEmbedding(self.dim, self.vocab_size, dtype=self.dtype, name="embedding")(*words)
        if ids.ndim == 2:
            return Stream(vectors, mask)
        sentences = self.pool(vectors, words[1]).reshape(*ids.shape[:-1], -1)
        return Stream(sentences, mask.any(-1)).zeroed


def glove(path: str | os.PathLike, tokenizer: Any, *, pool: Reduction = masked_mean) -> tuple[Tower, tuple[str, ...]]:
    """A tower of the vectors of a tokenizer's words, and the words that the file lacks.

    Those (the unknown word among them) have the mean vector of the file, as GloVe's authors advise for unknown words.
    Frozen, ``tower.encoder()``; to be trained further, ``tower.encoder(frozen=False)``.

    Args:
      tokenizer: of whole words, e.g. ``mmjax.datasets.load("flickr8k").tokenizers["text"]``.
      pool: of nested sentences, see ``WordVectors``.

    Raises:
      UsageError: as ``read_word_vectors``.

    Example::

        tower, lacking = glove("glove.6B.50d.txt", data.tokenizers["text"])
        encoder = Adapted(tower.encoder(), Recurrent(64))
    """
    vocabulary: Mapping[str, int] = tokenizer.get_vocab()
    file = read_word_vectors(path, vocabulary.keys())
    table = np.tile(file.mean, (max(vocabulary.values()) + 1, 1))
    for word, vector in file.vectors.items():
        table[vocabulary[word]] = vector
    module = WordVectors(table.shape[1], table.shape[0], pool)
    return Tower(module, {"params": {"embedding": {"embedding": table}}}, file.sha256), file.lacking
