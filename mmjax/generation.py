"""Sequences from a model with a ``TextDecoder`` as its head, token by token with a cache."""

from typing import Any

import jax
import jax.numpy as jnp

from mmjax.models import Multimodal
from mmjax.stream import Stream
from mmjax.typing import Mapping, PyTree

__all__ = ["generate_greedily"]


def generate_greedily(
    model: Multimodal, variables: PyTree, streams: Mapping[str, Stream], *, max_length: int, end_id: int | None = None
) -> Stream:
    """The most likely token after the most likely ones before it: ids ``[batch, max_length]``, one compiled loop.

    The mask ends before the first ``end_id``; None = every sequence is of ``max_length``. Ids beyond the mask are
    ``end_id`` (0 without one). Encoders and fusion run once.

    Args:
      model: a ``Multimodal`` whose head is a ``TextDecoder``.
    """

    def start(model: Multimodal, streams: Mapping[str, Stream]) -> tuple[Any, int]:
        memory = model.fusion(model.encode(streams), train=False)
        return model.head.start(memory, max_length), len(memory.mask)

    def step(model: Multimodal, *now: Any) -> Any:
        return model.head.step(*now)

    caches, batch = model.apply(variables, dict(streams), method=start)

    def next_token(carry: tuple, position: Any) -> tuple:
        ids, going, caches = carry
        logits, caches = model.apply(variables, ids, caches, position, method=step)
        best = jnp.argmax(logits, -1).astype(jnp.int32)
        going = going & (best != (-1 if end_id is None else end_id))
        ids = jnp.where(going, best, 0 if end_id is None else end_id)
        return (ids, going, caches), (ids, going)

    begin = jnp.zeros(batch, jnp.int32), jnp.ones(batch, bool), caches
    ids: Any
    going: Any
    _, (ids, going) = jax.lax.scan(next_token, begin, jnp.arange(max_length))
    return Stream(ids.T, going.T)
