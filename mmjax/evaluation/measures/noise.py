"""Noise of defined physical strength: pure functions ``(stream, key, severity) -> stream``.

Severity is a number in [0, 1], traced or not: one compiled program serves all levels and keys, also under ``vmap``.
Invariants of every family: severity 0 returns the input bit for bit; padding is untouched and excluded from a clip's
statistics; the dtype stays (bytes and 16-bit samples are rounded and clipped); with one key a lower severity is the
same noise scaled down, and drops a subset of the items.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mmjax.errors import UsageError
from mmjax.stream import Stream, apply_mask, where_mask
from mmjax.typing import Array, Bool, Float, Key, Mapping, Shaped

__all__ = [
    "NOISES",
    "Noise",
    "blur",
    "clipping",
    "default_noise",
    "default_noises",
    "drop_features",
    "drop_items",
    "gaussian_features",
    "gaussian_pixels",
    "jitter",
    "occlusion",
    "packet_loss",
    "replace_tokens",
    "salt_and_pepper",
    "snr_db",
    "white_noise",
]

FIRST_LEVEL = 0.1  # the lowest positive severity of the protocol: the SNR scale starts there
PACKETS = 50
_INTEGERS = {"uint8": (255, 0, 255), "int16": (32768, -32768, 32767)}  # full scale, minimum and maximum

Apply = Callable[[Stream, Key, Any], Stream]


@dataclasses.dataclass(frozen=True)
class Noise:
    """A family of noise; ``NOISES`` lists them as ``kind/name``.

    Attributes:
      name: of the family, one word.
      kind: of the streams it is for: text, image, audio, video or feature.
      apply: ``(stream, key, severity) -> stream``.
      scale: physical meaning of severities 0 to 1, for the data card and legends.
      raw: whether it applies to raw items (pixels, samples, ids), before a table's view, or to standardised features,
        after it.
    """

    name: str
    kind: str
    apply: Apply
    scale: str
    raw: bool


def _family(function: Callable[..., Stream]) -> Apply:
    """Adds the invariants of a family to a function of a zeroed stream.

    The function may drop items from the mask, not add any; dropped items become 0.
    """

    @functools.wraps(function)
    def apply(stream: Stream, key: Key, severity: Any, **options: Any) -> Stream:
        severity = jnp.asarray(severity, jnp.float32)
        noisy = function(stream.zeroed, key, severity, **options)
        changed = where_mask(stream.mask, stream.values) & (severity > 0)
        values = jnp.where(changed, apply_mask(noisy.values, noisy.mask), stream.values)
        return Stream(values, stream.mask & (noisy.mask | (severity <= 0)))

    return apply


@_family
def gaussian_pixels(stream: Stream, key: Key, severity: Any) -> Stream:
    """Pixels plus ``N(0, severity^2)``, in units of the range of pixels: 1 for floating ones, 255 for bytes.

    Floating pixels are not clipped; bytes are, which weakens their noise at the ends of the range.
    """
    return _with_gaussian(stream, key, severity)


@_family
def gaussian_features(stream: Stream, key: Key, severity: Any) -> Stream:
    """Features plus ``N(0, (2 severity)^2)``, for features of variance 1.

    Raises:
      ValueError: integers.
    """
    if not jnp.issubdtype(stream.values.dtype, jnp.floating):
        raise ValueError(f"features are floating and standardised, got {stream.values.dtype}")
    return _with_gaussian(stream, key, 2 * severity)


@_family
def salt_and_pepper(stream: Stream, key: Key, severity: Any) -> Stream:
    """Each pixel, in all its channels, becomes black (0) or white (1, for bytes 255) with probability ``severity``."""
    values, dims = _unit(stream.values), _picture(stream) + 2
    hit, white = jax.random.uniform(key, (2, *values.shape[:dims]))
    hit, white = where_mask(hit < severity, values), where_mask(white < 0.5, values)
    return stream.replace(values=_typed(jnp.where(hit, white.astype(values.dtype), values), stream.values.dtype))


@_family
def blur(stream: Stream, key: Key, severity: Any) -> Stream:
    """Gaussian blur of s.d. ``severity`` / 4 of the picture's shorter side, normalised at the edges; deterministic."""
    values, first = _unit(stream.values), _picture(stream)
    height, width = values.shape[first : first + 2]
    deviation = jnp.maximum(severity * min(height, width) / 4, 1e-3)

    def weights(size: int) -> Float[Array, "to from"]:
        distance = (jnp.arange(size)[:, None] - jnp.arange(size)) / deviation
        raw = jnp.exp(-(distance**2) / 2)
        return raw / raw.sum(1, keepdims=True)

    images = values.reshape(-1, height, width, math.prod(values.shape[first + 2 :]))
    blurred = jnp.einsum("ih,jw,nhwc->nijc", weights(height), weights(width), images, precision="highest")
    return stream.replace(values=_typed(blurred.reshape(values.shape), stream.values.dtype))


