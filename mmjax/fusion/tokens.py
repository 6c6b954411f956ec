"""Tokens of a target that stay tokens, with other modalities beside or in them: what a decoder of sentences reads."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.layers import Dense, project_streams, project_target
from mmjax.stream import Stream, apply_mask, join, masked_mean
from mmjax.typing import Dtype, Mapping

__all__ = ["GatedTokens", "JoinedTokens"]


class GatedTokens(nn.Module):
    """Adds other modalities to the tokens of one, through a gate of each token (gated fusion, Wu et al. 2021).

    ``h_t + sum_m g_tm * v_m`` with ``v_m = W_m x_m`` of the pooled context modality and ``g_tm = sigmoid(G_m v_m + U_m
    h_t)``, a number for each dimension. Of the paper's translator, which has one image, it departs in having biases in
    the gate. The result has the tokens and the mask of the target; an absent context adds exactly 0. Reports the gates
    ``[batch, tokens, dim]`` as ``intermediates/gate_NAME``; the paper reads their mean.

    Attributes:
      dim: width of the result; a target of another width is projected.
      target: the stream whose tokens are kept; None = the first in sorted order.
      context: the streams that are added; None = all others.

    Example:
      >>> streams = {"image": Stream.of(jnp.ones((2, 5, 3))), "text": Stream.of(jnp.ones((2, 7, 8)))}
      >>> fused, _ = GatedTokens(dim=8, target="text").init_with_output(jax.random.key(0), streams)
      >>> fused.values.shape
      (2, 7, 8)
    """

    dim: int
    target: str | None = None
    context: tuple[str, ...] | None = None
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, streams: Mapping[str, Stream], *, train: bool = False) -> Stream:
        _, context, tokens = project_target(self, streams)
        result = tokens.values
        for name in context:
            image = Dense(self.dim, use_bias=False, dtype=self.dtype, name=f"value_{name}")
            of_value = Dense(self.dim, dtype=self.dtype, name=f"gate_value_{name}")
            of_token = Dense(self.dim, use_bias=False, dtype=self.dtype, name=f"gate_token_{name}")
            value = image(masked_mean(streams[name].values, streams[name].mask))[:, None]
            gate = jax.nn.sigmoid((of_value(value) + of_token(tokens.values)).astype(jnp.float32))
            present = streams[name].present[:, None] & tokens.mask
            gate = apply_mask(gate, present)
            self.sow("intermediates", f"gate_{name}", gate)
            result = result + gate.astype(result.dtype) * value
        return tokens.replace(values=result).zeroed


class JoinedTokens(nn.Module):
    """The tokens of all modalities in one sequence, in sorted order of the names; each kind has a learned mark.

    A decoder that attends to the result chooses word by word what it reads (as Caglayan et al. 2016 attend to both).

    Attributes:
      dim: width of the result; streams of another width are projected.

    Example:
      >>> streams = {"image": Stream.of(jnp.ones((2, 5, 3))), "text": Stream.of(jnp.ones((2, 7, 8)))}
      >>> fused, _ = JoinedTokens(dim=8).init_with_output(jax.random.key(0), streams)
      >>> fused.values.shape
      (2, 12, 8)
    """

    dim: int
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, streams: Mapping[str, Stream], *, train: bool = False) -> Stream:
        marked = {}
        for name, stream in project_streams(streams, self.dim, dtype=self.dtype).items():
            mark = self.param(f"mark_{name}", nn.initializers.normal(0.02), (self.dim,), jnp.float32)
            marked[name] = stream.replace(values=stream.values + mark.astype(stream.values.dtype))
        return join(marked)
