"""Gates: one modality decides how much of another passes (GMU, FiLM), or of each channel in mid-encoder (MMTM)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.layers import Dense, project_target
from mmjax.stream import Stream, apply_mask, check_streams, masked_mean, masked_softmax, pooled
from mmjax.typing import Dtype, Mapping

__all__ = ["GMU", "MMTM", "FiLM"]


class GMU(nn.Module):
    """Gated multimodal unit (Arevalo et al. 2017): ``z = sum_m g_m * h_m`` with ``h_m = tanh(W_m x_m)``.

    Two modalities share one gate ``g = sigmoid(W_g [x_1; x_2])``, weighing ``g`` and ``1 - g``; where one of
    them is absent the other has weight 1. More, or one, have a gate each, ``g_m = sigmoid(W_gm [x_1; ...; x_M])``,
    which do not sum to 1. An absent modality is zero in every gate's input and has gate 0. Departs from the
    paper in having biases. Reports the gates ``[batch, modality, dim]`` (sorted names) as
    ``intermediates/modality_gates``; a gate is not importance.

    Attributes:
      dim: width of the result.
      normalise: a softmax over the present modalities instead of the sigmoids; common, but not the paper's.

    Example:
      >>> streams = {"audio": Stream.of(jnp.ones((2, 5, 3))), "text": Stream.of(jnp.ones((2, 7, 8)))}
      >>> fused, _ = GMU(dim=8).init_with_output(jax.random.key(0), streams)
      >>> fused.values.shape
      (2, 1, 8)
    """

    dim: int
    normalise: bool = False
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, streams: Mapping[str, Stream], *, train: bool = False) -> Stream:
        check_streams(streams)
        names = sorted(streams)
        present = jnp.stack([streams[name].present for name in names], axis=1)
        pools = [masked_mean(streams[name].values, streams[name].mask) for name in names]
        pooled_all = jnp.concatenate(pools, axis=-1)

        def dense(name: str) -> Dense:
            return Dense(self.dim, dtype=self.dtype, name=name)

        hidden = jnp.stack([jnp.tanh(dense(f"hidden_{name}")(x)) for name, x in zip(names, pools)], axis=-1)
        tied = len(names) == 2 and not self.normalise
        if tied:
            score = dense("gate")(pooled_all)
            scores = jnp.stack([score, jnp.zeros_like(score)], axis=-1)  # softmax(s, 0) = (sigmoid(s), 1 - sigmoid(s))
        else:
            scores = jnp.stack([dense(f"gate_{name}")(pooled_all) for name in names], axis=-1)
        mask = jnp.broadcast_to(present[:, None], scores.shape)
        if tied or self.normalise:
            gates = masked_softmax(scores, mask)
        else:
            gates = apply_mask(jax.nn.sigmoid(scores.astype(jnp.float32)), mask)
        self.sow("intermediates", "modality_gates", gates.swapaxes(1, 2))
        return pooled((gates.astype(hidden.dtype) * hidden).sum(-1), present.any(-1))


class FiLM(nn.Module):
    """Feature-wise linear modulation (Perez et al. 2018, eq. 2): ``gamma * tokens + beta``, by the other modalities.

    ``gamma = 1 + sum_m (W_m v_m + a_m)`` and ``beta = sum_m (U_m v_m + b_m)`` over the pooled context modalities that
    are present: with none of them the target passes unchanged. The result has the target's tokens and its mask: an
    absent target gives an absent result, for there is nothing to modulate (``NullToken`` puts something there).

    Attributes:
      dim: width of the result; a target of another width is projected.
      target: the stream that is modulated; None = the first in sorted order.
      context: the streams that modulate it; None = all others.
      zero_init: starts as the identity.

    Example:
      >>> streams = {"audio": Stream.of(jnp.ones((2, 5, 3))), "text": Stream.of(jnp.ones((2, 7, 8)))}
      >>> fused, _ = FiLM(dim=8, target="text").init_with_output(jax.random.key(0), streams)
      >>> fused.values.shape
      (2, 7, 8)
    """

    dim: int
    target: str | None = None
    context: tuple[str, ...] | None = None
    zero_init: bool = False
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, streams: Mapping[str, Stream], *, train: bool = False) -> Stream:
        _, context, tokens = project_target(self, streams)
        init = nn.initializers.zeros_init() if self.zero_init else nn.initializers.lecun_normal()
        change = jnp.zeros((tokens.values.shape[0], 2 * self.dim), tokens.values.dtype)
        for name in context:
            film = Dense(2 * self.dim, dtype=self.dtype, kernel_init=init, name=f"film_{name}")
            pool = masked_mean(streams[name].values, streams[name].mask)
            change = change + apply_mask(film(pool), streams[name].present)  # its bias must not modulate either
        scale, shift = jnp.split(change[:, None], 2, axis=-1)
        return tokens.replace(values=tokens.values * (1 + scale) + shift).zeroed


class MMTM(nn.Module):
    """Multimodal transfer module (Vaezi Joze et al. 2020): an exchange that re-weights every stream's channels.

    Squeeze ``s_m`` = the mean of the stream over every axis but the channels, ``Z = relu(W [s_1; ...; s_M] + b)``,
    ``F_m <- 2 sigmoid(W_m Z + b_m) * F_m``. Items may be vectors or maps ``(h, w, c)``, and differ between
    the streams. An absent modality squeezes to zero and stays absent. Reports the factors ``[batch, channels]`` of each
    stream, between 0 and 2, as ``intermediates/scale_NAME``.

    Attributes:
      dim: width of the joint ``Z``; None = a quarter of all channels, as in the paper.

    Example:
      >>> maps = {"image": Stream.of(jnp.ones((2, 1, 4, 4, 6))), "audio": Stream.of(jnp.ones((2, 5, 3)))}
      >>> exchanged, _ = MMTM().init_with_output(jax.random.key(0), maps)
      >>> exchanged["image"].values.shape
      (2, 1, 4, 4, 6)
    """

    dim: int | None = None
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, streams: Mapping[str, Stream], *, train: bool = False) -> dict[str, Stream]:
        streams = {name: stream.zeroed for name, stream in sorted(streams.items())}
        vectors = {name: stream.replace(values=_mean_of_map(stream.values)) for name, stream in streams.items()}
        check_streams(vectors)
        squeezed = jnp.concatenate([masked_mean(stream.values, stream.mask) for stream in vectors.values()], axis=-1)
        width = self.dim or max(1, squeezed.shape[-1] // 4)
        joint = jax.nn.relu(Dense(width, dtype=self.dtype, name="squeeze")(squeezed))
        excited = {}
        for name, stream in streams.items():
            values = stream.values
            scale = 2 * jax.nn.sigmoid(Dense(values.shape[-1], dtype=self.dtype, name=f"excite_{name}")(joint))
            self.sow("intermediates", f"scale_{name}", scale)
            scale = scale.reshape(scale.shape[0], *(1,) * (values.ndim - 2), scale.shape[-1])
            excited[name] = stream.replace(values=values * scale.astype(values.dtype))
        return excited


def _mean_of_map(values: jax.Array) -> jax.Array:
    """The mean of each item over its inner axes; the type stays, so that an integer stream is still refused."""
    return values.mean(tuple(range(2, values.ndim - 1)), dtype=values.dtype)
