"""A transformer decoder of token sequences: causal self-attention, attention to a memory, one MLP, and a cache.

Caches are plain arrays that a step takes and returns, so that ``jax.lax.scan`` carries them and a beam can reorder
them.
"""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from mmjax.caches import Kept, Lineage, Shared
from mmjax.layers import MLP, Dense, LayerNorm, MultiHeadAttention, TokenEmbedding, sinusoidal_positions
from mmjax.stream import Stream, apply_mask
from mmjax.typing import Array, Bool, Dtype, Float, Int, Mapping, Shaped

__all__ = ["Cache", "DecoderBlock", "TextDecoder"]


class Cache(flax.struct.PyTreeNode):
    """What a block keeps between two steps.

    Attributes:
      keys, values: of the steps so far, ``[batch, heads, max_length * hypotheses, width]``, step by step; 0 at those to
        come.
      memory: keys and values ``[batch, heads, items, width]``, computed once, and the mask ``[batch, items]``; where
        there are several hypotheses of an example, they all read its one memory.
    """

    keys: Kept
    values: Kept
    memory: Shared


class DecoderBlock(nn.Module, kw_only=True):
    """Pre-norm: ``x + attention(norm(x))`` over what stands before, ``x + attention(norm(x), memory)``, one MLP.

    (Vaswani et al. 2017, section 3.1; pre-norm: Xiong et al. 2020.) An item of the memory that is masked is never
    attended to; where the whole memory is, the second step adds exactly 0.

    Attributes:
      dim: width of the tokens; None in a template, which its decoder completes.
      num_heads: must divide it.
      mlp_dim: hidden width of the MLP; None = ``4 * dim``.
    """

    dim: int | None = None
    num_heads: int = 4
    mlp_dim: int | None = None
    dropout_rate: float = 0.0
    dtype: Dtype | None = None

    def setup(self) -> None:
        if self.dim is None:
            raise ValueError("a DecoderBlock that is used by itself needs its width: dim=...")
        attention = MultiHeadAttention(self.dim, self.num_heads, self.dropout_rate, self.dtype)
        self.self_attention, self.cross_attention = attention, attention.clone()
        self.self_norm, self.cross_norm, self.memory_norm, self.mlp_norm = (
            LayerNorm(dtype=self.dtype) for _ in range(4)
        )
        self.mlp = MLP((self.mlp_dim or 4 * self.dim, self.dim), dropout_rate=self.dropout_rate, dtype=self.dtype)
        self.dropout = nn.Dropout(self.dropout_rate)

    def __call__(
        self,
        x: Shaped[Array, "n t d"],
        memory: Stream,
        *,
        mask: Bool[Array, "n t"],
        train: bool = False,
    ) -> Shaped[Array, "n t d"]:
        """All steps at once (teacher forcing); step ``t`` sees the real ones up to itself.

        There may be several sequences for each example of the memory, one after the other.
        """
        hidden = self.self_norm(x)
        causal = jnp.tri(x.shape[1], dtype=bool) & mask[:, None]
        x = x + self._drop(self.self_attention(hidden, mask=causal, train=train), train)
        return self._rest(x, *self._read(memory), train=train)

    def start(self, memory: Stream, max_length: int) -> Cache:
        """An empty cache for up to ``max_length`` steps that read this memory."""
        keys, values, mask = self._read(memory)
        blank = Kept(jnp.zeros((*keys.shape[:2], max_length, keys.shape[-1]), keys.dtype), 2)
        return Cache(blank, blank, Shared((keys, values, mask)))

    def step(
        self, x: Shaped[Array, "n 1 d"], cache: Cache, position: Int[Array, ""], lineage: Any = None
    ) -> tuple[Shaped[Array, "n 1 d"], Cache]:
        """One step, number ``position``, and the cache with it.

        Args:
          lineage: ``[n, max_length]`` as in ``Lineage``; None = each has its own past.
        """
        hidden = self.self_norm(x)
        batch, heads, places, width = cache.keys.value.shape
        beams = len(x) // batch
        keys, values = (
            # In place: written in the shape in which it is read, else the compiler copies it.
            jax.lax.dynamic_update_slice_in_dim(
                before.value,
                new.astype(before.value.dtype).reshape(batch, beams, heads, width).swapaxes(1, 2),
                position * beams,
                axis=2,
            )
            for before, new in zip((cache.keys, cache.values), self.self_attention.keys_and_values(hidden))
        )
        if lineage is None:
            mask = jnp.broadcast_to(jnp.arange(places) <= position, (batch, beams, places))
        else:
            # All hypotheses query the pasts of all, each sees those positions that are of its own line: a beam is
            # never copied, which takes longer than the rest of the attention.
            mask = (lineage.reshape(batch, beams, -1, 1) == jnp.arange(beams)).reshape(batch, beams, places)
        mixed = self.self_attention.mix(hidden.reshape(batch, beams, -1), keys, values, mask=mask, role="self")
        x = self._rest(x + mixed.reshape(x.shape), *cache.memory.value, train=False)
        return x, cache.replace(keys=cache.keys.replace(value=keys), values=cache.values.replace(value=values))

    def _read(self, memory: Stream) -> tuple[Any, Any, Any]:
        return *self.cross_attention.keys_and_values(self.memory_norm(memory.zeroed.values)), memory.mask

    def _rest(self, x: Any, keys: Any, values: Any, mask: Any, *, train: bool) -> Any:
        # All sequences of an example query its one memory at once.
        queries = self.cross_norm(x).reshape(len(keys), -1, x.shape[-1])
        mixed = self.cross_attention.mix(queries, keys, values, mask=mask, role="cross", train=train)
        x = x + self._drop(mixed.reshape(x.shape), train)
        return x + self._drop(self.mlp(self.mlp_norm(x), train=train), train)

    def _drop(self, x: Any, train: bool) -> Any:
        return self.dropout(x, deterministic=not train)


