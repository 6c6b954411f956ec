"""Late fusion: deep features of each modality side by side, then an MLP."""

import flax.linen as nn

from mmjax.layers import MLP, pool_modalities
from mmjax.stream import Stream, pooled
from mmjax.typing import Dtype, Mapping

__all__ = ["Concat"]


class Concat(nn.Module):
    """Concatenates the pooled modalities and applies an MLP: ``z = MLP([v_1; ...; v_M])``.

    An absent modality is a block of zeros. The number and the names of the modalities are fixed by the first call.

    Attributes:
      dim: width of each block and of the result; a stream of another width is projected.
      hidden_dims: widths of the hidden layers; empty = one linear map.
    """

    dim: int
    hidden_dims: tuple[int, ...] = ()
    dropout_rate: float = 0.0
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, streams: Mapping[str, Stream], *, train: bool = False) -> Stream:
        tokens = pool_modalities(streams, self.dim, dtype=self.dtype)
        flat = tokens.values.reshape(tokens.values.shape[0], -1)
        mlp = MLP((*self.hidden_dims, self.dim), dropout_rate=self.dropout_rate, dtype=self.dtype, name="mlp")
        return pooled(mlp(flat, train=train), tokens.mask.any(-1))