@_family
def occlusion(stream: Stream, key: Key, severity: Any) -> Stream:
    """A black window, ``severity`` of the picture's area, at a random place, the same in all frames of a row."""
    values, first = stream.values, _picture(stream)
    side, hidden = jnp.sqrt(severity), jnp.ones((), bool)
    places = jax.random.uniform(key, (2, values.shape[0]))
    for axis, place in zip((first, first + 1), places):
        size = values.shape[axis]
        start = (place * (1 - side) * size).reshape(-1, *(1,) * (values.ndim - 1))
        centre = (jnp.arange(size) + 0.5).reshape(-1, *(1,) * (values.ndim - 1 - axis))
        hidden = hidden & (centre >= start) & (centre <= start + side * size)
    return stream.replace(values=jnp.where(hidden, jnp.zeros((), values.dtype), values))


def snr_db(severity: Any) -> Any:
    """Signal-to-noise ratio of ``white_noise`` in decibels: linear, 30 at severity 0.1 and -10 at 1.

    Severity 0 is no noise, whatever this formula gives.
    """
    return 30 - 40 * (severity - FIRST_LEVEL) / (1 - FIRST_LEVEL)


@_family
def white_noise(stream: Stream, key: Key, severity: Any) -> Stream:
    """Waveforms in white Gaussian noise at ``snr_db(severity)`` below the clip's own mean power.

    The noise of each clip is scaled to exactly that power over its real samples, so the ratio holds for short clips
    too; a silent clip stays silent. 16-bit samples are clipped.
    """
    wave = _unit(stream.values)
    noise = apply_mask(jax.random.normal(key, wave.shape, wave.dtype), stream.mask)
    wanted = _power(wave, stream.mask) * 10 ** (-snr_db(severity) / 10)
    gain = jnp.sqrt(wanted / jnp.maximum(_power(noise, stream.mask), 1e-30))
    return stream.replace(values=_typed(wave + gain * noise, stream.values.dtype))


@_family
def clipping(stream: Stream, key: Key, severity: Any) -> Stream:
    """Waveforms cut off ``40 severity`` dB below the clip's own peak and rescaled to its power; deterministic."""
    wave = _unit(stream.values)
    peak = jnp.abs(wave).max(_clip_axes(wave, stream.mask), keepdims=True)
    limit = peak * 10 ** (-2 * severity)
    cut = jnp.clip(wave, -limit, limit)
    gain = jnp.sqrt(_power(wave, stream.mask) / jnp.maximum(_power(cut, stream.mask), 1e-30))
    return stream.replace(values=_typed(gain * cut, stream.values.dtype))


