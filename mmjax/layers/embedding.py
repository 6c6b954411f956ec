"""A learned vector per token id."""

import flax.linen as nn
import jax.numpy as jnp

from mmjax.stream import apply_mask
from mmjax.typing import Array, Bool, Dtype, Float, Int, Shaped

__all__ = ["TokenEmbedding"]


class TokenEmbedding(nn.Module):
    """A learned vector per token id, zero in the padding; float32 unless ``dtype`` says otherwise.

    Attributes:
      features: width of the vectors.
      vocab_size: real ids run from 0 to ``vocab_size - 1``.
      unknown_id: the id in whose place any other real id is read; None = such an id gives NaN, so that a vocabulary
        that does not fit the data stops the training at its first step. Ids in the padding never matter.

    Example:
      >>> ids, mask = jnp.array([[1, 4]]), jnp.array([[True, False]])
      >>> vectors, _ = TokenEmbedding(features=3, vocab_size=5).init_with_output(jax.random.key(0), ids, mask)
      >>> vectors.shape, vectors[0, 1].tolist()
      ((1, 2, 3), [0.0, 0.0, 0.0])
    """

    features: int
    vocab_size: int
    unknown_id: int | None = None
    embedding_init: nn.initializers.Initializer = nn.initializers.normal(0.02)
    dtype: Dtype | None = None

    def setup(self) -> None:
        if self.unknown_id is not None and not 0 <= self.unknown_id < self.vocab_size:
            raise ValueError(f"{self.unknown_id=} must be one of the {self.vocab_size=} ids")
        self.table = self.param("embedding", self.embedding_init, (self.vocab_size, self.features), jnp.float32)

    def __call__(self, ids: Int[Array, "b t"], mask: Bool[Array, "b t"]) -> Float[Array, "b t features"]:
        in_vocabulary = (ids >= 0) & (ids < self.vocab_size)
        vectors = self.table.astype(self.dtype or jnp.float32)[jnp.where(in_vocabulary, ids, self.unknown_id or 0)]
        if self.unknown_id is None:
            vectors = jnp.where(in_vocabulary[..., None], vectors, jnp.nan)
        return apply_mask(vectors, mask)

    def products(self, x: Shaped[Array, "*lead features"]) -> Shaped[Array, "*lead vocab_size"]:
        """The product of each item with the vector of each token: logits of tied embeddings (Press & Wolf 2017)."""
        flat = x.reshape(-1, self.features)
        return (flat @ self.table.astype(x.dtype).T).reshape(*x.shape[:-1], self.vocab_size)
