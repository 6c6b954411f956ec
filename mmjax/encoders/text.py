"""Encoders of text: token ids ``[batch, words]``, or nested ``[batch, utterances, words]``, to tokens of width ``dim``.

Nested ids (a dialogue of sentences) are folded into the batch, and the words of each utterance are pooled: the result
is ``[batch, utterances, dim]``, an utterance being real if any of its words is.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mmjax.encoders.features import FeatureTransformer
from mmjax.encoders.recurrent import Recurrent
from mmjax.encoders.stages import ALL, run_stages
from mmjax.layers import LSTM, MLP, Activation, TokenEmbedding, TransformerBlock
from mmjax.stream import Reduction, Stream, masked_mean, pooled
from mmjax.typing import Dtype

__all__ = ["BagOfWords", "Categories", "RecurrentText", "TransformerText"]


def _fold(stream: Stream) -> Stream:
    """Ids and mask with all axes but that of the words folded into the batch.

    Raises:
      ValueError: not a stream of ids.
    """
    ids, mask = stream.values, stream.mask
    if ids.shape != mask.shape or ids.ndim not in (2, 3) or not jnp.issubdtype(ids.dtype, jnp.integer):
        raise ValueError(
            f"expected integer ids [batch, words] or [batch, utterances, words] with a mask of that shape, got "
            f"{ids.dtype} {ids.shape} with a mask {mask.shape}"
        )
    return Stream(ids.reshape(-1, ids.shape[-1]), mask.reshape(-1, ids.shape[-1]))


def _encode(
    embed: Callable[[Stream], Stream],
    encoder: Any,
    stream: Stream,
    pool: Reduction,
    *,
    train: bool,
    stages: slice,
) -> Stream:
    """Word vectors, then the stages of an encoder of sequences, the vectors being part of its first.

    Raises:
      ValueError: some of the stages of a nested text, whose words are not one sequence per example.
    """

    def run(i: int, words: Stream) -> Stream:
        return encoder(words if i else embed(_fold(words)), train=train, stages=slice(i, i + 1))

    steps = [functools.partial(run, i) for i in range(encoder.num_stages)]
    if stages == ALL:
        return _unfold(run_stages(steps, _fold(stream), ALL), stream, pool)
    if stream.mask.ndim != 2:
        raise ValueError(f"a nested text is encoded as a whole, not in stages; its mask is {stream.mask.shape}")
    return run_stages(steps, stream, stages)


def _unfold(tokens: Stream, like: Stream, pool: Reduction) -> Stream:
    """The tokens of sentences as they are; those of nested sentences pooled, one per utterance."""
    if like.mask.ndim == 2:
        return tokens
    shape = like.mask.shape[:-1]
    values = pool(tokens.values, tokens.mask).reshape(*shape, -1)
    return Stream(values, like.mask.any(-1)).zeroed


class BagOfWords(nn.Module):
    """Words without their order: an MLP on a text's mean or sum of word vectors. One token per text.

    The first layer is the embedding: with ``pool=masked_sum`` it is ``W`` times the vector of counts, with the default
    mean the counts are divided by their number (the deep averaging network, Iyyer et al. 2015).

    Attributes:
      dim: width of the token.
      vocab_size: ids run from 0 to ``vocab_size - 1``; for others see ``unknown_id`` of ``TokenEmbedding``.
      hidden_dims: widths of the hidden layers; empty = one linear map of the counts.
      distinct: counts a repeated word once (presence instead of counts: Pang et al. 2002).

    Example:
      >>> ids = Stream.of(jnp.array([[1, 4, 2]]))
      >>> tokens, _ = BagOfWords(dim=4, vocab_size=5).init_with_output(jax.random.key(0), ids)
      >>> tokens.values.shape
      (1, 1, 4)
    """

    dim: int
    vocab_size: int
    hidden_dims: tuple[int, ...] = ()
    pool: Reduction = masked_mean
    distinct: bool = False
    unknown_id: int | None = None
    activation: Activation = nn.relu
    dropout_rate: float = 0.0
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, stream: Stream, *, train: bool = False) -> Stream:
        words = _fold(stream)
        mask = _first_occurrences(words.values, words.mask) if self.distinct else words.mask
        first, *rest = (*self.hidden_dims, self.dim)
        init = nn.initializers.normal(first**-0.5)
        embedding = TokenEmbedding(first, self.vocab_size, self.unknown_id, init, self.dtype, name="embedding")
        x = self.pool(embedding(words.values, mask), mask)
        x = x + self.param("bias", nn.initializers.zeros_init(), (first,), jnp.float32).astype(x.dtype)
        if rest:
            x = nn.Dropout(self.dropout_rate, deterministic=not train)(self.activation(x))
            mlp = MLP(tuple(rest), self.activation, self.dropout_rate, self.dtype, name="mlp")
            x = mlp(x, train=train)
        bag = pooled(x, words.present)
        if stream.mask.ndim == 2:
            return bag
        return Stream(bag.values.reshape(*stream.mask.shape[:-1], -1), bag.mask.reshape(stream.mask.shape[:-1]))


class Categories(nn.Module):
    """A learned vector per category: what becomes of side information (a speaker, a language) ``[batch, length]``.

    Attributes:
      dim: width of the tokens.
      count: categories run from 0 to ``count - 1``.
      unknown_id: the category in whose place all others are read; None = as ``TokenEmbedding``, NaN.
      dropout_rate: of the vectors.

    Example:
      >>> speakers = Stream.of(jnp.array([[1, 0, 2]]))
      >>> tokens, _ = Categories(dim=4, count=3).init_with_output(jax.random.key(0), speakers)
      >>> tokens.values.shape
      (1, 3, 4)
    """

    dim: int
    count: int
    unknown_id: int | None = None
    dropout_rate: float = 0.0
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, stream: Stream, *, train: bool = False) -> Stream:
        if stream.values.shape != stream.mask.shape or stream.mask.ndim != 2:
            raise ValueError(f"categories are [batch, length] with a mask of that shape, got {stream.values.shape}")
        init = nn.initializers.normal(self.dim**-0.5)
        embedding = TokenEmbedding(self.dim, self.count, self.unknown_id, init, self.dtype, name="embedding")
        x = embedding(stream.values, stream.mask)
        return stream.replace(values=nn.Dropout(self.dropout_rate, deterministic=not train)(x)).zeroed


def _first_occurrences(ids: Any, mask: Any) -> Any:
    """True where a real id stands for the first time in its row."""
    before = np.tri(ids.shape[1], k=-1, dtype=bool)
    same = (ids[:, :, None] == ids[:, None, :]) & mask[:, None, :]
    return mask & ~(same & before).any(-1)


class RecurrentText(nn.Module):
    """Word vectors, then an LSTM or GRU (Sutskever et al. 2014; two-way: Graves & Schmidhuber 2005). A token per word.

    Attributes:
      dim: width of the tokens.
      vocab_size: ids run from 0 to ``vocab_size - 1``; for others see ``unknown_id`` of ``TokenEmbedding``.
      embed_dim: width of the word vectors; None = ``dim``.
      cell, bidirectional, num_layers, hidden_dim: as in ``Recurrent``.
      pool: how the words of a nested utterance become one: their mean, or the last state (one way: ``masked_last``,
        two-way: ``final_state``).
      dropout_rate: of the word vectors and of what leaves each layer.

    Example:
      >>> ids = Stream.of(jnp.array([[1, 4, 2]]))
      >>> tokens, _ = RecurrentText(dim=4, vocab_size=5).init_with_output(jax.random.key(0), ids)
      >>> tokens.values.shape
      (1, 3, 4)
    """

    dim: int
    vocab_size: int
    embed_dim: int | None = None
    cell: Callable[..., nn.Module] = LSTM
    bidirectional: bool = False
    num_layers: int = 1
    hidden_dim: int | None = None
    pool: Reduction = masked_mean
    unknown_id: int | None = None
    dropout_rate: float = 0.0
    dtype: Dtype | None = None

    @property
    def num_stages(self) -> int:
        """The layers; word vectors belong to the first."""
        return self.num_layers

    @nn.compact
    def __call__(self, stream: Stream, *, train: bool = False, stages: slice = ALL) -> Stream:
        def embed(words: Stream) -> Stream:
            width = self.embed_dim or self.dim
            init = nn.initializers.normal(width**-0.5)
            embedding = TokenEmbedding(width, self.vocab_size, self.unknown_id, init, self.dtype, name="embedding")
            drop = nn.Dropout(self.dropout_rate, deterministic=not train, name="dropout")
            return words.replace(values=drop(embedding(words.values, words.mask)))

        recurrent = Recurrent(
            self.dim,
            self.cell,
            self.bidirectional,
            self.num_layers,
            self.hidden_dim,
            self.dropout_rate,
            self.dtype,
            name="recurrent",
        )
        return _encode(embed, recurrent, stream, self.pool, train=train, stages=stages)


class TransformerText(nn.Module):
    """Word vectors and positions, then pre-norm transformer blocks and a final norm (Vaswani et al. 2017).

    One token per word. A word keeps its position whatever is masked before it.

    Attributes:
      dim: width of the tokens.
      vocab_size: ids run from 0 to ``vocab_size - 1``; for others see ``unknown_id`` of ``TokenEmbedding``.
      block: template of the layers.
      max_length: a number = learned positions up to that length (Devlin et al. 2019); None = sines, for any length,
        with the word vectors multiplied by ``sqrt(dim)`` (Vaswani et al. 2017, section 3.4).
      pool: how the words of a nested utterance become one.
      dropout_rate: of the word vectors.
      vectors: the word vectors (``TokenEmbedding``), where other modules of the model share them; None = its own.

    Example:
      >>> ids = Stream.of(jnp.array([[1, 4, 2]]))
      >>> tokens, _ = TransformerText(dim=4, vocab_size=5, num_layers=1).init_with_output(jax.random.key(0), ids)
      >>> tokens.values.shape
      (1, 3, 4)
    """

    dim: int
    vocab_size: int
    num_layers: int = 2
    block: nn.Module = TransformerBlock()
    max_length: int | None = None
    pool: Reduction = masked_mean
    unknown_id: int | None = None
    dropout_rate: float = 0.0
    dtype: Dtype | None = None
    vectors: nn.Module | None = None

    @property
    def num_stages(self) -> int:
        """The word vectors, each block, the norm."""
        return self.num_layers + 2

    @nn.compact
    def __call__(self, stream: Stream, *, train: bool = False, stages: slice = ALL) -> Stream:
        def embed(words: Stream) -> Stream:
            sines = self.max_length is None
            init = nn.initializers.normal(self.dim**-0.5 if sines else 0.02)
            embedding = self.vectors
            if embedding is None:
                fields = self.dim, self.vocab_size, self.unknown_id, init, self.dtype
                embedding = TokenEmbedding(*fields, name="embedding")
            scale = self.dim**0.5 if sines else 1.0
            return words.replace(values=embedding(words.values, words.mask) * scale)

        transformer = FeatureTransformer(
            self.dim,
            self.num_layers,
            self.block,
            self.max_length,
            self.dropout_rate,
            self.dtype,
            name="transformer",
        )
        return _encode(embed, transformer, stream, self.pool, train=train, stages=stages)