class TextDecoder(nn.Module):
    """A head that predicts a sequence of tokens from the items of the fused stream, one after the other.

    Logits ``[batch, length, vocab_size]`` in float32: those at ``t`` are of token ``t`` of ``targets``, given the
    tokens before it (teacher forcing). The first is predicted from a learned vector, so no id is spent on a beginning;
    an id for the end stands in the targets like any other token. ``mmjax.generation`` generates without targets.
    Several captions of an example, targets ``[batch, captions, length]``, read one memory whose keys and values are
    computed once: logits ``[batch, captions, length, vocab_size]``.

    Attributes:
      dim: width of the tokens; a memory of another width needs no projection, its keys and values are.
      vocab_size: ids run from 0 to ``vocab_size - 1``.
      block: template of the layers.
      dropout_rate: of the word vectors.
      tied: logits are products with the word vectors (Press & Wolf 2017) and a bias, instead of a layer of their own.
      vectors: the word vectors (``TokenEmbedding``), where other modules of the model share them; None = its own.

    Example:
      >>> memory = Stream.of(jnp.ones((2, 5, 3)))
      >>> words = Stream.of(jnp.zeros((2, 4), int))
      >>> logits, _ = TextDecoder(8, vocab_size=6).init_with_output(jax.random.key(0), memory, targets=words)
      >>> logits.shape
      (2, 4, 6)
    """

    dim: int
    vocab_size: int
    num_layers: int = 1
    block: nn.Module = DecoderBlock()
    dropout_rate: float = 0.0
    tied: bool = False
    dtype: Dtype | None = None
    vectors: nn.Module | None = None

    def setup(self) -> None:
        init = nn.initializers.normal(self.dim**-0.5)
        if self.vectors is None:
            self.embedding = TokenEmbedding(self.dim, self.vocab_size, None, init, self.dtype)
        self.first = self.param("first", init, (self.dim,), jnp.float32)
        self.blocks = [self.block.clone(dim=self.dim) for _ in range(self.num_layers)]
        self.norm = LayerNorm(dtype=self.dtype)
        if self.tied:
            self.bias = self.param("bias", nn.initializers.zeros_init(), (self.vocab_size,), jnp.float32)
        else:
            self.out = Dense(self.vocab_size, dtype=self.dtype)
        self.dropout = nn.Dropout(self.dropout_rate)

    def __call__(
        self, stream: Stream, *, targets: Stream | Mapping[str, Any] | None = None, train: bool = False
    ) -> Float[Array, "b *captions t vocab_size"]:
        """Logits of every token of ``targets``, a stream of ids ``[batch, length]`` or ``[batch, captions, length]``;
        or a dict with it as ``tokens``.

        Raises:
          ValueError: no targets.
        """
        targets = check_targets(self, targets)
        flat = jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), targets)
        ids, mask = flat.values[:, :-1], flat.mask[:, :-1]
        first = jnp.broadcast_to(self.first, (len(mask), 1, self.dim))
        vectors = self._words(ids, mask)
        x = jnp.concatenate([first.astype(vectors.dtype), vectors], axis=1) * self.dim**0.5
        x = x + sinusoidal_positions(x.shape[1], self.dim).astype(x.dtype)
        x = self.dropout(x, deterministic=not train)
        mask = jnp.pad(mask, ((0, 0), (1, 0)), constant_values=True)
        for block in self.blocks:
            x = block(x, stream, mask=mask, train=train)
        return apply_mask(self._logits(x).reshape(*targets.mask.shape, self.vocab_size), targets.mask)

    def start(self, stream: Stream, max_length: int) -> tuple[Lineage, tuple[Cache, ...]]:
        """Empty caches for a memory, one of each layer."""
        lineage = Lineage(jnp.full((len(stream.mask), max_length), -1, jnp.int32))
        return lineage, tuple(block.start(stream, max_length) for block in self.blocks)

    def step(
        self, ids: Int[Array, " b"], caches: tuple[Lineage, tuple[Cache, ...]], position: Int[Array, ""]
    ) -> tuple[Float[Array, "b vocab_size"], tuple[Lineage, tuple[Cache, ...]]]:
        """Logits of token number ``position``, given the one before it (whatever it is at 0) and the caches."""
        vectors = self._words(ids[:, None], jnp.ones((len(ids), 1), bool))
        x = jnp.where(position == 0, self.first.astype(vectors.dtype), vectors) * self.dim**0.5
        lineage, layers = caches
        beams = len(ids) // len(layers[0].keys.value)
        positions = sinusoidal_positions(layers[0].keys.value.shape[2] // beams, self.dim)
        x = x + jax.lax.dynamic_index_in_dim(positions, position, keepdims=True).astype(x.dtype)
        if lineage.value is not None:
            lineage = Lineage(lineage.value.at[:, position].set(jnp.arange(len(ids)) % beams))
        after = []
        for block, cache in zip(self.blocks, layers):
            x, cache = block.step(x, cache, position, lineage.value)
            after.append(cache)
        return self._logits(x)[:, 0], (lineage, tuple(after))

    @property
    def _words(self) -> Any:
        return self.embedding if self.vectors is None else self.vectors

    def _logits(self, x: Any) -> Any:
        x = self.norm(x)
        if not self.tied:
            return self.out(x).astype(jnp.float32)
        return self._words.products(x.astype(self.dtype or x.dtype)).astype(jnp.float32) + self.bias


def check_targets(head: nn.Module, targets: Any) -> Stream:
    """The targets of a head that is taught with them; of a dict its ``tokens``.

    Raises:
      ValueError: no stream of ids ``[batch, length]`` or ``[batch, captions, length]``.
    """
    targets = targets.get("tokens") if isinstance(targets, Mapping) else targets
    if isinstance(targets, Stream) and targets.mask.ndim in (2, 3):
        return targets
    got = f"a mask {targets.mask.shape}" if isinstance(targets, Stream) else type(targets).__name__
    raise ValueError(
        f"{type(head).__name__} predicts a sequence given what stands before each token: pass targets, a Stream of ids "
        f"[batch, length] or [batch, captions, length], or generate one (mmjax.generation); got {got}"
    )
