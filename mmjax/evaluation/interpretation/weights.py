"""Weights that modules report: over modalities, over tokens, and attention rollout through layers.

A weight is not importance: it tells what was mixed, not how the mixture was used.
"""

import re
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from mmjax.evaluation.interpretation.scores import compiled
from mmjax.stream import Stream, apply_mask
from mmjax.typing import Array, Bool, Float, Mapping, PyTree

__all__ = ["attention_maps", "attention_rollout", "collect", "modality_weights", "token_weights"]


def collect(model: nn.Module, variables: PyTree, streams: Mapping[str, Stream]) -> dict[str, Any]:
    """Everything that modules sow in ``intermediates``, by path: ``fusion/modality_weights``, ...

    A module that is called more than once has ``path.0``, ``path.1``, ...; layers are in numeric order.
    """
    run, sown = compiled(_intermediates, "model", effort=0), {}
    for path, values in flatten_dict(run(model, variables, dict(streams)), sep="/").items():
        many = len(values) > 1
        sown.update({f"{path}.{i}" if many else path: value for i, value in enumerate(values)})
    return dict(sorted(sown.items(), key=lambda item: _natural(item[0])))


def _intermediates(model: nn.Module, variables: PyTree, streams: Mapping[str, Stream]) -> PyTree:
    _, state = model.apply(variables, streams, train=False, mutable=["intermediates"])
    return dict(state).get("intermediates", {})


def _encoded_masks(model: nn.Module, variables: PyTree, streams: Mapping[str, Stream]) -> dict[str, Any]:
    encoded: Any = model.apply(variables, streams, method="encode")
    return {name: stream.mask for name, stream in encoded.items()}


def _natural(path: str) -> list[Any]:
    """Sorts ``block_2`` before ``block_10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path)]


def attention_maps(sown: Mapping[str, Any], under: str = "", *, role: str = "self") -> list[Any]:
    """Attention maps ``[batch, heads, queries, keys]`` of the modules below ``under`` (``fusion``, ``encoders_text``),
    in order of layers.

    Args:
      role: as ``MultiHeadAttention`` reports it: ``self``, ``joint``, ``cross``, or ``text_to_audio`` for queries of
        text and keys of audio. A square map need not be self-attention.
    """
    inside = {path: value for path, value in sown.items() if path.startswith(f"{under}/" if under else "")}
    return [value for path, value in inside.items() if re.search(rf"(^|/){role}_attention_weights(\.\d+)?$", path)]


def attention_rollout(
    maps: Sequence[Float[Array, "b h t t"]], mask: Bool[Array, "b t"] | None = None, *, residual: float = 0.5
) -> Float[Array, "b t t"]:
    """``A_L ... A_1`` with ``A = residual I + (1 - residual) mean over heads`` (Abnar & Zuidema 2020, section 3).

    Row ``i`` is the origin of the content of token ``i`` after the last layer; it sums to 1, also for a token without
    keys to attend to. Rows and columns of padding are exactly 0.

    Raises:
      ValueError: no maps, or maps of different lengths.
    """
    if not maps or len({value.shape[-2:] for value in maps}) > 1:
        raise ValueError(f"rollout needs maps of one length, got {[value.shape for value in maps]}")
    identity = jnp.eye(maps[0].shape[-1])
    result = identity[None]
    for value in maps:
        mixed = residual * identity + (1 - residual) * jnp.asarray(value, jnp.float32).mean(1)
        result = (mixed / mixed.sum(-1, keepdims=True)) @ result
    if mask is None:
        return result
    return apply_mask(apply_mask(result, mask).swapaxes(1, 2), mask).swapaxes(1, 2)


def token_weights(model: nn.Module, variables: PyTree, streams: Mapping[str, Stream]) -> dict[str, Any]:
    """Attention rollout of a joint transformer onto its input tokens: ``[batch, length]`` of each modality.

    The row of the learned token without that token, or the mean over all real tokens; each example sums to 1. Tokens
    are the encoders' outputs; a fusion that pools each modality first has one token of each.

    Args:
      model: a ``Multimodal`` whose fusion is a joint transformer.

    Raises:
      ValueError: it is not.
    """
    masks = compiled(_encoded_masks, "model", effort=0)(model, variables, dict(streams))
    sown = collect(model, variables, streams)
    maps = attention_maps(sown, "fusion", role="joint")
    owners = [np.asarray(value) for path, value in sown.items() if path.rpartition("/")[2] == "joint_modalities"]
    names = sorted(masks)
    if len(owners) != 1 or not maps or len(maps[0]) != len(masks[names[0]]):
        raise ValueError(
            f"weights of tokens need a fusion of one transformer over the tokens of {names}, once per example; it "
            f"reports {sorted(path for path in sown if path.startswith('fusion/')) or 'nothing'}"
        )
    lengths = [int((owners[0] == place).sum()) for place in range(len(names))]
    tokens = [
        masks[name] if masks[name].shape[1] == length else masks[name].any(1, keepdims=True)  # pooled by the fusion
        for name, length in zip(names, lengths)
    ]
    real = jnp.concatenate(tokens, axis=1)
    extra = int((owners[0] < 0).sum())
    rollout = attention_rollout(maps, jnp.pad(real, ((0, 0), (extra, 0)), constant_values=True))
    row = apply_mask(rollout[:, 0, 1:] if extra else rollout.sum(1), real)
    row = row / jnp.maximum(row.sum(-1, keepdims=True), jnp.finfo(row.dtype).tiny)
    edges = [sum(lengths[:i]) for i in range(1, len(lengths))]
    return dict(zip(names, jnp.split(row, edges, axis=1)))


def modality_weights(model: nn.Module, variables: PyTree, streams: Mapping[str, Stream]) -> dict[str, Any]:
    """The weight that the fusion reports for each modality, ``[batch]``; exactly 0 where it is absent.

    Weights over modalities unchanged, gates averaged over features, ``token_weights`` of a joint transformer summed.

    Raises:
      ValueError: the fusion reports none.
    """
    sown = collect(model, variables, streams)
    for name, mean in (("modality_weights", False), ("modality_gates", True)):
        for path, value in sown.items():
            if path.rpartition("/")[2] == name and value.shape[1] == len(streams):
                value = value.mean(-1) if mean else value
                return {key: value[:, i] for i, key in enumerate(sorted(streams))}
    if attention_maps(sown, "fusion", role="joint"):
        return {name: value.sum(1) for name, value in token_weights(model, variables, streams).items()}
    raise ValueError(f"the fusion reports no weights of modalities; what it reports: {sorted(sown) or 'nothing'}")
