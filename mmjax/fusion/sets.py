"""The modalities as a set: one network for all of them, a sum, another network on the sum."""

import flax.linen as nn

from mmjax.layers import MLP, pool_modalities
from mmjax.stream import Stream, masked_sum, pooled
from mmjax.typing import Dtype, Mapping

__all__ = ["DeepSets"]


class DeepSets(nn.Module):
    """Sums what one network says of each modality present: ``z = rho(sum_m phi(v_m))`` (Zaheer et al. 2017, theorem 2).

    ``phi`` and ``rho`` are MLPs of the same hidden widths. ``phi`` is shared and never told which modality it sees, so
    permuting them changes nothing; what tells them apart is their encoders, or the projection of a stream of another
    width. A sum counts: the result depends on how many are present.

    Attributes:
      dim: width of the tokens, of ``phi``'s output and of the result; a stream of another width is projected.
      hidden_dims: widths of the hidden layers of each MLP; None = one of ``dim``, empty = one linear map.

    Example:
      >>> streams = {"audio": Stream.of(jnp.ones((2, 5, 3))), "text": Stream.of(jnp.ones((2, 7, 8)))}
      >>> fused, _ = DeepSets(dim=8).init_with_output(jax.random.key(0), streams)
      >>> fused.values.shape
      (2, 1, 8)
    """

    dim: int
    hidden_dims: tuple[int, ...] | None = None
    dropout_rate: float = 0.0
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, streams: Mapping[str, Stream], *, train: bool = False) -> Stream:
        tokens = pool_modalities(streams, self.dim, dtype=self.dtype)
        hidden_dims = (self.dim,) if self.hidden_dims is None else self.hidden_dims

        def mlp(name: str) -> MLP:
            return MLP((*hidden_dims, self.dim), dropout_rate=self.dropout_rate, dtype=self.dtype, name=name)

        total = masked_sum(mlp("phi")(tokens.values, train=train), tokens.mask)  # phi(0) is not 0: mask after it
        return pooled(mlp("rho")(total, train=train), tokens.mask.any(-1))
