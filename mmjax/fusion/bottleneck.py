"""Fusion through a few shared tokens: modalities attend to themselves and exchange what fits into a bottleneck."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmjax.layers import LayerNorm, TransformerBlock, project_streams, sinusoidal_positions
from mmjax.stream import Stream, apply_mask, masked_mean
from mmjax.typing import Dtype, Mapping

__all__ = ["BottleneckFusion"]


class BottleneckFusion(nn.Module):
    """Attention bottlenecks, MBT (Nagrani et al. 2021, eqs. 6 to 9): a transformer per modality, ``z`` between them.

    From ``start_layer`` on, each modality's layer reads and writes its own tokens and the bottleneck's,
    ``[X_m; z_m] = layer_m([X_m; z])``, and ``z`` becomes the mean of ``z_m`` over the modalities present (the paper
    knows no missing ones). Thin stems go outside, the depth is in here. The result is one learned token per modality
    ``[batch, modality, dim]`` in sorted order, mask = present; a linear head on their mean gives the mean of the
    modalities' logits, the paper's output. Pre-norm blocks as in the paper, with a final norm per modality.

    What one modality says reaches another after two fused layers, one in and one out: with ``start_layer`` at
    ``num_layers`` or one below, no modality's token depends on another modality, and the fusion is late.

    Attributes:
      dim: width of the tokens and of the result; a stream of another width is projected.
      start_layer: first fused layer, counted from 0.
      num_bottlenecks: tokens of the bottleneck.
      block: template of the layers of every modality.
      positions: adds sines and cosines of the position within each modality; False where its stem has done so.

    Example:
      >>> streams = {"audio": Stream.of(jnp.ones((2, 5, 3))), "text": Stream.of(jnp.ones((2, 7, 8)))}
      >>> fused, _ = BottleneckFusion(dim=8, num_layers=2, start_layer=0).init_with_output(jax.random.key(0), streams)
      >>> fused.values.shape
      (2, 2, 8)
    """

    dim: int
    num_layers: int = 4
    start_layer: int = 2
    num_bottlenecks: int = 4
    block: nn.Module = TransformerBlock()
    positions: bool = False
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, streams: Mapping[str, Stream], *, train: bool = False) -> Stream:
        if not 0 <= self.start_layer <= self.num_layers:
            raise ValueError(f"{self.start_layer=} must lie between 0 and {self.num_layers=}")
        if self.num_bottlenecks < 1 and self.start_layer < self.num_layers:
            raise ValueError(f"{self.num_bottlenecks=} must be at least 1; start_layer=num_layers is late fusion")
        tokens = {
            name: self._begin(name, s) for name, s in project_streams(streams, self.dim, dtype=self.dtype).items()
        }
        present = jnp.stack([streams[name].present for name in tokens], axis=1)
        some = next(iter(tokens.values())).values
        shape = (some.shape[0], self.num_bottlenecks, self.dim)
        bottleneck = jnp.broadcast_to(self._token("bottleneck", self.num_bottlenecks, some), shape)
        for i in range(self.num_layers):
            fused = i >= self.start_layer
            written = []
            for name, stream in tokens.items():
                x, mask = stream.values, stream.mask
                if fused:
                    x = jnp.concatenate([x, bottleneck], axis=1)
                    mask = jnp.pad(mask, ((0, 0), (0, self.num_bottlenecks)), constant_values=True)
                block = self.block.clone(name=f"block_{name}_{i}", parent=self)
                x = block(x, mask=mask, role=f"{name}_to_{name}", train=train)
                tokens[name] = stream.replace(values=x[:, : stream.length])
                written.append(x[:, stream.length :])
            if fused:
                bottleneck = masked_mean(jnp.stack(written, axis=1), present)
        norms = [LayerNorm(dtype=self.dtype, name=f"norm_{name}")(s.values[:, 0]) for name, s in tokens.items()]
        return Stream(apply_mask(jnp.stack(norms, axis=1), present), present)

    def _begin(self, name: str, stream: Stream) -> Stream:
        """The learned token of the modality before its items."""
        x = stream.values
        if self.positions:
            x = x + sinusoidal_positions(stream.length, self.dim).astype(x.dtype)
        first = jnp.broadcast_to(self._token(f"token_{name}", 1, x), (x.shape[0], 1, self.dim))
        mask = jnp.pad(stream.mask, ((0, 0), (1, 0)), constant_values=True)
        return Stream(jnp.concatenate([first, x], axis=1), mask)

    def _token(self, name: str, count: int, like: Any) -> Any:
        init = nn.initializers.normal(0.02)
        return self.param(name, init, (count, self.dim), jnp.float32).astype(like.dtype)