@_family
def packet_loss(stream: Stream, key: Key, severity: Any) -> Stream:
    """Each of 50 equal packets of a clip's real samples is silenced with probability ``severity``."""
    rank, count = _ranks(stream.mask)
    packet = jnp.clip(rank * PACKETS // jnp.maximum(count, 1), 0, PACKETS - 1)
    chance = jax.random.uniform(key, (*stream.mask.shape[:-1], PACKETS))
    silent = jnp.take_along_axis(chance, packet, axis=-1) < severity
    return stream.replace(values=apply_mask(stream.values, ~silent))


@_family
def drop_items(stream: Stream, key: Key, severity: Any) -> Stream:
    """Items (tokens, frames, steps) leave the mask with probability ``severity``: at 1 the modality is absent."""
    return stream.replace(mask=stream.mask & (jax.random.uniform(key, stream.mask.shape) >= severity))


@_family
def replace_tokens(stream: Stream, key: Key, severity: Any, *, vocabulary: int | None = None, first: int = 1) -> Stream:
    """Ids become other ids, uniformly drawn, with probability ``severity``.

    Args:
      vocabulary: number of ids; None = up to the highest real id of the stream.
      first: ids below it are special: they are neither replaced nor drawn.

    Raises:
      ValueError: values that are no ids ``[batch, ..., length]``.
    """
    ids = stream.values
    if not jnp.issubdtype(ids.dtype, jnp.integer) or ids.shape != stream.mask.shape:
        raise ValueError(f"tokens are integers, one per place of {stream.mask.shape=}, got {ids.dtype} {ids.shape}")
    key, other = jax.random.split(key)
    size = jnp.maximum((ids.max() + 1 if vocabulary is None else vocabulary) - first, 1)
    step = jax.random.randint(other, ids.shape, 1, jnp.maximum(size, 2))  # cyclic shift, never by 0
    moved = first + (ids.astype(jnp.int32) - first + step) % size
    hit = (jax.random.uniform(key, ids.shape) < severity) & (ids >= first)
    return stream.replace(values=jnp.where(hit, moved.astype(ids.dtype), ids))


@_family
def drop_features(stream: Stream, key: Key, severity: Any) -> Stream:
    """Each feature of each item becomes 0, the mean of standardised ones, with probability ``severity``."""
    keep = jax.random.uniform(key, stream.values.shape) >= severity
    return stream.replace(values=apply_mask(stream.values, keep))


@_family
def jitter(stream: Stream, key: Key, severity: Any) -> Stream:
    """Each step takes the item at a uniformly drawn offset of up to ``severity`` of the sequence's length.

    Offsets count real items only and are clipped to the sequence.
    """
    rank, count = _ranks(stream.mask)
    shift = severity * count * jax.random.uniform(key, stream.mask.shape, minval=-1.0)
    wanted = jnp.clip(jnp.round(rank + shift).astype(jnp.int32), 0, jnp.maximum(count - 1, 0))
    real_first = jnp.argsort(~stream.mask, axis=-1, stable=True)
    source = jnp.take_along_axis(real_first, wanted, axis=-1)
    axis = stream.mask.ndim - 1
    return stream.replace(values=jnp.take_along_axis(stream.values, where_mask(source, stream.values), axis=axis))


def default_noise(kind: str) -> Noise:
    """The default family of a kind, to which the scales of data cards refer.

    Raises:
      UsageError: an unknown kind.
    """
    if kind not in _DEFAULTS:
        raise UsageError(f"kind {kind!r} is not one of {', '.join(sorted(_DEFAULTS))}")
    return NOISES[f"{kind}/{_DEFAULTS[kind]}"]


def default_noises(kinds: Mapping[str, str]) -> dict[str, Noise]:
    """The default family of every stream, by the kinds of a data card.

    Raises:
      UsageError: an unknown kind.
    """
    return {name: default_noise(kind) for name, kind in sorted(kinds.items())}


def _with_gaussian(stream: Stream, key: Key, deviation: Any) -> Stream:
    values = _unit(stream.values)
    noisy = values + deviation * jax.random.normal(key, values.shape, values.dtype)
    return stream.replace(values=_typed(noisy, stream.values.dtype))


def _unit(values: Any) -> Any:
    """Floating values, at least of float32: bytes in [0, 1], 16-bit samples in [-1, 1), floating ones unchanged."""
    dtype = values.dtype
    if str(dtype) in _INTEGERS:
        return values.astype(jnp.float32) / _INTEGERS[str(dtype)][0]
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"this noise takes floating values, bytes (uint8) or 16-bit samples (int16), got {dtype}")
    return values.astype(jnp.promote_types(dtype, jnp.float32))


