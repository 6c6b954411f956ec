"""Layers of LSTM or GRU over a sequence of feature vectors."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from mmjax.encoders.features import feature_sequence
from mmjax.encoders.stages import ALL, run_stages
from mmjax.layers import LSTM, Dense
from mmjax.stream import Stream
from mmjax.typing import Dtype

__all__ = ["Recurrent"]


class Recurrent(nn.Module):
    """Layers of LSTM or GRU over a sequence of feature vectors; as many tokens out as items in.

    Two-way layers (Schuster & Paliwal 1997) put the state of the forward half before that of the backward half. A
    mask may have holes: the result is that of the sequence without them.

    Attributes:
      dim: width of the tokens.
      cell: ``LSTM``, ``GRU`` or any ``cell(features=, dtype=, name=)`` called with ``(x, mask, reverse=)``.
      hidden_dim: width of the state of each direction; None = ``dim``, halved when two-way. A linear map follows where
        the state (both directions) is not ``dim`` wide.
      dropout_rate: of what enters each layer but the first, and of what leaves the last.

    Example:
      >>> steps = Stream.of(jnp.ones((2, 5, 3)))
      >>> tokens, _ = Recurrent(dim=4, bidirectional=True).init_with_output(jax.random.key(0), steps)
      >>> tokens.values.shape
      (2, 5, 4)
    """

    dim: int
    cell: Callable[..., nn.Module] = LSTM
    bidirectional: bool = False
    num_layers: int = 1
    hidden_dim: int | None = None
    dropout_rate: float = 0.0
    dtype: Dtype | None = None

    @property
    def num_stages(self) -> int:
        """The layers."""
        return self.num_layers

    @nn.compact
    def __call__(self, stream: Stream, *, train: bool = False, stages: slice = ALL) -> Stream:
        directions = {"forward": False, "backward": True} if self.bidirectional else {"forward": False}
        if self.hidden_dim is None and self.dim % len(directions):
            raise ValueError(f"two directions halve {self.dim=}: make it even, or give hidden_dim")
        if self.num_layers < 1:
            raise ValueError(f"{self.num_layers=} must be at least 1")
        width = self.hidden_dim or self.dim // len(directions)

        def layer(i: int, stream: Stream) -> Stream:
            x, mask = feature_sequence(stream, self.dtype), stream.mask
            cells = {name: self.cell(features=width, dtype=self.dtype, name=f"{name}_{i}") for name in directions}
            x = jnp.concatenate([cells[name](x, mask, reverse=back) for name, back in directions.items()], -1)
            x = nn.Dropout(self.dropout_rate, deterministic=not train, name=f"dropout_{i}")(x)
            if i + 1 == self.num_layers and x.shape[-1] != self.dim:
                x = Dense(self.dim, dtype=self.dtype, name="project")(x)
            return Stream(x, mask).zeroed

        return run_stages([functools.partial(layer, i) for i in range(self.num_layers)], stream, stages)
