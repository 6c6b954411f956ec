"""The captioner of Show, Attend and Tell: an LSTM that looks at the items of a memory before each word."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from mmjax.caches import Shared
from mmjax.decoder import check_targets
from mmjax.layers import Dense, TokenEmbedding
from mmjax.stream import Stream, apply_mask, masked_mean, masked_softmax
from mmjax.typing import Array, Dtype, Float, Int

__all__ = ["AttentionLSTMDecoder", "LSTMCache"]


class LSTMCache(flax.struct.PyTreeNode):
    """What the decoder keeps between two steps.

    Attributes:
      hidden, memory: the state of the LSTM, ``[batch, dim]`` float32.
      items: ``(annotations [batch, items, width], their part in the attention [batch, items, attention_dim], mask)``.
    """

    hidden: Any
    memory: Any
    items: Shared


class AttentionLSTMDecoder(nn.Module):
    """A head that predicts a sequence by soft attention (Xu et al. 2015, section 4.2); targets as in ``TextDecoder``.

    With annotations ``a_i`` (the items), word vectors ``E y``, state ``h, c`` and for each step ``t``:

    * ``alpha_i = softmax_i(v tanh(W a_i + U h_{t-1}))`` (eqs. 4, 5; the MLP with one layer);
    * ``z = beta sum_i alpha_i a_i``, ``beta = sigmoid(w h_{t-1} + b)`` (eq. 13 and section 4.2.1);
    * ``i, f, o = sigmoid``, ``g = tanh`` of ``T [E y_{t-1}, h_{t-1}, z]``, ``c' = f c + i g``, ``h' = o tanh(c')``
      (eqs. 1 to 3), forget gate's bias 1;
    * ``logits = L_o (E y_{t-1} + L_h h' + L_z z)`` (deep output, eq. 7);
    * ``h_0`` and ``c_0`` are two perceptrons (tanh) of the mean annotation (section 3.1.2).

    The word before the first is a learned vector. Sows ``losses/attention_coverage`` ``[batch]``, the doubly stochastic
    regulariser ``sum_i (1 - sum_t alpha_ti)^2`` (eq. 14; over real items and words, the mean of an example's captions),
    and the weights ``[batch, *captions, length, items]`` as ``intermediates/annotation_attention_weights``.

    Attributes:
      dim: width of state and word vectors.
      vocab_size: ids run from 0 to ``vocab_size - 1``.
      attention_dim: hidden width of the attention's MLP; None = ``dim``.
      dropout_rate: of the word vectors and of the deep output.
      coverage: weight of the regulariser; 0 = it is not sown.

    Example:
      >>> memory, words = Stream.of(jnp.ones((2, 5, 3))), Stream.of(jnp.zeros((2, 4), int))
      >>> head = AttentionLSTMDecoder(8, vocab_size=6)
      >>> logits, _ = jax.jit(head.init_with_output)(jax.random.key(0), memory, targets=words)
      >>> logits.shape
      (2, 4, 6)
    """

    dim: int
    vocab_size: int
    attention_dim: int | None = None
    dropout_rate: float = 0.0
    coverage: float = 1.0
    dtype: Dtype | None = None

    def setup(self) -> None:
        init, inner = nn.initializers.normal(self.dim**-0.5), self.attention_dim or self.dim
        self.embedding = TokenEmbedding(self.dim, self.vocab_size, None, init, self.dtype)
        self.first = self.param("first", init, (self.dim,), jnp.float32)
        self.init_hidden, self.init_memory = Dense(self.dim, dtype=self.dtype), Dense(self.dim, dtype=self.dtype)
        self.annotation = Dense(inner, dtype=self.dtype)
        self.word = Dense(4 * self.dim, use_bias=False, dtype=self.dtype)
        self.out_hidden, self.out_context = (Dense(self.dim, use_bias=False, dtype=self.dtype) for _ in range(2))
        self.out = Dense(self.vocab_size, dtype=self.dtype)
        self.dropout = nn.Dropout(self.dropout_rate)

    def __call__(
        self, stream: Stream, *, targets: Stream | None = None, train: bool = False
    ) -> Float[Array, "b *captions t vocab_size"]:
        """Logits of every token of ``targets``, a stream of ids ``[batch, length]`` or ``[batch, captions, length]``.

        Raises:
          ValueError: no targets.
        """
        logits, weights, mask = self._teach(stream, check_targets(self, targets), train)
        if self.coverage:
            shortfall = apply_mask(1 - weights.sum(-2), stream.mask if mask.ndim == 2 else stream.mask[:, None])
            if mask.ndim == 2:
                loss = apply_mask(jnp.square(shortfall).sum(-1), mask.any(-1))
            else:
                said = mask.any(-1)
                loss = apply_mask(jnp.square(shortfall).sum(-1), said).sum(-1) / jnp.maximum(said.sum(-1), 1)
            self.sow("losses", "attention_coverage", self.coverage * loss)
        self.sow("intermediates", "annotation_attention_weights", weights)
        return logits

    def explain(self, stream: Stream, targets: Stream) -> Float[Array, "b *captions t items"]:
        """Where each token looked: weights over the items, 1 together at a real token, 0 at any other."""
        return self._teach(stream, check_targets(self, targets), False)[1]

    def start(self, stream: Stream, max_length: int) -> LSTMCache:
        """The state before the first word; the length does not matter."""
        stream = stream.zeroed
        mean = masked_mean(stream.values, stream.mask)
        hidden, memory = (jnp.tanh(part(mean)).astype(jnp.float32) for part in (self.init_hidden, self.init_memory))
        return LSTMCache(hidden, memory, Shared((stream.values, self.annotation(stream.values), stream.mask)))

    def step(
        self, ids: Int[Array, " b"], cache: LSTMCache, position: Int[Array, ""]
    ) -> tuple[Float[Array, "b vocab_size"], LSTMCache]:
        """Logits of token number ``position``, given the one before it (whatever it is at 0) and the state."""
        vectors = self.embedding(ids[:, None], jnp.ones((len(ids), 1), bool))[:, 0]
        vectors = jnp.where(position == 0, self.first.astype(vectors.dtype), vectors)
        items = cache.items.value
        weights = self._weights(items[0].shape[-1])
        state, context, _ = _advance(weights, items, (cache.hidden, cache.memory), self.word(vectors))
        logits = self._logits(vectors, state[0], context, train=False)
        return logits, cache.replace(hidden=state[0], memory=state[1])

    def _teach(self, stream: Stream, targets: Stream, train: bool) -> tuple[Any, Any, Any]:
        """Logits, attention weights, and the mask of the targets."""
        flat = jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), targets)
        rows, length = flat.mask.shape
        before = jnp.pad(flat.mask[:, :-1], ((0, 0), (1, 0)), constant_values=True)
        vectors = self.embedding(flat.values[:, :-1], flat.mask[:, :-1])
        first = jnp.broadcast_to(self.first.astype(vectors.dtype), (rows, 1, self.dim))
        vectors = self.dropout(jnp.concatenate([first, vectors], 1), deterministic=not train)
        # After a hole in the mask all is as after the last real word: nothing moves, and what was there is taken again.
        last = jax.lax.cummax(jnp.where(before, jnp.arange(length), 0), axis=1)
        cache = self.start(stream, length)
        items, weights = cache.items.value, self._weights(stream.values.shape[-1])
        state = tuple(jnp.repeat(x, rows // len(x), axis=0) for x in (cache.hidden, cache.memory))

        def body(state: Any, now: Any) -> Any:
            from_word, real = now
            new, context, alpha = _advance(weights, items, state, from_word)
            state = tuple(jnp.where(real[:, None], a, b) for a, b in zip(new, state))
            return state, (state[0], context, alpha)

        steps = self.word(vectors).swapaxes(0, 1), before.T
        hidden, context, alpha = (
            jnp.take_along_axis(x.swapaxes(0, 1), last[..., None], 1) for x in jax.lax.scan(body, state, steps)[1]
        )
        vectors = jnp.take_along_axis(vectors, last[..., None], 1)
        logits = self._logits(vectors, hidden, context, train=train)
        alpha = apply_mask(alpha, flat.mask)
        logits, alpha = (x.reshape(*targets.mask.shape, -1) for x in (logits, alpha))
        return apply_mask(logits, targets.mask), alpha, targets.mask

    def _logits(self, vectors: Any, hidden: Any, context: Any, *, train: bool) -> Any:
        deep = vectors + self.out_hidden(hidden.astype(vectors.dtype)) + self.out_context(context.astype(vectors.dtype))
        return self.out(self.dropout(deep, deterministic=not train)).astype(jnp.float32)

    @nn.compact
    def _weights(self, width: int) -> dict[str, Any]:
        """The parameters inside the loop, for annotations of this width."""
        init, inner, dim = nn.initializers.lecun_normal(), self.attention_dim or self.dim, self.dim
        forget = jnp.zeros(4 * dim).at[dim : 2 * dim].set(1.0)
        return {
            "query": self.param("query", init, (dim, inner), jnp.float32),
            "score": self.param("score", init, (inner, 1), jnp.float32),
            "gate": self.param("gate", init, (dim, 1), jnp.float32),
            "gate_bias": self.param("gate_bias", nn.initializers.zeros_init(), (1,), jnp.float32),
            "state": self.param("state", init, (dim, 4 * dim), jnp.float32),
            "context": self.param("context", init, (width, 4 * dim), jnp.float32),
            "bias": self.param("bias", lambda key: forget),
        }


def _advance(weights: Any, items: Any, state: Any, from_word: Any) -> tuple[tuple[Any, Any], Any, Any]:
    """One step: the new state ``[rows, dim]``, the gated context ``[rows, width]`` and the weights ``[rows, items]``.

    There may be several rows for each example of the items, one after the other.
    """
    annotations, keys, mask = items
    hidden, memory = state
    rows, dtype = len(hidden), annotations.dtype
    weights = {name: value.astype(dtype) for name, value in weights.items()}
    narrow = hidden.astype(dtype)
    query = (narrow @ weights["query"]).reshape(len(keys), -1, 1, keys.shape[-1])
    scores = (jnp.tanh(keys[:, None] + query) @ weights["score"])[..., 0]
    alpha = masked_softmax(scores, mask[:, None])
    context = jnp.einsum("bns,bsd->bnd", alpha.astype(dtype), annotations).reshape(rows, -1)
    context = jax.nn.sigmoid(narrow @ weights["gate"] + weights["gate_bias"]) * context
    gates = from_word + narrow @ weights["state"] + context @ weights["context"] + weights["bias"]
    i, f, o, g = jnp.split(gates.astype(jnp.float32), 4, axis=-1)
    memory = jax.nn.sigmoid(f) * memory + jax.nn.sigmoid(i) * jnp.tanh(g)
    return (jax.nn.sigmoid(o) * jnp.tanh(memory), memory), context, alpha.reshape(rows, -1)