def _typed(values: Any, dtype: Any) -> Any:
    """The inverse of ``_unit``."""
    if str(dtype) in _INTEGERS:
        scale, least, greatest = _INTEGERS[str(dtype)]
        values = jnp.clip(jnp.round(values * scale), least, greatest)
    return values.astype(dtype)


def _picture(stream: Stream) -> int:
    """The axis of a picture's height; the next one is its width."""
    first = stream.mask.ndim
    if stream.values.ndim < first + 2:
        raise ValueError(f"pictures are [height, width, ...], got items of shape {stream.values.shape[first:]}")
    return first


def _clip_axes(wave: Any, mask: Any) -> tuple[int, ...]:
    return tuple(range(mask.ndim - 1, wave.ndim))


def _power(wave: Float[Array, "..."], mask: Bool[Array, "..."]) -> Float[Array, "..."]:
    """Mean square over each clip's real samples (padding is 0), axes kept; 0 for an empty clip."""
    axes = _clip_axes(wave, mask)
    count = jnp.broadcast_to(where_mask(mask, wave), wave.shape).sum(axes, keepdims=True)
    return (wave**2).sum(axes, keepdims=True) / jnp.maximum(count, 1)


def _ranks(mask: Bool[Array, "..."]) -> tuple[Shaped[Array, "..."], Shaped[Array, "..."]]:
    """For each place the number of real items before it, and for each sequence the number of all, ``[..., 1]``."""
    return jnp.maximum(jnp.cumsum(mask, axis=-1) - 1, 0), mask.sum(-1, keepdims=True)


_PIXELS = "pixels in [0, 1] + N(0, severity^2)"
_WINDOW = "black window of severity x area"
_SALT = "each pixel black or white with probability severity"
_BLUR = "Gaussian blur, s.d. severity / 4 of the shorter side"

NOISES: dict[str, Noise] = {
    f"{noise.kind}/{noise.name}": noise
    for noise in (
        *(
            Noise(name, kind, apply, scale, raw=True)
            for kind in ("image", "video")
            for name, apply, scale in (
                ("gaussian", gaussian_pixels, _PIXELS),
                ("salt_and_pepper", salt_and_pepper, _SALT),
                ("blur", blur, _BLUR),
                ("occlusion", occlusion, _WINDOW),
            )
        ),
        Noise("frame_drop", "video", drop_items, "each frame lost with probability severity", raw=True),
        Noise("white_noise", "audio", white_noise, "white noise, SNR 30 dB (severity 0.1) to -10 dB (1)", raw=True),
        Noise("clipping", "audio", clipping, "cut off 40 severity dB below the peak, same power", raw=True),
        Noise("packet_loss", "audio", packet_loss, "each of 50 packets silent with probability severity", raw=True),
        Noise("deletion", "text", drop_items, "each token lost with probability severity", raw=True),
        Noise("replacement", "text", replace_tokens, "each token another one with probability severity", raw=True),
        Noise("gaussian", "feature", gaussian_features, "standardised features + N(0, (2 severity)^2)", raw=False),
        Noise("dropout", "feature", drop_features, "each feature 0 with probability severity", raw=False),
        Noise("step_drop", "feature", drop_items, "each time step lost with probability severity", raw=False),
        Noise("jitter", "feature", jitter, "each time step from up to severity x length away", raw=False),
    )
}
"""Every family, by ``kind/name``."""

_DEFAULTS = {
    "image": "gaussian",
    "video": "gaussian",
    "audio": "white_noise",
    "text": "deletion",
    "feature": "gaussian",
}
