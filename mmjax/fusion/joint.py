"""One transformer over the tokens of all modalities: early fusion at the level of tokens."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mmjax.layers import LayerNorm, TransformerBlock, project_streams, sinusoidal_positions
from mmjax.stream import Stream, check_streams, join, masked_mean, pooled
from mmjax.typing import Dtype, Mapping

__all__ = ["JointTransformer"]


class JointTransformer(nn.Module):
    """Self-attention over ``[X_1 + e_1; ...; X_M + e_M]``, ``e_m`` a learned embedding of the modality.

    Over all tokens it is the single-stream transformer (VisualBERT, Li et al. 2019; ViLT, Kim et al. 2021), early
    fusion when the stems are thin. With ``per_modality=True`` each modality is pooled to one token first: the SimBaMM
    baseline (Rheude et al. 2025). Pre-norm blocks with a final norm, where VisualBERT is post-norm. A missing modality
    is masked tokens. In ``intermediates`` it reports its blocks' ``joint_attention_weights`` and whose the tokens are,
    ``joint_modalities``: the number of the modality in sorted order, -1 for the learned token, which stands first.

    Attributes:
      dim: width of the tokens and of the result; a stream of another width is projected.
      block: template of the layers.
      per_modality: one token per modality (its masked mean) instead of all its tokens.
      positions: adds sines and cosines of the position within each modality; False where its stem has done so.
      cls_token: prepends a learned token and returns it, ``[batch, 1, dim]``; False returns every token, for a head
        that pools them (masked mean is its default) or a decoder that reads them.

    Example:
      >>> streams = {"audio": Stream.of(jnp.ones((2, 5, 3))), "text": Stream.of(jnp.ones((2, 7, 8)))}
      >>> fused, _ = JointTransformer(dim=8, num_layers=1).init_with_output(jax.random.key(0), streams)
      >>> fused.values.shape
      (2, 1, 8)
    """

    dim: int
    num_layers: int = 2
    block: nn.Module = TransformerBlock()
    per_modality: bool = False
    positions: bool = False
    cls_token: bool = True
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, streams: Mapping[str, Stream], *, train: bool = False) -> Stream:
        check_streams(streams)
        if self.per_modality:
            streams = {name: pooled(masked_mean(s.values, s.mask), s.present) for name, s in streams.items()}
        embedded = {}
        for name, stream in project_streams(streams, self.dim, dtype=self.dtype).items():
            embedding = self.param(f"embedding_{name}", nn.initializers.normal(0.02), (self.dim,), jnp.float32)
            if self.positions:
                embedding = embedding + sinusoidal_positions(stream.length, self.dim)
            embedded[name] = stream.replace(values=stream.values + embedding.astype(stream.values.dtype))
        tokens = join(embedded)
        x, mask = tokens.values, tokens.mask
        if self.cls_token:
            cls = self.param("cls", nn.initializers.normal(0.02), (self.dim,), jnp.float32).astype(x.dtype)
            x = jnp.concatenate([jnp.broadcast_to(cls, (x.shape[0], 1, self.dim)), x], axis=1)
            mask = jnp.pad(mask, ((0, 0), (1, 0)), constant_values=True)
        owners = np.repeat(np.arange(len(embedded)), [stream.length for stream in embedded.values()])
        self.sow("intermediates", "joint_modalities", jnp.asarray([-1] * self.cls_token + owners.tolist()))
        for i in range(self.num_layers):
            block = self.block.clone(name=f"block_{i}", parent=self)
            x = block(x, mask=mask, role="joint", train=train)
        x = LayerNorm(dtype=self.dtype, name="norm")(x)
        if self.cls_token:
            return pooled(x[:, 0], tokens.mask.any(-1))
        return Stream(x, mask).zeroed
