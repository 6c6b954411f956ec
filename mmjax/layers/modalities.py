"""Modalities of any width and length as tokens of one width: what most fusions begin with."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from mmjax.layers.dense import Dense
from mmjax.stream import Stream, apply_mask, assign_roles, check_streams, masked_mean
from mmjax.typing import Dtype, Mapping

__all__ = ["pool_modalities", "project_streams", "project_target"]


def _project(name: str, values: Any, dim: int, dtype: Dtype | None) -> Any:
    """Brings one modality to ``dim``; a parameter only where the width differs, named after the modality."""
    if values.shape[-1] == dim:
        return values if dtype is None else values.astype(dtype)
    return Dense(dim, dtype=dtype, name=f"project_{name}")(values)


def project_streams(streams: Mapping[str, Stream], dim: int, *, dtype: Dtype | None = None) -> dict[str, Stream]:
    """Token streams of width ``dim``, zero in their padding; call it inside an ``nn.compact`` method.

    Raises:
      ValueError: no stream, or one that is not a sequence of feature vectors.

    Example:
      >>> class Longest(nn.Module):
      ...     @nn.compact
      ...     def __call__(self, streams):
      ...         return max(project_streams(streams, 8).values(), key=lambda stream: stream.length)
      >>> streams = {"audio": Stream.of(jnp.ones((2, 5, 3))), "text": Stream.of(jnp.ones((2, 7, 8)))}
      >>> tokens, variables = Longest().init_with_output(jax.random.key(0), streams)
      >>> tokens.values.shape, list(variables["params"])
      ((2, 7, 8), ['project_audio'])
    """
    check_streams(streams)
    return {
        name: stream.replace(values=_project(name, stream.zeroed.values, dim, dtype)).zeroed
        for name, stream in sorted(streams.items())
    }


def project_target(module: Any, streams: Mapping[str, Stream]) -> tuple[str, tuple[str, ...], Stream]:
    """Target and context of a module with ``dim``, ``target``, ``context`` and ``dtype``, and the target's tokens as
    ``project_streams`` gives them; call it inside an ``nn.compact`` method.

    Raises:
      ValueError: as ``project_streams`` and ``mmjax.stream.assign_roles``.

    Example:
      >>> class Kept(nn.Module):
      ...     dim: int
      ...     target: str | None = None
      ...     context: tuple[str, ...] | None = None
      ...     dtype: Dtype | None = None
      ...
      ...     @nn.compact
      ...     def __call__(self, streams):
      ...         return project_target(self, streams)
      >>> streams = {"audio": Stream.of(jnp.ones((2, 5, 3))), "text": Stream.of(jnp.ones((2, 7, 8)))}
      >>> (target, context, tokens), _ = Kept(8).init_with_output(jax.random.key(0), streams)
      >>> target, context, tokens.values.shape
      ('audio', ('text',), (2, 5, 8))
    """
    check_streams(streams)
    target, context = assign_roles(streams, module.target, module.context)
    return target, context, project_streams({target: streams[target]}, module.dim, dtype=module.dtype)[target]


def pool_modalities(
    streams: Mapping[str, Stream], dim: int, *, pool: Callable = masked_mean, dtype: Dtype | None = None
) -> Stream:
    """One token per modality ``[batch, modality, dim]``, in sorted order of the names, with mask = present.

    Each stream is pooled over its length, then projected if its width differs from ``dim`` (the mean of a linear map
    is the map of the mean, and cheaper). Call it inside an ``nn.compact`` method.

    Raises:
      ValueError: no stream, or one that is not a sequence of feature vectors.

    Example:
      >>> class Largest(nn.Module):
      ...     @nn.compact
      ...     def __call__(self, streams):
      ...         tokens = pool_modalities(streams, 8)
      ...         return pooled(masked_max(tokens.values, tokens.mask), tokens.mask.any(-1))
      >>> streams = {"audio": Stream.of(jnp.ones((2, 5, 3))), "text": Stream.of(jnp.ones((2, 7, 8)))}
      >>> Largest().init_with_output(jax.random.key(0), streams)[0].values.shape
      (2, 1, 8)
    """
    check_streams(streams)
    ordered = sorted(streams.items())
    present = jnp.stack([stream.present for _, stream in ordered], axis=1)
    values = [_project(name, pool(stream.values, stream.mask), dim, dtype) for name, stream in ordered]
    return Stream(apply_mask(jnp.stack(values, axis=1), present), present)
